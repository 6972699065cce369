/* SPDX-License-Identifier: MIT */
/* Scores, probabilities and the gradients by keys and values of one tile of attention in one go,
 * for processors that multiply bf16 in vectors: what lies between the products stays in registers
 * and in the nearest cache.  Refuses to know heads, threads and how tiles are cut. */
#ifndef DN_GRADIENT_H
#define DN_GRADIENT_H

#include "tilemm.h"

enum { DN_GRADIENT_KEYS = 8 /* rows of keys are padded with zeros to a multiple of these */ };

/* The operands of a tile lie in pairs of bf16: q and do by `columns` for scores and by `rows` for
 * gradients. */
typedef struct dn_gradient {
    int64_t keys, nq, d, depth; /* nq: a multiple of 16; depth: of 2 */
    const uint16_t *k, *v;      /* rows of depth */
    const void *q_columns, *do_columns, *q_rows, *do_rows;
    const float *lse2, *delta; /* [nq] */
    float unit;                /* a score times this is an exponent of 2 */
    float *dk, *dv;            /* rows of d, added to */
    const dn_tile_layout *layout;
    void *ds;   /* dS packed as layout says with k = keys and n = queries, zero in padding */
    void *work; /* dn_gradient_bytes() */
} dn_gradient;

dn_tile_layout dn_gradient_columns(int64_t depth, int64_t nq);
dn_tile_layout dn_gradient_rows(int64_t nq, int64_t d);
int64_t dn_gradient_bytes(int64_t nq);

/* Wants AVX512_BF16. */
void dn_gradient_run(const dn_gradient *g);

#endif
