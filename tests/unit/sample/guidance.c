/* SPDX-License-Identifier: MIT */
/* What surrounds a sampler, against AUTOMATIC1111 on tinysd (tests/golden/guidance.safetensors):
 * AND, padding, skipped negative prompts, rescaling, editing, random numbers, schedules' settings,
 * v-prediction, zero terminal SNR, the refiner.  Each case names its options, which are set as a
 * caller sets them. */
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

#define TINYSD     TEST_ROOT "/../examples/data/tinysd/tinysd.safetensors"
#define GUIDANCE   TEST_ROOT "/golden/guidance.safetensors"
#define GENERATION TEST_ROOT "/golden/generation.safetensors"

/* A dozen evaluations at a guidance of 7 amplify rounding in the last bit of f32: 3e-6 where it is
 * amplified least, 4e-5 with the levels that Brownian noise and zero terminal SNR begin at. */
#define TOL_LATENTS 1e-4

enum { MAX_MODELS = 12 };

/* What cases are drawn with, made when it is asked for first. */
typedef struct model {
    char arch[32]; /* "": tinysd */
    bool v;
    slr_checkpoint *base;
    slr_generator *gen;
} model;

static slr_devices *devices;
static model models[MAX_MODELS];
static int n_models;

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
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    for (int i = 0; i < n_models; i++) {
        slr_generator_free(models[i].gen);
        slr_checkpoint_unref(models[i].base);
    }
    slr_devices_unref(devices);
    return 0;
}

static model *model_of(const char *arch, bool v)
{
    const slr_checkpoint_config config = {.predict = v ? SLR_PREDICT_V : SLR_PREDICT_EPS};
    for (int i = 0; i < n_models; i++)
        if (!strcmp(models[i].arch, arch) && models[i].v == v)
            return &models[i];
    assert_true(n_models < MAX_MODELS);
    model *m = &models[n_models++];
    snprintf(m->arch, sizeof m->arch, "%s", arch);
    m->v = v;
    if (*arch)
        ok(slr_checkpoint_synthetic(&m->base, arch, SDLORA_F32, 0, &config));
    else
        ok(slr_checkpoint_open(&m->base, TINYSD, &config));
    ok(slr_generator_new(&m->gen, NULL, (slr_log){0}, m->base, NULL, NULL, devices, NULL));
    return m;
}

/* true: the same weights, taken for v; or an architecture. */
static slr_checkpoint *refiner_of(json_t *value)
{
    if (!value)
        return NULL;
    return model_of(json_is_string(value) ? json_string_value(value) : "", json_is_true(value))
        ->base;
}

static json_t *meta_json(const golden *g, const char *key)
{
    json_t *root;
    const char *text = slr_safetensors_meta(g->file, key);
    assert_non_null(text);
    ok(slr_json_parse(&root, text, strlen(text), key));
    return root;
}

/* Sets what is an option; what names the model is none. */
static void set_options(sdlora_options *o, json_t *object)
{
    const char *key;
    json_t *value;
    json_object_foreach(object, key, value)
    {
        if (!strcmp(key, "v") || !strcmp(key, "refiner") || !strcmp(key, "arch"))
            continue;
        if (json_is_string(value))
            ok(slr_options_set_text(o, key, json_string_value(value)));
        else if (json_is_real(value))
            ok(slr_options_set_real(o, key, json_real_value(value)));
        else
            ok(slr_options_set_int(
                o, key, json_is_integer(value) ? json_integer_value(value) : json_is_true(value)));
    }
}

static double error_of(const golden *g, const char *name, json_t *common, json_t *changes)
{
    json_t *arch = json_object_get(changes, "arch");
    sdlora_options *o;
    slr_request r = {0};
    slr_picture p;
    char key[128];
    slr_tensor t;
    ok(slr_options_new(&o, NULL, "generate"));
    set_options(o, common);
    set_options(o, changes);
    slr_settings_read(&r.set, (slr_opt){o, "generate"});
    model *m =
        model_of(arch ? json_string_value(arch) : "", json_is_true(json_object_get(changes, "v")));
    ok(slr_generator_set_model(m->gen, SLR_ROLE_REFINER,
                               refiner_of(json_object_get(changes, "refiner"))));
    ok(slr_generator_run(m->gen, &r, &p));
    snprintf(key, sizeof key, "%s.latents", name);
    float *want = golden_nhwc(g, key, &t);
    assert_int_equal(p.h * p.w * p.c, slr_tensor_count(&t));
    golden_error e = golden_compare(p.latents, want, (size_t)slr_tensor_count(&t));
    slr_free(NULL, want);
    slr_picture_free(NULL, &p);
    slr_options_unref(o);
    return e.l2;
}

static void check_file(const char *path, size_t n)
{
    golden g = golden_open(path);
    json_t *common = meta_json(&g, "common"), *cases = meta_json(&g, "cases"), *changes;
    const char *name;
    int bad = 0;
    json_object_foreach(cases, name, changes)
    {
        double e = error_of(&g, name, common, changes);
        print_message("%-20s %.2g\n", name, e);
        bad += !(e <= TOL_LATENTS);
    }
    assert_true(json_object_size(cases) >= n);
    json_decref(common);
    json_decref(cases);
    golden_close(&g);
    assert_int_equal(bad, 0);
}

static void settings_of_tinysd(void **state)
{
    (void)state;
    check_file(GUIDANCE, 45);
}

static void other_families(void **state)
{
    (void)state;
    check_file(GENERATION, 11);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(settings_of_tinysd),
                                       cmocka_unit_test(other_families)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
