/* SPDX-License-Identifier: MIT */
/* Where masks of training samples come from, and what an inpainting model sees of them.  Refuses to
 * choose: chances come from the caller's stream, crops and mirroring from the caller. */
#include "data/masks.h"

#include <string.h>

#include "base/status.h"
#include "data/resample.h"

/* --- drawn masks --- */

/* n of `limit` pixels, from *at on. */
static int32_t draw_side(slr_rng *rng, int32_t limit, int32_t *at)
{
    int32_t n = 1 + (int32_t)slr_rng_below(rng, (uint64_t)limit);
    *at = (int32_t)slr_rng_below(rng, (uint64_t)(limit - n) + 1);
    return n;
}

void slr_masks_draw(slr_rng *rng, int32_t w, int32_t h, uint8_t *mask)
{
    int32_t left, top, wide = draw_side(rng, w, &left), high = draw_side(rng, h, &top);
    bool round = slr_rng_below(rng, 2) == 1;
    int64_t across = (int64_t)wide * wide, down = (int64_t)high * high;
    memset(mask, 0, (size_t)w * (size_t)h);
    for (int64_t y = 0; y < high; y++) {
        uint8_t *row = mask + (top + y) * w + left;
        for (int64_t x = 0; x < wide; x++) {
            /* twice the way from the middle of the box to that of the pixel */
            int64_t dx = 2 * x + 1 - wide, dy = 2 * y + 1 - high;
            row[x] = !round || dx * dx * down + dy * dy * across <= across * down;
        }
    }
}

/* --- own masks --- */

int slr_masks_check(const slr_picture_rule *r, const slr_item *item)
{
    slr_image_info info;
    int rc = slr_image_info_read(item->mask, &info);
    if (rc == SDLORA_ENOMEM)
        return rc;
    if (rc < 0)
        return slr_wrap("the mask of %s", item->path);
    bool turned = r->apply_exif && info.orientation >= 5;
    int32_t w = turned ? info.height : info.width, h = turned ? info.width : info.height;
    if (w != item->width || h != item->height)
        return slr_fail(SDLORA_EINVAL, __func__, "%s is %dx%d and its picture %dx%d", item->mask,
                        (int)w, (int)h, (int)item->width, (int)item->height);
    return SDLORA_OK;
}

/* ITU-R 601 in 16 bits behind the point, as Pillow has it. */
static uint32_t brightness(const uint8_t *rgb)
{
    return (rgb[0] * 19595u + rgb[1] * 38470u + rgb[2] * 7471u + 0x8000u) >> 16;
}

int slr_masks_read(const slr_picture_rule *r, slr_mem *m, const slr_item *item, slr_pixels *out)
{
    slr_picture_rule plain = *r;
    slr_item mask = *item;
    plain.background.drop = true;
    plain.filter = SLR_RESIZE_BILINEAR;
    mask.path = item->mask;
    mask.content_hash = item->mask_hash;
    SLR_TRY(slr_picture_read(&plain, m, &mask, out));
    size_t n = (size_t)out->width * (size_t)out->height;
    for (size_t i = 0; i < n; i++)
        out->data[i] = brightness(out->data + i * 3) >= 128;
    out->channels = 1;
    return SDLORA_OK;
}

void slr_masks_window(const slr_pixels *own, int32_t left, int32_t top, int32_t w, int32_t h,
                      bool flip, uint8_t *mask)
{
    for (int32_t y = 0; y < h; y++) {
        const uint8_t *row = own->data + (size_t)(top + y) * (size_t)own->width + left;
        for (int32_t x = 0; x < w; x++)
            *mask++ = row[flip ? w - 1 - x : x];
    }
}

/* --- what the model sees --- */

void slr_masks_cover(const uint8_t *mask, int64_t pixels, float *image)
{
    for (int64_t i = 0; i < pixels; i++)
        for (int64_t k = i * 3; mask[i] && k < i * 3 + 3; k++)
            image[k] = 0;
}

void slr_masks_join(const uint8_t *mask, int64_t w, int64_t h, int factor, const float *latents,
                    int64_t c, float *extra)
{
    for (int64_t y = 0; y < h; y += factor)
        for (int64_t x = 0; x < w; x += factor, extra += 1 + c, latents += c) {
            extra[0] = mask[y * w + x];
            memcpy(extra + 1, latents, (size_t)c * sizeof *extra);
        }
}
