/* SPDX-License-Identifier: MIT */
/* The random numbers of a picture against AUTOMATIC1111's (tests/golden/noise.safetensors): both
 * sources, variations, resized seeds, ENSD; Brownian paths against torchsde under k-diffusion;
 * NumPy's seeds from seeds. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/rng.h"
#include "golden_test.h"
#include "io/json.h"
#include "sample/noise.h"

#define NOISE TEST_ROOT "/golden/noise.safetensors"

/* Variations go through acos and sin in f32 there and doubles here. */
#define TOL_TURN 2e-6

static golden g;

static void ok(int rc)
{
    if (rc < 0)
        fail_msg("%s (%s)", sdlora_last_error()->message, sdlora_last_error()->where);
}

static int setup(void **state)
{
    (void)state;
    g = golden_open(NOISE);
    return g.file ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    golden_close(&g);
    return 0;
}

static json_t *list(const char *name)
{
    json_t *out;
    const char *text = slr_safetensors_meta(g.file, name);
    assert_non_null(text);
    ok(slr_json_parse(&out, text, strlen(text), NOISE));
    return out;
}

static int64_t whole(const json_t *o, const char *name)
{
    return json_integer_value(json_object_get(o, name));
}

static slr_noise_config config_of(const json_t *o)
{
    json_t *shape = json_object_get(o, "shape");
    return (slr_noise_config){
        .source = !strcmp(json_string_value(json_object_get(o, "source")), "NV") ? SLR_NOISE_NV
                                                                                 : SLR_NOISE_CPU,
        .seed = (uint64_t)whole(o, "seed"),
        .subseed = (uint64_t)whole(o, "subseed"),
        .strength = json_number_value(json_object_get(o, "strength")),
        .c = json_integer_value(json_array_get(shape, 0)),
        .h = json_integer_value(json_array_get(shape, 1)),
        .w = json_integer_value(json_array_get(shape, 2)),
        .from_h = whole(o, "h"),
        .from_w = whole(o, "w"),
        .ensd = whole(o, "ensd"),
    };
}

static void draws(void **state)
{
    (void)state;
    json_t *cases = list("cases");
    for (size_t i = 0; i < json_array_size(cases); i++) {
        slr_noise_config c = config_of(json_array_get(cases, i));
        size_t n = (size_t)(c.c * c.h * c.w);
        char name[32];
        slr_noise *s;
        slr_tensor t;
        snprintf(name, sizeof name, "draw.%zu", i);
        float *want = golden_f32(&g, name, &t), *got = slr_calloc(NULL, n, sizeof *got);
        assert_int_equal(t.dim[0], 4);
        ok(slr_noise_new(&s, NULL, &c));
        for (int k = 0; k < 4; k++) {
            ok(k ? slr_noise_next(s, got) : slr_noise_first(s, got));
            if (k || c.strength == 0) /* to the bit */
                assert_memory_equal(got, want + (size_t)k * n, n * sizeof *got);
            else
                assert_true(golden_close_to(name, got, want, n, TOL_TURN));
        }
        slr_noise_free(s);
        slr_free(NULL, got);
        slr_free(NULL, want);
    }
    assert_true(json_array_size(cases) >= 28);
    json_decref(cases);
}

/* Whatever the order of questions. */
static void paths(void **state)
{
    (void)state;
    json_t *trees = list("trees");
    for (size_t i = 0; i < json_array_size(trees); i++) {
        json_t *o = json_array_get(trees, i), *pairs = json_object_get(o, "pairs");
        slr_noise_config c = config_of(o);
        size_t n = (size_t)(c.c * c.h * c.w), count = json_array_size(pairs);
        char name[32];
        slr_noise *s;
        snprintf(name, sizeof name, "tree.%zu", i);
        float *want = golden_f32(&g, name, NULL), *got = slr_calloc(NULL, n, sizeof *got);
        ok(slr_noise_new(&s, NULL, &c));
        for (size_t round = 0; round < 3; round++) {
            if (round < 2) /* the same path again */
                ok(slr_noise_tree(s, (float)json_number_value(json_object_get(o, "lo")),
                                  (float)json_number_value(json_object_get(o, "hi"))));
            for (size_t j = 0; j < count; j++) {
                size_t k = round ? count - 1 - j : j;
                json_t *p = json_array_get(pairs, k);
                ok(slr_noise_between(s, (float)json_number_value(json_array_get(p, 0)),
                                     (float)json_number_value(json_array_get(p, 1)), got));
                assert_memory_equal(got, want + k * n, n * sizeof *got);
            }
        }
        slr_noise_free(s);
        slr_free(NULL, got);
        slr_free(NULL, want);
    }
    assert_true(json_array_size(trees) >= 6);
    json_decref(trees);
}

static void seeds_from_seeds(void **state)
{
    (void)state;
    json_t *words = list("words");
    for (size_t i = 0; i < json_array_size(words); i++) {
        json_t *o = json_array_get(words, i), *key = json_array_get(o, 1);
        uint64_t path[2] = {0};
        uint32_t got[4];
        for (size_t k = 0; k < json_array_size(key); k++)
            path[k] = (uint64_t)json_integer_value(json_array_get(key, k));
        slr_seed_sequence((uint64_t)json_integer_value(json_array_get(o, 0)), path,
                          json_array_size(key), got, 4);
        for (size_t k = 0; k < 4; k++)
            assert_int_equal(got[k], json_integer_value(json_array_get(json_array_get(o, 2), k)));
    }
    assert_true(json_array_size(words) >= 30);
    json_decref(words);
}

static void what_cannot_be(void **state)
{
    (void)state;
    slr_noise *s;
    slr_noise_config c = {.c = 4, .h = 8, .w = 8};
    float out[4 * 8 * 8];
    ok(slr_noise_new(&s, NULL, &c));
    assert_true(slr_noise_between(s, 2, 1, out) < 0); /* no path yet */
    assert_true(slr_noise_tree(s, 0, 1) < 0);
    assert_true(slr_noise_tree(s, 2, 1) < 0);
    assert_true(slr_noise_tree(s, NAN, 1) < 0);
    ok(slr_noise_tree(s, 3, 3)); /* one step: nobody asks */
    ok(slr_noise_between(s, 3, 3, out));
    assert_true(out[0] == 0);
    slr_noise_free(s);
    c.h = 0;
    assert_true(slr_noise_new(&s, NULL, &c) < 0);
    c.h = INT64_MAX;
    assert_true(slr_noise_new(&s, NULL, &c) < 0);
}

/* Thousands of numbers of a path have the variance of their lengths, and parts do not know each
 * other. */
static void path_statistics(void **state)
{
    (void)state;
    enum { SIDE = 64, N = 4 * SIDE * SIDE };
    static float a[N], b[N];
    const slr_noise_config c = {.seed = 11, .c = 4, .h = SIDE, .w = SIDE};
    slr_noise *s;
    double aa = 0, bb = 0, ab = 0;
    ok(slr_noise_new(&s, NULL, &c));
    ok(slr_noise_tree(s, 0.03, 14.6));
    ok(slr_noise_between(s, 5, 1.7, a));
    ok(slr_noise_between(s, 1.7, 0.4, b));
    for (int k = 0; k < N; k++) {
        aa += (double)a[k] * a[k] / N;
        bb += (double)b[k] * b[k] / N;
        ab += (double)a[k] * b[k] / N;
    }
    slr_noise_free(s);
    /* deviations of these sums are sqrt(2 / N) and sqrt(1 / N): 0.011, 0.008; five of them */
    assert_true(fabs(aa - 1) < 0.055);
    assert_true(fabs(bb - 1) < 0.055);
    assert_true(fabs(ab) < 0.04);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(seeds_from_seeds),
        cmocka_unit_test(draws),
        cmocka_unit_test(paths),
        cmocka_unit_test(what_cannot_be),
        cmocka_unit_test(path_statistics),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
