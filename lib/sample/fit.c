/* SPDX-License-Identifier: MIT */
/* Fitting a picture into a frame: stretched, cropped or with borders filled.  Knows the sizes that
 * AUTOMATIC1111 computes, in whole pixels; resampling is the room data's. */
#include "sample/fit.h"

#include "base/status.h"
#include "data/resample.h"
#include "sample/compose.h"

/* To w x h exactly. */
static int resize(slr_pixels *out, slr_mem *m, const slr_pixels *p, int32_t w, int32_t h,
                  const slr_enlarge *by)
{
    slr_pixels large;
    if (!by || !by->fn || p->channels != 3 || (w <= p->width && h <= p->height))
        return slr_resize(m, p, w, h, SLR_RESIZE_LANCZOS, out);
    SLR_TRY(by->fn(by->user, p, w, h, &large));
    if (large.width == w && large.height == h) {
        *out = large;
        return SDLORA_OK;
    }
    int rc = slr_resize(m, &large, w, h, SLR_RESIZE_LANCZOS, out);
    slr_free(m, large.data);
    return rc;
}

/* What Pillow's bicubic filter makes of an empty box at a picture's edge, which is how the original
 * asks for borders: 9/8 of the edge less 1/8 of its neighbour. */
static uint8_t beyond(int edge, int next)
{
    int v = (9 * edge - next + 4) >> 3;
    return (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v);
}

/* Fills out's rows or columns [at, at + n) from p's edge; step: from there into p. */
static void border(slr_pixels *out, const slr_pixels *p, bool rows, int32_t at, int32_t n,
                   int32_t edge, int32_t step)
{
    int32_t across = rows ? out->width : out->height, c = p->channels;
    int32_t sides = rows ? p->height : p->width, next = sides > 1 ? edge + step : edge;
    for (int32_t i = at; i < at + n; i++)
        for (int32_t j = 0; j < across; j++)
            for (int32_t k = 0; k < c; k++) {
                size_t w = (size_t)p->width, y = (size_t)(rows ? edge : j),
                       x = (size_t)(rows ? j : edge), ny = (size_t)(rows ? next : j),
                       nx = (size_t)(rows ? j : next), to_y = (size_t)(rows ? i : j),
                       to_x = (size_t)(rows ? j : i);
                out->data[(to_y * (size_t)out->width + to_x) * (size_t)c + (size_t)k] =
                    beyond(p->data[(y * w + x) * (size_t)c + (size_t)k],
                           p->data[(ny * w + nx) * (size_t)c + (size_t)k]);
            }
}

static void borders(slr_pixels *out, const slr_pixels *p)
{
    int32_t top = out->height / 2 - p->height / 2, left = out->width / 2 - p->width / 2;
    if (p->width == out->width && top > 0) {
        int32_t below = out->height - top - p->height; /* one row is left black when odd */
        border(out, p, true, 0, top, 0, 1);
        border(out, p, true, top + p->height, below < top ? below : top, p->height - 1, -1);
    } else if (p->height == out->height && left > 0) {
        int32_t right = out->width - left - p->width;
        border(out, p, false, 0, left, 0, 1);
        border(out, p, false, left + p->width, right < left ? right : left, p->width - 1, -1);
    }
}

int slr_fit(slr_pixels *out, slr_mem *m, const slr_pixels *p, int mode, int32_t w, int32_t h,
            const slr_enlarge *by)
{
    slr_pixels sized;
    *out = (slr_pixels){0};
    slr_require(w > 0 && h > 0 && mode >= SLR_FIT_STRETCH && mode <= SLR_FIT_LATENT);
    if (mode == SLR_FIT_STRETCH)
        return resize(out, m, p, w, h, by);
    double ratio = (double)w / h, own = (double)p->width / p->height;
    bool crop = mode == SLR_FIT_CROP;
    int64_t by_h = (int64_t)p->width * h / p->height, by_w = (int64_t)p->height * w / p->width;
    int64_t sw = (crop ? ratio > own : ratio < own) ? w : by_h;
    int64_t sh = (crop ? ratio <= own : ratio >= own) ? h : by_w;
    if (sw < 1 || sh < 1 || sw > SLR_IMAGE_MAX_SIDE || sh > SLR_IMAGE_MAX_SIDE)
        return slr_fail(SDLORA_EINVAL, __func__,
                        "a picture of %dx%d cannot be fitted into %dx%d: it would have to be "
                        "%lldx%lld",
                        p->width, p->height, w, h, (long long)sw, (long long)sh);
    SLR_TRY(resize(&sized, m, p, (int32_t)sw, (int32_t)sh, by));
    int rc = slr_picture_zero(out, m, w, h, p->channels);
    if (rc >= 0)
        slr_picture_paste(out, &sized, w / 2 - (int32_t)sw / 2, h / 2 - (int32_t)sh / 2);
    if (rc >= 0 && !crop)
        borders(out, &sized);
    slr_free(m, sized.data);
    return rc;
}
