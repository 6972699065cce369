/* SPDX-License-Identifier: MIT */
/* ADAMW over one flat block of parameters.  The numbers of a step come from memory, not from the
 * kernel, so that one plan serves all steps. */
#include <string.h>

#include "backend/cpu/ew.h"
#include "base/status.h"

typedef struct adamw_kernel {
    sdlora_kernel head;
    const slr_cpu_ew_fns *fns;
    int64_t count;
} adamw_kernel;

typedef struct adamw_job {
    const adamw_kernel *k;
    const float *g, *hyper;
    float *p, *m, *v;
} adamw_job;

static void adamw_body(void *arg, int64_t lo, int64_t hi)
{
    const adamw_job *j = arg;
    j->k->fns->adamw(hi - lo, j->p + lo, j->g + lo, j->m + lo, j->v + lo, j->hyper);
}

static int adamw_launch(sdlora_kernel *kernel, const slr_cpu_env *env, void *const *ptr,
                        void *scratch)
{
    static const int from[] = {0, 2, 3}; /* the inputs p, m, v of the three outputs */
    const adamw_kernel *k = (const adamw_kernel *)kernel;
    for (int i = 0; i < 3; i++)
        if (ptr[5 + i] != ptr[from[i]])
            memcpy(ptr[5 + i], ptr[from[i]], (size_t)k->count * sizeof(float));
    adamw_job j = {k, ptr[1], ptr[4], ptr[5], ptr[6], ptr[7]};
    slr_cpu_parallel(env, k->count, SLR_CPU_GRAIN / 2, adamw_body, &j);
    return SDLORA_OK;
}

static int adamw_prepare(sdlora_kernel **out, uint64_t *scratch, const slr_cpu_env *env,
                         const sdlora_opdesc *op)
{
    if (op->n_in != 5 || op->n_out != 3 || !slr_cpu_f32(&op->in[4]) ||
        slr_cpu_count(&op->in[4]) != 8)
        return slr_fail(SDLORA_EINVAL, __func__, "cpu: ADAMW wants p g m v hyper[8] -> p m v");
    int64_t n = slr_cpu_count(&op->in[0]);
    for (uint32_t i = 0; i < 7; i++) {
        const sdlora_tdesc *t = i < 4 ? &op->in[i] : &op->out[i - 4];
        if (!slr_cpu_f32(t))
            return slr_fail(SDLORA_ENOTSUP, __func__, "cpu: ADAMW takes dense f32 tensors only");
        if (slr_cpu_count(t) != n)
            return slr_fail(SDLORA_EINVAL, __func__, "cpu: the sizes of an ADAMW differ");
    }
    adamw_kernel *k = slr_cpu_kernel_new(env, sizeof *k, adamw_launch);
    if (!k)
        return SDLORA_ENOMEM;
    k->fns = SLR_CPU_PICK(env, slr_cpu_ew, SDLORA_F32);
    k->count = n;
    *out = &k->head;
    return SDLORA_OK;
}

const slr_cpu_row slr_cpu_rows_optim[] = {
    {SDLORA_OP_ADAMW, .prepare = adamw_prepare},
    {0},
};
