/* SPDX-License-Identifier: MIT */
/* Storage types: every code of the small floats, rounding against brute force, and vector loops
 * that agree with the plain ones in every bit. */
#include "../base/base_test.h"

#include <math.h>

#include "base/rng.h"
#include "tensor/dtype.h"

static uint32_t bits(float f)
{
    uint32_t u;

    memcpy(&u, &f, sizeof u);
    return u;
}

static float from_bits(uint32_t u)
{
    float f;

    memcpy(&f, &u, sizeof f);
    return f;
}

/* What a code means, by definition: (-1)^s 2^(e-bias) 1.m, or subnormal.  Infinity is given as the
 * value that its exponent would have, so that "nearest" finds it; NaN codes give NaN. */
static double meaning(uint32_t code, int mantissa, int bias, uint32_t nan_from, uint32_t sign)
{
    uint32_t mag = code & (sign - 1), e = mag >> mantissa, m = mag & ((1u << mantissa) - 1);
    double v;

    if (mag >= nan_from)
        return NAN;
    v = e ? ldexp(1 + ldexp(m, -mantissa), (int)e - bias) : ldexp(m, 1 - bias - mantissa);
    return code & sign ? -v : v;
}

typedef struct format {
    uint32_t dtype;
    int mantissa, bias;
    uint32_t sign, inf, nan_from; /* inf 0: none */
} format;

static const format formats[] = {
    {SDLORA_F16, 10, 15, 0x8000, 0x7C00, 0x7C01},
    {SDLORA_BF16, 7, 127, 0x8000, 0x7F80, 0x7F81},
    {SDLORA_F8_E4M3, 3, 7, 0x80, 0, 0x7F},
    {SDLORA_F8_E5M2, 2, 15, 0x80, 0x7C, 0x7D},
};

static float widen(const format *f, uint32_t code)
{
    uint8_t small = (uint8_t)code;
    uint16_t half = (uint16_t)code;
    float v;

    slr_dtype(f->dtype)->to_f32(&v, f->sign == 0x80 ? (void *)&small : (void *)&half, 1);
    return v;
}

static uint32_t narrow(const format *f, float v)
{
    uint8_t small = 0;
    uint16_t half = 0;

    slr_dtype(f->dtype)->from_f32(f->sign == 0x80 ? (void *)&small : (void *)&half, &v, 1);
    return f->sign == 0x80 ? small : half;
}

static void every_code_has_its_meaning_and_goes_round(void **state)
{
    for (size_t i = 0; i < 4; i++)
        for (uint32_t code = 0; code < 2 * formats[i].sign; code++) {
            const format *f = &formats[i];
            double want = meaning(code, f->mantissa, f->bias, f->nan_from, f->sign);
            float v = widen(f, code);

            if (isnan(want)) {
                assert_true(isnan(v));
                assert_true((narrow(f, v) & (f->sign - 1)) >= f->nan_from);
                continue;
            }
            if (f->inf && (code & (f->sign - 1)) == f->inf)
                assert_true(isinf(v) && !!signbit(v) == !!(code & f->sign));
            else
                assert_true(v == want && !!signbit(v) == !!(code & f->sign));
            assert_int_equal(narrow(f, v), code);
        }
}

/* The code whose meaning is nearest to v, the even one of two; infinity (or the first NaN of a type
 * without infinity) counts as the next step of the scale. */
static uint32_t nearest(const format *f, float v)
{
    uint32_t lo = 0, hi = f->inf ? f->inf : f->nan_from;
    double a = fabs((double)v), below, above;

    if (isnan(v))
        return UINT32_MAX;
    while (hi - lo > 1) {
        uint32_t mid = (lo + hi) / 2;

        if (meaning(mid, f->mantissa, f->bias, UINT32_MAX, f->sign) <= a)
            lo = mid;
        else
            hi = mid;
    }
    below = a - meaning(lo, f->mantissa, f->bias, UINT32_MAX, f->sign);
    above = meaning(hi, f->mantissa, f->bias, UINT32_MAX, f->sign) - a;
    if (above < below || (above == below && !(hi & 1)))
        lo = hi;
    return lo | (signbit(v) ? f->sign : 0);
}

static void rounding_is_to_nearest_even(void **state)
{
    slr_rng r;

    slr_rng_init(&r, 1, 0, 0);
    for (size_t i = 0; i < 4; i++) {
        const format *f = &formats[i];

        for (int k = 0; k < 200000; k++) {
            float v = from_bits(slr_rng_u32(&r));

            if (!isnan(v))
                assert_int_equal(narrow(f, v), nearest(f, v));
        }
        /* exactly between two codes, and one step to either side */
        for (uint32_t code = 0; code + 1 < (f->inf ? f->inf : f->nan_from); code++) {
            double a = meaning(code, f->mantissa, f->bias, UINT32_MAX, f->sign);
            double b = meaning(code + 1, f->mantissa, f->bias, UINT32_MAX, f->sign);
            float mid = (float)((a + b) / 2);

            for (int side = -1; side <= 1; side++) {
                float v = from_bits(bits(mid) + (uint32_t)side * (bits(mid) > 0));

                assert_int_equal(narrow(f, v), nearest(f, v));
                assert_int_equal(narrow(f, -v), nearest(f, -v));
            }
        }
    }
}

static void edges_of_the_ranges(void **state)
{
    assert_int_equal(slr_f32_to_f16(65504), 0x7BFF);
    assert_int_equal(slr_f32_to_f16(65519.996f), 0x7BFF);
    assert_int_equal(slr_f32_to_f16(65520), 0x7C00);
    assert_int_equal(slr_f32_to_f16(-INFINITY), 0xFC00);
    assert_int_equal(slr_f32_to_f16(0x1p-24f), 1);
    assert_int_equal(slr_f32_to_f16(0x1p-25f), 0);
    assert_int_equal(slr_f32_to_f16(0x1.000002p-25f), 1);
    assert_int_equal(slr_f32_to_bf16(3.4e38f), 0x7F80);
    assert_int_equal(narrow(&formats[2], 448), 0x7E);
    assert_int_equal(narrow(&formats[2], 464), 0x7E);
    assert_int_equal(narrow(&formats[2], 465), 0x7F); /* e4m3fn has no infinity: NaN */
    assert_int_equal(narrow(&formats[2], -INFINITY), 0xFF);
    assert_int_equal(narrow(&formats[3], 57344), 0x7B);
    assert_int_equal(narrow(&formats[3], 61440), 0x7C);
}

/* Lengths around the vector width at every offset: the same bits as one at a time. */
static void vector_loops_agree_with_plain_ones(void **state)
{
    static const uint32_t special[] = {0x7F800001, 0xFF800001, 0x7FC00000, 0x7FFFFFFF, 0x7F800000,
                                       0xFF800000, 0x80000000, 1,          0x007FFFFF, 0x33000000,
                                       0x477FEFFF, 0x477FF000, 0x38800000, 0x387FFFFF, 0x7F7FFFFF,
                                       0x3F808000, 0x3F818000, 0x3F807FFF, 0x3F801000, 0x3F803000};
    static float in[1000], out[1000];
    static char packed[2100];
    slr_rng r;

    slr_rng_init(&r, 2, 0, 0);
    for (int round = 0; round < 200; round++) {
        size_t n = slr_rng_below(&r, 40), shift = slr_rng_below(&r, 3);

        for (size_t i = 0; i < n; i++)
            in[i] =
                from_bits(slr_rng_below(&r, 4) ? slr_rng_u32(&r) : special[slr_rng_below(&r, 20)]);
        for (size_t k = 0; k < 2; k++) {
            const slr_dtype_row *row = slr_dtype(formats[k].dtype);

            row->from_f32(packed + shift, in, n);
            for (size_t i = 0; i < n; i++) {
                uint16_t got, one = k ? slr_f32_to_bf16(in[i]) : slr_f32_to_f16(in[i]);

                memcpy(&got, packed + shift + 2 * i, sizeof got);
                assert_int_equal(got, one);
            }
        }
    }
    for (size_t k = 0; k < 2; k++)
        for (uint32_t code = 0; code < 65536; code += 500) {
            size_t n = code + 500 < 65536 ? 500 : 65536 - code;

            for (size_t i = 0; i < n; i++) {
                uint16_t h = (uint16_t)(code + i);

                memcpy(packed + 1 + 2 * i, &h, sizeof h);
            }
            slr_dtype(formats[k].dtype)->to_f32(out, packed + 1, n);
            for (size_t i = 0; i < n; i++) {
                uint16_t h = (uint16_t)(code + i);

                assert_int_equal(bits(out[i]), bits(k ? slr_bf16_to_f32(h) : slr_f16_to_f32(h)));
            }
        }
}

static void integers_saturate(void **state)
{
    static const float in[] = {0, -1.5f, 2.5f, 300, -300, 1e30f, -1e30f, NAN, 3.5f, 0x1p63f};
    static const struct {
        uint32_t dtype;
        int64_t want[10];
    } rows[] = {
        {SDLORA_U8, {0, 0, 2, 255, 0, 255, 0, 0, 4, 255}},
        {SDLORA_I8, {0, -2, 2, 127, -128, 127, -128, 0, 4, 127}},
        {SDLORA_I16, {0, -2, 2, 300, -300, 32767, -32768, 0, 4, 32767}},
        {SDLORA_I32, {0, -2, 2, 300, -300, INT32_MAX, INT32_MIN, 0, 4, INT32_MAX}},
        {SDLORA_I64, {0, -2, 2, 300, -300, INT64_MAX, INT64_MIN, 0, 4, INT64_MAX}},
        {SDLORA_BOOL, {0, 1, 1, 1, 1, 1, 1, 1, 1, 1}},
    };

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const slr_dtype_row *row = slr_dtype(rows[i].dtype);
        char packed[8 * 10 + 1];
        float back[10];

        row->from_f32(packed + 1, in, 10);
        row->to_f32(back, packed + 1, 10);
        for (size_t k = 0; k < 10; k++)
            assert_true(back[k] == (float)rows[i].want[k]);
    }
}

static void doubles_round_once(void **state)
{
    char packed[1 + 3 * 8];
    const double in[] = {1 + 0x1p-24, 1e300, 0x1p-150};
    const float want[] = {1, INFINITY, 0};
    float out[3];

    memcpy(packed + 1, in, sizeof in);
    slr_dtype(SDLORA_F64)->to_f32(out, packed + 1, 3);
    assert_memory_equal(out, want, sizeof out);
}

static void rows_are_found(void **state)
{
    static const struct {
        const char *tag;
        uint32_t dtype;
        size_t size;
    } rows[] = {
        {"F32", SDLORA_F32, 4},   {"F16", SDLORA_F16, 2},         {"BF16", SDLORA_BF16, 2},
        {"F64", SDLORA_F64, 8},   {"I64", SDLORA_I64, 8},         {"I32", SDLORA_I32, 4},
        {"I16", SDLORA_I16, 2},   {"I8", SDLORA_I8, 1},           {"U8", SDLORA_U8, 1},
        {"BOOL", SDLORA_BOOL, 1}, {"F8_E4M3", SDLORA_F8_E4M3, 1}, {"F8_E5M2", SDLORA_F8_E5M2, 1}};

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        assert_int_equal(slr_dtype_by_st(rows[i].tag)->dtype, rows[i].dtype);
        assert_int_equal(slr_dtype_size(rows[i].dtype), rows[i].size);
    }
    assert_null(slr_dtype_by_st("f32"));
    assert_int_equal(slr_dtype_by_precision("float")->dtype, SDLORA_F32);
    assert_int_equal(slr_dtype_by_precision("fp16")->dtype, SDLORA_F16);
    assert_int_equal(slr_dtype_by_precision("bf16")->dtype, SDLORA_BF16);
    assert_null(slr_dtype_by_precision("f16"));
    assert_null(slr_dtype(0));
    assert_int_equal(slr_dtype_size(999), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_code_has_its_meaning_and_goes_round),
        cmocka_unit_test(rounding_is_to_nearest_even),
        cmocka_unit_test(edges_of_the_ranges),
        cmocka_unit_test(vector_loops_agree_with_plain_ones),
        cmocka_unit_test(integers_saturate),
        cmocka_unit_test(doubles_round_once),
        cmocka_unit_test(rows_are_found),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
