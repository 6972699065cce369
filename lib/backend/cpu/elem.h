/* SPDX-License-Identifier: MIT */
/* How elements are stored, and loops over them: the only place where a NAME_tmpl.c meets its
 * storage type.  It is compiled once per type, with SLR_ELEM being f32 or bf16; arithmetic is f32
 * in registers either way.  Rounding to bf16 is to nearest even, and a NaN stays one; the
 * instruction of AVX512_BF16 takes numbers below 2^-126 for 0.  Included by NAME_tmpl.c only. */
#ifndef SLR_BACKEND_CPU_ELEM_H
#define SLR_BACKEND_CPU_ELEM_H

#include "backend/cpu/isa.h"

#if !defined(SLR_ELEM)
#error "compile with -DSLR_ELEM=f32 or bf16"
#endif

#define ALWAYS           static inline __attribute__((always_inline))

#define SLR_IS_BF16_f32  0
#define SLR_IS_BF16_bf16 1
#define SLR_BF16         SLR_ISA_CAT(SLR_IS_BF16, SLR_ELEM)

/* --- tails: the first n < VN lanes; the others are 0 */

ALWAYS vf vload_n(const float *p, int64_t n)
{
#if defined(__AVX512F__)
    return (vf)_mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p);
#else
    float t[VN] = {0};
    for (int64_t i = 0; i < n; i++)
        t[i] = p[i];
    return vload(t);
#endif
}

ALWAYS void vstore_n(float *p, vf v, int64_t n)
{
#if defined(__AVX512F__)
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), (__m512)v);
#else
    float t[VN];
    vstore(t, v);
    for (int64_t i = 0; i < n; i++)
        p[i] = t[i];
#endif
}

/* --- one register of bf16 */

typedef uint16_t vh __attribute__((vector_size(VN * 2)));
typedef uint32_t vu __attribute__((vector_size(VN * 4)));

ALWAYS vf widen(vh h)
{
#if defined(__AVX512F__)
    return (vf)_mm512_slli_epi32(_mm512_cvtepu16_epi32((__m256i)h), 16);
#elif defined(__AVX2__)
    return (vf)_mm256_slli_epi32(_mm256_cvtepu16_epi32((__m128i)h), 16);
#else
    return (vf)(__builtin_convertvector(h, vu) << 16);
#endif
}

ALWAYS vh narrow(vf v)
{
#if defined(__AVX512BF16__)
    return (vh)_mm512_cvtneps_pbh((__m512)v);
#elif defined(__AVX512F__)
    const __m512i u = (__m512i)v, top = _mm512_srli_epi32(u, 16);
    const __m512i odd = _mm512_and_si512(top, _mm512_set1_epi32(1));
    __m512i r = _mm512_add_epi32(_mm512_add_epi32(u, _mm512_set1_epi32(0x7fff)), odd);
    r = _mm512_srli_epi32(r, 16);
    r = _mm512_mask_or_epi32(r, _mm512_cmp_ps_mask((__m512)v, (__m512)v, _CMP_UNORD_Q), top,
                             _mm512_set1_epi32(0x40));
    return (vh)_mm512_cvtepi32_epi16(r);
#else
    const vu u = (vu)v, top = u >> 16, nan = (vu)(v != v);
    const vu r = (nan & (top | 0x40)) | (~nan & ((u + 0x7fff + (top & 1)) >> 16));
#if defined(__AVX2__)
    const __m128i lo = _mm256_castsi256_si128((__m256i)r);
    return (vh)_mm_packus_epi32(lo, _mm256_extracti128_si256((__m256i)r, 1));
#else
    return __builtin_convertvector(r, vh);
#endif
#endif
}

ALWAYS vf ld_half(const uint16_t *p)
{
    vh h;
    memcpy(&h, p, sizeof h);
    return widen(h);
}

ALWAYS void st_half(uint16_t *p, vf v)
{
    vh h = narrow(v);
    memcpy(p, &h, sizeof h);
}

ALWAYS vf ld_half_n(const uint16_t *p, int64_t n)
{
#if defined(__AVX512F__)
    return widen((vh)_mm256_maskz_loadu_epi16((__mmask16)((1u << n) - 1), p));
#else
    uint16_t t[VN] = {0};
    for (int64_t i = 0; i < n; i++)
        t[i] = p[i];
    return ld_half(t);
#endif
}

ALWAYS void st_half_n(uint16_t *p, vf v, int64_t n)
{
#if defined(__AVX512F__)
    _mm256_mask_storeu_epi16(p, (__mmask16)((1u << n) - 1), (__m256i)narrow(v));
#else
    uint16_t t[VN];
    st_half(t, v);
    for (int64_t i = 0; i < n; i++)
        p[i] = t[i];
#endif
}

/* --- one register of elements */

#if SLR_BF16

typedef uint16_t elem;

ALWAYS vf ld(const elem *p)
{
    return ld_half(p);
}

ALWAYS void st(elem *p, vf v)
{
    st_half(p, v);
}

ALWAYS vf ld_n(const elem *p, int64_t n)
{
    return ld_half_n(p, n);
}

ALWAYS void st_n(elem *p, vf v, int64_t n)
{
    st_half_n(p, v, n);
}

ALWAYS float get(const elem *p)
{
    uint32_t u = (uint32_t)*p << 16;
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

ALWAYS void put(elem *p, float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    *p = (elem)((f == f ? u + 0x7fff + (u >> 16 & 1) : u | 0x400000) >> 16);
}

#else

typedef float elem;

ALWAYS vf ld(const elem *p)
{
    return vload(p);
}

ALWAYS void st(elem *p, vf v)
{
    vstore(p, v);
}

ALWAYS vf ld_n(const elem *p, int64_t n)
{
    return vload_n(p, n);
}

ALWAYS void st_n(elem *p, vf v, int64_t n)
{
    vstore_n(p, v, n);
}

ALWAYS float get(const elem *p)
{
    return *p;
}

ALWAYS void put(elem *p, float f)
{
    *p = f;
}

#endif

/* 1 / x for normal x.  What is stored in bf16 does not need the last bits, which a division would
 * give at three times the price: right to 6e-5 there. */
ALWAYS vf vrecip(vf x)
{
#if SLR_BF16 && defined(__AVX512F__)
    return (vf)_mm512_rcp14_ps((__m512)x);
#elif SLR_BF16 && defined(__AVX2__)
    vf r = (vf)_mm256_rcp_ps((__m256)x);
    return r * (2.0f - x * r);
#else
    return 1.0f / x;
#endif
}

ALWAYS vf vabs(vf x)
{
    return (vf)((vi)x & 0x7fffffff);
}

/* y = f(x), y = f(a, b); f is inlined.  y may be one of the inputs. */
ALWAYS void map1(int64_t n, elem *y, const elem *x, vf (*f)(vf))
{
    int64_t i = 0;
    for (; i + VN <= n; i += VN)
        st(y + i, f(ld(x + i)));
    if (i < n)
        st_n(y + i, f(ld_n(x + i, n - i)), n - i);
}

ALWAYS void map2(int64_t n, elem *y, const elem *a, const elem *b, vf (*f)(vf, vf))
{
    int64_t i = 0;
    for (; i + VN <= n; i += VN)
        st(y + i, f(ld(a + i), ld(b + i)));
    if (i < n)
        st_n(y + i, f(ld_n(a + i, n - i), ld_n(b + i, n - i)), n - i);
}

#endif
