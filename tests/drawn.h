/* SPDX-License-Identifier: MIT */
/* For tests: numbers that a name gives, and digests of large tensors, as tests/golden/synthetic.py
 * makes them (draws, digest): so that neither weights nor inputs of goldens need storing. */
#ifndef DRAWN_H
#define DRAWN_H

#include <stdint.h>
#include <zlib.h>

#include "golden_test.h"

static inline uint64_t drawn_word(const char *name, size_t i)
{
    uint64_t key = (uint64_t)crc32(0, (const Bytef *)name, (uInt)strlen(name)) << 32;
    uint64_t x = key + i * UINT64_C(0x9E3779B97F4A7C15);
    x = (x ^ x >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    x = (x ^ x >> 27) * UINT64_C(0x94D049BB133111EB);
    return x ^ x >> 31;
}

/* Uniform. */
static inline void draw(const char *name, double deviation, float mean, float *to, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        double u = (double)(drawn_word(name, i) >> 40) + 0.5;
        to[i] = (float)((u / (1 << 23) - 1.0) * (deviation * sqrt(3.0))) + mean;
    }
}

/* Drawn as [n,c,pixels], filled in as [n,pixels,c]. */
static inline void draw_nhwc(const char *name, float *to, int64_t n, int64_t c, int64_t pixels)
{
    float *x = slr_alloc(NULL, (size_t)(n * c * pixels) * sizeof *x);
    if (!x)
        exit(99);
    draw(name, 1.0, 0, x, (size_t)(n * c * pixels));
    for (int64_t i = 0; i < n; i++)
        for (int64_t k = 0; k < c; k++)
            for (int64_t p = 0; p < pixels; p++)
                to[(i * pixels + p) * c + k] = x[(i * c + k) * pixels + p];
    slr_free(NULL, x);
}

/* The relative error of x by the digest of it: of its norm, of its products with 16 vectors of +-1,
 * whose differences are |x - wanted| large on the average, and of the elements kept. */
static inline double drawn_digest_error(const golden *g, const char *name, const float *x, size_t n)
{
    enum { SIGNS = 16 };
    slr_tensor t;
    float *want = golden_f32(g, name, &t);
    size_t picked = (size_t)slr_tensor_count(&t) - 1 - SIGNS;
    double norm = 0, product[SIGNS] = {0}, off = 0, elements = 0;
    for (size_t i = 0; i < n; i++) {
        uint64_t signs = drawn_word("signs", i);
        norm += (double)x[i] * x[i];
        for (int j = 0; j < SIGNS; j++)
            product[j] += signs >> j & 1 ? -(double)x[i] : (double)x[i];
    }
    for (int j = 0; j < SIGNS; j++)
        off += (product[j] - want[1 + j]) * (product[j] - want[1 + j]) / SIGNS;
    for (size_t k = 0; k < picked; k++) {
        double d = (double)x[k * n / picked] - want[1 + SIGNS + k];
        elements += d * d / (double)picked * (double)n;
    }
    double size = want[0], worst = fabs(sqrt(norm) - size);
    worst = fmax(worst, fmax(sqrt(off), sqrt(elements)));
    slr_free(NULL, want);
    return isfinite(norm) ? worst / size : INFINITY; /* a NaN must not pass for small */
}

#endif
