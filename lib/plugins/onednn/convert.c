/* SPDX-License-Identifier: MIT */
/* Conversions between float types for AVX-512.  Whole vectors first, then one masked.  Integer
 * arithmetic rounds to bf16, since the instruction for it would flush denormal numbers. */
#include "convert.h"

#include <immintrin.h>
#include <string.h>

#define WIDE __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl")))

enum { LANES = 16, GRAIN = 1 << 16 };

size_t dn_size(uint32_t dtype)
{
    static const unsigned char size[] = {
        [SDLORA_F32] = 4, [SDLORA_F16] = 2, [SDLORA_BF16] = 2, [SDLORA_F64] = 8};
    return dtype < sizeof size ? size[dtype] : 0;
}

/* --- 16 lanes of a type, of which `mask` exist */

WIDE static inline __m512 load_f32(const unsigned char *p, __mmask16 mask)
{
    return _mm512_maskz_loadu_ps(mask, p);
}

WIDE static inline __m512 load_f16(const unsigned char *p, __mmask16 mask)
{
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, p));
}

WIDE static inline __m512 load_bf16(const unsigned char *p, __mmask16 mask)
{
    __m512i v = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(v, 16));
}

WIDE static inline __m512 load_f64(const unsigned char *p, __mmask16 mask)
{
    __m256 lo = _mm512_cvtpd_ps(_mm512_maskz_loadu_pd((__mmask8)mask, p));
    __m256 hi = _mm512_cvtpd_ps(_mm512_maskz_loadu_pd((__mmask8)(mask >> 8), p + 64));
    return _mm512_insertf32x8(_mm512_castps256_ps512(lo), hi, 1);
}

WIDE static inline void store_f32(unsigned char *p, __mmask16 mask, __m512 v)
{
    _mm512_mask_storeu_ps(p, mask, v);
}

WIDE static inline void store_bf16(unsigned char *p, __mmask16 mask, __m512 v)
{
    const __m512i bits = _mm512_castps_si512(v);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    __m512i r = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    /* the carry would turn some NaNs into infinities: keep their sign, make them quiet */
    const __mmask16 nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
    r = _mm512_mask_or_epi32(r, nan, bits, _mm512_set1_epi32(0x00400000));
    _mm256_mask_storeu_epi16(p, mask, _mm512_cvtepi32_epi16(_mm512_srli_epi32(r, 16)));
}

#define CONVERT(from, from_size, to, to_size)                                                      \
    WIDE static void from##_to_##to(unsigned char *dst, const unsigned char *src, int64_t n)       \
    {                                                                                              \
        for (int64_t i = 0; i < n; i += LANES) {                                                   \
            __mmask16 mask = n - i >= LANES ? 0xffff : (__mmask16)((1u << (n - i)) - 1);           \
            store_##to(dst + i * (to_size), mask, load_##from(src + i * (from_size), mask));       \
        }                                                                                          \
    }

CONVERT(f32, 4, bf16, 2)
CONVERT(f16, 2, bf16, 2)
CONVERT(f64, 8, bf16, 2)
CONVERT(f16, 2, f32, 4)
CONVERT(bf16, 2, f32, 4)
CONVERT(f64, 8, f32, 4)

typedef void convert_fn(unsigned char *dst, const unsigned char *src, int64_t n);

/* [to is bf16][from]; NULL: the same type. */
static convert_fn *const table[2][SDLORA_F64 + 1] = {
    {[SDLORA_F16] = f16_to_f32, [SDLORA_BF16] = bf16_to_f32, [SDLORA_F64] = f64_to_f32},
    {[SDLORA_F32] = f32_to_bf16, [SDLORA_F16] = f16_to_bf16, [SDLORA_F64] = f64_to_bf16},
};

void dn_convert(void *dst, uint32_t to, const void *src, uint32_t from, int64_t n)
{
    convert_fn *fn = table[to == SDLORA_BF16][from];
    if (fn)
        fn(dst, src, n);
    else
        memcpy(dst, src, (size_t)n * dn_size(from));
}

void dn_copy_rows(void *to, uint32_t to_type, int64_t to_pitch, const void *from,
                  uint32_t from_type, int64_t from_pitch, int64_t rows, int64_t n)
{
    const int64_t to_step = to_pitch * (int64_t)dn_size(to_type);
    const int64_t from_step = from_pitch * (int64_t)dn_size(from_type);
    for (int64_t i = 0; i < rows; i++)
        dn_convert((char *)to + i * to_step, to_type, (const char *)from + i * from_step, from_type,
                   n);
}

typedef struct convert_job {
    unsigned char *dst;
    const unsigned char *src;
    uint32_t to, from;
} convert_job;

static void convert_range(void *arg, int64_t lo, int64_t hi)
{
    const convert_job *j = arg;
    dn_convert(j->dst + lo * (int64_t)dn_size(j->to), j->to,
               j->src + lo * (int64_t)dn_size(j->from), j->from, hi - lo);
}

void dn_convert_all(const sdlora_dev *dev, void *dst, uint32_t to, const void *src, uint32_t from,
                    int64_t n)
{
    convert_job j = {dst, src, to, from};
    dn_parallel(dev, n, GRAIN, convert_range, &j);
}
