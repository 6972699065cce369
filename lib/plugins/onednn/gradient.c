/* SPDX-License-Identifier: MIT */
/* A tile of attention's gradient in AVX-512: eight keys at a time go through scores, probabilities
 * and their gradients, two keys by 64 queries in registers, and then into dk and dv, eight keys by
 * up to 48 values in registers.  Only dS leaves the nearest cache, for the product that gives dq.
 */
#include "gradient.h"

#include <string.h>

#include "lanes.h"

enum { KEYS = DN_GRADIENT_KEYS, WIDE = 4 /* registers of queries */, MOST = 48 /* of d at once */ };

dn_tile_layout dn_gradient_columns(int64_t depth, int64_t nq)
{
    return (dn_tile_layout){.cols = nq, .pair = 2, .depth = depth, .bytes = depth * nq * 2};
}

dn_tile_layout dn_gradient_rows(int64_t nq, int64_t d)
{
    const int64_t cols = dn_round_up(d, LANES);
    return (dn_tile_layout){.cols = cols, .pair = 2, .depth = nq, .bytes = nq * cols * 2};
}

int64_t dn_gradient_bytes(int64_t nq)
{
    return 2 * KEYS * nq * 2;
}

/* Keys i and i + 1 by nv registers of queries from q on: P and dS to rows of nq, dS also packed,
 * to[n] for register n. */
INLINE SIMD16 void two_keys(const int nv, const dn_gradient *g, int64_t i, int64_t q, uint16_t *p,
                            uint16_t *ds, uint16_t *const *to)
{
    const int64_t words = g->depth / 2;
    const uint32_t *k = (const uint32_t *)(const void *)g->k + i * words;
    const uint32_t *v = (const uint32_t *)(const void *)g->v + i * words;
    const uint32_t *x = (const uint32_t *)g->q_columns + q;
    const uint32_t *y = (const uint32_t *)g->do_columns + q;
    __m512 s[2][WIDE], e[2][WIDE];
#pragma GCC unroll 4
    for (int n = 0; n < nv; n++)
        s[0][n] = s[1][n] = e[0][n] = e[1][n] = _mm512_setzero_ps();
    for (int64_t c = 0; c < words; c++, x += g->nq, y += g->nq) {
        const __m512bh k0 = (__m512bh)_mm512_set1_epi32((int)k[c]);
        const __m512bh k1 = (__m512bh)_mm512_set1_epi32((int)k[words + c]);
        const __m512bh v0 = (__m512bh)_mm512_set1_epi32((int)v[c]);
        const __m512bh v1 = (__m512bh)_mm512_set1_epi32((int)v[words + c]);
#pragma GCC unroll 4
        for (int n = 0; n < nv; n++) {
            const __m512bh a = (__m512bh)_mm512_loadu_si512(x + n * LANES);
            const __m512bh b = (__m512bh)_mm512_loadu_si512(y + n * LANES);
            s[0][n] = _mm512_dpbf16_ps(s[0][n], a, k0);
            s[1][n] = _mm512_dpbf16_ps(s[1][n], a, k1);
            e[0][n] = _mm512_dpbf16_ps(e[0][n], b, v0);
            e[1][n] = _mm512_dpbf16_ps(e[1][n], b, v1);
        }
    }
    const __mmask16 real = i + 1 < g->keys ? 0xFFFF : 0; /* of the second; the first is there */
    const __m512 unit = set(g->unit);
    const float *c = exp2_bf16;
    __asm__("" : "+r"(c)); /* or the coefficients take the registers of the loop above */
#pragma GCC unroll 4
    for (int n = 0; n < nv; n++) {
        const int64_t at = q + n * LANES;
        const __m512 lse2 = _mm512_loadu_ps(g->lse2 + at), delta = _mm512_loadu_ps(g->delta + at);
        const __m512 p0 = exp2_lanes(_mm512_fmsub_ps(s[0][n], unit, lse2), c, EXP2_BF16);
        const __m512 p1 = exp2_lanes(_mm512_fmsub_ps(s[1][n], unit, lse2), c, EXP2_BF16);
        const __m512 d0 = _mm512_mul_ps(p0, _mm512_sub_ps(e[0][n], delta));
        const __m512 d1 = _mm512_maskz_mul_ps(real, p1, _mm512_sub_ps(e[1][n], delta));
        const __m512i ps = two_rows(p0, p1), dss = two_rows(d0, d1);
        _mm256_storeu_si256((void *)(p + at), _mm512_castsi512_si256(ps));
        _mm256_storeu_si256((void *)(p + g->nq + at), _mm512_extracti64x4_epi64(ps, 1));
        _mm256_storeu_si256((void *)(ds + at), _mm512_castsi512_si256(dss));
        _mm256_storeu_si256((void *)(ds + g->nq + at), _mm512_extracti64x4_epi64(dss, 1));
        _mm512_storeu_si512(to[n] + i * g->layout->cols, zip_rows(dss));
    }
}

/* sum[KEYS][ld] += a[KEYS][nq] b[nq][...] for nv registers of columns, the last of them half one.
 */
INLINE SIMD16 void eight_keys(const int nv, const bool half, const uint32_t *a, int64_t nq,
                              const uint32_t *b, int64_t pitch, float *sum, int64_t ld,
                              int64_t width)
{
    const int whole = half ? nv - 1 : nv;
    const __mmask16 last = lanes_below(width - (nv - 1) * LANES);
    __m512 acc[KEYS][3];
    __m256 acc_half[KEYS];
#pragma GCC unroll 8
    for (int r = 0; r < KEYS; r++) {
#pragma GCC unroll 3
        for (int n = 0; n < whole; n++)
            acc[r][n] =
                _mm512_maskz_loadu_ps(n == nv - 1 ? last : 0xFFFF, sum + r * ld + n * LANES);
        if (half)
            acc_half[r] = _mm256_maskz_loadu_ps((__mmask8)last, sum + r * ld + whole * LANES);
    }
    for (int64_t t = 0; t < nq / 2; t++, b += pitch) {
        __m512bh x[3];
        __m256bh y;
#pragma GCC unroll 3
        for (int n = 0; n < whole; n++)
            x[n] = (__m512bh)_mm512_loadu_si512(b + n * LANES);
        if (half)
            y = (__m256bh)_mm256_loadu_si256((const void *)(b + whole * LANES));
#pragma GCC unroll 8
        for (int r = 0; r < KEYS; r++) {
            const __m512i one = _mm512_set1_epi32((int)a[r * (nq / 2) + t]);
#pragma GCC unroll 3
            for (int n = 0; n < whole; n++)
                acc[r][n] = _mm512_dpbf16_ps(acc[r][n], x[n], (__m512bh)one);
            if (half)
                acc_half[r] =
                    _mm256_dpbf16_ps(acc_half[r], y, (__m256bh)_mm512_castsi512_si256(one));
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < KEYS; r++) {
#pragma GCC unroll 3
        for (int n = 0; n < whole; n++)
            _mm512_mask_storeu_ps(sum + r * ld + n * LANES, n == nv - 1 ? last : 0xFFFF, acc[r][n]);
        if (half)
            _mm256_mask_storeu_ps(sum + r * ld + whole * LANES, (__mmask8)last, acc_half[r]);
    }
}

typedef void sum_fn(const uint32_t *a, int64_t nq, const uint32_t *b, int64_t pitch, float *sum,
                    int64_t ld, int64_t width);

#define SUM(name, nv, half)                                                                        \
    static SIMD16 void name(const uint32_t *a, int64_t nq, const uint32_t *b, int64_t pitch,       \
                            float *sum, int64_t ld, int64_t width)                                 \
    {                                                                                              \
        eight_keys(nv, half, a, nq, b, pitch, sum, ld, width);                                     \
    }
SUM(sum_8, 1, true)
SUM(sum_16, 1, false)
SUM(sum_24, 2, true)
SUM(sum_32, 2, false)
SUM(sum_40, 3, true)
SUM(sum_48, 3, false)

static sum_fn *const sums[] = {sum_8, sum_16, sum_24, sum_32, sum_40, sum_48};

/* Columns are cut into even parts of at most MOST. */
static void add_rows(const dn_gradient *g, const uint16_t *a, const void *b, float *sum)
{
    const int64_t step = dn_round_up(dn_ceil_div(g->d, dn_ceil_div(g->d, MOST)), 8);
    for (int64_t j = 0; j < g->d; j += step) {
        const int64_t width = dn_min(step, g->d - j);
        sums[(width - 1) / 8]((const uint32_t *)(const void *)a, g->nq, (const uint32_t *)b + j,
                              dn_round_up(g->d, LANES), sum + j, g->d, width);
    }
}

SIMD16 void dn_gradient_run(const dn_gradient *g)
{
    uint16_t *p = g->work, *ds = p + KEYS * g->nq;
    for (int64_t i = 0; i < g->keys; i += KEYS) {
        if (i + KEYS > g->keys)
            memset(p, 0, (size_t)dn_gradient_bytes(g->nq));
        for (int64_t q = 0; q < g->nq;) {
            const bool wide = q + WIDE * LANES <= g->nq;
            uint16_t *to[WIDE];
            for (int n = 0; n < (wide ? WIDE : 1); n++)
                to[n] = (uint16_t *)g->ds + dn_tile_panel(g->layout, q + n * LANES);
            for (int64_t j = 0; j < KEYS && i + j < g->keys; j += 2) {
                if (wide)
                    two_keys(WIDE, g, i + j, q, p + j * g->nq, ds + j * g->nq, to);
                else
                    two_keys(1, g, i + j, q, p + j * g->nq, ds + j * g->nq, to);
            }
            q += wide ? WIDE * LANES : LANES;
        }
        add_rows(g, p, g->do_rows, g->dv + i * g->d);
        add_rows(g, ds, g->q_rows, g->dk + i * g->d);
    }
    for (int64_t i = dn_round_up(g->keys, 2); i < g->layout->depth; i += 2)
        for (int64_t q = 0; q < g->nq; q += LANES)
            _mm512_storeu_si512((uint16_t *)g->ds + dn_tile_panel(g->layout, q) +
                                    i * g->layout->cols,
                                _mm512_setzero_si512());
}
