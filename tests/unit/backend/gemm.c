/* SPDX-License-Identifier: MIT */
/* MATMUL and BMM against three plain loops in double: transposition, bias, add in place and apart,
 * alpha, folded axes, odd sizes, frozen operands of each type, and equal bits for 1, 2 and 3
 * threads. */
#include "unit/backend/kernel.h"

typedef struct shape {
    int64_t b, m, n, k;
} shape;

static const shape shapes[] = {
    {1, 1, 1, 1},      {1, 3, 5, 7},     {1, 17, 33, 65},   {1, 64, 320, 320},
    {1, 129, 641, 77}, {1, 300, 16, 9},  {1, 16, 320, 500}, {1, 2, 700, 900},
    {1, 513, 96, 128}, {1, 77, 768, 40}, {1, 33, 740, 730}, /* too large for product.c: tiles over a
                                                               BLAS */
};

/* [rows,cols] or its transpose, as double. */
static double at(const float *p, int64_t rows, int64_t cols, bool trans, int64_t i, int64_t j)
{
    return trans ? p[j * rows + i] : p[i * cols + j];
}

static double *slow(const float *a, const float *b, const float *bias, const float *add, shape s,
                    bool ta, bool tb, double alpha)
{
    double *c = slr_calloc(NULL, (size_t)(s.b * s.m * s.n), sizeof *c);
    for (int64_t z = 0; z < s.b; z++)
        for (int64_t i = 0; i < s.m; i++)
            for (int64_t j = 0; j < s.n; j++) {
                double sum = 0;
                for (int64_t l = 0; l < s.k; l++)
                    sum += at(a + z * s.m * s.k, s.m, s.k, ta, i, l) *
                           at(b + z * s.k * s.n, s.k, s.n, tb, l, j);
                int64_t to = (z * s.m + i) * s.n + j;
                c[to] = alpha * sum + (bias ? bias[j] : 0) + (add ? add[to] : 0);
            }
    return c;
}

static test_op matmul(shape s, bool ta, bool tb, double alpha)
{
    return (test_op){
        .op = SDLORA_OP_MATMUL,
        .n_in = 4,
        .n_out = 1,
        .n_int = 2,
        .n_real = 1,
        .desc = {ta ? F32_(s.k, s.m) : F32_(s.m, s.k), tb ? F32_(s.n, s.k) : F32_(s.k, s.n),
                 F32_(s.n), F32_(s.m, s.n), F32_(s.m, s.n)},
        .ints = {ta, tb},
        .reals = {alpha},
    };
}

/* Rounding in f32 of a sum of k products of numbers below 1: steps are random, so k * 2^-23 holds
 * the largest of many sums. */
static double tolerance(shape s)
{
    return 1e-6 + 1e-7 * (double)s.k;
}

static void one_matmul(slr_devices *const d[3], shape s, int variant)
{
    const bool ta = variant & 1, tb = variant & 2, bias = variant & 4, add = variant & 8;
    const bool in_place = variant & 16;
    const size_t mn = (size_t)(s.m * s.n);
    float *a = numbers((size_t)(s.m * s.k), 1), *b = numbers((size_t)(s.k * s.n), 2);
    float *bs = numbers((size_t)s.n, 3), *ad = numbers(mn, 4), *first = numbers(mn, 5);
    double *want = slow(a, b, bias ? bs : NULL, add ? ad : NULL, s, ta, tb, 0.75);
    for (int t = 0; t < 3; t++) {
        float *c = numbers(mn, 6);
        test_op op = matmul(s, ta, tb, 0.75);
        op.desc[2] = bias ? op.desc[2] : ABSENT;
        op.desc[3] = add ? op.desc[3] : ABSENT;
        if (in_place && add)
            memcpy(c, ad, mn * sizeof *c);
        void *data[] = {a, b, bias ? bs : NULL, !add ? NULL : in_place ? c : ad, c};
        memcpy(op.data, data, sizeof data);
        run_ok(d[t], &op);
        assert_near(c, want, mn, tolerance(s), "matmul");
        if (t == 0)
            memcpy(first, c, mn * sizeof *c);
        assert_memory_equal(first, c, mn * sizeof *c);
        slr_free(NULL, c);
    }
    void *all[] = {a, b, bs, ad, first, want};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        slr_free(NULL, all[i]);
}

static void test_matmul(void **state)
{
    (void)state;
    slr_devices *d[3];
    for (int t = 0; t < 3; t++)
        d[t] = test_devices(t + 1, "auto");
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (int variant = 0; variant < 32; variant++)
            one_matmul(d, shapes[i], variant);
    for (int t = 0; t < 3; t++)
        slr_devices_unref(d[t]);
}

static void test_bmm(void **state)
{
    (void)state;
    slr_devices *d[3];
    for (int t = 0; t < 3; t++)
        d[t] = test_devices(t + 1, "auto");
    const shape s = {6, 33, 50, 41};
    for (int variant = 0; variant < 4; variant++) {
        const bool ta = variant & 1, tb = variant & 2;
        float *a = numbers((size_t)(s.b * s.m * s.k), 1),
              *b = numbers((size_t)(s.b * s.k * s.n), 2);
        float *c[3];
        double *want = slow(a, b, NULL, NULL, s, ta, tb, -0.5);
        for (int t = 0; t < 3; t++) {
            c[t] = numbers((size_t)(s.b * s.m * s.n), 6);
            test_op op = {
                .op = SDLORA_OP_BMM,
                .n_in = 2,
                .n_out = 1,
                .n_int = 2,
                .n_real = 1,
                .desc = {ta ? F32_(2, 3, s.k, s.m) : F32_(2, 3, s.m, s.k),
                         tb ? F32_(2, 3, s.n, s.k) : F32_(2, 3, s.k, s.n), F32_(2, 3, s.m, s.n)},
                .data = {a, b, c[t]},
                .ints = {ta, tb},
                .reals = {-0.5},
            };
            run_ok(d[t], &op);
            assert_near(c[t], want, (size_t)(s.b * s.m * s.n), tolerance(s), "bmm");
            assert_memory_equal(c[0], c[t], (size_t)(s.b * s.m * s.n) * sizeof(float));
        }
        void *all[] = {a, b, c[0], c[1], c[2], want};
        for (size_t i = 0; i < sizeof all / sizeof *all; i++)
            slr_free(NULL, all[i]);
    }
    for (int t = 0; t < 3; t++)
        slr_devices_unref(d[t]);
}

/* A frozen operand of each type, at an odd address, beside the same numbers as an ordinary one. */
static void test_frozen(void **state)
{
    (void)state;
    static const uint32_t types[] = {SDLORA_F32, SDLORA_F16, SDLORA_BF16};
    slr_devices *d = test_devices(2, "auto");
    const shape s = {1, 65, 320, 96};
    const size_t kn = (size_t)(s.k * s.n), mn = (size_t)(s.m * s.n);
    for (size_t i = 0; i < 3; i++)
        for (int odd = 0; odd < 2; odd++) {
            const slr_dtype_row *type = slr_dtype(types[i]);
            float *a = numbers((size_t)(s.m * s.k), 1), *b = numbers(kn, 2);
            float *c = numbers(mn, 3), *plain = numbers(mn, 4);
            char *raw = slr_alloc(NULL, kn * type->size + 1);
            type->from_f32(raw, b, kn);
            memmove(raw + odd, raw, kn * type->size);
            type->to_f32(b, raw + odd, kn);
            test_op op = matmul(s, false, true, 1);
            op.n_in = 2;
            op.desc[2] = F32_(s.m, s.n);
            void *data[] = {a, b, plain};
            memcpy(op.data, data, sizeof data);
            run_ok(d, &op);
            op.desc[1].dtype = types[i];
            op.consts[1] = (sdlora_const){.data = raw + odd, .id = 100 + i * 2 + (size_t)odd};
            op.data[2] = c;
            run_ok(d, &op);
            assert_memory_equal(plain, c, mn * sizeof *c);
            void *all[] = {a, b, c, plain, raw};
            for (size_t j = 0; j < sizeof all / sizeof *all; j++)
                slr_free(NULL, all[j]);
        }
    slr_devices_unref(d);
}

static void test_declines(void **state)
{
    (void)state;
    slr_devices *d = test_devices(1, "auto");
    float x[64] = {0};
    test_op op = matmul((shape){1, 4, 4, 4}, false, false, 1);
    op.n_in = 2;
    op.desc[2] = F32_(4, 4);
    op.data[0] = op.data[1] = op.data[2] = x;
    op.desc[0].dtype = SDLORA_F16;
    assert_int_equal(run_op(d, &op), SDLORA_ENOTSUP);
    op.desc[0] = F32_(4, 4);
    op.desc[0].stride[0] = 8;
    assert_int_equal(run_op(d, &op), SDLORA_ENOTSUP);
    op.desc[0] = F32_(4, 5);
    assert_int_equal(run_op(d, &op), SDLORA_EINVAL);
    assert_non_null(strstr(sdlora_last_error()->message, "cpu: "));
    op.op = 9999;
    assert_int_equal(run_op(d, &op), SDLORA_ENOTSUP);
    slr_devices_unref(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_matmul),
        cmocka_unit_test(test_bmm),
        cmocka_unit_test(test_frozen),
        cmocka_unit_test(test_declines),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
