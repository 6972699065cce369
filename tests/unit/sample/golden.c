/* SPDX-License-Identifier: MIT */
/* txt2img against AUTOMATIC1111 over k-diffusion on tinysd (tests/golden/sampler.safetensors):
 * schedules, starting noise, final latents and pictures of every sampler and schedule that there
 * is; and emphasised text states. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "backend/registry.h"
#include "base/cpu.h"
#include "golden_test.h"
#include "models/checkpoint.h"
#include "sample/conds.h"
#include "sample/generator.h"

#define TINYSD  TEST_ROOT "/../examples/data/tinysd/tinysd.safetensors"
#define SAMPLER TEST_ROOT "/golden/sampler.safetensors"
#define STATES  TEST_ROOT "/golden/emphasis.safetensors"

/* Twenty evaluations amplify rounding; measured up to 5e-6, and 1 in a pixel where truncation
 * flips. */
#define TOL_LATENTS 5e-5
#define TOL_PIXEL   2 /* of 255, everywhere */
#define TOL_SIGMA   2e-6
#define TOL_STATES  4e-5 /* as the text encoder by itself */

static slr_devices *devices;
static slr_checkpoint *base;
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
    g = golden_open(SAMPLER);
    return g.file ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    golden_close(&g);
    slr_checkpoint_unref(base);
    slr_devices_unref(devices);
    return 0;
}

/* "Euler a|Karras|20|1.latents" */
static bool split_key(const char *key, char sampler[64], char scheduler[64], int *steps,
                      long long *seed)
{
    return sscanf(key, "%63[^|]|%63[^|]|%d|%lld.latents", sampler, scheduler, steps, seed) == 4 &&
           strstr(key, ".latents");
}

static int worst_pixel(const uint8_t *nchw, const uint8_t *got)
{
    int worst = 0;
    for (int c = 0; c < 3; c++)
        for (int i = 0; i < 64 * 64; i++)
            worst = (int)fmax(worst, abs(nchw[c * 4096 + i] - got[i * 3 + c]));
    return worst;
}

static void check_case(slr_generator *gen, const char *key, const char *sampler,
                       const char *scheduler, int steps, long long seed)
{
    char name[192];
    slr_tensor image;
    slr_picture picture;
    slr_request request = {0};
    slr_settings_read(&request.set, (slr_opt){NULL, "generate"});
    request.set.prompt = seed == 1 ? "red apple, fruit" : "penguin, bird";
    request.set.negative = seed == 1 ? "" : "food";
    request.set.sampler = sampler;
    request.set.scheduler = strcmp(sampler, "DDIM") ? scheduler : "Automatic";
    request.set.steps = steps;
    request.set.width = request.set.height = 64;
    request.set.seed = seed;
    ok(slr_generator_run(gen, &request, &picture));
    float *want = golden_nhwc(&g, key, NULL);
    golden_error e = golden_compare(picture.latents, want, 8 * 8 * 4);
    snprintf(name, sizeof name, "%.*s.image", (int)(strlen(key) - strlen(".latents")), key);
    assert_true(slr_safetensors_find(g.file, name, &image));
    int pixel = worst_pixel(image.data, picture.pixels.data);
    print_message("%-28s latents %.2g, worst pixel %d\n", key, e.l2, pixel);
    assert_true(e.l2 <= TOL_LATENTS);
    assert_true(pixel <= TOL_PIXEL);
    slr_free(NULL, want);
    slr_picture_free(slr_checkpoint_mem(base), &picture);
}

static void samplers(void **state)
{
    (void)state;
    int n = 0;
    slr_generator *gen;
    ok(slr_generator_new(&gen, slr_checkpoint_mem(base), (slr_log){0}, base, NULL, NULL, devices,
                         NULL));
    for (size_t i = 0; i < slr_safetensors_count(g.file); i++) {
        slr_tensor t;
        char sampler[64], scheduler[64];
        int steps;
        long long seed;
        const char *key = slr_safetensors_at(g.file, i, &t);
        if (!split_key(key, sampler, scheduler, &steps, &seed))
            continue;
        check_case(gen, key, sampler, scheduler, steps, seed);
        n++;
    }
    assert_true(n >= 28); /* 3 samplers x 2 schedules + DDIM, 2 seeds, 2 lengths */
    slr_generator_free(gen);
}

static void schedules(void **state)
{
    (void)state;
    size_t n;
    slr_schedule s;
    const slr_scheduler_row *row = slr_schedulers(&n);
    slr_schedule_init(&s);
    for (size_t i = 0; i < n; i++)
        for (int steps = 10; steps <= 20; steps += 10) {
            char name[64];
            double sigma[SLR_MAX_SIGMAS];
            const slr_sigma_config config = {.steps = steps};
            int count;
            slr_tensor t;
            snprintf(name, sizeof name, "sched.%s.%d", row[i].name, steps);
            float *want = golden_f32(&g, name, &t);
            ok(slr_sigmas(slr_sampler_find("Euler"), &row[i], &s, &config, sigma, &count));
            assert_int_equal(count, t.dim[0]);
            for (int k = 0; k < count; k++)
                assert_true(fabs(sigma[k] - want[k]) <= TOL_SIGMA * want[k]);
            slr_free(NULL, want);
        }
}

/* Mode Original on the prompts that the file names. */
static void emphasis(void **state)
{
    (void)state;
    golden file = golden_open(STATES);
    static const char *const prompts[] = {
        "(red apple:1.4), fruit", "[penguin], ((bird)), (smiling face with sunglasses:0.7)"};
    slr_bpe *bpe;
    slr_engine *e;
    slr_conds *c;
    ok(slr_bpe_new(&bpe, slr_checkpoint_mem(base)));
    ok(slr_engine_new(&e, slr_checkpoint_mem(base), base, devices));
    ok(slr_conds_new(&c, slr_checkpoint_mem(base), e, bpe));
    for (int i = 0; i < 2; i++)
        for (int skip = 1; skip <= 2; skip++) {
            char name[32];
            slr_tensor t;
            slr_cond states;
            const slr_cond_config config = {.clip_skip = skip, .backtrack = 20};
            snprintf(name, sizeof name, skip == 1 ? "%d.Original" : "%d.skip2", i);
            float *want = golden_f32(&file, name, &t);
            ok(slr_conds_get(c, &prompts[i], 1, &config, NULL, &states));
            assert_int_equal(states.tokens, 77);
            assert_true(golden_close_to(name, states.states, want, (size_t)slr_tensor_count(&t),
                                        TOL_STATES));
            slr_free(NULL, want);
        }
    slr_conds_free(c);
    slr_engine_free(e);
    slr_bpe_unref(bpe);
    golden_close(&file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(schedules), cmocka_unit_test(emphasis),
                                       cmocka_unit_test(samplers)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
