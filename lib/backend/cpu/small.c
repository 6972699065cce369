/* SPDX-License-Identifier: MIT */
/* POW, INVERSE, and whatever else works on tensors so small that only its correctness counts: norms
 * of rows, matrices of a rank.  Plain C in double, f32 in and out.  Refuses to know what they are
 * for.
 */
#include <math.h>

#include "backend/cpu/cpu.h"
#include "base/status.h"

enum { ELEMENTS_PER_PIECE = 4096 };

typedef struct pow_kernel {
    sdlora_kernel head;
    int64_t n;
    double p;
} pow_kernel;

typedef struct pow_job {
    const pow_kernel *k;
    const float *x;
    float *y;
} pow_job;

static void pow_body(void *arg, int64_t lo, int64_t hi)
{
    const pow_job *j = arg;
    for (int64_t i = lo; i < hi; i++)
        j->y[i] = (float)pow((double)j->x[i], j->k->p);
}

static int pow_launch(sdlora_kernel *kernel, const slr_cpu_env *env, void *const *ptr,
                      void *scratch)
{
    pow_job j = {(const pow_kernel *)kernel, ptr[0], ptr[1]};
    slr_cpu_parallel(env, j.k->n, ELEMENTS_PER_PIECE, pow_body, &j);
    return SDLORA_OK;
}

static int pow_prepare(sdlora_kernel **out, uint64_t *scratch, const slr_cpu_env *env,
                       const sdlora_opdesc *op)
{
    if (!slr_cpu_f32(&op->in[0]) || !slr_cpu_f32(&op->out[0]))
        return slr_fail(SDLORA_ENOTSUP, __func__, "cpu: POW takes dense f32 and gives dense f32");
    pow_kernel *k = slr_cpu_kernel_new(env, sizeof *k, pow_launch);
    if (!k)
        return SDLORA_ENOMEM;
    k->n = slr_cpu_count(&op->out[0]);
    k->p = op->reals[0];
    *out = &k->head;
    return SDLORA_OK;
}

/* --- INVERSE: Gauss and Jordan's in place, pivots by the largest of a column, each matrix on one
 * thread. */

typedef struct inverse_kernel {
    sdlora_kernel head;
    int64_t batch, n;
} inverse_kernel;

typedef struct inverse_job {
    const inverse_kernel *k;
    const float *x;
    float *y;
    double *a;     /* [batch, n, n] */
    int64_t *from; /* [batch, n]: the row that came to place k */
} inverse_job;

static void swap_rows(double *a, double *b, int64_t n)
{
    for (int64_t j = 0; j < n; j++) {
        double v = a[j];
        a[j] = b[j];
        b[j] = v;
    }
}

/* One step: column k of what is left of x becomes column k of what there is of the inverse. */
static void eliminate(int64_t n, int64_t k, double *a)
{
    double *row = a + k * n, scale = 1.0 / row[k];
    row[k] = 1.0;
    for (int64_t j = 0; j < n; j++)
        row[j] *= scale;
    for (int64_t i = 0; i < n; i++) {
        double *to = a + i * n, by = to[k];
        if (i == k || by == 0)
            continue;
        to[k] = 0;
        for (int64_t j = 0; j < n; j++)
            to[j] -= by * row[j];
    }
}

/* Rows were exchanged on the way in, so columns are on the way out.  False: no inverse. */
static bool invert(int64_t n, double *a, int64_t *from)
{
    for (int64_t k = 0; k < n; k++) {
        from[k] = k;
        for (int64_t i = k + 1; i < n; i++)
            if (fabs(a[i * n + k]) > fabs(a[from[k] * n + k]))
                from[k] = i;
        if (!(fabs(a[from[k] * n + k]) > 0))
            return false;
        if (from[k] != k)
            swap_rows(a + k * n, a + from[k] * n, n);
        eliminate(n, k, a);
    }
    for (int64_t k = n; k-- > 0;)
        for (int64_t i = 0; from[k] != k && i < n; i++) {
            double v = a[i * n + k];
            a[i * n + k] = a[i * n + from[k]];
            a[i * n + from[k]] = v;
        }
    return true;
}

static void inverse_body(void *arg, int64_t lo, int64_t hi)
{
    const inverse_job *j = arg;
    int64_t n = j->k->n;
    for (int64_t b = lo; b < hi; b++) {
        double *a = j->a + b * n * n;
        for (int64_t i = 0; i < n * n; i++)
            a[i] = (double)j->x[b * n * n + i];
        bool good = invert(n, a, j->from + b * n);
        for (int64_t i = 0; i < n * n; i++)
            j->y[b * n * n + i] = good ? (float)a[i] : NAN;
    }
}

static int inverse_launch(sdlora_kernel *kernel, const slr_cpu_env *env, void *const *ptr,
                          void *scratch)
{
    const inverse_kernel *k = (const inverse_kernel *)kernel;
    inverse_job j = {k, ptr[0], ptr[1], scratch, NULL};
    j.from = (int64_t *)(j.a + k->batch * k->n * k->n);
    int64_t grain = ELEMENTS_PER_PIECE / (k->n * k->n * k->n);
    slr_cpu_parallel(env, k->batch, grain > 0 ? grain : 1, inverse_body, &j);
    return SDLORA_OK;
}

static int inverse_prepare(sdlora_kernel **out, uint64_t *scratch, const slr_cpu_env *env,
                           const sdlora_opdesc *op)
{
    const sdlora_tdesc *x = &op->in[0];
    if (!slr_cpu_f32(x) || !slr_cpu_f32(&op->out[0]))
        return slr_fail(SDLORA_ENOTSUP, __func__,
                        "cpu: INVERSE takes dense f32 and gives dense f32");
    if (x->rank != 3 || x->dim[1] != x->dim[2] || !slr_cpu_same_shape(x, &op->out[0]))
        return slr_fail(SDLORA_EINVAL, __func__, "cpu: INVERSE takes square matrices [B,N,N]");
    inverse_kernel *k = slr_cpu_kernel_new(env, sizeof *k, inverse_launch);
    if (!k)
        return SDLORA_ENOMEM;
    k->batch = x->dim[0];
    k->n = x->dim[1];
    *scratch = (uint64_t)(k->batch * k->n * (k->n + 1)) * sizeof(double);
    *out = &k->head;
    return SDLORA_OK;
}

const slr_cpu_row slr_cpu_rows_small[] = {
    {SDLORA_OP_INVERSE, .prepare = inverse_prepare},
    {SDLORA_OP_POW, .prepare = pow_prepare},
    {0},
};
