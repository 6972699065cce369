/* SPDX-License-Identifier: MIT */
/* bf16 in the CPU backend, per instruction set: how values are rounded, that a NaN stays one, and
 * that products cut into converted tiles sum the same as in f32.  Every operation against the
 * reference is the business of tests/checkop. */
#include "kernel.h"

#include <math.h>

/* "avx512" takes the instruction of AVX512_BF16 where there is one; its fallback is tested by
 * checkop's avx512f. */
static const char *const sets[] = {"generic", "avx2", "avx512"};
enum { N_SETS = 3, N = 37 }; /* whole registers of each set, and a tail */

static sdlora_tdesc bf16_of(sdlora_tdesc t)
{
    t.dtype = SDLORA_BF16;
    return t;
}

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

/* x of bf16 -> x + shift, whose rounding is what is looked at. */
static void shifted(slr_devices *d, uint16_t *y, uint16_t *x, double shift)
{
    test_op op = {.op = SDLORA_OP_AFFINE,
                  .n_in = 1,
                  .n_out = 1,
                  .n_real = 2,
                  .desc = {bf16_of(F32_(N)), bf16_of(F32_(N))},
                  .data = {x, y},
                  .reals = {1, shift}};
    run_ok(d, &op);
}

/* One and a half units are a tie: it goes to the even neighbour, up and down. */
static void test_ties(void **state)
{
    (void)state;
    const float unit = 0x1p-7f;
    for (int s = 0; s < N_SETS; s++) {
        slr_devices *d = test_devices(1, sets[s]);
        uint16_t x[N], y[N];
        for (int i = 0; i < N; i++)
            x[i] = slr_f32_to_bf16(1 + (float)i * unit);
        shifted(d, y, x, 0.5 * unit);
        for (int i = 0; i < N; i++)
            assert_int_equal(y[i], x[i] + i % 2);
        shifted(d, y, x, 0.5 * unit - 0x1p-20);
        for (int i = 0; i < N; i++)
            assert_int_equal(y[i], x[i]);
        shifted(d, y, x, 0.5 * unit + 0x1p-20);
        for (int i = 0; i < N; i++)
            assert_int_equal(y[i], x[i] + 1);
        slr_devices_unref(d);
    }
}

/* The greatest numbers round to infinity, and NaNs whose digits all lie in the lost half do not
 * become infinite. */
static void test_special(void **state)
{
    (void)state;
    static const uint32_t words[] = {0x7f800001, 0xff800001, 0x7fffffff, 0xffffffff, 0x7fc00000,
                                     0x7f7fffff, 0xff7fffff, 0x7f800000, 0xff800000, 0x80000000};
    enum { N_WORDS = sizeof words / sizeof *words };
    for (int s = 0; s < N_SETS; s++) {
        slr_devices *d = test_devices(1, sets[s]);
        float x[N], twice[N];
        uint16_t y[N], one[N];
        for (int i = 0; i < N; i++) {
            x[i] = float_of(words[i % N_WORDS]);
            one[i] = slr_f32_to_bf16(1);
        }
        test_op cast = {.op = SDLORA_OP_CAST,
                        .n_in = 1,
                        .n_out = 1,
                        .desc = {F32_(N), bf16_of(F32_(N))},
                        .data = {x, y}};
        test_op mul = {.op = SDLORA_OP_MUL, /* 1 of bf16 by x of f32: rounds inside a kernel */
                       .n_in = 2,
                       .n_out = 1,
                       .desc = {bf16_of(F32_(N)), F32_(N), bf16_of(F32_(N))},
                       .data = {one, x, y}};
        for (int which = 0; which < 2; which++) {
            run_ok(d, which ? &mul : &cast);
            for (int i = 0; i < N; i++) {
                twice[i] = slr_bf16_to_f32(y[i]);
                if (isnan(x[i]))
                    assert_true(isnan(twice[i]));
                else
                    assert_int_equal(bits_of(twice[i]),
                                     bits_of(slr_bf16_to_f32(slr_f32_to_bf16(x[i]))));
            }
        }
        slr_devices_unref(d);
    }
}

/* Whether the slope is one of two numbers, whatever x. */
static bool is_step(int kind)
{
    static const int steps[] = {SDLORA_ACT_NONE,        SDLORA_ACT_RELU,      SDLORA_ACT_LEAKY_RELU,
                                SDLORA_ACT_HARDSIGMOID, SDLORA_ACT_HARDTANH,  SDLORA_ACT_RELU6,
                                SDLORA_ACT_HARDSHRINK,  SDLORA_ACT_SOFTSHRINK};
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++)
        if (steps[i] == kind)
            return true;
    return false;
}

/* No activation, slope or norm loses a NaN or makes one of a large number. */
static void test_activations(void **state)
{
    (void)state;
    static const float large[] = {3e38f, -3e38f, 1e20f, -1e20f, 100, -100, 0, 88};
    for (int s = 0; s < N_SETS; s++)
        for (int kind = SDLORA_ACT_NONE; kind <= SDLORA_ACT_SOFTSHRINK; kind++)
            for (int back = 0; back < 2; back++) {
                slr_devices *d = test_devices(1, sets[s]);
                uint16_t x[N], dy[N], y[N];
                for (int i = 0; i < N; i++) {
                    x[i] = i % 9 == 8 ? 0x7fc0 : slr_f32_to_bf16(large[i % 9]);
                    dy[i] = slr_f32_to_bf16(1);
                }
                test_op op = {.op = back ? SDLORA_OP_ACT_BX : SDLORA_OP_ACT,
                              .n_in = back ? 2 : 1,
                              .n_out = 1,
                              .n_int = 1,
                              .ints = {kind}};
                for (int i = 0; i < 3; i++)
                    op.desc[i] = bf16_of(F32_(N));
                void *data[] = {back ? dy : x, back ? x : y, y};
                memcpy(op.data, data, sizeof data);
                run_ok(d, &op);
                bool steps = back && is_step(kind);
                for (int i = 0; i < N; i++)
                    if (isnan(slr_bf16_to_f32(y[i])) != (i % 9 == 8 && !steps))
                        fail_msg("%s, kind %d, %s of %g is %g", sets[s], kind,
                                 back ? "slope" : "value", (double)slr_bf16_to_f32(x[i]),
                                 (double)slr_bf16_to_f32(y[i]));
                slr_devices_unref(d);
            }
}

/* A product of bf16 is the product of the same numbers in f32, rounded once: a factor of f32 is
 * rounded to bf16 beside the other, and sums may differ in their last bits, hence by one place
 * after rounding. */
static void test_product(void **state)
{
    (void)state;
    enum { M = 300, K = 801, COLS = 90 };
    slr_devices *d = test_devices(2, "auto");
    float *a = numbers(M * K, 1), *b = numbers(K * COLS, 2), *c = numbers(M * COLS, 3);
    uint16_t *ah = slr_alloc(NULL, M * K * 2), *ch = slr_alloc(NULL, M * COLS * 2);
    slr_dtype(SDLORA_BF16)->from_f32(ah, a, M * K);
    slr_dtype(SDLORA_BF16)->to_f32(a, ah, M * K);
    for (int i = 0; i < K * COLS; i++)
        b[i] = slr_bf16_to_f32(slr_f32_to_bf16(b[i]));
    test_op op = {.op = SDLORA_OP_MATMUL,
                  .n_in = 2,
                  .n_out = 1,
                  .n_int = 2,
                  .n_real = 1,
                  .desc = {F32_(M, K), F32_(K, COLS), F32_(M, COLS)},
                  .data = {a, b, c},
                  .reals = {1}};
    run_ok(d, &op);
    op.desc[0].dtype = op.desc[2].dtype = SDLORA_BF16;
    op.data[0] = ah;
    op.data[2] = ch;
    run_ok(d, &op);
    for (int i = 0; i < M * COLS; i++) {
        float got = slr_bf16_to_f32(ch[i]), room = fabsf(c[i]) * 0x1p-8f + 1e-4f;
        if (!(fabsf(got - c[i]) <= room))
            fail_msg("element %d is %g, wanted %g", i, (double)got, (double)c[i]);
    }
    op.desc[1] = F32_(K, COLS);
    op.desc[1].dtype = SDLORA_F16; /* not frozen: no kernel takes it */
    assert_int_equal(run_op(d, &op), SDLORA_ENOTSUP);
    void *all[] = {a, b, c, ah, ch};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        slr_free(NULL, all[i]);
    slr_devices_unref(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ties),
        cmocka_unit_test(test_special),
        cmocka_unit_test(test_activations),
        cmocka_unit_test(test_product),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
