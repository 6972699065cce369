/* SPDX-License-Identifier: MIT */
/* For tests: loads an oracle's tensor from a safetensors file and compares with it. */
#ifndef GOLDEN_TEST_H
#define GOLDEN_TEST_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/status.h"
#include "io/safetensors.h"

typedef struct golden {
    slr_safetensors *file;
    const char *path;
} golden;

static inline golden golden_open(const char *path)
{
    golden f = {.path = path};
    if (slr_safetensors_open(&f.file, NULL, path, true) < 0)
        fprintf(stderr, "golden: %s\n", sdlora_last_error()->message);
    return f;
}

static inline void golden_close(golden *f)
{
    slr_safetensors_close(f->file);
    f->file = NULL;
}

/* A tensor as f32 in the file's order; the test ends if it is not there.  Free with slr_free(NULL).
 */
static inline float *golden_f32(const golden *f, const char *name, slr_tensor *shape)
{
    slr_tensor t;
    if (!f->file || !slr_safetensors_find(f->file, name, &t)) {
        fprintf(stderr, "golden: %s has no %s\n", f->path, name);
        exit(99);
    }
    float *x = slr_alloc(NULL, (size_t)slr_tensor_count(&t) * sizeof *x);
    if (!x || slr_tensor_to_f32(&t, x) < 0)
        exit(99);
    if (shape)
        *shape = t;
    return x;
}

/* A tensor of 32-bit integers, as it lies in the file. */
static inline int32_t *golden_i32(const golden *f, const char *name, slr_tensor *shape)
{
    slr_tensor t;
    if (!f->file || !slr_safetensors_find(f->file, name, &t) || t.dtype != SDLORA_I32) {
        fprintf(stderr, "golden: %s has no i32 %s\n", f->path, name);
        exit(99);
    }
    int32_t *x = slr_alloc(NULL, slr_tensor_bytes(&t));
    memcpy(x, t.data, slr_tensor_bytes(&t));
    if (shape)
        *shape = t;
    return x;
}

/* The same for a [N,C,H,W] tensor, reordered to [N,H,W,C] as the library has it; *shape is
 * permuted. */
static inline float *golden_nhwc(const golden *f, const char *name, slr_tensor *shape)
{
    slr_tensor t;
    float *x = golden_f32(f, name, &t);
    float *y = slr_alloc(NULL, (size_t)slr_tensor_count(&t) * sizeof *y);
    slr_nchw_to_nhwc(y, x, t.dim[0], t.dim[1], t.dim[2], t.dim[3]);
    slr_free(NULL, x);
    if (shape) {
        const int64_t dim[4] = {t.dim[0], t.dim[2], t.dim[3], t.dim[1]};
        *shape = t;
        memcpy(shape->dim, dim, sizeof dim);
    }
    return y;
}

/* The step of thin() in tests/golden/make_lycoris.py: 1, or the smallest prime above 3 that leaves
 * at most `kept` of n numbers. */
static inline size_t golden_stride(size_t n, size_t kept)
{
    size_t k = 1;
    bool prime = true;
    while (!prime || (n + k - 1) / k > kept) {
        k = k < 5 ? 5 : k + 2;
        prime = true;
        for (size_t d = 2; d * d <= k; d++)
            prime = prime && k % d;
    }
    return k;
}

/* Every stride-th of n numbers, in place; returns how many are left. */
static inline size_t golden_thin(float *x, size_t n, size_t kept)
{
    size_t k = golden_stride(n, kept), m = 0;
    for (size_t i = 0; i < n; i += k)
        x[m++] = x[i];
    return m;
}

typedef struct golden_error {
    double l2;  /* |got - want| / |want|, Euclidean */
    double max; /* largest difference / largest wanted magnitude */
} golden_error;

static inline golden_error golden_compare(const float *got, const float *want, size_t n)
{
    double diff = 0, norm = 0, worst = 0, peak = 0;
    for (size_t i = 0; i < n; i++) {
        double d = fabs((double)got[i] - want[i]), w = fabs((double)want[i]);
        diff += d * d;
        norm += w * w;
        worst = isnan(d) ? INFINITY : fmax(worst, d); /* a NaN must not pass for zero */
        peak = fmax(peak, w);
    }
    return (golden_error){sqrt(diff / (norm > 0 ? norm : 1)), worst / (peak > 0 ? peak : 1)};
}

/* Prints the errors and tells whether both are within tol. */
static inline int golden_close_to(const char *what, const float *got, const float *want, size_t n,
                                  double tol)
{
    golden_error e = golden_compare(got, want, n);
    printf("%-24s relative l2 %.3g, max %.3g (tolerance %.3g)\n", what, e.l2, e.max, tol);
    return e.l2 <= tol && e.max <= tol;
}

#endif
