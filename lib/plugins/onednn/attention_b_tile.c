/* SPDX-License-Identifier: MIT */
/* A tile of attention's gradient: five products, of which all but dq's run together where the
 * processor multiplies bf16 in vectors (gradient.c).  Refuses to know what is summed where. */
#include "attention_b.h"

#include "gradient.h"

static const float padding_lse2 = 1e30f; /* 2^(score - this) is 0 */

/* --- packing --- */

void dn_backward_pack_keys(void *arg, int64_t piece, int slot)
{
    const dn_backward_job *job = arg;
    const dn_backward *k = job->k;
    const dn_attn *a = &k->a;
    const int64_t z = piece / a->blocks, b = piece % a->blocks;
    const int64_t rows = b * a->kb * a->depth * a->size;
    const uint16_t *key = job->key + dn_backward_at(a, job->z0 + z, a->k_sample);
    char *pack = job->packs + z * k->pair_bytes;
    (void)slot;
    dn_attn_rows(a, pack + k->k_at + rows, key, a->k_row, b);
    dn_attn_rows(a, pack + k->v_at + rows, job->v + dn_backward_at(a, job->z0 + z, a->v_sample),
                 a->v_row, b);
    dn_attn_columns(a, pack + k->kt_at + b * a->kb * a->d * a->size, key, a->k_row, b);
}

void dn_backward_pack_tile(const dn_backward_job *job, int64_t pair, int64_t t, char *tile)
{
    const dn_backward *k = job->k;
    const dn_attn *a = &k->a;
    const int64_t q0 = t * a->nq, rows = dn_min(a->nq, a->tq - q0), ld = a->heads * a->d;
    const int64_t dense = dn_backward_at(a, pair, a->tq * ld) + q0 * ld;
    const uint16_t *q = job->q + dn_backward_at(a, pair, a->q_sample) + q0 * a->q_row;
    const uint16_t *d_o = job->d_o + dense;
    float *lse2 = (float *)(tile + k->lse_at), *delta = (float *)(tile + k->delta_at);
    dn_tile_pack_columns(&k->scores.b, a->nq, tile + k->qt_at, q, a->q_row, a->d, rows);
    dn_tile_pack_columns(&k->scores.b, a->nq, tile + k->dot_at, d_o, ld, a->d, rows);
    dn_tile_pack_rows(&k->keys.b, a->d, tile + k->q_at, q, a->q_row, rows, a->d);
    dn_tile_pack_rows(&k->keys.b, a->d, tile + k->do_at, d_o, ld, rows, a->d);
    for (int64_t i = 0; i < a->nq; i++) {
        const int64_t row = i * ld;
        delta[i] = i < rows ? dn_softmax_dot(d_o + row, job->o + dense + row, a->d) : 0.0f;
        lse2[i] = i < rows ? job->lse[pair * a->tq + q0 + i] * DN_LOG2E : padding_lse2;
    }
}

/* --- tiles --- */

/* Block b of keys against tile t of queries, which lies at `tile`: dk, dv, and dS as `queries`
 * wants it; product by product ... */
static int by_products(const dn_backward *k, const char *pack, const char *tile, char *mine,
                       int slot, int64_t b, int64_t t, dn_sums to)
{
    const dn_attn *a = &k->a;
    const sdlora_dev *dev = k->head.dev;
    const int64_t rows = b * a->kb * a->depth * a->size;
    const dn_scores s = {.s = (float *)(mine + k->s_at),
                         .keys = dn_attn_keys(a, b),
                         .pad_keys = a->kb,
                         .nq = a->nq,
                         .unit = a->scale * DN_LOG2E};
    float *dp = (float *)(mine + k->dp_at);
    void *work = mine + k->work_at;
    DN_TRY(dn_tilemm_run(&k->scores, dev, slot, pack + k->k_at + rows, tile + k->qt_at, s.s, work));
    DN_TRY(dn_tilemm_run(&k->scores, dev, slot, pack + k->v_at + rows, tile + k->dot_at, dp, work));
    if (a->causal && (b + 1) * a->kb > t * a->nq)
        dn_softmax_causal(&s, b * a->kb, t * a->nq);
    dn_softmax_backward(&s, dp, (const float *)(tile + k->lse_at),
                        (const float *)(tile + k->delta_at), &k->queries.b,
                        (uint16_t *)(mine + k->p_at), (uint16_t *)(mine + k->ds_at),
                        (uint16_t *)(mine + k->packed_at));
    DN_TRY(dn_tilemm_run(&k->keys, dev, slot, mine + k->p_at, tile + k->do_at, to.dv, work));
    return dn_tilemm_run(&k->keys, dev, slot, mine + k->ds_at, tile + k->q_at, to.dk, work);
}

/* ... or all at once. */
static void at_once(const dn_backward *k, const char *pack, const char *tile, char *mine, int64_t b,
                    dn_sums to)
{
    const dn_attn *a = &k->a;
    const int64_t rows = b * a->kb * a->depth * a->size;
    dn_gradient_run(&(dn_gradient){.keys = dn_attn_keys(a, b),
                                   .nq = a->nq,
                                   .d = a->d,
                                   .depth = a->depth,
                                   .k = (const void *)(pack + k->k_at + rows),
                                   .v = (const void *)(pack + k->v_at + rows),
                                   .q_columns = tile + k->qt_at,
                                   .do_columns = tile + k->dot_at,
                                   .q_rows = tile + k->q_at,
                                   .do_rows = tile + k->do_at,
                                   .lse2 = (const float *)(tile + k->lse_at),
                                   .delta = (const float *)(tile + k->delta_at),
                                   .unit = a->scale * DN_LOG2E,
                                   .dk = to.dk,
                                   .dv = to.dv,
                                   .layout = &k->queries.b,
                                   .ds = mine + k->packed_at,
                                   .work = mine + k->p_at});
}

int dn_backward_tile(const dn_backward *k, const char *pack, const char *tile, char *mine, int slot,
                     int64_t b, int64_t t, dn_sums to)
{
    const dn_attn *a = &k->a;
    if (k->fused)
        at_once(k, pack, tile, mine, b, to);
    else
        DN_TRY(by_products(k, pack, tile, mine, slot, b, t, to));
    return dn_tilemm_run(&k->queries, k->head.dev, slot,
                         pack + k->kt_at + b * a->kb * a->d * a->size, mine + k->packed_at, to.dq,
                         mine + k->work_at);
}
