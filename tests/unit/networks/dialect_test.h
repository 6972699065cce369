/* SPDX-License-Identifier: MIT */
/* What the tests of other programs' files share: the small checkpoint in f32, what the writer's
 * program computes with each file (tests/golden/make_dialects.py), and a folder for an adapter. */
#ifndef DIALECT_TEST_H
#define DIALECT_TEST_H

#include "network_test.h"

#include "models/clip.h"

#define DIALECTS TEST_ROOT "/golden/dialects/"

/* A change is read off as the difference of two f32 weights, so it has their rounding: weights are
 * some ten times larger than changes.  Measured 2e-6 at worst. */
#define TOL_DELTA 2e-5
/* Sums of a whole pass in another order, both in f32.  Measured 8e-7. */
#define TOL_PASS 1e-5

static slr_devices *devices;
static slr_checkpoint *base;
static slr_weights *unet, *te; /* in f32 */
static golden expected;

static inline int setup(void **state)
{
    (void)state;
    const slr_devices_config config = {.cpu_features = slr_cpu_features(), .backend = "cpu"};
    ok(slr_devices_open(&devices, &config));
    ok(slr_checkpoint_open(&base, TINYSD, &CONFIG));
    unet = widened(slr_checkpoint_part(base, SLR_PART_UNET));
    te = widened(slr_checkpoint_part(base, SLR_PART_TE));
    expected = golden_open(DIALECTS "expected.safetensors");
    return expected.file ? 0 : -1;
}

static inline int teardown(void **state)
{
    (void)state;
    golden_close(&expected);
    slr_weights_unref(unet);
    slr_weights_unref(te);
    slr_checkpoint_unref(base);
    slr_devices_unref(devices);
    return 0;
}

/* ---- what a network does ---- */

static inline float *run(slr_graph *graph, slr_val y, const char *const *names,
                         const void *const *data, const size_t *bytes)
{
    slr_plan *p;
    slr_val v;
    slr_output(graph, y, "y");
    ok(slr_graph_status(graph));
    ok(slr_plan_new(&p, graph, devices));
    for (int i = 0; names[i]; i++) {
        ok(slr_plan_find(p, names[i], &v));
        memcpy(slr_plan_data(p, v), data[i], bytes[i]);
    }
    ok(slr_plan_run(p, NULL));
    ok(slr_plan_find(p, "y", &v));
    size_t n = 1;
    slr_shape s = slr_shape_of(graph, y);
    for (int i = 0; i < s.rank; i++)
        n *= (size_t)s.dim[i];
    float *out = slr_alloc(NULL, n * sizeof *out);
    memcpy(out, slr_plan_data(p, v), n * sizeof *out);
    slr_plan_free(p);
    slr_graph_free(graph);
    return out;
}

static inline float *text_states(slr_weights *w, slr_tensor *shape)
{
    slr_tensor t;
    slr_graph *graph;
    int32_t *ids = golden_i32(&expected, "ids", &t);
    ok(slr_graph_new(&graph, NULL, (slr_policy){.storage = SDLORA_F32}));
    slr_nn nn = {.g = graph, .w = w, .part = SLR_PART_TE};
    slr_val y = slr_clip_build(&nn, slr_checkpoint_family(base),
                               slr_input(graph, "ids", SDLORA_I32, 2, t.dim), 1);
    slr_shape s = slr_shape_of(graph, y);
    *shape = (slr_tensor){.rank = s.rank};
    memcpy(shape->dim, s.dim, sizeof s.dim);
    float *out = run(graph, y, (const char *[]){"ids", NULL}, (const void *[]){ids},
                     (size_t[]){slr_tensor_bytes(&t)});
    slr_free(NULL, ids);
    return out;
}

static inline float *eps(slr_weights *w, const float *text, const slr_tensor *ts)
{
    slr_tensor xs, steps;
    slr_graph *graph;
    float *x = golden_nhwc(&expected, "latents", &xs), *t = golden_f32(&expected, "t", &steps);
    ok(slr_graph_new(&graph, NULL, (slr_policy){.storage = SDLORA_F32}));
    slr_nn nn = {.g = graph, .w = w, .part = SLR_PART_UNET};
    slr_val y = slr_unet_build(&nn, slr_checkpoint_family(base),
                               slr_input(graph, "x", SDLORA_F32, 4, xs.dim),
                               slr_input(graph, "t", SDLORA_F32, 1, steps.dim),
                               slr_input(graph, "ctx", SDLORA_F32, 3, ts->dim));
    float *out =
        run(graph, y, (const char *[]){"x", "t", "ctx", NULL}, (const void *[]){x, t, text},
            (size_t[]){(size_t)slr_tensor_count(&xs) * 4, 4, (size_t)slr_tensor_count(ts) * 4});
    slr_free(NULL, x);
    slr_free(NULL, t);
    return out;
}

/* Each "<name>.delta.<part>:<path>" of the oracle. */
static inline size_t compare_deltas(const char *name, slr_weights *const merged[SLR_PART_COUNT])
{
    size_t seen = 0;
    for (size_t i = 0; i < slr_safetensors_count(expected.file); i++) {
        slr_tensor t;
        const slr_tensor *before, *after;
        const char *key = slr_safetensors_at(expected.file, i, &t), *colon = strchr(key, ':');
        size_t n = strlen(name);
        char weight[256];
        if (strncmp(key, name, n) || strncmp(key + n, ".delta.", 7) || !colon)
            continue;
        int part = strncmp(key + n + 7, "unet", 4) ? SLR_PART_TE : SLR_PART_UNET;
        snprintf(weight, sizeof weight, "%s.weight", colon + 1);
        ok(slr_weights_get(part == SLR_PART_UNET ? unet : te, weight, &before));
        ok(slr_weights_get(merged[part], weight, &after));
        float *want = golden_f32(&expected, key, NULL);
        size_t count = (size_t)slr_tensor_count(&t);
        float *got = slr_alloc(NULL, count * sizeof *got);
        assert_int_equal(slr_tensor_count(after), slr_tensor_count(&t));
        for (size_t k = 0; k < count; k++)
            got[k] = ((const float *)after->data)[k] - ((const float *)before->data)[k];
        if (!golden_close_to(key, got, want, count, TOL_DELTA))
            fail_msg("%s", key);
        slr_free(NULL, got);
        slr_free(NULL, want);
        seen++;
    }
    return seen;
}

/* Merged into the base, the network gives the oracle's weights, text states and output. */
static inline void compare(const slr_network *net, const char *name)
{
    const slr_stack_item item = {.network = (slr_network *)net, .te = 1, .unet = 1};
    slr_weights *merged[SLR_PART_COUNT] = {NULL};
    slr_tensor shape, t;
    char key[128];
    ok(slr_merge_part(&merged[SLR_PART_UNET], NULL, devices, unet, SLR_PART_UNET, &item, 1));
    ok(slr_merge_part(&merged[SLR_PART_TE], NULL, devices, te, SLR_PART_TE, &item, 1));
    assert_true(compare_deltas(name, merged) > 0);

    float *text = text_states(merged[SLR_PART_TE], &shape);
    snprintf(key, sizeof key, "%s.text", name);
    if (slr_safetensors_find(expected.file, key, &t)) {
        float *want = golden_f32(&expected, key, NULL);
        assert_true(golden_close_to(key, text, want, (size_t)slr_tensor_count(&t), TOL_PASS));
        slr_free(NULL, want);
    }
    snprintf(key, sizeof key, "%s.eps", name);
    float *want = golden_nhwc(&expected, key, &t), *got = eps(merged[SLR_PART_UNET], text, &shape);
    assert_true(golden_close_to(key, got, want, (size_t)slr_tensor_count(&t), TOL_PASS));
    slr_free(NULL, want);
    slr_free(NULL, got);
    slr_free(NULL, text);
    slr_weights_unref(merged[SLR_PART_UNET]);
    slr_weights_unref(merged[SLR_PART_TE]);
}

static inline void path_of(char path[256], const char *file)
{
    snprintf(path, 256, DIALECTS "%s", file);
}

/* ---- files that tests write ---- */

typedef struct adapter {
    char folder[64], weights[128], config[128];
} adapter;

static inline void adapter_begin(adapter *a)
{
    strcpy(a->folder, "/tmp/sdlora-dialect-XXXXXX");
    assert_non_null(mkdtemp(a->folder));
    snprintf(a->weights, sizeof a->weights, "%s/adapter_model.safetensors", a->folder);
    snprintf(a->config, sizeof a->config, "%s/adapter_config.json", a->folder);
}

static inline void adapter_remove(const adapter *a)
{
    unlink(a->weights);
    unlink(a->config);
}

static inline void adapter_end(const adapter *a)
{
    adapter_remove(a);
    rmdir(a->folder);
}

#endif
