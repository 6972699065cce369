/* SPDX-License-Identifier: MIT */
/* The activations and their slopes on one register.  Largest errors against libm in double on
 * [-12, 12], which `checkop --curves` holds: silu 1.7e-7 and tanh 1.3e-7 of the value, gelu 1e-7 of
 * max(1, |x|), quick gelu 1.3e-6 of the value (far left, where 1.702 x is rounded before the
 * exponential), softplus, log sigmoid, elu, selu and mish 3e-7 of the value; the rest have no
 * curves. Where results are stored in bf16, shorter polynomials and an estimated reciprocal are
 * right to 1e-4 of max(value, 1): a twentieth of what storing rounds away.  A NaN stays one.
 * Included by NAME_tmpl.c only. */
#ifndef SLR_BACKEND_CPU_ACT_H
#define SLR_BACKEND_CPU_ACT_H

#include "backend/cpu/elem.h"

/* e^x for x moved into [-80, 80], where nothing overflows and 1 / (1 + e^x) is no denormal: a third
 * cheaper than vexp().  A NaN is lost, so callers multiply by x. */
#if SLR_BF16
ALWAYS vf exp80(vf x)
{
#if defined(__AVX512F__) /* any x: the scaling ends in 0 or infinity by itself */
    const __m512 t = (__m512)(x * 1.44269504f);
    const vf f = (vf)_mm512_reduce_ps(t, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#else
    vf t = vmin(vmax(x, vset(-80.0f)), vset(80.0f)) * 1.44269504f;
    vf n = t + 12582912.0f, f = t - (n - 12582912.0f);
#endif
    vf p = vset(9.570091347e-3f); /* 2^f on [-1/2, 1/2]: minimax of degree 4, error 3e-6 */
    p = p * f + 5.591785949e-2f;
    p = p * f + 2.402474509e-1f;
    p = p * f + 6.931218149e-1f;
    p = p * f + 9.999992614e-1f;
#if defined(__AVX512F__)
    return (vf)_mm512_scalef_ps((__m512)p, _mm512_roundscale_ps(t, 0));
#else
    return (vf)((vi)p + ((vi)n << 23));
#endif
}
#else
ALWAYS vf exp80(vf x)
{
    vf c = vmin(vmax(x, vset(-80.0f)), vset(80.0f));
    vf t = c * 1.44269504f + 12582912.0f; /* x / ln 2, its integer in the low bits */
    vf n = t - 12582912.0f;
    vf r = c - n * 0.693359375f;
    r = r + n * 2.12194440e-4f;
    vf p = vset(1.9875691500e-4f); /* (e^r - 1 - r) / r^2, the coefficients of vexp() */
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + (r + 1.0f);
    return (vf)((vi)p + ((vi)t << 23));
}
#endif

ALWAYS vf sigmoid(vf x)
{
    return vrecip(1.0f + exp80(-x));
}

/* Below 0.625 an odd polynomial, above it 1 - 2 / (e^2x + 1). */
ALWAYS vf vtanh(vf x)
{
    vf a = vabs(x), s = x * x;
    vf p = vset(-5.664796037e-3f);
    p = p * s + 2.061601591e-2f;
    p = p * s - 5.373863075e-2f;
    p = p * s + 1.333154204e-1f;
    p = p * s - 3.333329255e-1f;
    vf small = x + x * s * p;
    vf big = 1.0f - 2.0f * vrecip(exp80(2.0f * a) + 1.0f);
    big = (vf)((vi)big | ((vi)x & (vi)vset(-0.0f)));
    return vselect(a < 0.625f, small, vselect(x == x, big, x));
}

/* The normal distribution: *cdf = P(X < x) and *bell = e^(-x^2/2).  With a = |x| and
 * t = 1 / (1 + 0.35 a), P(X < -a) = e^(-a^2/2) t Q(t), Q minimax of degree 8 up to a = 13.3, where
 * the bell ends; for bf16 of degree 4, error 3.3e-5 up to a = 8. */
ALWAYS void normal(vf x, vf *cdf, vf *bell)
{
    vf a = vabs(x);
#if SLR_BF16
#if !defined(__AVX512F__)
    a = vmin(a, vset(1e18f)); /* the step of Newton's would make a NaN of infinity */
#endif
    vf t = vrecip(1.0f + 0.35f * a);
    vf q = vset(-9.229189432e-2f);
    q = q * t + 2.622018865e-1f;
    q = q * t + 3.034715624e-2f;
    q = q * t + 1.622287951e-1f;
    q = q * t + 1.375303773e-1f;
#else
    vf t = vrecip(1.0f + 0.35f * a);
    vf q = vset(-2.911495238e-2f);
    q = q * t + 1.438181256e-1f;
    q = q * t - 2.553904490e-1f;
    q = q * t + 1.587959683e-1f;
    q = q * t - 2.284305278e-2f;
    q = q * t + 1.053920055e-1f;
    q = q * t + 1.198631200e-1f;
    q = q * t + 1.398575583e-1f;
    q = q * t + 1.396216605e-1f;
#endif
    *bell = exp80(x * x * -0.5f);
    vf tail = *bell * t * q;
    *cdf = vselect(x > 0.0f, 1.0f - tail, tail);
}

#define INV_SQRT_2PI 0.39894228f
#define QUICK_GELU_K 1.702f

ALWAYS vf act_none(vf x)
{
    return x;
}

ALWAYS vf act_silu(vf x)
{
    return x * sigmoid(x);
}

ALWAYS vf act_gelu(vf x)
{
    vf cdf, bell;
    normal(x, &cdf, &bell);
    return x * cdf;
}

ALWAYS vf act_quick_gelu(vf x)
{
    return x * sigmoid(QUICK_GELU_K * x);
}

ALWAYS vf act_relu(vf x)
{
    return vselect(x < 0.0f, vset(0.0f), x); /* a NaN stays one */
}

ALWAYS vf act_tanh(vf x)
{
    return vtanh(x);
}

ALWAYS vf or_nan(vf x, vf y)
{
    return vselect(x == x, y, x);
}

ALWAYS vf clamp(float lo, vf x, float hi) /* constants first: a NaN stays one */
{
    return vmin(vset(hi), vmax(vset(lo), x));
}

/* e^x - 1 for x <= 0: 2^n (e^r - 1) + (2^n - 1), with all digits near 0. */
ALWAYS vf expm1_left(vf x)
{
    vf c = vmax(vset(-30.0f), x);
    vf t = c * 1.44269504f + 12582912.0f; /* as in exp80() */
    vf n = t - 12582912.0f;
    vf r = c - n * 0.693359375f;
    r = r + n * 2.12194440e-4f;
    vf p = vset(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    vf power = (vf)((vi)vset(1.0f) + ((vi)t << 23));
    return (p * (r * r) + r) * power + (power - 1.0f);
}

/* ln(1 + e^-|x|) as 2 artanh(u / (2 + u)): the series in u^2 / (2 + u)^2 <= 1/9 ends at 2e-8. */
ALWAYS vf soft_step(vf x)
{
    vf u = exp80(-vabs(x)), q = u / (2.0f + u), s = q * q;
    vf p = vset(1.0f / 13);
    p = p * s + 1.0f / 11;
    p = p * s + 1.0f / 9;
    p = p * s + 1.0f / 7;
    p = p * s + 1.0f / 5;
    p = p * s + 1.0f / 3;
    return 2.0f * (q + q * s * p);
}

#define LEAK       0.01f
#define SELU_SCALE 1.05070099f
#define SELU_ALPHA 1.67326324f
#define SHRINK     0.5f

ALWAYS vf act_sigmoid(vf x)
{
    return or_nan(x, sigmoid(x));
}

ALWAYS vf act_leaky_relu(vf x)
{
    return vselect(x > 0.0f, x, x * LEAK);
}

ALWAYS vf act_elu(vf x)
{
    return vselect(x > 0.0f, x, expm1_left(x));
}

ALWAYS vf act_selu(vf x)
{
    return SELU_SCALE * vselect(x > 0.0f, x, SELU_ALPHA * expm1_left(x));
}

ALWAYS vf act_softplus(vf x)
{
    return vmax(vset(0.0f), x) + soft_step(x);
}

ALWAYS vf act_log_sigmoid(vf x)
{
    return vmin(vset(0.0f), x) - soft_step(x);
}

/* x tanh(ln(1 + e)) = x n / (n + 2) with n = e (e + 2), e = e^x; far right all of it is x. */
ALWAYS vf act_mish(vf x)
{
    vf e = exp80(clamp(-80.0f, x, 20.0f)), n = e * (e + 2.0f);
    return vmax(vset(-80.0f), x) * (n * vrecip(n + 2.0f));
}

ALWAYS vf act_hardsigmoid(vf x)
{
    return clamp(0.0f, x + 3.0f, 6.0f) * (1.0f / 6.0f);
}

ALWAYS vf act_hardswish(vf x)
{
    return x * act_hardsigmoid(x);
}

ALWAYS vf act_hardtanh(vf x)
{
    return clamp(-1.0f, x, 1.0f);
}

ALWAYS vf act_relu6(vf x)
{
    return clamp(0.0f, x, 6.0f);
}

ALWAYS vf act_softsign(vf x)
{
    return x / (1.0f + vabs(x));
}

ALWAYS vf act_tanhshrink(vf x)
{
    return x - vtanh(x);
}

ALWAYS vf act_hardshrink(vf x)
{
    return vselect(vabs(x) <= SHRINK, vset(0.0f), x);
}

ALWAYS vf act_softshrink(vf x)
{
    return x - clamp(-SHRINK, x, SHRINK);
}

ALWAYS vf slope_none(vf x)
{
    return vset(1.0f);
}

#if SLR_BF16
/* 1 - s as e^-x s, which keeps its digits where s is near 1.  Constants come first in the bounds,
 * so that a NaN passes. */
ALWAYS vf slope_swish(vf x)
{
    vf c = vmin(vset(80.0f), vmax(vset(-80.0f), x)), e = exp80(-c), s = vrecip(1.0f + e);
    return s * (1.0f + c * (e * s));
}

ALWAYS vf slope_silu(vf x)
{
    return slope_swish(x);
}

ALWAYS vf slope_quick_gelu(vf x)
{
    return slope_swish(QUICK_GELU_K * x);
}
#else
ALWAYS vf slope_silu(vf x)
{
    vf s = sigmoid(x);
    return s * (1.0f + x * (1.0f - s));
}

ALWAYS vf slope_quick_gelu(vf x)
{
    vf s = sigmoid(QUICK_GELU_K * x);
    return s * (1.0f + QUICK_GELU_K * x * (1.0f - s));
}
#endif

ALWAYS vf slope_gelu(vf x)
{
    vf cdf, bell;
    normal(x, &cdf, &bell);
    return cdf + x * bell * INV_SQRT_2PI;
}

ALWAYS vf slope_relu(vf x)
{
    return vselect(x > 0.0f, vset(1.0f), vset(0.0f));
}

ALWAYS vf slope_tanh(vf x)
{
    vf y = vtanh(x);
    return 1.0f - y * y;
}

ALWAYS vf slope_sigmoid(vf x) /* even in x, so that no 1 is taken from 1 */
{
    vf e = exp80(-vabs(x)), r = vrecip(1.0f + e);
    return or_nan(x, e * r * r);
}

ALWAYS vf slope_leaky_relu(vf x)
{
    return vselect(x > 0.0f, vset(1.0f), vset(LEAK));
}

ALWAYS vf slope_elu(vf x)
{
    return or_nan(x, vselect(x > 0.0f, vset(1.0f), exp80(x)));
}

ALWAYS vf slope_selu(vf x)
{
    return SELU_SCALE * or_nan(x, vselect(x > 0.0f, vset(1.0f), SELU_ALPHA * exp80(x)));
}

ALWAYS vf slope_softplus(vf x)
{
    return or_nan(x, sigmoid(x));
}

ALWAYS vf slope_log_sigmoid(vf x)
{
    return or_nan(x, sigmoid(-x));
}

/* With r = 1 / (n + 2): r (n + 4 x e (1 + e) r). */
ALWAYS vf slope_mish(vf x)
{
    vf c = clamp(-80.0f, x, 20.0f), e = exp80(c), n = e * (e + 2.0f), r = vrecip(n + 2.0f);
    return or_nan(x, r * (n + 4.0f * c * e * (1.0f + e) * r));
}

/* 1 inside of an interval, 0 outside. */
ALWAYS vf inside(float lo, vf x, float hi)
{
    return vselect((x > lo) & (x < hi), vset(1.0f), vset(0.0f));
}

ALWAYS vf slope_hardsigmoid(vf x)
{
    return inside(-3.0f, x, 3.0f) * (1.0f / 6.0f);
}

ALWAYS vf slope_hardswish(vf x)
{
    return vselect(x >= 3.0f, vset(1.0f),
                   vselect(x <= -3.0f, vset(0.0f), x * (1.0f / 3.0f) + 0.5f));
}

ALWAYS vf slope_hardtanh(vf x)
{
    return inside(-1.0f, x, 1.0f);
}

ALWAYS vf slope_relu6(vf x)
{
    return inside(0.0f, x, 6.0f);
}

ALWAYS vf slope_softsign(vf x)
{
    vf r = 1.0f / (1.0f + vabs(x));
    return r * r;
}

ALWAYS vf slope_tanhshrink(vf x)
{
    vf y = vtanh(x);
    return y * y;
}

ALWAYS vf slope_hardshrink(vf x)
{
    return vselect(vabs(x) <= SHRINK, vset(0.0f), vset(1.0f));
}

ALWAYS vf slope_softshrink(vf x)
{
    return slope_hardshrink(x);
}

/* One line per SDLORA_ACT_* that norms may fuse. */
#define SLR_ACTS(X)                                                                                \
    X(SDLORA_ACT_NONE, none)                                                                       \
    X(SDLORA_ACT_SILU, silu)                                                                       \
    X(SDLORA_ACT_GELU, gelu)                                                                       \
    X(SDLORA_ACT_QUICK_GELU, quick_gelu)                                                           \
    X(SDLORA_ACT_RELU, relu)                                                                       \
    X(SDLORA_ACT_TANH, tanh)

/* And per other one. */
#define SLR_MORE_ACTS(X)                                                                           \
    X(SDLORA_ACT_SIGMOID, sigmoid)                                                                 \
    X(SDLORA_ACT_LEAKY_RELU, leaky_relu)                                                           \
    X(SDLORA_ACT_ELU, elu)                                                                         \
    X(SDLORA_ACT_SELU, selu)                                                                       \
    X(SDLORA_ACT_SOFTPLUS, softplus)                                                               \
    X(SDLORA_ACT_LOG_SIGMOID, log_sigmoid)                                                         \
    X(SDLORA_ACT_MISH, mish)                                                                       \
    X(SDLORA_ACT_HARDSWISH, hardswish)                                                             \
    X(SDLORA_ACT_HARDSIGMOID, hardsigmoid)                                                         \
    X(SDLORA_ACT_HARDTANH, hardtanh)                                                               \
    X(SDLORA_ACT_RELU6, relu6)                                                                     \
    X(SDLORA_ACT_SOFTSIGN, softsign)                                                               \
    X(SDLORA_ACT_TANHSHRINK, tanhshrink)                                                           \
    X(SDLORA_ACT_HARDSHRINK, hardshrink)                                                           \
    X(SDLORA_ACT_SOFTSHRINK, softshrink)

#endif
