/* SPDX-License-Identifier: MIT */
/* img2img, inpainting and hires fix on tinysd against AUTOMATIC1111's own
 * processing (tests/golden/img2img.safetensors): what a pass starts from, final
 * latents, pictures. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>

#include "backend/registry.h"
#include "base/cpu.h"
#include "runs_test.h"
#include "sample/img2img.h"

#define FILE_NAME TEST_ROOT "/golden/img2img.safetensors"
#define TOL_INIT  2e-5 /* as the autoencoder by itself */

static slr_devices *devices;
static slr_checkpoint *base;
static slr_generator *gen;
static golden g;

static int setup(void **state)
{
    (void)state;
    const slr_devices_config config = {.cpu_features = slr_cpu_features(), .backend = "cpu"};
    const slr_checkpoint_config model = {.predict = -1};
    ok(slr_devices_open(&devices, &config));
    ok(slr_checkpoint_open(&base, TINYSD, &model));
    ok(slr_generator_new(&gen, slr_checkpoint_mem(base), (slr_log){0}, base, NULL, NULL, devices,
                         NULL));
    g = golden_open(FILE_NAME);
    return g.file ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    golden_close(&g);
    slr_generator_free(gen);
    slr_checkpoint_unref(base);
    slr_devices_unref(devices);
    return 0;
}

/* --- from pictures, and twice --- */

static void img2img(void **state)
{
    (void)state;
    json_t *cases = meta(&g, "cases"), *c;
    const char *name;
    json_object_foreach(cases, name, c)
    {
        slr_pixels init, mask;
        slr_picture picture;
        slr_request r = request_of(c);
        read_start(&g, &r, c, &init, &mask);
        ok(slr_generator_run(gen, &r, &picture));
        check(&g, "img", name, &picture);
        slr_picture_free(slr_checkpoint_mem(base), &picture);
        slr_free(NULL, init.data);
        slr_free(NULL, mask.data);
    }
    assert_int_equal(json_object_size(cases), 25);
    json_decref(cases);
}

static void hires(void **state)
{
    (void)state;
    json_t *cases = meta(&g, "hires"), *c;
    const char *name;
    json_object_foreach(cases, name, c)
    {
        slr_picture picture;
        slr_request r = request_of(c);
        read_hires(&r, c);
        ok(slr_generator_run(gen, &r, &picture));
        check(&g, "hr", name, &picture);
        slr_picture_free(slr_checkpoint_mem(base), &picture);
    }
    assert_int_equal(json_object_size(cases), 11);
    json_decref(cases);
}

/* --- an inpainting model --- */

static void inpainting_model(void **state)
{
    (void)state;
    char path[] = "/tmp/sdlora-modes-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    write_wider(path, 5);
    const slr_checkpoint_config model = {.predict = -1};
    slr_checkpoint *wide;
    slr_generator *own;
    ok(slr_checkpoint_open(&wide, path, &model));
    ok(slr_generator_new(&own, slr_checkpoint_mem(wide), (slr_log){0}, wide, NULL, NULL, devices,
                         NULL));
    json_t *cases = meta(&g, "inpaint"), *c;
    const char *name;
    json_object_foreach(cases, name, c)
    {
        slr_pixels init = {0}, mask = {0};
        slr_picture picture;
        slr_request r = request_of(c);
        if (word(c, "init", NULL))
            read_start(&g, &r, c, &init, &mask);
        else
            read_hires(&r, c);
        ok(slr_generator_run(own, &r, &picture));
        check(&g, "in", name, &picture);
        slr_picture_free(slr_checkpoint_mem(wide), &picture);
        slr_free(NULL, init.data);
        slr_free(NULL, mask.data);
    }
    assert_int_equal(json_object_size(cases), 8);
    json_decref(cases);
    slr_generator_free(own);
    slr_checkpoint_unref(wide);
    unlink(path);
}

/* --- what a pass starts from --- */

/* Latents, mask and the channels of inpainting models:
 * img.<case>.{init,mask,cond}. */
static void starts(void **state)
{
    (void)state;
    static const char *const names[] = {"plain", "crop", "fill", "mask_fill", "mask_soft", "only"};
    json_t *cases = meta(&g, "cases");
    slr_vae_runner *vae;
    ok(slr_vae_runner_new(&vae, slr_checkpoint_part(base, SLR_PART_VAE),
                          slr_checkpoint_family(base), devices));
    const slr_encoder e = {.vae = vae, .factor = 3, .c = 4};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const json_t *c = json_object_get(cases, names[i]);
        slr_pixels init, mask = {0};
        slr_canvas canvas;
        slr_start start;
        char key[96];
        source(&g, word(c, "init", NULL), &init);
        if (word(c, "mask", NULL))
            source(&g, word(c, "mask", NULL), &mask);
        const int blur = (int)number(c, "blur", 4), content = (int)number(c, "content", 1);
        const bool sharp = number(c, "round", 1) != 0;
        const slr_canvas_config how = {.width = 64,
                                       .height = 64,
                                       .resize_mode = (int)number(c, "mode", 0),
                                       .background = {255, 255, 255},
                                       .blur_x = blur,
                                       .blur_y = blur,
                                       .sharp = sharp,
                                       .content = content,
                                       .only_masked = number(c, "full", 0) != 0,
                                       .padding = (int32_t)number(c, "padding", 0)};
        ok(slr_canvas_open(&canvas, NULL, &how, &init, mask.data ? &mask : NULL));
        ok(slr_start_new(&start, &e, &canvas,
                         &(slr_start_config){.h = 8,
                                             .w = 8,
                                             .content = content,
                                             .sharp = sharp,
                                             .extra = true,
                                             .mask_weight = 1}));
        snprintf(key, sizeof key, "img.%s.init", names[i]);
        float *want = golden_nhwc(&g, key, NULL);
        assert_true(golden_close_to(key, start.init, want, 8 * 8 * 4, TOL_INIT));
        slr_free(NULL, want);
        snprintf(key, sizeof key, "img.%s.cond", names[i]);
        want = golden_nhwc(&g, key, NULL);
        assert_true(golden_close_to(key, start.extra, want, 8 * 8 * 5, TOL_INIT));
        slr_free(NULL, want);
        if (mask.data) {
            snprintf(key, sizeof key, "img.%s.mask", names[i]);
            want = golden_f32(&g, key, NULL);
            assert_memory_equal(start.repaint, want, 8 * 8 * sizeof *want);
            slr_free(NULL, want);
        }
        slr_start_free(&start);
        slr_canvas_free(&canvas);
        slr_free(NULL, init.data);
        slr_free(NULL, mask.data);
    }
    slr_vae_runner_free(vae);
    json_decref(cases);
}

static void refusals(void **state)
{
    (void)state;
    slr_pixels init;
    slr_picture picture;
    slr_request r = request_of(NULL);
    source(&g, "a64", &init);
    r.mask = &init;
    assert_int_equal(slr_generator_run(gen, &r, &picture), SDLORA_EINVAL);
    r.init = &init;
    r.set.hr = true;
    assert_int_equal(slr_generator_run(gen, &r, &picture), SDLORA_EINVAL);
    r.mask = NULL;
    r.set.hr = false;
    r.set.background = "white";
    assert_int_equal(slr_generator_run(gen, &r, &picture), SDLORA_EINVAL);
    assert_non_null(strstr(sdlora_last_error()->message, "#rrggbb"));
    r = request_of(NULL);
    r.set.hr = true;
    r.set.hr_upscaler = "4x-Nobody";
    assert_int_equal(slr_generator_run(gen, &r, &picture), SDLORA_ENOTFOUND);
    assert_non_null(strstr(sdlora_last_error()->message, "4x-Nobody"));
    slr_free(NULL, init.data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(starts), cmocka_unit_test(img2img),
                                       cmocka_unit_test(hires), cmocka_unit_test(inpainting_model),
                                       cmocka_unit_test(refusals)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
