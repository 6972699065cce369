/* SPDX-License-Identifier: MIT */
/* The elementwise loops that ew_tmpl.c compiles once per instruction set and storage type: void
 * points to elements of that type, float to f32.  All run over n dense elements on the calling
 * thread; outputs may be inputs of the same length. */
#ifndef SLR_BACKEND_CPU_EW_H
#define SLR_BACKEND_CPU_EW_H

#include "backend/cpu/cpu.h"

enum {
    SLR_N_ACTS = SDLORA_ACT_TANH + 1, /* that norms may fuse */
    SLR_N_ALL_ACTS = SDLORA_ACT_SOFTSHRINK + 1
};
enum { SLR_CPU_ADD, SLR_CPU_SUB, SLR_CPU_MUL, SLR_CPU_N_BINARY };

typedef struct slr_cpu_ew_fns {
    void (*binary[SLR_CPU_N_BINARY])(int64_t n, void *y, const void *a, const void *b);
    /* b is f32 whatever the storage: weights and trained vectors */
    void (*mixed[SLR_CPU_N_BINARY])(int64_t n, void *y, const void *a, const float *b);
    void (*scalar[SLR_CPU_N_BINARY])(int64_t n, void *y, const void *a, float b);
    void (*affine)(int64_t n, void *y, const void *x, float scale, float shift);
    void (*act[SLR_N_ALL_ACTS])(int64_t n, void *y, const void *x);
    void (*act_bx[SLR_N_ALL_ACTS])(int64_t n, void *dx, const void *dy, const void *x);
    /* one half row: y = x gelu(gate), and both gradients */
    void (*geglu)(int64_t n, void *y, const void *x, const void *gate);
    void (*geglu_bx)(int64_t n, void *dx, void *dgate, const void *dy, const void *x,
                     const void *gate);
    /* y[4 (i - lo) + j] for the draws of counters lo..hi, cut off at n elements: x times scale
     * where the word is >= threshold, else 0 */
    void (*dropout)(uint64_t lo, int64_t n, void *y, const void *x, const uint32_t key[2],
                    uint64_t stream, uint64_t threshold, float scale);
    /* y = the sum of four rows: a 2x2 block of pixels */
    void (*add4)(int64_t n, void *y, const void *a, const void *b, const void *c, const void *d);
    /* hyper as in SDLORA_OP_ADAMW; the state is f32, and only the table of that storage has it */
    void (*adamw)(int64_t n, float *p, const float *g, float *m, float *v, const float *hyper);
} slr_cpu_ew_fns;

SLR_CPU_DECLARE(slr_cpu_ew_fns, slr_cpu_ew);

/* Elements per piece of a parallel loop: about 5 us of one thread, so that smaller tensors stay on
 * the calling thread.  Depends on nothing else, hence neither do results. */
enum { SLR_CPU_GRAIN = 16384 };

#endif
