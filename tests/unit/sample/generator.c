/* SPDX-License-Identifier: MIT */
/* Generators on tinysd: what is kept between runs, cancelling, seeds, sizes, networks by tag, and
 * failures that leave nothing behind. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sdlora/version.h>

#include "backend/registry.h"
#include "base/clock.h"
#include "base/cpu.h"
#include "base/status.h"
#include "models/checkpoint.h"
#include "models/vae.h"
#include "sample/generator.h"

#define TINYSD    TEST_ROOT "/../examples/data/tinysd/tinysd.safetensors"
#define LORA      TEST_ROOT "/data/torch-openmoji-lora.safetensors" /* without a hash inside */
#define HYPERNETS TEST_ROOT "/golden/hypernet/"

enum { BYTES = 64 * 64 * 3 };

/* Counts blocks, and refuses one. */
typedef struct hooks {
    long calls, fail_at, live;
} hooks;

static void *hook_alloc(void *user, size_t bytes)
{
    hooks *h = user;
    if (++h->calls == h->fail_at)
        return NULL;
    h->live++;
    return malloc(bytes);
}

static void *hook_realloc(void *user, void *p, size_t bytes)
{
    hooks *h = user;
    if (++h->calls == h->fail_at)
        return NULL;
    h->live += !p;
    return realloc(p, bytes);
}

static void hook_free(void *user, void *p)
{
    ((hooks *)user)->live -= p != NULL;
    free(p);
}

typedef struct world {
    hooks h;
    slr_mem *m;
    slr_devices *devices;
    slr_checkpoint *base;
    slr_generator *gen;
} world;

static void ok(int rc)
{
    if (rc < 0)
        fail_msg("%s (%s)", sdlora_last_error()->message, sdlora_last_error()->where);
}

static int make_world(world *w, int threads, int predict)
{
    const slr_mem_hooks table = {hook_alloc, hook_realloc, hook_free, &w->h};
    SLR_TRY(slr_mem_new(&w->m, &table, 0));
    const slr_devices_config config = {
        .mem = w->m, .threads = threads, .cpu_features = slr_cpu_features(), .backend = "cpu"};
    const slr_checkpoint_config model = {.mem = w->m, .predict = predict};
    SLR_TRY(slr_devices_open(&w->devices, &config));
    SLR_TRY(slr_checkpoint_open(&w->base, TINYSD, &model));
    return slr_generator_new(&w->gen, w->m, (slr_log){0}, w->base, NULL, NULL, w->devices, NULL);
}

static void end_world(world *w)
{
    slr_generator_free(w->gen);
    slr_checkpoint_unref(w->base);
    slr_devices_unref(w->devices);
    slr_mem_unref(w->m);
    assert_int_equal(w->h.live, 0);
}

static world common;

static int setup(void **state)
{
    (void)state;
    return make_world(&common, 2, -1);
}

static int teardown(void **state)
{
    (void)state;
    end_world(&common);
    return 0;
}

static slr_request request(const char *prompt)
{
    slr_request r = {0};
    slr_settings_read(&r.set, (slr_opt){NULL, "generate"});
    r.set.prompt = prompt;
    r.set.steps = 4;
    r.set.width = r.set.height = 64;
    r.set.seed = 5;
    return r;
}

/* One picture's bytes; the text and latents are given back. */
static void render(world *w, const slr_request *r, uint8_t bytes[BYTES])
{
    slr_picture p;
    ok(slr_generator_run(w->gen, r, &p));
    assert_int_equal(p.pixels.width * p.pixels.height * 3, BYTES);
    memcpy(bytes, p.pixels.data, BYTES);
    slr_picture_free(w->m, &p);
}

/* The run fails with this code, and the sentence has these words. */
static void refused(world *w, const slr_request *r, int code, const char *words)
{
    slr_picture p[3];
    assert_int_equal(slr_generator_run(w->gen, r, p), code);
    if (!strstr(sdlora_last_error()->message, words))
        fail_msg("'%s' is not in: %s", words, sdlora_last_error()->message);
    for (int k = 0; k < r->set.count && k < 3; k++)
        assert_null(p[k].pixels.data);
}

/* --- what is kept --- */

static void a_second_run_plans_nothing(void **state)
{
    (void)state;
    world w = {0};
    uint8_t one[BYTES], two[BYTES];
    ok(make_world(&w, 2, -1));
    slr_request r = request("red apple, fruit");
    double t0 = slr_clock();
    render(&w, &r, one);
    double t1 = slr_clock();
    uint64_t peak = slr_mem_peak(w.m), used = slr_mem_used(w.m);
    long calls = w.h.calls;
    render(&w, &r, two);
    double t2 = slr_clock();
    print_message("first %.0f ms, second %.0f ms, %ld blocks more\n", 1e3 * (t1 - t0),
                  1e3 * (t2 - t1), w.h.calls - calls);
    assert_memory_equal(one, two, BYTES);
    assert_int_equal(slr_mem_peak(w.m), peak);
    assert_int_equal(slr_mem_used(w.m), used);
    assert_true(w.h.calls - calls < 200); /* a graph alone takes thousands */
    end_world(&w);
}

static int cancel_at(void *user, const slr_run_progress *p)
{
    if (p->step == 3)
        *(slr_cancel_flag *)user = 1;
    return 0;
}

static int stop_at(void *user, const slr_run_progress *p)
{
    return p->step == *(int *)user;
}

static void cancelled_runs_leave_no_trace(void **state)
{
    (void)state;
    uint8_t fresh[BYTES], after[BYTES];
    slr_cancel_flag flag = 0;
    int third = 3;
    world w = {0};
    slr_request r = request("penguin, bird");
    render(&common, &r, fresh);
    ok(make_world(&w, 2, -1));
    r.cancel = &flag;
    r.progress = cancel_at;
    r.progress_user = &flag;
    refused(&w, &r, SDLORA_ECANCELED, "");
    flag = 0;
    r.progress = stop_at;
    r.progress_user = &third;
    refused(&w, &r, SDLORA_ECANCELED, "progress");
    r.progress = NULL;
    render(&w, &r, after);
    assert_memory_equal(fresh, after, BYTES);
    end_world(&w);
}

/* --- seeds, sizes, prompts --- */

static void three_are_three_single_ones(void **state)
{
    (void)state;
    slr_picture p[3];
    uint8_t single[BYTES];
    slr_request r = request("red apple, fruit");
    r.set.count = 3;
    r.set.seed = (int64_t)1 << 40;
    ok(slr_generator_run(common.gen, &r, p));
    r.set.count = 1;
    for (int k = 0; k < 3; k++, r.set.seed++) {
        render(&common, &r, single);
        assert_memory_equal(single, p[k].pixels.data, BYTES);
        assert_int_equal(p[k].seed, r.set.seed);
        assert_true(k == 0 || memcmp(p[0].pixels.data, single, BYTES));
    }
    for (int k = 0; k < 3; k++)
        slr_picture_free(common.m, &p[k]);
}

static void a_negative_seed_is_random(void **state)
{
    (void)state;
    slr_picture a, b;
    uint8_t again[BYTES];
    char text[40];
    slr_request r = request("red apple, fruit");
    r.set.seed = -1;
    ok(slr_generator_run(common.gen, &r, &a));
    ok(slr_generator_run(common.gen, &r, &b));
    assert_true(a.seed >= 0 && b.seed >= 0 && a.seed != b.seed);
    snprintf(text, sizeof text, ", Seed: %lld,", (long long)a.seed);
    assert_non_null(strstr(a.infotext, text));
    r.set.seed = a.seed;
    render(&common, &r, again);
    assert_memory_equal(a.pixels.data, again, BYTES);
    slr_picture_free(common.m, &a);
    slr_picture_free(common.m, &b);
}

static void wrong_requests_are_told(void **state)
{
    (void)state;
    static const int sizes[][2] = {{63, 64}, {64, 65}, {0, 64}, {-64, 64}, {64, 56}, {524288, 64}};
    slr_request r = request("a");
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        char words[32];
        snprintf(words, sizeof words, "%dx%d", sizes[i][0], sizes[i][1]);
        r.set.width = sizes[i][0];
        r.set.height = sizes[i][1];
        refused(&common, &r, SDLORA_EINVAL, words);
    }
    r = request("a");
    r.set.steps = 0;
    refused(&common, &r, SDLORA_EINVAL, "steps 0");
    r = request("a");
    r.set.count = 0;
    refused(&common, &r, SDLORA_EINVAL, "count 0");
    r = request("a");
    r.set.subseed_strength = 0.5;
    r.set.seed_from_w = 64;
    r.set.seed_from_h = 8; /* a column of one latent has no angle */
    refused(&common, &r, SDLORA_EINVAL, "64x8");
    r.set.seed_from_h = 15;
    refused(&common, &r, SDLORA_EINVAL, "64x15");
    r = request("a");
    r.set.count = 2;
    r.set.seed = INT64_MAX;
    refused(&common, &r, SDLORA_EINVAL, "seed");
    r = request("a");
    r.set.sampler = "Euler z";
    refused(&common, &r, SDLORA_ENOTSUP, "Euler z");
    r = request("a");
    r.set.scheduler = "Bent";
    refused(&common, &r, SDLORA_ENOTSUP, "Bent");
    r = request("a <hypernet:h:1>");
    refused(&common, &r, SDLORA_ENOTFOUND, "<hypernet:h>");
}

static void prompts_of_other_lengths(void **state)
{
    (void)state;
    char text[256] = "";
    uint8_t longer[BYTES], plain[BYTES], skipped[BYTES];
    for (int i = 0; i < 80; i++)
        strcat(text, "a ");
    slr_request r = request(text);
    render(&common, &r, longer);
    r.set.cfg = 1; /* the unconditional part cancels: only rounding is left of it */
    r.set.prompt = "red apple";
    render(&common, &r, plain);
    r.set.negative = text;
    render(&common, &r, longer);
    for (int i = 0; i < BYTES; i++)
        assert_true(abs(longer[i] - plain[i]) <= 2);
    r.set.clip_skip = 2;
    render(&common, &r, skipped);
    assert_memory_not_equal(skipped, longer, BYTES);
}

static void threads_do_not_show(void **state)
{
    (void)state;
    uint8_t want[BYTES], got[BYTES];
    slr_request r = request("red apple, fruit");
    render(&common, &r, want);
    for (int threads = 1; threads <= 3; threads += 2) {
        world w = {0};
        ok(make_world(&w, threads, -1));
        render(&w, &r, got);
        assert_memory_equal(want, got, BYTES);
        end_world(&w);
    }
}

/* --- networks --- */

/* A network whose weights all are of this size. */
static slr_network *network_of(world *w, float scale)
{
    slr_network *n;
    sdlora_options *none = NULL;
    ok(slr_network_make(&n, w->base, none, 3));
    float *x = slr_network_params(n);
    for (size_t i = 0; i < slr_network_slots(n); i++) {
        const slr_network_slot *s = slr_network_slot_at(n, i);
        for (size_t k = 0; k < s->count; k++)
            x[s->offset + k] = scale * (float)sin(0.7 * (double)k + (double)i);
    }
    return n;
}

static int find(void *user, const char *kind, const char *name, slr_network **out)
{
    if (strcmp(name, "style") || strcmp(kind, "lora"))
        return slr_fail(SDLORA_ENOTFOUND, __func__, "no network is called '%s'", name);
    *out = slr_network_ref(user);
    return SDLORA_OK;
}

static void tags_are_networks(void **state)
{
    (void)state;
    uint8_t plain[BYTES], tag[BYTES], item[BYTES], other[BYTES];
    slr_network *n = network_of(&common, 0.05f);
    slr_request r = request("red , apple");
    render(&common, &r, plain);
    const slr_stack_item items[] = {{n, 0.5, 0.25, 0, {0}}};
    r.networks = items;
    r.n_networks = 1;
    render(&common, &r, item);
    r = request("red <lora:style:0.5:0.25>, apple");
    refused(&common, &r, SDLORA_ENOTFOUND, "style");
    slr_generator_set_finder(common.gen, find, n);
    render(&common, &r, tag);
    assert_memory_equal(tag, item, BYTES);
    assert_memory_not_equal(tag, plain, BYTES);
    r.set.prompt = "red <lora:style:0.5:0.5>, apple";
    render(&common, &r, other);
    assert_memory_not_equal(tag, other, BYTES);
    r.set.prompt =
        "red <lora:style:1:0.25>, apple"; /* the same UNet, other states of the same text */
    render(&common, &r, other);
    assert_memory_not_equal(tag, other, BYTES);
    r.set.prompt = "red <lora:nobody:1>, apple";
    refused(&common, &r, SDLORA_ENOTFOUND, "nobody");
    r.set.prompt = "red <foo:bar><lora:style:x>, apple"; /* both are skipped */
    render(&common, &r, other);
    assert_memory_equal(plain, other, BYTES);
    slr_generator_set_finder(common.gen, NULL, NULL);
    slr_network_unref(n);
}

typedef struct pair {
    slr_network *lora, *hyper;
} pair;

static int find_either(void *user, const char *kind, const char *name, slr_network **out)
{
    pair *p = user;
    assert_true(!strcmp(kind, "lora") || !strcmp(kind, "hypernet"));
    *out = slr_network_ref(!strcmp(name, "style") ? p->lora : p->hyper);
    return SDLORA_OK;
}

/* By tag and by request they do the same, alone, one after the other and beside a LoRA; a tag's
 * strength stands in the prompt, a request's in the parameters. */
static void hypernets_are_networks(void **state)
{
    (void)state;
    uint8_t plain[BYTES], tag[BYTES], item[BYTES], other[BYTES];
    slr_picture p;
    slr_network *a, *b, *lora = network_of(&common, 0.05f);
    ok(slr_network_open(&a, common.m, common.base, HYPERNETS "relu.pt"));
    ok(slr_network_open(&b, common.m, common.base, HYPERNETS "deep.pt"));
    pair both = {lora, a};
    slr_request r = request("red , apple");
    render(&common, &r, plain);
    slr_generator_set_finder(common.gen, find_either, &both);
    r.set.prompt = "red <hypernet:relu:0.4>, apple";
    render(&common, &r, tag);
    ok(slr_generator_run(common.gen, &r, &p));
    assert_null(strstr(p.infotext, "Hypernet:"));
    slr_picture_free(common.m, &p);
    const slr_stack_item items[] = {
        {a, 1, 0.4, 0, {0}}, {b, 1, 0.7, 0, {0}}, {lora, 0.5, 0.5, 0, {0}}};
    r.set.prompt = "red , apple";
    r.networks = items;
    r.n_networks = 1;
    render(&common, &r, item);
    assert_memory_equal(tag, item, BYTES);
    assert_memory_not_equal(tag, plain, BYTES);
    ok(slr_generator_run(common.gen, &r, &p));
    assert_non_null(
        strstr(p.infotext, "Hypernet: relu, Hypernet hash: ")); /* 10 digits of its SHA-256 */
    assert_non_null(strstr(p.infotext, ", Hypernet strength: 0.4"));
    slr_picture_free(common.m, &p);
    r.n_networks = 3;
    render(&common, &r, item);
    both.hyper = b;
    r.n_networks = 1;
    r.set.prompt = "red <hypernet:deep:0.7><lora:style:0.5>, apple";
    render(&common, &r, other);
    assert_memory_equal(item, other, BYTES);
    r.n_networks = 0;
    r.set.prompt = "red <hypernet:deep:0>, apple";
    render(&common, &r, other);
    assert_memory_equal(plain, other, BYTES);
    r.set.prompt = "red <lora:deep:1>, apple";
    refused(&common, &r, SDLORA_EINVAL, "is a hypernetwork");
    r.set.prompt = "red <hypernet:style:1>, apple";
    refused(&common, &r, SDLORA_EINVAL, "not a hypernetwork");
    slr_generator_set_finder(common.gen, NULL, NULL);
    slr_network_unref(a);
    slr_network_unref(b);
    slr_network_unref(lora);
}

/* Every field in the original's order: sha256 of the model's file cut to ten digits, of the
 * network's tensors to twelve. */
static void parameters_text(void **state)
{
    (void)state;
    slr_picture p;
    slr_network *n;
    ok(slr_network_open(&n, common.m, common.base, LORA));
    const slr_stack_item items[] = {{n, 1, 1, 0, {0}}};
    slr_request r = request("red apple\n(fruit:1.2)");
    r.set.negative = "food";
    r.set.cfg = 7.5;
    r.set.clip_skip = 2;
    r.set.eta = 0.5;
    r.networks = items;
    r.n_networks = 1;
    ok(slr_generator_run(common.gen, &r, &p));
    assert_string_equal(p.infotext,
                        "<lora:torch-openmoji-lora:1>red apple\n(fruit:1.2)\nNegative prompt: "
                        "food\nSteps: 4, Sampler: Euler a, "
                        "Schedule type: Automatic, CFG scale: 7.5, Seed: 5, Size: 64x64, Model "
                        "hash: 48dc8ae778, Model: tinysd, Clip skip: 2, RNG: CPU, Lora hashes: "
                        "\"torch-openmoji-lora: 605d96dc2092\", Eta: 0.5, Version: "
                        "libsdlora-" SDLORA_VERSION_STRING);
    slr_picture_free(common.m, &p);
    slr_network_unref(n);
}

static void what_is_not_finite_is_told(void **state)
{
    (void)state;
    uint8_t before[BYTES], after[BYTES];
    slr_request r = request("red apple");
    render(&common, &r, before);
    slr_network *n = network_of(&common, 1e30f);
    const slr_stack_item items[] = {{n, 0, 1, 0, {0}}};
    r.networks = items;
    r.n_networks = 1;
    refused(&common, &r, SDLORA_ENAN, "finite");
    r.n_networks = 0;
    render(&common, &r, after);
    assert_memory_equal(before, after, BYTES);
    slr_network_unref(n);
}

/* --- prediction of v --- */

static int keep_denoised(void *user, const slr_run_progress *p)
{
    if (p->x0)
        memcpy(user, p->x0, sizeof(float) * 8 * 8 * 4);
    return 0;
}

/* One step of Euler at sigma from the same noise: D = x - sigma m where m is eps, and D =
 * x/(sigma^2+1) - sigma m/sqrt(sigma^2+1) where it is v; both see the same output m. */
static void v_is_read_as_v(void **state)
{
    (void)state;
    enum { FLOATS = 8 * 8 * 4 };
    float noise[FLOATS], eps[FLOATS], v[FLOATS], picture[BYTES];
    slr_schedule table;
    world w = {0};
    slr_request r = request("red apple");
    slr_schedule_init(&table);
    double sigma = table.sigma[SLR_TIMESTEPS - 1], c = 1 / sqrt(sigma * sigma + 1);
    for (int i = 0; i < FLOATS; i++)
        noise[i] = (float)sin(0.9 * i); /* NCHW */
    r.latents_in = noise;
    r.set.steps = 1;
    r.set.sampler = "Euler";
    r.progress = keep_denoised;
    r.progress_user = eps;
    render(&common, &r, (uint8_t *)picture);
    ok(make_world(&w, 2, SLR_PREDICT_V));
    r.progress_user = v;
    render(&w, &r, (uint8_t *)picture);
    for (int i = 0; i < FLOATS; i++) {
        double x = sigma * noise[i % 4 * 64 + i / 4], m = (x - eps[i]) / sigma;
        /* m comes back from a difference of numbers of size sigma */
        assert_true(fabs(v[i] - (x * c * c - sigma * c * m)) < 1e-5);
    }
    end_world(&w);
}

/* --- memory --- */

/* A warm generator and a new prompt: every block that the run itself asks for is refused in turn;
 * the same generator then makes what a fresh one makes.  (Planning is the graph's to test.) */
static void refused_memory_leaks_nothing(void **state)
{
    (void)state;
    world w = {0};
    slr_picture p;
    uint8_t want[BYTES], got[BYTES];
    int failed = 0, rc = SDLORA_ENOMEM;
    slr_request r = request("penguin");
    r.set.steps = 2;
    render(&common, &r, want);
    ok(make_world(&w, 2, -1));
    r.set.prompt = "red apple";
    render(&w, &r, got);
    r.set.prompt = "<foo:bar> penguin";
    for (int n = 1; rc == SDLORA_ENOMEM && n < 1000; n++) {
        w.h.fail_at = w.h.calls + n;
        rc = slr_generator_run(w.gen, &r, &p);
        failed += rc == SDLORA_ENOMEM;
        assert_true(rc >= 0 || !p.pixels.data);
    }
    w.h.fail_at = 0;
    ok(rc);
    print_message("%d blocks refused\n", failed);
    assert_true(failed > 20);
    assert_memory_equal(p.pixels.data, want, BYTES);
    slr_picture_free(w.m, &p);
    end_world(&w);
}

/* The picture is what the autoencoder makes of its latents in tiles. */
static void large_pictures_come_in_tiles(void **state)
{
    enum { WIDE = 576, TALL = 64, N = WIDE * TALL * 3 };
    slr_request r = request("red apple");
    slr_picture whole, tiled;
    slr_vae_runner *v;
    uint8_t bytes[2][BYTES];
    float *want = malloc(N * sizeof *want);
    int worst = 0;
    (void)state;
    for (int i = 0; i < 2; i++) { /* of one tile: the same */
        r.vae_tiling = i;
        render(&common, &r, bytes[i]);
    }
    assert_memory_equal(bytes[0], bytes[1], BYTES);
    r.set.width = WIDE;
    r.set.steps = 1;
    ok(slr_generator_run(common.gen, &r, &tiled));
    r.vae_tiling = false;
    ok(slr_generator_run(common.gen, &r, &whole));
    assert_memory_equal(whole.latents, tiled.latents, WIDE / 8 * (TALL / 8) * 4 * sizeof *want);
    assert_memory_not_equal(whole.pixels.data, tiled.pixels.data, N);
    ok(slr_vae_runner_new(&v, slr_checkpoint_part(common.base, SLR_PART_VAE),
                          slr_checkpoint_family(common.base), common.devices));
    ok(slr_vae_runner_set_tiling(v, 64));
    ok(slr_vae_decode(v, tiled.latents, 1, TALL / 8, WIDE / 8, want, NULL));
    for (int i = 0; i < N; i++) {
        float x = fminf(fmaxf((want[i] + 1) / 2, 0), 1) * 255;
        int off = (int)fabsf(x - tiled.pixels.data[i]); /* whole steps: rounding is not judged */
        worst = off > worst ? off : worst;
    }
    assert_int_equal(worst, 0);
    slr_vae_runner_free(v);
    slr_picture_free(common.m, &whole);
    slr_picture_free(common.m, &tiled);
    free(want);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_second_run_plans_nothing),
        cmocka_unit_test(cancelled_runs_leave_no_trace),
        cmocka_unit_test(three_are_three_single_ones),
        cmocka_unit_test(large_pictures_come_in_tiles),
        cmocka_unit_test(a_negative_seed_is_random),
        cmocka_unit_test(wrong_requests_are_told),
        cmocka_unit_test(prompts_of_other_lengths),
        cmocka_unit_test(threads_do_not_show),
        cmocka_unit_test(tags_are_networks),
        cmocka_unit_test(hypernets_are_networks),
        cmocka_unit_test(parameters_text),
        cmocka_unit_test(what_is_not_finite_is_told),
        cmocka_unit_test(v_is_read_as_v),
        cmocka_unit_test(refused_memory_leaks_nothing),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
