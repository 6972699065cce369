/* SPDX-License-Identifier: MIT */
/* Shapes and taps of convolutions, read off descriptors: see conv.h. */
#include "backend/cpu/conv.h"

#include "base/status.h"

static int64_t int_at(const sdlora_opdesc *op, uint32_t i, int64_t otherwise)
{
    return i < op->n_int ? op->ints[i] : otherwise;
}

int slr_conv_read(slr_conv_shape *s, const sdlora_opdesc *op, const sdlora_tdesc *x,
                  const sdlora_tdesc *y, const int64_t w[4])
{
    slr_require(op->n_int >= 2 && x->rank == 4 && y->rank == 4);
    *s = (slr_conv_shape){
        .x = {x->dim[0], x->dim[1], x->dim[2], x->dim[3]},
        .y = {y->dim[0], y->dim[1], y->dim[2], y->dim[3]},
        .r = w[2],
        .s = w[3],
        .stride_h = op->ints[0],
        .stride_w = op->ints[1],
        .pad_top = int_at(op, 2, 0),
        .pad_left = int_at(op, 3, 0),
        .groups = int_at(op, 6, 1),
    };
    slr_require(s->stride_h > 0 && s->stride_w > 0 && s->groups > 0 && s->r > 0 && s->s > 0);
    s->cg = s->x.c / s->groups;
    s->kg = s->y.c / s->groups;
    const int64_t h = s->x.h + s->pad_top + int_at(op, 4, 0) - s->r;
    const int64_t wd = s->x.w + s->pad_left + int_at(op, 5, 0) - s->s;
    if (s->cg * s->groups != s->x.c || s->kg * s->groups != s->y.c || w[0] != s->y.c ||
        w[1] != s->cg || s->x.n != s->y.n || h < 0 || wd < 0 || h / s->stride_h + 1 != s->y.h ||
        wd / s->stride_w + 1 != s->y.w)
        return slr_fail(SDLORA_EINVAL, __func__,
                        "conv2d: [%lld,%lld,%lld,%lld] by [%lld,%lld,%lld,%lld] does not give "
                        "[%lld,%lld,%lld,%lld]",
                        (long long)s->x.n, (long long)s->x.h, (long long)s->x.w, (long long)s->x.c,
                        (long long)w[0], (long long)w[1], (long long)w[2], (long long)w[3],
                        (long long)s->y.n, (long long)s->y.h, (long long)s->y.w, (long long)s->y.c);
    return SDLORA_OK;
}

int slr_conv_check_types(const sdlora_opdesc *op, unsigned strict)
{
    for (uint32_t i = 0; i < op->n_in + op->n_out; i++) {
        const sdlora_tdesc *t = i < op->n_in ? &op->in[i] : &op->out[i - op->n_in];
        if (t->dtype && !slr_cpu_is_frozen(op, i) &&
            !(strict >> i & 1 ? slr_cpu_f32(t) : slr_cpu_stored(t)))
            return slr_fail(SDLORA_ENOTSUP, __func__,
                            "a convolution takes dense f32 or bf16; operand %u is of type %u or "
                            "has gaps",
                            (unsigned)i, (unsigned)t->dtype);
    }
    return SDLORA_OK;
}

/* --- taps --- */

static int64_t floor_mod(int64_t a, int64_t b)
{
    int64_t m = a % b;
    return m < 0 ? m + b : m;
}

static int64_t min64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

/* Forward: result (i, j) reads (i stride - pad + r, j stride - pad + s). */
static void forward_phase(slr_conv_walk *w, const slr_conv_shape *s)
{
    w->mul_h = s->stride_h;
    w->mul_w = s->stride_w;
    w->n_phases = 1;
    w->phases[0] = (slr_conv_phase){
        .step_h = 1, .step_w = 1, .rows = s->y.h, .cols = s->y.w, .n_taps = s->r * s->s};
    for (int64_t i = 0; i < s->r * s->s; i++)
        w->taps[i] = (slr_conv_tap){i / s->s - s->pad_top, i % s->s - s->pad_left, i};
}

/* Taps from number `first` on that reach the pixels of one residue class; returns how many. */
static int64_t reaching(slr_conv_walk *w, const slr_conv_shape *s, int64_t y0, int64_t x0,
                        int64_t first)
{
    int64_t n = 0;
    for (int64_t i = 0; i < s->r * s->s; i++) {
        int64_t dy = y0 + s->pad_top - i / s->s, dx = x0 + s->pad_left - i % s->s;
        if (floor_mod(dy, s->stride_h) || floor_mod(dx, s->stride_w))
            continue;
        w->taps[first + n++] = (slr_conv_tap){dy / s->stride_h, dx / s->stride_w, i};
    }
    return n;
}

/* Backward: dx(y, x) gets dy((y + pad - r) / stride, ...) for the r with y + pad - r divisible by
 * stride. */
static void backward_phases(slr_conv_walk *w, const slr_conv_shape *s)
{
    int64_t n_taps = 0;
    w->mul_h = w->mul_w = 1;
    w->n_phases = 0;
    for (int64_t y0 = 0; y0 < min64(s->stride_h, s->x.h); y0++)
        for (int64_t x0 = 0; x0 < min64(s->stride_w, s->x.w); x0++) {
            slr_conv_phase *ph = &w->phases[w->n_phases++];
            *ph = (slr_conv_phase){.y0 = y0,
                                   .x0 = x0,
                                   .step_h = s->stride_h,
                                   .step_w = s->stride_w,
                                   .rows = ceil_div(s->x.h - y0, s->stride_h),
                                   .cols = ceil_div(s->x.w - x0, s->stride_w),
                                   .tap0 = n_taps,
                                   .n_taps = reaching(w, s, y0, x0, n_taps)};
            n_taps += ph->n_taps;
        }
}

int slr_conv_walk_new(slr_conv_walk *w, const slr_cpu_env *env, const slr_conv_shape *s, bool back)
{
    const int64_t n_phases = back ? s->stride_h * s->stride_w : 1;
    const size_t phase_bytes = (size_t)n_phases * sizeof(slr_conv_phase);
    const size_t tap_bytes = (size_t)(s->r * s->s) * sizeof(slr_conv_tap);
    w->phases = env->host->alloc(env->host->self, phase_bytes + tap_bytes, 64);
    if (!w->phases)
        return SDLORA_ENOMEM;
    w->taps = (slr_conv_tap *)(void *)((char *)w->phases + phase_bytes);
    (back ? backward_phases : forward_phase)(w, s);
    return SDLORA_OK;
}

void slr_conv_walk_free(slr_conv_walk *w, const slr_cpu_env *env)
{
    if (w->phases)
        env->host->free(env->host->self, w->phases);
}
