/* SPDX-License-Identifier: MIT */
/* Pictures cut, pasted and laid over one another.  Knows the roundings of Pillow's 8-bit
 * arithmetic, so that a pasted-back picture has the bytes that users know; refuses to know masks'
 * meaning and sizes of models. */
#include "sample/compose.h"

#include <string.h>

#include "base/status.h"

/* a / 255, rounded, for a up to 255 * 255. */
static uint8_t div255(uint32_t a)
{
    a += 128;
    return (uint8_t)(((a >> 8) + a) >> 8);
}

static size_t row_of(const slr_pixels *p, int32_t y)
{
    return (size_t)y * (size_t)p->width * (size_t)p->channels;
}

static size_t area(const slr_pixels *p)
{
    return (size_t)p->width * (size_t)p->height;
}

int slr_picture_zero(slr_pixels *p, slr_mem *m, int32_t w, int32_t h, int32_t channels)
{
    size_t row;
    *p = (slr_pixels){w, h, channels, NULL};
    slr_require(w > 0 && h > 0 && channels > 0);
    if (!slr_mul_ok((size_t)w, (size_t)channels, &row))
        return slr_nomem(__func__, SIZE_MAX);
    p->data = slr_calloc(m, (size_t)h, row);
    return p->data ? SDLORA_OK : SDLORA_ENOMEM;
}

int slr_picture_copy(slr_pixels *out, slr_mem *m, const slr_pixels *p)
{
    return slr_picture_crop(out, m, p, 0, 0, p->width, p->height);
}

int slr_picture_crop(slr_pixels *out, slr_mem *m, const slr_pixels *p, int32_t x, int32_t y,
                     int32_t w, int32_t h)
{
    size_t c = (size_t)p->channels;
    int64_t left = x < 0 ? 0 : x, right = (int64_t)x + w;
    right = right > p->width ? p->width : right;
    SLR_TRY(slr_picture_zero(out, m, w, h, p->channels));
    for (int32_t i = 0; i < h && left < right; i++) {
        int64_t from = (int64_t)y + i;
        if (from < 0 || from >= p->height)
            continue;
        memcpy(out->data + row_of(out, i) + (size_t)(left - x) * c,
               p->data + row_of(p, (int32_t)from) + (size_t)left * c, (size_t)(right - left) * c);
    }
    return SDLORA_OK;
}

void slr_picture_paste(slr_pixels *dst, const slr_pixels *src, int32_t x, int32_t y)
{
    for (int32_t i = 0; i < src->height; i++)
        for (int32_t j = 0; j < src->width; j++) {
            int64_t to_y = (int64_t)y + i, to_x = (int64_t)x + j;
            if (to_y < 0 || to_y >= dst->height || to_x < 0 || to_x >= dst->width)
                continue;
            uint8_t *to =
                dst->data + row_of(dst, (int32_t)to_y) + (size_t)to_x * (size_t)dst->channels;
            memcpy(to, src->data + row_of(src, i) + (size_t)j * (size_t)src->channels,
                   (size_t)src->channels);
            if (dst->channels == 4 && src->channels == 3)
                to[3] = 255;
        }
}

/* One pixel over another, with seven bits behind the point. */
static void over(uint8_t *dst, const uint8_t *src)
{
    enum { BITS = 7 };
    if (!src[3])
        return;
    uint32_t out255 = src[3] * 255u + dst[3] * (255u - src[3]);
    uint32_t part = src[3] * 255u * 255u * (1u << BITS) / out255, rest = 255u * (1u << BITS) - part;
    for (int c = 0; c < 3; c++) {
        uint32_t sum = src[c] * part + dst[c] * rest + (128u << BITS);
        dst[c] = (uint8_t)((((sum >> 8) + sum) >> 8) >> BITS);
    }
    dst[3] = div255(out255);
}

void slr_picture_over(slr_pixels *dst, const slr_pixels *src)
{
    int32_t w = dst->width < src->width ? dst->width : src->width;
    int32_t h = dst->height < src->height ? dst->height : src->height;
    for (int32_t y = 0; y < h; y++)
        for (int32_t x = 0; x < w; x++)
            over(dst->data + row_of(dst, y) + (size_t)x * 4,
                 src->data + row_of(src, y) + (size_t)x * 4);
}

int slr_picture_unmasked(slr_pixels *out, slr_mem *m, const slr_pixels *rgb, const slr_pixels *mask)
{
    slr_require(rgb->channels == 3 && mask->channels == 1);
    slr_require(rgb->width == mask->width && rgb->height == mask->height);
    SLR_TRY(slr_picture_zero(out, m, rgb->width, rgb->height, 4));
    for (size_t i = 0; i < area(rgb); i++) {
        uint32_t keep = 255u - mask->data[i];
        for (size_t c = 0; c < 3; c++)
            out->data[i * 4 + c] = div255(rgb->data[i * 3 + c] * keep);
        out->data[i * 4 + 3] = (uint8_t)keep;
    }
    return SDLORA_OK;
}

void slr_picture_straight(slr_pixels *p)
{
    for (size_t i = 0; i < area(p); i++) {
        uint8_t *v = p->data + i * 4;
        if (v[3] == 0 || v[3] == 255)
            continue;
        for (int c = 0; c < 3; c++) {
            uint32_t full = 255u * v[c] / v[3];
            v[c] = (uint8_t)(full > 255 ? 255 : full);
        }
    }
}

int slr_picture_flatten(slr_pixels *out, slr_mem *m, const slr_pixels *p, const uint8_t colour[3])
{
    SLR_TRY(slr_picture_rgb(out, m, p));
    for (size_t i = 0; p->channels == 4 && i < area(p); i++) {
        uint32_t a = p->data[i * 4 + 3];
        for (size_t c = 0; c < 3; c++)
            out->data[i * 3 + c] = div255(p->data[i * 4 + c] * a + colour[c] * (255u - a));
    }
    return SDLORA_OK;
}

int slr_picture_rgb(slr_pixels *out, slr_mem *m, const slr_pixels *p)
{
    size_t from = (size_t)p->channels;
    SLR_TRY(slr_picture_zero(out, m, p->width, p->height, 3));
    for (size_t i = 0; i < area(p); i++)
        for (size_t c = 0; c < 3; c++)
            out->data[i * 3 + c] = p->data[i * from + (from > 1 ? c : 0)];
    return SDLORA_OK;
}
