/* SPDX-License-Identifier: MIT */
/* Memory: alignment over any allocator, budget, overflow, arena, failure at every call. */
#include "base_test.h"

#include "base/thread.h"

static void is_aligned(const void *p)
{
    assert_non_null(p);
    assert_int_equal((uintptr_t)p % 64, 0);
}

static void blocks_are_aligned_and_counted(void **state)
{
    picky p;
    slr_mem *m = picky_mem(&p, 0);
    void *blocks[100];
    uint64_t sum = 0;

    for (size_t i = 0; i < 100; i++) {
        blocks[i] = slr_alloc(m, i * 7);
        is_aligned(blocks[i]);
        memset(blocks[i], 0xAA, i * 7);
        sum += i * 7;
        assert_int_equal(slr_mem_used(m), sum);
    }
    for (size_t i = 0; i < 100; i++)
        slr_free(m, blocks[i]);
    assert_int_equal(slr_mem_used(m), 0);
    assert_int_equal(slr_mem_peak(m), sum);
    slr_free(m, NULL);
    slr_mem_unref(m);
    assert_int_equal(p.live, 0);
    slr_mem_unref(NULL);
}

static void plain_memory_needs_no_handle(void **state)
{
    char *text = slr_strndup(NULL, "abcdef", 3);

    is_aligned(text);
    assert_string_equal(text, "abc");
    text = slr_realloc(NULL, text, 1000, 1000);
    is_aligned(text);
    assert_string_equal(text, "abc");
    slr_free(NULL, text);
    assert_int_equal(slr_mem_used(NULL), 0);
}

static void realloc_keeps_bytes_when_alignment_moves(void **state)
{
    picky p;
    slr_mem *m = picky_mem(&p, 0);
    unsigned char *b = NULL;
    size_t had = 0;

    for (size_t n = 1; n < 3000; n = n * 3 / 2 + 1) {
        b = slr_realloc(m, b, n, 1);
        is_aligned(b);
        for (size_t i = 0; i < had; i++)
            assert_int_equal(b[i], i % 251);
        for (size_t i = 0; i < n; i++)
            b[i] = (unsigned char)(i % 251);
        had = n;
        assert_int_equal(slr_mem_used(m), n);
    }
    b = slr_realloc(m, b, 5, 1);
    for (size_t i = 0; i < 5; i++)
        assert_int_equal(b[i], i);
    assert_int_equal(slr_mem_used(m), 5);
    p.fail_at = p.calls + 1;
    assert_null(slr_realloc(m, b, 500, 1));
    assert_int_equal(b[4], 4); /* the old block stays */
    assert_int_equal(slr_mem_used(m), 5);
    slr_free(m, b);
    slr_mem_unref(m);
    assert_int_equal(p.live, 0);
}

static void overflow_is_out_of_memory(void **state)
{
    size_t r;
    void *array = NULL;
    size_t cap = 0;

    assert_null(slr_calloc(NULL, SIZE_MAX / 2, 3));
    assert_int_equal(sdlora_last_error()->code, SDLORA_ENOMEM);
    slr_clear();
    assert_null(slr_alloc(NULL, SIZE_MAX - 20));
    assert_null(slr_alloc(NULL, (size_t)PTRDIFF_MAX));
    assert_null(slr_realloc(NULL, NULL, SIZE_MAX, 2));
    assert_int_equal(slr_grow(NULL, &array, &cap, SIZE_MAX / 2, 16), SDLORA_ENOMEM);
    assert_null(array);
    assert_int_equal(cap, 0);
    assert_int_equal(sdlora_last_error()->code, SDLORA_ENOMEM);
    assert_false(slr_mul_ok(SIZE_MAX, 2, &r));
    assert_false(slr_add_ok(SIZE_MAX, 1, &r));
    assert_true(slr_mul_ok(6, 7, &r) && r == 42);
}

static void budget_holds(void **state)
{
    picky p;
    slr_mem *m = picky_mem(&p, 1000);
    void *a = slr_alloc(m, 600), *b;

    assert_non_null(a);
    assert_null(slr_alloc(m, 401));
    assert_int_equal(sdlora_last_error()->code, SDLORA_ENOMEM);
    assert_message("budget of 1000 bytes");
    assert_null(slr_realloc(m, a, 1001, 1));
    assert_null(slr_alloc(m, SIZE_MAX / 4));
    b = slr_alloc(m, 400);
    assert_non_null(b);
    slr_free(m, a);
    a = slr_realloc(m, b, 1000, 1);
    assert_non_null(a);
    slr_free(m, a);
    assert_int_equal(slr_mem_used(m), 0);
    slr_mem_unref(m);
    assert_int_equal(p.live, 0);
}

static void hooks_come_all_or_none(void **state)
{
    slr_mem_hooks half = {picky_alloc, NULL, picky_free, NULL};
    slr_mem *m;

    assert_int_equal(slr_mem_new(&m, &half, 0), SDLORA_EINVAL);
    assert_null(m);
}

static void grow_doubles(void **state)
{
    int *a = NULL;
    size_t cap = 0, moves = 0;

    for (size_t i = 0; i < 1000; i++) {
        size_t had = cap;

        assert_ok(slr_grow(NULL, &a, &cap, i + 1, sizeof *a));
        moves += cap != had;
        a[i] = (int)i;
    }
    assert_true(moves < 12);
    assert_int_equal(a[999], 999);
    slr_free(NULL, a);
}

static int arena_scenario(slr_mem *m)
{
    slr_arena *a;
    char *texts[500];
    int rc = slr_arena_new(&a, m);

    if (rc < 0)
        return rc;
    rc = SDLORA_ENOMEM;
    for (size_t i = 0; i < 500; i++) {
        size_t n = i % 50 == 7 ? 300000 : i * 3 + 1;

        texts[i] = slr_arena_alloc(a, n, 1);
        if (!texts[i])
            goto done;
        assert_int_equal((uintptr_t)texts[i] % 16, 0);
        for (size_t j = 0; j < n; j += 97)
            assert_int_equal(texts[i][j], 0);
        memset(texts[i], (int)(i % 127), n);
    }
    for (size_t i = 0; i < 500; i++)
        assert_int_equal(texts[i][0], i % 127);
    slr_arena_clear(a);
    texts[0] = slr_arena_strdup(a, "kept");
    if (!texts[0])
        goto done;
    assert_string_equal(texts[0], "kept");
    rc = SDLORA_OK;
done:
    slr_arena_free(a);
    return rc;
}

static void arena_survives_failure_at_every_call(void **state)
{
    slr_arena *a;

    torture(arena_scenario);
    assert_ok(slr_arena_new(&a, NULL));
    assert_null(slr_arena_alloc(a, SIZE_MAX / 2, 3));
    assert_null(slr_arena_alloc(a, SIZE_MAX - 3, 1));
    slr_arena_free(a);
    slr_arena_free(NULL);
}

static void churn(void *arg, int64_t lo, int64_t hi)
{
    slr_mem *m = arg;

    for (int64_t i = lo; i < hi; i++) {
        char *p = slr_alloc(m, (size_t)(i % 100));

        p = slr_realloc(m, p, (size_t)(i % 130), 1);
        slr_free(m, p);
    }
}

static void counters_are_exact_under_threads(void **state)
{
    slr_mem *m;

    assert_ok(slr_mem_new(&m, NULL, 0));
    slr_parallel(4, 20000, 100, churn, m);
    assert_int_equal(slr_mem_used(m), 0);
    assert_true(slr_mem_peak(m) >= 129);
    slr_mem_unref(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_are_aligned_and_counted),
        cmocka_unit_test(plain_memory_needs_no_handle),
        cmocka_unit_test(realloc_keeps_bytes_when_alignment_moves),
        cmocka_unit_test(overflow_is_out_of_memory),
        cmocka_unit_test(budget_holds),
        cmocka_unit_test(hooks_come_all_or_none),
        cmocka_unit_test(grow_doubles),
        cmocka_unit_test(arena_survives_failure_at_every_call),
        cmocka_unit_test(counters_are_exact_under_threads),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
