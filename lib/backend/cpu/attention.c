/* SPDX-License-Identifier: MIT */
/* ATTENTION and ATTENTION_B of f32 or bf16: packs each head's keys, values and (backward) queries
 * once per launch, then runs tiles of attention_tmpl.c over (sample, head, queries) forward and
 * (sample, head, group of keys) backward.  Groups have a fixed size and their dq are added in a
 * fixed order. Packs and tiles are f32; bf16 is converted tile by tile.  Refuses to know the
 * arithmetic inside a tile. */
#include "backend/cpu/attention.h"

#include <string.h>

#include "backend/cpu/convert.h"
#include "base/status.h"

SLR_CPU_DECLARE_F32(slr_attn_fn, slr_cpu_attention);

enum {
    PACK_TILES = 8,                  /* tiles of keys or queries that one piece packs */
    GROUP_KEYS = 10 * SLR_ATTN_KEYS, /* keys of one backward piece */
    PADDING_LSE = 1000000,           /* 2^(score - this) is nothing */
    PAD = 16,              /* rows and keys that tiles read beyond the last: at most this */
    WHOLE = 1 << 20,       /* elements of operands that pass through f32 as wholes */
    ROUND_PAIRS = 8,       /* pairs that are worth sharing out */
    ROUND_FLOATS = 1 << 20 /* packs of one sample that are small beside a model */
};

/* Below this many multiply-adds everything runs on the calling thread. */
#define SMALL_WORK (INT64_C(1) << 19)

typedef struct attention_kernel {
    sdlora_kernel head;
    const slr_attn_fn *fn;
    int64_t n, heads, tq, tk, d, dp;
    int64_t tq_up, tk_up, groups;
    int64_t q_row, q_sample, k_row, k_sample, v_row, v_sample; /* elements */
    bool causal, backward, small;
    float scale;
    int64_t round;       /* (sample, head) pairs packed at a time: bounds the scratch of a batch */
    int64_t head_floats; /* packs of one pair */
    int64_t slot_floats;
    const slr_dtype_row *type; /* of all but lse */
    int64_t stage;             /* where in a slot two tiles of rows in f32 lie; bf16 only */
    /* Small operands of bf16 become f32 before all else, and results bf16 after it: rows of a head
     * may be so short that converting them one by one costs more than what is computed. */
    const slr_dtype_row *outer;            /* the type outside; NULL: computed as it lies */
    int64_t outer_row[3], outer_sample[3]; /* of q, k, v there */
    int64_t at_wholes;                     /* floats of scratch before them */
} attention_kernel;

typedef struct attention_job {
    const attention_kernel *k;
    const slr_cpu_env *env;
    const void *q, *key, *v, *o, *d_o;
    const float *lse_in;
    void *out, *dq, *dk, *dv;
    float *lse;
    float *packs, *slots;
    int64_t z0, pairs; /* this round's pairs: z0 .. z0 + pairs; pieces count from z0 */
} attention_job;

static int64_t min64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static void run(const attention_job *job, int64_t n,
                void (*body)(void *arg, int64_t piece, int slot))
{
    if (!job->k->small) {
        slr_cpu_spread(job->env, n, body, (void *)job);
        return;
    }
    for (int64_t piece = 0; piece < n; piece++)
        body((void *)job, piece, 0);
}

/* --- where things lie --- */

/* The parts of one head's packs; the parts that forward lacks are empty there. */
typedef struct head_packs {
    float *kt, *vt, *krow, *vrow, *qrow, *dorow, *lse2, *delta, *dq;
    int64_t floats;
} head_packs;

static head_packs packs_at(const attention_kernel *k, float *base)
{
    const int64_t columns = k->tk_up * k->d, rows = k->tk_up * k->dp, queries = k->tq_up * k->dp;
    const bool back = k->backward;
    head_packs p = {.kt = base};
    p.vt = p.kt + columns;
    p.krow = p.vt + (back ? columns : 0);
    p.vrow = p.krow + (back ? rows : 0);
    p.qrow = p.vrow + (back ? 0 : rows);
    p.dorow = p.qrow + (back ? queries : 0);
    p.lse2 = p.dorow + (back ? queries : 0);
    p.delta = p.lse2 + (back ? k->tq_up : 0);
    p.dq = p.delta + (back ? k->tq_up : 0);
    p.floats = slr_attn_up(p.dq - base + (back ? k->groups * queries : 0), 16);
    return p;
}

static slr_attn_head head_at(const attention_job *job, int64_t z, head_packs *packs)
{
    const attention_kernel *k = job->k;
    *packs = packs_at(k, job->packs + z * k->head_floats);
    return (slr_attn_head){.tq = k->tq,
                           .tk = k->tk,
                           .d = k->d,
                           .dp = k->dp,
                           .causal = k->causal,
                           .scale = k->scale,
                           .kt = packs->kt,
                           .vt = packs->vt,
                           .krow = packs->krow,
                           .vrow = packs->vrow,
                           .qrow = packs->qrow,
                           .dorow = packs->dorow,
                           .lse2 = packs->lse2,
                           .delta = packs->delta};
}

/* First element of head z = sample * heads + head in a tensor with the given strides. */
static int64_t at_head(const attention_kernel *k, int64_t z, int64_t sample)
{
    return z / k->heads * sample + z % k->heads * k->d;
}

/* Element i of an operand. */
static void *at(const attention_kernel *k, const void *p, int64_t i)
{
    return slr_cpu_at(p, i, (int64_t)k->type->size);
}

static bool is_f32(const attention_kernel *k)
{
    return k->type->dtype == SDLORA_F32;
}

static float *stage_of(const attention_job *job, int slot)
{
    return job->slots + slot * job->k->slot_floats + job->k->stage;
}

/* --- packing --- */

/* Rows [row0, row1) of the operand's [rows, d] -> [row][dp], times `factor`; zero beyond, as far as
 * tiles read. */
static void pack_rows(const attention_kernel *k, float *dst, const void *src, int64_t ld,
                      int64_t rows, int64_t row0, int64_t row1, float factor)
{
    row1 = min64(row1, slr_attn_up(rows, PAD));
    for (int64_t i = row0; i < row1; i++) {
        float *to = dst + i * k->dp;
        const int64_t given = i < rows ? k->d : 0;
        k->type->to_f32(to, at(k, src, i * ld), (size_t)given);
        for (int64_t j = 0; j < given; j++)
            to[j] *= factor;
        memset(to + given, 0, (size_t)(k->dp - given) * sizeof *to);
    }
}

/* [rows, d] -> [d][KEYS]; eight columns at a time, so that whole cache lines are read. */
static void pack_tile(float *dst, const float *src, int64_t ld, int64_t rows, int64_t d)
{
    for (int64_t j0 = 0; j0 < d; j0 += 8) {
        const int64_t j1 = min64(j0 + 8, d);
        for (int64_t i = 0; i < rows; i++)
            for (int64_t j = j0; j < j1; j++)
                dst[j * SLR_ATTN_KEYS + i] = src[i * ld + j];
    }
    const int64_t pad = min64(SLR_ATTN_KEYS, slr_attn_up(rows, PAD)) - rows;
    for (int64_t j = 0; pad && j < d; j++)
        memset(dst + j * SLR_ATTN_KEYS + rows, 0, (size_t)pad * sizeof *dst);
}

/* Eight sums side by side, then those in order. */
static float dot(const float *a, const float *b, int64_t n)
{
    float s[8] = {0}, sum = 0;
    int64_t i = 0;
    for (; i + 8 <= n; i += 8)
        for (int j = 0; j < 8; j++)
            s[j] += a[i + j] * b[i + j];
    for (; i < n; i++)
        sum += a[i] * b[i];
    for (int j = 0; j < 8; j++)
        sum += s[j];
    return sum;
}

/* Rows [row0, row1), whole tiles, of [rows, d] -> [tile][d][KEYS]; zero beyond. */
static void pack_columns(const attention_kernel *k, float *dst, const void *src, int64_t ld,
                         int64_t row0, int64_t row1, float *stage)
{
    for (int64_t t = row0; t < row1; t += SLR_ATTN_KEYS) {
        const int64_t rows = min64(k->tk - t, SLR_ATTN_KEYS);
        if (is_f32(k)) {
            pack_tile(dst + t * k->d, (const float *)src + t * ld, ld, rows, k->d);
        } else {
            slr_cpu_widen(stage, k->d, k->type, at(k, src, t * ld), ld, rows, k->d);
            pack_tile(dst + t * k->d, stage, k->d, rows, k->d);
        }
    }
}

static void pack_keys(void *arg, int64_t piece, int slot)
{
    const attention_job *job = arg;
    const attention_kernel *k = job->k;
    const int64_t step = PACK_TILES * SLR_ATTN_KEYS, chunks = (k->tk_up + step - 1) / step;
    const int64_t z = piece / chunks, row0 = piece % chunks * step;
    const int64_t row1 = min64(row0 + step, k->tk_up);
    const void *key = at(k, job->key, at_head(k, job->z0 + z, k->k_sample)),
               *v = at(k, job->v, at_head(k, job->z0 + z, k->v_sample));
    float *stage = stage_of(job, slot);
    head_packs p;
    head_at(job, z, &p);
    pack_columns(k, p.kt, key, k->k_row, row0, row1, stage);
    if (k->backward) {
        pack_columns(k, p.vt, v, k->v_row, row0, row1, stage);
        pack_rows(k, p.krow, key, k->k_row, k->tk, row0, row1, 1.0f);
    } else {
        pack_rows(k, p.vrow, v, k->v_row, k->tk, row0, row1, 1.0f);
    }
}

static void pack_queries(void *arg, int64_t piece, int slot)
{
    const attention_job *job = arg;
    const attention_kernel *k = job->k;
    const int64_t step = PACK_TILES * SLR_ATTN_QUERIES, chunks = (k->tq_up + step - 1) / step;
    const int64_t z = piece / chunks, row0 = piece % chunks * step;
    const int64_t row1 = min64(row0 + step, slr_attn_up(k->tq, PAD)), ld = k->heads * k->d;
    const int64_t head = at_head(k, job->z0 + z, k->tq * ld);
    float *o = stage_of(job, slot);
    head_packs p;
    head_at(job, z, &p);
    pack_rows(k, p.qrow, at(k, job->q, at_head(k, job->z0 + z, k->q_sample)), k->q_row, k->tq, row0,
              row1, k->scale * SLR_LOG2E);
    pack_rows(k, p.dorow, at(k, job->d_o, head), ld, k->tq, row0, row1, 1.0f);
    for (int64_t i = row0; i < row1; i++) {
        const void *row = at(k, job->o, head + i * ld);
        if (i < k->tq && !is_f32(k))
            k->type->to_f32(o, row, (size_t)k->d);
        p.delta[i] = i < k->tq ? dot(p.dorow + i * k->dp, is_f32(k) ? row : o, k->d) : 0.0f;
        p.lse2[i] =
            i < k->tq ? job->lse_in[(job->z0 + z) * k->tq + i] * SLR_LOG2E : (float)PADDING_LSE;
    }
    for (int64_t g = 0; g < k->groups; g++)
        memset(p.dq + (g * k->tq_up + row0) * k->dp, 0,
               (size_t)((row1 - row0) * k->dp) * sizeof(float));
}

/* --- the phases of a launch --- */

static void forward_piece(void *arg, int64_t piece, int slot)
{
    const attention_job *job = arg;
    const attention_kernel *k = job->k;
    const int64_t tiles = k->tq_up / SLR_ATTN_QUERIES, z = piece / tiles;
    const int64_t ld = k->heads * k->d, q0 = piece % tiles * SLR_ATTN_QUERIES;
    const int64_t rows = min64(k->tq - q0, SLR_ATTN_QUERIES);
    const void *q = at(k, job->q, at_head(k, job->z0 + z, k->q_sample) + q0 * k->q_row);
    void *o = at(k, job->out, at_head(k, job->z0 + z, k->tq * ld) + q0 * ld);
    float *lse = job->lse + (job->z0 + z) * k->tq + q0;
    float *scratch = job->slots + slot * k->slot_floats;
    head_packs p;
    slr_attn_head h = head_at(job, z, &p);
    if (is_f32(k)) {
        k->fn->forward(&h, q0, q, k->q_row, o, ld, lse, scratch);
        return;
    }
    float *qf = stage_of(job, slot), *of = qf + SLR_ATTN_QUERIES * k->d;
    slr_cpu_widen(qf, k->d, k->type, q, k->q_row, rows, k->d);
    k->fn->forward(&h, q0, qf, k->d, of, k->d, lse, scratch);
    slr_cpu_narrow(k->type, o, ld, of, k->d, rows, k->d);
}

static void backward_piece(void *arg, int64_t piece, int slot)
{
    const attention_job *job = arg;
    const attention_kernel *k = job->k;
    const int64_t z = piece / k->groups, g = piece % k->groups, ld = k->heads * k->d;
    const int64_t to = at_head(k, job->z0 + z, k->tk * ld),
                  end = min64((g + 1) * GROUP_KEYS, k->tk);
    float *dkf = stage_of(job, slot), *dvf = dkf + SLR_ATTN_KEYS * k->d;
    float *scratch = job->slots + slot * k->slot_floats;
    head_packs p;
    slr_attn_head h = head_at(job, z, &p);
    for (int64_t k0 = g * GROUP_KEYS; k0 < end; k0 += SLR_ATTN_KEYS) {
        const int64_t rows = min64(k->tk - k0, SLR_ATTN_KEYS);
        float *dq = p.dq + g * k->tq_up * k->dp;
        void *dk = at(k, job->dk, to + k0 * ld), *dv = at(k, job->dv, to + k0 * ld);
        if (is_f32(k)) {
            k->fn->backward(&h, k0, dq, dk, dv, ld, scratch);
            continue;
        }
        k->fn->backward(&h, k0, dq, dkf, dvf, k->d, scratch);
        slr_cpu_narrow(k->type, dk, ld, dkf, k->d, rows, k->d);
        slr_cpu_narrow(k->type, dv, ld, dvf, k->d, rows, k->d);
    }
}

/* dq = scale * sum over the groups, in order. */
static void sum_groups(void *arg, int64_t piece, int slot)
{
    const attention_job *job = arg;
    const attention_kernel *k = job->k;
    const int64_t tiles = k->tq_up / SLR_ATTN_QUERIES, z = piece / tiles, ld = k->heads * k->d;
    const int64_t q0 = piece % tiles * SLR_ATTN_QUERIES, q1 = min64(q0 + SLR_ATTN_QUERIES, k->tq);
    const int64_t to = at_head(k, job->z0 + z, k->tq * ld);
    head_packs p;
    (void)slot;
    head_at(job, z, &p);
    for (int64_t i = q0; i < q1; i++) {
        float *first = p.dq + i * k->dp; /* group 0 gathers the others */
        for (int64_t g = 1; g < k->groups; g++)
            for (int64_t j = 0; j < k->d; j++)
                first[j] += first[g * k->tq_up * k->dp + j];
        for (int64_t j = 0; j < k->d; j++)
            first[j] *= k->scale;
        k->type->from_f32(at(k, job->dq, to + i * ld), first, (size_t)k->d);
    }
}

static int64_t chunks(int64_t rows, int64_t tile)
{
    return (rows + PACK_TILES * tile - 1) / (PACK_TILES * tile);
}

static void forward_round(const attention_job *job)
{
    const attention_kernel *k = job->k;
    run(job, job->pairs * chunks(k->tk_up, SLR_ATTN_KEYS), pack_keys);
    run(job, job->pairs * (k->tq_up / SLR_ATTN_QUERIES), forward_piece);
}

static void backward_round(const attention_job *job)
{
    const attention_kernel *k = job->k;
    run(job, job->pairs * chunks(k->tk_up, SLR_ATTN_KEYS), pack_keys);
    run(job, job->pairs * chunks(k->tq_up, SLR_ATTN_QUERIES), pack_queries);
    run(job, job->pairs * k->groups, backward_piece);
    run(job, job->pairs * (k->tq_up / SLR_ATTN_QUERIES), sum_groups);
}

static void all_rounds(attention_job *job, void (*one)(const attention_job *job))
{
    const attention_kernel *k = job->k;
    const int64_t all = k->n * k->heads;
    for (job->z0 = 0; job->z0 < all; job->z0 += k->round) {
        job->pairs = min64(k->round, all - job->z0);
        one(job);
    }
}

/* --- operands that pass through f32 as wholes --- */

static int64_t whole_floats(const attention_kernel *k, int64_t t)
{
    return slr_cpu_lines(k->n * t * k->heads * k->d);
}

/* [n, t, heads * d] with the given steps, dense and in f32 at *spare, which moves on. */
static const float *widened(const attention_kernel *k, float **spare, const void *p, int64_t t,
                            int64_t row, int64_t sample)
{
    const int64_t c = k->heads * k->d;
    float *to = *spare;
    *spare += whole_floats(k, t);
    if (row == c && sample == t * c) {
        k->outer->to_f32(to, p, (size_t)(k->n * t * c));
        return to;
    }
    for (int64_t i = 0; i < k->n; i++)
        slr_cpu_widen(to + i * t * c, c, k->outer,
                      slr_cpu_at(p, i * sample, (int64_t)k->outer->size), row, t, c);
    return to;
}

static void widen_qkv(attention_job *job, float **spare)
{
    const attention_kernel *k = job->k;
    const int64_t *row = k->outer_row, *sample = k->outer_sample;
    job->q = widened(k, spare, job->q, k->tq, row[0], sample[0]);
    job->key = widened(k, spare, job->key, k->tk, row[1], sample[1]);
    job->v = widened(k, spare, job->v, k->tk, row[2], sample[2]);
}

/* A result that is computed at *spare instead of at *p; returns where it goes. */
static void *apart(const attention_kernel *k, float **spare, void **p, int64_t t)
{
    void *to = *p;
    *p = *spare;
    *spare += whole_floats(k, t);
    return to;
}

static void narrow(const attention_kernel *k, void *to, const void *from, int64_t t)
{
    k->outer->from_f32(to, from, (size_t)(k->n * t * k->heads * k->d));
}

static void forward_whole(attention_job *job, float *spare)
{
    const attention_kernel *k = job->k;
    widen_qkv(job, &spare);
    void *o = apart(k, &spare, &job->out, k->tq);
    all_rounds(job, forward_round);
    narrow(k, o, job->out, k->tq);
}

static void backward_whole(attention_job *job, float *spare)
{
    const attention_kernel *k = job->k;
    const int64_t c = k->heads * k->d;
    widen_qkv(job, &spare);
    job->d_o = widened(k, &spare, job->d_o, k->tq, c, k->tq * c);
    job->o = widened(k, &spare, job->o, k->tq, c, k->tq * c);
    void *dq = apart(k, &spare, &job->dq, k->tq), *dk = apart(k, &spare, &job->dk, k->tk),
         *dv = apart(k, &spare, &job->dv, k->tk);
    all_rounds(job, backward_round);
    narrow(k, dq, job->dq, k->tq);
    narrow(k, dk, job->dk, k->tk);
    narrow(k, dv, job->dv, k->tk);
}

static int forward_launch(sdlora_kernel *head, const slr_cpu_env *env, void *const *ptr,
                          void *scratch)
{
    const attention_kernel *k = (const attention_kernel *)head;
    attention_job job = {
        .k = k,
        .env = env,
        .q = ptr[0],
        .key = ptr[1],
        .v = ptr[2],
        .out = ptr[3],
        .lse = ptr[4],
        .packs = scratch,
        .slots = (float *)scratch + k->round * k->head_floats,
    };
    if (k->outer)
        forward_whole(&job, (float *)scratch + k->at_wholes);
    else
        all_rounds(&job, forward_round);
    return SDLORA_OK;
}

static int backward_launch(sdlora_kernel *head, const slr_cpu_env *env, void *const *ptr,
                           void *scratch)
{
    const attention_kernel *k = (const attention_kernel *)head;
    attention_job job = {
        .k = k,
        .env = env,
        .d_o = ptr[0],
        .q = ptr[1],
        .key = ptr[2],
        .v = ptr[3],
        .o = ptr[4],
        .lse_in = ptr[5],
        .dq = ptr[6],
        .dk = ptr[7],
        .dv = ptr[8],
        .packs = scratch,
        .slots = (float *)scratch + k->round * k->head_floats,
    };
    if (k->outer)
        backward_whole(&job, (float *)scratch + k->at_wholes);
    else
        all_rounds(&job, backward_round);
    return SDLORA_OK;
}

/* --- preparing --- */

/* [N,T,C] of f32 or bf16 whose rows are dense; axes 0 and 1 may have any stride. */
static bool rows_dense(const sdlora_tdesc *t)
{
    return (t->dtype == SDLORA_F32 || t->dtype == SDLORA_BF16) && t->rank == 3 &&
           (t->stride[2] == 1 || t->dim[2] == 1);
}

static bool is_shape(const sdlora_tdesc *t, int64_t a, int64_t b, int64_t c)
{
    return t->rank == 3 && t->dim[0] == a && t->dim[1] == b && t->dim[2] == c;
}

/* q, k, v at `in`; the rest of the operands are dense and of the shapes that follow. */
static int read_shape(attention_kernel *k, const sdlora_opdesc *op, const sdlora_tdesc *in)
{
    slr_require(op->n_int >= 1 && op->n_real >= 1 && op->ints[0] > 0);
    for (int i = 0; i < 3; i++)
        if (!rows_dense(&in[i]) || in[i].dtype != in[0].dtype)
            return slr_fail(SDLORA_ENOTSUP, __func__,
                            "attention takes [N,T,C] of one type, f32 or bf16, with dense rows; %c "
                            "is of type %u, rank %u",
                            "qkv"[i], (unsigned)in[i].dtype, (unsigned)in[i].rank);
    const int64_t c = in[0].dim[2];
    k->heads = op->ints[0];
    k->causal = op->n_int > 1 && op->ints[1];
    k->scale = (float)op->reals[0];
    k->type = slr_dtype(in[0].dtype);
    k->n = in[0].dim[0];
    k->tq = in[0].dim[1];
    k->tk = in[1].dim[1];
    k->d = c / k->heads;
    if (k->d * k->heads != c || k->d == 0 || k->tk == 0 || !is_shape(&in[1], k->n, k->tk, c) ||
        !is_shape(&in[2], k->n, k->tk, c) || (k->causal && k->tq != k->tk))
        return slr_fail(SDLORA_EINVAL, __func__,
                        "attention: q [%lld,%lld,%lld] and k [%lld,%lld,%lld] with %lld heads",
                        (long long)k->n, (long long)k->tq, (long long)c, (long long)in[1].dim[0],
                        (long long)k->tk, (long long)in[1].dim[2], (long long)k->heads);
    k->q_sample = in[0].stride[0];
    k->q_row = in[0].stride[1];
    k->k_sample = in[1].stride[0];
    k->k_row = in[1].stride[1];
    k->v_sample = in[2].stride[0];
    k->v_row = in[2].stride[1];
    return SDLORA_OK;
}

/* The operand must be dense [a,b,c] of the given type. */
static int check_dense(const sdlora_tdesc *t, uint32_t dtype, int64_t a, int64_t b, int64_t c,
                       const char *name)
{
    if (!slr_cpu_stored_as(t, dtype))
        return slr_fail(SDLORA_ENOTSUP, __func__, "attention: %s is of type %u, not dense %s", name,
                        (unsigned)t->dtype, slr_dtype(dtype)->name);
    if (!is_shape(t, a, b, c))
        return slr_fail(SDLORA_EINVAL, __func__, "attention: %s is not [%lld,%lld,%lld]", name,
                        (long long)a, (long long)b, (long long)c);
    return SDLORA_OK;
}

/* Decides whether operands pass through f32 as wholes, which makes the kernel one of dense f32. */
static void choose_outer(attention_kernel *k)
{
    const int64_t c = k->heads * k->d;
    if (is_f32(k) || k->n * (k->tq + k->tk) > WHOLE / c)
        return;
    k->outer = k->type;
    k->type = slr_dtype(SDLORA_F32);
    const int64_t row[3] = {k->q_row, k->k_row, k->v_row};
    const int64_t sample[3] = {k->q_sample, k->k_sample, k->v_sample};
    memcpy(k->outer_row, row, sizeof row);
    memcpy(k->outer_sample, sample, sizeof sample);
    k->q_row = k->k_row = k->v_row = c;
    k->q_sample = k->tq * c;
    k->k_sample = k->v_sample = k->tk * c;
}

/* Floats of all wholes. */
static int64_t wholes(const attention_kernel *k)
{
    if (!k->outer)
        return 0;
    return (k->backward ? 4 : 2) * (whole_floats(k, k->tq) + whole_floats(k, k->tk));
}

static int make(sdlora_kernel **out, uint64_t *scratch, const slr_cpu_env *env,
                attention_kernel want,
                int (*launch)(sdlora_kernel *, const slr_cpu_env *, void *const *, void *))
{
    attention_kernel *k = slr_cpu_kernel_new(env, sizeof *k, launch);
    if (!k)
        return SDLORA_ENOMEM;
    want.head = k->head;
    *k = want;
    *out = &k->head;
    choose_outer(k);
    k->fn = SLR_CPU_PICK_F32(env, slr_cpu_attention);
    k->dp = slr_attn_up(k->d, k->fn->lanes);
    k->tq_up = slr_attn_up(k->tq, SLR_ATTN_QUERIES);
    k->tk_up = slr_attn_up(k->tk, SLR_ATTN_KEYS);
    k->groups = (k->tk + GROUP_KEYS - 1) / GROUP_KEYS;
    k->small = k->n * k->heads * k->tq * k->tk <= SMALL_WORK / k->d;
    k->head_floats = packs_at(k, NULL).floats;
    k->stage = k->backward ? slr_attn_backward_floats(k->dp) : slr_attn_forward_floats(k->dp);
    k->stage = slr_cpu_lines(k->stage);
    k->slot_floats = k->stage + (is_f32(k) ? 0 : slr_cpu_lines(2 * SLR_ATTN_KEYS * k->d));
    /* whole samples, at least ROUND_PAIRS pairs, and all at once where packs are small */
    const int64_t samples = (ROUND_PAIRS + k->heads - 1) / k->heads;
    k->round = k->heads * (k->heads * k->head_floats > ROUND_FLOATS ? min64(samples, k->n) : k->n);
    k->at_wholes = slr_cpu_lines(k->round * k->head_floats + env->slots * k->slot_floats);
    *scratch = 4 * (uint64_t)(k->at_wholes + wholes(k));
    return SDLORA_OK;
}

static int forward_prepare(sdlora_kernel **out, uint64_t *scratch, const slr_cpu_env *env,
                           const sdlora_opdesc *op)
{
    attention_kernel k = {.backward = false};
    slr_require(op->n_in == 3 && op->n_out == 2);
    SLR_TRY(read_shape(&k, op, op->in));
    const int64_t c = k.heads * k.d;
    const uint32_t type = k.type->dtype;
    SLR_TRY(check_dense(&op->out[0], type, k.n, k.tq, c, "o"));
    SLR_TRY(check_dense(&op->out[1], SDLORA_F32, k.n, k.heads, k.tq, "lse"));
    return make(out, scratch, env, k, forward_launch);
}

static int backward_prepare(sdlora_kernel **out, uint64_t *scratch, const slr_cpu_env *env,
                            const sdlora_opdesc *op)
{
    attention_kernel k = {.backward = true};
    slr_require(op->n_in == 6 && op->n_out == 3);
    SLR_TRY(read_shape(&k, op, op->in + 1));
    const int64_t c = k.heads * k.d;
    const uint32_t type = k.type->dtype;
    SLR_TRY(check_dense(&op->in[0], type, k.n, k.tq, c, "do"));
    SLR_TRY(check_dense(&op->in[4], type, k.n, k.tq, c, "o"));
    SLR_TRY(check_dense(&op->in[5], SDLORA_F32, k.n, k.heads, k.tq, "lse"));
    SLR_TRY(check_dense(&op->out[0], type, k.n, k.tq, c, "dq"));
    SLR_TRY(check_dense(&op->out[1], type, k.n, k.tk, c, "dk"));
    SLR_TRY(check_dense(&op->out[2], type, k.n, k.tk, c, "dv"));
    return make(out, scratch, env, k, backward_launch);
}

const slr_cpu_row slr_cpu_rows_attention[] = {
    {.op = SDLORA_OP_ATTENTION, .prepare = forward_prepare},
    {.op = SDLORA_OP_ATTENTION_B, .prepare = backward_prepare},
    {0},
};
