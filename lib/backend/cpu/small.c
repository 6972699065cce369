/* SPDX-License-Identifier: MIT */
/* POW, and whatever else works on tensors so small that only its correctness counts: norms of
 * rows, matrices of a rank.  Plain C in double, f32 in and out.  Refuses to know what they are for.
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

const slr_cpu_row slr_cpu_rows_small[] = {
    {SDLORA_OP_POW, .prepare = pow_prepare},
    {0},
};
