/* SPDX-License-Identifier: MIT */
/* Safetensors files: whatever is accepted can be read in full and written again. */
#include "fuzz.h"
#include "io/safetensors.h"

static void write_again(slr_mem *m, const slr_safetensors *f)
{
    size_t n = slr_safetensors_count(f), n_meta = slr_safetensors_meta_count(f), n_out;
    slr_st_entry *e = slr_calloc(m, n + 1, sizeof *e);
    slr_st_pair *pair = slr_calloc(m, n_meta + 1, sizeof *pair);
    void *out = NULL;
    FUZZ_CHECK(e && pair);
    for (size_t i = 0; i < n; i++)
        e[i].name = slr_safetensors_at(f, i, &e[i].t);
    for (size_t i = 0; i < n_meta; i++)
        pair[i].key = slr_safetensors_meta_at(f, i, &pair[i].value);
    if (slr_safetensors_encode(m, e, n, pair, n_meta, &out, &n_out, NULL) == 0) {
        slr_safetensors *g = NULL;
        FUZZ_CHECK(slr_safetensors_parse(&g, m, out, n_out, "again") == 0);
        FUZZ_CHECK(slr_safetensors_count(g) == n);
        slr_safetensors_close(g);
    }
    slr_free(m, out);
    slr_free(m, pair);
    slr_free(m, e);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    slr_mem *m = fuzz_mem();
    slr_safetensors *f = NULL;
    if (slr_safetensors_parse(&f, m, data, size, "fuzz") == 0) {
        for (size_t i = 0; i < slr_safetensors_count(f); i++) {
            slr_tensor t, u;
            const char *name = slr_safetensors_at(f, i, &t);
            FUZZ_CHECK(slr_safetensors_find(f, name, &u) && u.id == t.id);
            if (t.data)
                fuzz_touch(t.data, slr_tensor_bytes(&t));
        }
        write_again(m, f);
    }
    slr_safetensors_close(f);
    fuzz_mem_done(m);
    return 0;
}
