/* SPDX-License-Identifier: MIT */
/* Sums and losses over short runs, compiled once per instruction set and storage type by
 * reduce_tmpl.c: void points to elements of that type.  The order of the additions depends on n
 * alone. */
#ifndef SLR_BACKEND_CPU_REDUCE_H
#define SLR_BACKEND_CPU_REDUCE_H

#include "backend/cpu/ew.h"

enum { SLR_N_LOSSES = SDLORA_LOSS_SMOOTH_L1 + 1 };

typedef struct slr_cpu_reduce_fns {
    float (*sum)(int64_t n, const void *x);
    /* y[c] = sum over the rows of x[rows,c], whose rows are `pitch` apart */
    void (*sum_rows)(int64_t rows, int64_t c, int64_t pitch, const void *x, float *y);
    /* The rest is of f32 only: the table of bf16 does not have it. */
    float (*sumsq)(int64_t n, const float *x);
    float (*loss[SLR_N_LOSSES])(int64_t n, const float *pred, const float *target, float delta);
    /* d = scale * slope of the loss */
    void (*loss_bx[SLR_N_LOSSES])(int64_t n, float *d, const float *pred, const float *target,
                                  float delta, float scale);
} slr_cpu_reduce_fns;

SLR_CPU_DECLARE(slr_cpu_reduce_fns, slr_cpu_reduce);

/* Elements that one call of sum, sumsq or loss adds up in f32; longer runs are joined in double. */
enum { SLR_CPU_SUM_RUN = 4096 };

#endif
