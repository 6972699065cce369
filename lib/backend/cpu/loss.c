/* SPDX-License-Identifier: MIT */
/* LOSS and LOSS_BX: the elementwise losses of sdlora/ops.h, their mean over each sample, weighted.
 * Sums as in reduce.c: short runs in f32, joined in double in a fixed order. */
#include "backend/cpu/reduce.h"

#include "base/status.h"

typedef struct loss_kernel {
    sdlora_kernel head;
    const slr_cpu_reduce_fns *fns;
    int64_t n, len, runs, kind; /* samples, elements and runs of a sample */
} loss_kernel;

typedef struct loss_job {
    const loss_kernel *k;
    const float *dloss, *pred, *target, *weight, *delta;
    float *to; /* run sums, or dpred */
} loss_job;

static void loss_body(void *arg, int64_t lo, int64_t hi)
{
    const loss_job *j = arg;
    const loss_kernel *k = j->k;
    for (int64_t i = lo; i < hi; i++) {
        int64_t sample = i / k->runs, from = i % k->runs * SLR_CPU_SUM_RUN, n = k->len - from;
        int64_t at = sample * k->len + from;
        float delta = j->delta ? j->delta[sample] : 0;
        n = n < SLR_CPU_SUM_RUN ? n : SLR_CPU_SUM_RUN;
        if (!j->dloss) {
            j->to[i] = k->fns->loss[k->kind](n, j->pred + at, j->target + at, delta);
        } else {
            float scale = j->dloss[sample] * j->weight[sample] / (float)k->len;
            k->fns->loss_bx[k->kind](n, j->to + at, j->pred + at, j->target + at, delta, scale);
        }
    }
}

static int loss_launch(sdlora_kernel *kernel, const slr_cpu_env *env, void *const *ptr,
                       void *scratch)
{
    const loss_kernel *k = (const loss_kernel *)kernel;
    loss_job j = {k, NULL, ptr[0], ptr[1], ptr[2], NULL, scratch};
    if (k->head.n_in > 3)
        j.delta = ptr[3];
    float *loss = ptr[k->head.n_in];
    slr_cpu_parallel(env, k->n * k->runs, SLR_CPU_GRAIN / SLR_CPU_SUM_RUN, loss_body, &j);
    for (int64_t i = 0; i < k->n; i++) {
        double sum = 0;
        for (int64_t r = 0; r < k->runs; r++)
            sum += j.to[i * k->runs + r];
        loss[i] = (float)(j.weight[i] * (sum / (double)k->len));
    }
    return SDLORA_OK;
}

static int loss_bx_launch(sdlora_kernel *kernel, const slr_cpu_env *env, void *const *ptr,
                          void *scratch)
{
    const loss_kernel *k = (const loss_kernel *)kernel;
    loss_job j = {k, ptr[0], ptr[1], ptr[2], ptr[3], NULL, ptr[k->head.n_in]};
    if (k->head.n_in > 4)
        j.delta = ptr[4];
    slr_cpu_parallel(env, k->n * k->runs, SLR_CPU_GRAIN / SLR_CPU_SUM_RUN, loss_body, &j);
    return SDLORA_OK;
}

static bool per_sample(const sdlora_tdesc *t, int64_t n)
{
    return slr_cpu_f32(t) && slr_cpu_count(t) == n;
}

static int loss_prepare(sdlora_kernel **out, uint64_t *scratch, const slr_cpu_env *env,
                        const sdlora_opdesc *op)
{
    uint32_t back = op->op == SDLORA_OP_LOSS_BX;
    const sdlora_tdesc *pred = &op->in[back], *target = pred + 1, *weight = pred + 2;
    const sdlora_tdesc *delta = op->n_in > 3 + back ? pred + 3 : NULL;
    int64_t kind = op->ints[0];
    if (!slr_cpu_f32(pred) || !slr_cpu_f32(target) || kind < 0 || kind >= SLR_N_LOSSES)
        return slr_fail(SDLORA_ENOTSUP, __func__,
                        "cpu: LOSS takes dense f32 tensors and kinds 0..%d", SLR_N_LOSSES - 1);
    bool has_delta = delta && slr_cpu_has(delta);
    int64_t n = pred->rank ? pred->dim[0] : 0;
    if (n < 1 || !slr_cpu_same_shape(pred, target) || !per_sample(weight, n) ||
        (has_delta && !per_sample(delta, n)) ||
        !(back ? per_sample(&op->in[0], n) && slr_cpu_f32(&op->out[0]) &&
                     slr_cpu_same_shape(pred, &op->out[0])
               : per_sample(&op->out[0], n)))
        return slr_fail(SDLORA_EINVAL, __func__, "cpu: the shapes of a LOSS do not fit");
    if (!has_delta && (kind == SDLORA_LOSS_HUBER || kind == SDLORA_LOSS_SMOOTH_L1))
        return slr_fail(SDLORA_EINVAL, __func__, "cpu: LOSS of kind %d wants delta", (int)kind);
    loss_kernel *k = slr_cpu_kernel_new(env, sizeof *k, back ? loss_bx_launch : loss_launch);
    if (!k)
        return SDLORA_ENOMEM;
    k->fns = SLR_CPU_PICK(env, slr_cpu_reduce, SDLORA_F32);
    k->n = n;
    k->len = slr_cpu_count(pred) / n;
    k->runs = (k->len + SLR_CPU_SUM_RUN - 1) / SLR_CPU_SUM_RUN;
    k->kind = kind;
    *scratch = back ? 0 : (uint64_t)(n * k->runs) * sizeof(float);
    *out = &k->head;
    return SDLORA_OK;
}

const slr_cpu_row slr_cpu_rows_loss[] = {
    {SDLORA_OP_LOSS, .prepare = loss_prepare},
    {SDLORA_OP_LOSS_BX, .prepare = loss_prepare},
    {0},
};
