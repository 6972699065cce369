/* SPDX-License-Identifier: MIT */
/* Sixteen lanes of AVX-512, for the files that work on tiles.  Functions name the instructions they
 * want, so that files are compiled for the plain processor; callers look at the processor first. */
#ifndef DN_LANES_H
#define DN_LANES_H

#include <immintrin.h>
#include <stdint.h>

#define SIMD   __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,fma")))
#define SIMD16 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,fma,avx512bf16")))
#define INLINE static inline __attribute__((always_inline))

enum { LANES = 16 };

INLINE SIMD __m512 set(float x)
{
    return _mm512_set1_ps(x);
}

/* Lanes [0,n) of 16. */
INLINE SIMD __mmask16 lanes_below(int64_t n)
{
    return n >= LANES ? 0xFFFF : n <= 0 ? 0 : (__mmask16)((1u << n) - 1);
}

/* 2^x: a polynomial of the fraction, scaled by the whole part.  -inf gives 0, and a NaN stays one.
 * c has the coefficients, the highest first; degree is a constant. */
INLINE SIMD __m512 exp2_lanes(__m512 x, const float *c, const int degree)
{
    const __m512 f = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
    __m512 p = set(c[0]);
#pragma GCC unroll 5
    for (int i = 1; i <= degree; i++)
        p = _mm512_fmadd_ps(p, f, set(c[i]));
    return _mm512_scalef_ps(p, x); /* times 2^floor(x) */
}

/* For bf16 (relative error 2.6e-6) and f32 (7.5e-8). */
enum { EXP2_BF16 = 4, EXP2_F32 = 5 };
static const float exp2_bf16[] = {1.353416802e-02f, 5.201146186e-02f, 2.414427550e-01f,
                                  6.930038352e-01f, 1.000002593e+00f};
static const float exp2_f32[] = {1.877576686e-03f, 8.989340231e-03f, 5.582631776e-02f,
                                 2.401536172e-01f, 6.931530732e-01f, 9.999999251e-01f};

/* Two rows of 16 as bf16: the first in the lower half. */
INLINE SIMD16 __m512i two_rows(__m512 first, __m512 second)
{
    return (__m512i)_mm512_cvtne2ps_pbh(second, first);
}

/* The same with the values of both rows side by side, lane by lane. */
INLINE SIMD __m512i zip_rows(__m512i rows)
{
    const __m512i lo = _mm512_cvtepu16_epi32(_mm512_castsi512_si256(rows));
    const __m512i hi = _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(rows, 1));
    return _mm512_or_si512(lo, _mm512_slli_epi32(hi, 16));
}

/* The 16x16 matrix of the rows in r, turned: rows of pairs, of fours, then blocks of four. */
INLINE SIMD void transpose(__m512 *r)
{
    __m512 t[16];
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
    }
    for (int i = 0; i < 16; i += 4)
        for (int j = 0; j < 2; j++) {
            r[i + 2 * j] = _mm512_shuffle_ps(t[i + j], t[i + j + 2], 0x44);
            r[i + 2 * j + 1] = _mm512_shuffle_ps(t[i + j], t[i + j + 2], 0xEE);
        }
    for (int i = 0; i < 4; i++) {
        t[i] = _mm512_shuffle_f32x4(r[i], r[i + 4], 0x88);
        t[i + 4] = _mm512_shuffle_f32x4(r[i], r[i + 4], 0xDD);
        t[i + 8] = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0x88);
        t[i + 12] = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0xDD);
    }
    for (int i = 0; i < 4; i++) {
        r[i] = _mm512_shuffle_f32x4(t[i], t[i + 8], 0x88);
        r[i + 8] = _mm512_shuffle_f32x4(t[i], t[i + 8], 0xDD);
        r[i + 4] = _mm512_shuffle_f32x4(t[i + 4], t[i + 12], 0x88);
        r[i + 12] = _mm512_shuffle_f32x4(t[i + 4], t[i + 12], 0xDD);
    }
}

#endif
