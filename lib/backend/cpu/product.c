/* SPDX-License-Identifier: MIT */
/* MATMUL where packing and calling a BLAS would cost more than it brings: tiles of mm.h, over
 * frozen factors that lie in panels once and for all, or over panels that each piece makes for
 * itself.  A product is cut along its longer side; pieces depend on shapes alone, and no sum
 * depends on pieces.  Factors beside one in bf16 are rounded to bf16; sums are f32.  Refuses to
 * know how a tile is computed. */
#include "backend/cpu/gemm.h"
#include "backend/cpu/mm.h"
#include "backend/cpu/pack.h"
#include "base/status.h"

enum { IN_A = 0, IN_B = 1, IN_BIAS = 2, IN_ADD = 3 };

typedef struct product_kernel {
    sdlora_kernel head;
    const slr_mm_fns *fns;
    slr_product p;
    bool half;   /* factors are bf16 */
    bool frozen; /* b is */
    bool staged; /* a's words are made by each piece */
    slr_mm_cut cut;
    bool a_half, b_half, add_half, c_half;
    int64_t words, width;
    int64_t a_words; /* of a slot, before the panel */
    int64_t slot_words;
} product_kernel;

typedef struct product_job {
    const product_kernel *k;
    const void *a, *b, *add;
    const float *bias;
    void *c;
    float *slots;
} product_job;

static int64_t min64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static const void *at(const void *p, bool half, int64_t i)
{
    return slr_cpu_at(p, i, half ? 2 : 4);
}

/* Rows [i, i + m) of op(a), where they lie or as words in `stage`. */
static void set_a(const product_job *job, slr_mm *t, int64_t i, float *stage)
{
    const product_kernel *k = job->k;
    const slr_product *p = &k->p;
    t->a = at(job->a, k->a_half, p->ta ? i : i * p->k);
    t->a_row = p->ta ? 1 : k->words;
    t->a_col = p->ta ? p->m : 1;
    if (!k->staged)
        return;
    if (p->ta) {
        t->a_col = slr_mm_up(t->m, k->fns->lanes);
        k->fns->pack(stage, t->a_col, t->a, k->a_half, p->m, p->k, t->m);
    } else {
        k->fns->words(stage, t->a, k->a_half, p->k, t->m, p->k);
    }
    t->a = stage;
}

/* Columns [j, j + n) of op(b), one panel, to `panel`. */
static void make_panel(const product_job *job, int64_t j, int64_t n, int64_t width, float *panel)
{
    const product_kernel *k = job->k;
    const slr_product *p = &k->p;
    if (p->tb)
        k->fns->turn(panel, width, at(job->b, k->b_half, j * p->k), k->b_half, p->k, p->k, n);
    else
        k->fns->pack(panel, width, at(job->b, k->b_half, j), k->b_half, p->n, p->k, n);
}

static void run_piece(void *arg, int64_t piece, int slot)
{
    const product_job *job = arg;
    const product_kernel *k = job->k;
    const slr_product *p = &k->p;
    float *stage = job->slots + slot * k->slot_words, *panel = stage + k->a_words;
    const int64_t first = piece * k->cut.step, i0 = k->cut.by_cols ? 0 : first,
                  j0 = k->cut.by_cols ? first : 0,
                  j1 = k->cut.by_cols ? min64(j0 + k->cut.step, p->n) : p->n;
    slr_mm t = {.m = k->cut.by_cols ? p->m : min64(k->cut.step, p->m - i0),
                .k = k->words,
                .runs = 1,
                .depth = k->words,
                .alpha = p->alpha,
                .ld_add = p->n,
                .ldc = p->n,
                .add_half = k->add_half,
                .c_half = k->c_half};
    set_a(job, &t, i0, stage);
    /* panels of a frozen b follow each other; others are made one at a time */
    for (int64_t j = j0, n; j < j1; j += n) {
        n = k->frozen ? j1 - j : min64(k->width, j1 - j);
        t.n = n;
        t.width = k->frozen ? k->width : min64(k->width, slr_mm_up(n, k->fns->lanes));
        t.b = k->frozen ? (const float *)job->b + j * k->words : panel;
        if (!k->frozen)
            make_panel(job, j, n, t.width, panel);
        t.bias = job->bias ? job->bias + j : NULL;
        t.add = job->add ? at(job->add, k->add_half, i0 * p->n + j) : NULL;
        t.c = slr_cpu_at(job->c, i0 * p->n + j, k->c_half ? 2 : 4);
        k->fns->tile(&t);
    }
}

static int launch(sdlora_kernel *head, const slr_cpu_env *env, void *const *ptr, void *scratch)
{
    const product_kernel *k = (const product_kernel *)head;
    product_job job = {
        .k = k,
        .a = ptr[IN_A],
        .b = ptr[IN_B],
        .bias = k->p.has_bias ? ptr[IN_BIAS] : NULL,
        .add = k->p.has_add ? ptr[IN_ADD] : NULL,
        .c = ptr[head->n_in],
        .slots = scratch,
    };
    slr_cpu_spread(env, k->cut.pieces, run_piece, &job);
    return SDLORA_OK;
}

/* --- preparing --- */

/* a, addend and result of either type; b too, or frozen; bias f32 or frozen. */
static bool takes(const sdlora_opdesc *op)
{
    for (uint32_t i = 0; i < op->n_in + op->n_out; i++) {
        const sdlora_tdesc *t = i < op->n_in ? &op->in[i] : &op->out[i - op->n_in];
        if (!t->dtype)
            continue;
        if (slr_cpu_is_frozen(op, i)       ? i != IN_B && i != IN_BIAS
            : i == IN_BIAS && i < op->n_in ? !slr_cpu_f32(t)
                                           : !slr_cpu_stored(t))
            return false;
    }
    return true;
}

static bool is_half(const sdlora_tdesc *t)
{
    return t->dtype == SDLORA_BF16;
}

static void reserve(product_kernel *k)
{
    const slr_product *p = &k->p;
    const int64_t rows = k->cut.by_cols ? p->m : min64(k->cut.step, p->m);
    k->staged = k->half && (p->ta || !k->a_half || p->k % 2);
    k->a_words = k->staged ? slr_mm_up(slr_mm_up(rows, k->fns->lanes) * k->words, 16) : 0;
    k->slot_words = k->a_words + (k->frozen ? 0 : slr_mm_up(k->width * k->words, 16));
}

static int prepare(sdlora_kernel **out, uint64_t *scratch, const slr_cpu_env *env,
                   const sdlora_opdesc *op)
{
    slr_product p;
    SLR_TRY(slr_matmul_read(&p, op));
    if (!takes(op) || !slr_mm_small(p.m, p.n, p.k))
        return slr_fail(SDLORA_ENOTSUP, __func__, "not a small product");
    product_kernel *k = slr_cpu_kernel_new(env, sizeof *k, launch);
    if (!k)
        return SDLORA_ENOMEM;
    *out = &k->head;
    k->p = p;
    k->frozen = slr_cpu_is_frozen(op, IN_B);
    k->a_half = is_half(&op->in[IN_A]);
    k->b_half = !k->frozen && is_half(&op->in[IN_B]);
    k->add_half = p.has_add && is_half(&op->in[IN_ADD]);
    k->c_half = is_half(&op->out[0]);
    k->half = k->a_half || k->b_half;
    k->fns = slr_mm_fns_of(env, k->half);
    k->words = slr_mm_words(p.k, k->half);
    k->width = slr_mm_width(k->fns->lanes, p.n);
    k->cut = slr_mm_cut_of(k->fns, k->half, p.m, p.n, p.k);
    reserve(k);
    *scratch = 4 * (uint64_t)(env->slots * k->slot_words);
    const int layout = (p.tb ? SLR_PACK_MM_T : SLR_PACK_MM) + (k->half ? SLR_PACK_HALF : 0);
    return k->frozen ? slr_cpu_freeze(&k->head, op, IN_B, layout, 1) : SDLORA_OK;
}

const slr_cpu_row slr_cpu_rows_product[] = {
    {.op = SDLORA_OP_MATMUL, .own_packs = true, .prepare = prepare},
    {0},
};
