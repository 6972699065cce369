/* SPDX-License-Identifier: MIT */
/* EMBED, EMBED_BW and TIME_EMBED.  A frozen table stays in its file's type and place: only the rows
 * that are asked for are converted, to f32 or bf16.  A gradient of a table is f32.  An id outside
 * the table is an error of the launch. */
#include <math.h>
#include <string.h>

#include "backend/cpu/ew.h"
#include "backend/cpu/move.h"
#include "backend/cpu/pack.h"
#include "base/status.h"
#include "tensor/dtype.h"

typedef struct embed_kernel {
    sdlora_kernel head;
    const slr_cpu_ew_fns *fns;
    const slr_dtype_row *type, *rows; /* of the table; of y or dy */
    int64_t count, v, c;
} embed_kernel;

typedef struct embed_job {
    const embed_kernel *k;
    const int32_t *ids;
    const void *table; /* or dy */
    void *y;           /* or dtable */
} embed_job;

enum { RUN = 256 }; /* elements that pass through f32 at once */

static int check_ids(const embed_kernel *k, const int32_t *ids)
{
    for (int64_t i = 0; i < k->count; i++)
        if (ids[i] < 0 || ids[i] >= k->v)
            return slr_fail(SDLORA_EINVAL, __func__, "token id %d is not in the table of %lld rows",
                            (int)ids[i], (long long)k->v);
    return SDLORA_OK;
}

static void convert_row(const slr_dtype_row *to, void *y, const slr_dtype_row *from, const void *x,
                        int64_t n)
{
    float t[RUN];
    if (to == from) {
        memcpy(y, x, (size_t)n * to->size);
    } else if (to->dtype == SDLORA_F32) {
        from->to_f32(y, x, (size_t)n);
    } else {
        for (int64_t i = 0; i < n; i += RUN) {
            size_t m = (size_t)(n - i < RUN ? n - i : RUN);
            from->to_f32(t, slr_cpu_at(x, i, (int64_t)from->size), m);
            to->from_f32(slr_cpu_at(y, i, (int64_t)to->size), t, m);
        }
    }
}

static void embed_body(void *arg, int64_t lo, int64_t hi)
{
    const embed_job *j = arg;
    const embed_kernel *k = j->k;
    for (int64_t i = lo; i < hi; i++)
        convert_row(k->rows, slr_cpu_at(j->y, i * k->c, (int64_t)k->rows->size), k->type,
                    slr_cpu_at(j->table, j->ids[i] * k->c, (int64_t)k->type->size), k->c);
}

static int embed_launch(sdlora_kernel *kernel, const slr_cpu_env *env, void *const *ptr,
                        void *scratch)
{
    const embed_kernel *k = (const embed_kernel *)kernel;
    embed_job j = {k, ptr[0], ptr[1], ptr[2]};
    SLR_TRY(check_ids(k, j.ids));
    int64_t grain = SLR_CPU_GRAIN / k->c;
    slr_cpu_parallel(env, k->count, grain > 0 ? grain : 1, embed_body, &j);
    return SDLORA_OK;
}

enum { COLS = 64 };

/* Columns [from, to), COLS at most, of all rows. */
static void add_columns(const embed_job *j, int64_t from, int64_t to)
{
    const embed_kernel *k = j->k;
    for (int64_t i = 0; i < k->count; i++) {
        float *d = (float *)j->y + j->ids[i] * k->c + from, dy[COLS];
        const void *row = slr_cpu_at(j->table, i * k->c + from, (int64_t)k->rows->size);
        k->rows->to_f32(dy, row, (size_t)(to - from));
        k->fns->binary[SLR_CPU_ADD](to - from, d, d, dy);
    }
}

/* Items are groups of COLS columns: every row is added by one thread, in the order of the ids. */
static void embed_bw_body(void *arg, int64_t lo, int64_t hi)
{
    const embed_job *j = arg;
    for (int64_t i = lo; i < hi; i++)
        add_columns(j, i * COLS, (i + 1) * COLS < j->k->c ? (i + 1) * COLS : j->k->c);
}

static int embed_bw_launch(sdlora_kernel *kernel, const slr_cpu_env *env, void *const *ptr,
                           void *scratch)
{
    const embed_kernel *k = (const embed_kernel *)kernel;
    embed_job j = {k, ptr[0], ptr[1], ptr[2]};
    SLR_TRY(check_ids(k, j.ids));
    int64_t bytes = k->v * k->c * (int64_t)sizeof(float), grain = SLR_CPU_GRAIN / COLS / k->count;
    slr_cpu_copy_rows(env, &(slr_cpu_rows_copy){1, bytes, 0, bytes, NULL, ptr[2]});
    slr_cpu_parallel(env, (k->c + COLS - 1) / COLS, grain > 0 ? grain : 1, embed_bw_body, &j);
    return SDLORA_OK;
}

static int embed_prepare(sdlora_kernel **out, uint64_t *scratch, const slr_cpu_env *env,
                         const sdlora_opdesc *op)
{
    bool back = op->op == SDLORA_OP_EMBED_BW;
    const sdlora_tdesc *ids = &op->in[0], *table = back ? &op->out[0] : &op->in[1];
    const sdlora_tdesc *y = back ? &op->in[1] : &op->out[0];
    const slr_dtype_row *type = slr_dtype(table->dtype);
    if (!type || !type->to_f32 || ids->dtype != SDLORA_I32 || !slr_cpu_dense(ids) ||
        !slr_cpu_stored(y) || !slr_cpu_dense(table) || (back && table->dtype != SDLORA_F32))
        return slr_fail(SDLORA_ENOTSUP, __func__,
                        "cpu: EMBED takes dense i32 ids and gives rows of f32 or bf16");
    if (table->rank != 2 || y->rank < 1 || y->dim[y->rank - 1] != table->dim[1] ||
        slr_cpu_count(y) != slr_cpu_count(ids) * table->dim[1] || slr_cpu_is_frozen(op, 0))
        return slr_fail(SDLORA_EINVAL, __func__, "cpu: EMBED wants ids[..], table[V,C], y[..,C]");
    embed_kernel *k = slr_cpu_kernel_new(env, sizeof *k, back ? embed_bw_launch : embed_launch);
    if (!k)
        return SDLORA_ENOMEM;
    k->fns = SLR_CPU_PICK(env, slr_cpu_ew, SDLORA_F32);
    k->type = type;
    k->rows = slr_dtype(y->dtype);
    k->count = slr_cpu_count(ids);
    k->v = table->dim[0];
    k->c = table->dim[1];
    int rc = slr_cpu_is_frozen(op, 1) ? slr_cpu_freeze(&k->head, op, 1, SLR_PACK_FILE, 1) : 0;
    if (rc < 0) {
        slr_cpu_kernel_free(&k->head);
        return rc;
    }
    *out = &k->head;
    return SDLORA_OK;
}

/* --- TIME_EMBED (Vaswani et al. 2017, with the cosines first) */

typedef struct time_kernel {
    sdlora_kernel head;
    const slr_dtype_row *type;
    int64_t n, c;
} time_kernel;

/* Elements from .. from + n of a row: frequency and angle are rounded to f32 as the frameworks that
 * trained the checkpoints do it: at t = 999 the last bit of an angle is 6e-5, so more exact ones
 * would be other ones. */
static void time_run(float *y, float t, int64_t from, int64_t n, int64_t c)
{
    const float ln = -9.210340371976184f; /* -ln 10000 */
    const int64_t half = c / 2;
    for (int64_t i = 0; i < n; i++) {
        int64_t at = from + i, x = at < half ? at : at - half;
        float exponent = ln * (float)x / (float)half;
        float angle = t * (float)exp((double)exponent);
        y[i] = at < half ? (float)cos((double)angle) : (float)sin((double)angle);
        if (at == 2 * half) /* the last of an odd number */
            y[i] = 0;
    }
}

static int time_launch(sdlora_kernel *kernel, const slr_cpu_env *env, void *const *ptr,
                       void *scratch)
{
    const time_kernel *k = (const time_kernel *)kernel;
    const float *t = ptr[0];
    float run[RUN];
    for (int64_t i = 0; i < k->n; i++)
        for (int64_t x = 0; x < k->c; x += RUN) {
            int64_t n = k->c - x < RUN ? k->c - x : RUN;
            time_run(run, t[i], x, n, k->c);
            k->type->from_f32(slr_cpu_at(ptr[1], i * k->c + x, (int64_t)k->type->size), run,
                              (size_t)n);
        }
    return SDLORA_OK;
}

static int time_prepare(sdlora_kernel **out, uint64_t *scratch, const slr_cpu_env *env,
                        const sdlora_opdesc *op)
{
    const sdlora_tdesc *t = &op->in[0], *y = &op->out[0];
    if (!slr_cpu_f32(t) || !slr_cpu_stored(y))
        return slr_fail(SDLORA_ENOTSUP, __func__,
                        "cpu: TIME_EMBED takes dense f32 and gives dense f32 or bf16");
    if (t->rank != 1 || y->rank != 2 || y->dim[0] != t->dim[0])
        return slr_fail(SDLORA_EINVAL, __func__, "cpu: TIME_EMBED wants t[N] and y[N,C]");
    time_kernel *k = slr_cpu_kernel_new(env, sizeof *k, time_launch);
    if (!k)
        return SDLORA_ENOMEM;
    k->type = slr_dtype(y->dtype);
    k->n = y->dim[0];
    k->c = y->dim[1];
    *out = &k->head;
    return SDLORA_OK;
}

const slr_cpu_row slr_cpu_rows_embed[] = {
    {SDLORA_OP_EMBED, .own_packs = true, .prepare = embed_prepare},
    {SDLORA_OP_EMBED_BW, .prepare = embed_prepare},
    {SDLORA_OP_TIME_EMBED, .prepare = time_prepare},
    {0},
};
