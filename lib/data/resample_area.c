/* SPDX-License-Identifier: MIT */
/* Resizing by area, with the bytes of OpenCV's INTER_AREA: whole-number factors average blocks in
 * integers, other shrinking weighs covered cells in f32, and when a side grows it turns into a
 * linear rule in 11-bit fixed point whose ramps lie at the cell borders.  Refuses to know why. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "base/status.h"
#include "data/resample_impl.h"

static uint8_t to_byte(float v)
{
    long r = lrintf(v); /* halves to even, as the processor rounds */
    return (uint8_t)(r < 0 ? 0 : r > 255 ? 255 : r);
}

/* --- whole-number factors --- */

static void blocks(const slr_pixels *src, int32_t fx, int32_t fy, slr_pixels *dst)
{
    size_t c = (size_t)src->channels, stride = (size_t)src->width * c;
    float scale = 1.0f / (float)(fx * fy);
    bool halves = fx == 2 && fy == 2; /* that one rounds halves up */
    uint8_t *to = dst->data;
    for (int32_t y = 0; y < dst->height; y++)
        for (int32_t x = 0; x < dst->width; x++)
            for (size_t ch = 0; ch < c; ch++) {
                const uint8_t *p =
                    src->data + (size_t)y * (size_t)fy * stride + (size_t)x * (size_t)fx * c + ch;
                int32_t sum = 0;
                for (int32_t j = 0; j < fy; j++)
                    for (int32_t i = 0; i < fx; i++)
                        sum += p[(size_t)j * stride + (size_t)i * c];
                *to++ = halves ? (uint8_t)((sum + 2) >> 2) : to_byte((float)sum * scale);
            }
}

/* --- other shrinking --- */

typedef struct cell {
    int32_t from, to;
    float share; /* of output `to` */
} cell;

/* Which sources lie under which outputs, in order; 2 * n_from cells are enough. */
static size_t cover(int32_t n_from, int32_t n_to, double scale, cell *out)
{
    size_t k = 0;
    for (int32_t to = 0; to < n_to; to++) {
        double lo = to * scale, hi = lo + scale;
        double width = scale < n_from - lo ? scale : n_from - lo;
        int32_t first = (int32_t)ceil(lo), last = (int32_t)floor(hi);
        last = last < n_from - 1 ? last : n_from - 1;
        first = first < last ? first : last;
        if (first - lo > 1e-3)
            out[k++] = (cell){first - 1, to, (float)((first - lo) / width)};
        for (int32_t x = first; x < last; x++)
            out[k++] = (cell){x, to, (float)(1.0 / width)};
        if (hi - last > 1e-3) {
            double part = hi - last < 1 ? hi - last : 1;
            out[k++] = (cell){last, to, (float)((part < width ? part : width) / width)};
        }
    }
    return k;
}

static void weigh(const slr_pixels *src, const cell *cx, size_t nx, const cell *cy, size_t ny,
                  float *line, float *sum, slr_pixels *dst)
{
    size_t c = (size_t)src->channels, n = (size_t)dst->width * c;
    for (size_t j = 0; j < ny; j++) {
        const uint8_t *row = src->data + (size_t)cy[j].from * (size_t)src->width * c;
        bool starts = j == 0 || cy[j].to != cy[j - 1].to;
        memset(line, 0, n * sizeof *line);
        for (size_t i = 0; i < nx; i++)
            for (size_t ch = 0; ch < c; ch++)
                line[(size_t)cx[i].to * c + ch] +=
                    (float)row[(size_t)cx[i].from * c + ch] * cx[i].share;
        for (size_t x = 0; x < n; x++)
            sum[x] = starts ? cy[j].share * line[x] : sum[x] + cy[j].share * line[x];
        if (j + 1 == ny || cy[j + 1].to != cy[j].to)
            for (size_t x = 0; x < n; x++)
                dst->data[(size_t)cy[j].to * n + x] = to_byte(sum[x]);
    }
}

static int shrink(slr_mem *m, const slr_pixels *src, double sx, double sy, slr_pixels *dst)
{
    size_t n = (size_t)dst->width * (size_t)src->channels;
    /* an output touches at most its whole sources and two partial ones */
    cell *cx = slr_calloc(m, ((size_t)src->width + (size_t)dst->width) * 2, sizeof *cx);
    cell *cy = slr_calloc(m, ((size_t)src->height + (size_t)dst->height) * 2, sizeof *cy);
    float *line = slr_calloc(m, n * 2, sizeof *line);
    int rc = cx && cy && line ? SDLORA_OK : SDLORA_ENOMEM;
    if (rc == 0) {
        size_t nx = cover(src->width, dst->width, sx, cx);
        size_t ny = cover(src->height, dst->height, sy, cy);
        weigh(src, cx, nx, cy, ny, line, line + n, dst);
    }
    slr_free(m, cx);
    slr_free(m, cy);
    slr_free(m, line);
    return rc;
}

/* --- a side grows --- */

#define ONE 2048 /* 11 bits */

typedef struct ramp {
    int32_t at, next; /* the two sources */
    int32_t w0, w1;   /* their weights, in ONEs */
} ramp;

static void ramps(int32_t n_from, int32_t n_to, double scale, double inverse, ramp *out)
{
    for (int32_t i = 0; i < n_to; i++) {
        int32_t at = (int32_t)floor(i * scale);
        float f = (float)((i + 1) - (at + 1) * inverse);
        f = f <= 0 ? 0 : f - floorf(f);
        if (at >= n_from - 1) {
            at = n_from - 1;
            f = 0;
        }
        out[i] = (ramp){at, at + 1 < n_from ? at + 1 : at, (int32_t)lrintf((1 - f) * ONE),
                        (int32_t)lrintf(f * ONE)};
    }
}

static int32_t mix_x(const uint8_t *row, const ramp *r, size_t c, size_t ch)
{
    return row[(size_t)r->at * c + ch] * r->w0 + row[(size_t)r->next * c + ch] * r->w1;
}

static int linear(slr_mem *m, const slr_pixels *src, double ix, double iy, slr_pixels *dst)
{
    size_t c = (size_t)src->channels, stride = (size_t)src->width * c;
    ramp *rx = slr_calloc(m, (size_t)dst->width + (size_t)dst->height, sizeof *rx);
    uint8_t *to = dst->data;
    if (!rx)
        return SDLORA_ENOMEM;
    ramp *ry = rx + dst->width;
    ramps(src->width, dst->width, 1 / ix, ix, rx);
    ramps(src->height, dst->height, 1 / iy, iy, ry);
    for (int32_t y = 0; y < dst->height; y++) {
        const uint8_t *r0 = src->data + (size_t)ry[y].at * stride;
        const uint8_t *r1 = src->data + (size_t)ry[y].next * stride;
        for (int32_t x = 0; x < dst->width; x++)
            for (size_t ch = 0; ch < c; ch++) {
                /* 8 + 11 bits, cut to 15 so that the second product stays in 32 */
                int32_t a = mix_x(r0, &rx[x], c, ch) >> 4, b = mix_x(r1, &rx[x], c, ch) >> 4;
                *to++ = (uint8_t)((((ry[y].w0 * a) >> 16) + ((ry[y].w1 * b) >> 16) + 2) >> 2);
            }
    }
    slr_free(m, rx);
    return SDLORA_OK;
}

int slr_resize_area(slr_mem *m, const slr_pixels *src, slr_pixels *dst)
{
    double ix = (double)dst->width / src->width, iy = (double)dst->height / src->height;
    double sx = 1 / ix, sy = 1 / iy;
    if (sx < 1 || sy < 1)
        return linear(m, src, ix, iy, dst);
    long fx = lrint(sx), fy = lrint(sy);
    if (fabs(sx - (double)fx) >= DBL_EPSILON || fabs(sy - (double)fy) >= DBL_EPSILON)
        return shrink(m, src, sx, sy, dst);
    blocks(src, (int32_t)fx, (int32_t)fy, dst);
    return SDLORA_OK;
}
