/* SPDX-License-Identifier: MIT */
/* CONV2D and its two gradients, channels last.  A tile of output pixels is one sum of products: for
 * each tap of the filter (or group of taps, where channels are few) the pixels under it are
 * gathered into a block that stays in cache, and one library call adds block x weights to the tile.
 * So there is no im2col of the image, no padding copy, and any stride works.  Gradient by x: the
 * same sum over the taps that reach a pixel, one set of taps per residue of the pixel's place
 * modulo the stride.  Arithmetic is f32; bf16 is converted when pixels are gathered and tiles are
 * stored. Refuses to know how a product is computed (gemm.c) and where weights come from (pack.c).
 */
#include "backend/cpu/conv.h"

#include <string.h>

#include "backend/cpu/convert.h"
#include "backend/cpu/gemm.h"
#include "backend/cpu/pack.h"
#include "base/status.h"

enum {
    TILE_PIXELS = 256, /* rows of a tile: enough to pay back the packing of weights */
    TILE_DEPTH = 640,  /* columns of a gathered block: 256 x 640 floats are 640 KiB */
    GROUP_DEPTH = 256, /* taps are taken together until a block is this wide */
    WEIGHT_COLUMNS = 640
};

/* Below this many multiply-adds everything is one piece on the calling thread. */
#define SMALL_WORK (INT64_C(1) << 19)

typedef struct conv_kernel {
    sdlora_kernel head;
    slr_conv_shape shape;
    bool backward; /* gradient by x: source is dy, result is dx */
    slr_conv_image src, dst;
    int64_t src_cg, dst_cg; /* channels of one group on either side */
    float alpha;
    bool has_bias, has_add, frozen;
    const slr_dtype_row *src_type, *dst_type, *add_type, *w_type;
    int layout;         /* SLR_PACK_CONV_*: of the weights that are not frozen, and how to read */
    bool weights_trans; /* a tap's weights lie as [dst_cg][src_cg] */
    bool direct;        /* f32 under 1x1, stride 1, no padding: the source is the block */
    int64_t tm, tn, col_tiles, n_tiles;
    int64_t depth_taps; /* taps in one block */
    int64_t depth_cols; /* channels in one block when depth_taps is 1 */
    int64_t block_floats, tile_floats, pack_floats;
    slr_conv_walk walk;
} conv_kernel;

typedef struct conv_job {
    const conv_kernel *k;
    const void *src, *add;
    const float *w, *bias;
    void *dst;
    float *blocks; /* one per slot, each with a tile behind it */
} conv_job;

static int64_t min64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

/* --- a tile --- */

/* Channels [c0, c0+c) of the pixels under one tap as rows of `block` (row length ld). */
static void gather(const conv_kernel *k, const slr_conv_phase *ph, const slr_conv_tap *t,
                   const void *src, int64_t first, int64_t rows, int64_t c0, int64_t c,
                   float *block, int64_t ld)
{
    const slr_conv_image *im = &k->src;
    const slr_dtype_row *type = k->src_type;
    const int64_t size = (int64_t)type->size;
    const bool copy = type->dtype == SDLORA_F32;
    int64_t j = first % ph->cols, i = first / ph->cols % ph->rows, n = first / ph->cols / ph->rows;
    for (int64_t at = 0; at < rows;) {
        /* the rest of one row of the result */
        int64_t run = min64(ph->cols - j, rows - at);
        int64_t y = i * k->walk.mul_h + t->dy, x = j * k->walk.mul_w + t->dx;
        bool outside = y < 0 || y >= im->h;
        const void *from =
            slr_cpu_at(src, (n * im->h + (outside ? 0 : y)) * im->w * im->c + c0, size);
        float *to = block + at * ld;
        for (int64_t p = 0; p < run; p++, x += k->walk.mul_w, to += ld) {
            if (outside || x < 0 || x >= im->w)
                memset(to, 0, (size_t)c * sizeof *to);
            else if (copy)
                memcpy(to, (const float *)from + x * im->c, (size_t)c * sizeof *to);
            else
                type->to_f32(to, slr_cpu_at(from, x * im->c, size), (size_t)c);
        }
        at += run;
        j = 0;
        if (++i == ph->rows) {
            i = 0;
            n++;
        }
    }
}

/* Weights of tap t for source channels from c0 and result channels from j. */
static slr_mat weights_at(const conv_kernel *k, const float *w, int64_t group,
                          const slr_conv_tap *t, int64_t c0, int64_t j)
{
    const slr_conv_shape *s = &k->shape;
    const float *p = w + (group * s->r * s->s + t->index) * s->cg * s->kg;
    if (k->weights_trans)
        return (slr_mat){p + j * k->src_cg + c0, k->src_cg, true};
    return (slr_mat){p + c0 * k->dst_cg + j, k->dst_cg, false};
}

/* Adds all taps of the phase to c[rows, cols]. */
static void sum_taps(const conv_job *job, const slr_conv_phase *ph, int64_t group, int64_t first,
                     int64_t rows, int64_t j, int64_t cols, float beta, float *c, int64_t ldc,
                     float *block)
{
    const conv_kernel *k = job->k;
    const int64_t chunks = ceil_div(k->src_cg, k->depth_cols);
    for (int64_t t = 0; t < ph->n_taps; t += k->depth_taps) {
        const slr_conv_tap *taps = k->walk.taps + ph->tap0 + t;
        const int64_t n = min64(k->depth_taps, ph->n_taps - t);
        for (int64_t chunk = 0; chunk < chunks; chunk++) {
            const int64_t c0 = chunk * k->depth_cols, cn = min64(k->depth_cols, k->src_cg - c0);
            const int64_t from = group * k->src_cg + c0, depth = n * cn;
            slr_mat a = {block, depth, false};
            if (k->direct) {
                a = (slr_mat){(const float *)job->src + first * k->src.c + from, k->src.c, false};
            } else {
                for (int64_t u = 0; u < n; u++)
                    gather(k, ph, taps + u, job->src, first, rows, from, cn, block + u * cn, depth);
            }
            slr_sgemm(rows, cols, depth, k->alpha, a, weights_at(k, job->w, group, taps, c0, j),
                      beta, c, ldc);
            beta = 1.0f;
        }
    }
    if (ph->n_taps == 0 && beta == 0.0f) /* stride wider than the filter: nothing reaches here */
        for (int64_t i = 0; i < rows; i++)
            memset(c + i * ldc, 0, (size_t)cols * sizeof *c);
}

/* Where result pixel `at` of a phase lies. */
static int64_t place(const conv_kernel *k, const slr_conv_phase *ph, int64_t at)
{
    int64_t j = at % ph->cols, i = at / ph->cols % ph->rows, n = at / ph->cols / ph->rows;
    return ((n * k->dst.h + ph->y0 + i * ph->step_h) * k->dst.w + ph->x0 + j * ph->step_w) *
           k->dst.c;
}

static void run_tile(void *arg, int64_t tile, int slot)
{
    const conv_job *job = arg;
    const conv_kernel *k = job->k;
    const slr_conv_phase *ph = k->walk.phases;
    while (ph + 1 < k->walk.phases + k->walk.n_phases && tile >= ph[1].tile0)
        ph++;
    float *block = job->blocks + slot * (k->block_floats + k->tile_floats);
    const int64_t u = tile - ph->tile0, group = u % k->shape.groups;
    const int64_t v = u / k->shape.groups, j = v % k->col_tiles * k->tn;
    const int64_t first = v / k->col_tiles * k->tm;
    const int64_t rows = min64(k->tm, k->dst.n * ph->rows * ph->cols - first);
    const int64_t cols = min64(k->tn, k->dst_cg - j), to = group * k->dst_cg + j;
    const int64_t size = (int64_t)k->dst_type->size;
    const bool in_place = k->tile_floats == 0; /* result pixels follow each other and are f32 */
    float *c = in_place ? (float *)job->dst + first * k->dst.c + to : block + k->block_floats;
    const int64_t ldc = in_place ? k->dst.c : cols;
    float beta = 0.0f;
    if (k->walk.n_phases == 1) {
        const int64_t at = first * k->dst.c + to;
        const void *add = job->add ? slr_cpu_at(job->add, at, (int64_t)k->add_type->size) : NULL;
        beta = slr_gemm_seed(c, ldc, job->bias ? job->bias + to : NULL, k->add_type, add, k->dst.c,
                             rows, cols);
    }
    sum_taps(job, ph, group, first, rows, j, cols, beta, c, ldc, block);
    for (int64_t i = 0; !in_place && i < rows; i++)
        k->dst_type->from_f32(slr_cpu_at(job->dst, place(k, ph, first + i) + to, size),
                              c + i * cols, (size_t)cols);
}

static int conv_launch(sdlora_kernel *head, const slr_cpu_env *env, void *const *ptr, void *scratch)
{
    const conv_kernel *k = (const conv_kernel *)head;
    float *pack = scratch;
    conv_job job = {
        .k = k,
        .src = ptr[0],
        .w = ptr[1],
        .bias = k->has_bias ? ptr[2] : NULL,
        .add = k->has_add ? ptr[3] : NULL,
        .dst = ptr[head->n_in],
        .blocks = pack + k->pack_floats,
    };
    if (!k->frozen) {
        const slr_conv_shape *s = &k->shape;
        const int64_t dim[4] = {s->y.c, s->cg, s->r, s->s};
        const float *w = ptr[1];
        if (k->w_type->dtype != SDLORA_F32) {
            float *flat = pack + k->pack_floats / 2;
            slr_cpu_to_f32(env, k->w_type, flat, ptr[1], s->y.c * s->cg * s->r * s->s);
            w = flat;
        }
        slr_cpu_pack_conv(env, pack, w, dim, s->groups, k->layout);
        job.w = pack;
    }
    slr_cpu_spread(env, k->n_tiles, run_tile, &job);
    return SDLORA_OK;
}

/* --- preparing --- */

static void conv_free(sdlora_kernel *head, const slr_cpu_env *env)
{
    slr_conv_walk_free(&((conv_kernel *)head)->walk, env);
}

/* Taps of neighbouring numbers are one matrix only where weights lie as [taps][src][dst]. */
static void choose_blocks(conv_kernel *k)
{
    k->depth_taps = 1;
    k->depth_cols = k->src_cg;
    if (k->direct)
        return;
    if (k->src_cg > TILE_DEPTH)
        k->depth_cols = ceil_div(ceil_div(k->src_cg, ceil_div(k->src_cg, TILE_DEPTH)), 16) * 16;
    else if (!k->weights_trans && k->walk.n_phases == 1)
        k->depth_taps = min64(k->shape.r * k->shape.s, ceil_div(GROUP_DEPTH, k->src_cg));
}

static void choose_tiles(conv_kernel *k)
{
    const int64_t taps = k->shape.r * k->shape.s / k->walk.n_phases;
    const int64_t pixels = k->dst.n * k->walk.phases[0].rows * k->walk.phases[0].cols;
    const int64_t per_pixel = k->src_cg * (taps ? taps : 1);
    k->tm = pixels;
    k->tn = k->dst_cg;
    if (pixels * per_pixel * k->dst_cg * k->shape.groups > SMALL_WORK) {
        k->tm = ceil_div(pixels, ceil_div(pixels, TILE_PIXELS));
        k->tn = ceil_div(ceil_div(k->dst_cg, ceil_div(k->dst_cg, WEIGHT_COLUMNS)), 16) * 16;
        /* small images: cut columns, then rows, until there is something to share out */
        while (ceil_div(pixels, k->tm) * ceil_div(k->dst_cg, k->tn) * k->shape.groups *
                       k->walk.n_phases <
                   8 &&
               k->tm * k->tn * per_pixel > 2 * SMALL_WORK) {
            if (k->tn >= 128)
                k->tn = ceil_div(k->tn / 2, 16) * 16;
            else if (k->tm >= 64)
                k->tm = ceil_div(k->tm, 2);
            else
                break;
        }
    }
    k->tm = min64(k->tm, 4 * TILE_PIXELS);
    k->col_tiles = ceil_div(k->dst_cg, k->tn);
    for (int64_t i = 0; i < k->walk.n_phases; i++) {
        slr_conv_phase *ph = &k->walk.phases[i];
        ph->tile0 = k->n_tiles;
        k->n_tiles +=
            ceil_div(k->dst.n * ph->rows * ph->cols, k->tm) * k->col_tiles * k->shape.groups;
    }
}

/* The type in which a launch finds input i: packs of frozen ones are f32. */
static const slr_dtype_row *type_of(const sdlora_opdesc *op, uint32_t i)
{
    return slr_dtype(slr_cpu_is_frozen(op, i) ? SDLORA_F32 : op->in[i].dtype);
}

static int finish(sdlora_kernel **out, uint64_t *scratch, const slr_cpu_env *env, conv_kernel want,
                  const sdlora_opdesc *op)
{
    const slr_conv_shape *s = &want.shape;
    const int64_t n_taps = s->r * s->s;
    conv_kernel *k = slr_cpu_kernel_new(env, sizeof *k, conv_launch);
    if (!k)
        return SDLORA_ENOMEM;
    want.head = k->head;
    *k = want;
    k->head.free = conv_free;
    *out = &k->head; /* the caller frees it when the rest fails */
    SLR_TRY(slr_conv_walk_new(&k->walk, env, s, k->backward));
    k->src_type = type_of(op, 0);
    k->dst_type = slr_dtype(op->out[0].dtype);
    k->add_type = k->has_add ? type_of(op, 3) : k->dst_type;
    k->w_type = type_of(op, 1);
    k->direct = k->src_type->dtype == SDLORA_F32 && n_taps == 1 && s->stride_h == 1 &&
                s->stride_w == 1 && s->pad_top == 0 && s->pad_left == 0 && s->x.h == s->y.h &&
                s->x.w == s->y.w;
    choose_blocks(k);
    choose_tiles(k);
    k->block_floats = k->direct ? 0 : slr_cpu_lines(k->tm * k->depth_taps * k->depth_cols);
    const bool tile = k->walk.n_phases > 1 || k->dst_type->dtype != SDLORA_F32;
    k->tile_floats = tile ? slr_cpu_lines(k->tm * k->tn) : 0;
    k->frozen = slr_cpu_is_frozen(op, 1);
    k->pack_floats = k->frozen ? 0 : slr_cpu_lines(s->y.c * s->cg * n_taps);
    if (k->w_type->dtype != SDLORA_F32)
        k->pack_floats *= 2; /* f32 in file order comes behind the pack */
    *scratch = 4 * (uint64_t)(k->pack_floats + env->slots * (k->block_floats + k->tile_floats));
    return k->frozen ? slr_cpu_freeze(&k->head, op, 1, k->layout, s->groups) : SDLORA_OK;
}

static int conv_prepare(sdlora_kernel **out, uint64_t *scratch, const slr_cpu_env *env,
                        const sdlora_opdesc *op)
{
    conv_kernel k = {.alpha = op->n_real ? (float)op->reals[0] : 1.0f, .layout = SLR_PACK_CONV_CK};
    slr_require(op->n_in >= 2 && op->n_out == 1 && op->in[1].rank == 4);
    SLR_TRY(slr_conv_check_types(op, 1u << 2));
    SLR_TRY(slr_conv_read(&k.shape, op, &op->in[0], &op->out[0], op->in[1].dim));
    k.has_bias = op->n_in > 2 && op->in[2].dtype;
    k.has_add = op->n_in > 3 && op->in[3].dtype;
    slr_require(!k.has_bias || slr_cpu_count(&op->in[2]) == k.shape.y.c);
    slr_require(!k.has_add || slr_cpu_same_shape(&op->in[3], &op->out[0]));
    k.src = k.shape.x;
    k.dst = k.shape.y;
    k.src_cg = k.shape.cg;
    k.dst_cg = k.shape.kg;
    return finish(out, scratch, env, k, op);
}

/* Where filters are few, blocks of one tap are thin: a layout of its own lets taps be taken
 * together. */
static int conv_bx_prepare(sdlora_kernel **out, uint64_t *scratch, const slr_cpu_env *env,
                           const sdlora_opdesc *op)
{
    conv_kernel k = {.alpha = op->n_real ? (float)op->reals[0] : 1.0f, .backward = true};
    slr_require(op->n_in == 2 && op->n_out == 1 && op->in[1].rank == 4);
    SLR_TRY(slr_conv_check_types(op, 0));
    SLR_TRY(slr_conv_read(&k.shape, op, &op->out[0], &op->in[0], op->in[1].dim));
    k.src = k.shape.y;
    k.dst = k.shape.x;
    k.src_cg = k.shape.kg;
    k.dst_cg = k.shape.cg;
    k.weights_trans = k.src_cg >= GROUP_DEPTH;
    k.layout = k.weights_trans ? SLR_PACK_CONV_CK : SLR_PACK_CONV_KC;
    return finish(out, scratch, env, k, op);
}

/* --- gradient by the weights --- */

enum { BW_PIXELS = 512, BW_CHANNELS = 128 };

typedef struct bw_kernel {
    sdlora_kernel head;
    conv_kernel geometry; /* forward phases and taps: which pixel lies under which tap */
    int64_t tc, c_tiles;  /* channels of a piece */
    const slr_dtype_row *dy_type;
    int64_t dy_floats; /* of a chunk of dy that is not f32 */
    int64_t slot_floats;
} bw_kernel;

typedef struct bw_job {
    const bw_kernel *k;
    const void *dy, *x;
    float *dw, *scratch;
} bw_job;

/* One tap, one group, a range of channels: dw[kg, c] = sum over pixels of dy^T x, in chunks of
 * fixed size in a fixed order. */
static void bw_piece(void *arg, int64_t piece, int slot)
{
    const bw_job *job = arg;
    const bw_kernel *b = job->k;
    const conv_kernel *k = &b->geometry;
    const slr_conv_shape *s = &k->shape;
    const int64_t c0 = piece % b->c_tiles * b->tc, cn = min64(b->tc, s->cg - c0);
    const int64_t group = piece / b->c_tiles % s->groups, t = piece / b->c_tiles / s->groups;
    float *dy_block = job->scratch + slot * b->slot_floats;
    float *block = dy_block + b->dy_floats, *sum = block + BW_PIXELS * b->tc;
    const int64_t pixels = s->y.n * s->y.h * s->y.w;
    for (int64_t first = 0; first < pixels; first += BW_PIXELS) {
        const int64_t rows = min64(BW_PIXELS, pixels - first);
        gather(k, k->walk.phases, &k->walk.taps[t], job->x, first, rows, group * s->cg + c0, cn,
               block, cn);
        const int64_t at = first * s->y.c + group * s->kg;
        slr_mat a = {dy_block, s->kg, true};
        if (b->dy_floats)
            slr_cpu_widen(dy_block, s->kg, b->dy_type,
                          slr_cpu_at(job->dy, at, (int64_t)b->dy_type->size), s->y.c, rows, s->kg);
        else
            a = (slr_mat){(const float *)job->dy + at, s->y.c, true};
        slr_sgemm(s->kg, cn, rows, k->alpha, a, (slr_mat){block, cn, false}, first ? 1.0f : 0.0f,
                  sum, cn);
    }
    /* [kg][cn] -> [K,Cg,R,S] */
    for (int64_t i = 0; i < s->kg; i++)
        for (int64_t c = 0; c < cn; c++)
            job->dw[((group * s->kg + i) * s->cg + c0 + c) * s->r * s->s + t] = sum[i * cn + c];
}

static int bw_launch(sdlora_kernel *head, const slr_cpu_env *env, void *const *ptr, void *scratch)
{
    const bw_kernel *b = (const bw_kernel *)head;
    const slr_conv_shape *s = &b->geometry.shape;
    bw_job job = {.k = b, .dy = ptr[0], .x = ptr[1], .dw = ptr[2], .scratch = scratch};
    slr_cpu_spread(env, b->c_tiles * s->groups * s->r * s->s, bw_piece, &job);
    return SDLORA_OK;
}

static void bw_free(sdlora_kernel *head, const slr_cpu_env *env)
{
    conv_free(&((bw_kernel *)head)->geometry.head, env);
}

static int conv_bw_prepare(sdlora_kernel **out, uint64_t *scratch, const slr_cpu_env *env,
                           const sdlora_opdesc *op)
{
    slr_conv_shape s;
    slr_require(op->n_in == 2 && op->n_out == 1 && op->out[0].rank == 4);
    SLR_TRY(slr_conv_check_types(op, 1u << 2));
    SLR_TRY(slr_conv_read(&s, op, &op->in[1], &op->in[0], op->out[0].dim));
    bw_kernel *b = slr_cpu_kernel_new(env, sizeof *b, bw_launch);
    if (!b)
        return SDLORA_ENOMEM;
    *out = &b->head;
    b->head.free = bw_free;
    conv_kernel *k = &b->geometry;
    k->shape = s;
    k->src = s.x;
    k->dst = s.y;
    k->alpha = op->n_real ? (float)op->reals[0] : 1.0f;
    k->src_type = type_of(op, 1);
    b->dy_type = type_of(op, 0);
    SLR_TRY(slr_conv_walk_new(&k->walk, env, &s, false));
    b->tc = ceil_div(s.cg, ceil_div(s.cg, BW_CHANNELS));
    b->c_tiles = ceil_div(s.cg, b->tc);
    b->dy_floats = b->dy_type->dtype != SDLORA_F32 ? slr_cpu_lines(BW_PIXELS * s.kg) : 0;
    b->slot_floats = b->dy_floats + slr_cpu_lines((BW_PIXELS + s.kg) * b->tc);
    *scratch = 4 * (uint64_t)(env->slots * b->slot_floats);
    return SDLORA_OK;
}

const slr_cpu_row slr_cpu_rows_conv[] = {
    {.op = SDLORA_OP_CONV2D, .own_packs = true, .prepare = conv_prepare},
    {.op = SDLORA_OP_CONV2D_BX, .own_packs = true, .prepare = conv_bx_prepare},
    {.op = SDLORA_OP_CONV2D_BW, .prepare = conv_bw_prepare},
    {0},
};
