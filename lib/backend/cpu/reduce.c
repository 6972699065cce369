/* SPDX-License-Identifier: MIT */
/* SUM_TO and SUMSQ: long sums are cut into runs that depend on the shape only, runs are added in
 * f32 and their sums joined in double, in order.  So the result is that of one thread.  SUM_TO
 * reads and writes f32 or bf16; between its steps sums are f32. */
#include "backend/cpu/reduce.h"

#include <string.h>

#include "base/status.h"
#include "tensor/dtype.h"

/* --- SUM_TO, as up to three sums [a, r, b] -> [a, b] after neighbouring axes are folded: rank 6
 * has no more summed groups with kept axes between them. */

enum { MAX_STEPS = SDLORA_MAX_RANK / 2, SUM_ROWS = 256, SUM_COLS = 4096 };

typedef struct sum_step {
    int64_t a, r, b;
    int64_t run, runs; /* rows (b > 1) or elements (b == 1) per run */
    int64_t cuts;      /* pieces of SUM_COLS columns, so that few long rows are shared out too */
} sum_step;

typedef struct sum_kernel {
    sdlora_kernel head;
    const slr_cpu_reduce_fns *fns[2]; /* of the first step, and of the others */
    const slr_dtype_row *from, *to;   /* storage of x and y */
    int n_steps;
    sum_step step[MAX_STEPS];
    int64_t part, n_y; /* floats of scratch for run sums; elements of y */
    int64_t temp;      /* floats of each of two scratch blocks between steps */
} sum_kernel;

typedef struct sum_job {
    const sum_kernel *k;
    const slr_cpu_reduce_fns *fns;
    const sum_step *s;
    const void *x;
    int64_t size;    /* bytes of an element of x */
    float *y, *part; /* part[a][runs][b] */
} sum_job;

typedef struct copy_job {
    const slr_dtype_row *from, *to;
    const void *x;
    void *y;
} copy_job;

/* Between f32 and bf16, either way or neither. */
static void copy_body(void *arg, int64_t lo, int64_t hi)
{
    const copy_job *j = arg;
    const void *x = slr_cpu_at(j->x, lo, (int64_t)j->from->size);
    void *y = slr_cpu_at(j->y, lo, (int64_t)j->to->size);
    size_t n = (size_t)(hi - lo);
    if (j->from == j->to)
        memcpy(y, x, n * j->from->size);
    else if (j->from->dtype == SDLORA_F32)
        j->to->from_f32(y, x, n);
    else
        j->from->to_f32(y, x, n);
}

static void runs_body(void *arg, int64_t lo, int64_t hi)
{
    const sum_job *j = arg;
    const sum_step *s = j->s;
    float *to = s->runs > 1 ? j->part : j->y;
    for (int64_t i = lo; i < hi; i++) {
        int64_t run = i / s->cuts, col = i % s->cuts * SUM_COLS;
        int64_t at = run % s->runs * s->run, n = s->r - at < s->run ? s->r - at : s->run;
        const void *x = slr_cpu_at(j->x, (run / s->runs * s->r + at) * s->b + col, j->size);
        int64_t c = s->b - col < SUM_COLS ? s->b - col : SUM_COLS;
        if (s->b == 1)
            to[run] = j->fns->sum(n, x);
        else
            j->fns->sum_rows(n, c, s->b, x, to + run * s->b + col);
    }
}

static void join_body(void *arg, int64_t lo, int64_t hi)
{
    const sum_job *j = arg;
    const sum_step *s = j->s;
    for (int64_t i = lo; i < hi; i++) {
        const float *p = j->part + i / s->b * s->runs * s->b + i % s->b;
        double sum = 0;
        for (int64_t r = 0; r < s->runs; r++)
            sum += p[r * s->b];
        j->y[i] = (float)sum;
    }
}

static void run_step(const slr_cpu_env *env, sum_job *j)
{
    const sum_step *s = j->s;
    int64_t cols = s->b < SUM_COLS ? s->b : SUM_COLS;
    int64_t work = (s->r < s->run ? s->r : s->run) * cols, grain = SLR_CPU_GRAIN / work;
    slr_cpu_parallel(env, s->a * s->runs * s->cuts, grain > 0 ? grain : 1, runs_body, j);
    if (s->runs > 1) {
        grain = SLR_CPU_GRAIN / s->runs;
        slr_cpu_parallel(env, s->a * s->b, grain > 0 ? grain : 1, join_body, j);
    }
}

static int sum_launch(sdlora_kernel *kernel, const slr_cpu_env *env, void *const *ptr,
                      void *scratch)
{
    const sum_kernel *k = (const sum_kernel *)kernel;
    const slr_dtype_row *f32 = slr_dtype(SDLORA_F32);
    float *part = scratch, *temp[2] = {part + k->part, part + k->part + k->temp};
    copy_job last = {k->from, k->to, ptr[0], ptr[1]};
    for (int i = 0; i < k->n_steps; i++) {
        bool direct = i + 1 == k->n_steps && k->to == f32;
        sum_job j = {k,
                     k->fns[i > 0],
                     &k->step[i],
                     last.x,
                     (int64_t)last.from->size,
                     direct ? ptr[1] : temp[i % 2],
                     part};
        run_step(env, &j);
        last.x = j.y;
        last.from = f32;
    }
    if (last.x != last.y)
        slr_cpu_parallel(env, k->n_y, SLR_CPU_GRAIN, copy_body, &last);
    return SDLORA_OK;
}

/* The next summed group of axes, from the last axis on, as a step; removes it from `dim`. */
static bool next_step(sum_step *s, int64_t *dim, const sdlora_tdesc *y, int rank)
{
    int hi = rank - 1;
    *s = (sum_step){1, 1, 1, 0, 1, 1};
    for (; hi >= 0 && !(y->dim[hi] == 1 && dim[hi] > 1); hi--)
        s->b *= dim[hi];
    if (hi < 0)
        return false;
    for (; hi >= 0 && y->dim[hi] == 1; hi--) {
        s->r *= dim[hi];
        dim[hi] = 1;
    }
    for (; hi >= 0; hi--)
        s->a *= dim[hi];
    int64_t rows = SLR_CPU_GRAIN / s->b;
    s->run = s->b == 1 ? SLR_CPU_SUM_RUN : rows < 16 ? 16 : rows > SUM_ROWS ? SUM_ROWS : rows;
    s->runs = (s->r + s->run - 1) / s->run;
    s->cuts = (s->b + SUM_COLS - 1) / SUM_COLS;
    return true;
}

static int sum_prepare(sdlora_kernel **out, uint64_t *scratch, const slr_cpu_env *env,
                       const sdlora_opdesc *op)
{
    const sdlora_tdesc *x = &op->in[0], *y = &op->out[0];
    if (!slr_cpu_stored(x) || !slr_cpu_stored(y))
        return slr_fail(SDLORA_ENOTSUP, __func__, "cpu: SUM_TO takes dense tensors of f32 or bf16");
    bool fits = x->rank == y->rank;
    for (uint32_t i = 0; fits && i < x->rank; i++)
        fits = y->dim[i] == x->dim[i] || y->dim[i] == 1;
    if (!fits)
        return slr_fail(SDLORA_EINVAL, __func__,
                        "cpu: SUM_TO wants an output whose axes are those of the input or 1");
    sum_kernel *k = slr_cpu_kernel_new(env, sizeof *k, sum_launch);
    if (!k)
        return SDLORA_ENOMEM;
    k->fns[0] = SLR_CPU_PICK(env, slr_cpu_reduce, x->dtype);
    k->fns[1] = SLR_CPU_PICK(env, slr_cpu_reduce, SDLORA_F32);
    k->from = slr_dtype(x->dtype);
    k->to = slr_dtype(y->dtype);
    k->n_y = slr_cpu_count(y);
    int64_t dim[SDLORA_MAX_RANK];
    memcpy(dim, x->dim, sizeof dim);
    for (sum_step s; k->n_steps < MAX_STEPS && next_step(&s, dim, y, (int)x->rank);) {
        int64_t part = s.runs > 1 ? s.a * s.runs * s.b : 0;
        k->part = part > k->part ? part : k->part;
        k->temp = s.a * s.b > k->temp ? s.a * s.b : k->temp;
        k->step[k->n_steps++] = s;
    }
    if (k->n_steps < 2 && y->dtype == SDLORA_F32)
        k->temp = 0;
    *scratch = (uint64_t)(k->part + 2 * k->temp) * sizeof(float);
    *out = &k->head;
    return SDLORA_OK;
}

/* --- SUMSQ */

typedef struct sumsq_kernel {
    sdlora_kernel head;
    const slr_cpu_reduce_fns *fns;
    int64_t count, runs;
} sumsq_kernel;

typedef struct sumsq_job {
    const sumsq_kernel *k;
    const float *x;
    float *part;
} sumsq_job;

static void sumsq_body(void *arg, int64_t lo, int64_t hi)
{
    const sumsq_job *j = arg;
    for (int64_t i = lo; i < hi; i++) {
        int64_t at = i * SLR_CPU_SUM_RUN, n = j->k->count - at;
        j->part[i] = j->k->fns->sumsq(n < SLR_CPU_SUM_RUN ? n : SLR_CPU_SUM_RUN, j->x + at);
    }
}

static int sumsq_launch(sdlora_kernel *kernel, const slr_cpu_env *env, void *const *ptr,
                        void *scratch)
{
    const sumsq_kernel *k = (const sumsq_kernel *)kernel;
    sumsq_job j = {k, ptr[0], scratch};
    slr_cpu_parallel(env, k->runs, SLR_CPU_GRAIN / SLR_CPU_SUM_RUN, sumsq_body, &j);
    double sum = 0;
    for (int64_t i = 0; i < k->runs; i++)
        sum += j.part[i];
    *(float *)ptr[1] = (float)sum;
    return SDLORA_OK;
}

static int sumsq_prepare(sdlora_kernel **out, uint64_t *scratch, const slr_cpu_env *env,
                         const sdlora_opdesc *op)
{
    if (!slr_cpu_f32(&op->in[0]) || !slr_cpu_f32(&op->out[0]) || slr_cpu_count(&op->out[0]) != 1)
        return slr_fail(SDLORA_ENOTSUP, __func__,
                        "cpu: SUMSQ takes a dense f32 tensor, gives one f32");
    sumsq_kernel *k = slr_cpu_kernel_new(env, sizeof *k, sumsq_launch);
    if (!k)
        return SDLORA_ENOMEM;
    k->fns = SLR_CPU_PICK(env, slr_cpu_reduce, SDLORA_F32);
    k->count = slr_cpu_count(&op->in[0]);
    k->runs = (k->count + SLR_CPU_SUM_RUN - 1) / SLR_CPU_SUM_RUN;
    *scratch = (uint64_t)k->runs * sizeof(float);
    *out = &k->head;
    return SDLORA_OK;
}

const slr_cpu_row slr_cpu_rows_reduce[] = {
    {SDLORA_OP_SUM_TO, .prepare = sum_prepare},
    {SDLORA_OP_SUMSQ, .prepare = sumsq_prepare},
    {0},
};
