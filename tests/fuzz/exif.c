/* SPDX-License-Identifier: MIT */
/* EXIF orientation and user comment from a bare TIFF structure. */
#include "base/str.h"
#include "fuzz.h"
#include "io/codec.h"

static void comment(const uint8_t *data, size_t size)
{
    slr_mem *m = fuzz_mem();
    slr_image_texts texts = {.m = m};
    slr_source s;
    size_t at, n;
    slr_buf b;
    slr_buf_init(&b, m);
    if (slr_exif_comment(data, size, &at, &n)) {
        FUZZ_CHECK(at <= size && n <= size - at);
        slr_exif_comment_text(&b, data + at, n);
        FUZZ_CHECK(!b.len || slr_utf8_valid(b.data, b.len) == b.len);
    }
    slr_buf_free(&b);
    slr_exif_comment_text(&b, data, size);
    FUZZ_CHECK(!b.len || slr_utf8_valid(b.data, b.len) == b.len);
    slr_buf_free(&b);
    slr_source_memory(&s, data, size, "fuzz");
    slr_exif_texts(&s, 0, size, &texts);
    slr_image_texts_free(&texts);
    fuzz_mem_done(m);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    slr_source s;
    int a = slr_exif_orientation(data, size), b;
    FUZZ_CHECK(a >= 1 && a <= 8);
    slr_source_memory(&s, data, size, "fuzz");
    b = slr_exif_from(&s, 0, size);
    FUZZ_CHECK(b >= 1 && b <= 8);
    comment(data, size);
    return 0;
}
