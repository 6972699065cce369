/* SPDX-License-Identifier: MIT */
/* Products that are too small for a BLAS to pay: b lies in panels of a few registers, a is read
 * where it lies, and bias, addend and rounding happen in registers.  Compiled per instruction set
 * and type of the factors (mm_tmpl.c).  The inner axis is counted in words of four bytes: one f32,
 * or two bf16 neighbours of that axis.  Refuses to know tensors and threads. */
#ifndef SLR_BACKEND_CPU_MM_H
#define SLR_BACKEND_CPU_MM_H

#include "backend/cpu/cpu.h"

/* One tile: c[m,n] = alpha sum over runs a[m,k] b[k,n] + bias + add.  A product has one run, a
 * convolution one for each tap. */
typedef struct slr_mm {
    int64_t m, n, k, runs;   /* k: words of a run */
    const void *a;           /* word l of row i: a + i * a_row + l * a_col */
    int64_t a_row, a_col;    /* words */
    const void *const *rows; /* [m][runs]: where a row of a run begins instead; NULL: one run */
    const void *b;           /* panels of `width` columns, one behind the other: [depth][width] */
    int64_t width, depth;    /* depth: words of a column of b, of which a run uses k */
    const int64_t *b_at;     /* [runs]: the word of b at which a run begins; NULL: 0 */
    float alpha;
    const float *bias; /* [n], Nullable */
    const void *add;   /* Nullable */
    void *c;
    int64_t ld_add, ldc;   /* elements */
    bool add_half, c_half; /* bf16, else f32 */
} slr_mm;

typedef struct slr_mm_fns {
    int64_t lanes; /* columns of a register */
    int64_t rows;  /* of a block of registers: what m should be a multiple of */
    void (*tile)(const slr_mm *t);
    /* The words of a matrix [k,n] (rows of ld elements) or, in `turn`, of its transpose [n,k], as
     * [words of k][width]; columns beyond n are zero, width is whole registers.  half: src is bf16,
     * else f32. */
    void (*pack)(void *dst, int64_t width, const void *src, bool half, int64_t ld, int64_t k,
                 int64_t n);
    void (*turn)(void *dst, int64_t width, const void *src, bool half, int64_t ld, int64_t k,
                 int64_t n);
    /* Rows as rows of words, [m][words of k]: for a factor of bf16 that does not lie so. */
    void (*words)(void *dst, const void *src, bool half, int64_t ld, int64_t m, int64_t k);
} slr_mm_fns;

/* Words along an inner axis of k elements. */
static inline int64_t slr_mm_words(int64_t k, bool half)
{
    return half ? (k + 1) / 2 : k;
}

/* The functions for factors in bf16, or in f32. */
SLR_CPU_DECLARE(slr_mm_fns, slr_cpu_mm);

static inline const slr_mm_fns *slr_mm_fns_of(const slr_cpu_env *env, bool half)
{
    return SLR_CPU_PICK(env, slr_cpu_mm, half ? SDLORA_BF16 : SDLORA_F32);
}

/* Columns of a panel: two or three registers, so that the last panel is no thin one. */
static inline int64_t slr_mm_width(int64_t lanes, int64_t n)
{
    const int64_t v = (n + lanes - 1) / lanes;
    return lanes * (v < 3 ? v : v % 3 == 1 && v % 2 == 0 ? 2 : 3);
}

static inline int64_t slr_mm_up(int64_t n, int64_t to)
{
    return (n + to - 1) / to * to;
}

/* How [m,n] is cut along its longer side: pieces of a few microseconds, and not many.  By shape
 * alone. */
typedef struct slr_mm_cut {
    bool by_cols;
    int64_t step; /* rows or columns of a piece */
    int64_t pieces;
} slr_mm_cut;

static inline slr_mm_cut slr_mm_cut_of(const slr_mm_fns *fns, bool half, int64_t m, int64_t n,
                                       int64_t k)
{
    enum { MOST = 16, WORK = 1 << 18 }; /* multiply-adds in f32; those in bf16 take half as long */
    const int64_t worth = m * n * k / WORK / (half ? 2 : 1);
    const int64_t wished = worth < 1 ? 1 : worth < MOST ? worth : MOST;
    slr_mm_cut c = {.by_cols = n > m};
    const int64_t all = c.by_cols ? n : m;
    c.step =
        slr_mm_up((all + wished - 1) / wished, c.by_cols ? slr_mm_width(fns->lanes, n) : fns->rows);
    c.pieces = (all + c.step - 1) / c.step;
    return c;
}

/* What is small: beyond this, a BLAS's own blocking is better, and a second layout of a frozen b
 * would be felt in memory.  k: of all runs. */
static inline bool slr_mm_small(int64_t m, int64_t n, int64_t k)
{
    const int64_t work = INT64_C(1) << 26, weights = INT64_C(1) << 19;
    return m > 0 && n > 0 && k > 0 && n <= weights / k && m <= work / (n * k);
}

/* A matrix for each of `runs`: element (l, j) of number r lies at src[l * row + j * col + r]. */
typedef struct slr_mm_source {
    int64_t runs, k, n, row, col;
} slr_mm_source;

static inline size_t slr_mm_bytes(const slr_mm_fns *fns, bool half, const slr_mm_source *s)
{
    return 4 * (size_t)(s->runs * slr_mm_words(s->k, half) * slr_mm_up(s->n, fns->lanes));
}

/* b in panels, as slr_mm.b wants it: [panel][runs][words of k][width].  spare: k * n floats. */
static inline void slr_mm_panels(const slr_mm_fns *fns, bool half, void *dst, const float *src,
                                 const slr_mm_source *s, float *spare)
{
    const int64_t words = slr_mm_words(s->k, half), width = slr_mm_width(fns->lanes, s->n);
    for (int64_t r = 0; r < s->runs; r++) {
        for (int64_t l = 0; l < s->k; l++)
            for (int64_t j = 0; j < s->n; j++)
                spare[l * s->n + j] = src[l * s->row + j * s->col + r];
        for (int64_t j = 0; j < s->n; j += width) {
            const int64_t left = slr_mm_up(s->n - j, fns->lanes), w = left < width ? left : width;
            fns->pack((char *)dst + 4 * (j * s->runs + r * w) * words, w, spare + j, false, s->n,
                      s->k, s->n - j < w ? s->n - j : w);
        }
    }
}

#endif
