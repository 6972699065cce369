/* SPDX-License-Identifier: MIT */
/* What the gradient of attention is made of: its kernel, and one tile of queries against one block
 * of keys.  Refuses to know which pieces there are and who sums them. */
#ifndef DN_ATTENTION_B_H
#define DN_ATTENTION_B_H

#include "attention.h"

/* The five products share three shapes. */
typedef struct dn_backward {
    sdlora_kernel head;
    dn_attn a;
    int64_t groups, group_blocks, spans;
    bool few;          /* one block of keys */
    bool fused;        /* gradient.h takes the place of scores and keys; their layouts are its */
    dn_tilemm scores;  /* [kb,depth] [depth,nq] -> [kb,nq]: k q and v do */
    dn_tilemm keys;    /* [kb,nq] [nq,d] -> adds to [kb,d]: dv and dk */
    dn_tilemm queries; /* [d,kb] [kb,nq] -> adds to [d,nq]: dq */
    /* a tile of queries: q and do packed for `scores` and for `keys`, and what rows have */
    int64_t qt_at, dot_at, q_at, do_at, lse_at, delta_at, tile_bytes;
    /* a pair: rows of k and v, k turned; then tiles and dq [groups][tiles][d,nq], or, where keys
     * are few, dk and dv [spans][kb,d] */
    int64_t k_at, v_at, kt_at, tiles_at, dq_at, dk_at, dv_at, pair_bytes;
    /* a slot: scores and what comes of them, dk and dv or a tile and its dq */
    int64_t s_at, dp_at, p_at, ds_at, packed_at, own_dk_at, own_dv_at, tile_at, own_dq_at, work_at,
        slot_bytes;
} dn_backward;

typedef struct dn_backward_job {
    const dn_backward *k;
    const uint16_t *d_o, *q, *key, *v, *o;
    const float *lse;
    uint16_t *dq, *dk, *dv;
    char *packs, *slots;
    int64_t z0, pairs;
    _Atomic int failed;
} dn_backward_job;

/* What one tile of queries against one block of keys adds to. */
typedef struct dn_sums {
    float *dq, *dk, *dv;
} dn_sums;

/* First value of a pair in a tensor whose samples are that far apart, in elements. */
static inline int64_t dn_backward_at(const dn_attn *a, int64_t pair, int64_t sample)
{
    return dn_attn_at(a, pair, sample) / a->size;
}

/* Rows of k and v and columns of k of one block of one pair; pieces of dn_spread(). */
void dn_backward_pack_keys(void *job, int64_t piece, int slot);
/* Tile t of a pair's queries, to `tile`. */
void dn_backward_pack_tile(const dn_backward_job *job, int64_t pair, int64_t t, char *tile);
/* Block b of keys, packed at `pack`, against tile t of queries, which lies at `tile`; `mine` is the
 * slot's. */
int dn_backward_tile(const dn_backward *k, const char *pack, const char *tile, char *mine, int slot,
                     int64_t b, int64_t t, dn_sums to);

#endif
