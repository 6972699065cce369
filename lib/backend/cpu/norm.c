/* SPDX-License-Identifier: MIT */
/* GROUP_NORM, LAYER_NORM and their gradients: checks, the split into blocks of rows, and the double
 * sums that join blocks.  Blocks depend on the shape only, so results do not depend on threads.
 * Activations are all f32 or all bf16, statistics f32.  Outputs may share memory with x or dy.  The
 * activation of a group norm is recomputed from x on
 * the way back, which is cheaper than another pass over memory. */
#include "backend/cpu/norm.h"

#include <math.h>

#include "base/status.h"

enum { BLOCK = 65536, MAX_ROWS = 256 }; /* elements and rows of a block */

/* --- group norm */

typedef struct group_kernel {
    sdlora_kernel head;
    const slr_cpu_norm_fns *fns;
    int64_t n, rows, c, groups, act; /* n images of rows x c */
    int64_t size;                    /* bytes of an element */
    int64_t blocks, block_rows;      /* per image */
    float eps;
} group_kernel;

typedef struct group_job {
    const group_kernel *k;
    const void *dy, *x, *add; /* add: to dx; Nullable */
    const float *g, *b;
    void *y; /* dx on the way back */
    float *mean, *rstd;
    float *db;   /* of the gradient by gain and shift; dg is y */
    float *part; /* [n * blocks][2][c]: the sums of blocks */
    float *chan; /* [n][6][c]: slr_cpu_chan */
} group_job;

static slr_cpu_chan chan_of(const group_job *j, int64_t image)
{
    int64_t c = j->k->c;
    const float *p = j->chan + image * 6 * c;
    return (slr_cpu_chan){p, p + c, p + 2 * c, p + 3 * c, p + 4 * c, p + 5 * c};
}

/* A block: its first element (counted over all images) and its rows. */
static int64_t block_at(const group_kernel *k, int64_t item, int64_t *rows)
{
    int64_t at = item % k->blocks * k->block_rows;
    *rows = k->rows - at < k->block_rows ? k->rows - at : k->block_rows;
    return (item / k->blocks * k->rows + at) * k->c;
}

static void stats_body(void *arg, int64_t lo, int64_t hi)
{
    const group_job *j = arg;
    const group_kernel *k = j->k;
    int64_t c = k->c, rows;
    for (int64_t i = lo; i < hi; i++) {
        int64_t at = block_at(k, i, &rows), first = i / k->blocks * k->rows * c;
        const void *pivot = slr_cpu_at(j->x, first, k->size); /* the image's first row */
        k->fns->stats(rows, c, slr_cpu_at(j->x, at, k->size), pivot, j->part + i * 2 * c,
                      j->part + (i * 2 + 1) * c);
    }
}

/* The double sums over an image's blocks of one channel: *s and *q. */
static void join(const group_job *j, int64_t image, int64_t ch, double *s, double *q)
{
    const float *p = j->part + image * j->k->blocks * 2 * j->k->c + ch;
    *s = *q = 0;
    for (int64_t i = 0; i < j->k->blocks; i++, p += 2 * j->k->c) {
        *s += p[0];
        *q += p[j->k->c];
    }
}

/* Writes mean, rstd, gain and bias of one group's channels. */
static void set_chan(const group_job *j, int64_t set, float mean, float rstd)
{
    const group_kernel *k = j->k;
    int64_t cg = k->c / k->groups, image = set / k->groups, first = set % k->groups * cg;
    float *p = j->chan + image * 6 * k->c;
    for (int64_t ch = first; ch < first + cg; ch++) {
        p[ch] = mean;
        p[k->c + ch] = rstd;
        p[2 * k->c + ch] = j->g ? j->g[ch] : 1;
        p[3 * k->c + ch] = j->b ? j->b[ch] : 0;
    }
}

/* Mean and variance of groups lo..hi.  A channel's mean is its pivot + s / rows and its sum of
 * squares about that mean q - s^2 / rows; the group's adds the distance of the means. */
static void moments_body(void *arg, int64_t lo, int64_t hi)
{
    const group_job *j = arg;
    const group_kernel *k = j->k;
    int64_t cg = k->c / k->groups;
    double rows = (double)k->rows, s, q;
    for (int64_t set = lo; set < hi; set++) {
        int64_t image = set / k->groups, first = set % k->groups * cg;
        const void *pivot = slr_cpu_at(j->x, image * k->rows * k->c + first, k->size);
        double mean = 0, m2 = 0, shift = slr_cpu_get(pivot, 0, k->size);
        for (int64_t i = 0; i < cg; i++) {
            join(j, image, first + i, &s, &q);
            double d = slr_cpu_get(pivot, i, k->size) - shift +
                       s / rows; /* the channel's mean, seen from shift */
            mean += d;
            m2 += q - s * s / rows + rows * d * d;
        }
        mean /= (double)cg;
        double var = m2 / (rows * (double)cg) - mean * mean;
        j->mean[set] = (float)(mean + shift);
        j->rstd[set] = (float)(1 / sqrt((var > 0 ? var : var < 0 ? 0 : var) + k->eps));
        set_chan(j, set, j->mean[set], j->rstd[set]);
    }
}

static void apply_body(void *arg, int64_t lo, int64_t hi)
{
    const group_job *j = arg;
    const group_kernel *k = j->k;
    int64_t rows;
    for (int64_t i = lo; i < hi; i++) {
        int64_t at = block_at(k, i, &rows);
        slr_cpu_chan ch = chan_of(j, i / k->blocks);
        k->fns->apply[k->act](rows, k->c, slr_cpu_at(j->y, at, k->size),
                              slr_cpu_at(j->x, at, k->size), &ch);
    }
}

static void bx_chan_body(void *arg, int64_t lo, int64_t hi)
{
    const group_job *j = arg;
    for (int64_t set = lo; set < hi; set++)
        set_chan(j, set, j->mean[set], j->rstd[set]);
}

static void bx_sums_body(void *arg, int64_t lo, int64_t hi)
{
    const group_job *j = arg;
    const group_kernel *k = j->k;
    int64_t c = k->c, rows;
    for (int64_t i = lo; i < hi; i++) {
        int64_t at = block_at(k, i, &rows);
        slr_cpu_chan ch = chan_of(j, i / k->blocks);
        k->fns->bx_sums[k->act](rows, c, slr_cpu_at(j->dy, at, k->size),
                                slr_cpu_at(j->x, at, k->size), &ch, j->part + i * 2 * c,
                                j->part + (i * 2 + 1) * c);
    }
}

/* m1 and m2 of groups lo..hi, into the channels' numbers. */
static void bx_moments_body(void *arg, int64_t lo, int64_t hi)
{
    const group_job *j = arg;
    const group_kernel *k = j->k;
    int64_t cg = k->c / k->groups;
    double s, q;
    for (int64_t set = lo; set < hi; set++) {
        int64_t image = set / k->groups, first = set % k->groups * cg;
        float *p = j->chan + image * 6 * k->c;
        double m1 = 0, m2 = 0, n = (double)(k->rows * cg);
        for (int64_t ch = first; ch < first + cg; ch++) {
            join(j, image, ch, &s, &q);
            m1 += s * p[2 * k->c + ch];
            m2 += q * p[2 * k->c + ch];
        }
        for (int64_t ch = first; ch < first + cg; ch++) {
            p[4 * k->c + ch] = (float)(m1 / n);
            p[5 * k->c + ch] = (float)(m2 / n);
        }
    }
}

static void bx_apply_body(void *arg, int64_t lo, int64_t hi)
{
    const group_job *j = arg;
    const group_kernel *k = j->k;
    int64_t rows;
    for (int64_t i = lo; i < hi; i++) {
        int64_t at = block_at(k, i, &rows);
        slr_cpu_chan ch = chan_of(j, i / k->blocks);
        const void *add = j->add ? slr_cpu_at(j->add, at, k->size) : NULL;
        k->fns->bx_apply[k->act](rows, k->c, slr_cpu_at(j->y, at, k->size),
                                 slr_cpu_at(j->dy, at, k->size), slr_cpu_at(j->x, at, k->size), add,
                                 &ch);
    }
}

/* Blocks per piece: small tensors stay on one thread. */
static int64_t block_grain(const group_kernel *k)
{
    int64_t grain = SLR_CPU_GRAIN / 4 / (k->block_rows * k->c);
    return grain > 0 ? grain : 1;
}

/* Groups per piece of the loops that join blocks. */
static int64_t group_grain(const group_kernel *k)
{
    int64_t work = k->blocks * (k->c / k->groups), grain = SLR_CPU_GRAIN / 4 / (work ? work : 1);
    return grain > 0 ? grain : 1;
}

/* Input i, which may be absent or left out. */
static const void *optional(const sdlora_kernel *k, void *const *ptr, uint32_t i)
{
    return i < k->n_in ? ptr[i] : NULL;
}

static int group_launch(sdlora_kernel *kernel, const slr_cpu_env *env, void *const *ptr,
                        void *scratch)
{
    const group_kernel *k = (const group_kernel *)kernel;
    void *const *out = ptr + k->head.n_in;
    group_job j = {.k = k,
                   .x = ptr[0],
                   .g = optional(kernel, ptr, 1),
                   .b = optional(kernel, ptr, 2),
                   .y = out[0],
                   .mean = out[1],
                   .rstd = out[2],
                   .part = scratch};
    j.chan = j.part + k->n * k->blocks * 2 * k->c;
    slr_cpu_parallel(env, k->n * k->blocks, block_grain(k), stats_body, &j);
    slr_cpu_parallel(env, k->n * k->groups, group_grain(k), moments_body, &j);
    slr_cpu_parallel(env, k->n * k->blocks, block_grain(k), apply_body, &j);
    return SDLORA_OK;
}

static int group_bx_launch(sdlora_kernel *kernel, const slr_cpu_env *env, void *const *ptr,
                           void *scratch)
{
    const group_kernel *k = (const group_kernel *)kernel;
    group_job j = {.k = k,
                   .dy = ptr[0],
                   .x = ptr[1],
                   .g = ptr[2],
                   .b = ptr[3],
                   .mean = ptr[4],
                   .rstd = ptr[5],
                   .add = optional(kernel, ptr, 6),
                   .y = ptr[k->head.n_in],
                   .part = scratch};
    j.chan = j.part + k->n * k->blocks * 2 * k->c;
    slr_cpu_parallel(env, k->n * k->groups, k->n * k->groups, bx_chan_body, &j);
    slr_cpu_parallel(env, k->n * k->blocks, block_grain(k), bx_sums_body, &j);
    slr_cpu_parallel(env, k->n * k->groups, group_grain(k), bx_moments_body, &j);
    slr_cpu_parallel(env, k->n * k->blocks, block_grain(k), bx_apply_body, &j);
    return SDLORA_OK;
}

/* dg and db of channels lo..hi. */
static void bw_join_body(void *arg, int64_t lo, int64_t hi)
{
    const group_job *j = arg;
    float *dg = j->y;
    for (int64_t ch = lo; ch < hi; ch++) {
        double s, q, sum = 0, weighted = 0;
        for (int64_t image = 0; image < j->k->n; image++) {
            join(j, image, ch, &s, &q);
            sum += s;
            weighted += q;
        }
        dg[ch] = (float)weighted;
        j->db[ch] = (float)sum;
    }
}

static int group_bw_launch(sdlora_kernel *kernel, const slr_cpu_env *env, void *const *ptr,
                           void *scratch)
{
    const group_kernel *k = (const group_kernel *)kernel;
    group_job j = {.k = k,
                   .dy = ptr[0],
                   .x = ptr[1],
                   .g = ptr[2],
                   .b = ptr[3],
                   .mean = ptr[4],
                   .rstd = ptr[5],
                   .y = ptr[6],
                   .db = ptr[7],
                   .part = scratch};
    j.chan = j.part + k->n * k->blocks * 2 * k->c;
    slr_cpu_parallel(env, k->n * k->groups, k->n * k->groups, bx_chan_body, &j);
    slr_cpu_parallel(env, k->n * k->blocks, block_grain(k), bx_sums_body, &j);
    int64_t grain = SLR_CPU_GRAIN / 4 / (k->n * k->blocks);
    slr_cpu_parallel(env, k->c, grain > 0 ? grain : 1, bw_join_body, &j);
    return SDLORA_OK;
}

/* Input i is absent, or f32[n]. */
static bool vector_fits(const sdlora_opdesc *op, uint32_t i, int64_t n)
{
    const sdlora_tdesc *t = &op->in[i];
    return i >= op->n_in || !slr_cpu_has(t) || (slr_cpu_f32(t) && slr_cpu_count(t) == n);
}

/* Whether input i, which is added to a gradient, is there. */
static bool has_add(const sdlora_opdesc *op, uint32_t i)
{
    return op->n_in > i && slr_cpu_has(&op->in[i]);
}

/* x, y, dy, dx and what is added (input `add` of a gradient) are stored alike. */
static bool one_type(const sdlora_opdesc *op, const sdlora_tdesc *x, uint32_t add)
{
    return slr_cpu_stored(x) && slr_cpu_stored_as(&op->in[0], x->dtype) &&
           slr_cpu_stored_as(&op->out[0], x->dtype) &&
           (x == &op->in[0] || !has_add(op, add) || slr_cpu_stored_as(&op->in[add], x->dtype));
}

/* A gradient has `add` inputs or one more, which is of the shape of x. */
static bool add_fits(const sdlora_opdesc *op, const sdlora_tdesc *x, uint32_t add)
{
    return (op->n_in == add || op->n_in == add + 1) &&
           (!has_add(op, add) || slr_cpu_same_shape(&op->in[add], x));
}

/* Both results are f32[c]. */
static bool gives_vectors(const sdlora_opdesc *op, int64_t c)
{
    return op->n_out == 2 && slr_cpu_f32(&op->out[0]) && slr_cpu_f32(&op->out[1]) &&
           slr_cpu_count(&op->out[0]) == c && slr_cpu_count(&op->out[1]) == c;
}

/* A kernel for x [n,...,c] whose shapes were checked; ints are those of a group norm. */
static group_kernel *
group_new(const slr_cpu_env *env, const sdlora_opdesc *op, const sdlora_tdesc *x, uint64_t *scratch,
          int (*launch)(sdlora_kernel *, const slr_cpu_env *, void *const *, void *))
{
    group_kernel *k = slr_cpu_kernel_new(env, sizeof *k, launch);
    if (!k)
        return NULL;
    k->fns = SLR_CPU_PICK(env, slr_cpu_norm, x->dtype);
    k->size = slr_cpu_size(x);
    k->n = x->dim[0];
    k->c = x->dim[x->rank - 1];
    k->rows = slr_cpu_count(x) / (k->n * k->c);
    k->groups = op->ints[0];
    k->act = op->n_int > 1 ? op->ints[1] : 0;
    int64_t fit = BLOCK / k->c, rows = fit < 1 ? 1 : fit > MAX_ROWS ? MAX_ROWS : fit;
    k->blocks = (k->rows + rows - 1) / rows;
    k->block_rows = (k->rows + k->blocks - 1) / k->blocks;
    *scratch = (uint64_t)(k->n * (k->blocks * 2 + 6) * k->c) * sizeof(float);
    return k;
}

static int group_prepare(sdlora_kernel **out, uint64_t *scratch, const slr_cpu_env *env,
                         const sdlora_opdesc *op)
{
    bool back = op->op == SDLORA_OP_GROUP_NORM_BX;
    const sdlora_tdesc *x = &op->in[back];
    const sdlora_tdesc *mean = back ? &op->in[4] : &op->out[1], *rstd = mean + 1;
    int64_t groups = op->ints[0], act = op->n_int > 1 ? op->ints[1] : 0;
    if (!one_type(op, x, 6) || act < 0 || act >= SLR_N_ACTS)
        return slr_fail(SDLORA_ENOTSUP, __func__,
                        "cpu: GROUP_NORM takes dense tensors of one type, f32 or bf16");
    int64_t c = x->rank ? x->dim[x->rank - 1] : 0;
    if ((back && !add_fits(op, x, 6)) || x->rank < 2 || groups < 1 || c % groups ||
        !slr_cpu_same_shape(x, &op->out[0]) || (back && !slr_cpu_same_shape(x, &op->in[0])) ||
        !vector_fits(op, back + 1u, c) || !vector_fits(op, back + 2u, c) ||
        slr_cpu_count(mean) != x->dim[0] * groups || slr_cpu_count(rstd) != x->dim[0] * groups)
        return slr_fail(SDLORA_EINVAL, __func__,
                        "cpu: GROUP_NORM of %lld channels in %lld groups: the shapes do not fit",
                        (long long)c, (long long)groups);
    group_kernel *k = group_new(env, op, x, scratch, back ? group_bx_launch : group_launch);
    if (!k)
        return SDLORA_ENOMEM;
    k->eps = (float)op->reals[0];
    *out = &k->head;
    return SDLORA_OK;
}

/* dy x g? b? mean rstd -> dg db */
static int group_bw_prepare(sdlora_kernel **out, uint64_t *scratch, const slr_cpu_env *env,
                            const sdlora_opdesc *op)
{
    const sdlora_tdesc *x = &op->in[1];
    int64_t groups = op->ints[0], act = op->ints[1], c = x->rank ? x->dim[x->rank - 1] : 0;
    if (!slr_cpu_stored(x) || !slr_cpu_stored_as(&op->in[0], x->dtype) || act < 0 ||
        act >= SLR_N_ACTS)
        return slr_fail(SDLORA_ENOTSUP, __func__,
                        "cpu: GROUP_NORM_BW takes dense tensors of one type, f32 or bf16");
    if (op->n_in != 6 || x->rank < 2 || groups < 1 || c % groups ||
        !slr_cpu_same_shape(x, &op->in[0]) || !vector_fits(op, 2, c) || !vector_fits(op, 3, c) ||
        !vector_fits(op, 4, x->dim[0] * groups) || !vector_fits(op, 5, x->dim[0] * groups) ||
        !gives_vectors(op, c))
        return slr_fail(SDLORA_EINVAL, __func__,
                        "cpu: GROUP_NORM_BW of %lld channels in %lld groups: the shapes do not fit",
                        (long long)c, (long long)groups);
    group_kernel *k = group_new(env, op, x, scratch, group_bw_launch);
    if (!k)
        return SDLORA_ENOMEM;
    *out = &k->head;
    return SDLORA_OK;
}

/* --- layer norm */

typedef struct layer_kernel {
    sdlora_kernel head;
    const slr_cpu_norm_fns *fns;
    int64_t rows, c, size;
    float eps;
} layer_kernel;

typedef struct layer_job {
    const layer_kernel *k;
    const void *dy, *x, *add;
    const float *g, *b;
    void *y; /* dx on the way back */
    float *mean, *rstd;
} layer_job;

static void layer_body(void *arg, int64_t lo, int64_t hi)
{
    const layer_job *j = arg;
    const layer_kernel *k = j->k;
    for (int64_t i = lo; i < hi; i++)
        k->fns->layer(k->c, slr_cpu_at(j->y, i * k->c, k->size),
                      slr_cpu_at(j->x, i * k->c, k->size), j->g, j->b, k->eps, &j->mean[i],
                      &j->rstd[i]);
}

static void layer_bx_body(void *arg, int64_t lo, int64_t hi)
{
    const layer_job *j = arg;
    const layer_kernel *k = j->k;
    for (int64_t i = lo; i < hi; i++) {
        int64_t at = i * k->c;
        k->fns->layer_bx(k->c, slr_cpu_at(j->y, at, k->size), slr_cpu_at(j->dy, at, k->size),
                         slr_cpu_at(j->x, at, k->size),
                         j->add ? slr_cpu_at(j->add, at, k->size) : NULL, j->g, j->mean[i],
                         j->rstd[i]);
    }
}

/* Rows per piece; each is passed over several times. */
static int64_t row_grain(int64_t c)
{
    return c < SLR_CPU_GRAIN / 4 ? SLR_CPU_GRAIN / 4 / c : 1;
}

static int layer_launch(sdlora_kernel *kernel, const slr_cpu_env *env, void *const *ptr,
                        void *scratch)
{
    const layer_kernel *k = (const layer_kernel *)kernel;
    void *const *out = ptr + k->head.n_in;
    layer_job j = {.k = k,
                   .x = ptr[0],
                   .g = optional(kernel, ptr, 1),
                   .b = optional(kernel, ptr, 2),
                   .y = out[0],
                   .mean = out[1],
                   .rstd = out[2]};
    slr_cpu_parallel(env, k->rows, row_grain(k->c), layer_body, &j);
    return SDLORA_OK;
}

static int layer_bx_launch(sdlora_kernel *kernel, const slr_cpu_env *env, void *const *ptr,
                           void *scratch)
{
    const layer_kernel *k = (const layer_kernel *)kernel;
    layer_job j = {.k = k,
                   .dy = ptr[0],
                   .x = ptr[1],
                   .g = ptr[2],
                   .mean = ptr[3],
                   .rstd = ptr[4],
                   .add = optional(kernel, ptr, 5),
                   .y = ptr[k->head.n_in]};
    slr_cpu_parallel(env, k->rows, row_grain(k->c), layer_bx_body, &j);
    return SDLORA_OK;
}

static int layer_prepare(sdlora_kernel **out, uint64_t *scratch, const slr_cpu_env *env,
                         const sdlora_opdesc *op)
{
    bool back = op->op == SDLORA_OP_LAYER_NORM_BX;
    const sdlora_tdesc *x = &op->in[back], *mean = back ? &op->in[3] : &op->out[1];
    if (!one_type(op, x, 5))
        return slr_fail(SDLORA_ENOTSUP, __func__,
                        "cpu: LAYER_NORM takes dense tensors of one type, f32 or bf16");
    int64_t c = x->rank ? x->dim[x->rank - 1] : 1, rows = slr_cpu_count(x) / (c ? c : 1);
    if ((back && !add_fits(op, x, 5)) || c < 1 || !slr_cpu_same_shape(x, &op->out[0]) ||
        !vector_fits(op, back + 1u, c) ||
        (back ? !slr_cpu_same_shape(x, &op->in[0]) : !vector_fits(op, 2, c)) ||
        slr_cpu_count(mean) != rows || slr_cpu_count(mean + 1) != rows)
        return slr_fail(SDLORA_EINVAL, __func__,
                        "cpu: LAYER_NORM of %lld channels: the shapes do not fit", (long long)c);
    layer_kernel *k = slr_cpu_kernel_new(env, sizeof *k, back ? layer_bx_launch : layer_launch);
    if (!k)
        return SDLORA_ENOMEM;
    k->fns = SLR_CPU_PICK(env, slr_cpu_norm, x->dtype);
    k->size = slr_cpu_size(x);
    k->rows = rows;
    k->c = c;
    k->eps = back ? 0 : (float)op->reals[0];
    *out = &k->head;
    return SDLORA_OK;
}

/* --- layer norm, gradients by gain and shift: sums down blocks of rows, joined in double */

typedef struct layer_bw_kernel {
    sdlora_kernel head;
    const slr_cpu_norm_fns *fns;
    int64_t rows, c, size, blocks, block_rows;
} layer_bw_kernel;

typedef struct layer_bw_job {
    const layer_bw_kernel *k;
    const void *dy, *x;
    const float *mean, *rstd;
    float *dg, *db;
    float *part; /* [blocks][2][c] */
} layer_bw_job;

static void layer_bw_body(void *arg, int64_t lo, int64_t hi)
{
    const layer_bw_job *j = arg;
    const layer_bw_kernel *k = j->k;
    for (int64_t i = lo; i < hi; i++) {
        int64_t at = i * k->block_rows, left = k->rows - at;
        float *s = j->part + i * 2 * k->c;
        k->fns->layer_bw(left < k->block_rows ? left : k->block_rows, k->c,
                         slr_cpu_at(j->dy, at * k->c, k->size),
                         slr_cpu_at(j->x, at * k->c, k->size), j->mean + at, j->rstd + at, s,
                         s + k->c);
    }
}

static void layer_join_body(void *arg, int64_t lo, int64_t hi)
{
    const layer_bw_job *j = arg;
    int64_t c = j->k->c;
    for (int64_t ch = lo; ch < hi; ch++) {
        double sum = 0, weighted = 0;
        for (int64_t i = 0; i < j->k->blocks; i++) {
            sum += j->part[i * 2 * c + ch];
            weighted += j->part[(i * 2 + 1) * c + ch];
        }
        j->dg[ch] = (float)weighted;
        j->db[ch] = (float)sum;
    }
}

static int layer_bw_launch(sdlora_kernel *kernel, const slr_cpu_env *env, void *const *ptr,
                           void *scratch)
{
    const layer_bw_kernel *k = (const layer_bw_kernel *)kernel;
    layer_bw_job j = {k, ptr[0], ptr[1], ptr[2], ptr[3], ptr[4], ptr[5], scratch};
    int64_t grain = SLR_CPU_GRAIN / (k->block_rows * k->c);
    slr_cpu_parallel(env, k->blocks, grain > 0 ? grain : 1, layer_bw_body, &j);
    grain = SLR_CPU_GRAIN / 4 / k->blocks;
    slr_cpu_parallel(env, k->c, grain > 0 ? grain : 1, layer_join_body, &j);
    return SDLORA_OK;
}

/* dy x mean rstd -> dg db */
static int layer_bw_prepare(sdlora_kernel **out, uint64_t *scratch, const slr_cpu_env *env,
                            const sdlora_opdesc *op)
{
    const sdlora_tdesc *x = &op->in[1];
    if (!slr_cpu_stored(x) || !slr_cpu_stored_as(&op->in[0], x->dtype))
        return slr_fail(SDLORA_ENOTSUP, __func__,
                        "cpu: LAYER_NORM_BW takes dense tensors of one type, f32 or bf16");
    int64_t c = x->rank ? x->dim[x->rank - 1] : 1, rows = slr_cpu_count(x) / (c ? c : 1);
    if (op->n_in != 4 || c < 1 || !slr_cpu_same_shape(x, &op->in[0]) || !vector_fits(op, 2, rows) ||
        !vector_fits(op, 3, rows) || !gives_vectors(op, c))
        return slr_fail(SDLORA_EINVAL, __func__,
                        "cpu: LAYER_NORM_BW of %lld channels: the shapes do not fit", (long long)c);
    layer_bw_kernel *k = slr_cpu_kernel_new(env, sizeof *k, layer_bw_launch);
    if (!k)
        return SDLORA_ENOMEM;
    k->fns = SLR_CPU_PICK(env, slr_cpu_norm, x->dtype);
    k->size = slr_cpu_size(x);
    k->rows = rows;
    k->c = c;
    int64_t fit = BLOCK / c, most = fit < 1 ? 1 : fit > MAX_ROWS ? MAX_ROWS : fit;
    k->blocks = (rows + most - 1) / most;
    k->block_rows = (rows + k->blocks - 1) / k->blocks;
    *scratch = (uint64_t)(k->blocks * 2 * c) * sizeof(float);
    *out = &k->head;
    return SDLORA_OK;
}

const slr_cpu_row slr_cpu_rows_norm[] = {
    {SDLORA_OP_GROUP_NORM, .prepare = group_prepare},
    {SDLORA_OP_GROUP_NORM_BX, .prepare = group_prepare},
    {SDLORA_OP_LAYER_NORM, .prepare = layer_prepare},
    {SDLORA_OP_LAYER_NORM_BX, .prepare = layer_prepare},
    {SDLORA_OP_GROUP_NORM_BW, .prepare = group_bw_prepare},
    {SDLORA_OP_LAYER_NORM_BW, .prepare = layer_bw_prepare},
    {0},
};
