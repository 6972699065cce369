/* SPDX-License-Identifier: MIT */
/* ATTENTION and ATTENTION_B against plain loops in double: head sizes below, at and above a
 * register, lengths around tiles, causal, operands that are columns of one tensor, scores far from
 * zero, and equal bits for 1, 2 and 3 threads, on each instruction set. */
#include <math.h>

#include "unit/backend/kernel.h"

typedef struct shape {
    int64_t n, tq, tk, heads, d;
    bool causal;
    double scale;
} shape;

static const shape shapes[] = {
    {1, 1, 1, 1, 1, false, 1},
    {2, 5, 7, 2, 3, false, 0.5},
    {1, 64, 96, 2, 8, false, 0.35},
    {1, 65, 97, 1, 40, false, 0.16},
    {1, 77, 77, 3, 64, true, 8},
    {2, 100, 77, 2, 80, false, 0.11},
    {1, 9, 9, 2, 5, true, 1},
    {1, 130, 200, 1, 160, false, 0.08},
    {1, 200, 200, 1, 24, true, 30},
    {1, 70, 2000, 1, 16, false, 0.25},
    {1, 40, 50, 1, 512, false, 0.04},
    {2, 40, 330, 8, 250, false, 0.06}, /* more than one round of packs */
};

typedef struct result {
    double *o, *lse, *dq, *dk, *dv;
} result;

/* One (sample, head): everything by definition. */
static void slow_head(shape s, const float *q, const float *k, const float *v, const float *d_o,
                      int64_t ldq, int64_t ldk, result r, int64_t qo, int64_t ko, double *lse)
{
    const int64_t ld = s.heads * s.d;
    double *p = slr_calloc(NULL, (size_t)s.tk, sizeof *p);
    for (int64_t i = 0; i < s.tq; i++) {
        const int64_t keys = s.causal ? i + 1 : s.tk;
        double top = -INFINITY, sum = 0, delta = 0;
        for (int64_t j = 0; j < keys; j++) {
            p[j] = 0;
            for (int64_t e = 0; e < s.d; e++)
                p[j] += (double)q[i * ldq + e] * k[j * ldk + e];
            p[j] *= s.scale;
            top = fmax(top, p[j]);
        }
        for (int64_t j = 0; j < keys; j++)
            sum += p[j] = exp(p[j] - top);
        lse[i] = top + log(sum);
        for (int64_t j = 0; j < keys; j++)
            for (int64_t e = 0; e < s.d; e++)
                r.o[qo + i * ld + e] += p[j] / sum * v[j * ldk + e];
        for (int64_t e = 0; e < s.d; e++)
            delta += d_o[i * ld + e] * r.o[qo + i * ld + e];
        for (int64_t j = 0; j < keys; j++) {
            double dp = 0, pj = p[j] / sum;
            for (int64_t e = 0; e < s.d; e++)
                dp += (double)d_o[i * ld + e] * v[j * ldk + e];
            const double ds = pj * (dp - delta) * s.scale;
            for (int64_t e = 0; e < s.d; e++) {
                r.dq[qo + i * ld + e] += ds * k[j * ldk + e];
                r.dk[ko + j * ld + e] += ds * q[i * ldq + e];
                r.dv[ko + j * ld + e] += pj * d_o[i * ld + e];
            }
        }
    }
    slr_free(NULL, p);
}

static float largest(const double *p, size_t n)
{
    double top = 1e-3;
    for (size_t i = 0; i < n; i++)
        top = fmax(top, fabs(p[i]));
    return (float)top;
}

/* Runs one operation on three thread counts and compares each output. */
static void check(slr_devices *const d[3], test_op op, const double *const *want,
                  const size_t *count, double tolerance)
{
    float *first[3] = {0}, *out[3];
    for (int t = 0; t < 3; t++) {
        for (uint32_t i = 0; i < op.n_out; i++)
            op.data[op.n_in + i] = out[i] = numbers(count[i], 9);
        run_ok(d[t], &op);
        for (uint32_t i = 0; i < op.n_out; i++) {
            assert_near(out[i], want[i], count[i], tolerance * largest(want[i], count[i]),
                        op.op == SDLORA_OP_ATTENTION ? "attention" : "attention_b");
            if (t == 0)
                first[i] = out[i];
            assert_memory_equal(first[i], out[i], count[i] * sizeof(float));
            if (t)
                slr_free(NULL, out[i]);
        }
    }
    for (uint32_t i = 0; i < op.n_out; i++)
        slr_free(NULL, first[i]);
}

static sdlora_tdesc columns(int64_t n, int64_t t, int64_t c, int64_t row)
{
    sdlora_tdesc d = F32_(n, t, c);
    d.stride[0] = t * row;
    d.stride[1] = row;
    return d;
}

/* k and v are columns of one [N,Tk,2C] tensor, q the right part of [N,Tq,C+3]. */
static void one_shape(slr_devices *const d[3], shape s)
{
    const int64_t c = s.heads * s.d, ldq = c + 3, ldk = 2 * c;
    const size_t nq = (size_t)(s.n * s.tq * c), nk = (size_t)(s.n * s.tk * c);
    const size_t nl = (size_t)(s.n * s.heads * s.tq);
    float *q = numbers((size_t)(s.n * s.tq * ldq), 1), *kv = numbers(nk * 2, 2);
    float *d_o = numbers(nq, 3), *o = numbers(nq, 4), *lse = numbers(nl, 5);
    result r = {slr_calloc(NULL, nq, 8), slr_calloc(NULL, nl, 8), slr_calloc(NULL, nq, 8),
                slr_calloc(NULL, nk, 8), slr_calloc(NULL, nk, 8)};
    for (int64_t z = 0; z < s.n * s.heads; z++) {
        const int64_t b = z / s.heads, h = z % s.heads * s.d;
        slow_head(s, q + 3 + b * s.tq * ldq + h, kv + b * s.tk * ldk + h,
                  kv + c + b * s.tk * ldk + h, d_o + b * s.tq * c + h, ldq, ldk, r,
                  b * s.tq * c + h, b * s.tk * c + h, r.lse + z * s.tq);
    }
    for (size_t i = 0; i < nq; i++)
        o[i] = (float)r.o[i];
    for (size_t i = 0; i < nl; i++)
        lse[i] = (float)r.lse[i];
    test_op f = {.op = SDLORA_OP_ATTENTION,
                 .n_in = 3,
                 .n_out = 2,
                 .n_int = 2,
                 .n_real = 1,
                 .desc = {columns(s.n, s.tq, c, ldq), columns(s.n, s.tk, c, ldk),
                          columns(s.n, s.tk, c, ldk), F32_(s.n, s.tq, c), F32_(s.n, s.heads, s.tq)},
                 .data = {q + 3, kv, kv + c},
                 .ints = {s.heads, s.causal},
                 .reals = {s.scale}};
    /* Scores are sums of d products times scale, rounded in f32, and stand in an exponent. */
    const double tolerance = 2e-6 + 3e-8 * s.scale * (double)s.d;
    check(d, f, (const double *const[]){r.o, r.lse}, (const size_t[]){nq, nl}, tolerance);
    test_op b = {.op = SDLORA_OP_ATTENTION_B,
                 .n_in = 6,
                 .n_out = 3,
                 .n_int = 2,
                 .n_real = 1,
                 .desc = {f.desc[3], f.desc[0], f.desc[1], f.desc[2], f.desc[3], f.desc[4],
                          f.desc[3], F32_(s.n, s.tk, c), F32_(s.n, s.tk, c)},
                 .data = {d_o, q + 3, kv, kv + c, o, lse},
                 .ints = {s.heads, s.causal},
                 .reals = {s.scale}};
    /* dS is a difference of nearly equal terms */
    check(d, b, (const double *const[]){r.dq, r.dk, r.dv}, (const size_t[]){nq, nk, nk},
          8 * tolerance);
    void *all[] = {q, kv, d_o, o, lse, r.o, r.lse, r.dq, r.dk, r.dv};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        slr_free(NULL, all[i]);
}

static void test_shapes(void **state)
{
    static const char *const sets[] = {"generic", "avx2", "auto"};
    (void)state;
    for (size_t set = 0; set < 3; set++) {
        slr_devices *d[3];
        for (int t = 0; t < 3; t++)
            d[t] = test_devices(t + 1, sets[set]);
        for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
            one_shape(d, shapes[i]);
        for (int t = 0; t < 3; t++)
            slr_devices_unref(d[t]);
    }
}

/* A NaN in an operand must show in the result: training stops on it. */
static void test_nan(void **state)
{
    (void)state;
    slr_devices *d = test_devices(1, "auto");
    float *x = numbers(3 * 4 * 8, 1), o[32], lse[4];
    x[32 + 9] = NAN; /* key 1 */
    test_op op = {
        .op = SDLORA_OP_ATTENTION,
        .n_in = 3,
        .n_out = 2,
        .n_int = 2,
        .n_real = 1,
        .desc = {F32_(1, 4, 8), F32_(1, 4, 8), F32_(1, 4, 8), F32_(1, 4, 8), F32_(1, 1, 4)},
        .data = {x, x + 32, x + 64, o, lse},
        .ints = {1, 0},
        .reals = {1}};
    run_ok(d, &op);
    for (int i = 0; i < 32; i++)
        assert_true(isnan(o[i]));
    op.desc[0].dtype = SDLORA_BF16;
    assert_int_equal(run_op(d, &op), SDLORA_ENOTSUP);
    op.desc[0] = F32_(1, 4, 8);
    op.ints[0] = 3;
    assert_int_equal(run_op(d, &op), SDLORA_EINVAL);
    slr_free(NULL, x);
    slr_devices_unref(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shapes),
        cmocka_unit_test(test_nan),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
