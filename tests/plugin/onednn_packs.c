/* SPDX-License-Identifier: MIT */
/* What the oneDNN plugin keeps: packs are shared by contents and layout and given back, running out
 * of memory leaves nothing behind, pages of a mapped file are let go, and a user's wish for another
 * instruction set switches it off.  Argument: the plugin's directory; 77 where it can not run. */
#include "unit/backend/kernel.h"

#include <unistd.h>

#include "io/file.h"

static const char *plugin_dir;

typedef struct counter {
    int64_t until_failure; /* allocations that still succeed; negative: all do */
} counter;

static bool may_allocate(counter *c)
{
    if (c->until_failure == 0)
        return false;
    c->until_failure -= c->until_failure > 0;
    return true;
}

static void *hook_alloc(void *user, size_t bytes)
{
    return may_allocate(user) ? malloc(bytes) : NULL;
}

static void *hook_realloc(void *user, void *p, size_t bytes)
{
    return may_allocate(user) ? realloc(p, bytes) : NULL;
}

static void hook_free(void *user, void *p)
{
    (void)user;
    free(p);
}

static slr_devices *open_plugin(slr_mem *mem, const char *cpu, int threads)
{
    slr_devices *d = NULL;
    slr_devices_config c = {.mem = mem,
                            .threads = threads,
                            .cpu_features = slr_cpu_features() & slr_cpu_mask(cpu),
                            .backend = "onednn",
                            .plugin_path = plugin_dir};
    if (slr_devices_open(&d, &c) < 0)
        return NULL;
    return d;
}

enum { K = 256, N = 320, W_BYTES = K * N * 4 };

/* y[m,N] = x[m,K] w[N,K]^T */
static test_op product(float *x, float *w, float *y, int64_t m, uint64_t id)
{
    test_op op = {.op = SDLORA_OP_MATMUL,
                  .n_in = 2,
                  .n_out = 1,
                  .n_int = 2,
                  .n_real = 1,
                  .desc = {F32_(m, K), F32_(N, K), F32_(m, N)},
                  .data = {x, w, y},
                  .ints = {0, 1},
                  .reals = {1}};
    op.consts[1] = (sdlora_const){.data = w, .id = id};
    return op;
}

/* y = conv3x3(x), or dx of it. */
static test_op conv(uint32_t which, float *x, float *w, float *y, uint64_t id)
{
    test_op op = {.op = which,
                  .n_in = 2,
                  .n_out = 1,
                  .n_int = which == SDLORA_OP_CONV2D ? 7 : 9,
                  .n_real = 1,
                  .desc = {F32_(1, 16, 16, 64), F32_(64, 64, 3, 3), F32_(1, 16, 16, 64)},
                  .data = {x, w, y},
                  .ints = {1, 1, 1, 1, 1, 1, 1, 16, 16},
                  .reals = {1}};
    op.consts[1] = (sdlora_const){.data = w, .id = id};
    return op;
}

static sdlora_kernel *prepare_ok(slr_devices *d, const test_op *t)
{
    sdlora_opdesc op = opdesc_of(t);
    size_t which = 0;
    sdlora_kernel *k = NULL;
    uint64_t scratch = 0;
    if (slr_devices_prepare(d, &op, &which, &k, &scratch) < 0)
        fail_msg("%s", sdlora_last_error()->message);
    assert_string_equal(slr_devices_backend(d, which)->name, "onednn");
    return k;
}

static void release(slr_devices *d, sdlora_kernel *k)
{
    slr_devices_backend(d, 0)->kernel_free(k);
}

static void test_shared(void **state)
{
    (void)state;
    slr_mem *mem = NULL;
    assert_int_equal(slr_mem_new(&mem, NULL, 0), SDLORA_OK);
    slr_devices *d = open_plugin(mem, "auto", 2);
    float *x = numbers(1024 * K, 1), *w = numbers(K * N, 2), *y = numbers(1024 * N, 3);
    const uint64_t start = slr_mem_used(mem);
    test_op a = product(x, w, y, 1024, 5), b = product(x, w, y, 48, 5), c = product(x, w, y, 48, 6);
    sdlora_kernel *ka = prepare_ok(d, &a);
    const uint64_t one = slr_mem_used(mem);
    assert_in_range(one - start, W_BYTES, 2 * W_BYTES);
    sdlora_kernel *kb = prepare_ok(d, &b); /* other rows, the same contents */
    const uint64_t two = slr_mem_used(mem);
    assert_true(two - one < W_BYTES / 8);
    sdlora_kernel *kc = prepare_ok(d, &c); /* another name */
    assert_true(slr_mem_used(mem) - two >= W_BYTES);
    release(d, ka); /* the pack stays for b */
    assert_true(slr_mem_used(mem) - start >= 2 * W_BYTES);
    release(d, kb);
    release(d, kc);
    assert_int_equal(slr_mem_used(mem), start);
    slr_devices_unref(d);
    assert_int_equal(slr_mem_used(mem), 0);
    slr_mem_unref(mem);
    slr_free(NULL, x);
    slr_free(NULL, w);
    slr_free(NULL, y);
}

/* The n-th allocation fails, for every n: ENOMEM, and nothing stays. */
static void run_out(const test_op *t)
{
    counter c = {.until_failure = -1};
    const slr_mem_hooks hooks = {hook_alloc, hook_realloc, hook_free, &c};
    slr_mem *mem = NULL;
    assert_int_equal(slr_mem_new(&mem, &hooks, 0), SDLORA_OK);
    slr_devices *d = open_plugin(mem, "auto", 2);
    const uint64_t start = slr_mem_used(mem);
    sdlora_opdesc op = opdesc_of(t);
    for (int64_t n = 0;; n++) {
        size_t which;
        sdlora_kernel *k = NULL;
        uint64_t scratch;
        c.until_failure = n;
        int rc = slr_devices_prepare(d, &op, &which, &k, &scratch);
        c.until_failure = -1;
        if (rc >= 0) {
            assert_true(n > 3);
            slr_devices_backend(d, which)->kernel_free(k);
            break;
        }
        assert_int_equal(rc, SDLORA_ENOMEM);
        assert_int_equal(slr_mem_used(mem), start);
    }
    assert_int_equal(slr_mem_used(mem), start);
    slr_devices_unref(d);
    slr_mem_unref(mem);
}

static void test_no_memory(void **state)
{
    (void)state;
    float *x = numbers(128 * K, 1), *w = numbers(K * N, 2), *y = numbers(128 * N, 3);
    test_op p = product(x, w, y, 128, 5);
    test_op f = conv(SDLORA_OP_CONV2D, x, w, y, 6), b = conv(SDLORA_OP_CONV2D_BX, x, w, y, 6);
    run_out(&p);
    run_out(&f);
    run_out(&b);
    slr_free(NULL, x);
    slr_free(NULL, w);
    slr_free(NULL, y);
}

/* Resident bytes of the mapping of `path`. */
static long resident(const char *path)
{
    char line[512];
    long kib = -1;
    bool here = false;
    FILE *f = fopen("/proc/self/smaps", "r");
    assert_non_null(f);
    while (fgets(line, sizeof line, f)) {
        if (strstr(line, path))
            here = true;
        if (here && sscanf(line, "Rss: %ld kB", &kib) == 1)
            break;
    }
    fclose(f);
    return kib < 0 ? -1 : kib * 1024;
}

static void test_lets_go(void **state)
{
    (void)state;
    char path[] = "/tmp/sdlora-onednn-XXXXXX";
    const int fd = mkstemp(path);
    assert_true(fd >= 0);
    float *w = numbers(K * N, 2), *x = numbers(128 * K, 1), *y = numbers(128 * N, 3);
    assert_int_equal(write(fd, w, W_BYTES), W_BYTES);
    close(fd);
    slr_storage *map = NULL;
    assert_int_equal(slr_file_map(&map, NULL, path), SDLORA_OK);
    slr_devices *d = open_plugin(NULL, "auto", 1);
    test_op p = product(x, slr_storage_data(map), y, 128, 9);
    float sum = 0;
    for (int i = 0; i < K * N; i++)
        sum += ((const float *)p.consts[1].data)[i];
    assert_true(sum == sum && resident(path) >= W_BYTES / 2);
    sdlora_kernel *k = prepare_ok(d, &p);
    assert_in_range(resident(path), 0, 8192);
    release(d, k);
    slr_devices_unref(d);
    slr_storage_unref(map);
    unlink(path);
    slr_free(NULL, w);
    slr_free(NULL, x);
    slr_free(NULL, y);
}

static void test_off(void **state)
{
    (void)state;
    slr_devices *d = open_plugin(NULL, "avx2", 1);
    sdlora_dev_info info;
    assert_non_null(d);
    assert_int_equal(slr_devices_info(d, 0, &info), SDLORA_OK);
    assert_non_null(strstr(info.name, "off"));
    assert_int_equal(info.dtypes, 0);
    float *x = numbers(128 * K, 1), *w = numbers(K * N, 2), *y = numbers(128 * N, 3);
    test_op p = product(x, w, y, 128, 5);
    sdlora_opdesc op = opdesc_of(&p);
    size_t which;
    sdlora_kernel *k;
    uint64_t scratch;
    assert_int_equal(slr_devices_prepare(d, &op, &which, &k, &scratch), SDLORA_OK);
    assert_string_equal(slr_devices_backend(d, which)->name, "cpu");
    slr_devices_backend(d, which)->kernel_free(k);
    slr_devices_unref(d);
    slr_free(NULL, x);
    slr_free(NULL, w);
    slr_free(NULL, y);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_off),
        cmocka_unit_test(test_shared),
        cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_lets_go),
    };
    if (argc != 2)
        return 2;
    plugin_dir = argv[1];
    slr_devices *d = open_plugin(NULL, "auto", 1);
    sdlora_dev_info info = {.struct_size = sizeof info};
    bool can = d && slr_devices_info(d, 0, &info) == SDLORA_OK && info.dtypes;
    slr_devices_unref(d);
    return can ? cmocka_run_group_tests(tests, NULL, NULL) : 77;
}
