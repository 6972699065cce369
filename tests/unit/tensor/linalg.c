/* SPDX-License-Identifier: MIT */
/* Singular value decompositions against their own laws: known values come back, the best
 * approximation misses exactly the values that were left out, rows are orthonormal, products and
 * dense matrices agree, and threads do not matter. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "base/status.h"
#include "base/thread.h"
#include "tensor/linalg.h"

static void ok(int rc)
{
    if (rc < 0)
        fail_msg("%s (%s)", sdlora_last_error()->message, sdlora_last_error()->where);
}

static float *block(int64_t n)
{
    float *p = slr_calloc(NULL, (size_t)n, sizeof *p);
    assert_non_null(p);
    return p;
}

static float *noise(int64_t n, uint64_t seed)
{
    slr_rng rng;
    float *p = block(n);
    slr_rng_init(&rng, seed, SLR_STREAM_INIT, 0);
    slr_rng_normal(&rng, p, (size_t)n);
    return p;
}

static float *times(const float *up, const float *down, int64_t m, int64_t r, int64_t n)
{
    float *a = block(m * n);
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++) {
            double sum = 0;
            for (int64_t k = 0; k < r; k++)
                sum += (double)up[i * r + k] * down[k * n + j];
            a[i * n + j] = (float)sum;
        }
    return a;
}

static double distance(const float *a, const float *b, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        double d = (double)a[i] - (b ? b[i] : 0.0f);
        sum += d * d;
    }
    return sqrt(sum);
}

/* Rows of down are orthonormal: f32 keeps each product to some 1e-7 a row, measured 4e-7. */
static void check_rows(const float *down, int64_t k, int64_t n)
{
    for (int64_t i = 0; i < k; i++)
        for (int64_t j = 0; j <= i; j++) {
            double sum = 0;
            for (int64_t x = 0; x < n; x++)
                sum += (double)down[i * n + x] * down[j * n + x];
            assert_true(fabs(sum - (i == j)) < 5e-6);
        }
}

/* What rank k leaves out is what the values behind it say (Eckart and Young). */
static void check_best(const slr_svd *s, const float *a, int64_t m, int64_t n, int64_t k)
{
    int64_t count;
    const double *values = slr_svd_values(s, &count);
    double rest = 0;
    assert_int_equal(count, m < n ? m : n);
    for (int64_t i = 1; i < count; i++)
        assert_true(values[i] <= values[i - 1]);
    for (int64_t i = k; i < count; i++)
        rest += values[i] * values[i];
    float *up = block(m * k), *down = block(k * n);
    ok(slr_svd_factors(s, k, up, down));
    float *b = times(up, down, m, k, n);
    check_rows(down, k, n);
    /* f32 factors: 1e-6 of the whole */
    assert_true(fabs(distance(a, b, m * n) - sqrt(rest)) <= 1e-6 * distance(a, NULL, m * n));
    slr_free(NULL, b);
    slr_free(NULL, up);
    slr_free(NULL, down);
}

static const int64_t shapes[][2] = {{24, 40}, {40, 24}, {1, 9}, {9, 1}, {32, 32}, {300, 520}};

static void test_dense(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        int64_t m = shapes[i][0], n = shapes[i][1], least = m < n ? m : n;
        float *a = noise(m * n, i);
        slr_svd *s;
        ok(slr_svd_dense(&s, NULL, a, m, n));
        for (int64_t k = 1; k <= least; k += least > 8 ? 7 : 1)
            check_best(s, a, m, n, k);
        check_best(s, a, m, n, least);
        slr_svd_free(s);
        slr_free(NULL, a);
    }
}

static void test_product(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (int64_t r = 1; r <= 50; r += 7) { /* beyond the sides too */
            int64_t m = shapes[i][0], n = shapes[i][1], least = m < n ? m : n, count;
            float *up = noise(m * r, i), *down = noise(r * n, i + 9);
            float *a = times(up, down, m, r, n);
            slr_svd *s, *d;
            ok(slr_svd_product(&s, NULL, up, down, m, r, n));
            ok(slr_svd_dense(&d, NULL, a, m, n));
            const double *sv = slr_svd_values(s, &count), *dv = slr_svd_values(d, &count);
            for (int64_t k = 0; k < count;
                 k++) /* a Gram matrix has squares: sqrt(1e-15) of sv[0] */
                assert_true(fabs(sv[k] - dv[k]) <= 1e-6 * sv[0]);
            check_best(s, a, m, n, r < least ? r : least);
            check_best(s, a, m, n, least); /* columns that nothing is left for */
            check_best(s, a, m, n, 1);
            slr_svd_free(s);
            slr_svd_free(d);
            slr_free(NULL, a);
            slr_free(NULL, up);
            slr_free(NULL, down);
        }
}

/* A diagonal is its own decomposition. */
static void test_known(void **state)
{
    (void)state;
    enum { N = 6 };
    static const double want[N] = {7, 5, 3, 2, 0.5, 0.001};
    float a[N * 9] = {0};
    int64_t count;
    slr_svd *s;
    for (int i = 0; i < N; i++)
        a[i * 9 + (i * 4) % 9] = (float)(i % 2 ? -want[i] : want[i]);
    ok(slr_svd_dense(&s, NULL, a, N, 9));
    const double *values = slr_svd_values(s, &count);
    for (int i = 0; i < N; i++)
        assert_true(fabs(values[i] - want[i]) < 1e-7);
    slr_svd_free(s);
}

static void test_zero(void **state)
{
    (void)state;
    float a[12] = {0}, up[6], down[8];
    int64_t count;
    slr_svd *s;
    ok(slr_svd_dense(&s, NULL, a, 3, 4));
    assert_true(slr_svd_values(s, &count)[0] == 0);
    ok(slr_svd_factors(s, 2, up, down));
    assert_true(distance(up, NULL, 6) == 0);
    check_rows(down, 2, 4);
    assert_int_equal(slr_svd_factors(s, 4, up, down), SDLORA_EINVAL);
    slr_svd_free(s);
}

enum { ITEMS = 4, M = 200, N = 260, K = 12 };

typedef struct run {
    float *a, *up, *down;
} run;

static void piece(void *arg, int64_t lo, int64_t hi)
{
    run *r = arg;
    for (int64_t i = lo; i < hi; i++) {
        slr_svd *s;
        ok(slr_svd_dense(&s, NULL, r->a + i * M * N, M, N));
        ok(slr_svd_factors(s, K, r->up + i * M * K, r->down + i * K * N));
        slr_svd_free(s);
    }
}

static void test_threads(void **state)
{
    (void)state;
    run r[2];
    for (int t = 0; t < 2; t++) {
        r[t] = (run){noise(ITEMS * M * N, 3), block(ITEMS * M * K), block(ITEMS * K * N)};
        slr_parallel(t + 1, ITEMS, 1, piece, &r[t]);
    }
    assert_memory_equal(r[0].up, r[1].up, ITEMS * M * K * sizeof(float));
    assert_memory_equal(r[0].down, r[1].down, ITEMS * K * N * sizeof(float));
    for (int t = 0; t < 2; t++) {
        slr_free(NULL, r[t].a);
        slr_free(NULL, r[t].up);
        slr_free(NULL, r[t].down);
    }
}

/* torch.quantile(torch.tensor([5., 1., 3., 2.]), q) */
static void test_quantile(void **state)
{
    (void)state;
    static const struct {
        double q;
        float want;
    } rows[] = {{0, 1}, {1, 5}, {0.5, 2.5f}, {0.9, 4.4f}, {0.99, 4.94f}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        float x[4] = {5, 1, 3, 2};
        assert_true(fabsf(slr_quantile(x, 4, rows[i].q) - rows[i].want) < 1e-6f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dense),   cmocka_unit_test(test_product),
        cmocka_unit_test(test_known),   cmocka_unit_test(test_zero),
        cmocka_unit_test(test_threads), cmocka_unit_test(test_quantile),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
