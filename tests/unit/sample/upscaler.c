/* SPDX-License-Identifier: MIT */
/* ESRGAN's network by three spellings of its files, whole and in tiles, against torch under
 * AUTOMATIC1111's tiles (tests/golden/upscaler.safetensors); and files that are something else. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "backend/registry.h"
#include "base/cpu.h"
#include "golden_test.h"
#include "sample/upscaler.h"

#define GOLDEN TEST_ROOT "/golden/upscaler.safetensors"
#define NET(s) TEST_ROOT "/golden/upscaler/" s

/* Sums of f32 in another order: a half may be rounded the other way. */
#define TOL_PIXEL 1

static slr_devices *devices;
static golden g;

static void ok(int rc)
{
    if (rc < 0)
        fail_msg("%s (%s)", sdlora_last_error()->message, sdlora_last_error()->where);
}

static int setup(void **state)
{
    (void)state;
    const slr_devices_config config = {.cpu_features = slr_cpu_features(), .backend = "cpu"};
    ok(slr_devices_open(&devices, &config));
    g = golden_open(GOLDEN);
    return g.file ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    golden_close(&g);
    slr_devices_unref(devices);
    return 0;
}

static slr_pixels stored(const char *name)
{
    slr_tensor t;
    assert_true(slr_safetensors_find(g.file, name, &t));
    return (slr_pixels){(int32_t)t.dim[1], (int32_t)t.dim[0], 3, (uint8_t *)(uintptr_t)t.data};
}

static void check(const char *name, const slr_pixels *got, size_t stride)
{
    slr_tensor t;
    assert_true(slr_safetensors_find(g.file, name, &t));
    const uint8_t *want = t.data;
    size_t n = (size_t)got->width * (size_t)got->height * 3, k = 0;
    for (size_t i = 0; i < n; i += stride, k++)
        if (abs(got->data[i] - want[k]) > TOL_PIXEL)
            fail_msg("%s: number %zu is %d, wanted %d", name, i, got->data[i], want[k]);
    assert_int_equal(k, slr_tensor_count(&t));
}

static void spellings(void **state)
{
    (void)state;
    static const struct {
        const char *path, *name;
        int scale;
    } row[] = {{NET("old.pth"), "old.small", 4},
               {NET("trunk.safetensors"), "trunk.small", 2},
               {NET("real.safetensors"), "real.small", 2}};
    slr_pixels small = stored("small"), got;
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        slr_rrdb *r;
        ok(slr_rrdb_open(&r, NULL, devices, row[i].path));
        assert_int_equal(slr_rrdb_scale(r), row[i].scale);
        ok(slr_rrdb_run(r, &small, NULL, &got));
        assert_int_equal(got.width, small.width * row[i].scale);
        check(row[i].name, &got, 1);
        slr_free(NULL, got.data);
        slr_rrdb_free(r);
    }
}

static void tiles(void **state)
{
    (void)state;
    slr_upscaler *u;
    slr_pixels large = stored("large"), got;
    ok(slr_upscaler_new(&u, NULL, devices, "trunk", NET("trunk.safetensors")));
    ok(slr_upscaler_run(u, &large, 504, 144, NULL, &got)); /* whole eights: no resizing after it */
    check("trunk.large", &got, 13);
    slr_free(NULL, got.data);
    ok(slr_upscaler_run(u, &large, 600, 150, NULL, &got)); /* twice, then down */
    assert_int_equal(got.width, 600);
    assert_int_equal(got.height, 150);
    slr_free(NULL, got.data);
    slr_upscaler_free(u);
}

static void others(void **state)
{
    (void)state;
    slr_rrdb *r;
    assert_int_equal(slr_rrdb_open(&r, NULL, devices, TEST_ROOT "/golden/upscaler.safetensors"),
                     SDLORA_ENOTSUP);
    assert_null(r);
    assert_non_null(strstr(sdlora_last_error()->message, "upscaler.safetensors"));
    assert_int_equal(slr_rrdb_open(&r, NULL, devices, NET("nothing.pth")), SDLORA_ENOTFOUND);
    assert_int_equal(
        slr_rrdb_open(&r, NULL, devices, TEST_ROOT "/../examples/data/tinysd/tinysd.safetensors"),
        SDLORA_ENOTSUP);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(spellings), cmocka_unit_test(tiles),
                                       cmocka_unit_test(others)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
