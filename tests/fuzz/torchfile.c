/* SPDX-License-Identifier: MIT */
/* Torch files of both containers: every tensor that comes out can be read in full.  Checksums of
 * the pickle stop most changes to it, so the input may also be a bare pickle, behind a 'P'. */
#include "fuzz.h"
#include "io/pickle.h"
#include "io/torchfile.h"

static void bare_pickle(slr_mem *m, const uint8_t *data, size_t size)
{
    slr_pickle p;
    slr_value *v = NULL;
    FUZZ_CHECK(slr_pickle_init(&p, m, data, size, "fuzz") == 0);
    FUZZ_CHECK((slr_pickle_run(&p, &v) == 0) == (v != NULL));
    if (v && v->kind == SLR_PY_DICT)
        for (uint32_t i = 0; i < v->n; i++)
            if (v->u.item[i]->kind == SLR_PY_TENSOR) {
                slr_py_tensor t;
                const char *why = NULL;
                if (slr_py_tensor_of(v->u.item[i], &t, &why) < 0)
                    FUZZ_CHECK(why != NULL);
            }
    slr_pickle_free(&p);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    slr_mem *m = fuzz_mem();
    slr_torchfile *f = NULL;
    if (size && data[0] == 'P' && (size < 2 || data[1] != 'K'))
        bare_pickle(m, data + 1, size - 1);
    else if (slr_torchfile_parse(&f, m, data, size, "fuzz") == 0)
        for (size_t i = 0; i < slr_torchfile_count(f); i++) {
            slr_tensor t;
            slr_torchfile_at(f, i, &t);
            fuzz_touch(t.data, slr_tensor_bytes(&t));
        }
    slr_torchfile_close(f);
    fuzz_mem_done(m);
    return 0;
}
