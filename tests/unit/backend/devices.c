/* SPDX-License-Identifier: MIT */
/* Devices and frozen inputs: one pack for all kernels, pages of mapped files let go and heap bytes
 * left alone, every allocation of a prepare failing in turn, threads and instruction sets as
 * wished. */
#include <fcntl.h>
#include <unistd.h>

#include "io/file.h"
#include "unit/backend/kernel.h"

static slr_devices *devices_in(slr_mem *m)
{
    slr_devices *d = NULL;
    slr_devices_config c = {
        .mem = m, .threads = 2, .cpu_features = slr_cpu_features(), .backend = "cpu"};
    assert_int_equal(slr_devices_open(&d, &c), SDLORA_OK);
    return d;
}

static int prepare(slr_devices *d, const test_op *t, sdlora_kernel **k)
{
    sdlora_opdesc op = opdesc_of(t);
    size_t which;
    uint64_t scratch;
    return slr_devices_prepare(d, &op, &which, k, &scratch);
}

/* A convolution of 256 filters over 256 channels (fewer are laid out in panels), or its gradient by
 * x. */
static test_op conv_op(uint32_t op, const void *w, uint32_t dtype, uint64_t id)
{
    test_op t = {.op = op, .n_in = 2, .n_out = 1, .n_int = 9, .n_real = 1, .reals = {1}};
    const int64_t ints[] = {1, 1, 1, 1, 1, 1, 1, 4, 4};
    memcpy(t.ints, ints, sizeof ints);
    t.desc[0] = t.desc[2] = F32_(1, 4, 4, 256);
    t.desc[1] = F32_(256, 256, 3, 3);
    t.desc[1].dtype = dtype;
    t.consts[1] = (sdlora_const){.data = w, .id = id};
    return t;
}

enum { WEIGHTS = 256 * 256 * 9, KERNEL_BYTES = 8192 };

static void test_sharing(void **state)
{
    (void)state;
    slr_mem *m;
    assert_int_equal(slr_mem_new(&m, NULL, 0), SDLORA_OK);
    slr_devices *d = devices_in(m);
    uint16_t *w = slr_calloc(NULL, WEIGHTS, 2);
    const uint64_t empty = slr_mem_used(m);
    sdlora_kernel *k[4];
    test_op forward = conv_op(SDLORA_OP_CONV2D, w, SDLORA_BF16, 1);
    test_op back = conv_op(SDLORA_OP_CONV2D_BX, w, SDLORA_BF16, 1);
    assert_int_equal(prepare(d, &forward, &k[0]), SDLORA_OK);
    const uint64_t one = slr_mem_used(m);
    assert_true(one - empty >= WEIGHTS * 4 && one - empty < WEIGHTS * 4 + KERNEL_BYTES);
    /* the same weights again, and their gradient by x: no second copy */
    assert_int_equal(prepare(d, &forward, &k[1]), SDLORA_OK);
    assert_int_equal(prepare(d, &back, &k[2]), SDLORA_OK);
    assert_true(slr_mem_used(m) - one < 2 * KERNEL_BYTES);
    /* other contents */
    forward.consts[1].id = 2;
    assert_int_equal(prepare(d, &forward, &k[3]), SDLORA_OK);
    assert_true(slr_mem_used(m) - one > WEIGHTS * 4);
    const sdlora_backend *b = slr_devices_backend(d, 0);
    for (int i = 0; i < 3; i++)
        b->kernel_free(k[i]);
    assert_true(slr_mem_used(m) - empty < WEIGHTS * 4 + KERNEL_BYTES);
    b->kernel_free(k[3]);
    assert_int_equal(slr_mem_used(m), empty);
    slr_devices_unref(d);
    assert_int_equal(slr_mem_used(m), 0);
    slr_mem_unref(m);
    slr_free(NULL, w);
}

/* f32 where it can be used as it lies takes no memory; freezing never changes the caller's bytes.
 */
static void test_in_place(void **state)
{
    (void)state;
    slr_mem *m;
    assert_int_equal(slr_mem_new(&m, NULL, 0), SDLORA_OK);
    slr_devices *d = devices_in(m);
    enum { N = 750 }; /* smaller ones are laid out in panels */
    float *w = numbers(N * N, 1);
    uint16_t *half = slr_alloc(NULL, N * N * 2);
    for (size_t i = 0; i < N * N; i++)
        half[i] = (uint16_t)(i * 7);
    test_op t = {.op = SDLORA_OP_MATMUL,
                 .n_in = 2,
                 .n_out = 1,
                 .n_int = 2,
                 .n_real = 1,
                 .desc = {F32_(1, N), F32_(N, N), F32_(1, N)},
                 .reals = {1}};
    sdlora_kernel *k;
    const uint64_t empty = slr_mem_used(m);
    t.consts[1] = (sdlora_const){.data = w, .id = 3};
    assert_int_equal(prepare(d, &t, &k), SDLORA_OK);
    assert_true(slr_mem_used(m) - empty < KERNEL_BYTES);
    slr_devices_backend(d, 0)->kernel_free(k);
    t.desc[1].dtype = SDLORA_F16;
    t.consts[1] = (sdlora_const){.data = half, .id = 4};
    assert_int_equal(prepare(d, &t, &k), SDLORA_OK);
    slr_devices_backend(d, 0)->kernel_free(k);
    for (size_t i = 0; i < N * N; i++)
        assert_int_equal(half[i], (uint16_t)(i * 7));
    slr_free(NULL, half);
    slr_free(NULL, w);
    slr_devices_unref(d);
    slr_mem_unref(m);
}

/* Pages of [p, p+n) that this process has mapped in. */
static size_t pages_present(const void *p, size_t n)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t present = 0;
    int fd = open("/proc/self/pagemap", O_RDONLY);
    if (fd < 0)
        skip();
    for (size_t at = 0; at < n; at += page) {
        uint64_t word = 0;
        if (pread(fd, &word, 8, (off_t)(((uintptr_t)p + at) / page * 8)) == 8)
            present += word >> 63;
    }
    close(fd);
    return present;
}

static void test_pages_let_go(void **state)
{
    (void)state;
    enum { ROWS = 1024, COLS = 1024, BYTES = ROWS * COLS * 2 };
    char path[] = "/tmp/slr-pages-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    void *zeros = slr_calloc(NULL, 1, BYTES);
    assert_int_equal(write(fd, zeros, BYTES), BYTES);
    close(fd);
    slr_storage *file;
    assert_int_equal(slr_file_map(&file, NULL, path), SDLORA_OK);
    const unsigned char *bytes = slr_storage_data(file);
    unsigned sum = 0;
    for (size_t i = 0; i < BYTES; i += 512)
        sum += bytes[i];
    assert_int_equal(sum, 0);
    const size_t before = pages_present(bytes, BYTES);
    slr_devices *d = test_devices(1, "auto");
    test_op t = {.op = SDLORA_OP_MATMUL,
                 .n_in = 2,
                 .n_out = 1,
                 .n_int = 2,
                 .n_real = 1,
                 .desc = {F32_(1, ROWS), F32_(ROWS, COLS), F32_(1, COLS)},
                 .consts = {{0}, {.data = bytes, .id = 5}},
                 .reals = {1}};
    t.desc[1].dtype = SDLORA_F16;
    sdlora_kernel *k;
    assert_int_equal(prepare(d, &t, &k), SDLORA_OK);
    const size_t after = pages_present(bytes, BYTES);
    assert_true(before > 0);
    assert_true(after <= before / 8);
    slr_devices_backend(d, 0)->kernel_free(k);
    slr_devices_unref(d);
    slr_storage_unref(file);
    slr_free(NULL, zeros);
    unlink(path);
}

/* An allocator whose n-th call fails. */
typedef struct failing {
    int left, live;
} failing;

static void *fail_alloc(void *user, size_t bytes)
{
    failing *f = user;
    if (f->left-- <= 0)
        return NULL;
    void *p = malloc(bytes);
    f->live += p != NULL;
    return p;
}

static void *fail_realloc(void *user, void *ptr, size_t bytes)
{
    failing *f = user;
    if (!ptr)
        return fail_alloc(user, bytes);
    return f->left-- <= 0 ? NULL : realloc(ptr, bytes);
}

static void fail_free(void *user, void *ptr)
{
    failing *f = user;
    f->live -= ptr != NULL;
    free(ptr);
}

/* Opens devices and prepares one kernel of each heavy operation. */
static int scenario(slr_mem *m, const uint16_t *w)
{
    slr_devices *d = NULL;
    slr_devices_config c = {
        .mem = m, .threads = 1, .backend = "cpu", .plugin_path = "not/absolute"};
    SLR_TRY(slr_devices_open(&d, &c));
    static const uint32_t ops[] = {SDLORA_OP_CONV2D, SDLORA_OP_CONV2D_BX, SDLORA_OP_ATTENTION};
    int rc = SDLORA_OK;
    for (size_t i = 0; rc >= 0 && i < 3; i++) {
        test_op t = conv_op(ops[i], w, SDLORA_BF16, 6);
        if (ops[i] == SDLORA_OP_ATTENTION)
            t = (test_op){
                .op = ops[i],
                .n_in = 3,
                .n_out = 2,
                .n_int = 2,
                .n_real = 1,
                .desc = {F32_(1, 4, 8), F32_(1, 4, 8), F32_(1, 4, 8), F32_(1, 4, 8), F32_(1, 1, 4)},
                .ints = {1}};
        sdlora_kernel *k = NULL;
        rc = prepare(d, &t, &k);
        if (rc >= 0)
            slr_devices_backend(d, 0)->kernel_free(k);
    }
    slr_devices_unref(d);
    return rc;
}

static void test_memory_fails(void **state)
{
    (void)state;
    uint16_t *w = slr_calloc(NULL, WEIGHTS, 2);
    int rc = SDLORA_ENOMEM, n = 1;
    for (; rc == SDLORA_ENOMEM && n < 200; n++) {
        failing f = {.left = n};
        const slr_mem_hooks hooks = {fail_alloc, fail_realloc, fail_free, &f};
        slr_mem *m = NULL;
        if (slr_mem_new(&m, &hooks, 0) < 0)
            continue;
        rc = scenario(m, w);
        slr_mem_unref(m);
        assert_int_equal(f.live, 0);
    }
    assert_int_equal(rc, SDLORA_OK);
    assert_true(n > 10); /* or nothing was allocated through the hooks */
    slr_free(NULL, w);
}

static void test_wishes(void **state)
{
    (void)state;
    static const struct {
        const char *cpu;
        uint64_t needs;
        const char *name;
    } sets[] = {{"generic", 0, "CPU (baseline)"},
                {"avx2", SLR_CPU_AVX2, "CPU (AVX2)"},
                {"avx512", SLR_CPU_AVX512, "CPU (AVX-512)"}};
    for (size_t i = 0; i < 3; i++) {
        if ((slr_cpu_features() & sets[i].needs) != sets[i].needs)
            continue;
        slr_devices *d = test_devices(3, sets[i].cpu);
        sdlora_dev_info info;
        assert_int_equal(slr_devices_info(d, 0, &info), SDLORA_OK);
        assert_string_equal(info.name, sets[i].name);
        assert_true(info.flags & SDLORA_DEV_HOST_MEMORY);
        assert_int_equal(slr_devices_threads(d), 3);
        slr_devices_unref(slr_devices_ref(d));
        slr_devices_unref(d);
    }
    slr_devices_unref(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sharing),      cmocka_unit_test(test_in_place),
        cmocka_unit_test(test_pages_let_go), cmocka_unit_test(test_memory_fails),
        cmocka_unit_test(test_wishes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
