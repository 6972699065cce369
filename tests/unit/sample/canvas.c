/* SPDX-License-Identifier: MIT */
/* Operations on pictures and latents before and after sampling, against Pillow, OpenCV, torch and
 * AUTOMATIC1111 (tests/golden/img2img.safetensors, "op.*"). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "failing.h"
#include "golden_test.h"
#include "io/json.h"
#include "sample/blur.h"
#include "sample/canvas.h"
#include "sample/colour.h"
#include "sample/compose.h"
#include "sample/fit.h"
#include "sample/hires.h"
#include "sample/latents.h"
#include "sample/mask.h"
#include "sample/upscaler.h"

#define FILE_NAME TEST_ROOT "/golden/img2img.safetensors"

/* torch and this library sum four or sixteen products of f32 in other orders. */
#define TOL_LATENT 2e-6
/* The luminosity blend is in doubles, rounded once: a tie may fall the other way. */
#define TOL_COLOUR 1

static golden g;

static void ok(int rc)
{
    if (rc < 0)
        fail_msg("%s (%s)", sdlora_last_error()->message, sdlora_last_error()->where);
}

static int setup(void **state)
{
    (void)state;
    g = golden_open(FILE_NAME);
    return g.file ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    golden_close(&g);
    return 0;
}

/* A picture of the file, borrowed: [H,W] or [H,W,C]. */
static slr_pixels stored(const char *name)
{
    slr_tensor t;
    if (!slr_safetensors_find(g.file, name, &t))
        fail_msg("%s is not there", name);
    assert_int_equal(t.dtype, SDLORA_U8);
    return (slr_pixels){(int32_t)t.dim[1], (int32_t)t.dim[0], t.rank == 3 ? (int32_t)t.dim[2] : 1,
                        (uint8_t *)(uintptr_t)t.data};
}

static slr_pixels source(const char *name)
{
    char key[64];
    slr_pixels p, own;
    snprintf(key, sizeof key, "src.%s", name);
    p = stored(key);
    ok(slr_picture_copy(&own, NULL, &p));
    return own;
}

/* Frees `got`. */
static void same(const char *name, slr_pixels got, int tolerance)
{
    slr_pixels want = stored(name);
    int worst = 0;
    assert_int_equal(got.width, want.width);
    assert_int_equal(got.height, want.height);
    assert_int_equal(got.channels, want.channels);
    for (size_t i = 0; i < (size_t)want.width * (size_t)want.height * (size_t)want.channels; i++) {
        int d = abs(got.data[i] - want.data[i]);
        worst = d > worst ? d : worst;
    }
    slr_free(NULL, got.data);
    if (worst > tolerance)
        fail_msg("%s: off by %d", name, worst);
}

static void fits(void **state)
{
    (void)state;
    int n = 0;
    for (size_t i = 0; i < slr_safetensors_count(g.file); i++) {
        slr_tensor t;
        slr_pixels got;
        char name[32];
        int mode, w, h;
        const char *key = slr_safetensors_at(g.file, i, &t);
        if (sscanf(key, "op.fit.%d.%31[a-z].%dx%d", &mode, name, &w, &h) != 4)
            continue;
        slr_pixels from = source(name);
        ok(slr_fit(&got, NULL, &from, mode, w, h, NULL));
        slr_free(NULL, from.data);
        same(key, got, 0);
        n++;
    }
    assert_int_equal(n, 27);
}

static void masks(void **state)
{
    (void)state;
    slr_pixels clear = source("clear"), wide = source("wide"), got;
    const uint8_t blue[3] = {0x30, 0xa0, 0xf0};
    ok(slr_picture_flatten(&got, NULL, &clear, blue));
    same("op.flat", got, 0);
    for (int sharp = 0; sharp < 2; sharp++) {
        ok(slr_mask_of(&got, NULL, &clear, sharp));
        same(sharp ? "op.binary.1" : "op.binary.0", got, 0);
    }
    ok(slr_mask_of(&got, NULL, &wide, true));
    same("op.grey", got, 0);
    slr_free(NULL, clear.data);
    slr_free(NULL, wide.data);
}

/* 127 of 255 stays, 128 changes. */
static void halves(void **state)
{
    (void)state;
    for (int v = 127; v <= 128; v++) {
        slr_pixels m;
        float out[4];
        ok(slr_picture_zero(&m, NULL, 16, 16, 1));
        memset(m.data, v, 16 * 16);
        ok(slr_mask_latent(&m, NULL, 2, 2, true, out));
        assert_true(out[0] == (v > 127) && out[3] == (v > 127));
        slr_free(NULL, m.data);
    }
}

static void blurs(void **state)
{
    (void)state;
    static const int sigma[][2] = {{4, 4}, {1, 7}, {30, 0}, {0, 12}};
    char key[64];
    for (size_t i = 0; i < sizeof sigma / sizeof *sigma; i++) {
        slr_pixels m = source("mask");
        for (int axis = 0; axis < 2; axis++)
            if (sigma[i][axis])
                ok(slr_blur_axis(&m, NULL, sigma[i][axis], axis == 0));
        snprintf(key, sizeof key, "op.blur.%d.%d", sigma[i][0], sigma[i][1]);
        same(key, m, 0);
    }
    for (int radius = 2; radius <= 256; radius = radius == 2 ? 4 : radius * 4) {
        slr_pixels wide = source("wide"), soft = source("soft"), cut;
        ok(slr_picture_unmasked(&cut, NULL, &wide, &soft));
        ok(slr_blur_boxes(&cut, NULL, (float)radius));
        snprintf(key, sizeof key, "op.boxes.%d", radius);
        same(key, cut, 0);
        slr_free(NULL, wide.data);
        slr_free(NULL, soft.data);
    }
}

static void layers(void **state)
{
    (void)state;
    slr_pixels wide = source("wide"), soft = source("soft"), clear = source("clear"), got;
    ok(slr_picture_unmasked(&got, NULL, &wide, &soft));
    slr_picture_straight(&got);
    same("op.cut", got, 0);
    ok(slr_mask_fill(&wide, NULL, &soft));
    same("op.fill", wide, 0);
    slr_pixels base = source("base"), over;
    ok(slr_picture_zero(&over, NULL, 48, 48, 4));
    slr_picture_paste(&over, &base, 0, 0);
    slr_picture_over(&over, &clear);
    same("op.over", over, 0);
    for (int sharp = 0; sharp < 2; sharp++) {
        slr_tensor t;
        float got_mask[5 * 8];
        float *want = golden_f32(&g, sharp ? "op.latmask.1" : "op.latmask.0", &t);
        ok(slr_mask_latent(&soft, NULL, 5, 8, sharp, got_mask));
        assert_memory_equal(got_mask, want, sizeof got_mask);
        slr_free(NULL, want);
    }
    slr_free(NULL, base.data);
    slr_free(NULL, soft.data);
    slr_free(NULL, clear.data);
}

static void boxes(void **state)
{
    (void)state;
    json_t *rows;
    const char *text = slr_safetensors_meta(g.file, "boxes");
    ok(slr_json_parse(&rows, text, strlen(text), "boxes"));
    size_t n = json_array_size(rows);
    assert_int_equal(n, 45);
    for (size_t i = 0; i < n; i++) {
        const json_t *row = json_array_get(rows, i);
        double v[11];
        slr_pixels m;
        slr_box b;
        for (size_t k = 0; k < 11; k++)
            v[k] = json_number_value(json_array_get(row, k));
        ok(slr_picture_zero(&m, NULL, 150, 110, 1));
        for (int y = (int)(v[1] * 110); y < (int)(v[3] * 110); y++)
            for (int x = (int)(v[0] * 150); x < (int)(v[2] * 150); x++)
                m.data[y * 150 + x] = 255;
        assert_true(slr_mask_box(&m, (int32_t)v[4], &b));
        slr_box_shape(&b, (int32_t)v[5], (int32_t)v[6], 150, 110);
        slr_free(NULL, m.data);
        if (b.x != v[7] || b.y != v[8] || b.x + b.w != v[9] || b.y + b.h != v[10])
            fail_msg("box %zu is %d,%d-%d,%d, wanted %g,%g-%g,%g", i, b.x, b.y, b.x + b.w,
                     b.y + b.h, v[7], v[8], v[9], v[10]);
    }
    json_decref(rows);
}

static void blank(void **state)
{
    (void)state;
    slr_pixels m;
    slr_box b;
    ok(slr_picture_zero(&m, NULL, 9, 7, 1));
    assert_false(slr_mask_box(&m, 3, &b));
    slr_free(NULL, m.data);
}

static void latents(void **state)
{
    (void)state;
    int n = 0;
    float *x = golden_nhwc(&g, "src.latents", NULL);
    for (size_t i = 0; i < slr_safetensors_count(g.file); i++) {
        slr_tensor t;
        int w, h, used = 0;
        const char *key = slr_safetensors_at(g.file, i, &t);
        if (sscanf(key, "op.latent.%dx%d.%n", &h, &w, &used) != 2 || !used)
            continue;
        const slr_latent_row *row = slr_latent_find(key + used);
        assert_non_null(row);
        float *want = golden_nhwc(&g, key, NULL), *got = slr_alloc(NULL, (size_t)(h * w) * 16);
        ok(slr_latent_resize(row, NULL, x, 8, 10, 4, h, w, got));
        assert_true(golden_close_to(key, got, want, (size_t)(h * w * 4), TOL_LATENT));
        slr_free(NULL, want);
        slr_free(NULL, got);
        n++;
    }
    assert_int_equal(n, 24);
    float cut[3 * 5 * 4];
    slr_latent_crop(x, 8, 10, 4, 3, 5, cut);
    assert_memory_equal(cut, x + (2 * 10 + 2) * 4, 5 * 4 * sizeof *x);
    slr_free(NULL, x);
}

static void colours(void **state)
{
    (void)state;
    slr_pixels wide = source("wide"), tall = source("tall");
    ok(slr_colour_match(&wide, NULL, &tall));
    slr_free(NULL, tall.data);
    same("op.colour", wide, TOL_COLOUR);
}

static void upscalers(void **state)
{
    (void)state;
    int n = 0;
    for (size_t i = 0; i < slr_safetensors_count(g.file); i++) {
        slr_tensor t;
        slr_pixels got;
        slr_upscaler *u;
        char name[32];
        int w, h;
        const char *key = slr_safetensors_at(g.file, i, &t);
        if (sscanf(key, "op.upscale.%31[A-Za-z].%dx%d", name, &w, &h) != 3)
            continue;
        slr_pixels from = source("wide");
        ok(slr_upscaler_new(&u, NULL, NULL, name, NULL));
        ok(slr_upscaler_run(u, &from, w, h, NULL, &got));
        slr_upscaler_free(u);
        slr_free(NULL, from.data);
        same(key, got, 0);
        n++;
    }
    assert_int_equal(n, 9);
    slr_upscaler *u;
    assert_int_equal(slr_upscaler_new(&u, NULL, NULL, "4x-Nothing", NULL), SDLORA_ENOTFOUND);
    assert_non_null(strstr(sdlora_last_error()->message, "4x-Nothing"));
}

static void hires(void **state)
{
    (void)state;
    /* width, height, scale, resize x, y -> enlarged to w, h, latents w, h; by the original's
     * formulas */
    static const struct {
        int w, h;
        double scale;
        int x, y, up_w, up_h, lat_w, lat_h;
    } row[] = {{512, 512, 2, 0, 0, 1024, 1024, 128, 128},
               {512, 768, 1.3, 0, 0, 665, 998, 83, 124},
               {512, 768, 2, 1024, 0, 1024, 1536, 128, 192},
               {512, 768, 2, 0, 1000, 666, 1000, 83, 125},
               {512, 512, 2, 1024, 768, 1024, 1024, 128, 96},
               {512, 768, 2, 1024, 1024, 1024, 1536, 128, 128},
               {768, 512, 2, 900, 900, 1350, 900, 112, 112}};
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        slr_hires_size s;
        ok(slr_hires_fit(&s, row[i].w, row[i].h, row[i].scale, row[i].x, row[i].y, 3));
        assert_int_equal(s.up_w, row[i].up_w);
        assert_int_equal(s.up_h, row[i].up_h);
        assert_int_equal(s.w, row[i].lat_w);
        assert_int_equal(s.h, row[i].lat_h);
    }
    slr_hires_size s;
    assert_int_equal(slr_hires_fit(&s, 512, 512, 1000, 0, 0, 3), SDLORA_EINVAL);
    assert_int_equal(slr_hires_fit(&s, 512, 512, 0, 0, 0, 3), SDLORA_EINVAL);
    assert_int_equal(slr_hires_fit(&s, 512, 512, 2, 4, 0, 3), SDLORA_EINVAL);
}

/* Every allocation of a canvas fails once: an error, nothing lost, nothing freed twice. */
static void want_of_memory(void **state)
{
    (void)state;
    slr_pixels wide = source("wide"), mask = source("mask"), rgb;
    failing f = {.left = -1};
    slr_mem *m;
    const slr_canvas_config config = {.width = 24,
                                      .height = 32,
                                      .blur_x = 2,
                                      .blur_y = 2,
                                      .sharp = true,
                                      .content = SLR_CONTENT_FILL,
                                      .only_masked = true,
                                      .correct = true};
    ok(slr_picture_rgb(&rgb, NULL, &mask));
    ok(slr_mem_new(&m, &(slr_mem_hooks){fail_alloc, fail_realloc, fail_free, &f}, 0));
    int64_t before = f.held;
    int rc = SDLORA_ENOMEM, n;
    for (n = 0; rc == SDLORA_ENOMEM; n++) {
        slr_canvas c;
        slr_pixels made = {0};
        f.left = n;
        rc = slr_canvas_open(&c, m, &config, &wide, &rgb);
        if (rc >= 0)
            rc = slr_picture_zero(&made, m, 24, 32, 3);
        if (rc >= 0)
            rc = slr_canvas_finish(&c, &made);
        slr_free(m, made.data);
        slr_canvas_free(&c);
        assert_int_equal(f.held, before);
    }
    ok(rc);
    assert_true(n > 40); /* so many allocations there are */
    f.left = -1;
    slr_mem_unref(m);
    slr_free(NULL, wide.data);
    slr_free(NULL, mask.data);
    slr_free(NULL, rgb.data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fits),      cmocka_unit_test(masks),   cmocka_unit_test(halves),
        cmocka_unit_test(blurs),     cmocka_unit_test(layers),  cmocka_unit_test(boxes),
        cmocka_unit_test(blank),     cmocka_unit_test(latents), cmocka_unit_test(colours),
        cmocka_unit_test(upscalers), cmocka_unit_test(hires),   cmocka_unit_test(want_of_memory),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
