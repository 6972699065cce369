/* SPDX-License-Identifier: MIT */
/* CONV2D and its gradient by x over frozen weights, where images are small: tiles of mm.h whose
 * runs are the taps.  Pixels are read where they lie, by a table of addresses; what lies outside of
 * the image is a row of zeros.  Refuses to know how a tile is computed; conv.c takes all else. */
#include "backend/cpu/conv.h"
#include "backend/cpu/mm.h"
#include "backend/cpu/pack.h"
#include "base/status.h"

enum { MOST_CHANNELS = 4096, MOST_TAPS = 64 };

static const float zeros[MOST_CHANNELS];

typedef struct small_kernel {
    sdlora_kernel head;
    const slr_mm_fns *fns;
    slr_conv_shape shape;
    slr_conv_walk walk;
    slr_conv_image src, dst;
    float alpha;
    bool half; /* the source and so the weights are bf16 */
    bool has_bias, has_add, add_half, c_half;
    bool scattered; /* results of a phase do not follow each other */
    int64_t words;  /* of a pixel */
    slr_mm_cut cut; /* of each phase; counted by the first, which is the largest */
    int64_t rows;   /* of a piece */
    int64_t at_tile, slot_bytes;
} small_kernel;

typedef struct small_job {
    const small_kernel *k;
    const void *src, *w, *add;
    const float *bias;
    void *dst;
    char *slots;
} small_job;

static int64_t min64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t size_of(bool half)
{
    return half ? 2 : 4;
}

/* Addresses of the pixels under the taps for rows [first, first + m) of the phase's results. */
static void look_up(const small_job *job, const slr_conv_phase *ph, int64_t first, int64_t m,
                    const void **at)
{
    const small_kernel *k = job->k;
    const slr_conv_image *im = &k->src;
    const slr_conv_tap *taps = k->walk.taps + ph->tap0;
    for (int64_t r = first; r < first + m; r++) {
        const int64_t j = r % ph->cols, i = r / ph->cols % ph->rows, n = r / ph->cols / ph->rows;
        for (int64_t t = 0; t < ph->n_taps; t++) {
            const int64_t y = i * k->walk.mul_h + taps[t].dy, x = j * k->walk.mul_w + taps[t].dx;
            const bool inside = y >= 0 && y < im->h && x >= 0 && x < im->w;
            *at++ = inside ? slr_cpu_at(job->src, ((n * im->h + y) * im->w + x) * im->c,
                                        size_of(k->half))
                           : zeros;
        }
    }
}

/* Rows of a tile to their places in the result. */
static void scatter(const small_job *job, const slr_conv_phase *ph, int64_t first, int64_t col,
                    const slr_mm *t)
{
    const small_kernel *k = job->k;
    const int64_t size = size_of(k->c_half);
    for (int64_t r = 0; r < t->m; r++) {
        const int64_t j = (first + r) % ph->cols, i = (first + r) / ph->cols % ph->rows,
                      n = (first + r) / ph->cols / ph->rows;
        const int64_t to =
            ((n * k->dst.h + ph->y0 + i * ph->step_h) * k->dst.w + ph->x0 + j * ph->step_w) *
            k->dst.c;
        memcpy(slr_cpu_at(job->dst, to + col, size), slr_cpu_at(t->c, r * t->ldc, size),
               (size_t)(t->n * size));
    }
}

static void run_piece(void *arg, int64_t number, int slot)
{
    const small_job *job = arg;
    const small_kernel *k = job->k;
    const slr_conv_phase *ph = k->walk.phases + number / k->cut.pieces;
    const int64_t first = number % k->cut.pieces * k->cut.step,
                  all = k->dst.n * ph->rows * ph->cols;
    const int64_t i = k->cut.by_cols ? 0 : first, j = k->cut.by_cols ? first : 0;
    const int64_t m = k->cut.by_cols ? all : min64(k->cut.step, all - i);
    const int64_t n = k->cut.by_cols ? min64(k->cut.step, k->dst.c - j) : k->dst.c;
    char *scratch = job->slots + slot * k->slot_bytes;
    const void **rows = (const void **)(void *)scratch;
    int64_t b_at[MOST_TAPS];
    if (m <= 0 || n <= 0)
        return;
    look_up(job, ph, i, m, rows);
    for (int64_t t = 0; t < ph->n_taps; t++)
        b_at[t] = k->walk.taps[ph->tap0 + t].index * k->words;
    const int64_t at = i * k->dst.c + j, depth = k->shape.r * k->shape.s * k->words;
    const slr_mm t = {
        .m = m,
        .n = n,
        .k = k->words,
        .runs = ph->n_taps,
        .a_col = 1,
        .rows = rows,
        .b = (const float *)job->w + j * depth,
        .width = slr_mm_width(k->fns->lanes, k->dst.c),
        .depth = depth,
        .b_at = b_at,
        .alpha = k->alpha,
        .bias = job->bias ? job->bias + j : NULL,
        .add = job->add ? slr_cpu_at(job->add, at, size_of(k->add_half)) : NULL,
        .c = k->scattered ? scratch + k->at_tile : slr_cpu_at(job->dst, at, size_of(k->c_half)),
        .ld_add = k->dst.c,
        .ldc = k->scattered ? n : k->dst.c,
        .add_half = k->add_half,
        .c_half = k->c_half,
    };
    k->fns->tile(&t);
    if (k->scattered)
        scatter(job, ph, i, j, &t);
}

static int launch(sdlora_kernel *head, const slr_cpu_env *env, void *const *ptr, void *scratch)
{
    const small_kernel *k = (const small_kernel *)head;
    small_job job = {
        .k = k,
        .src = ptr[0],
        .w = ptr[1],
        .bias = k->has_bias ? ptr[2] : NULL,
        .add = k->has_add ? ptr[3] : NULL,
        .dst = ptr[head->n_in],
        .slots = scratch,
    };
    slr_cpu_spread(env, k->walk.n_phases * k->cut.pieces, run_piece, &job);
    return SDLORA_OK;
}

/* --- preparing --- */

static void small_free(sdlora_kernel *head, const slr_cpu_env *env)
{
    slr_conv_walk_free(&((small_kernel *)head)->walk, env);
}

static bool is_half(const sdlora_opdesc *op, uint32_t i)
{
    return i < op->n_in && op->in[i].dtype == SDLORA_BF16;
}

static bool takes(const sdlora_opdesc *op, const slr_conv_shape *s, const slr_conv_image *src)
{
    const int64_t taps = s->r * s->s;
    return slr_cpu_is_frozen(op, 1) && !slr_cpu_is_frozen(op, 0) && !slr_cpu_is_frozen(op, 3) &&
           s->groups == 1 && taps <= MOST_TAPS && src->c <= MOST_CHANNELS &&
           (op->in[0].dtype != SDLORA_BF16 || src->c % 2 == 0) &&
           slr_mm_small(s->y.n * s->y.h * s->y.w, s->y.c, taps * s->x.c);
}

static int finish(sdlora_kernel **out, uint64_t *scratch, const slr_cpu_env *env,
                  const sdlora_opdesc *op, const slr_conv_shape *s, bool back)
{
    if (!takes(op, s, back ? &s->y : &s->x))
        return slr_fail(SDLORA_ENOTSUP, __func__, "not a small convolution of frozen weights");
    small_kernel *k = slr_cpu_kernel_new(env, sizeof *k, launch);
    if (!k)
        return SDLORA_ENOMEM;
    *out = &k->head;
    k->head.free = small_free;
    SLR_TRY(slr_conv_walk_new(&k->walk, env, s, back));
    k->shape = *s;
    k->src = back ? s->y : s->x;
    k->dst = back ? s->x : s->y;
    k->alpha = op->n_real ? (float)op->reals[0] : 1.0f;
    k->half = is_half(op, 0);
    k->has_bias = !back && op->n_in > 2 && op->in[2].dtype;
    k->has_add = !back && op->n_in > 3 && op->in[3].dtype;
    k->add_half = is_half(op, 3);
    k->c_half = op->out[0].dtype == SDLORA_BF16;
    k->scattered = k->walk.n_phases > 1;
    k->fns = slr_mm_fns_of(env, k->half);
    k->words = slr_mm_words(k->src.c, k->half);
    const slr_conv_phase *ph = k->walk.phases;
    const int64_t rows = k->dst.n * ph->rows * ph->cols;
    k->cut = slr_mm_cut_of(k->fns, k->half, rows, k->dst.c, s->r * s->s * k->src.c);
    const int64_t m = k->cut.by_cols ? rows : k->cut.step;
    const int64_t n = k->cut.by_cols ? k->cut.step : k->dst.c;
    k->at_tile = slr_mm_up(m * s->r * s->s * (int64_t)sizeof(void *), 64);
    k->slot_bytes = k->at_tile + (k->scattered ? slr_mm_up(m * n * 4, 64) : 0);
    *scratch = (uint64_t)(env->slots * k->slot_bytes);
    const int layout = (back ? SLR_PACK_MM_BACK : SLR_PACK_MM_CONV) + (k->half ? SLR_PACK_HALF : 0);
    return slr_cpu_freeze(&k->head, op, 1, layout, 1);
}

static int forward_prepare(sdlora_kernel **out, uint64_t *scratch, const slr_cpu_env *env,
                           const sdlora_opdesc *op)
{
    slr_conv_shape s;
    slr_require(op->n_in >= 2 && op->n_out == 1 && op->in[1].rank == 4);
    SLR_TRY(slr_conv_check_types(op, 1u << 2));
    SLR_TRY(slr_conv_read(&s, op, &op->in[0], &op->out[0], op->in[1].dim));
    return finish(out, scratch, env, op, &s, false);
}

static int backward_prepare(sdlora_kernel **out, uint64_t *scratch, const slr_cpu_env *env,
                            const sdlora_opdesc *op)
{
    slr_conv_shape s;
    slr_require(op->n_in == 2 && op->n_out == 1 && op->in[1].rank == 4);
    SLR_TRY(slr_conv_check_types(op, 0));
    SLR_TRY(slr_conv_read(&s, op, &op->out[0], &op->in[0], op->in[1].dim));
    return finish(out, scratch, env, op, &s, true);
}

const slr_cpu_row slr_cpu_rows_conv_small[] = {
    {.op = SDLORA_OP_CONV2D, .own_packs = true, .prepare = forward_prepare},
    {.op = SDLORA_OP_CONV2D_BX, .own_packs = true, .prepare = backward_prepare},
    {0},
};
