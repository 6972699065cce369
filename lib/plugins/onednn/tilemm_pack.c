/* SPDX-License-Identifier: MIT */
/* Packs the second operand of products of tiles: panels of columns, k running down each, and for
 * bf16 two values of k in one word.  Refuses to know what the values mean. */
#include <string.h>

#include "lanes.h"
#include "tilemm.h"

static uint32_t *word_at(const dn_tile_layout *b, void *dst, int64_t k, int64_t n)
{
    return (uint32_t *)dst +
           (n / b->cols * b->col_step + n % b->cols * b->pair + k / b->pair * b->cols * b->pair) /
               b->pair;
}

/* to[j] = a[j] | b[j] << 16 for 16 columns: two rows of bf16 side by side; b NULL: zeros. */
INLINE SIMD __m512i zip(const uint16_t *a, const uint16_t *b, __mmask16 real)
{
    const __m512i lo = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(real, a));
    if (!b)
        return lo;
    const __m512i hi = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(real, b));
    return _mm512_or_si512(lo, _mm512_slli_epi32(hi, 16));
}

SIMD void dn_tile_pack_rows(const dn_tile_layout *b, int64_t width, void *dst, const void *src,
                            int64_t ld, int64_t k, int64_t n)
{
    for (int64_t j = 0; j < dn_round_up(width, b->cols); j += LANES) {
        const __mmask16 real = lanes_below(n - j);
        uint32_t *to = word_at(b, dst, 0, j);
        for (int64_t i = 0; i < b->depth; i += b->pair, to += b->cols) {
            const uint16_t *half = (const uint16_t *)src + i * ld + j;
            __m512i x = _mm512_setzero_si512();
            if (i < k && real)
                x = b->pair == 2 ? zip(half, i + 1 < k ? half + ld : NULL, real)
                                 : _mm512_maskz_loadu_epi32(real, (const float *)src + i * ld + j);
            _mm512_storeu_si512(to, x);
        }
    }
}

/* Sixteen rows of src become sixteen columns, by squares of sixteen words. */
SIMD void dn_tile_pack_columns(const dn_tile_layout *b, int64_t width, void *dst, const void *src,
                               int64_t ld, int64_t k, int64_t n)
{
    const int64_t words = b->depth / b->pair, size = b->pair == 2 ? 2 : 4;
    for (int64_t j = 0; j < dn_round_up(width, b->cols); j += LANES) {
        uint32_t *to = word_at(b, dst, 0, j);
        for (int64_t w = 0; w < words; w += LANES) {
            /* in halves of words, as the last value of an odd k is half a pair */
            const int64_t halves = (k - w * b->pair) * size / 2;
            const __mmask32 real = halves >= 2 * LANES ? 0xFFFFFFFFu
                                   : halves <= 0       ? 0
                                                       : (1u << halves) - 1;
            __m512 x[LANES];
            for (int64_t i = 0; i < LANES; i++) {
                const char *row = (const char *)src + ((j + i) * ld + w * b->pair) * size;
                x[i] = j + i < n && real ? (__m512)_mm512_maskz_loadu_epi16(real, row)
                                         : _mm512_setzero_ps();
            }
            transpose(x);
            for (int64_t i = 0; i < dn_min(LANES, words - w); i++)
                _mm512_storeu_ps(to + (w + i) * b->cols, x[i]);
        }
    }
}
