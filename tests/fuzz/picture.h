/* SPDX-License-Identifier: MIT */
/* The body of the picture targets: header and pixels agree, and every pixel is there. */
#ifndef PICTURE_H
#define PICTURE_H

#include "fuzz.h"
#include "io/image.h"

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
    fuzz_mem_done(m);
}

#endif
