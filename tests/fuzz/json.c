/* SPDX-License-Identifier: MIT */
/* JSON: what is accepted is a value, and any bytes can be quoted into a string that is accepted. */
#include "fuzz.h"
#include "io/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    slr_mem *m = fuzz_mem();
    json_t *j = NULL;
    FUZZ_CHECK((slr_json_parse(&j, (const char *)data, size, "fuzz") == 0) == (j != NULL));
    json_decref(j);
    for (int ascii = 0; ascii < 2 && !memchr(data, 0, size); ascii++) {
        slr_buf b;
        slr_buf_init(&b, m);
        slr_json_quote(&b, (const char *)data, size, ascii);
        if (slr_buf_ok(&b) == 0) {
            FUZZ_CHECK(slr_json_parse(&j, b.data, b.len, "quoted") == 0);
            json_decref(j);
        }
        slr_buf_free(&b);
    }
    fuzz_mem_done(m);
    return 0;
}
