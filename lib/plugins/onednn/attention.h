/* SPDX-License-Identifier: MIT */
/* What both directions of attention share: the shape, how it is cut into tiles, and how operands
 * are laid out for the products.  Knows ATTENTION's contract; refuses to know the arithmetic. */
#ifndef DN_ATTENTION_H
#define DN_ATTENTION_H

#include <stdatomic.h>

#include "softmax.h"

/* A pair is one head of one sample.  Queries are cut into tiles of nq, keys into blocks of kb. */
typedef struct dn_attn {
    uint32_t type; /* SDLORA_F32 or SDLORA_BF16 */
    int64_t size;  /* bytes of a value */
    int64_t n, heads, tq, tk, d;
    bool causal;
    float scale;
    int64_t q_row, q_sample, k_row, k_sample, v_row, v_sample; /* elements */
    int64_t depth; /* d as the products over d want it: zeros above d */
    int64_t nq, tiles, kb, blocks;
    int64_t round; /* pairs packed at a time: bounds the scratch of a batch */
    const dn_softmax_fn *fn;
} dn_attn;

/* in: q, k, v.  Fills everything but round; max_queries and max_keys bound nq and kb. */
int dn_attn_init(dn_attn *a, const sdlora_dev *dev, const sdlora_opdesc *op, const sdlora_tdesc *in,
                 int64_t max_queries, int64_t max_keys);
/* The operand must be dense [x,y,z] of the type. */
int dn_attn_dense(const sdlora_dev *dev, const sdlora_tdesc *t, uint32_t type, int64_t x, int64_t y,
                  int64_t z, const char *name);
/* Whole samples, a few pairs at least, and all at once where packs are small. */
void dn_attn_set_round(dn_attn *a, int64_t pair_bytes);

/* Byte offset of the first value of a pair in a tensor whose samples are that far apart. */
static inline int64_t dn_attn_at(const dn_attn *a, int64_t pair, int64_t sample)
{
    return (pair / a->heads * sample + pair % a->heads * a->d) * a->size;
}

/* Keys of block b that exist. */
static inline int64_t dn_attn_keys(const dn_attn *a, int64_t b)
{
    return dn_min(a->kb, a->tk - b * a->kb);
}

/* Block b of a pair's rows, [tk,d] with rows of ld elements: */
/* ... as [kb,depth], */
void dn_attn_rows(const dn_attn *a, void *dst, const void *src, int64_t ld, int64_t b);
/* ... and turned, [d,kb].  Zero where there are no keys. */
void dn_attn_columns(const dn_attn *a, void *dst, const void *src, int64_t ld, int64_t b);

/* Cuts one block of scratch: gives the offset of the next part and moves on by whole cache lines.
 */
static inline int64_t dn_attn_part(int64_t *end, int64_t bytes)
{
    int64_t at = *end;
    *end += dn_round_up(bytes, 64);
    return at;
}

/* Keeps the first failure of any piece. */
static inline void dn_attn_note(_Atomic int *failed, int rc)
{
    int none = SDLORA_OK;
    if (rc < 0)
        atomic_compare_exchange_strong(failed, &none, rc);
}

#endif
