/* SPDX-License-Identifier: MIT */
/* SLICE SLICE_BX CONCAT PERMUTE CAST FILL: operations that move elements of any type.  Knows
 * strides and storage types; refuses to compute. */
#include "backend/cpu/move.h"

#include <string.h>

#include "backend/cpu/ew.h"
#include "backend/cpu/pack.h"
#include "base/status.h"
#include "tensor/dtype.h"

/* --- copies of rows: a flat range of bytes is dealt out, so that few long rows are shared too */

static void copy_body(void *arg, int64_t lo, int64_t hi)
{
    const slr_cpu_rows_copy *c = arg;
    while (lo < hi) {
        int64_t row = lo / c->bytes, at = lo % c->bytes;
        int64_t n = c->bytes - at < hi - lo ? c->bytes - at : hi - lo;
        unsigned char *dst = c->dst + row * c->dst_pitch + at;
        if (c->src)
            memcpy(dst, c->src + row * c->src_pitch + at, (size_t)n);
        else
            memset(dst, 0, (size_t)n);
        lo += n;
    }
}

void slr_cpu_copy_rows(const slr_cpu_env *env, const slr_cpu_rows_copy *copy)
{
    if (copy->rows > 0 && copy->bytes > 0)
        slr_cpu_parallel(env, copy->rows * copy->bytes, SLR_CPU_COPY_GRAIN, copy_body,
                         (void *)(uintptr_t)copy);
}

/* Frozen inputs are moved as the bytes that they are in their file. */
static int keep_type(sdlora_kernel *k, const sdlora_opdesc *op)
{
    for (uint32_t i = 0; i < op->n_in; i++)
        if (slr_cpu_is_frozen(op, i))
            SLR_TRY(slr_cpu_freeze(k, op, i, SLR_PACK_FILE, 1));
    return SDLORA_OK;
}

/* Hands a kernel out, or frees it. */
static int finish(sdlora_kernel **out, sdlora_kernel *k, const sdlora_opdesc *op)
{
    int rc = keep_type(k, op);
    if (rc < 0)
        slr_cpu_kernel_free(k);
    else
        *out = k;
    return rc;
}

/* Product of the axes after `axis`, in bytes of t's type. */
static int64_t inner_bytes(const sdlora_tdesc *t, int64_t axis)
{
    int64_t n = (int64_t)slr_dtype_size(t->dtype);
    for (uint32_t x = (uint32_t)axis + 1; x < t->rank; x++)
        n *= t->dim[x];
    return n;
}

/* Dense, of a known type, and equal to `like` on all axes but one. */
static int check_beside(const sdlora_tdesc *t, const sdlora_tdesc *like, int64_t axis,
                        const char *name)
{
    if (!slr_dtype_size(t->dtype) || t->dtype != like->dtype || !slr_cpu_dense(t) ||
        !slr_cpu_dense(like))
        return slr_fail(SDLORA_ENOTSUP, __func__, "cpu: %s takes dense tensors of one type", name);
    bool fits = t->rank == like->rank && axis >= 0 && axis < (int64_t)t->rank;
    for (uint32_t x = 0; fits && x < t->rank; x++)
        fits = x == axis || t->dim[x] == like->dim[x];
    return fits ? SDLORA_OK
                : slr_fail(SDLORA_EINVAL, __func__,
                           "cpu: the shapes of a %s differ on another axis than %lld", name,
                           (long long)axis);
}

/* --- SLICE, SLICE_BX, CONCAT.  A part is `bytes` of every row of the whole, at byte `at`. */

typedef struct part_kernel {
    sdlora_kernel head;
    int64_t rows, pitch; /* of the whole */
    int64_t at;          /* of the only part of a slice; CONCAT's parts lie one after another */
    int64_t bytes[];     /* of each part */
} part_kernel;

static int slice_launch(sdlora_kernel *kernel, const slr_cpu_env *env, void *const *ptr,
                        void *scratch)
{
    const part_kernel *k = (const part_kernel *)kernel;
    const unsigned char *src = ptr[0];
    slr_cpu_copy_rows(env, &(slr_cpu_rows_copy){k->rows, k->bytes[0], k->pitch, k->bytes[0],
                                                src + k->at, ptr[1]});
    return SDLORA_OK;
}

static int slice_bx_launch(sdlora_kernel *kernel, const slr_cpu_env *env, void *const *ptr,
                           void *scratch)
{
    const part_kernel *k = (const part_kernel *)kernel;
    unsigned char *dst = ptr[1];
    int64_t after = k->at + k->bytes[0];
    slr_cpu_copy_rows(env, &(slr_cpu_rows_copy){k->rows, k->at, 0, k->pitch, NULL, dst});
    slr_cpu_copy_rows(env, &(slr_cpu_rows_copy){k->rows, k->bytes[0], k->bytes[0], k->pitch, ptr[0],
                                                dst + k->at});
    slr_cpu_copy_rows(
        env, &(slr_cpu_rows_copy){k->rows, k->pitch - after, 0, k->pitch, NULL, dst + after});
    return SDLORA_OK;
}

static int concat_launch(sdlora_kernel *kernel, const slr_cpu_env *env, void *const *ptr,
                         void *scratch)
{
    const part_kernel *k = (const part_kernel *)kernel;
    unsigned char *dst = ptr[k->head.n_in];
    for (uint32_t i = 0; i < k->head.n_in; i++) {
        slr_cpu_copy_rows(
            env, &(slr_cpu_rows_copy){k->rows, k->bytes[i], k->bytes[i], k->pitch, ptr[i], dst});
        dst += k->bytes[i];
    }
    return SDLORA_OK;
}

static part_kernel *
part_new(const slr_cpu_env *env, const sdlora_tdesc *whole, int64_t axis, uint32_t n_parts,
         int (*launch)(sdlora_kernel *, const slr_cpu_env *, void *const *, void *))
{
    part_kernel *k = slr_cpu_kernel_new(env, sizeof *k + n_parts * sizeof k->bytes[0], launch);
    if (!k)
        return NULL;
    k->pitch = whole->dim[axis] * inner_bytes(whole, axis);
    k->rows = 1;
    for (int64_t x = 0; x < axis; x++)
        k->rows *= whole->dim[x];
    return k;
}

static int slice_prepare(sdlora_kernel **out, uint64_t *scratch, const slr_cpu_env *env,
                         const sdlora_opdesc *op)
{
    bool back = op->op == SDLORA_OP_SLICE_BX;
    const sdlora_tdesc *whole = back ? &op->out[0] : &op->in[0];
    const sdlora_tdesc *part = back ? &op->in[0] : &op->out[0];
    int64_t axis = op->ints[0], start = op->ints[1];
    SLR_TRY(check_beside(part, whole, axis, "SLICE"));
    if (start < 0 || start > whole->dim[axis] - part->dim[axis])
        return slr_fail(SDLORA_EINVAL, __func__,
                        "cpu: SLICE of %lld from %lld leaves the axis of %lld",
                        (long long)part->dim[axis], (long long)start, (long long)whole->dim[axis]);
    part_kernel *k = part_new(env, whole, axis, 1, back ? slice_bx_launch : slice_launch);
    if (!k)
        return SDLORA_ENOMEM;
    k->at = start * inner_bytes(whole, axis);
    k->bytes[0] = part->dim[axis] * inner_bytes(whole, axis);
    return finish(out, &k->head, op);
}

static int concat_prepare(sdlora_kernel **out, uint64_t *scratch, const slr_cpu_env *env,
                          const sdlora_opdesc *op)
{
    int64_t axis = op->ints[0], sum = 0;
    for (uint32_t i = 0; i < op->n_in; i++) {
        SLR_TRY(check_beside(&op->in[i], &op->out[0], axis, "CONCAT"));
        sum += op->in[i].dim[axis];
    }
    if (sum != op->out[0].dim[axis])
        return slr_fail(SDLORA_EINVAL, __func__, "cpu: the parts of a CONCAT make %lld, not %lld",
                        (long long)sum, (long long)op->out[0].dim[axis]);
    part_kernel *k = part_new(env, &op->out[0], axis, op->n_in, concat_launch);
    if (!k)
        return SDLORA_ENOMEM;
    for (uint32_t i = 0; i < op->n_in; i++)
        k->bytes[i] = op->in[i].dim[axis] * inner_bytes(&op->out[0], axis);
    return finish(out, &k->head, op);
}

/* --- PERMUTE.  Axes that stay neighbours are joined; then either the last axis stays last, and
 * rows are copied, or squares of TILE x TILE are turned between the two sides' last axes. */

enum { TILE = 32, MAX = SDLORA_MAX_RANK };

typedef struct permute_kernel {
    sdlora_kernel head;
    int64_t size;                /* bytes of an element, or of a row that stays whole */
    int n;                       /* axes of y */
    int64_t dim[MAX], step[MAX]; /* of y; steps in x, in elements */
    int fast; /* the axis of y whose step in x is 1; n - 1 when rows are copied */
    int64_t items, grain;
} permute_kernel;

typedef struct permute_job {
    const permute_kernel *k;
    const unsigned char *x;
    unsigned char *y;
} permute_job;

static void gather_row(int64_t n, int64_t size, unsigned char *y, const unsigned char *x,
                       int64_t step)
{
    for (int64_t i = 0; i < n; i++)
        memcpy(y + i * size, x + i * step * size, (size_t)size);
}

/* y's last axis by rows: items are rows. */
static void rows_body(void *arg, int64_t lo, int64_t hi)
{
    const permute_job *j = arg;
    const permute_kernel *k = j->k;
    int64_t n = k->dim[k->n - 1];
    for (int64_t i = lo; i < hi; i++) {
        int64_t from = 0, rest = i;
        for (int a = k->n - 2; a >= 0; rest /= k->dim[a--])
            from += rest % k->dim[a] * k->step[a];
        gather_row(n, k->size, j->y + i * n * k->size, j->x + from * k->size, k->step[k->n - 1]);
    }
}

/* Through a square of our own: the columns of x may be a power of two apart, and would push each
 * other out of the cache.  x may have any alignment. */
#define TURN(type)                                                                                 \
    static void turn_##type(int64_t rows, int64_t cols, unsigned char *y, int64_t y_step,          \
                            const unsigned char *x, int64_t x_step)                                \
    {                                                                                              \
        const int64_t size = sizeof(type);                                                         \
        type square[TILE][TILE];                                                                   \
        for (int64_t c = 0; c < cols; c++)                                                         \
            for (int64_t r = 0; r < rows; r++)                                                     \
                memcpy(&square[r][c], x + (c * x_step + r) * size, sizeof(type));                  \
        for (int64_t r = 0; r < rows; r++)                                                         \
            memcpy(y + r * y_step * size, square[r], (size_t)(cols * size));                       \
    }
TURN(uint8_t)
TURN(uint16_t)
TURN(uint32_t)
TURN(uint64_t)

/* By element size. */
static void (*const turn[])(int64_t, int64_t, unsigned char *, int64_t, const unsigned char *,
                            int64_t) = {
    [1] = turn_uint8_t, [2] = turn_uint16_t, [4] = turn_uint32_t, [8] = turn_uint64_t};

/* Items are bands of TILE positions on axis `fast`, for each place of the axes that are neither it
 * nor the last; a band is walked along the last axis. */
static void turn_body(void *arg, int64_t lo, int64_t hi)
{
    const permute_job *j = arg;
    const permute_kernel *k = j->k;
    int64_t n_fast = k->dim[k->fast], last = k->dim[k->n - 1], bands = (n_fast + TILE - 1) / TILE;
    for (int64_t i = lo; i < hi; i++) {
        int64_t f = i % bands * TILE, rest = i / bands, from = f, to = 0, y_step = last, step = 1;
        for (int a = k->n - 1; a >= 0; step *= k->dim[a--]) {
            if (a == k->fast) {
                y_step = step;
                to += f * step;
            } else if (a < k->n - 1) {
                from += rest % k->dim[a] * k->step[a];
                to += rest % k->dim[a] * step;
                rest /= k->dim[a];
            }
        }
        int64_t rows = n_fast - f < TILE ? n_fast - f : TILE;
        for (int64_t c = 0; c < last; c += TILE)
            turn[k->size](rows, last - c < TILE ? last - c : TILE, j->y + (to + c) * k->size,
                          y_step, j->x + (from + c * k->step[k->n - 1]) * k->size,
                          k->step[k->n - 1]);
    }
}

static int permute_launch(sdlora_kernel *kernel, const slr_cpu_env *env, void *const *ptr,
                          void *scratch)
{
    const permute_kernel *k = (const permute_kernel *)kernel;
    permute_job j = {k, ptr[0], ptr[1]};
    slr_cpu_parallel(env, k->items, k->grain, k->fast == k->n - 1 ? rows_body : turn_body, &j);
    return SDLORA_OK;
}

/* y's axes with their steps in x; joins those that are neighbours on both sides. */
static void join_axes(permute_kernel *k, const sdlora_tdesc *x, const sdlora_tdesc *y,
                      const int64_t *order)
{
    int64_t step[MAX], s = 1;
    for (uint32_t a = x->rank; a-- > 0; s *= x->dim[a])
        step[a] = s;
    for (uint32_t a = 0; a < y->rank; a++) {
        if (y->dim[a] == 1)
            continue;
        if (k->n > 0 && k->step[k->n - 1] == step[order[a]] * y->dim[a]) {
            k->dim[k->n - 1] *= y->dim[a];
            k->step[k->n - 1] = step[order[a]];
        } else {
            k->dim[k->n] = y->dim[a];
            k->step[k->n++] = step[order[a]];
        }
    }
    if (k->n == 0) {
        k->dim[0] = k->step[0] = 1;
        k->n = 1;
    }
}

/* A last axis that stays last becomes part of the element. */
static void plan_permute(permute_kernel *k, int64_t count)
{
    if (k->step[k->n - 1] == 1) {
        int64_t n = k->dim[k->n - 1];
        k->size *= n;
        count /= n;
        for (int a = 0; a < k->n - 1; a++)
            k->step[a] /= n;
        k->dim[k->n - 1] = 1;
        if (k->n > 1)
            k->n--;
        k->fast = k->n - 1;
    } else {
        for (int a = 0; a < k->n; a++)
            if (k->step[a] == 1)
                k->fast = a;
    }
    int64_t last = k->dim[k->n - 1], work = last * k->size;
    k->items = count / last;
    if (k->fast != k->n - 1) {
        k->items = k->items / k->dim[k->fast] * ((k->dim[k->fast] + TILE - 1) / TILE);
        work *= TILE;
    }
    k->grain = SLR_CPU_COPY_GRAIN / 2 / work > 0 ? SLR_CPU_COPY_GRAIN / 2 / work : 1;
}

static int permute_prepare(sdlora_kernel **out, uint64_t *scratch, const slr_cpu_env *env,
                           const sdlora_opdesc *op)
{
    const sdlora_tdesc *x = &op->in[0], *y = &op->out[0];
    size_t size = slr_dtype_size(x->dtype);
    if (!size || y->dtype != x->dtype || !slr_cpu_dense(x) || !slr_cpu_dense(y))
        return slr_fail(SDLORA_ENOTSUP, __func__, "cpu: PERMUTE takes dense tensors of one type");
    bool fits = x->rank == y->rank && op->n_int >= x->rank, seen[MAX] = {false};
    for (uint32_t a = 0; fits && a < y->rank; a++) {
        int64_t o = op->ints[a];
        fits = o >= 0 && o < (int64_t)x->rank && !seen[o] && y->dim[a] == x->dim[o];
        if (fits)
            seen[o] = true;
    }
    if (!fits)
        return slr_fail(SDLORA_EINVAL, __func__,
                        "cpu: the order of a PERMUTE does not give its output's shape");
    permute_kernel *k = slr_cpu_kernel_new(env, sizeof *k, permute_launch);
    if (!k)
        return SDLORA_ENOMEM;
    k->size = (int64_t)size;
    join_axes(k, x, y, op->ints);
    plan_permute(k, slr_cpu_count(y));
    return finish(out, &k->head, op);
}

/* --- CAST, by f32 through the rows of tensor/dtype.h; integers of one type are copied */

typedef struct cast_kernel {
    sdlora_kernel head;
    const slr_dtype_row *from, *to;
    int64_t count;
    double value; /* of FILL */
} cast_kernel;

typedef struct cast_job {
    const cast_kernel *k;
    const unsigned char *x;
    unsigned char *y;
} cast_job;

enum { CAST_RUN = 1024 };

static void cast_body(void *arg, int64_t lo, int64_t hi)
{
    const cast_job *j = arg;
    const cast_kernel *k = j->k;
    const unsigned char *x = j->x + lo * (int64_t)k->from->size;
    unsigned char *y = j->y + lo * (int64_t)k->to->size;
    for (int64_t i = lo; i < hi; i += CAST_RUN) {
        float t[CAST_RUN];
        int64_t n = hi - i < CAST_RUN ? hi - i : CAST_RUN;
        if (k->to->dtype == SDLORA_F32) {
            k->from->to_f32((float *)y, x, (size_t)n);
        } else if (k->from->dtype == SDLORA_F32 && (uintptr_t)x % sizeof(float) == 0) {
            k->to->from_f32(y, (const float *)x, (size_t)n);
        } else {
            k->from->to_f32(t, x, (size_t)n);
            k->to->from_f32(y, t, (size_t)n);
        }
        x += n * (int64_t)k->from->size;
        y += n * (int64_t)k->to->size;
    }
}

static int cast_launch(sdlora_kernel *kernel, const slr_cpu_env *env, void *const *ptr,
                       void *scratch)
{
    const cast_kernel *k = (const cast_kernel *)kernel;
    cast_job j = {k, ptr[0], ptr[1]};
    int64_t bytes = k->count * (int64_t)k->to->size;
    if (k->from == k->to)
        slr_cpu_copy_rows(env, &(slr_cpu_rows_copy){1, bytes, bytes, bytes, j.x, j.y});
    else
        slr_cpu_parallel(env, k->count, SLR_CPU_GRAIN, cast_body, &j);
    return SDLORA_OK;
}

static int cast_prepare(sdlora_kernel **out, uint64_t *scratch, const slr_cpu_env *env,
                        const sdlora_opdesc *op)
{
    const slr_dtype_row *from = slr_dtype(op->in[0].dtype), *to = slr_dtype(op->out[0].dtype);
    if (!from || !to || (from != to && (!from->to_f32 || !to->from_f32)) ||
        !slr_cpu_dense(&op->in[0]) || !slr_cpu_dense(&op->out[0]))
        return slr_fail(SDLORA_ENOTSUP, __func__, "cpu: no CAST from %s to %s",
                        from ? from->name : "?", to ? to->name : "?");
    if (!slr_cpu_same_shape(&op->in[0], &op->out[0]))
        return slr_fail(SDLORA_EINVAL, __func__, "cpu: the shapes of a CAST differ");
    cast_kernel *k = slr_cpu_kernel_new(env, sizeof *k, cast_launch);
    if (!k)
        return SDLORA_ENOMEM;
    k->from = from;
    k->to = to;
    k->count = slr_cpu_count(&op->in[0]);
    *out = &k->head;
    return SDLORA_OK;
}

/* --- FILL */

static void fill_body(void *arg, int64_t lo, int64_t hi)
{
    const cast_job *j = arg;
    unsigned char one[8];
    float value = (float)j->k->value;
    int64_t size = (int64_t)j->k->to->size;
    j->k->to->from_f32(one, &value, 1);
    unsigned char *y = j->y + lo * size;
    if (value == 0) {
        memset(y, 0, (size_t)((hi - lo) * size));
        return;
    }
    memcpy(y, one, (size_t)size);
    for (int64_t done = 1, n = hi - lo; done < n; done *= 2) /* doubling what stands */
        memcpy(y + done * size, y, (size_t)((n - done < done ? n - done : done) * size));
}

static int fill_launch(sdlora_kernel *kernel, const slr_cpu_env *env, void *const *ptr,
                       void *scratch)
{
    const cast_kernel *k = (const cast_kernel *)kernel;
    cast_job j = {k, NULL, ptr[k->head.n_in]};
    slr_cpu_parallel(env, k->count, SLR_CPU_GRAIN, fill_body, &j);
    return SDLORA_OK;
}

static int fill_prepare(sdlora_kernel **out, uint64_t *scratch, const slr_cpu_env *env,
                        const sdlora_opdesc *op)
{
    const slr_dtype_row *to = slr_dtype(op->out[0].dtype);
    if (!to || !to->from_f32 || !slr_cpu_dense(&op->out[0]))
        return slr_fail(SDLORA_ENOTSUP, __func__, "cpu: no FILL of %s", to ? to->name : "?");
    cast_kernel *k = slr_cpu_kernel_new(env, sizeof *k, fill_launch);
    if (!k)
        return SDLORA_ENOMEM;
    k->to = to;
    k->count = slr_cpu_count(&op->out[0]);
    k->value = op->reals[0];
    *out = &k->head;
    return SDLORA_OK;
}

const slr_cpu_row slr_cpu_rows_move[] = {
    {SDLORA_OP_SLICE, .own_packs = true, .prepare = slice_prepare},
    {SDLORA_OP_SLICE_BX, .own_packs = true, .prepare = slice_prepare},
    {SDLORA_OP_CONCAT, .own_packs = true, .prepare = concat_prepare},
    {SDLORA_OP_PERMUTE, .own_packs = true, .prepare = permute_prepare},
    {SDLORA_OP_CAST, .prepare = cast_prepare},
    {SDLORA_OP_FILL, .prepare = fill_prepare},
    {0},
};
