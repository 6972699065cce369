/* SPDX-License-Identifier: MIT */
/* Gaussian blurs.  Knows how OpenCV rounds a kernel to 8 bits and how Pillow makes a Gaussian of
 * three boxes; refuses to know masks. */
#include "sample/blur.h"

#include <math.h>
#include <string.h>

#include "base/status.h"

/* --- OpenCV --- */

/* k[0..half]: the kernel from its end to its middle, in 256ths that sum to 256.  What rounding
 * takes from one weight is given to the next. */
static void kernel(double sigma, int half, int32_t *k)
{
    double sum = 0, carried = 0;
    int32_t given = 0;
    for (int i = 0; i < half; i++) {
        double x = i - half;
        sum += exp(-0.5 * x * x / (sigma * sigma));
    }
    sum = 2 * sum + 1;
    for (int i = 0; i < half; i++) {
        double x = i - half, want = exp(-0.5 * x * x / (sigma * sigma)) / sum * 256 + carried;
        k[i] = (int32_t)nearbyint(want);
        carried = want - k[i];
        given += k[i];
    }
    k[half] = 256 - 2 * given;
}

/* Mirrored: -1 is 1, n is n - 2. */
static size_t mirror(int64_t i, int64_t n)
{
    if (n == 1)
        return 0;
    while (i < 0 || i >= n)
        i = i < 0 ? -i : 2 * (n - 1) - i;
    return (size_t)i;
}

static void round_row(const int32_t *sum, size_t n, uint8_t *out)
{
    for (size_t i = 0; i < n; i++) {
        int32_t v = (sum[i] + 128) >> 8;
        out[i] = (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v);
    }
}

/* One row: wide has `half` mirrored pixels at either end. */
static void blur_row(const uint8_t *wide, const int32_t *k, int half, int32_t *sum, size_t n)
{
    for (size_t i = 0; i < n; i++)
        sum[i] = k[half] * wide[i + (size_t)half];
    for (int j = 0; j < half; j++) {
        const uint8_t *before = wide + j, *after = wide + 2 * half - j;
        for (size_t i = 0; i < n; i++)
            sum[i] += k[j] * (before[i] + after[i]);
    }
}

static void blur_along_x(slr_pixels *p, const int32_t *k, int half, uint8_t *wide, int32_t *sum)
{
    int64_t w = p->width;
    for (int32_t y = 0; y < p->height; y++) {
        uint8_t *row = p->data + (int64_t)y * w;
        for (int64_t i = -half; i < w + half; i++)
            wide[i + half] = row[mirror(i, w)];
        blur_row(wide, k, half, sum, (size_t)w);
        round_row(sum, (size_t)w, row);
    }
}

/* was: a copy of the picture. */
static void blur_along_y(slr_pixels *p, const int32_t *k, int half, const uint8_t *was,
                         int32_t *sum)
{
    size_t w = (size_t)p->width;
    for (int64_t y = 0; y < p->height; y++) {
        const uint8_t *middle = was + (size_t)y * w;
        for (size_t i = 0; i < w; i++)
            sum[i] = k[half] * middle[i];
        for (int j = 0; j < half; j++) {
            const uint8_t *before = was + mirror(y - half + j, p->height) * w,
                          *after = was + mirror(y + half - j, p->height) * w;
            for (size_t i = 0; i < w; i++)
                sum[i] += k[j] * (before[i] + after[i]);
        }
        round_row(sum, w, p->data + (size_t)y * w);
    }
}

int slr_blur_axis(slr_pixels *grey, slr_mem *m, double sigma, bool along_x)
{
    slr_require(grey->channels == 1 && sigma > 0 && sigma <= SLR_IMAGE_MAX_SIDE);
    int half = (int)(2.5 * sigma + 0.5);
    size_t w = (size_t)grey->width, h = (size_t)grey->height;
    int32_t *k = slr_calloc(m, (size_t)half + 1, sizeof *k), *sum = slr_calloc(m, w, sizeof *sum);
    uint8_t *was = along_x ? slr_alloc(m, w + 2 * (size_t)half) : slr_calloc(m, h, w);
    int rc = k && sum && was ? SDLORA_OK : SDLORA_ENOMEM;
    if (rc >= 0)
        kernel(sigma, half, k);
    if (rc >= 0 && along_x) {
        blur_along_x(grey, k, half, was, sum);
    } else if (rc >= 0) {
        memcpy(was, grey->data, w * h);
        blur_along_y(grey, k, half, was, sum);
    }
    slr_free(m, k);
    slr_free(m, sum);
    slr_free(m, was);
    return rc;
}

/* --- Pillow --- */

/* A box of 2 radius + 1 whole pixels and a part of one at each end: weights in 2^-24. */
typedef struct box {
    int32_t radius;
    uint32_t whole, part;
} box;

/* Three boxes of this size have the variance of the Gaussian (Gwosdek et al., "Theoretical
 * foundations of Gaussian convolution by extended box filtering"). */
static box box_for(float radius)
{
    float variance = radius * radius / 3.0f;
    float l = floorf(((float)sqrt(12.0 * variance + 1.0) - 1.0f) / 2.0f);
    float a = (2 * l + 1) * (l * (l + 1) - variance * 3);
    a /= 6 * (variance - (l + 1) * (l + 1));
    float r = l + a;
    box b = {.radius = (int32_t)r};
    b.whole = (uint32_t)((float)(1 << 24) / (r * 2 + 1));
    b.part = ((1u << 24) - (uint32_t)(b.radius * 2 + 1) * b.whole) / 2;
    return b;
}

/* Edges go on for ever: the row of n numbers that stands for number i. */
static const uint8_t *edged(const uint8_t *v, int64_t n, int64_t i, size_t row)
{
    return v + (size_t)(i < 0 ? 0 : i >= n ? n - 1 : i) * row;
}

/* One pass along a line of `n` numbers of `row` bytes each, which are independent: the channels of
 * a pixel, or a whole row of the picture.  The running sums may wrap in between, as unsigned
 * numbers do, and come out right. */
static void box_pass(const box *b, const uint8_t *in, uint8_t *out, int64_t n, size_t row,
                     uint32_t *sum)
{
    int64_t r = b->radius;
    memset(sum, 0, row * sizeof *sum);
    for (int64_t i = -r - 1; i < r; i++) {
        const uint8_t *v = edged(in, n, i, row);
        for (size_t k = 0; k < row; k++)
            sum[k] += v[k];
    }
    for (int64_t i = 0; i < n; i++, out += row) {
        const uint8_t *before = edged(in, n, i - r - 1, row), *last = edged(in, n, i + r, row),
                      *after = edged(in, n, i + r + 1, row);
        for (size_t k = 0; k < row; k++) {
            sum[k] += (uint32_t)last[k] - before[k];
            uint32_t v = sum[k] * b->whole + ((uint32_t)before[k] + after[k]) * b->part;
            out[k] = (uint8_t)((v + (1u << 23)) >> 24);
        }
    }
}

/* Three passes from `data` and back to it; other: as large. */
static void boxes(const box *b, uint8_t *data, uint8_t *other, int64_t n, size_t row, uint32_t *sum)
{
    box_pass(b, data, other, n, row, sum);
    box_pass(b, other, data, n, row, sum);
    box_pass(b, data, other, n, row, sum);
    memcpy(data, other, (size_t)n * row);
}

int slr_blur_boxes(slr_pixels *p, slr_mem *m, float radius)
{
    slr_require(radius >= 0 && radius <= 1024);
    if (radius == 0)
        return SDLORA_OK;
    box b = box_for(radius);
    size_t c = (size_t)p->channels, row = (size_t)p->width * c, h = (size_t)p->height;
    uint8_t *other = slr_calloc(m, h, row);
    uint32_t *sum = slr_calloc(m, row, sizeof *sum);
    int rc = other && sum ? SDLORA_OK : SDLORA_ENOMEM;
    for (size_t y = 0; rc >= 0 && y < h; y++)
        boxes(&b, p->data + y * row, other, p->width, c, sum);
    if (rc >= 0)
        boxes(&b, p->data, other, p->height, row, sum);
    slr_free(m, other);
    slr_free(m, sum);
    return rc;
}
