/* SPDX-License-Identifier: MIT */
/* txt2img on tinysd by every sampler, schedule and source of numbers, against AUTOMATIC1111 over
 * k-diffusion and diffusers (tests/golden/samplers.safetensors): the last latents. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "backend/registry.h"
#include "base/cpu.h"
#include "golden_test.h"
#include "io/json.h"
#include "models/checkpoint.h"
#include "sample/generator.h"

#define TINYSD   TEST_ROOT "/../examples/data/tinysd/tinysd.safetensors"
#define SAMPLERS TEST_ROOT "/golden/samplers.safetensors"

/* Twenty to forty evaluations of two f32 implementations of a UNet: measured up to 3e-5, most 1e-6.
 */
#define TOL_LATENTS 1e-4
/* "DPM fast" and "DPM adaptive" divide differences of eps by short steps, and the step sizes of the
 * second hang on them: measured 9e-5 and 7e-5. */
#define TOL_FIRST 3e-4

static void ok(int rc)
{
    if (rc < 0)
        fail_msg("%s (%s)", sdlora_last_error()->message, sdlora_last_error()->where);
}

static double number(const json_t *o, const char *name, double otherwise)
{
    const json_t *v = json_object_get(o, name);
    return v ? json_number_value(v) : otherwise;
}

static slr_request request_of(const json_t *o)
{
    slr_request r = {0};
    slr_settings_read(&r.set, (slr_opt){NULL, "generate"});
    r.set.seed = (int64_t)number(o, "seed", 1);
    r.set.prompt = r.set.seed == 1 ? "red apple, fruit" : "penguin, bird";
    r.set.negative = r.set.seed == 1 ? "" : "food";
    r.set.sampler = json_string_value(json_object_get(o, "sampler"));
    r.set.scheduler = json_string_value(json_object_get(o, "schedule"));
    r.set.steps = (int)number(o, "steps", 20);
    r.set.width = r.set.height = 64;
    r.set.rng = strcmp(json_string_value(json_object_get(o, "rng")), "NV") ? 0 : 1;
    r.set.ensd = (int64_t)number(o, "ensd", 0);
    r.set.subseed = (int64_t)number(o, "subseed", 0);
    r.set.subseed_strength = number(o, "subseed_strength", 0);
    r.set.seed_from_w = (int)number(o, "resize_w", 0);
    r.set.seed_from_h = (int)number(o, "resize_h", 0);
    return r;
}

static void every_case(void **state)
{
    (void)state;
    const slr_devices_config config = {.cpu_features = slr_cpu_features(), .backend = "cpu"};
    const slr_checkpoint_config model = {.predict = -1};
    slr_devices *devices;
    slr_checkpoint *base;
    slr_generator *gen;
    golden g = golden_open(SAMPLERS);
    json_t *cases;
    int bad = 0;
    const char *text = slr_safetensors_meta(g.file, "cases");
    ok(slr_devices_open(&devices, &config));
    ok(slr_checkpoint_open(&base, TINYSD, &model));
    ok(slr_generator_new(&gen, slr_checkpoint_mem(base), (slr_log){0}, base, NULL, NULL, devices,
                         NULL));
    ok(slr_json_parse(&cases, text, strlen(text), SAMPLERS));
    for (size_t i = 0; i < json_array_size(cases); i++) {
        const json_t *o = json_array_get(cases, i);
        slr_request r = request_of(o);
        slr_picture picture;
        char name[32];
        snprintf(name, sizeof name, "run.%zu", i);
        float *want = golden_nhwc(&g, name, NULL);
        ok(slr_generator_run(gen, &r, &picture));
        golden_error e = golden_compare(picture.latents, want, 8 * 8 * 4);
        char *line = json_dumps(o, JSON_COMPACT | JSON_REAL_PRECISION(6));
        print_message("%.2g  %s\n", e.l2, line);
        free(line);
        bad += !(e.l2 <= (strncmp(r.set.sampler, "DPM ", 4) ? TOL_LATENTS : TOL_FIRST));
        slr_free(NULL, want);
        slr_picture_free(slr_checkpoint_mem(base), &picture);
    }
    assert_true(json_array_size(cases) >= 34);
    assert_int_equal(bad, 0);
    json_decref(cases);
    slr_generator_free(gen);
    slr_checkpoint_unref(base);
    slr_devices_unref(devices);
    golden_close(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_case)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
