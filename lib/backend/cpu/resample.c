/* SPDX-License-Identifier: MIT */
/* UPSAMPLE2 and UPSAMPLE2_BX: nearest doubling of images and the sums that undo it.  Items of the
 * parallel loops are rows of the small image. */
#include <string.h>

#include "backend/cpu/ew.h"
#include "base/status.h"

typedef struct up_kernel {
    sdlora_kernel head;
    const slr_cpu_ew_fns *fns;
    int64_t rows, w, c; /* of the small image; rows = n h */
    int64_t size;       /* bytes of an element */
} up_kernel;

typedef struct up_job {
    const up_kernel *k;
    const char *from;
    char *to;
} up_job;

static void up_body(void *arg, int64_t lo, int64_t hi)
{
    const up_job *j = arg;
    const int64_t w = j->k->w, pixel = j->k->c * j->k->size;
    for (int64_t r = lo; r < hi; r++) {
        const char *x = j->from + r * w * pixel;
        char *y = j->to + r * 4 * w * pixel;
        for (int64_t i = 0; i < w; i++) {
            memcpy(y + 2 * i * pixel, x + i * pixel, (size_t)pixel);
            memcpy(y + (2 * i + 1) * pixel, x + i * pixel, (size_t)pixel);
        }
        memcpy(y + 2 * w * pixel, y, (size_t)(2 * w * pixel));
    }
}

static void down_body(void *arg, int64_t lo, int64_t hi)
{
    const up_job *j = arg;
    const int64_t w = j->k->w, c = j->k->c, pixel = c * j->k->size;
    for (int64_t r = lo; r < hi; r++) {
        const char *dy = j->from + r * 4 * w * pixel;
        char *dx = j->to + r * w * pixel;
        for (int64_t i = 0; i < w; i++, dy += 2 * pixel, dx += pixel)
            j->k->fns->add4(c, dx, dy, dy + pixel, dy + 2 * w * pixel, dy + (2 * w + 1) * pixel);
    }
}

static void run(const up_kernel *k, const slr_cpu_env *env, void *const *ptr,
                void (*body)(void *, int64_t, int64_t))
{
    up_job j = {k, ptr[0], ptr[1]};
    int64_t grain = SLR_CPU_GRAIN / (4 * k->w * k->c);
    slr_cpu_parallel(env, k->rows, grain > 0 ? grain : 1, body, &j);
}

static int up_launch(sdlora_kernel *kernel, const slr_cpu_env *env, void *const *ptr, void *scratch)
{
    run((const up_kernel *)kernel, env, ptr, up_body);
    return SDLORA_OK;
}

static int down_launch(sdlora_kernel *kernel, const slr_cpu_env *env, void *const *ptr,
                       void *scratch)
{
    run((const up_kernel *)kernel, env, ptr, down_body);
    return SDLORA_OK;
}

static int up_prepare(sdlora_kernel **out, uint64_t *scratch, const slr_cpu_env *env,
                      const sdlora_opdesc *op)
{
    bool back = op->op == SDLORA_OP_UPSAMPLE2_BX;
    const sdlora_tdesc *small = back ? &op->out[0] : &op->in[0];
    const sdlora_tdesc *big = back ? &op->in[0] : &op->out[0];
    if (!slr_cpu_stored(small) || !slr_cpu_stored_as(big, small->dtype))
        return slr_fail(SDLORA_ENOTSUP, __func__,
                        "cpu: UPSAMPLE2 takes dense tensors of one type, f32 or bf16");
    const int64_t *s = small->dim, *b = big->dim;
    if (small->rank != 4 || big->rank != 4 || b[0] != s[0] || b[1] != 2 * s[1] ||
        b[2] != 2 * s[2] || b[3] != s[3])
        return slr_fail(SDLORA_EINVAL, __func__, "cpu: UPSAMPLE2 wants [N,H,W,C] and [N,2H,2W,C]");
    up_kernel *k = slr_cpu_kernel_new(env, sizeof *k, back ? down_launch : up_launch);
    if (!k)
        return SDLORA_ENOMEM;
    k->fns = SLR_CPU_PICK(env, slr_cpu_ew, small->dtype);
    k->size = slr_cpu_size(small);
    k->rows = s[0] * s[1];
    k->w = s[2];
    k->c = s[3];
    *out = &k->head;
    return SDLORA_OK;
}

const slr_cpu_row slr_cpu_rows_resample[] = {
    {SDLORA_OP_UPSAMPLE2, .prepare = up_prepare},
    {SDLORA_OP_UPSAMPLE2_BX, .prepare = up_prepare},
    {0},
};
