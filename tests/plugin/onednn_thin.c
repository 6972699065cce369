/* SPDX-License-Identifier: MIT */
/* Sums over rows of thin bf16 factors by the oneDNN plugin against sums in double precision, on
 * either side of the product, and the same bytes for 1 and 3 threads; and which small products it
 * leaves to the core.  Argument: the plugin's
 * directory; 77 where it can not run. */
#include "unit/backend/kernel.h"

#include <math.h>

static const char *plugin_dir;

static slr_devices *open_plugin(int threads)
{
    slr_devices *d = NULL;
    slr_devices_config c = {.threads = threads,
                            .cpu_features = slr_cpu_features(),
                            .backend = "onednn",
                            .plugin_path = plugin_dir};
    return slr_devices_open(&d, &c) < 0 ? NULL : d;
}

/* Random values of bf16, as such and as f32. */
static uint16_t *halves(size_t n, uint64_t seed, float **wide)
{
    uint16_t *p = slr_alloc(NULL, n * sizeof *p);
    const slr_dtype_row *bf16 = slr_dtype(SDLORA_BF16);
    *wide = numbers(n, seed);
    bf16->from_f32(p, *wide, n);
    bf16->to_f32(*wide, p, n);
    return p;
}

/* [rows,m]^T [rows,n] */
static void check(slr_devices *one, slr_devices *three, int64_t rows, int64_t m, int64_t n)
{
    float *fa, *fb;
    uint16_t *a = halves((size_t)(rows * m), 1, &fa), *b = halves((size_t)(rows * n), 2, &fb);
    const size_t bytes = (size_t)(m * n) * sizeof(float);
    float *c = slr_alloc(NULL, bytes), *again = slr_alloc(NULL, bytes);
    test_op op = {.op = SDLORA_OP_MATMUL,
                  .n_in = 2,
                  .n_out = 1,
                  .n_int = 2,
                  .n_real = 1,
                  .desc = {F32_(rows, m), F32_(rows, n), F32_(m, n)},
                  .data = {a, b, c},
                  .ints = {1, 0},
                  .reals = {0.5}};
    op.desc[0].dtype = op.desc[1].dtype = SDLORA_BF16;
    run_ok(one, &op);
    op.data[2] = again;
    run_ok(three, &op);
    assert_memory_equal(c, again, bytes);
    /* f32 sums of exact products below 1: each of the `rows` additions is off by half a unit of a
     * sum that random signs keep near sqrt(rows) */
    const double tolerance = 4 * 0x1p-24 * (double)rows;
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++) {
            double sum = 0;
            for (int64_t t = 0; t < rows; t++)
                sum += (double)fa[t * m + i] * (double)fb[t * n + j];
            if (!(fabs(sum * 0.5 - (double)c[i * n + j]) <= tolerance))
                fail_msg("[%d,%d]^T [%d,%d] at %d,%d: %g, wanted %g", (int)rows, (int)m, (int)rows,
                         (int)n, (int)i, (int)j, (double)c[i * n + j], sum * 0.5);
        }
    slr_free(NULL, a);
    slr_free(NULL, b);
    slr_free(NULL, fa);
    slr_free(NULL, fb);
    slr_free(NULL, c);
    slr_free(NULL, again);
}

static void test_sums(void **state)
{
    static const int64_t shapes[][3] = {
        {1, 1, 1},
        {2, 3, 5},
        {7, 4, 33},
        {64, 8, 100},
        {65, 16, 64},
        {129, 70, 17},
        {77, 16, 320},
        {200, 100, 5},
        {63, 31, 257},
        {1030, 16, 48}, /* chunks */
        {1537, 48, 8},
        {513, 640, 16}, /* panels */
        {400, 16, 300} /* panels for a few threads */,
    };
    slr_devices *one = open_plugin(1), *three = open_plugin(3);
    (void)state;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        check(one, three, shapes[i][0], shapes[i][1], shapes[i][2]);
    slr_devices_unref(one);
    slr_devices_unref(three);
}

/* Small products by a b that changes are the core's from some shape on; frozen ones are not. */
static void test_who_takes_it(void **state)
{
    static const struct {
        int64_t m, k, n;
        bool frozen, core;
    } rows[] = {
        {64, 32, 32, false, true},   {65, 32, 32, false, false},   {64, 32, 32, true, false},
        {77, 256, 16, false, true},  {77, 255, 16, false, false},  {77, 256, 16, true, false},
        {976, 256, 16, false, true}, {977, 256, 16, false, false}, {4096, 320, 16, false, false},
    };
    static uint16_t weights[320 * 32];
    slr_devices *d = open_plugin(1);
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        test_op t = {.op = SDLORA_OP_MATMUL,
                     .n_in = 2,
                     .n_out = 1,
                     .n_int = 2,
                     .n_real = 1,
                     .desc = {F32_(rows[i].m, rows[i].k), F32_(rows[i].k, rows[i].n),
                              F32_(rows[i].m, rows[i].n)},
                     .reals = {1}};
        for (int x = 0; x < 3; x++)
            t.desc[x].dtype = SDLORA_BF16;
        if (rows[i].frozen)
            t.consts[1] = (sdlora_const){weights, i + 1};
        const sdlora_opdesc op = opdesc_of(&t);
        size_t which = 0;
        sdlora_kernel *k = NULL;
        uint64_t bytes = 0;
        assert_int_equal(slr_devices_prepare(d, &op, &which, &k, &bytes), SDLORA_OK);
        const sdlora_backend *b = slr_devices_backend(d, which);
        assert_string_equal(b->name, rows[i].core ? "cpu" : "onednn");
        b->kernel_free(k);
    }
    slr_devices_unref(d);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_sums),
                                       cmocka_unit_test(test_who_takes_it)};
    if (argc != 2)
        return 2;
    plugin_dir = argv[1];
    slr_devices *d = open_plugin(1);
    sdlora_dev_info info = {.struct_size = sizeof info};
    const bool can =
        d && slr_devices_info(d, 0, &info) == SDLORA_OK && info.dtypes & UINT64_C(1) << SDLORA_BF16;
    slr_devices_unref(d);
    return can ? cmocka_run_group_tests(tests, NULL, NULL) : 77;
}
