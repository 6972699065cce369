/* SPDX-License-Identifier: MIT */
/* The oneDNN plugin's vocabulary against its words: every value of a relayed matrix lies where the
 * layout says, whole and panel by panel, with zeros in padding; panels of one layout agree.  77
 * where the library has no fast product for this processor. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <sdlora/ops.h>

#include "plugins/onednn/library.h"

static dnnl_engine_t engine;
static dnnl_stream_t stream;

/* y[32,n] = x[32,k] w[k,n] in f32. */
static dnnl_status_t product(dn_made *made, int64_t k, int64_t n)
{
    const dn_want want = {.kind = DN_MATMUL,
                          .src = dn_layout_dense(SDLORA_F32, 2, (int64_t[]){32, k}),
                          .weights = dn_layout_open(SDLORA_F32, 2, (int64_t[]){k, n}),
                          .dst = dn_layout_dense(SDLORA_F32, 2, (int64_t[]){32, n}),
                          .alpha = 1};
    return dn_library_make(made, engine, &want);
}

static int64_t cut_of(const dn_layout *l, int axis, int from)
{
    int64_t block = 1;
    for (int i = from; i < l->cuts; i++)
        block *= l->axis[i] == axis ? l->block[i] : 1;
    return block;
}

/* Where an element lies: its block, and inside that digit by digit. */
static int64_t place(const dn_layout *l, const int64_t *index)
{
    int64_t at = 0, inner = 0;
    for (int i = 0; i < l->rank; i++)
        at += index[i] / cut_of(l, i, 0) * l->stride[i];
    for (int i = 0; i < l->cuts; i++) {
        const int axis = l->axis[i];
        inner = inner * l->block[i] + index[axis] % cut_of(l, axis, i) / cut_of(l, axis, i + 1);
    }
    return at + inner;
}

/* Relays [k,n] in panels of `width` columns. */
static void check_relay(int64_t k, int64_t n, int64_t width)
{
    dn_made made;
    assert_int_equal(product(&made, k, n), dnnl_success);
    const dn_layout *l = &made.weights;
    const int64_t values = dn_layout_bytes(l) / 4;
    assert_true(values >= k * n);
    float *from = malloc((size_t)(k * n) * 4), *to = malloc((size_t)values * 4);
    for (int64_t i = 0; i < k * n; i++)
        from[i] = (float)(i % 8191 + 1);
    memset(to, 0x7f, (size_t)values * 4);
    for (int64_t n0 = 0; n0 < n; n0 += width) {
        const int64_t m = n - n0 < width ? n - n0 : width;
        const dn_layout part =
            dn_layout_strided(SDLORA_F32, 2, (int64_t[]){k, m}, (int64_t[]){n, 1});
        assert_int_equal(dn_library_relay(engine, stream, &part, from + n0, l, 1, n0, to),
                         dnnl_success);
    }
    for (int64_t i = 0; i < k; i++)
        for (int64_t j = 0; j < n; j++) {
            const float got = to[place(l, (int64_t[]){i, j})];
            if (got != from[i * n + j])
                fail_msg("[%d,%d] in panels of %d: %g at %d,%d, wanted %g", (int)k, (int)n,
                         (int)width, (double)got, (int)i, (int)j, (double)from[i * n + j]);
            to[place(l, (int64_t[]){i, j})] = 0;
        }
    for (int64_t i = 0; i < values; i++)
        assert_true(to[i] == 0);
    free(from);
    free(to);
    dnnl_primitive_destroy(made.primitive);
}

static void test_relay(void **state)
{
    (void)state;
    check_relay(48, 256, 256);
    check_relay(48, 256, 64);
    check_relay(37, 300, 300);
    check_relay(37, 300, 64);
}

static void test_panels(void **state)
{
    dn_made wide, narrow;
    dn_layout l;
    (void)state;
    assert_int_equal(product(&wide, 64, 320), dnnl_success);
    assert_int_equal(product(&narrow, 64, 64), dnnl_success);
    assert_true(dn_layout_widen(&l, &narrow.weights, 1, 320));
    assert_true(dn_layout_same(&l, &wide.weights));
    l = dn_layout_panel(&wide.weights, 1, 64);
    assert_true(dn_layout_same(&l, &narrow.weights));
    assert_false(dn_layout_same(&wide.weights, &narrow.weights));
    assert_int_equal(dn_layout_offset(&wide.weights, 1, 64), dn_layout_bytes(&narrow.weights));
    assert_int_equal(dn_layout_offset(&wide.weights, 1, 7), -1);
    dnnl_primitive_destroy(wide.primitive);
    dnnl_primitive_destroy(narrow.primitive);
}

static void test_bytes(void **state)
{
    (void)state;
    const dn_layout rows = dn_layout_strided(SDLORA_BF16, 2, (int64_t[]){3, 5}, (int64_t[]){8, 1});
    const dn_layout none = dn_layout_dense(SDLORA_U8, 1, (int64_t[]){0});
    assert_int_equal(dn_layout_bytes(&rows), (2 * 8 + 5) * 2);
    assert_int_equal(dn_layout_bytes(&none), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_panels),
        cmocka_unit_test(test_relay),
    };
    dn_made made;
    if (dnnl_engine_create(&engine, dnnl_cpu, 0) != dnnl_success ||
        dnnl_stream_create(&stream, engine, dnnl_stream_default_flags) != dnnl_success)
        return 2;
    int rc = 77;
    if (product(&made, 64, 64) == dnnl_success) {
        const int cuts = made.weights.cuts;
        dnnl_primitive_destroy(made.primitive);
        rc = cuts ? cmocka_run_group_tests(tests, NULL, NULL) : 77;
    }
    dnnl_stream_destroy(stream);
    dnnl_engine_destroy(engine);
    return rc;
}
