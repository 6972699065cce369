/* SPDX-License-Identifier: MIT */
/* The body of the picture targets: header and pixels agree, every pixel is there, and texts are
 * UTF-8 that a picture can carry again. */
#ifndef PICTURE_H
#define PICTURE_H

#include "base/str.h"
#include "fuzz.h"
#include "io/image.h"

static inline void fuzz_texts(slr_mem *m, const uint8_t *data, size_t size)
{
    static const uint8_t grey[3] = {9, 9, 9};
    slr_image_texts texts, again;
    void *bytes;
    size_t n;
    if (slr_image_texts_parse(&texts, m, data, size, "fuzz") == 0) {
        for (size_t i = 0; i < texts.n; i++) {
            const char *text = texts.at[i].text;
            FUZZ_CHECK(slr_utf8_valid(text, strlen(text)) == strlen(text));
        }
        slr_pixels p = {1, 1, 3, (uint8_t *)(uintptr_t)grey};
        slr_image_save how = {.text = "x", .others = &texts};
        FUZZ_CHECK(slr_image_encode(m, &p, "png", &how, &bytes, &n) == 0);
        FUZZ_CHECK(slr_image_texts_parse(&again, m, bytes, n, "fuzz") == 0);
        FUZZ_CHECK(again.n <= texts.n + 1 && slr_image_texts_get(&again, "parameters"));
        slr_image_texts_free(&again);
        slr_free(m, bytes);
    }
    slr_image_texts_free(&texts);
}

static inline void fuzz_picture(const uint8_t *data, size_t size)
{
    slr_mem *m = fuzz_mem();
    slr_image_info info;
    slr_pixels p;
    int rc = slr_image_info_parse(data, size, "fuzz", &info);
    if (rc == 0)
        FUZZ_CHECK(info.width > 0 && info.height > 0 && info.orientation >= 1 &&
                   info.orientation <= 8);
    for (int alpha = 0; alpha < 2; alpha++)
        if (slr_image_decode_limit(m, data, size, "fuzz", alpha, 1 << 20, &p) == 0) {
            FUZZ_CHECK(p.channels == 3 || (alpha && p.channels == 4));
            FUZZ_CHECK(rc < 0 || (p.width == info.width && p.height == info.height));
            fuzz_touch(p.data, (size_t)p.width * (size_t)p.height * (size_t)p.channels);
            FUZZ_CHECK(slr_image_orient(m, &p, rc == 0 ? info.orientation : 5) == 0);
            slr_free(m, p.data);
        }
    fuzz_texts(m, data, size);
    fuzz_mem_done(m);
}

#endif
