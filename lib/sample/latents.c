/* SPDX-License-Identifier: MIT */
/* Latents at another size.  Knows the six ways of torch's interpolate() that hires fix offers, as
 * weights of one axis after the other; refuses to know what is made of the result. */
#include "sample/latents.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>
#include <strings.h>

#include "base/status.h"

enum { NEAREST, NEAREST_EXACT, LINEAR, CUBIC, LINEAR_SMOOTH, CUBIC_SMOOTH };

static const slr_latent_row rows[] = {
    {"Latent", 2, LINEAR},
    {"Latent (antialiased)", 2, LINEAR_SMOOTH},
    {"Latent (bicubic)", 4, CUBIC},
    {"Latent (bicubic antialiased)", 4, CUBIC_SMOOTH},
    {"Latent (nearest)", 1, NEAREST},
    {"Latent (nearest-exact)", 1, NEAREST_EXACT},
};

const slr_latent_row *slr_latent_upscalers(size_t *n)
{
    *n = sizeof rows / sizeof *rows;
    return rows;
}

const slr_latent_row *slr_latent_find(const char *name)
{
    for (size_t i = 0; name && i < sizeof rows / sizeof *rows; i++)
        if (!strcasecmp(rows[i].name, name))
            return &rows[i];
    return NULL;
}

/* --- weights of one axis --- */

/* Output i is the sum over k < taps of weight[i * taps + k] x[at[i * taps + k]]. */
typedef struct axis {
    int64_t n;
    int taps;
    int32_t *at;
    float *weight;
} axis;

static float linear(float x)
{
    x = fabsf(x);
    return x < 1.0f ? 1.0f - x : 0.0f;
}

/* Keys' cubic.  torch takes a = -0.75, and -0.5 where it smooths. */
static float cubic(float x, float a)
{
    x = fabsf(x);
    if (x < 1.0f)
        return ((a + 2.0f) * x - (a + 3.0f)) * x * x + 1.0f;
    return x < 2.0f ? ((a * x - 5.0f * a) * x + 8.0f * a) * x - 4.0f * a : 0.0f;
}

static int32_t within(int64_t i, int64_t n)
{
    return (int32_t)(i < 0 ? 0 : i >= n ? n - 1 : i);
}

static void nearest_tap(axis *a, int64_t i, int64_t from, float scale, int kind)
{
    float centre = (float)i + (kind == NEAREST_EXACT ? 0.5f : 0.0f);
    a->at[i] = within((int64_t)floorf(centre * scale), from);
    a->weight[i] = 1.0f;
}

/* Two or four neighbours; beyond the edge stands the edge. */
static void plain_taps(axis *a, int64_t i, int64_t from, float scale, int kind)
{
    float x = ((float)i + 0.5f) * scale - 0.5f;
    if (kind == LINEAR && x < 0.0f)
        x = 0.0f;
    float low = floorf(x), t = x - low;
    int first = a->taps == 4 ? -1 : 0;
    for (int k = 0; k < a->taps; k++) {
        float away = t - (float)(first + k);
        a->at[i * a->taps + k] = within((int64_t)low + first + k, from);
        a->weight[i * a->taps + k] = kind == LINEAR ? linear(away) : cubic(away, -0.75f);
    }
}

/* A filter that grows wider when the size shrinks, normalised over what lies inside. */
static void smooth_taps(axis *a, int64_t i, int64_t from, float scale, int kind)
{
    float wide = scale > 1.0f ? scale : 1.0f, sum = 0;
    float support = (kind == LINEAR_SMOOTH ? 1.0f : 2.0f) * wide;
    float centre = scale * ((float)i + 0.5f);
    int64_t low = (int64_t)(centre - support + 0.5f), high = (int64_t)(centre + support + 0.5f);
    low = low < 0 ? 0 : low;
    high = high > from ? from : high;
    for (int64_t k = 0; k < a->taps; k++) {
        float away = ((float)(k + low) - centre + 0.5f) / wide, *w = &a->weight[i * a->taps + k];
        a->at[i * a->taps + k] = within(k + low, from);
        *w = k + low >= high ? 0.0f : kind == LINEAR_SMOOTH ? linear(away) : cubic(away, -0.5f);
        sum += *w;
    }
    for (int64_t k = 0; k < a->taps && sum != 0.0f; k++)
        a->weight[i * a->taps + k] /= sum;
}

static void axis_free(slr_mem *m, axis *a)
{
    slr_free(m, a->at);
    slr_free(m, a->weight);
}

/* After a failure too, the caller frees what is there. */
static int axis_new(axis *a, slr_mem *m, const slr_latent_row *row, int64_t from, int64_t to)
{
    bool smooth = row->kind == LINEAR_SMOOTH || row->kind == CUBIC_SMOOTH;
    float scale = (float)from / (float)to, wide = scale > 1.0f ? scale : 1.0f;
    size_t cells;
    *a = (axis){.n = to, .taps = row->taps};
    if (smooth)
        a->taps = 2 * (int)ceilf((float)row->taps / 2.0f * wide) + 1;
    if (!slr_mul_ok((size_t)to, (size_t)a->taps, &cells))
        return slr_nomem(__func__, SIZE_MAX);
    a->at = slr_calloc(m, cells, sizeof *a->at);
    a->weight = slr_calloc(m, cells, sizeof *a->weight);
    if (!a->at || !a->weight)
        return SDLORA_ENOMEM;
    for (int64_t i = 0; i < to; i++)
        if (smooth)
            smooth_taps(a, i, from, scale, row->kind);
        else if (row->taps == 1)
            nearest_tap(a, i, from, scale, row->kind);
        else
            plain_taps(a, i, from, scale, row->kind);
    return SDLORA_OK;
}

/* --- latents --- */

/* Rows of n numbers, weighed: out [a->n,n] of x [.,n]. */
static void weigh(const axis *a, const float *x, int64_t n, float *out)
{
    for (int64_t i = 0; i < a->n; i++, out += n) {
        memset(out, 0, (size_t)n * sizeof *out);
        for (int64_t k = i * a->taps; k < (i + 1) * a->taps; k++) {
            const float *from = x + a->at[k] * n;
            for (int64_t j = 0; j < n && a->weight[k] != 0.0f; j++)
                out[j] += a->weight[k] * from[j];
        }
    }
}

int slr_latent_resize(const slr_latent_row *row, slr_mem *m, const float *x, int64_t h, int64_t w,
                      int64_t c, int64_t to_h, int64_t to_w, float *out)
{
    axis along_x = {0}, along_y = {0};
    slr_require(row && h > 0 && w > 0 && c > 0 && to_h > 0 && to_w > 0);
    float *mid = slr_calloc(m, (size_t)(h * to_w), (size_t)c * sizeof *mid);
    int rc = mid ? SDLORA_OK : SDLORA_ENOMEM;
    if (rc >= 0)
        rc = axis_new(&along_x, m, row, w, to_w);
    if (rc >= 0)
        rc = axis_new(&along_y, m, row, h, to_h);
    for (int64_t y = 0; rc >= 0 && y < h; y++)
        weigh(&along_x, x + y * w * c, c, mid + y * to_w * c);
    if (rc >= 0)
        weigh(&along_y, mid, to_w * c, out);
    axis_free(m, &along_x);
    axis_free(m, &along_y);
    slr_free(m, mid);
    return rc;
}

float *slr_latent_new(slr_mem *m, int64_t h, int64_t w, int64_t c)
{
    return slr_calloc(m, (size_t)h * (size_t)w, (size_t)c * sizeof(float));
}

void slr_latent_crop(const float *x, int64_t h, int64_t w, int64_t c, int64_t to_h, int64_t to_w,
                     float *out)
{
    int64_t top = (h - to_h) / 2, left = (w - to_w) / 2;
    for (int64_t y = 0; y < to_h; y++)
        memcpy(out + y * to_w * c, x + ((top + y) * w + left) * c,
               (size_t)(to_w * c) * sizeof *out);
}
