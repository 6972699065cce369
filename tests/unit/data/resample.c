/* SPDX-License-Identifier: MIT */
/* lib/data/resample*.c against Pillow's and OpenCV's bytes. */
#include "data_test.h"

#include "data/resample.h"
#include "io/safetensors.h"

static void find(const slr_safetensors *f, int n, const char *what, slr_tensor *t)
{
    char name[32];
    snprintf(name, sizeof name, "%d.%s", n, what);
    if (!slr_safetensors_find(f, name, t))
        fail_msg("no tensor %s", name);
    assert_int_equal(t->rank, 3);
}

static void same_bytes_as_the_programs(void **state)
{
    static const struct {
        const char *name;
        int filter;
    } row[] = {{"lanczos", SLR_RESIZE_LANCZOS},
               {"bicubic", SLR_RESIZE_BICUBIC},
               {"box", SLR_RESIZE_BOX},
               {"area", SLR_RESIZE_AREA},
               {"kohya", SLR_RESIZE_AUTO}};
    slr_safetensors *f;
    int bad = 0;
    assert_ok(slr_safetensors_open(&f, NULL, GOLDEN "resize.safetensors", true));
    for (int n = 0; n < 24; n++)
        for (size_t r = 0; r < sizeof row / sizeof *row; r++) {
            slr_tensor src, want;
            slr_pixels out;
            size_t off = 0;
            find(f, n, "src", &src);
            find(f, n, row[r].name, &want);
            slr_pixels in = {(int32_t)src.dim[1], (int32_t)src.dim[0], 3, (uint8_t *)src.data};
            assert_ok(slr_resize(NULL, &in, (int32_t)want.dim[1], (int32_t)want.dim[0],
                                 row[r].filter, &out));
            for (size_t i = 0; i < slr_tensor_bytes(&want); i++)
                off += out.data[i] != ((const uint8_t *)want.data)[i];
            if (off) {
                print_message("%d.%s: %zu of %zu bytes differ\n", n, row[r].name, off,
                              slr_tensor_bytes(&want));
                bad++;
            }
            slr_free(NULL, out.data);
        }
    slr_safetensors_close(f);
    assert_int_equal(bad, 0);
}

/* Bilinear and nearest have no golden file: what must hold of any such filter. */
static void simple_filters_behave(void **state)
{
    uint8_t flat[5 * 7 * 3], step[] = {0, 0, 0, 200, 200, 200};
    slr_pixels in = {7, 5, 3, flat}, two = {2, 1, 3, step}, out;
    memset(flat, 77, sizeof flat);
    for (int filter = SLR_RESIZE_AREA; filter <= SLR_RESIZE_BOX; filter++) {
        assert_ok(slr_resize(NULL, &in, 13, 3, filter, &out));
        for (int i = 0; i < 13 * 3 * 3; i++)
            assert_int_equal(out.data[i], 77);
        slr_free(NULL, out.data);
    }
    assert_ok(slr_resize(NULL, &two, 4, 1, SLR_RESIZE_NEAREST, &out));
    for (int x = 0; x < 4; x++)
        assert_int_equal(out.data[x * 3], x < 2 ? 0 : 200);
    slr_free(NULL, out.data);
    assert_ok(slr_resize(NULL, &two, 4, 1, SLR_RESIZE_BILINEAR, &out));
    for (int x = 0; x < 4; x++) /* weights 1, 3/4, 1/4, 0 of the left one */
        assert_int_equal(out.data[x * 3], ((int[]){0, 50, 150, 200})[x]);
    slr_free(NULL, out.data);
}

static void names_of_the_option(void **state)
{
    assert_int_equal(slr_resize_filter(NULL), SLR_RESIZE_AUTO);
    assert_int_equal(slr_resize_filter("cubic"), SLR_RESIZE_BICUBIC);
    assert_int_equal(slr_resize_filter("area"), SLR_RESIZE_AREA);
    assert_int_equal(slr_resize_filter("spline"), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(same_bytes_as_the_programs),
                                       cmocka_unit_test(simple_filters_behave),
                                       cmocka_unit_test(names_of_the_option)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
