/* SPDX-License-Identifier: MIT */
/* Sizes of hires fix.  Knows AUTOMATIC1111's whole-pixel arithmetic; refuses to know pictures. */
#include "sample/hires.h"

#include <stdbool.h>

#include "base/status.h"
#include "io/image.h"

/* a / b towards minus infinity. */
static int64_t floor_div(int64_t a, int64_t b)
{
    return a / b - (a % b < 0);
}

int slr_hires_fit(slr_hires_size *out, int32_t width, int32_t height, double scale,
                  int32_t resize_x, int32_t resize_y, int factor)
{
    int64_t unit = (int64_t)1 << factor, x = resize_x, y = resize_y, cut_x = 0, cut_y = 0;
    slr_require(width > 0 && height > 0 && resize_x >= 0 && resize_y >= 0);
    if (!x && !y) {
        double sx = width * scale, sy = height * scale;
        bool fits = sx >= 1 && sy >= 1 && sx <= SLR_IMAGE_MAX_SIDE && sy <= SLR_IMAGE_MAX_SIDE;
        x = fits ? (int64_t)sx : 0;
        y = fits ? (int64_t)sy : 0;
    } else if (!y || (x && (int64_t)width * resize_y < (int64_t)height * resize_x)) {
        y = x * height / width; /* the width decides */
    } else {
        x = y * width / height;
    }
    if (resize_x && resize_y) {
        cut_x = floor_div(x - resize_x, unit);
        cut_y = floor_div(y - resize_y, unit);
    }
    *out = (slr_hires_size){(int32_t)x, (int32_t)y, x / unit - cut_x, y / unit - cut_y};
    if (x < 1 || y < 1 || x > SLR_IMAGE_MAX_SIDE || y > SLR_IMAGE_MAX_SIDE || out->w < 1 ||
        out->h < 1 || out->w > x / unit || out->h > y / unit)
        return slr_fail(
            SDLORA_EINVAL, __func__,
            "hires fix of %dx%d by %g or to %dx%d: sides must be from %lld to %d pixels", width,
            height, scale, resize_x, resize_y, (long long)unit, SLR_IMAGE_MAX_SIDE);
    return SDLORA_OK;
}
