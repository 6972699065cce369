/* SPDX-License-Identifier: MIT */
/* Storage types: one row each, and their conversions to and from f32.
 *
 * Knows bit layouts and round-to-nearest-even.  Refuses to know shapes and threads.  Half and
 * bfloat16, which whole checkpoints consist of, have vector loops for processors with F16C and
 * AVX2; these give the same bits as the plain loops, NaN payloads included. */
#include "tensor/dtype.h"

#include <math.h>
#include <string.h>

#include "base/cpu.h"

#if defined(__x86_64__)
#include <immintrin.h>
#define X86 1
#else
#define X86 0
#endif

static uint32_t bits_of(float f)
{
    uint32_t u;

    memcpy(&u, &f, sizeof u);
    return u;
}

static float float_of(uint32_t u)
{
    float f;

    memcpy(&f, &u, sizeof f);
    return f;
}

/* --- small floats: one description serves f16, e4m3 and e5m2 ------------------------------- */

typedef struct small_float {
    int mantissa, bias; /* bits, exponent bias */
    uint32_t magnitude; /* all bits below the sign */
    uint32_t infinity;  /* code of infinity; 0: the type has none and overflows to NaN */
    uint32_t nan;       /* lowest code of the NaNs */
    uint32_t quiet;     /* bit set in a NaN that comes from f32 */
} small_float;

static const small_float half_format = {10, 15, 0x7FFF, 0x7C00, 0x7C01, 0x0200};
static const small_float e4m3_format = {3, 7, 0x7F, 0, 0x7F, 0x7F};
static const small_float e5m2_format = {2, 15, 0x7F, 0x7C, 0x7D, 0x02};

static inline float widen_small(const small_float *f, uint32_t code)
{
    uint32_t sign = code & (f->magnitude + 1), mag = code & f->magnitude;
    uint32_t top = sign ? 0x80000000u : 0;
    int up = 23 - f->mantissa;

    if (mag >= f->nan) /* quiet, payload kept */
        return float_of(top | 0x7FC00000u | (mag << up & 0x007FFFFFu));
    if (f->infinity && mag == f->infinity)
        return float_of(top | 0x7F800000u);
    if (mag >> f->mantissa) /* normal: move the exponent to the wider bias */
        return float_of(top | ((mag << up) + ((uint32_t)(127 - f->bias) << 23)));
    /* subnormal: mag * 2^(1 - bias - mantissa), exact in f32 */
    {
        float unit = float_of((uint32_t)(127 + 1 - f->bias - f->mantissa) << 23);
        float v = (float)mag * unit;

        return sign ? -v : v;
    }
}

static inline uint32_t narrow_small(const small_float *f, float v)
{
    uint32_t u = bits_of(v), mag = u & 0x7FFFFFFFu, sign = u >> 31 ? f->magnitude + 1 : 0;
    int down = 23 - f->mantissa, e = (int)(mag >> 23) - 127 + f->bias;
    uint32_t code;

    if (mag > 0x7F800000u) { /* NaN: keep the upper payload */
        code = (f->infinity | (mag >> down & ((1u << f->mantissa) - 1)) | f->quiet);
        return sign | code;
    }
    if (e < 1) { /* subnormal or zero: count units of 2^(1 - bias - mantissa), ties to even */
        float unit = float_of((uint32_t)(127 + 1 - f->bias - f->mantissa) << 23);
        float scaled = float_of(mag) / unit; /* exact: a power of two */

        /* 2^23 + x keeps the integer part in the low bits, rounded by the addition itself */
        return sign | (bits_of(scaled + 8388608.0f) & 0x007FFFFFu);
    }
    code = (mag - ((uint32_t)(127 - f->bias) << 23));
    code = (code + (1u << (down - 1)) - 1 + (code >> down & 1)) >> down;
    if (code >= (f->infinity ? f->infinity : f->nan))
        code = f->infinity ? f->infinity : f->nan;
    return sign | code;
}

float slr_f16_to_f32(uint16_t h)
{
    return widen_small(&half_format, h);
}

uint16_t slr_f32_to_f16(float f)
{
    return (uint16_t)narrow_small(&half_format, f);
}

float slr_bf16_to_f32(uint16_t h)
{
    uint32_t u = (uint32_t)h << 16;

    return float_of((u & 0x7FFFFFFFu) > 0x7F800000u ? u | 0x00400000u : u);
}

uint16_t slr_f32_to_bf16(float f)
{
    uint32_t u = bits_of(f);

    if ((u & 0x7FFFFFFFu) > 0x7F800000u)
        return (uint16_t)(u >> 16 | 0x0040u);
    return (uint16_t)((u + 0x7FFFu + (u >> 16 & 1)) >> 16);
}

/* --- vector loops: how many of n they did ---------------------------------------------------- */

#if X86
__attribute__((target("avx2,f16c"))) static size_t f16_to_f32_x86(float *dst, const char *src,
                                                                  size_t n)
{
    size_t i = 0;

    for (; i + 8 <= n; i += 8) {
        __m128i h = _mm_loadu_si128((const __m128i *)(const void *)(src + 2 * i));

        _mm256_storeu_ps(dst + i, _mm256_cvtph_ps(h));
    }
    return i;
}

__attribute__((target("avx2,f16c"))) static size_t f32_to_f16_x86(char *dst, const float *src,
                                                                  size_t n)
{
    size_t i = 0;

    for (; i + 8 <= n; i += 8) {
        __m128i h = _mm256_cvtps_ph(_mm256_loadu_ps(src + i), _MM_FROUND_TO_NEAREST_INT);

        _mm_storeu_si128((__m128i *)(void *)(dst + 2 * i), h);
    }
    return i;
}

__attribute__((target("avx2"))) static size_t bf16_to_f32_x86(float *dst, const char *src, size_t n)
{
    const __m256i below_sign = _mm256_set1_epi32(0x7FFFFFFF);
    const __m256i infinity = _mm256_set1_epi32(0x7F800000);
    const __m256i quiet = _mm256_set1_epi32(0x00400000);
    size_t i = 0;

    for (; i + 8 <= n; i += 8) {
        __m128i h = _mm_loadu_si128((const __m128i *)(const void *)(src + 2 * i));
        __m256i u = _mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16);
        __m256i is_nan = _mm256_cmpgt_epi32(_mm256_and_si256(u, below_sign), infinity);

        u = _mm256_or_si256(u, _mm256_and_si256(is_nan, quiet));
        _mm256_storeu_si256((__m256i *)(void *)(dst + i), u);
    }
    return i;
}

__attribute__((target("avx2"))) static size_t f32_to_bf16_x86(char *dst, const float *src, size_t n)
{
    const __m256i below_sign = _mm256_set1_epi32(0x7FFFFFFF);
    const __m256i infinity = _mm256_set1_epi32(0x7F800000);
    const __m256i quiet = _mm256_set1_epi32(0x0040), one = _mm256_set1_epi32(1);
    const __m256i almost_half = _mm256_set1_epi32(0x7FFF);
    size_t i = 0;

    for (; i + 8 <= n; i += 8) {
        __m256i u = _mm256_loadu_si256((const __m256i *)(const void *)(src + i));
        __m256i is_nan = _mm256_cmpgt_epi32(_mm256_and_si256(u, below_sign), infinity);
        __m256i cut = _mm256_srli_epi32(u, 16);
        __m256i up = _mm256_add_epi32(almost_half, _mm256_and_si256(cut, one));
        __m256i near = _mm256_srli_epi32(_mm256_add_epi32(u, up), 16);

        near = _mm256_blendv_epi8(near, _mm256_or_si256(cut, quiet), is_nan);
        near = _mm256_permute4x64_epi64(_mm256_packus_epi32(near, near), 0x08);
        _mm_storeu_si128((__m128i *)(void *)(dst + 2 * i), _mm256_castsi256_si128(near));
    }
    return i;
}
#endif

static int has_avx2(void)
{
    return X86 && (slr_cpu_features() & SLR_CPU_AVX2);
}

/* --- row functions --------------------------------------------------------------------------- */

static void f32_copy_in(float *dst, const void *src, size_t n)
{
    if (n)
        memmove(dst, src, n * sizeof *dst);
}

static void f32_copy_out(void *dst, const float *src, size_t n)
{
    if (n)
        memmove(dst, src, n * sizeof *src);
}

static void f16_in(float *dst, const void *src, size_t n)
{
    const char *p = src;
    size_t i = 0;

#if X86
    if (has_avx2())
        i = f16_to_f32_x86(dst, p, n);
#endif
    for (; i < n; i++) {
        uint16_t h;

        memcpy(&h, p + 2 * i, sizeof h);
        dst[i] = slr_f16_to_f32(h);
    }
}

static void f16_out(void *dst, const float *src, size_t n)
{
    char *p = dst;
    size_t i = 0;

#if X86
    if (has_avx2())
        i = f32_to_f16_x86(p, src, n);
#endif
    for (; i < n; i++) {
        uint16_t h = slr_f32_to_f16(src[i]);

        memcpy(p + 2 * i, &h, sizeof h);
    }
}

static void bf16_in(float *dst, const void *src, size_t n)
{
    const char *p = src;
    size_t i = 0;

#if X86
    if (has_avx2())
        i = bf16_to_f32_x86(dst, p, n);
#endif
    for (; i < n; i++) {
        uint16_t h;

        memcpy(&h, p + 2 * i, sizeof h);
        dst[i] = slr_bf16_to_f32(h);
    }
}

static void bf16_out(void *dst, const float *src, size_t n)
{
    char *p = dst;
    size_t i = 0;

#if X86
    if (has_avx2())
        i = f32_to_bf16_x86(p, src, n);
#endif
    for (; i < n; i++) {
        uint16_t h = slr_f32_to_bf16(src[i]);

        memcpy(p + 2 * i, &h, sizeof h);
    }
}

static void e4m3_in(float *dst, const void *src, size_t n)
{
    for (size_t i = 0; i < n; i++)
        dst[i] = widen_small(&e4m3_format, ((const uint8_t *)src)[i]);
}

static void e4m3_out(void *dst, const float *src, size_t n)
{
    for (size_t i = 0; i < n; i++)
        ((uint8_t *)dst)[i] = (uint8_t)narrow_small(&e4m3_format, src[i]);
}

static void e5m2_in(float *dst, const void *src, size_t n)
{
    for (size_t i = 0; i < n; i++)
        dst[i] = widen_small(&e5m2_format, ((const uint8_t *)src)[i]);
}

static void e5m2_out(void *dst, const float *src, size_t n)
{
    for (size_t i = 0; i < n; i++)
        ((uint8_t *)dst)[i] = (uint8_t)narrow_small(&e5m2_format, src[i]);
}

/* Nearest even integer within [lo,hi]; NaN is 0.  hi may not be a double (2^63 - 1): compare first.
 */
static int64_t nearest_int(float f, int64_t lo, int64_t hi)
{
    double v = nearbyint((double)f);

    if (isnan(v))
        return 0;
    if (v <= (double)lo)
        return lo;
    if (v >= (double)hi)
        return hi;
    return (int64_t)v;
}

#define INTEGER_ROW(type, lo, hi)                                                                  \
    static void type##_in(float *dst, const void *src, size_t n)                                   \
    {                                                                                              \
        for (size_t i = 0; i < n; i++) {                                                           \
            type v;                                                                                \
                                                                                                   \
            memcpy(&v, (const char *)src + i * sizeof v, sizeof v);                                \
            dst[i] = (float)v;                                                                     \
        }                                                                                          \
    }                                                                                              \
    static void type##_out(void *dst, const float *src, size_t n)                                  \
    {                                                                                              \
        for (size_t i = 0; i < n; i++) {                                                           \
            type v = (type)nearest_int(src[i], lo, hi);                                            \
                                                                                                   \
            memcpy((char *)dst + i * sizeof v, &v, sizeof v);                                      \
        }                                                                                          \
    }

INTEGER_ROW(int64_t, INT64_MIN, INT64_MAX)
INTEGER_ROW(int32_t, INT32_MIN, INT32_MAX)
INTEGER_ROW(int16_t, INT16_MIN, INT16_MAX)
INTEGER_ROW(int8_t, INT8_MIN, INT8_MAX)
INTEGER_ROW(uint8_t, 0, UINT8_MAX)

static void f64_in(float *dst, const void *src, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        double v;

        memcpy(&v, (const char *)src + i * sizeof v, sizeof v);
        dst[i] = (float)v;
    }
}

static void f64_out(void *dst, const float *src, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        double v = src[i];

        memcpy((char *)dst + i * sizeof v, &v, sizeof v);
    }
}

static void bool_in(float *dst, const void *src, size_t n)
{
    for (size_t i = 0; i < n; i++)
        dst[i] = ((const uint8_t *)src)[i] != 0;
}

static void bool_out(void *dst, const float *src, size_t n)
{
    for (size_t i = 0; i < n; i++)
        ((uint8_t *)dst)[i] = src[i] != 0; /* NaN is true, as in C */
}

static const slr_dtype_row rows[] = {
    {SDLORA_F32, 4, "f32", "F32", "FloatStorage", f32_copy_in, f32_copy_out},
    {SDLORA_F16, 2, "f16", "F16", "HalfStorage", f16_in, f16_out},
    {SDLORA_BF16, 2, "bf16", "BF16", "BFloat16Storage", bf16_in, bf16_out},
    {SDLORA_F64, 8, "f64", "F64", "DoubleStorage", f64_in, f64_out},
    {SDLORA_I32, 4, "i32", "I32", "IntStorage", int32_t_in, int32_t_out},
    {SDLORA_I64, 8, "i64", "I64", "LongStorage", int64_t_in, int64_t_out},
    {SDLORA_U8, 1, "u8", "U8", "ByteStorage", uint8_t_in, uint8_t_out},
    {SDLORA_I8, 1, "i8", "I8", "CharStorage", int8_t_in, int8_t_out},
    {SDLORA_I16, 2, "i16", "I16", "ShortStorage", int16_t_in, int16_t_out},
    {SDLORA_BOOL, 1, "bool", "BOOL", "BoolStorage", bool_in, bool_out},
    {SDLORA_F8_E4M3, 1, "f8_e4m3", "F8_E4M3", "Float8_e4m3fnStorage", e4m3_in, e4m3_out},
    {SDLORA_F8_E5M2, 1, "f8_e5m2", "F8_E5M2", "Float8_e5m2Storage", e5m2_in, e5m2_out},
};

const slr_dtype_row *slr_dtype(uint32_t dtype)
{
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (rows[i].dtype == dtype)
            return &rows[i];
    return NULL;
}

const slr_dtype_row *slr_dtype_by_st(const char *tag)
{
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (!strcmp(rows[i].st_tag, tag))
            return &rows[i];
    return NULL;
}

const slr_dtype_row *slr_dtype_by_precision(const char *name)
{
    static const struct {
        const char *name;
        uint32_t dtype;
    } precisions[] = {{"float", SDLORA_F32}, {"fp16", SDLORA_F16}, {"bf16", SDLORA_BF16}};

    for (size_t i = 0; i < sizeof precisions / sizeof *precisions; i++)
        if (!strcmp(precisions[i].name, name))
            return slr_dtype(precisions[i].dtype);
    return NULL;
}

size_t slr_dtype_size(uint32_t dtype)
{
    const slr_dtype_row *row = slr_dtype(dtype);

    return row ? row->size : 0;
}
