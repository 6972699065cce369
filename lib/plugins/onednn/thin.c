/* SPDX-License-Identifier: MIT */
/* Thin sums in AVX-512.  Nothing wide is packed: two rows are zipped into pairs in registers, 16
 * columns at a time, and meet the pairs of the thin factor, which come from the nearest cache one
 * value in all lanes.  Rows go by in blocks, so that a wide row is read from far away once. */
#include "thin.h"

#include <string.h>

#include "lanes.h"

enum { BLOCK = 64 /* rows */, PAIRS = BLOCK / 2 };

/* Columns [0,16) of two rows side by side; next NULL: zeros. */
INLINE SIMD __m512i zip(const uint16_t *row, const uint16_t *next, __mmask16 real)
{
    const __m512i lo = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(real, row));
    if (!next)
        return lo;
    const __m512i hi = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(real, next));
    return _mm512_or_si512(lo, _mm512_slli_epi32(hi, 16));
}

/* nr thin values by nv registers of columns from j on: adds a block of rows to sum[nr][pitch]. */
INLINE SIMD16 void block(const int nr, const int nv, const uint32_t *thin, const uint16_t *wide,
                         int64_t ld, int64_t rows, int64_t n, float *sum, int64_t pitch)
{
    __m512 acc[16];
    __mmask16 real[4];
    for (int v = 0; v < nv; v++)
        real[v] = lanes_below(n - v * LANES);
#pragma GCC unroll 16
    for (int i = 0; i < nr * nv; i++)
        acc[i] = _mm512_loadu_ps(sum + i / nv * pitch + i % nv * LANES);
    for (int64_t t = 0; t < rows; t += 2, wide += 2 * ld, thin += LANES) {
        const uint16_t *next = t + 1 < rows ? wide + ld : NULL;
        __m512i x[4];
#pragma GCC unroll 4
        for (int v = 0; v < nv; v++)
            x[v] = zip(wide + v * LANES, next ? next + v * LANES : NULL, real[v]);
#pragma GCC unroll 16
        for (int i = 0; i < nr * nv; i++)
            acc[i] = _mm512_dpbf16_ps(acc[i], (__m512bh)x[i % nv],
                                      (__m512bh)_mm512_set1_epi32((int)thin[i / nv]));
    }
#pragma GCC unroll 16
    for (int i = 0; i < nr * nv; i++)
        _mm512_storeu_ps(sum + i / nv * pitch + i % nv * LANES, acc[i]);
}

typedef void block_fn(const uint32_t *thin, const uint16_t *wide, int64_t ld, int64_t rows,
                      int64_t n, float *sum, int64_t pitch);

#define BLOCK_OF(nr, nv)                                                                           \
    static SIMD16 void block_##nr(const uint32_t *thin, const uint16_t *wide, int64_t ld,          \
                                  int64_t rows, int64_t n, float *sum, int64_t pitch)              \
    {                                                                                              \
        block(nr, nv, thin, wide, ld, rows, n, sum, pitch);                                        \
    }
BLOCK_OF(4, 4)
BLOCK_OF(8, 2)
BLOCK_OF(16, 1)

static int64_t padded(int64_t n)
{
    return dn_round_up(n, 4 * LANES);
}

int64_t dn_thin_bytes(int64_t r, int64_t n)
{
    return dn_round_up(r, LANES) * (PAIRS + padded(n)) * 4;
}

/* C from the sums, 16 columns at a time. */
static SIMD void finish(const dn_thin *t, const float *sum, int64_t pitch)
{
    const __m512 alpha = set(t->alpha);
    for (int64_t i = 0; i < t->r; i += LANES)
        for (int64_t j = 0; j < t->n; j += LANES) {
            __m512 x[LANES];
            for (int k = 0; k < LANES; k++)
                x[k] = _mm512_mul_ps(_mm512_loadu_ps(sum + (i + k) * pitch + j), alpha);
            if (t->turned)
                transpose(x);
            const int64_t rows = t->turned ? t->n - j : t->r - i;
            const __mmask16 real = lanes_below(t->turned ? t->r - i : t->n - j);
            float *to = t->c + (t->turned ? j * t->c_ld + i : i * t->c_ld + j);
#pragma GCC unroll 16
            for (int k = 0; k < LANES; k++)
                if (k < rows)
                    _mm512_mask_storeu_ps(to + k * t->c_ld, real, x[k]);
        }
}

SIMD void dn_thin_run(const dn_thin *t, void *scratch)
{
    const int64_t pitch = padded(t->n), thins = dn_ceil_div(t->r, LANES);
    uint32_t *thin = scratch;
    float *sum = (float *)scratch + thins * PAIRS * LANES;
    memset(sum, 0, (size_t)(thins * LANES * pitch) * sizeof *sum);
    for (int64_t t0 = 0; t0 < t->rows; t0 += BLOCK) {
        const int64_t rows = dn_min(BLOCK, t->rows - t0);
        for (int64_t b = 0; b < thins; b++)
            for (int64_t i = 0; i < rows; i += 2) {
                const uint16_t *row = t->thin + (t0 + i) * t->thin_ld + b * LANES;
                _mm512_storeu_si512(thin + b * PAIRS * LANES + i / 2 * LANES,
                                    zip(row, i + 1 < rows ? row + t->thin_ld : NULL,
                                        lanes_below(t->r - b * LANES)));
            }
        for (int64_t b = 0; b < thins; b++) {
            const int64_t r = t->r - b * LANES;
            block_fn *const fn = r <= 4 ? block_4 : r <= 8 ? block_8 : block_16;
            const int64_t step = r <= 4 ? 4 * LANES : r <= 8 ? 2 * LANES : LANES;
            for (int64_t j = 0; j < t->n; j += step)
                fn(thin + b * PAIRS * LANES, t->wide + t0 * t->wide_ld + j, t->wide_ld, rows,
                   t->n - j, sum + b * LANES * pitch + j, pitch);
        }
    }
    finish(t, sum, pitch);
}
