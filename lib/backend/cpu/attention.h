/* SPDX-License-Identifier: MIT */
/* Inside attention: sizes, packs and the tile functions that attention_tmpl.c has per instruction
 * set. A head is [T,d]; scores are kept in units of log2, so that a softmax is 2^x. */
#ifndef SLR_BACKEND_CPU_ATTENTION_H
#define SLR_BACKEND_CPU_ATTENTION_H

#include <stdbool.h>
#include <stdint.h>

enum {
    SLR_ATTN_QUERIES = 64, /* rows of a tile of scores */
    SLR_ATTN_KEYS = 96     /* its columns: whole groups of three registers of any width */
};

#define SLR_LOG2E 1.44269504088896341f
#define SLR_LN2   0.69314718055994531f

/* One head, packed.  Rows beyond the last are zero up to a whole tile; dp is d in whole registers.
 */
typedef struct slr_attn_head {
    int64_t tq, tk, d, dp;
    bool causal;
    float scale;
    const float *kt;           /* [tiles][d][KEYS]: keys, transposed per tile */
    const float *vt;           /* the same of v; backward only */
    const float *krow, *vrow;  /* [tk..][dp]; krow backward only */
    const float *qrow;         /* [tq..][dp], times scale * log2 e; backward only */
    const float *dorow;        /* [tq..][dp]; backward only */
    const float *lse2, *delta; /* [tq..]: lse in log2 units (huge in padding), sum(do o) */
} slr_attn_head;

typedef struct slr_attn_fn {
    int64_t lanes;
    /* A tile of queries from q0 on: q (rows of ldq), o (rows of ldo) and lse point to its first
     * row. scratch: forward_floats(dp) */
    void (*forward)(const slr_attn_head *h, int64_t q0, const float *q, int64_t ldq, float *o,
                    int64_t ldo, float *lse, float *scratch);
    /* One tile of keys from k0 on against all queries: adds to dq [tq..][dp], writes dk and dv,
     * which point to its first row. */
    void (*backward)(const slr_attn_head *h, int64_t k0, float *dq, float *dk, float *dv,
                     int64_t ldk, float *scratch);
} slr_attn_fn;

static inline int64_t slr_attn_up(int64_t n, int64_t to)
{
    return (n + to - 1) / to * to;
}

static inline int64_t slr_attn_forward_floats(int64_t dp)
{
    return SLR_ATTN_QUERIES * (2 * dp + SLR_ATTN_KEYS + 32);
}

static inline int64_t slr_attn_backward_floats(int64_t dp)
{
    return 2 * SLR_ATTN_QUERIES * SLR_ATTN_KEYS + 2 * SLR_ATTN_KEYS * dp;
}

#endif
