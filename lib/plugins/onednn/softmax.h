/* SPDX-License-Identifier: MIT */
/* What attention does to a tile of scores between its products, in 16 lanes.  A tile is transposed:
 * a row per key, a lane per query, so that a softmax runs down the columns and nothing is summed
 * across lanes.  Knows AVX-512 and how packed operands lie; refuses to know heads and threads. */
#ifndef DN_SOFTMAX_H
#define DN_SOFTMAX_H

#include "tilemm.h"

#define DN_LOG2E 1.44269504088896341f
#define DN_LN2   0.69314718055994531f

/* Scores [keys,nq], f32, nq a multiple of 16; the rows up to pad_keys are padding. */
typedef struct dn_scores {
    float *s;
    int64_t keys, pad_keys, nq;
    float unit; /* a score times this is an exponent of 2: scale * log2 e, > 0 */
} dn_scores;

/* The running state of nq queries: maxima of raw scores (-inf at first), sums of 2^(unit (s -
 * max)), and the result so far, [d,nq]. */
typedef struct dn_running {
    float *max, *sum, *acc;
    int64_t d;
} dn_running;

/* One type of operand: f32 or bf16. */
typedef struct dn_softmax_fn {
    /* p, packed as layout says with k = keys and n = queries, becomes 2^(unit (s - max)), zero in
     * padding; the running state moves along. */
    void (*forward)(const dn_scores *t, const dn_running *r, const dn_tile_layout *layout, void *p);
    /* Writes [nq][d] results, sums divided out, to rows of ld elements, and lse; the first `rows`.
     */
    void (*finish)(const dn_running *r, int64_t nq, int64_t rows, float unit, void *o, int64_t ld,
                   float *lse);
} dn_softmax_fn;

extern const dn_softmax_fn dn_softmax_f32;  /* wants AVX-512 F, BW, DQ, VL */
extern const dn_softmax_fn dn_softmax_bf16; /* and BF16, as does all that follows */

/* Row r is key k0 + r, lane j is query q0 + j: scores of later keys become -inf. */
void dn_softmax_causal(const dn_scores *t, int64_t k0, int64_t q0);

/* P = 2^(unit s - lse2) and dS = P (dp - delta) in bf16: both [pad_keys,nq], dS also packed with
 * k = keys and n = queries.  Zero in padding. */
void dn_softmax_backward(const dn_scores *t, const float *dp, const float *lse2, const float *delta,
                         const dn_tile_layout *layout, uint16_t *p, uint16_t *ds, uint16_t *packed);
/* [d,nq] times scale -> rows of ld elements of bf16, the first `rows` queries. */
void dn_softmax_turn(const float *x, int64_t d, int64_t nq, int64_t rows, float scale, uint16_t *to,
                     int64_t ld);
/* [rows,d] times scale -> rows of ld elements of bf16. */
void dn_softmax_store(const float *x, int64_t d, int64_t rows, float scale, uint16_t *to,
                      int64_t ld);
float dn_softmax_dot(const uint16_t *a, const uint16_t *b, int64_t n);

#endif
