/* SPDX-License-Identifier: MIT */
/* ATTENTION without the matrix of scores in memory: for a tile of queries, block after block of
 * keys goes through scores, a running softmax (Milakov, Gimelshein 2018; Dao et al. 2022) and the
 * product with values.  All tiles are transposed: scores are [keys,queries], results [d,queries],
 * so queries are the lanes throughout.  Refuses to know instructions; products are tilemm.h's. */
#include "attention.h"

#include <string.h>

enum {
    MAX_QUERIES = 128,
    MAX_KEYS = 512,
    ROUND_PAIRS = 8,       /* pairs that are worth sharing out */
    ROUND_BYTES = 4 << 20, /* packs of one sample that are small beside a model */
    SMALL_WORK = 1 << 19,  /* multiply-adds */
    TINY_SCORES = 16 * 16  /* of a head */
};

/* --- the shape --- */

static bool is_shape(const sdlora_tdesc *t, int64_t x, int64_t y, int64_t z)
{
    return t->rank == 3 && t->dim[0] == x && t->dim[1] == y && t->dim[2] == z;
}

int dn_attn_dense(const sdlora_dev *dev, const sdlora_tdesc *t, uint32_t type, int64_t x, int64_t y,
                  int64_t z, const char *name)
{
    if (t->dtype != type || !dn_dense(t))
        return dn_fail(dev, SDLORA_ENOTSUP,
                       "attention: %s is of type %u or has gaps; dense values of type %u are taken",
                       name, (unsigned)t->dtype, (unsigned)type);
    if (!is_shape(t, x, y, z))
        return dn_fail(dev, SDLORA_EINVAL, "attention: %s is not [%lld,%lld,%lld]", name,
                       (long long)x, (long long)y, (long long)z);
    return SDLORA_OK;
}

static int check_type(const sdlora_dev *dev, const sdlora_tdesc *in)
{
    const uint32_t type = in[0].dtype;
    if (type != SDLORA_F32 && type != SDLORA_BF16)
        return dn_fail(dev, SDLORA_ENOTSUP, "attention of type %u; f32 and bf16 are taken",
                       (unsigned)type);
    if (type == SDLORA_BF16 && !(dev->features & DN_CPU_AVX512_BF16))
        return dn_fail(dev, SDLORA_ENOTSUP, "attention in bf16 wants AVX512_BF16");
    for (int i = 0; i < 3; i++)
        if (in[i].dtype != type || in[i].rank != 3 || (in[i].stride[2] != 1 && in[i].dim[2] != 1))
            return dn_fail(dev, SDLORA_ENOTSUP,
                           "attention takes [N,T,C] of one type with dense rows; %c is of type %u, "
                           "rank %u",
                           "qkv"[i], (unsigned)in[i].dtype, (unsigned)in[i].rank);
    return SDLORA_OK;
}

/* The smallest tiles that are as few as tiles of `most` would be, in whole units. */
static int64_t even_tile(int64_t count, int64_t most, int64_t unit)
{
    return dn_round_up(dn_ceil_div(count, dn_ceil_div(count, most)), unit);
}

int dn_attn_init(dn_attn *a, const sdlora_dev *dev, const sdlora_opdesc *op, const sdlora_tdesc *in,
                 int64_t max_queries, int64_t max_keys)
{
    if (op->n_int < 1 || op->n_real < 1 || op->ints[0] < 1)
        return dn_fail(dev, SDLORA_EINVAL, "attention: heads or scale are missing");
    DN_TRY(check_type(dev, in));
    const int64_t c = in[0].dim[2];
    const bool bf16 = in[0].dtype == SDLORA_BF16;
    *a = (dn_attn){.type = in[0].dtype,
                   .size = bf16 ? 2 : 4,
                   .n = in[0].dim[0],
                   .heads = op->ints[0],
                   .tq = in[0].dim[1],
                   .tk = in[1].dim[1],
                   .d = c / op->ints[0],
                   .causal = op->n_int > 1 && op->ints[1],
                   .scale = (float)op->reals[0],
                   .q_sample = in[0].stride[0],
                   .q_row = in[0].stride[1],
                   .k_sample = in[1].stride[0],
                   .k_row = in[1].stride[1],
                   .v_sample = in[2].stride[0],
                   .v_row = in[2].stride[1],
                   .fn = bf16 ? &dn_softmax_bf16 : &dn_softmax_f32};
    if (a->d * a->heads != c || a->d == 0 || a->n == 0 || a->tq == 0 || a->tk == 0 ||
        !is_shape(&in[1], a->n, a->tk, c) || !is_shape(&in[2], a->n, a->tk, c) ||
        (a->causal && a->tq != a->tk))
        return dn_fail(dev, SDLORA_EINVAL,
                       "attention: q [%lld,%lld,%lld] and k [%lld,%lld,%lld] with %lld heads",
                       (long long)a->n, (long long)a->tq, (long long)c, (long long)in[1].dim[0],
                       (long long)a->tk, (long long)in[1].dim[2], (long long)a->heads);
    if (!(a->scale > 0) || a->scale > 1e30f)
        return dn_fail(dev, SDLORA_ENOTSUP, "attention takes scales above 0 only, not %g",
                       (double)a->scale);
    /* a tile register of AMX holds 32 values of k */
    const bool amx = bf16 && dev->features & DN_CPU_AMX_BF16;
    a->depth = dn_round_up(a->d, amx ? 32 : bf16 ? 2 : 1);
    a->nq = even_tile(a->tq, max_queries, amx ? 32 : 16);
    a->tiles = dn_ceil_div(a->tq, a->nq);
    a->kb = even_tile(a->tk, max_keys, amx ? 32 : 8);
    a->blocks = dn_ceil_div(a->tk, a->kb);
    return SDLORA_OK;
}

void dn_attn_set_round(dn_attn *a, int64_t pair_bytes)
{
    const int64_t samples = dn_ceil_div(ROUND_PAIRS, a->heads);
    const bool large = pair_bytes > ROUND_BYTES / a->heads;
    a->round = a->heads * (large ? dn_min(samples, a->n) : a->n);
}

/* Is the built-in faster?  It calls no library, which takes longer than a few scores; and where
 * there are fewer queries than lanes, most of a tile is empty.  It computes in f32, so in bf16 it
 * falls behind early. */
static bool is_tiny(const dn_attn *a)
{
    const int64_t scores = a->tq * a->tk;
    return scores <= TINY_SCORES ||
           (a->type == SDLORA_F32 && a->n * a->heads * scores <= SMALL_WORK / a->d);
}

/* --- operands of the products --- */

/* Sixteen bytes at a time: heads are often shorter than a call of memcpy() is worth. */
static void copy_row(char *to, const char *from, int64_t bytes)
{
    int64_t x = 0;
    for (; x + 16 <= bytes; x += 16)
        memcpy(to + x, from + x, 16);
    if (x < bytes)
        memcpy(to + x, from + x, (size_t)(bytes - x));
}

void dn_attn_rows(const dn_attn *a, void *dst, const void *src, int64_t ld, int64_t b)
{
    const int64_t keys = dn_attn_keys(a, b), row = a->depth * a->size, given = a->d * a->size;
    const char *from = (const char *)src + b * a->kb * ld * a->size;
    char *to = dst;
    for (int64_t i = 0; i < keys; i++) {
        copy_row(to + i * row, from + i * ld * a->size, given);
        if (row > given)
            memset(to + i * row + given, 0, (size_t)(row - given));
    }
    memset(to + keys * row, 0, (size_t)((a->kb - keys) * row));
}

/* Eight columns at a time, so that whole cache lines are read. */
#define TURN(name, type)                                                                           \
    static void name(type *restrict to, const type *restrict from, int64_t ld, int64_t rows,       \
                     int64_t width, int64_t d)                                                     \
    {                                                                                              \
        for (int64_t j0 = 0; j0 < d; j0 += 8)                                                      \
            for (int64_t i = 0; i < rows; i++)                                                     \
                for (int64_t j = j0; j < dn_min(j0 + 8, d); j++)                                   \
                    to[j * width + i] = from[i * ld + j];                                          \
        for (int64_t j = 0; j < d; j++)                                                            \
            memset(to + j * width + rows, 0, (size_t)(width - rows) * sizeof *to);                 \
    }
TURN(turn16, uint16_t)
TURN(turn32, uint32_t)

void dn_attn_columns(const dn_attn *a, void *dst, const void *src, int64_t ld, int64_t b)
{
    const int64_t keys = dn_attn_keys(a, b), from = b * a->kb * ld;
    if (a->size == 2)
        turn16(dst, (const uint16_t *)src + from, ld, keys, a->kb, a->d);
    else
        turn32(dst, (const uint32_t *)src + from, ld, keys, a->kb, a->d);
}

/* --- forward --- */

typedef struct forward_kernel {
    sdlora_kernel head;
    dn_attn a;
    dn_tilemm scores;                       /* [kb,depth] [depth,nq] -> [kb,nq] */
    dn_tilemm values;                       /* [d,kb] [kb,nq] -> adds to [d,nq] */
    int64_t keys_at, values_at, pair_bytes; /* a pair's packs: [kb,depth] and [d,kb] per block */
    int64_t q_at, s_at, p_at, acc_at, max_at, sum_at, work_at, slot_bytes;
} forward_kernel;

typedef struct forward_job {
    const forward_kernel *k;
    const char *q, *key, *v;
    char *o, *packs, *slots;
    float *lse;
    int64_t z0, pairs; /* this round's: z0 .. z0 + pairs; pieces count from z0 */
    _Atomic int failed;
} forward_job;

static void pack_keys(void *arg, int64_t piece, int slot)
{
    const forward_job *job = arg;
    const forward_kernel *k = job->k;
    const dn_attn *a = &k->a;
    const int64_t z = piece / a->blocks, b = piece % a->blocks;
    char *pack = job->packs + z * k->pair_bytes;
    (void)slot;
    dn_attn_rows(a, pack + k->keys_at + b * a->kb * a->depth * a->size,
                 job->key + dn_attn_at(a, job->z0 + z, a->k_sample), a->k_row, b);
    dn_attn_columns(a, pack + k->values_at + b * a->kb * a->d * a->size,
                    job->v + dn_attn_at(a, job->z0 + z, a->v_sample), a->v_row, b);
}

/* One block of keys against the tile of queries that begins at q0. */
static int forward_block(const forward_kernel *k, const char *pack, char *mine, int slot, int64_t b,
                         int64_t q0)
{
    const dn_attn *a = &k->a;
    const sdlora_dev *dev = k->head.dev;
    const dn_scores t = {.s = (float *)(mine + k->s_at),
                         .keys = dn_attn_keys(a, b),
                         .pad_keys = a->kb,
                         .nq = a->nq,
                         .unit = a->scale * DN_LOG2E};
    const dn_running r = {.max = (float *)(mine + k->max_at),
                          .sum = (float *)(mine + k->sum_at),
                          .acc = (float *)(mine + k->acc_at),
                          .d = a->d};
    DN_TRY(dn_tilemm_run(&k->scores, dev, slot, pack + k->keys_at + b * a->kb * a->depth * a->size,
                         mine + k->q_at, t.s, mine + k->work_at));
    if (a->causal && (b + 1) * a->kb > q0)
        dn_softmax_causal(&t, b * a->kb, q0);
    a->fn->forward(&t, &r, &k->values.b, mine + k->p_at);
    return dn_tilemm_run(&k->values, dev, slot, pack + k->values_at + b * a->kb * a->d * a->size,
                         mine + k->p_at, r.acc, mine + k->work_at);
}

static void forward_piece(void *arg, int64_t piece, int slot)
{
    forward_job *job = arg;
    const forward_kernel *k = job->k;
    const dn_attn *a = &k->a;
    const int64_t z = piece / a->tiles, q0 = piece % a->tiles * a->nq, ld = a->heads * a->d;
    const int64_t rows = dn_min(a->nq, a->tq - q0), pair = job->z0 + z;
    char *mine = job->slots + slot * k->slot_bytes;
    const dn_running r = {.max = (float *)(mine + k->max_at),
                          .sum = (float *)(mine + k->sum_at),
                          .acc = (float *)(mine + k->acc_at),
                          .d = a->d};
    dn_tile_pack_columns(&k->scores.b, a->nq, mine + k->q_at,
                         job->q + dn_attn_at(a, pair, a->q_sample) + q0 * a->q_row * a->size,
                         a->q_row, a->d, rows);
    for (int64_t i = 0; i < a->nq; i++)
        r.max[i] = -__builtin_inff();
    memset(r.sum, 0, (size_t)a->nq * sizeof *r.sum);
    memset(r.acc, 0, (size_t)(a->d * a->nq) * sizeof *r.acc);
    const int64_t end = a->causal ? dn_min(a->tk, q0 + rows) : a->tk; /* keys that any one sees */
    for (int64_t b = 0; b * a->kb < end; b++) {
        int rc = forward_block(k, job->packs + z * k->pair_bytes, mine, slot, b, q0);
        if (rc < 0) {
            dn_attn_note(&job->failed, rc);
            return;
        }
    }
    a->fn->finish(&r, a->nq, rows, a->scale * DN_LOG2E,
                  job->o + dn_attn_at(a, pair, a->tq * ld) + q0 * ld * a->size, ld,
                  job->lse + pair * a->tq + q0);
}

static void forward_rounds(forward_job *job)
{
    const forward_kernel *k = job->k;
    const dn_attn *a = &k->a;
    const int64_t all = a->n * a->heads;
    for (job->z0 = 0; job->z0 < all; job->z0 += a->round) {
        job->pairs = dn_min(a->round, all - job->z0);
        dn_spread(k->head.dev, job->pairs * a->blocks, pack_keys, job);
        dn_spread(k->head.dev, job->pairs * a->tiles, forward_piece, job);
    }
}

static int forward_launch(sdlora_kernel *head, void *const *ptr, void *scratch)
{
    const forward_kernel *k = (const forward_kernel *)head;
    forward_job job = {
        .k = k,
        .q = ptr[0],
        .key = ptr[1],
        .v = ptr[2],
        .o = ptr[3],
        .lse = ptr[4],
        .packs = scratch,
        .slots = (char *)scratch + k->a.round * k->pair_bytes,
    };
    forward_rounds(&job);
    if (job.failed < 0)
        return dn_fail(head->dev, job.failed, "attention: oneDNN failed in a tile");
    return SDLORA_OK;
}

static void forward_free(sdlora_kernel *head)
{
    forward_kernel *k = (forward_kernel *)head;
    dn_tilemm_free(head->dev, &k->scores);
    dn_tilemm_free(head->dev, &k->values);
}

static void forward_parts(forward_kernel *k)
{
    const dn_attn *a = &k->a;
    const int64_t lanes = a->nq * 4, work = k->scores.work_bytes > k->values.work_bytes
                                                ? k->scores.work_bytes
                                                : k->values.work_bytes;
    k->keys_at = dn_attn_part(&k->pair_bytes, a->blocks * a->kb * a->depth * a->size);
    k->values_at = dn_attn_part(&k->pair_bytes, a->blocks * a->kb * a->d * a->size);
    k->q_at = dn_attn_part(&k->slot_bytes, k->scores.b.bytes);
    k->s_at = dn_attn_part(&k->slot_bytes, a->kb * lanes);
    k->p_at = dn_attn_part(&k->slot_bytes, k->values.b.bytes);
    k->acc_at = dn_attn_part(&k->slot_bytes, a->d * lanes);
    k->max_at = dn_attn_part(&k->slot_bytes, lanes);
    k->sum_at = dn_attn_part(&k->slot_bytes, lanes);
    k->work_at = dn_attn_part(&k->slot_bytes, work);
}

static int forward_prepare(sdlora_kernel **out, uint64_t *scratch, sdlora_dev *dev,
                           const sdlora_opdesc *op)
{
    dn_attn a;
    if (op->n_in != 3 || op->n_out != 2)
        return dn_fail(dev, SDLORA_EINVAL, "attention: q, k, v give o and lse");
    DN_TRY(dn_attn_init(&a, dev, op, op->in, MAX_QUERIES, MAX_KEYS));
    if (is_tiny(&a))
        return dn_fail(dev, SDLORA_ENOTSUP, "attention this small: the built-in is faster");
    DN_TRY(dn_attn_dense(dev, &op->out[0], a.type, a.n, a.tq, a.heads * a.d, "o"));
    DN_TRY(dn_attn_dense(dev, &op->out[1], SDLORA_F32, a.n, a.heads, a.tq, "lse"));
    for (uint32_t i = 0; i < 3; i++)
        if (dn_frozen(op, i))
            return dn_fail(dev, SDLORA_ENOTSUP, "attention: %c is frozen", "qkv"[i]);
    forward_kernel *k = dn_kernel_new(dev, sizeof *k, forward_launch, forward_free);
    if (!k)
        return SDLORA_ENOMEM;
    *out = &k->head;
    k->a = a;
    DN_TRY(dn_tilemm_init(&k->scores, dev, a.type, a.kb, a.nq, a.depth, false));
    DN_TRY(dn_tilemm_init(&k->values, dev, a.type, a.d, a.nq, a.kb, true));
    forward_parts(k);
    dn_attn_set_round(&k->a, k->pair_bytes);
    *scratch = (uint64_t)(k->a.round * k->pair_bytes + dev->slots * k->slot_bytes);
    return SDLORA_OK;
}

const dn_row dn_rows_attention[] = {
    {.op = SDLORA_OP_ATTENTION, .prepare = forward_prepare},
    {0},
};
