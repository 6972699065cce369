/* SPDX-License-Identifier: MIT */
/* CONV2D, CONV2D_BX and CONV2D_BW against six plain loops in double: strides, paddings on one side
 * only, groups, filters that hang over the edge, few and many channels, frozen and changing
 * weights, sums in place, and equal bits for 1, 2 and 3 threads. */
#include "unit/backend/kernel.h"

typedef struct shape {
    int64_t n, h, w, c, k, r, s, stride, top, left, bottom, right, groups;
} shape;

static const shape shapes[] = {
    {1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 1},
    {2, 5, 7, 3, 4, 3, 3, 1, 1, 1, 1, 1, 1},
    {1, 6, 6, 8, 6, 3, 3, 2, 1, 1, 1, 1, 1}, /* UNet's way down */
    {1, 7, 6, 8, 6, 3, 3, 2, 0, 0, 1, 1, 1}, /* the autoencoder's: right and bottom only */
    {2, 4, 5, 6, 9, 1, 1, 1, 0, 0, 0, 0, 1},
    {1, 9, 4, 6, 4, 1, 1, 2, 0, 0, 0, 0, 1}, /* stride wider than the filter */
    {1, 5, 5, 6, 4, 5, 3, 1, 2, 1, 2, 1, 1},
    {1, 5, 6, 6, 9, 3, 3, 1, 1, 1, 1, 1, 3},
    {1, 8, 8, 8, 8, 3, 3, 1, 1, 1, 1, 1, 8},
    {1, 3, 2, 700, 270, 3, 3, 1, 1, 1, 1, 1, 1}, /* a block of part of the channels */
    {2, 17, 19, 20, 40, 3, 3, 1, 1, 1, 1, 1, 1}, /* several tiles, the last one short */
    {1, 16, 16, 96, 300, 3, 3, 1, 1, 1, 1, 1, 1},
    {1, 13, 12, 64, 288, 3, 3, 2, 1, 1, 1, 1, 1},
    {1, 4, 4, 4, 4, 2, 2, 3, 0, 0, 0, 0, 1},
};

typedef struct sizes {
    int64_t oh, ow, cg, kg;
    size_t x, y, w;
} sizes;

static sizes sizes_of(shape s)
{
    sizes z = {.oh = (s.h + s.top + s.bottom - s.r) / s.stride + 1,
               .ow = (s.w + s.left + s.right - s.s) / s.stride + 1,
               .cg = s.c / s.groups,
               .kg = s.k / s.groups};
    z.x = (size_t)(s.n * s.h * s.w * s.c);
    z.y = (size_t)(s.n * z.oh * z.ow * s.k);
    z.w = (size_t)(s.k * z.cg * s.r * s.s);
    return z;
}

/* Calls with each triple (x, w, y) of indices that belong together. */
static void each_product(shape s, void (*fn)(void *u, int64_t x, int64_t w, int64_t y), void *u)
{
    const sizes z = sizes_of(s);
    for (int64_t n = 0; n < s.n; n++)
        for (int64_t i = 0; i < z.oh; i++)
            for (int64_t j = 0; j < z.ow; j++)
                for (int64_t r = 0; r < s.r; r++)
                    for (int64_t q = 0; q < s.s; q++) {
                        const int64_t yy = i * s.stride - s.top + r, xx = j * s.stride - s.left + q;
                        if (yy < 0 || yy >= s.h || xx < 0 || xx >= s.w)
                            continue;
                        for (int64_t k = 0; k < s.k; k++)
                            for (int64_t c = 0; c < z.cg; c++)
                                fn(u, ((n * s.h + yy) * s.w + xx) * s.c + k / z.kg * z.cg + c,
                                   ((k * z.cg + c) * s.r + r) * s.s + q,
                                   ((n * z.oh + i) * z.ow + j) * s.k + k);
                    }
}

typedef struct operands {
    const float *x, *w, *dy;
    double *y, *dx, *dw;
} operands;

static void all_three(void *user, int64_t x, int64_t w, int64_t y)
{
    operands *o = user;
    o->y[y] += (double)o->x[x] * o->w[w];
    o->dx[x] += (double)o->dy[y] * o->w[w];
    o->dw[w] += (double)o->dy[y] * o->x[x];
}

enum { DEVICES = 3 };

/* Rounding in f32 of a sum of n products below 1: steps are random, so n * 2^-23 holds the largest
 * of many sums, each of which is itself rounded nine times (once per tap). */
static double tolerance(int64_t n)
{
    return 1e-6 + 1e-7 * (double)n;
}

static void run_all(slr_devices *const d[DEVICES], test_op op, size_t n, const float *start,
                    const double *want, double tol, const char *what)
{
    float *first = NULL;
    const uint32_t out = op.n_in;
    bool in_place = op.n_in == 4 && op.data[3] == op.data[out];
    for (int t = 0; t < DEVICES; t++) {
        float *y = slr_alloc(NULL, n * sizeof *y);
        memcpy(y, start, n * sizeof *y);
        op.data[out] = y;
        if (in_place)
            op.data[3] = y;
        run_ok(d[t], &op);
        assert_near(y, want, n, tol, what);
        if (!first)
            first = y;
        assert_memory_equal(first, y, n * sizeof *y);
        if (y != first)
            slr_free(NULL, y);
    }
    slr_free(NULL, first);
}

static void one_shape(slr_devices *const d[DEVICES], shape s, bool frozen, uint64_t id)
{
    const sizes z = sizes_of(s);
    float *x = numbers(z.x, 1), *w = numbers(z.w, 2), *dy = numbers(z.y, 3);
    float *bias = numbers((size_t)s.k, 4), *add = numbers(z.y, 5);
    operands o = {
        x, w, dy, slr_calloc(NULL, z.y, 8), slr_calloc(NULL, z.x, 8), slr_calloc(NULL, z.w, 8)};
    each_product(s, all_three, &o);
    test_op op = {
        .op = SDLORA_OP_CONV2D,
        .n_in = 4,
        .n_out = 1,
        .n_int = 7,
        .n_real = 1,
        .desc = {F32_(s.n, s.h, s.w, s.c), F32_(s.k, z.cg, s.r, s.s), ABSENT, ABSENT,
                 F32_(s.n, z.oh, z.ow, s.k)},
        .data = {x, w},
        .ints = {s.stride, s.stride, s.top, s.left, s.bottom, s.right, s.groups},
        .reals = {0.5},
    };
    if (frozen)
        op.consts[1] = (sdlora_const){.data = w, .id = id};
    for (size_t i = 0; i < z.y; i++)
        o.y[i] *= 0.5;
    run_all(d, op, z.y, dy, o.y, tolerance(z.cg * s.r * s.s), "conv2d");
    op.desc[2] = F32_(s.k);
    op.data[2] = bias;
    for (size_t i = 0; i < z.y; i++)
        o.y[i] += bias[i % (size_t)s.k];
    run_all(d, op, z.y, dy, o.y, tolerance(z.cg * s.r * s.s), "conv2d + bias");
    op.desc[3] = op.desc[4];
    op.data[3] = add;
    for (size_t i = 0; i < z.y; i++)
        o.y[i] += add[i];
    run_all(d, op, z.y, dy, o.y, tolerance(z.cg * s.r * s.s), "conv2d + bias + add");
    op.data[4] = add;
    run_all(d, op, z.y, add, o.y, tolerance(z.cg * s.r * s.s), "conv2d + bias + add in place");

    test_op bx = {
        .op = SDLORA_OP_CONV2D_BX,
        .n_in = 2,
        .n_out = 1,
        .n_int = 9,
        .n_real = 1,
        .desc = {F32_(s.n, z.oh, z.ow, s.k), F32_(s.k, z.cg, s.r, s.s), F32_(s.n, s.h, s.w, s.c)},
        .data = {dy, w},
        .ints = {s.stride, s.stride, s.top, s.left, s.bottom, s.right, s.groups, s.h, s.w},
        .reals = {1},
    };
    if (frozen)
        bx.consts[1] = (sdlora_const){.data = w, .id = id};
    run_all(d, bx, z.x, x, o.dx, tolerance(z.kg * s.r * s.s), "conv2d_bx");

    test_op bw = bx;
    bw.op = SDLORA_OP_CONV2D_BW;
    bw.consts[1] = (sdlora_const){0};
    bw.desc[1] = F32_(s.n, s.h, s.w, s.c);
    bw.desc[2] = F32_(s.k, z.cg, s.r, s.s);
    bw.data[1] = x;
    bw.ints[7] = s.r;
    bw.ints[8] = s.s;
    run_all(d, bw, z.w, w, o.dw, tolerance(s.n * z.oh * z.ow), "conv2d_bw");
    void *all[] = {x, w, dy, bias, add, o.y, o.dx, o.dw};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        slr_free(NULL, all[i]);
}

static void test_conv(void **state)
{
    (void)state;
    slr_devices *d[DEVICES];
    for (int t = 0; t < DEVICES; t++)
        d[t] = test_devices(t + 1, "auto");
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (int frozen = 0; frozen < 2; frozen++)
            one_shape(d, shapes[i], frozen, 1000 + i);
    for (int t = 0; t < DEVICES; t++)
        slr_devices_unref(d[t]);
}

static void test_declines(void **state)
{
    (void)state;
    slr_devices *d = test_devices(1, "auto");
    float x[256] = {0};
    test_op op = {.op = SDLORA_OP_CONV2D,
                  .n_in = 2,
                  .n_out = 1,
                  .n_int = 7,
                  .desc = {F32_(1, 4, 4, 4), F32_(4, 4, 3, 3), F32_(1, 4, 4, 4)},
                  .data = {x, x, x},
                  .ints = {1, 1, 1, 1, 1, 0, 1}};
    assert_int_equal(run_op(d, &op), SDLORA_EINVAL); /* one column short */
    op.ints[5] = 1;
    op.desc[1] = F32_(4, 3, 3, 3);
    assert_int_equal(run_op(d, &op), SDLORA_EINVAL);
    assert_non_null(strstr(sdlora_last_error()->message, "[4,3,3,3]"));
    op.desc[1] = F32_(4, 4, 3, 3);
    op.desc[0].dtype = SDLORA_F16;
    assert_int_equal(run_op(d, &op), SDLORA_ENOTSUP);
    slr_devices_unref(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_conv),
        cmocka_unit_test(test_declines),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
