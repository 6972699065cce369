/* SPDX-License-Identifier: MIT */
/* The plugin border from the core's side: search path, handshake, order of asking, joined reasons.
 * Arguments: the directories of lib/plugins and of this test's own plugins. */
#include "unit/backend/kernel.h"

static const char *null_dir, *test_dir;

static slr_devices *open_with(const char *backend, const char *path)
{
    slr_devices *d = NULL;
    slr_devices_config c = {
        .threads = 2, .cpu_features = slr_cpu_features(), .backend = backend, .plugin_path = path};
    int rc = slr_devices_open(&d, &c);
    assert_int_equal(rc, SDLORA_OK);
    return d;
}

static bool has_note(const slr_devices *d, const char *a, const char *b)
{
    const char *const *lines;
    size_t n = slr_devices_notes(d, &lines);
    for (size_t i = 0; i < n; i++)
        if (strstr(lines[i], a) && strstr(lines[i], b))
            return true;
    return false;
}

static size_t index_of(const slr_devices *d, const char *name)
{
    for (size_t i = 0; i < slr_devices_count(d); i++)
        if (!strcmp(slr_devices_backend(d, i)->name, name))
            return i;
    return SIZE_MAX;
}

static test_op product(float *a, float *b, float *c, int64_t m, int64_t n, int64_t k)
{
    return (test_op){.op = SDLORA_OP_MATMUL,
                     .n_in = 2,
                     .n_out = 1,
                     .n_int = 2,
                     .n_real = 1,
                     .desc = {F32_(m, k), F32_(k, n), F32_(m, n)},
                     .data = {a, b, c},
                     .reals = {1}};
}

/* The plugin takes what it can, the CPU takes the rest. */
static void test_one_operation(void **state)
{
    (void)state;
    slr_devices *d = open_with("auto", test_dir);
    assert_int_equal(index_of(d, "naive"), 0);
    assert_int_equal(index_of(d, "cpu"), slr_devices_count(d) - 1);
    enum { M = 9, N = 5, K = 7 };
    float *a = numbers(M * K, 1), *b = numbers(K * N, 2), c[M * N], plain[M * N];
    test_op op = product(a, b, c, M, N, K);
    run_ok(d, &op);
    slr_devices *cpu = test_devices(2, "auto");
    op.data[2] = plain;
    run_ok(cpu, &op);
    for (int i = 0; i < M * N; i++) /* 1000 takes the last bits: one ulp of 1024 is 6e-5 */
        assert_true(c[i] - 1000.0f - plain[i] < 1e-4f && c[i] - 1000.0f - plain[i] > -1e-4f);
    op.consts[1] = (sdlora_const){.data = b, .id = 7};
    op.data[2] = c;
    run_ok(d, &op);
    assert_true(c[0] > 900);
    op.reals[0] = 0.5; /* declined by the plugin */
    run_ok(d, &op);
    assert_true(c[0] < 900 && c[0] - plain[0] / 2 < 1e-5f && c[0] - plain[0] / 2 > -1e-5f);
    slr_free(NULL, a);
    slr_free(NULL, b);
    slr_devices_unref(cpu);
    slr_devices_unref(d);
}

static void test_reasons(void **state)
{
    (void)state;
    char path[4096];
    snprintf(path, sizeof path, "%s:%s", null_dir, test_dir);
    slr_devices *d = open_with("null", path);
    assert_int_equal(index_of(d, "null"), 0);
    float x[4] = {0};
    test_op op = product(x, x, x, 2, 2, 2);
    op.op = 9999;
    assert_int_equal(run_op(d, &op), SDLORA_ENOTSUP);
    const char *text = sdlora_last_error()->message;
    assert_non_null(strstr(text, "null: takes nothing (1 asked)"));
    assert_non_null(strstr(text, "naive: only MATMUL"));
    assert_non_null(strstr(text, "cpu: "));
    assert_int_equal(run_op(d, &op), SDLORA_ENOTSUP);
    assert_non_null(strstr(sdlora_last_error()->message, "(2 asked)"));
    sdlora_dev_info info;
    assert_int_equal(slr_devices_info(d, 0, &info), SDLORA_OK);
    assert_string_equal(info.name, "takes nothing");
    slr_devices_unref(d);
}

static void test_refused(void **state)
{
    (void)state;
    slr_devices *d = open_with("auto", test_dir);
    assert_true(has_note(d, "sdlora-abi.so", "ABI 2"));
    assert_true(has_note(d, "sdlora-short.so", "ends before"));
    assert_true(has_note(d, "sdlora-member.so", "lacks dev_open"));
    assert_true(has_note(d, "sdlora-noentry.so", "exports no"));
    assert_true(has_note(d, "sdlora-fails.so", "declined (-9)"));
    assert_true(has_note(d, "sdlora-taken.so", "called cpu"));
    assert_int_equal(index_of(d, "broken"), SIZE_MAX);
    assert_int_equal(slr_devices_count(d), 2);
    slr_devices_unref(d);
}

static void test_search_path(void **state)
{
    (void)state;
    slr_devices *d = open_with("cpu", "relative/dir:");
    assert_true(has_note(d, "relative/dir", "not an absolute directory"));
    assert_int_equal(index_of(d, "naive"), SIZE_MAX);
    slr_devices_unref(d);
    setenv("SDLORA_BACKEND_PATH", null_dir, 1);
    d = open_with("auto", NULL);
    assert_int_equal(index_of(d, "null"), 0);
    slr_devices_unref(d);
    unsetenv("SDLORA_BACKEND_PATH");
    slr_devices_config c = {.backend = "absent"};
    assert_int_equal(slr_devices_open(&d, &c), SDLORA_ENOTFOUND);
    assert_null(d);
    assert_non_null(strstr(sdlora_last_error()->message, "cpu"));
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_operation),
        cmocka_unit_test(test_reasons),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_search_path),
    };
    if (argc != 3)
        return 2;
    null_dir = argv[1];
    test_dir = argv[2];
    return cmocka_run_group_tests(tests, NULL, NULL);
}
