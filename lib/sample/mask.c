/* SPDX-License-Identifier: MIT */
/* Masks of inpainting: where they come from, what box they lie in, what latents see of them, and
 * what is put under them.  Knows AUTOMATIC1111's rules; refuses to know models. */
#include "sample/mask.h"

#include <string.h>

#include "base/status.h"
#include "data/resample.h"
#include "sample/blur.h"
#include "sample/compose.h"

static size_t area(const slr_pixels *p)
{
    return (size_t)p->width * (size_t)p->height;
}

static bool transparent(const slr_pixels *p)
{
    for (size_t i = 0; p->channels == 4 && i < area(p); i++)
        if (p->data[i * 4 + 3] != 255)
            return true;
    return false;
}

/* ITU-R 601 in 16 bits behind the point, as Pillow has it. */
static uint8_t brightness(const uint8_t *rgb)
{
    return (uint8_t)((rgb[0] * 19595u + rgb[1] * 38470u + rgb[2] * 7471u + 0x8000u) >> 16);
}

int slr_mask_of(slr_pixels *out, slr_mem *m, const slr_pixels *p, bool sharp)
{
    bool alpha = transparent(p);
    size_t c = (size_t)p->channels;
    SLR_TRY(slr_picture_zero(out, m, p->width, p->height, 1));
    for (size_t i = 0; i < area(p); i++) {
        const uint8_t *v = p->data + i * c;
        out->data[i] = alpha && sharp ? (v[3] > 128 ? 255 : 0)
                       : alpha        ? v[3]
                       : c == 1       ? v[0]
                                      : brightness(v);
    }
    return SDLORA_OK;
}

void slr_mask_invert(slr_pixels *mask)
{
    for (size_t i = 0; i < area(mask); i++)
        mask->data[i] = (uint8_t)(255 - mask->data[i]);
}

void slr_mask_double(slr_pixels *mask)
{
    for (size_t i = 0; i < area(mask); i++)
        mask->data[i] = (uint8_t)(mask->data[i] > 127 ? 255 : 2 * mask->data[i]);
}

bool slr_mask_box(const slr_pixels *mask, int32_t padding, slr_box *out)
{
    int32_t left = mask->width, top = mask->height, right = 0, bottom = 0;
    for (int32_t y = 0; y < mask->height; y++)
        for (int32_t x = 0; x < mask->width; x++) {
            if (!mask->data[(size_t)y * (size_t)mask->width + (size_t)x])
                continue;
            left = x < left ? x : left;
            right = x + 1 > right ? x + 1 : right;
            top = y < top ? y : top;
            bottom = y + 1;
        }
    if (right == 0)
        return false;
    left = left > padding ? left - padding : 0;
    top = top > padding ? top - padding : 0;
    right = right < mask->width - padding ? right + padding : mask->width;
    bottom = bottom < mask->height - padding ? bottom + padding : mask->height;
    *out = (slr_box){left, top, right - left, bottom - top};
    return true;
}

/* One side of a box made longer by `more`, then moved into [0, limit) and cut there. */
static void lengthen(int32_t *at, int32_t *n, int32_t more, int32_t limit)
{
    int32_t from = *at - more / 2, to = *at + *n + (more - more / 2);
    if (to >= limit) {
        from -= to - limit;
        to = limit;
    }
    if (from < 0) {
        to -= from;
        from = 0;
    }
    *at = from;
    *n = (to > limit ? limit : to) - from;
}

void slr_box_shape(slr_box *b, int32_t w, int32_t h, int32_t image_w, int32_t image_h)
{
    double own = (double)b->w / b->h, wanted = (double)w / h;
    if (own > wanted)
        lengthen(&b->y, &b->h, (int32_t)(b->w / wanted - b->h), image_h);
    else
        lengthen(&b->x, &b->w, (int32_t)(b->h * wanted - b->w), image_w);
}

int slr_mask_latent(const slr_pixels *mask, slr_mem *m, int64_t h, int64_t w, bool sharp,
                    float *out)
{
    slr_pixels small;
    SLR_TRY(slr_resize(m, mask, (int32_t)w, (int32_t)h, SLR_RESIZE_BICUBIC, &small));
    for (size_t i = 0; i < area(&small); i++)
        out[i] = sharp ? (small.data[i] > 127 ? 1.0f : 0.0f) : (float)small.data[i] / 255.0f;
    slr_free(m, small.data);
    return SDLORA_OK;
}

int slr_mask_fill(slr_pixels *rgb, slr_mem *m, const slr_pixels *mask)
{
    static const struct {
        float radius;
        int times;
    } layer[] = {{256, 1}, {64, 1}, {16, 2}, {4, 4}, {2, 2}, {0, 1}};
    slr_pixels rest, sum, blurred;
    SLR_TRY(slr_picture_unmasked(&rest, m, rgb, mask));
    int rc = slr_picture_zero(&sum, m, rgb->width, rgb->height, 4);
    for (size_t i = 0; rc >= 0 && i < sizeof layer / sizeof *layer; i++) {
        rc = slr_picture_copy(&blurred, m, &rest);
        if (rc < 0)
            break;
        rc = slr_blur_boxes(&blurred, m, layer[i].radius);
        slr_picture_straight(&blurred);
        for (int k = 0; rc >= 0 && k < layer[i].times; k++)
            slr_picture_over(&sum, &blurred);
        slr_free(m, blurred.data);
    }
    for (size_t i = 0; rc >= 0 && i < area(rgb); i++)
        memcpy(rgb->data + i * 3, sum.data + i * 4, 3);
    slr_free(m, rest.data);
    slr_free(m, sum.data);
    return rc;
}
