/* SPDX-License-Identifier: MIT */
/* The activations and their slopes on one register.  Largest errors against libm in double on
 * [-12, 12], which `checkop --curves` holds: silu 1.7e-7 and tanh 1.3e-7 of the value, gelu 1e-7 of
 * max(1, |x|), quick gelu 1.3e-6 of the value (far left, where 1.702 x is rounded before the
 * exponential).  Where results are stored in bf16, shorter polynomials and an estimated reciprocal
 * are right to 1e-4 of max(value, 1): a twentieth of what storing rounds away.  A NaN stays one.
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

/* One line per SDLORA_ACT_*. */
#define SLR_ACTS(X)                                                                                \
    X(SDLORA_ACT_NONE, none)                                                                       \
    X(SDLORA_ACT_SILU, silu)                                                                       \
    X(SDLORA_ACT_GELU, gelu)                                                                       \
    X(SDLORA_ACT_QUICK_GELU, quick_gelu)                                                           \
    X(SDLORA_ACT_RELU, relu)                                                                       \
    X(SDLORA_ACT_TANH, tanh)

#endif
