/* SPDX-License-Identifier: MIT */
/* For the files that are compiled once per instruction set: the vector type of that set and the few
 * functions on it that several kernels share.  Included by NAME_tmpl.c only. */
#ifndef SLR_BACKEND_CPU_ISA_H
#define SLR_BACKEND_CPU_ISA_H

#include <stdint.h>
#include <string.h>
#if defined(__SSE2__)
#include <immintrin.h>
#endif

#include "backend/cpu/cpu.h"

#if !defined(SLR_ISA)
#error "compile with -DSLR_ISA=base, avx2 or avx512"
#endif

/* Floats in one register of this instruction set. */
#if defined(__AVX512F__)
#define VN 16
#elif defined(__AVX2__)
#define VN 8
#else
#define VN 4
#endif

typedef float vf __attribute__((vector_size(VN * 4)));
typedef int32_t vi __attribute__((vector_size(VN * 4)));

static inline vf vload(const float *p)
{
    vf v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline void vstore(float *p, vf v)
{
    memcpy(p, &v, sizeof v);
}

static inline vf vset(float x)
{
    return x - (vf){0};
}

static inline vf vselect(vi mask, vf yes, vf no)
{
    return (vf)((mask & (vi)yes) | (~mask & (vi)no));
}

/* a where a > b, else b (so b where either is a NaN): what the x86 instruction does in one step. */
static inline vf vmax(vf a, vf b)
{
#if defined(__AVX512F__)
    return (vf)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined(__AVX2__)
    return (vf)_mm256_max_ps((__m256)a, (__m256)b);
#elif defined(__SSE2__)
    return (vf)_mm_max_ps((__m128)a, (__m128)b);
#else
    return vselect(a > b, a, b);
#endif
}

/* a where a < b, else b. */
static inline vf vmin(vf a, vf b)
{
#if defined(__AVX512F__)
    return (vf)_mm512_min_ps((__m512)a, (__m512)b);
#elif defined(__AVX2__)
    return (vf)_mm256_min_ps((__m256)a, (__m256)b);
#elif defined(__SSE2__)
    return (vf)_mm_min_ps((__m128)a, (__m128)b);
#else
    return vselect(a < b, a, b);
#endif
}

/* 0, 1, 2, ... */
static inline vi viota(void)
{
#if VN == 16
    return (vi){0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
#elif VN == 8
    return (vi){0, 1, 2, 3, 4, 5, 6, 7};
#else
    return (vi){0, 1, 2, 3};
#endif
}

/* Lane i of the result is lane i ^ w of v. */
static inline vf vswap(vf v, int w)
{
#if defined(__clang__)
    vf r;
    for (int i = 0; i < VN; i++)
        r[i] = v[i ^ w];
    return r;
#else
    return __builtin_shuffle(v, viota() ^ w);
#endif
}

/* Sum and maximum over the lanes, in a fixed order: halves onto each other. */
static inline float vsum(vf v)
{
#pragma GCC unroll 4
    for (int w = VN / 2; w; w /= 2)
        v = v + vswap(v, w);
    return v[0];
}

static inline float vhmax(vf v)
{
#pragma GCC unroll 4
    for (int w = VN / 2; w; w /= 2)
        v = vmax(v, vswap(v, w));
    return v[0];
}

/* e^x: 2^n * p(r), r in [-ln2/2, ln2/2], a polynomial of degree 6; error below 2 ulp.  Below -87.33
 * it is 0 (no denormals), above 88.72 it is +inf; a NaN stays one. */
static inline vf vexp(vf x)
{
    const vf lo = vset(-87.33654f), hi = vset(88.72283f);
    vf c = vmin(vmax(x, lo), hi);
    /* round(x / ln 2) by adding 1.5 * 2^23: the integer then stands in the low bits */
    vf t = c * 1.44269504f + 12582912.0f;
    vf n = t - 12582912.0f;
    vf r = c - n * 0.693359375f;
    r = r + n * 2.12194440e-4f;
    vf p = vset(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    /* 2^n in two factors, as n may be 128 */
    vi e = (vi)t - 0x4b400000;
    vi h = e >> 1;
    p = p * (vf)((h + 127) << 23) * (vf)((e - h + 127) << 23);
    p = vselect(x < lo, vset(0.0f), p);
    p = vselect(x > hi, vset(__builtin_inff()), p);
    return vselect(x != x, x, p);
}

#endif
