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
#include "golden_test.h"
#include "io/json.h"
#include "models/checkpoint.h"
#include "sample/compose.h"
#include "sample/generator.h"
#include "sample/img2img.h"

#define TINYSD      TEST_ROOT "/../examples/data/tinysd/tinysd.safetensors"
#define FILE_NAME   TEST_ROOT "/golden/img2img.safetensors"

#define TOL_INIT    2e-5 /* as the autoencoder by itself */
#define TOL_LATENTS 3e-5 /* up to sixteen evaluations amplify rounding; measured up to 5e-6 */
#define TOL_PIXEL   1    /* truncation may fall the other way */

static slr_devices *devices;
static slr_checkpoint *base;
static slr_generator *gen;
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

/* --- the file's cases --- */

static json_t *meta(const char *key)
{
    json_t *root;
    const char *text = slr_safetensors_meta(g.file, key);
    assert_non_null(text);
    ok(slr_json_parse(&root, text, strlen(text), key));
    return root;
}

static double number(const json_t *c, const char *key, double none)
{
    const json_t *v = json_object_get(c, key);
    return !v ? none : json_is_boolean(v) ? json_is_true(v) : json_number_value(v);
}

static const char *word(const json_t *c, const char *key, const char *none)
{
    const json_t *v = json_object_get(c, key);
    return v ? json_string_value(v) : none;
}

/* Borrowed. */
static bool stored(const char *name, slr_pixels *p)
{
    slr_tensor t;
    if (!slr_safetensors_find(g.file, name, &t))
        return false;
    *p = (slr_pixels){(int32_t)t.dim[1], (int32_t)t.dim[0], t.rank == 3 ? (int32_t)t.dim[2] : 1,
                      (uint8_t *)(uintptr_t)t.data};
    return true;
}

/* A source picture; grey ones as RGB, since that is what a file gives. */
static void source(const char *name, slr_pixels *out)
{
    char key[64];
    slr_pixels p;
    snprintf(key, sizeof key, "src.%s", name);
    assert_true(stored(key, &p));
    ok(p.channels == 1 ? slr_picture_rgb(out, NULL, &p) : slr_picture_copy(out, NULL, &p));
}

/* Reads a case of img2img; free init->data and mask->data. */
static void read_start(slr_request *r, const json_t *c, slr_pixels *init, slr_pixels *mask)
{
    *mask = (slr_pixels){0};
    source(word(c, "init", NULL), init);
    if (word(c, "mask", NULL))
        source(word(c, "mask", NULL), mask);
    r->init = init;
    r->mask = mask->data ? mask : NULL;
    r->set.denoising_strength = number(c, "strength", 0.75);
    r->set.resize_mode = (int)number(c, "mode", 0);
    r->set.fix_steps = number(c, "fix", 0) != 0;
    r->set.noise_multiplier = number(c, "multiplier", 1);
    r->set.extra_noise = number(c, "extra", 0);
    r->set.color_correction = number(c, "correct", 0) != 0;
    r->set.mask_blur = (int)number(c, "blur", 4);
    r->set.mask_round = number(c, "round", 1) != 0;
    r->set.mask_invert = number(c, "invert", 0) != 0;
    r->set.mask_weight = number(c, "weight", 1);
    r->set.fill = (int)number(c, "content", 1);
    r->set.full_res = number(c, "full", 0) != 0;
    r->set.full_res_padding = (int)number(c, "padding", 0);
}

static void read_hires(slr_request *r, const json_t *c)
{
    r->set.hr_upscaler = word(c, "upscaler", NULL);
    r->set.hr = r->set.hr_upscaler != NULL;
    r->set.denoising_strength = number(c, "strength", 0.7);
    r->set.hr_scale = number(c, "scale", 2);
    r->set.hr_steps = (int)number(c, "steps", 0);
    r->set.hr_width = (int)number(c, "x", 0);
    r->set.hr_height = (int)number(c, "y", 0);
    r->set.hr_sampler = word(c, "hr_sampler", NULL);
    r->set.mask_weight = number(c, "weight", 1);
}

static slr_request request_of(const json_t *c)
{
    slr_request r = {0};
    slr_settings_read(&r.set, (slr_opt){NULL, "generate"});
    r.set.prompt = "red apple, fruit";
    r.set.negative = "food";
    r.set.sampler = word(c, "sampler", "Euler a");
    r.set.steps = 8;
    r.set.cfg = 7;
    r.set.width = r.set.height = 64;
    r.set.count = 1;
    r.set.seed = 1;
    return r;
}

static int worst(const slr_pixels *got, const slr_pixels *want)
{
    int d = 0;
    assert_int_equal(got->width, want->width);
    assert_int_equal(got->height, want->height);
    for (size_t i = 0; i < (size_t)want->width * (size_t)want->height * 3; i++)
        if (abs(got->data[i] - want->data[i]) > d)
            d = abs(got->data[i] - want->data[i]);
    return d;
}

static void check(const char *kind, const char *name, const slr_picture *got)
{
    char key[96];
    slr_tensor t;
    slr_pixels want;
    snprintf(key, sizeof key, "%s.%s.latents", kind, name);
    float *latents = golden_nhwc(&g, key, &t);
    golden_error e = golden_compare(got->latents, latents, (size_t)slr_tensor_count(&t));
    slr_free(NULL, latents);
    snprintf(key, sizeof key, "%s.%s.image", kind, name);
    int d = stored(key, &want) ? worst(&got->pixels, &want) : 0;
    print_message("%-24s latents %.2g, worst pixel %d\n", name, e.l2, d);
    assert_true(e.l2 <= TOL_LATENTS);
    assert_true(d <= TOL_PIXEL);
}

static void img2img(void **state)
{
    (void)state;
    json_t *cases = meta("cases"), *c;
    const char *name;
    json_object_foreach(cases, name, c)
    {
        slr_pixels init, mask;
        slr_picture picture;
        slr_request r = request_of(c);
        read_start(&r, c, &init, &mask);
        ok(slr_generator_run(gen, &r, &picture));
        check("img", name, &picture);
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
    json_t *cases = meta("hires"), *c;
    const char *name;
    json_object_foreach(cases, name, c)
    {
        slr_picture picture;
        slr_request r = request_of(c);
        read_hires(&r, c);
        ok(slr_generator_run(gen, &r, &picture));
        check("hr", name, &picture);
        slr_picture_free(slr_checkpoint_mem(base), &picture);
    }
    assert_int_equal(json_object_size(cases), 11);
    json_decref(cases);
}

/* --- an inpainting model --- */

/* tinysd with five more channels into its first convolution, as the golden script makes them. */
static void write_wider(const char *path)
{
    const char *first = "model.diffusion_model.input_blocks.0.0.weight";
    slr_safetensors *f;
    ok(slr_safetensors_open(&f, NULL, TINYSD, true));
    size_t n = slr_safetensors_count(f);
    slr_st_entry *e = slr_calloc(NULL, n, sizeof *e);
    float *wide = NULL;
    for (size_t i = 0; i < n; i++) {
        e[i].name = slr_safetensors_at(f, i, &e[i].t);
        if (strcmp(e[i].name, first) != 0)
            continue;
        int64_t out = e[i].t.dim[0];
        float *old = slr_alloc(NULL, (size_t)slr_tensor_count(&e[i].t) * sizeof *old);
        wide = slr_alloc(NULL, (size_t)out * 81 * sizeof *wide);
        ok(slr_tensor_to_f32(&e[i].t, old));
        for (int64_t k = 0; k < out; k++) {
            memcpy(wide + k * 81, old + k * 36, 36 * sizeof *wide);
            for (int64_t j = 0; j < 45; j++)
                wide[k * 81 + 36 + j] =
                    (float)((double)((7919 * (k * 45 + j)) % 2003 - 1001) / 20020);
        }
        slr_free(NULL, old);
        const int64_t dim[4] = {out, 9, 3, 3};
        e[i].t = (slr_tensor){.dtype = SDLORA_F32, .rank = 4, .data = wide};
        memcpy(e[i].t.dim, dim, sizeof dim);
    }
    assert_non_null(wide);
    ok(slr_safetensors_write(NULL, path, e, n, NULL, 0));
    slr_free(NULL, wide);
    slr_free(NULL, e);
    slr_safetensors_close(f);
}

static void inpainting_model(void **state)
{
    (void)state;
    char path[] = "/tmp/sdlora-modes-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    write_wider(path);
    const slr_checkpoint_config model = {.predict = -1};
    slr_checkpoint *wide;
    slr_generator *own;
    ok(slr_checkpoint_open(&wide, path, &model));
    ok(slr_generator_new(&own, slr_checkpoint_mem(wide), (slr_log){0}, wide, NULL, NULL, devices,
                         NULL));
    json_t *cases = meta("inpaint"), *c;
    const char *name;
    json_object_foreach(cases, name, c)
    {
        slr_pixels init = {0}, mask = {0};
        slr_picture picture;
        slr_request r = request_of(c);
        if (word(c, "init", NULL))
            read_start(&r, c, &init, &mask);
        else
            read_hires(&r, c);
        ok(slr_generator_run(own, &r, &picture));
        check("in", name, &picture);
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
    json_t *cases = meta("cases");
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
        source(word(c, "init", NULL), &init);
        if (word(c, "mask", NULL))
            source(word(c, "mask", NULL), &mask);
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
    source("a64", &init);
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
