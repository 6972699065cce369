/* SPDX-License-Identifier: MIT */
/* Softmax of transposed tiles and its gradient in AVX-512. */
#include "softmax.h"

#include <math.h>
#include <string.h>

#include "lanes.h"

enum { WIDE = 4 /* registers of queries that are worked on together */ };

/* --- results in bf16 --- */

/* To nearest even, for results: unlike the instruction it keeps the smallest numbers. */
INLINE SIMD void put_bf16(uint16_t *to, __m512 x, __mmask16 m)
{
    const __m512i bits = (__m512i)x, one = _mm512_set1_epi32(1);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), one);
    __m512i up = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7FFF)));
    up = _mm512_mask_or_epi32(up, _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), bits,
                              _mm512_set1_epi32(0x400000));
    _mm256_mask_storeu_epi16(to, m, _mm512_cvtepi32_epi16(_mm512_srli_epi32(up, 16)));
}

/* --- forward --- */

/* New maxima of nv registers of queries; sums and results so far shrink where a maximum grew.
 * Gives the exponents' offsets, unit * max (0 where every score was -inf). */
INLINE SIMD void move_maxima(const int nv, const float *c, const int degree, const dn_scores *t,
                             const dn_running *r, int64_t q, __m512 *base)
{
    __m512 m[WIDE], old[WIDE];
    __mmask16 grew = 0;
    const __m512 unit = set(t->unit), none = set(-INFINITY);
    for (int v = 0; v < nv; v++)
        m[v] = old[v] = _mm512_loadu_ps(r->max + q + v * LANES);
    for (int64_t i = 0; i < t->keys; i++)
        for (int v = 0; v < nv; v++)
            m[v] = _mm512_max_ps(_mm512_loadu_ps(t->s + i * t->nq + q + v * LANES), m[v]);
    for (int v = 0; v < nv; v++) {
        base[v] = _mm512_maskz_mul_ps(_mm512_cmp_ps_mask(m[v], none, _CMP_NEQ_UQ), m[v], unit);
        grew |= _mm512_cmp_ps_mask(m[v], old[v], _CMP_NEQ_UQ);
        _mm512_storeu_ps(r->max + q + v * LANES, m[v]);
    }
    if (!grew)
        return;
    for (int v = 0; v < nv; v++) {
        const __m512 shrink = exp2_lanes(_mm512_fmsub_ps(old[v], unit, base[v]), c, degree);
        float *acc = r->acc + q + v * LANES, *sum = r->sum + q + v * LANES;
        _mm512_storeu_ps(sum, _mm512_mul_ps(_mm512_loadu_ps(sum), shrink));
        for (int64_t j = 0; j < r->d; j++)
            _mm512_storeu_ps(acc + j * t->nq,
                             _mm512_mul_ps(_mm512_loadu_ps(acc + j * t->nq), shrink));
    }
}

INLINE SIMD16 void forward_bf16_lanes(const int nv, const dn_scores *t, const dn_running *r,
                                      const dn_tile_layout *b, uint16_t *p, int64_t q)
{
    __m512 base[WIDE], sum[WIDE];
    uint16_t *to[WIDE];
    const __m512 unit = set(t->unit);
    move_maxima(nv, exp2_bf16, EXP2_BF16, t, r, q, base);
    for (int v = 0; v < nv; v++) {
        sum[v] = _mm512_loadu_ps(r->sum + q + v * LANES);
        to[v] = p + dn_tile_panel(b, q + v * LANES);
    }
    for (int64_t i = 0; i < t->keys; i += 2) {
        const float *s = t->s + i * t->nq + q;
        const __mmask16 both = i + 1 < t->keys ? 0xFFFF : 0;
        for (int v = 0; v < nv; v++) {
            const __m512 x = _mm512_loadu_ps(s + v * LANES);
            const __m512 y = _mm512_maskz_loadu_ps(both, s + t->nq + v * LANES);
            const __m512 e = exp2_lanes(_mm512_fmsub_ps(x, unit, base[v]), exp2_bf16, EXP2_BF16);
            const __m512 f = _mm512_maskz_mov_ps(
                both, exp2_lanes(_mm512_fmsub_ps(y, unit, base[v]), exp2_bf16, EXP2_BF16));
            sum[v] = _mm512_add_ps(sum[v], _mm512_add_ps(e, f));
            _mm512_storeu_si512(to[v] + i * b->cols, zip_rows(two_rows(e, f)));
        }
    }
    for (int64_t i = (t->keys + 1) / 2 * 2; i < b->depth; i += 2)
        for (int v = 0; v < nv; v++)
            _mm512_storeu_si512(to[v] + i * b->cols, _mm512_setzero_si512());
    for (int v = 0; v < nv; v++)
        _mm512_storeu_ps(r->sum + q + v * LANES, sum[v]);
}

INLINE SIMD void forward_f32_lanes(const int nv, const dn_scores *t, const dn_running *r,
                                   const dn_tile_layout *b, float *p, int64_t q)
{
    __m512 base[WIDE], sum[WIDE];
    float *to[WIDE];
    const __m512 unit = set(t->unit);
    move_maxima(nv, exp2_f32, EXP2_F32, t, r, q, base);
    for (int v = 0; v < nv; v++) {
        sum[v] = _mm512_loadu_ps(r->sum + q + v * LANES);
        to[v] = p + dn_tile_panel(b, q + v * LANES);
    }
    for (int64_t i = 0; i < t->keys; i++)
        for (int v = 0; v < nv; v++) {
            const __m512 x = _mm512_loadu_ps(t->s + i * t->nq + q + v * LANES);
            const __m512 e = exp2_lanes(_mm512_fmsub_ps(x, unit, base[v]), exp2_f32, EXP2_F32);
            sum[v] = _mm512_add_ps(sum[v], e);
            _mm512_storeu_ps(to[v] + i * b->cols, e);
        }
    for (int64_t i = t->keys; i < b->depth; i++)
        for (int v = 0; v < nv; v++)
            _mm512_storeu_ps(to[v] + i * b->cols, _mm512_setzero_ps());
    for (int v = 0; v < nv; v++)
        _mm512_storeu_ps(r->sum + q + v * LANES, sum[v]);
}

static SIMD16 void forward_bf16(const dn_scores *t, const dn_running *r, const dn_tile_layout *b,
                                void *p)
{
    int64_t q = 0;
    for (; q + WIDE * LANES <= t->nq; q += WIDE * LANES)
        forward_bf16_lanes(WIDE, t, r, b, p, q);
    for (; q < t->nq; q += LANES)
        forward_bf16_lanes(1, t, r, b, p, q);
}

static SIMD void forward_f32(const dn_scores *t, const dn_running *r, const dn_tile_layout *b,
                             void *p)
{
    int64_t q = 0;
    for (; q + WIDE * LANES <= t->nq; q += WIDE * LANES)
        forward_f32_lanes(WIDE, t, r, b, p, q);
    for (; q < t->nq; q += LANES)
        forward_f32_lanes(1, t, r, b, p, q);
}

/* --- backward --- */

/* 16 queries of one key: P, and dS in *ds. */
INLINE SIMD __m512 gradient_lanes(const float *s, const float *dp, __m512 unit, __m512 lse2,
                                  __m512 delta, __m512 *ds)
{
    const __m512 p =
        exp2_lanes(_mm512_fmsub_ps(_mm512_loadu_ps(s), unit, lse2), exp2_bf16, EXP2_BF16);
    *ds = _mm512_mul_ps(p, _mm512_sub_ps(_mm512_loadu_ps(dp), delta));
    return p;
}

SIMD16 void dn_softmax_backward(const dn_scores *t, const float *dp, const float *lse2,
                                const float *delta, const dn_tile_layout *b, uint16_t *p_out,
                                uint16_t *ds_out, uint16_t *packed)
{
    const __m512 unit = set(t->unit);
    const int64_t nq = t->nq;
    for (int64_t q = 0; q < nq; q += LANES) {
        const __m512 l = _mm512_loadu_ps(lse2 + q), e = _mm512_loadu_ps(delta + q);
        uint16_t *p = p_out + q, *ds = ds_out + q, *to = packed + dn_tile_panel(b, q);
        for (int64_t i = 0; i + 1 < t->keys; i += 2) {
            const float *si = t->s + i * nq + q, *di = dp + i * nq + q;
            __m512 x, y;
            const __m512 v = gradient_lanes(si, di, unit, l, e, &x);
            const __m512 w = gradient_lanes(si + nq, di + nq, unit, l, e, &y);
            const __m512i ps = two_rows(v, w), dss = two_rows(x, y);
            _mm256_storeu_si256((void *)(p + i * nq), _mm512_castsi512_si256(ps));
            _mm256_storeu_si256((void *)(p + (i + 1) * nq), _mm512_extracti64x4_epi64(ps, 1));
            _mm256_storeu_si256((void *)(ds + i * nq), _mm512_castsi512_si256(dss));
            _mm256_storeu_si256((void *)(ds + (i + 1) * nq), _mm512_extracti64x4_epi64(dss, 1));
            _mm512_storeu_si512(to + i * b->cols, zip_rows(dss));
        }
        for (int64_t i = t->keys / 2 * 2; i < b->depth; i += 2) {
            __m512 x = _mm512_setzero_ps(), v = x;
            if (i < t->keys) /* the last of an odd number */
                v = gradient_lanes(t->s + i * nq + q, dp + i * nq + q, unit, l, e, &x);
            for (int64_t h = i; h < i + 2 && h < t->pad_keys; h++) {
                const __mmask16 real = h < t->keys ? 0xFFFF : 0;
                put_bf16(p + h * nq, _mm512_maskz_mov_ps(real, v), 0xFFFF);
                put_bf16(ds + h * nq, _mm512_maskz_mov_ps(real, x), 0xFFFF);
            }
            _mm512_storeu_si512(to + i * b->cols, zip_rows(two_rows(x, _mm512_setzero_ps())));
        }
    }
}

void dn_softmax_causal(const dn_scores *t, int64_t k0, int64_t q0)
{
    for (int64_t i = 0; i < t->keys; i++) {
        const int64_t hidden = dn_min(k0 + i - q0, t->nq);
        for (int64_t j = 0; j < hidden; j++)
            t->s[i * t->nq + j] = -INFINITY;
    }
}

/* --- results --- */

/* x [d][nq] -> rows, each lane of queries times its factor. */
INLINE SIMD void turn_lanes(const bool bf16, const float *x, int64_t d, int64_t nq, int64_t q,
                            int64_t rows, __m512 factor, void *to, int64_t ld)
{
    for (int64_t j = 0; j < d; j += LANES) {
        __m512 r[16];
        const __mmask16 real = lanes_below(d - j);
        for (int i = 0; i < 16; i++)
            r[i] = j + i < d ? _mm512_mul_ps(_mm512_loadu_ps(x + (j + i) * nq + q), factor)
                             : _mm512_setzero_ps();
        transpose(r);
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++) {
            if (q + i >= rows)
                break;
            if (bf16)
                put_bf16((uint16_t *)to + (q + i) * ld + j, r[i], real);
            else
                _mm512_mask_storeu_ps((float *)to + (q + i) * ld + j, real, r[i]);
        }
    }
}

INLINE SIMD void finish_lanes(const bool bf16, const dn_running *r, int64_t nq, int64_t rows,
                              float unit, void *o, int64_t ld, float *lse)
{
    for (int64_t q = 0; q < rows; q += LANES) {
        const __m512 inverse = _mm512_div_ps(set(1.0f), _mm512_loadu_ps(r->sum + q));
        turn_lanes(bf16, r->acc, r->d, nq, q, rows, inverse, o, ld);
    }
    for (int64_t q = 0; q < rows; q++)
        lse[q] = r->max[q] * (unit * DN_LN2) + logf(r->sum[q]);
}

SIMD void dn_softmax_turn(const float *x, int64_t d, int64_t nq, int64_t rows, float scale,
                          uint16_t *to, int64_t ld)
{
    for (int64_t q = 0; q < rows; q += LANES)
        turn_lanes(true, x, d, nq, q, rows, set(scale), to, ld);
}

SIMD void dn_softmax_store(const float *x, int64_t d, int64_t rows, float scale, uint16_t *to,
                           int64_t ld)
{
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < d; j += LANES) {
            const __mmask16 real = lanes_below(d - j);
            const __m512 v = _mm512_maskz_loadu_ps(real, x + i * d + j);
            put_bf16(to + i * ld + j, _mm512_mul_ps(v, set(scale)), real);
        }
}

INLINE SIMD __m512 widen(const uint16_t *p, __mmask16 m)
{
    return (__m512)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(m, p)), 16);
}

SIMD float dn_softmax_dot(const uint16_t *a, const uint16_t *b, int64_t n)
{
    __m512 sum = _mm512_setzero_ps();
    for (int64_t i = 0; i < n; i += LANES) {
        const __mmask16 real = lanes_below(n - i);
        sum = _mm512_fmadd_ps(widen(a + i, real), widen(b + i, real), sum);
    }
    return _mm512_reduce_add_ps(sum);
}

/* --- the two types --- */

static SIMD void finish_bf16(const dn_running *r, int64_t nq, int64_t rows, float unit, void *o,
                             int64_t ld, float *lse)
{
    finish_lanes(true, r, nq, rows, unit, o, ld, lse);
}

static SIMD void finish_f32(const dn_running *r, int64_t nq, int64_t rows, float unit, void *o,
                            int64_t ld, float *lse)
{
    finish_lanes(false, r, nq, rows, unit, o, ld, lse);
}

const dn_softmax_fn dn_softmax_f32 = {.forward = forward_f32, .finish = finish_f32};
const dn_softmax_fn dn_softmax_bf16 = {.forward = forward_bf16, .finish = finish_bf16};
