/* SPDX-License-Identifier: MIT */
/* Second passes with another checkpoint, token merging and models that edit pictures, on tinysd
 * against AUTOMATIC1111's own processing (tests/golden/variants.safetensors). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "backend/registry.h"
#include "base/cpu.h"
#include "runs_test.h"

#define FILE_NAME TEST_ROOT "/golden/variants.safetensors"
#define SOURCES   TEST_ROOT "/golden/img2img.safetensors"

static slr_devices *devices;
static slr_checkpoint *base, *other, *editor;
static slr_generator *gen;
static golden g, sources;

/* --- the other checkpoint --- */

static float *changed(slr_st_entry *e, float times, float plus)
{
    size_t n = (size_t)slr_tensor_count(&e->t);
    float *v = slr_alloc(NULL, n * sizeof *v);
    ok(slr_tensor_to_f32(&e->t, v));
    for (size_t i = 0; i < n; i++)
        v[i] = v[i] * times + plus;
    e->t.dtype = SDLORA_F32;
    e->t.data = v;
    return v;
}

/* tinysd with another VAE, as the golden script makes it. */
static void write_other(const char *path)
{
    slr_safetensors *f;
    float *own[2] = {0};
    ok(slr_safetensors_open(&f, NULL, TINYSD, true));
    size_t n = slr_safetensors_count(f);
    slr_st_entry *e = slr_calloc(NULL, n, sizeof *e);
    for (size_t i = 0; i < n; i++) {
        e[i].name = slr_safetensors_at(f, i, &e[i].t);
        if (!strcmp(e[i].name, "first_stage_model.decoder.conv_out.bias"))
            own[0] = changed(&e[i], 1, 0.25f);
        if (!strcmp(e[i].name, "first_stage_model.encoder.conv_in.weight"))
            own[1] = changed(&e[i], 0.9f, 0);
    }
    assert_true(own[0] && own[1]);
    ok(slr_safetensors_write(NULL, path, e, n, NULL, 0));
    slr_free(NULL, own[0]);
    slr_free(NULL, own[1]);
    slr_free(NULL, e);
    slr_safetensors_close(f);
}

static slr_checkpoint *open_model(const char *path, int predict)
{
    const slr_checkpoint_config config = {.predict = predict};
    slr_checkpoint *c;
    ok(slr_checkpoint_open(&c, path, &config));
    return c;
}

static char *scratch(void)
{
    static char path[64];
    strcpy(path, "/tmp/sdlora-variants-XXXXXX");
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    return path;
}

static slr_generator *generator_of(slr_checkpoint *c)
{
    slr_generator *made;
    ok(slr_generator_new(&made, slr_checkpoint_mem(c), (slr_log){0}, c, NULL, NULL, devices, NULL));
    return made;
}

static int setup(void **state)
{
    (void)state;
    const slr_devices_config config = {.cpu_features = slr_cpu_features(), .backend = "cpu"};
    char *path = scratch();
    ok(slr_devices_open(&devices, &config));
    base = open_model(TINYSD, -1);
    write_other(path);
    other = open_model(path, SLR_PREDICT_V);
    unlink(path);
    path = scratch();
    write_wider(path, 4);
    editor = open_model(path, -1);
    unlink(path);
    gen = generator_of(base);
    g = golden_open(FILE_NAME);
    sources = golden_open(SOURCES);
    return g.file && sources.file ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    golden_close(&g);
    golden_close(&sources);
    slr_generator_free(gen);
    slr_checkpoint_unref(base);
    slr_checkpoint_unref(other);
    slr_checkpoint_unref(editor);
    slr_devices_unref(devices);
    return 0;
}

/* --- cases --- */

static slr_checkpoint *second_of(const json_t *c)
{
    const char *name = word(c, "second", "");
    return !strcmp(name, "other") ? other : !strcmp(name, "edit") ? editor : NULL;
}

static int pass_of(const json_t *c)
{
    const char *name = word(c, "refiner", "");
    return !strcmp(name, "first pass")    ? SLR_HR_REFINE_FIRST
           : !strcmp(name, "both passes") ? SLR_HR_REFINE_BOTH
                                          : SLR_HR_REFINE_SECOND;
}

static void run_case(slr_generator *from, const char *group, const char *name, const json_t *c)
{
    slr_pixels init = {0}, mask = {0};
    slr_picture picture;
    slr_request r = request_of(c);
    if (word(c, "init", NULL))
        read_start(&sources, &r, c, &init, &mask);
    else
        read_hires(&r, c);
    r.set.refiner_at = 0.5;
    r.set.hr_refine = pass_of(c);
    ok(slr_generator_set_model(from, SLR_ROLE_SECOND, second_of(c)));
    ok(slr_generator_set_model(from, SLR_ROLE_REFINER, word(c, "refiner", NULL) ? other : NULL));
    ok(slr_generator_run(from, &r, &picture));
    check(&g, group, name, &picture);
    slr_picture_free(slr_checkpoint_mem(base), &picture);
    slr_free(NULL, init.data);
    slr_free(NULL, mask.data);
}

static void run_group(slr_generator *from, const char *group, size_t n, bool pictures, bool noise)
{
    json_t *cases = meta(&g, group), *c;
    const char *name;
    json_object_foreach(cases, name, c)
    {
        if (word(c, "init", NULL) ? pictures : noise)
            run_case(from, group, name, c);
    }
    assert_int_equal(json_object_size(cases), n);
    json_decref(cases);
}

static void another_checkpoint(void **state)
{
    (void)state;
    run_group(gen, "second", 6, true, true);
}

static void token_merging(void **state)
{
    (void)state;
    run_group(gen, "merge", 9, true, true);
}

static void editing(void **state)
{
    (void)state;
    slr_generator *own = generator_of(editor);
    run_group(own, "edit", 7, true, false);
    run_group(gen, "edit", 7, false, true);
    slr_generator_free(own);
}

/* --- what is told and refused --- */

static void texts(void **state)
{
    (void)state;
    slr_picture picture;
    slr_request r = request_of(NULL);
    r.set.steps = 2;
    r.set.hr = true;
    r.set.hr_upscaler = "Latent";
    r.set.hr_scale = 1;
    r.set.merge = 0.5;
    r.set.merge_second = 0.25;
    r.set.denoising_strength = 0.5;
    ok(slr_generator_set_model(gen, SLR_ROLE_SECOND, base));
    ok(slr_generator_run(gen, &r, &picture));
    assert_non_null(strstr(picture.infotext, ", Token merging ratio: 0.5, "
                                             "Token merging ratio hr: 0.25, RNG: CPU, "
                                             "Hires checkpoint: tinysd ["));
    slr_picture_free(slr_checkpoint_mem(base), &picture);
    ok(slr_generator_set_model(gen, SLR_ROLE_SECOND, NULL));
    ok(slr_generator_run(gen, &r, &picture));
    assert_null(strstr(picture.infotext, "Hires checkpoint"));
    slr_picture_free(slr_checkpoint_mem(base), &picture);
}

/* tinysd with a VAE that halves pictures twice. */
static void write_flat(const char *path)
{
    slr_safetensors *f;
    ok(slr_safetensors_open(&f, NULL, TINYSD, true));
    size_t n = slr_safetensors_count(f), kept = 0;
    slr_st_entry *e = slr_calloc(NULL, n, sizeof *e);
    for (size_t i = 0; i < n; i++) {
        e[kept].name = slr_safetensors_at(f, i, &e[kept].t);
        kept += !strstr(e[kept].name, "decoder.up.1.upsample") &&
                !strstr(e[kept].name, "encoder.down.2.downsample");
    }
    assert_int_equal(n - kept, 4);
    ok(slr_safetensors_write(NULL, path, e, kept, NULL, 0));
    slr_free(NULL, e);
    slr_safetensors_close(f);
}

/* Checkpoints that have no part in a run do not end it. */
static void latents_of_another_size(void **state)
{
    (void)state;
    char *path = scratch();
    slr_picture picture;
    slr_request r = request_of(NULL);
    write_flat(path);
    slr_checkpoint *flat = open_model(path, -1);
    unlink(path);
    r.set.steps = 2;
    r.set.hr_upscaler = "Latent";
    ok(slr_generator_set_model(gen, SLR_ROLE_SECOND, flat));
    ok(slr_generator_run(gen, &r, &picture));
    slr_picture_free(slr_checkpoint_mem(base), &picture);
    for (int role = SLR_ROLE_REFINER; role <= SLR_ROLE_SECOND; role++) {
        r.set.hr = role == SLR_ROLE_SECOND;
        ok(slr_generator_set_model(gen, SLR_ROLE_REFINER, r.set.hr ? NULL : flat));
        assert_int_equal(slr_generator_run(gen, &r, &picture), SDLORA_EINVAL);
        assert_non_null(strstr(sdlora_last_error()->message, "a latent is 4 pixels wide"));
    }
    ok(slr_generator_set_model(gen, SLR_ROLE_SECOND, NULL));
    slr_checkpoint_unref(flat);
}

static void keep_line(int level, const char *text, void *user)
{
    if (strstr(text, "works without networks"))
        snprintf(user, 512, "%d %s", level, text);
}

/* Without its networks a second pass is another picture; a refiner is seldom of one kind with them.
 */
static void networks_that_do_not_fit(void **state)
{
    (void)state;
    static const char *const archs[SLR_ROLES] = {NULL, "tiny-refiner", "tiny-sd2"};
    const slr_checkpoint_config config = {.predict = -1};
    slr_checkpoint *tiny, *wide;
    slr_network *network;
    sdlora_options *none;
    slr_generator *own;
    slr_picture picture;
    char line[512];
    ok(slr_checkpoint_synthetic(&tiny, "tiny", SDLORA_F16, 0, &config));
    ok(slr_options_new(&none, NULL, "network"));
    ok(slr_network_make(&network, tiny, none, 3));
    ok(slr_generator_new(&own, slr_checkpoint_mem(tiny), (slr_log){keep_line, line, SLR_LOG_DEBUG},
                         tiny, NULL, NULL, devices, NULL));
    const slr_stack_item item = {.network = network, .te = 1, .unet = 1};
    for (int role = SLR_ROLE_REFINER; role < SLR_ROLES; role++) {
        slr_request r = request_of(NULL);
        r.networks = &item;
        r.n_networks = 1;
        r.set.steps = 2;
        r.set.refiner_at = 0.1;
        r.set.hr = role == SLR_ROLE_SECOND;
        r.set.hr_upscaler = "Latent";
        r.set.hr_scale = 1;
        *line = '\0';
        ok(slr_checkpoint_synthetic(&wide, archs[role], SDLORA_F16, 0, &config));
        ok(slr_generator_set_model(own, role, wide));
        ok(slr_generator_run(own, &r, &picture));
        slr_picture_free(slr_checkpoint_mem(tiny), &picture);
        assert_int_equal(*line - '0', role == SLR_ROLE_SECOND ? SLR_LOG_WARN : SLR_LOG_INFO);
        assert_non_null(strstr(line, archs[role]));
        ok(slr_generator_set_model(own, role, NULL));
        slr_checkpoint_unref(wide);
    }
    slr_generator_free(own);
    slr_network_unref(network);
    slr_options_unref(none);
    slr_checkpoint_unref(tiny);
}

static void of_the_editor(void **state)
{
    (void)state;
    slr_pixels init;
    slr_picture picture;
    slr_generator *own = generator_of(editor);
    slr_request r = request_of(NULL);
    r.set.steps = 2;
    r.set.image_cfg = 1.25;
    assert_int_equal(slr_generator_run(own, &r, &picture), SDLORA_EINVAL);
    assert_non_null(strstr(sdlora_last_error()->message, "give one to start from"));
    source(&sources, "a64", &init);
    r.init = &init;
    ok(slr_generator_run(own, &r, &picture));
    assert_non_null(strstr(picture.infotext, ", CFG scale: 7, Image CFG scale: 1.25, Seed: 1, "));
    assert_null(strstr(picture.infotext, "Conditional mask weight"));
    slr_picture_free(slr_checkpoint_mem(base), &picture);
    r.set.prompt = "apple AND pear";
    assert_int_equal(slr_generator_run(own, &r, &picture), SDLORA_EINVAL);
    r.set.image_cfg = 1;
    ok(slr_generator_run(own, &r, &picture));
    slr_picture_free(slr_checkpoint_mem(base), &picture);
    ok(slr_generator_set_model(gen, SLR_ROLE_SECOND, editor));
    r = request_of(NULL);
    r.set.steps = 2;
    r.set.hr = true;
    r.set.hr_upscaler = "Latent";
    assert_int_equal(slr_generator_run(gen, &r, &picture), SDLORA_ENOTSUP);
    ok(slr_generator_set_model(gen, SLR_ROLE_SECOND, NULL));
    slr_free(NULL, init.data);
    slr_generator_free(own);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(another_checkpoint),
                                       cmocka_unit_test(token_merging),
                                       cmocka_unit_test(editing),
                                       cmocka_unit_test(texts),
                                       cmocka_unit_test(latents_of_another_size),
                                       cmocka_unit_test(networks_that_do_not_fit),
                                       cmocka_unit_test(of_the_editor)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
