/* SPDX-License-Identifier: MIT */
/* Sums and losses for one instruction set and storage type: see reduce.h. */
#include "backend/cpu/reduce.h"

#include "backend/cpu/elem.h"

/* Four registers of partial sums hide the latency of an addition. */
ALWAYS float sum_of(int64_t n, const elem *x, const elem *y, float p, vf (*f)(vf, vf, vf))
{
    vf s0 = {0}, s1 = {0}, s2 = {0}, s3 = {0}, vp = vset(p);
    int64_t i = 0;
    for (; i + 4 * VN <= n; i += 4 * VN) {
        s0 += f(ld(x + i), ld(y + i), vp);
        s1 += f(ld(x + i + VN), ld(y + i + VN), vp);
        s2 += f(ld(x + i + 2 * VN), ld(y + i + 2 * VN), vp);
        s3 += f(ld(x + i + 3 * VN), ld(y + i + 3 * VN), vp);
    }
    for (; i + VN <= n; i += VN)
        s0 += f(ld(x + i), ld(y + i), vp);
    if (i < n) /* f(0, 0) is 0 for all of them, so the empty lanes add nothing */
        s1 += f(ld_n(x + i, n - i), ld_n(y + i, n - i), vp);
    return vsum((s0 + s1) + (s2 + s3));
}

ALWAYS vf take(vf x, vf y, vf p)
{
    return x;
}

static float sum(int64_t n, const void *x)
{
    return sum_of(n, x, x, 0, take);
}

static void sum_rows(int64_t rows, int64_t c, int64_t pitch, const void *from, float *y)
{
    const elem *x = from;
    memset(y, 0, (size_t)c * sizeof *y);
    for (int64_t r = 0; r < rows; r += 4) {
        int64_t n = rows - r < 4 ? rows - r : 4, i = 0;
        const elem *p = x + r * pitch;
        for (; i + VN <= c; i += VN) {
            vf s = vload(y + i);
            for (int64_t k = 0; k < n; k++)
                s += ld(p + k * pitch + i);
            vstore(y + i, s);
        }
        for (; i < c; i++)
            for (int64_t k = 0; k < n; k++)
                y[i] += get(p + k * pitch + i);
    }
}

#if !SLR_BF16

ALWAYS vf square(vf x, vf y, vf p)
{
    return x * x;
}

static float sumsq(int64_t n, const float *x)
{
    return sum_of(n, x, x, 0, square);
}

/* --- losses */

ALWAYS vf vsqrt(vf x)
{
    float t[VN];
    vstore(t, x);
    for (int i = 0; i < VN; i++)
        t[i] = __builtin_sqrtf(t[i]);
    return vload(t);
}

/* sqrt(d^2 + delta^2) - delta, without the cancellation of small d */
ALWAYS vf root(vf d, vf delta)
{
    vf s = vsqrt(d * d + delta * delta) + delta;
    return vselect(s > 0.0f, d * d / s, s);
}

/* d / sqrt(d^2 + delta^2); 0 at 0 */
ALWAYS vf root_slope(vf d, vf delta)
{
    vf s = vsqrt(d * d + delta * delta);
    return vselect(s > 0.0f, d / s, s);
}

ALWAYS vf loss_l2(vf x, vf y, vf delta)
{
    return (x - y) * (x - y);
}

ALWAYS vf loss_l1(vf x, vf y, vf delta)
{
    return vabs(x - y);
}

ALWAYS vf loss_huber(vf x, vf y, vf delta)
{
    return 2.0f * delta * root(x - y, delta);
}

ALWAYS vf loss_smooth_l1(vf x, vf y, vf delta)
{
    return 2.0f * root(x - y, delta);
}

ALWAYS vf slope_l2(vf x, vf y, vf delta)
{
    return 2.0f * (x - y);
}

ALWAYS vf slope_l1(vf x, vf y, vf delta)
{
    vf d = x - y;
    return vselect(d > 0.0f, vset(1.0f), vselect(d < 0.0f, vset(-1.0f), d));
}

ALWAYS vf slope_huber(vf x, vf y, vf delta)
{
    return 2.0f * delta * root_slope(x - y, delta);
}

ALWAYS vf slope_smooth_l1(vf x, vf y, vf delta)
{
    return 2.0f * root_slope(x - y, delta);
}

ALWAYS void slopes(int64_t n, elem *d, const elem *x, const elem *y, float delta, float scale,
                   vf (*f)(vf, vf, vf))
{
    int64_t i = 0;
    vf vd = vset(delta);
    for (; i + VN <= n; i += VN)
        st(d + i, scale * f(ld(x + i), ld(y + i), vd));
    if (i < n)
        st_n(d + i, scale * f(ld_n(x + i, n - i), ld_n(y + i, n - i), vd), n - i);
}

#define LOSSES(X)                                                                                  \
    X(SDLORA_LOSS_L2, l2)                                                                          \
    X(SDLORA_LOSS_L1, l1)                                                                          \
    X(SDLORA_LOSS_HUBER, huber)                                                                    \
    X(SDLORA_LOSS_SMOOTH_L1, smooth_l1)

#define LOSS(kind, name)                                                                           \
    static float run_##name(int64_t n, const elem *x, const elem *y, float delta)                  \
    {                                                                                              \
        return sum_of(n, x, y, delta, loss_##name);                                                \
    }                                                                                              \
    static void run_bx_##name(int64_t n, elem *d, const elem *x, const elem *y, float delta,       \
                              float scale)                                                         \
    {                                                                                              \
        slopes(n, d, x, y, delta, scale, slope_##name);                                            \
    }
LOSSES(LOSS)
#endif

#define LOSS_ROW(kind, name)    [kind] = run_##name,
#define LOSS_BX_ROW(kind, name) [kind] = run_bx_##name,

const slr_cpu_reduce_fns SLR_ISA_SYM(slr_cpu_reduce) = {
    .sum = sum,
    .sum_rows = sum_rows,
#if !SLR_BF16
    .sumsq = sumsq,
    .loss = {LOSSES(LOSS_ROW)},
    .loss_bx = {LOSSES(LOSS_BX_ROW)},
#endif
};
