/* SPDX-License-Identifier: MIT */
/* The loops of group and layer norm that norm_tmpl.c compiles once per instruction set and storage
 * type: void points to elements of that type; statistics and gains are f32.  All run on the calling
 * thread over rows of c channels, row by row as they lie in memory. */
#ifndef SLR_BACKEND_CPU_NORM_H
#define SLR_BACKEND_CPU_NORM_H

#include "backend/cpu/ew.h"

/* Per-channel numbers of one image; each points to c floats. */
typedef struct slr_cpu_chan {
    const float *mean, *rstd, *g, *b;
    const float *m1, *m2; /* backward only: means of du and of du u over the channel's group */
} slr_cpu_chan;

typedef struct slr_cpu_norm_fns {
    /* s[c] = sum of x - pivot, q[c] = sum of its square, over the rows */
    void (*stats)(int64_t rows, int64_t c, const void *x, const void *pivot, float *s, float *q);
    /* y = act((x - mean) rstd g + b) */
    void (*apply[SLR_N_ACTS])(int64_t rows, int64_t c, void *y, const void *x,
                              const slr_cpu_chan *ch);
    /* With u = (x - mean) rstd and dz = dy act'(u g + b): s[c] = sum of dz, q[c] = sum of dz u */
    void (*bx_sums[SLR_N_ACTS])(int64_t rows, int64_t c, const void *dy, const void *x,
                                const slr_cpu_chan *ch, float *s, float *q);
    /* dx = rstd (dz g - m1 - u m2) + add; add is Nullable and may be dx */
    void (*bx_apply[SLR_N_ACTS])(int64_t rows, int64_t c, void *dx, const void *dy, const void *x,
                                 const void *add, const slr_cpu_chan *ch);
    /* One row of layer norm; g, b Nullable. */
    void (*layer)(int64_t c, void *y, const void *x, const float *g, const float *b, float eps,
                  float *mean, float *rstd);
    void (*layer_bx)(int64_t c, void *dx, const void *dy, const void *x, const void *add,
                     const float *g, float mean, float rstd);
    /* With u = (x - mean) rstd of each row: s[c] = sum of dy, q[c] = sum of dy u, over the rows */
    void (*layer_bw)(int64_t rows, int64_t c, const void *dy, const void *x, const float *mean,
                     const float *rstd, float *s, float *q);
} slr_cpu_norm_fns;

SLR_CPU_DECLARE(slr_cpu_norm_fns, slr_cpu_norm);

#endif
