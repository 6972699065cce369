/* SPDX-License-Identifier: MIT */
/* ATTENTION_B: probabilities are made again from lse, tile by tile.  Many keys: a piece is a group
 * of blocks of keys of one pair; it owns their dk and dv, and adds to a dq of its own, which are
 * summed group by group.  Few keys, one block: a piece is a span of queries, owns their dq, and
 * has a dk and dv of its own, summed span by span; nothing but these leaves the cache.  Cuts depend
 * on shapes alone.  Takes bf16 only: in f32 the built-in kernel is as fast.  Refuses to know
 * instructions. */
#include "attention_b.h"

#include <string.h>

#include "gradient.h"

enum {
    MAX_QUERIES = 128,
    MAX_KEYS = 256,    /* product by product: scores of a tile stay in the second cache ... */
    FUSED_KEYS = 512,  /* ... all at once: only dS is written out, so dq is added to less often */
    GROUP_KEYS = 1024, /* keys of one piece: fewer cost more dq to sum */
    SPAN_TILES = 8     /* tiles of queries of one piece where keys are few */
};

/* --- sums --- */

static void clear(float *x, int64_t n)
{
    memset(x, 0, (size_t)n * sizeof *x);
}

/* to += more */
static void add(float *restrict to, const float *restrict more, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        to[i] += more[i];
}

/* Sums of block b of a pair's keys -> dk and dv. */
static void store_keys(const dn_backward_job *job, int64_t pair, int64_t b, dn_sums from)
{
    const dn_attn *a = &job->k->a;
    const int64_t ld = a->heads * a->d, to = dn_backward_at(a, pair, a->tk * ld) + b * a->kb * ld;
    dn_softmax_store(from.dk, a->d, dn_attn_keys(a, b), a->scale, job->dk + to, ld);
    dn_softmax_store(from.dv, a->d, dn_attn_keys(a, b), 1.0f, job->dv + to, ld);
}

/* Sums of tile t of a pair's queries -> dq. */
static void store_queries(const dn_backward_job *job, int64_t pair, int64_t t, const float *dq)
{
    const dn_attn *a = &job->k->a;
    const int64_t ld = a->heads * a->d, q0 = t * a->nq;
    dn_softmax_turn(dq, a->d, a->nq, dn_min(a->nq, a->tq - q0), a->scale,
                    job->dq + dn_backward_at(a, pair, a->tq * ld) + q0 * ld, ld);
}

/* --- many keys --- */

static void pack_queries(void *arg, int64_t piece, int slot)
{
    const dn_backward_job *job = arg;
    const dn_backward *k = job->k;
    const dn_attn *a = &k->a;
    const int64_t z = piece / a->tiles, t = piece % a->tiles, values = a->nq * a->d;
    char *pack = job->packs + z * k->pair_bytes;
    (void)slot;
    dn_backward_pack_tile(job, job->z0 + z, t, pack + k->tiles_at + t * k->tile_bytes);
    for (int64_t g = 0; g < k->groups; g++)
        clear((float *)(pack + k->dq_at) + (g * a->tiles + t) * values, values);
}

static void backward_piece(void *arg, int64_t piece, int slot)
{
    dn_backward_job *job = arg;
    const dn_backward *k = job->k;
    const dn_attn *a = &k->a;
    const int64_t z = piece / k->groups, g = piece % k->groups, values = a->nq * a->d;
    const int64_t end = dn_min((g + 1) * k->group_blocks, a->blocks);
    char *pack = job->packs + z * k->pair_bytes, *mine = job->slots + slot * k->slot_bytes;
    float *dq = (float *)(pack + k->dq_at) + g * a->tiles * values;
    dn_sums to = {.dk = (float *)(mine + k->own_dk_at), .dv = (float *)(mine + k->own_dv_at)};
    for (int64_t b = g * k->group_blocks; b < end; b++) {
        clear(to.dk, a->kb * a->d);
        clear(to.dv, a->kb * a->d);
        /* queries before the first key see none of this block */
        for (int64_t t = a->causal ? b * a->kb / a->nq : 0; t < a->tiles; t++) {
            to.dq = dq + t * values;
            int rc = dn_backward_tile(k, pack, pack + k->tiles_at + t * k->tile_bytes, mine, slot,
                                      b, t, to);
            if (rc < 0) {
                dn_attn_note(&job->failed, rc);
                return;
            }
        }
        store_keys(job, job->z0 + z, b, to);
    }
}

static void sum_groups(void *arg, int64_t piece, int slot)
{
    const dn_backward_job *job = arg;
    const dn_backward *k = job->k;
    const dn_attn *a = &k->a;
    const int64_t z = piece / a->tiles, t = piece % a->tiles, values = a->nq * a->d;
    float *sum = (float *)(job->packs + z * k->pair_bytes + k->dq_at) + t * values;
    (void)slot;
    for (int64_t g = 1; g < k->groups; g++)
        add(sum, sum + g * a->tiles * values, values);
    store_queries(job, job->z0 + z, t, sum);
}

/* --- few keys --- */

static void span_piece(void *arg, int64_t piece, int slot)
{
    dn_backward_job *job = arg;
    const dn_backward *k = job->k;
    const dn_attn *a = &k->a;
    const int64_t z = piece / k->spans, span = piece % k->spans, values = a->kb * a->d;
    const int64_t end = dn_min((span + 1) * SPAN_TILES, a->tiles);
    char *pack = job->packs + z * k->pair_bytes, *mine = job->slots + slot * k->slot_bytes;
    const dn_sums to = {.dq = (float *)(mine + k->own_dq_at),
                        .dk = (float *)(pack + k->dk_at) + span * values,
                        .dv = (float *)(pack + k->dv_at) + span * values};
    clear(to.dk, values);
    clear(to.dv, values);
    for (int64_t t = span * SPAN_TILES; t < end; t++) {
        dn_backward_pack_tile(job, job->z0 + z, t, mine + k->tile_at);
        clear(to.dq, a->nq * a->d);
        int rc = dn_backward_tile(k, pack, mine + k->tile_at, mine, slot, 0, t, to);
        if (rc < 0) {
            dn_attn_note(&job->failed, rc);
            return;
        }
        store_queries(job, job->z0 + z, t, to.dq);
    }
}

static void sum_spans(void *arg, int64_t z, int slot)
{
    const dn_backward_job *job = arg;
    const dn_backward *k = job->k;
    const int64_t values = k->a.kb * k->a.d;
    char *pack = job->packs + z * k->pair_bytes;
    const dn_sums sum = {.dk = (float *)(pack + k->dk_at), .dv = (float *)(pack + k->dv_at)};
    (void)slot;
    for (int64_t span = 1; span < k->spans; span++) {
        add(sum.dk, sum.dk + span * values, values);
        add(sum.dv, sum.dv + span * values, values);
    }
    store_keys(job, job->z0 + z, 0, sum);
}

/* --- launching --- */

static void backward_rounds(dn_backward_job *job)
{
    const dn_backward *k = job->k;
    const dn_attn *a = &k->a;
    const sdlora_dev *dev = k->head.dev;
    const int64_t all = a->n * a->heads;
    for (job->z0 = 0; job->z0 < all; job->z0 += a->round) {
        job->pairs = dn_min(a->round, all - job->z0);
        dn_spread(dev, job->pairs * a->blocks, dn_backward_pack_keys, job);
        if (k->few) {
            dn_spread(dev, job->pairs * k->spans, span_piece, job);
            dn_spread(dev, job->pairs, sum_spans, job);
        } else {
            dn_spread(dev, job->pairs * a->tiles, pack_queries, job);
            dn_spread(dev, job->pairs * k->groups, backward_piece, job);
            dn_spread(dev, job->pairs * a->tiles, sum_groups, job);
        }
    }
}

static int backward_launch(sdlora_kernel *head, void *const *ptr, void *scratch)
{
    const dn_backward *k = (const dn_backward *)head;
    dn_backward_job job = {
        .k = k,
        .d_o = ptr[0],
        .q = ptr[1],
        .key = ptr[2],
        .v = ptr[3],
        .o = ptr[4],
        .lse = ptr[5],
        .dq = ptr[6],
        .dk = ptr[7],
        .dv = ptr[8],
        .packs = scratch,
        .slots = (char *)scratch + k->a.round * k->pair_bytes,
    };
    backward_rounds(&job);
    if (job.failed < 0)
        return dn_fail(head->dev, job.failed, "attention: oneDNN failed in a tile");
    return SDLORA_OK;
}

/* --- preparing --- */

static void backward_free(sdlora_kernel *head)
{
    dn_backward *k = (dn_backward *)head;
    dn_tilemm_free(head->dev, &k->scores);
    dn_tilemm_free(head->dev, &k->keys);
    dn_tilemm_free(head->dev, &k->queries);
}

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static void backward_parts(dn_backward *k)
{
    const dn_attn *a = &k->a;
    const int64_t rows = a->blocks * a->kb * a->depth * a->size, tile = a->kb * a->nq;
    const int64_t keys = a->kb * a->d * 4, queries = a->nq * a->d * 4;
    int64_t *end = &k->tile_bytes;
    k->qt_at = dn_attn_part(end, k->scores.b.bytes);
    k->dot_at = dn_attn_part(end, k->scores.b.bytes);
    k->q_at = dn_attn_part(end, k->keys.b.bytes);
    k->do_at = dn_attn_part(end, k->keys.b.bytes);
    k->lse_at = dn_attn_part(end, a->nq * 4);
    k->delta_at = dn_attn_part(end, a->nq * 4);
    end = &k->pair_bytes;
    k->k_at = dn_attn_part(end, rows);
    k->v_at = dn_attn_part(end, rows);
    k->kt_at = dn_attn_part(end, a->blocks * a->kb * a->d * a->size);
    k->tiles_at = dn_attn_part(end, k->few ? 0 : a->tiles * k->tile_bytes);
    k->dq_at = dn_attn_part(end, k->few ? 0 : k->groups * a->tiles * queries);
    k->dk_at = dn_attn_part(end, k->few ? k->spans * keys : 0);
    k->dv_at = dn_attn_part(end, k->few ? k->spans * keys : 0);
    end = &k->slot_bytes;
    k->s_at = dn_attn_part(end, k->fused ? 0 : tile * 4);
    k->dp_at = dn_attn_part(end, k->fused ? 0 : tile * 4);
    k->p_at = dn_attn_part(end, k->fused ? dn_gradient_bytes(a->nq) : tile * a->size);
    k->ds_at = dn_attn_part(end, k->fused ? 0 : tile * a->size);
    k->packed_at = dn_attn_part(end, k->queries.b.bytes);
    k->own_dk_at = dn_attn_part(end, k->few ? 0 : keys);
    k->own_dv_at = dn_attn_part(end, k->few ? 0 : keys);
    k->tile_at = dn_attn_part(end, k->few ? k->tile_bytes : 0);
    k->own_dq_at = dn_attn_part(end, k->few ? queries : 0);
    k->work_at = dn_attn_part(
        end, larger(larger(k->scores.work_bytes, k->keys.work_bytes), k->queries.work_bytes));
}

static int check_operands(const dn_attn *a, const sdlora_dev *dev, const sdlora_opdesc *op)
{
    const int64_t c = a->heads * a->d;
    DN_TRY(dn_attn_dense(dev, &op->in[0], a->type, a->n, a->tq, c, "do"));
    DN_TRY(dn_attn_dense(dev, &op->in[4], a->type, a->n, a->tq, c, "o"));
    DN_TRY(dn_attn_dense(dev, &op->in[5], SDLORA_F32, a->n, a->heads, a->tq, "lse"));
    DN_TRY(dn_attn_dense(dev, &op->out[0], a->type, a->n, a->tq, c, "dq"));
    DN_TRY(dn_attn_dense(dev, &op->out[1], a->type, a->n, a->tk, c, "dk"));
    DN_TRY(dn_attn_dense(dev, &op->out[2], a->type, a->n, a->tk, c, "dv"));
    for (uint32_t i = 0; i < op->n_in; i++)
        if (dn_frozen(op, i))
            return dn_fail(dev, SDLORA_ENOTSUP, "attention: input %u is frozen", (unsigned)i);
    return SDLORA_OK;
}

/* Tiles of AMX want whole products, and a mask needs the scores by themselves. */
static bool is_fused(const sdlora_dev *dev, const sdlora_opdesc *op)
{
    return !(dev->features & DN_CPU_AMX_BF16) && !(op->n_int > 1 && op->ints[1]);
}

static int backward_prepare(sdlora_kernel **out, uint64_t *scratch, sdlora_dev *dev,
                            const sdlora_opdesc *op)
{
    dn_attn a;
    if (op->n_in != 6 || op->n_out != 3)
        return dn_fail(dev, SDLORA_EINVAL, "attention: do, q, k, v, o, lse give dq, dk, dv");
    const bool fused = is_fused(dev, op);
    DN_TRY(dn_attn_init(&a, dev, op, op->in + 1, MAX_QUERIES, fused ? FUSED_KEYS : MAX_KEYS));
    if (a.type != SDLORA_BF16)
        return dn_fail(dev, SDLORA_ENOTSUP,
                       "attention's gradient in f32: the built-in kernel is as fast");
    DN_TRY(check_operands(&a, dev, op));
    dn_backward *k = dn_kernel_new(dev, sizeof *k, backward_launch, backward_free);
    if (!k)
        return SDLORA_ENOMEM;
    *out = &k->head;
    k->a = a;
    k->group_blocks = dn_ceil_div(GROUP_KEYS, a.kb);
    k->groups = dn_ceil_div(a.blocks, k->group_blocks);
    k->spans = dn_ceil_div(a.tiles, SPAN_TILES);
    k->few = a.blocks == 1;
    k->fused = fused;
    if (fused) {
        k->scores.b = dn_gradient_columns(a.depth, a.nq);
        k->keys.b = dn_gradient_rows(a.nq, a.d);
    } else {
        DN_TRY(dn_tilemm_init(&k->scores, dev, a.type, a.kb, a.nq, a.depth, false));
        DN_TRY(dn_tilemm_init(&k->keys, dev, a.type, a.kb, a.d, a.nq, true));
    }
    DN_TRY(dn_tilemm_init(&k->queries, dev, a.type, a.d, a.nq, a.kb, true));
    backward_parts(k);
    dn_attn_set_round(&k->a, k->pair_bytes);
    *scratch = (uint64_t)(k->a.round * k->pair_bytes + dev->slots * k->slot_bytes);
    return SDLORA_OK;
}

const dn_row dn_rows_attention_b[] = {
    {.op = SDLORA_OP_ATTENTION_B, .prepare = backward_prepare},
    {0},
};
