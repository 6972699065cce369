/* SPDX-License-Identifier: MIT */
/* PNG: pixels, and text chunks by hand. */
#include "picture.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    slr_mem *m = fuzz_mem();
    char *text = NULL;
    int rc =
        slr_png_text_find(m, size ? data : (const uint8_t *)"", size, "fuzz", "parameters", &text);
    FUZZ_CHECK((rc == 0) == (text != NULL));
    if (text)
        fuzz_touch(text, strlen(text));
    slr_free(m, text);
    fuzz_mem_done(m);
    fuzz_picture(data, size);
    return 0;
}
