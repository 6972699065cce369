/* SPDX-License-Identifier: MIT */
/* Tensors and storage: counting without overflow, shapes as text, who frees what, layouts. */
#include "../base/base_test.h"

#include "base/thread.h"
#include "tensor/tensor.h"

static slr_tensor shaped(int rank, int64_t a, int64_t b, int64_t c)
{
    return (slr_tensor){.dtype = SDLORA_F32, .rank = rank, .dim = {a, b, c}};
}

static void counts_do_not_overflow(void **state)
{
    slr_tensor t = shaped(3, 2, 3, 4);

    assert_int_equal(slr_tensor_count(&t), 24);
    assert_int_equal(slr_tensor_bytes(&t), 96);
    t = shaped(0, 9, 9, 9);
    assert_int_equal(slr_tensor_count(&t), 1);
    t = shaped(3, 5, 0, 7);
    assert_int_equal(slr_tensor_count(&t), 0);
    t = shaped(3, INT64_MAX, 0, INT64_MAX); /* empty, but products of its axes are not safe */
    assert_int_equal(slr_tensor_count(&t), -1);
    t = shaped(3, INT64_MAX, 2, 1);
    assert_int_equal(slr_tensor_count(&t), -1);
    assert_true(slr_tensor_bytes(&t) == SIZE_MAX);
    t = shaped(1, INT64_MAX, 0, 0);
    assert_true(slr_tensor_bytes(&t) == SIZE_MAX);
    t = shaped(2, 3, -1, 0);
    assert_int_equal(slr_tensor_count(&t), -1);
    t = shaped(SLR_MAX_RANK + 1, 1, 1, 1);
    assert_int_equal(slr_tensor_count(&t), -1);
    t = shaped(-1, 1, 1, 1);
    assert_int_equal(slr_tensor_count(&t), -1);
}

static void shapes_as_text(void **state)
{
    const int64_t conv[] = {320, 4, 3, 3};
    int64_t huge[SLR_MAX_RANK];
    char out[96];

    assert_string_equal(slr_shape_text(conv, 4, out), "[320,4,3,3]");
    assert_string_equal(slr_shape_text(conv, 1, out), "[320]");
    assert_string_equal(slr_shape_text(conv, 0, out), "[]");
    for (int i = 0; i < SLR_MAX_RANK; i++)
        huge[i] = INT64_MIN;
    assert_true(strlen(slr_shape_text(huge, SLR_MAX_RANK, out)) < sizeof out);
    assert_string_equal(out + strlen(out) - 4, "...]");
}

static void reading_as_f32(void **state)
{
    const uint16_t halves[] = {0x3C00, 0xC000, 0x0001};
    slr_tensor t = {.dtype = SDLORA_F16, .rank = 1, .dim = {3}, .data = halves};
    float out[3];

    assert_ok(slr_tensor_to_f32(&t, out));
    assert_true(out[0] == 1 && out[1] == -2 && out[2] == 0x1p-24f);
    t.dtype = 77;
    assert_int_equal(slr_tensor_to_f32(&t, out), SDLORA_ENOTSUP);
    t.dtype = SDLORA_F16;
    t.dim[0] = -3;
    assert_int_equal(slr_tensor_to_f32(&t, out), SDLORA_EINVAL);
    assert_message("[-3]");
    t.rank = 100;
    assert_int_equal(slr_tensor_to_f32(&t, out), SDLORA_EINVAL);
    t = (slr_tensor){.dtype = SDLORA_F32, .rank = 1};
    assert_ok(slr_tensor_to_f32(&t, NULL)); /* empty, no data at all */
}

static void count_release(void *user)
{
    ++*(int *)user;
}

static int storage_scenario(slr_mem *m)
{
    slr_storage *own, *wrapped;
    int released = 0, rc;

    rc = slr_storage_new(&own, m, 100);
    if (rc < 0) {
        assert_null(own);
        return rc;
    }
    assert_int_equal((uintptr_t)slr_storage_data(own) % 64, 0);
    assert_int_equal(slr_storage_bytes(own), 100);
    rc = slr_storage_wrap(&wrapped, m, "abc", 3, count_release, &released);
    if (rc == SDLORA_OK) {
        assert_memory_equal(slr_storage_data(wrapped), "abc", 3);
        slr_storage_ref(wrapped);
        slr_storage_unref(wrapped);
        assert_int_equal(released, 0);
        slr_storage_unref(wrapped);
        assert_int_equal(released, 1);
    } else
        assert_int_equal(released, 0); /* a failed wrap leaves the bytes with their owner */
    slr_storage_unref(own);
    return rc;
}

static void storage_is_freed_once(void **state)
{
    slr_storage *s;

    torture(storage_scenario);
    assert_ok(slr_storage_wrap(&s, NULL, "x", 1, NULL, NULL));
    slr_storage_unref(s);
    slr_storage_unref(NULL);
    assert_ok(slr_storage_new(&s, NULL, 0));
    assert_non_null(slr_storage_data(s));
    slr_storage_unref(s);
}

static void layouts_go_round(void **state)
{
    enum { N = 2, C = 37, H = 5, W = 19, ALL = N * C * H * W };
    static float a[ALL], b[ALL], back[ALL];

    for (int i = 0; i < ALL; i++)
        a[i] = (float)i;
    slr_nchw_to_nhwc(b, a, N, C, H, W);
    for (int n = 0; n < N; n++)
        for (int c = 0; c < C; c++)
            for (int y = 0; y < H; y++)
                for (int x = 0; x < W; x++)
                    assert_true(b[((n * H + y) * W + x) * C + c] ==
                                a[((n * C + c) * H + y) * W + x]);
    slr_nhwc_to_nchw(back, b, N, C, H, W);
    assert_memory_equal(back, a, sizeof a);
    slr_nchw_to_nhwc(b, a, 0, C, H, W);
    slr_nchw_to_nhwc(b, a, N, 0, H, W);
}

static void ids(void *arg, int64_t lo, int64_t hi)
{
    for (int64_t i = lo; i < hi; i++)
        ((uint64_t *)arg)[i] = slr_tensor_next_id();
}

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

static void ids_never_repeat(void **state)
{
    static uint64_t id[10000];

    slr_parallel(4, 10000, 10, ids, id);
    qsort(id, 10000, sizeof *id, by_value);
    assert_true(id[0] > 0);
    for (int i = 1; i < 10000; i++)
        assert_true(id[i] > id[i - 1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counts_do_not_overflow), cmocka_unit_test(shapes_as_text),
        cmocka_unit_test(reading_as_f32),         cmocka_unit_test(storage_is_freed_once),
        cmocka_unit_test(layouts_go_round),       cmocka_unit_test(ids_never_repeat),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
