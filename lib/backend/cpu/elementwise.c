/* SPDX-License-Identifier: MIT */
/* ADD SUB MUL AFFINE ACT ACT_BX GEGLU GEGLU_BX DROPOUT: checks descriptors, folds the axes of a
 * repeated operand into few, and deals flat ranges out to threads.  The loops themselves stand in
 * ew_tmpl.c.  Activations are all f32 or all bf16; the second operand of the first three may be f32
 * beside bf16.  Outputs may share memory with an input of the same shape, GEGLU's excepted. */
#include "backend/cpu/cpu.h"

#include <math.h>

#include "backend/cpu/ew.h"
#include "base/status.h"

static const char *const binary_name[] = {"ADD", "SUB", "MUL"};

/* --- ADD SUB MUL.  The element i of a [.., n] pairs with element i % n of a row of b when the last
 * folded axis is shared, or with one number of b when it is not; `axis` finds that row or number.
 */

typedef struct binary_kernel {
    sdlora_kernel head;
    const slr_cpu_ew_fns *fns;
    int op;
    bool row_of_b;        /* the last folded axis is b's too */
    bool mixed;           /* b is f32 beside bf16 */
    int64_t size, b_size; /* bytes of an element of a and y, and of b */
    int64_t count, n;
    int n_axes; /* folded axes before the last */
    struct {
        int64_t dim, step; /* step in b, 0 repeats */
    } axis[SDLORA_MAX_RANK];
} binary_kernel;

typedef struct binary_job {
    const binary_kernel *k;
    const void *a, *b;
    void *y;
} binary_job;

static const void *row_of(const binary_kernel *k, const void *b, int64_t row)
{
    int64_t at = 0;
    for (int x = k->n_axes; x-- > 0; row /= k->axis[x].dim)
        at += row % k->axis[x].dim * k->axis[x].step;
    return slr_cpu_at(b, at, k->b_size);
}

static void binary_body(void *arg, int64_t lo, int64_t hi)
{
    const binary_job *j = arg;
    const binary_kernel *k = j->k;
    while (lo < hi) {
        int64_t at = lo % k->n, m = k->n - at < hi - lo ? k->n - at : hi - lo;
        const void *b = row_of(k, j->b, lo / k->n), *a = slr_cpu_at(j->a, lo, k->size);
        void *y = slr_cpu_at(j->y, lo, k->size);
        if (!k->row_of_b)
            k->fns->scalar[k->op](m, y, a, slr_cpu_get(b, 0, k->b_size));
        else if (k->mixed)
            k->fns->mixed[k->op](m, y, a, (const float *)b + at);
        else
            k->fns->binary[k->op](m, y, a, slr_cpu_at(b, at, k->b_size));
        lo += m;
    }
}

static int binary_launch(sdlora_kernel *kernel, const slr_cpu_env *env, void *const *ptr,
                         void *scratch)
{
    const binary_kernel *k = (const binary_kernel *)kernel;
    binary_job j = {k, ptr[0], ptr[1], ptr[2]};
    slr_cpu_parallel(env, k->count, SLR_CPU_GRAIN, binary_body, &j);
    return SDLORA_OK;
}

/* Joins neighbouring axes of a that b treats alike. */
static void fold(binary_kernel *k, const sdlora_tdesc *a, const sdlora_tdesc *b)
{
    int64_t step = 1;
    int n = 0;
    int64_t dim[SDLORA_MAX_RANK], steps[SDLORA_MAX_RANK]; /* innermost first */
    for (uint32_t x = a->rank; x-- > 0;) {
        if (a->dim[x] == 1)
            continue;
        bool shared = b->dim[x] != 1;
        if (n > 0 && shared == (steps[n - 1] != 0)) {
            dim[n - 1] *= a->dim[x];
        } else {
            dim[n] = a->dim[x];
            steps[n++] = shared ? step : 0;
        }
        step *= b->dim[x];
    }
    k->n = n ? dim[0] : 1;
    k->row_of_b = n && steps[0] != 0;
    k->n_axes = n ? n - 1 : 0;
    for (int x = 0; x < k->n_axes; x++) {
        k->axis[x].dim = dim[n - 1 - x];
        k->axis[x].step = steps[n - 1 - x];
    }
}

static int binary_prepare(sdlora_kernel **out, uint64_t *scratch, const slr_cpu_env *env,
                          const sdlora_opdesc *op)
{
    const sdlora_tdesc *a = &op->in[0], *b = &op->in[1];
    const char *name = binary_name[op->op - SDLORA_OP_ADD];
    if (!slr_cpu_stored(a) || !slr_cpu_stored_as(&op->out[0], a->dtype) ||
        !(slr_cpu_stored_as(b, a->dtype) || slr_cpu_f32(b)))
        return slr_fail(SDLORA_ENOTSUP, __func__,
                        "cpu: %s takes dense tensors of one type, f32 or bf16", name);
    bool fits = a->rank == b->rank && slr_cpu_same_shape(a, &op->out[0]);
    for (uint32_t x = 0; fits && x < a->rank; x++)
        fits = b->dim[x] == 1 || b->dim[x] == a->dim[x];
    if (!fits)
        return slr_fail(SDLORA_EINVAL, __func__,
                        "cpu: %s wants a second operand whose axes are those of the first or 1",
                        name);
    binary_kernel *k = slr_cpu_kernel_new(env, sizeof *k, binary_launch);
    if (!k)
        return SDLORA_ENOMEM;
    k->fns = SLR_CPU_PICK(env, slr_cpu_ew, a->dtype);
    k->size = slr_cpu_size(a);
    k->b_size = slr_cpu_size(b);
    k->mixed = b->dtype != a->dtype;
    k->op = (int)(op->op - SDLORA_OP_ADD);
    k->count = slr_cpu_count(a);
    fold(k, a, b);
    *out = &k->head;
    return SDLORA_OK;
}

/* --- one number in, one number out */

typedef struct flat_kernel {
    sdlora_kernel head;
    const slr_cpu_ew_fns *fns;
    int64_t count, kind, size;
    float scale, shift;
} flat_kernel;

typedef struct flat_job {
    const flat_kernel *k;
    const void *a, *b;
    void *y;
} flat_job;

static void affine_body(void *arg, int64_t lo, int64_t hi)
{
    const flat_job *j = arg;
    const flat_kernel *k = j->k;
    k->fns->affine(hi - lo, slr_cpu_at(j->y, lo, k->size), slr_cpu_at(j->a, lo, k->size), k->scale,
                   k->shift);
}

static void act_body(void *arg, int64_t lo, int64_t hi)
{
    const flat_job *j = arg;
    const flat_kernel *k = j->k;
    k->fns->act[k->kind](hi - lo, slr_cpu_at(j->y, lo, k->size), slr_cpu_at(j->a, lo, k->size));
}

static void act_bx_body(void *arg, int64_t lo, int64_t hi)
{
    const flat_job *j = arg;
    const flat_kernel *k = j->k;
    k->fns->act_bx[k->kind](hi - lo, slr_cpu_at(j->y, lo, k->size), slr_cpu_at(j->a, lo, k->size),
                            slr_cpu_at(j->b, lo, k->size));
}

static int affine_launch(sdlora_kernel *kernel, const slr_cpu_env *env, void *const *ptr,
                         void *scratch)
{
    flat_job j = {(const flat_kernel *)kernel, ptr[0], NULL, ptr[1]};
    slr_cpu_parallel(env, j.k->count, SLR_CPU_GRAIN, affine_body, &j);
    return SDLORA_OK;
}

static int act_launch(sdlora_kernel *kernel, const slr_cpu_env *env, void *const *ptr,
                      void *scratch)
{
    flat_job j = {(const flat_kernel *)kernel, ptr[0], NULL, ptr[1]};
    slr_cpu_parallel(env, j.k->count, SLR_CPU_GRAIN, act_body, &j);
    return SDLORA_OK;
}

static int act_bx_launch(sdlora_kernel *kernel, const slr_cpu_env *env, void *const *ptr,
                         void *scratch)
{
    flat_job j = {(const flat_kernel *)kernel, ptr[0], ptr[1], ptr[2]};
    slr_cpu_parallel(env, j.k->count, SLR_CPU_GRAIN, act_bx_body, &j);
    return SDLORA_OK;
}

/* All inputs and the output are dense tensors of one shape and type. */
static int check_flat(const sdlora_opdesc *op, const char *name)
{
    for (uint32_t i = 0; i < op->n_in; i++)
        if (!slr_cpu_stored(&op->in[i]) || !slr_cpu_stored_as(&op->out[0], op->in[i].dtype))
            return slr_fail(SDLORA_ENOTSUP, __func__,
                            "cpu: %s takes dense tensors of one type, f32 or bf16", name);
    for (uint32_t i = 0; i < op->n_in; i++)
        if (!slr_cpu_same_shape(&op->in[i], &op->out[0]))
            return slr_fail(SDLORA_EINVAL, __func__, "cpu: the shapes of a %s differ", name);
    return SDLORA_OK;
}

static int flat_prepare(sdlora_kernel **out, const slr_cpu_env *env, const sdlora_opdesc *op,
                        const char *name,
                        int (*launch)(sdlora_kernel *, const slr_cpu_env *, void *const *, void *))
{
    SLR_TRY(check_flat(op, name));
    int64_t kind = op->n_int ? op->ints[0] : 0;
    if (kind < 0 || kind >= SLR_N_ALL_ACTS)
        return slr_fail(SDLORA_ENOTSUP, __func__, "cpu: %s has no kind %lld", name,
                        (long long)kind);
    flat_kernel *k = slr_cpu_kernel_new(env, sizeof *k, launch);
    if (!k)
        return SDLORA_ENOMEM;
    k->fns = SLR_CPU_PICK(env, slr_cpu_ew, op->out[0].dtype);
    k->count = slr_cpu_count(&op->out[0]);
    k->size = slr_cpu_size(&op->out[0]);
    k->kind = kind;
    k->scale = op->n_real > 0 ? (float)op->reals[0] : 1;
    k->shift = op->n_real > 1 ? (float)op->reals[1] : 0;
    *out = &k->head;
    return SDLORA_OK;
}

static int affine_prepare(sdlora_kernel **out, uint64_t *scratch, const slr_cpu_env *env,
                          const sdlora_opdesc *op)
{
    return flat_prepare(out, env, op, "AFFINE", affine_launch);
}

static int act_prepare(sdlora_kernel **out, uint64_t *scratch, const slr_cpu_env *env,
                       const sdlora_opdesc *op)
{
    return flat_prepare(out, env, op, "ACT", act_launch);
}

static int act_bx_prepare(sdlora_kernel **out, uint64_t *scratch, const slr_cpu_env *env,
                          const sdlora_opdesc *op)
{
    return flat_prepare(out, env, op, "ACT_BX", act_bx_launch);
}

/* --- GEGLU: x[rows,2n] -> y[rows,n] */

typedef struct geglu_kernel {
    sdlora_kernel head;
    const slr_cpu_ew_fns *fns;
    int64_t count, n; /* of y */
    int64_t size;
} geglu_kernel;

typedef struct geglu_job {
    const geglu_kernel *k;
    const void *dy, *x;
    void *y; /* y, or dx[rows,2n] */
} geglu_job;

static void geglu_body(void *arg, int64_t lo, int64_t hi)
{
    const geglu_job *j = arg;
    const geglu_kernel *k = j->k;
    int64_t n = k->n, size = k->size;
    while (lo < hi) {
        int64_t at = lo % n, m = n - at < hi - lo ? n - at : hi - lo;
        int64_t two = lo / n * 2 * n + at;
        const void *x = slr_cpu_at(j->x, two, size), *gate = slr_cpu_at(x, n, size);
        if (j->dy) {
            void *dx = slr_cpu_at(j->y, two, size);
            k->fns->geglu_bx(m, dx, slr_cpu_at(dx, n, size), slr_cpu_at(j->dy, lo, size), x, gate);
        } else {
            k->fns->geglu(m, slr_cpu_at(j->y, lo, size), x, gate);
        }
        lo += m;
    }
}

static int geglu_launch(sdlora_kernel *kernel, const slr_cpu_env *env, void *const *ptr,
                        void *scratch)
{
    geglu_job j = {(const geglu_kernel *)kernel, NULL, ptr[0], ptr[1]};
    slr_cpu_parallel(env, j.k->count, SLR_CPU_GRAIN / 2, geglu_body, &j);
    return SDLORA_OK;
}

static int geglu_bx_launch(sdlora_kernel *kernel, const slr_cpu_env *env, void *const *ptr,
                           void *scratch)
{
    geglu_job j = {(const geglu_kernel *)kernel, ptr[0], ptr[1], ptr[2]};
    slr_cpu_parallel(env, j.k->count, SLR_CPU_GRAIN / 2, geglu_body, &j);
    return SDLORA_OK;
}

static int geglu_prepare(sdlora_kernel **out, uint64_t *scratch, const slr_cpu_env *env,
                         const sdlora_opdesc *op)
{
    bool back = op->op == SDLORA_OP_GEGLU_BX;
    const sdlora_tdesc *wide = back ? &op->in[1] : &op->in[0];
    const sdlora_tdesc *half = back ? &op->in[0] : &op->out[0];
    const uint32_t type = op->out[0].dtype;
    if (!slr_cpu_stored_as(wide, type) || !slr_cpu_stored_as(half, type) ||
        !slr_cpu_stored(&op->out[0]))
        return slr_fail(SDLORA_ENOTSUP, __func__,
                        "cpu: GEGLU takes dense tensors of one type, f32 or bf16");
    if (wide->rank < 1 || wide->rank != half->rank ||
        wide->dim[wide->rank - 1] != 2 * half->dim[half->rank - 1] ||
        slr_cpu_count(wide) != 2 * slr_cpu_count(half) ||
        (back && !slr_cpu_same_shape(wide, &op->out[0])))
        return slr_fail(SDLORA_EINVAL, __func__, "cpu: GEGLU wants [..,2C] beside [..,C]");
    geglu_kernel *k = slr_cpu_kernel_new(env, sizeof *k, back ? geglu_bx_launch : geglu_launch);
    if (!k)
        return SDLORA_ENOMEM;
    k->fns = SLR_CPU_PICK(env, slr_cpu_ew, type);
    k->size = slr_cpu_size(half);
    k->count = slr_cpu_count(half);
    k->n = half->dim[half->rank - 1];
    *out = &k->head;
    return SDLORA_OK;
}

/* --- DROPOUT */

enum { DRAW_BLOCK = 64 }; /* elements per item of the parallel loop: whole counters */

typedef struct dropout_kernel {
    sdlora_kernel head;
    const slr_cpu_ew_fns *fns, *f32;
    int64_t count, group, size;
    uint64_t stream, threshold; /* kept when a word is >= threshold, i.e. word / 2^32 >= p */
    float scale;
} dropout_kernel;

typedef struct dropout_job {
    const dropout_kernel *k;
    const void *x;
    void *y;
    uint32_t key[2];
} dropout_job;

static void dropout_body(void *arg, int64_t lo, int64_t hi)
{
    const dropout_job *j = arg;
    const dropout_kernel *k = j->k;
    int64_t from = lo * DRAW_BLOCK, to = hi * DRAW_BLOCK < k->count ? hi * DRAW_BLOCK : k->count;
    k->fns->dropout((uint64_t)from / 4, to - from, slr_cpu_at(j->y, from, k->size),
                    slr_cpu_at(j->x, from, k->size), j->key, k->stream, k->threshold, k->scale);
}

/* One draw for a run of elements: lo..hi are draws. */
static void dropout_group_body(void *arg, int64_t lo, int64_t hi)
{
    static const float one[4] = {1, 1, 1, 1};
    const dropout_job *j = arg;
    const dropout_kernel *k = j->k;
    for (int64_t d = lo; d < hi; d++) {
        float kept[4];
        int64_t from = d * k->group;
        int64_t n = from + k->group < k->count ? k->group : k->count - from;
        k->f32->dropout((uint64_t)d / 4, d % 4 + 1, kept, one, j->key, k->stream, k->threshold,
                        k->scale);
        k->fns->affine(n, slr_cpu_at(j->y, from, k->size), slr_cpu_at(j->x, from, k->size),
                       kept[d % 4], 0);
    }
}

static int dropout_launch(sdlora_kernel *kernel, const slr_cpu_env *env, void *const *ptr,
                          void *scratch)
{
    const dropout_kernel *k = (const dropout_kernel *)kernel;
    const int32_t *seed = ptr[1];
    dropout_job j = {k, ptr[0], ptr[2], {(uint32_t)seed[0], (uint32_t)seed[1]}};
    if (k->group == 1) {
        slr_cpu_parallel(env, (k->count + DRAW_BLOCK - 1) / DRAW_BLOCK, SLR_CPU_GRAIN / DRAW_BLOCK,
                         dropout_body, &j);
    } else {
        int64_t grain = k->group < SLR_CPU_GRAIN ? SLR_CPU_GRAIN / k->group : 1;
        slr_cpu_parallel(env, (k->count + k->group - 1) / k->group, grain, dropout_group_body, &j);
    }
    return SDLORA_OK;
}

static int dropout_prepare(sdlora_kernel **out, uint64_t *scratch, const slr_cpu_env *env,
                           const sdlora_opdesc *op)
{
    const sdlora_tdesc *x = &op->in[0];
    if (!slr_cpu_stored(x) || !slr_cpu_stored_as(&op->out[0], x->dtype))
        return slr_fail(SDLORA_ENOTSUP, __func__,
                        "cpu: DROPOUT takes dense tensors of one type, f32 or bf16");
    double p = op->reals[0];
    if (!slr_cpu_same_shape(x, &op->out[0]) || op->in[1].dtype != SDLORA_I32 ||
        slr_cpu_count(&op->in[1]) != 2 || !(p >= 0 && p <= 1))
        return slr_fail(SDLORA_EINVAL, __func__,
                        "cpu: DROPOUT wants x, seed[2] of i32 and a chance in [0,1], not %g", p);
    dropout_kernel *k = slr_cpu_kernel_new(env, sizeof *k, dropout_launch);
    if (!k)
        return SDLORA_ENOMEM;
    k->fns = SLR_CPU_PICK(env, slr_cpu_ew, x->dtype);
    k->f32 = SLR_CPU_PICK(env, slr_cpu_ew, SDLORA_F32);
    k->size = slr_cpu_size(x);
    k->count = slr_cpu_count(x);
    k->group = op->n_int > 1 && op->ints[1] > 1 ? op->ints[1] : 1;
    k->stream = (uint64_t)op->ints[0];
    k->threshold = (uint64_t)ceil(ldexp(p, 32));
    k->scale = p < 1 ? (float)(1 / (1 - p)) : 0;
    *out = &k->head;
    return SDLORA_OK;
}

const slr_cpu_row slr_cpu_rows_elementwise[] = {
    {SDLORA_OP_ADD, .prepare = binary_prepare},      {SDLORA_OP_SUB, .prepare = binary_prepare},
    {SDLORA_OP_MUL, .prepare = binary_prepare},      {SDLORA_OP_AFFINE, .prepare = affine_prepare},
    {SDLORA_OP_ACT, .prepare = act_prepare},         {SDLORA_OP_ACT_BX, .prepare = act_bx_prepare},
    {SDLORA_OP_GEGLU, .prepare = geglu_prepare},     {SDLORA_OP_GEGLU_BX, .prepare = geglu_prepare},
    {SDLORA_OP_DROPOUT, .prepare = dropout_prepare}, {0},
};
