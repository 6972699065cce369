/* SPDX-License-Identifier: MIT */
/* Gaussian blurs.  Knows how OpenCV rounds a kernel to 8 bits and how Pillow makes a Gaussian of
 * three boxes; refuses to know masks. */
#include "sample/blur.h"

#include <math.h>
#include <string.h>

#include "base/status.h"

/* A row or a column of one channel: n bytes, `step` apart. */
typedef struct line {
    uint8_t *at;
    size_t n, step;
} line;

static line line_of(const slr_pixels *p, bool along_x, size_t i, size_t channel)
{
    size_t c = (size_t)p->channels, w = (size_t)p->width;
    return along_x ? (line){p->data + i * w * c + channel, w, c}
                   : (line){p->data + i * c + channel, (size_t)p->height, w * c};
}

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

static void blur_line(line l, const int32_t *k, int half, uint8_t *was)
{
    for (size_t i = 0; i < l.n; i++)
        was[i] = l.at[i * l.step];
    for (size_t i = 0; i < l.n; i++) {
        int32_t sum = 128 + k[half] * was[i];
        for (int j = 0; j < half; j++) {
            int64_t off = half - j, n = (int64_t)l.n, at = (int64_t)i;
            bool inside = at >= off && at + off < n;
            size_t a = inside ? i - (size_t)off : mirror(at - off, n);
            size_t b = inside ? i + (size_t)off : mirror(at + off, n);
            sum += k[j] * (was[a] + was[b]);
        }
        sum >>= 8;
        l.at[i * l.step] = (uint8_t)(sum < 0 ? 0 : sum > 255 ? 255 : sum);
    }
}

int slr_blur_axis(slr_pixels *grey, slr_mem *m, double sigma, bool along_x)
{
    slr_require(grey->channels == 1 && sigma > 0 && sigma <= SLR_IMAGE_MAX_SIDE);
    int half = (int)(2.5 * sigma + 0.5);
    size_t n = (size_t)(along_x ? grey->width : grey->height),
           lines = (size_t)(along_x ? grey->height : grey->width);
    int32_t *k = slr_calloc(m, (size_t)half + 1, sizeof *k);
    uint8_t *was = slr_alloc(m, n);
    if (k && was) {
        kernel(sigma, half, k);
        for (size_t i = 0; i < lines; i++)
            blur_line(line_of(grey, along_x, i, 0), k, half, was);
    }
    int rc = k && was ? SDLORA_OK : SDLORA_ENOMEM;
    slr_free(m, k);
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

/* Edges go on for ever. */
static uint32_t edged(const uint8_t *v, int64_t n, int64_t i)
{
    return v[i < 0 ? 0 : i >= n ? n - 1 : i];
}

/* The running sum may wrap in between, as unsigned numbers do, and comes out right. */
static void box_line(line l, const box *b, uint8_t *was)
{
    int64_t n = (int64_t)l.n, r = b->radius;
    uint32_t sum = 0;
    for (int64_t i = 0; i < n; i++)
        was[i] = l.at[(size_t)i * l.step];
    for (int64_t i = -r - 1; i < r; i++)
        sum += edged(was, n, i);
    for (int64_t i = 0; i < n; i++) {
        uint32_t before = edged(was, n, i - r - 1), after = edged(was, n, i + r + 1);
        sum += edged(was, n, i + r) - before;
        uint32_t v = sum * b->whole + (before + after) * b->part;
        l.at[(size_t)i * l.step] = (uint8_t)((v + (1u << 23)) >> 24);
    }
}

int slr_blur_boxes(slr_pixels *p, slr_mem *m, float radius)
{
    slr_require(radius >= 0 && radius <= 1024);
    if (radius == 0)
        return SDLORA_OK;
    box b = box_for(radius);
    size_t w = (size_t)p->width, h = (size_t)p->height;
    uint8_t *was = slr_alloc(m, w > h ? w : h);
    if (!was)
        return SDLORA_ENOMEM;
    for (int axis = 0; axis < 2; axis++)
        for (size_t i = 0; i < (axis ? w : h); i++)
            for (size_t c = 0; c < (size_t)p->channels; c++)
                for (int pass = 0; pass < 3; pass++)
                    box_line(line_of(p, !axis, i, c), &b, was);
    slr_free(m, was);
    return SDLORA_OK;
}
