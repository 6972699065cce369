/* SPDX-License-Identifier: MIT */
/* Dropout while training: of elements, of ranks and of whole modules, scaled as kohya scales it,
 * with gradients through the same mask, and none in validation. */
#include "network_test.h"

static slr_devices *devices;
static slr_checkpoint *base;
static slr_weights *te;

static int setup(void **state)
{
    (void)state;
    const slr_devices_config config = {.cpu_features = slr_cpu_features(), .backend = "cpu"};
    ok(slr_devices_open(&devices, &config));
    ok(slr_checkpoint_open(&base, TINYSD, &CONFIG));
    te = slr_checkpoint_part(base, SLR_PART_TE);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    slr_checkpoint_unref(base);
    slr_devices_unref(devices);
    return 0;
}

enum { SAMPLES = 16, TOKENS = 24, RANK = 16, WIDTH = 64, OUT = 256, ROWS = SAMPLES * TOKENS };

/* Two layers read the same x = (1, 0 ...).  down's first column is ones and up's first rows are the
 * unit matrix, so that the first RANK features of delta are what dropout left of ones. */
typedef struct dropping {
    slr_network *net;
    slr_plan *plan;
    float *mask[2]; /* [ROWS, RANK] by layer */
    float *grad[2]; /* of the first layer's down and up, by the sum of its output */
} dropping;

static const char *const LAYERS[] = {"text_model.encoder.layers.0.mlp.fc1",
                                     "text_model.encoder.layers.1.mlp.fc1"};

static void unit_network(slr_network *n)
{
    memset(slr_network_params(n), 0, slr_network_param_count(n) * sizeof(float));
    for (size_t i = 0; i < slr_network_slots(n); i++) {
        const slr_network_slot *s = slr_network_slot_at(n, i);
        float *x = slr_network_params(n) + s->offset;
        bool down = strstr(s->key, "lora_down") != NULL;
        for (int64_t r = 0; r < RANK && r < s->dim[0]; r++)
            x[r * s->dim[1] + (down ? 0 : r)] = 1;
    }
}

/* with_seed false: as in validation. */
static dropping drop_new(const char *which, const char *p, bool with_seed)
{
    dropping d = {0};
    slr_graph *graph;
    slr_train_hook hook;
    const int64_t x_dim[] = {SAMPLES, TOKENS, WIDTH}, seed_dim[] = {2};
    char name[320];
    ok(make_rc(&d.net, base,
               (const char *[]){"network_dim", "16", "network_alpha", "16", which, p, NULL}, 1));
    unit_network(d.net);
    slr_val *vals = slr_calloc(NULL, slr_network_slots(d.net), sizeof *vals), y[2], wrt[2], grad[2];
    ok(slr_graph_new(&graph, NULL, (slr_policy){.storage = SDLORA_F32}));
    slr_val x = slr_input(graph, "x", SDLORA_F32, 3, x_dim),
            seed = with_seed ? slr_input(graph, "seed", SDLORA_I32, 1, seed_dim) : SLR_NONE;
    slr_train_hook_init(&hook, d.net, seed, vals);
    slr_nn plain = {.g = graph, .w = te, .part = SLR_PART_TE},
           nn = {.g = graph, .w = te, .part = SLR_PART_TE, .adapter = &hook.adapter};
    for (int i = 0; i < 2; i++) {
        y[i] = slr_nn_linear(&nn, LAYERS[i], x, SLR_NONE);
        snprintf(name, sizeof name, "delta%d", i);
        slr_output(graph, slr_sub(graph, y[i], slr_nn_linear(&plain, LAYERS[i], x, SLR_NONE)),
                   name);
    }
    size_t slot = 0;
    while (vals[slot] == SLR_NONE)
        slot++;
    for (int i = 0; i < 2; i++)
        wrt[i] = vals[slot + (size_t)i];
    ok(slr_graph_grad(graph, y[0], wrt, 2, grad));
    slr_output(graph, grad[0], "grad0");
    slr_output(graph, grad[1], "grad1");
    ok(slr_graph_status(graph));
    ok(slr_plan_new(&d.plan, graph, devices));
    slr_graph_free(graph);
    for (size_t i = 0; i < slr_network_slots(d.net); i++) {
        const slr_network_slot *s = slr_network_slot_at(d.net, i);
        slr_val v;
        if (vals[i] != SLR_NONE) {
            ok(slr_plan_find(d.plan, s->key, &v));
            ok(slr_plan_bind(d.plan, v, slr_network_params(d.net) + s->offset));
        }
    }
    slr_free(NULL, vals);
    slr_val v;
    ok(slr_plan_find(d.plan, "x", &v));
    float *at = slr_plan_data(d.plan, v);
    memset(at, 0, sizeof(float) * ROWS * WIDTH);
    for (int i = 0; i < ROWS; i++)
        at[i * WIDTH] = 1;
    for (int i = 0; i < 2; i++)
        d.mask[i] = slr_calloc(NULL, ROWS * RANK, sizeof(float));
    return d;
}

static void drop_run(dropping *d, int32_t seed)
{
    const int32_t seeds[2] = {seed, 7};
    char name[24];
    slr_val v;
    if (slr_plan_find(d->plan, "seed", &v) >= 0)
        memcpy(slr_plan_data(d->plan, v), seeds, sizeof seeds);
    ok(slr_plan_run(d->plan, NULL));
    for (int i = 0; i < 2; i++) {
        snprintf(name, sizeof name, "delta%d", i);
        ok(slr_plan_find(d->plan, name, &v));
        const float *delta = slr_plan_data(d->plan, v);
        for (int k = 0; k < ROWS * RANK; k++)
            d->mask[i][k] = delta[k / RANK * OUT + k % RANK];
        snprintf(name, sizeof name, "grad%d", i);
        ok(slr_plan_find(d->plan, name, &v));
        d->grad[i] = slr_plan_data(d->plan, v);
    }
}

static void drop_free(dropping *d)
{
    slr_plan_free(d->plan);
    slr_network_unref(d->net);
    for (int i = 0; i < 2; i++)
        slr_free(NULL, d->mask[i]);
}

/* y is a sum with weights of order 1 in f32, and delta a difference of two such. */
#define TOL_MASK 1e-5

/* How many are zero; the others must be `kept`. */
static int zeros_of(const float *mask, double kept)
{
    int zeros = 0;
    for (int i = 0; i < ROWS * RANK; i++) {
        bool zero = fabs(mask[i]) < TOL_MASK;
        if (!zero && fabs(mask[i] - kept) > TOL_MASK)
            fail_msg("%g is neither 0 nor %g", mask[i], kept);
        zeros += zero;
    }
    return zeros;
}

/* Gradients go through the same mask: both are column sums of it. */
static void check_gradient(const dropping *d)
{
    for (int r = 0; r < RANK; r++) {
        double sum = 0;
        for (int i = 0; i < ROWS; i++)
            sum += d->mask[0][i * RANK + r];
        assert_true(fabs(d->grad[0][r * WIDTH] - sum) < TOL_MASK * ROWS);
        for (int o = 0; o < OUT; o++)
            assert_true(fabs(d->grad[1][o * RANK + r] - sum) < TOL_MASK * ROWS);
    }
}

/* `draws` independent draws of probability p: within 5 standard deviations. */
static void check_share(const char *what, double zeros, double draws, double p)
{
    print_message("%s: %.4f of %.0f dropped, p = %g\n", what, zeros / draws, draws, p);
    assert_true(fabs(zeros / draws - p) <= 5 * sqrt(p * (1 - p) / draws));
}

static void elements(void **state)
{
    (void)state;
    static float first[ROWS * RANK];
    dropping d = drop_new("network_dropout", "0.25", true);
    drop_run(&d, 1);
    /* 1/(1-p) makes up for what is lost, so that the share alone proves the expectation */
    check_share("network_dropout", zeros_of(d.mask[0], 1 / 0.75), ROWS * RANK, 0.25);
    check_share("second layer", zeros_of(d.mask[1], 1 / 0.75), ROWS * RANK, 0.25);
    check_gradient(&d);
    int both = 0;
    for (int i = 0; i < ROWS * RANK; i++)
        both += fabsf(d.mask[0][i]) < 0.5f && fabsf(d.mask[1][i]) < 0.5f;
    check_share("both layers", both, ROWS * RANK, 0.25 * 0.25);
    memcpy(first, d.mask[0], sizeof first);
    drop_run(&d, 2);
    assert_true(memcmp(first, d.mask[0], sizeof first) != 0);
    drop_run(&d, 1);
    assert_memory_equal(first, d.mask[0], sizeof first);
    drop_free(&d);

    d = drop_new("network_dropout", "0.25", false);
    drop_run(&d, 1);
    assert_int_equal(zeros_of(d.mask[0], 1), 0);
    drop_free(&d);
}

static void ranks(void **state)
{
    (void)state;
    dropping d = drop_new("rank_dropout", "0.5", true);
    double zeros = 0;
    for (int32_t seed = 0; seed < 20; seed++) {
        drop_run(&d, seed);
        zeros += zeros_of(d.mask[0], 2);
        for (int i = 0; i < ROWS; i++) /* one draw a sample: every token has the first one's */
            assert_true(
                golden_compare(d.mask[0] + i * RANK, d.mask[0] + i / TOKENS * TOKENS * RANK, RANK)
                    .max <= TOL_MASK);
        check_gradient(&d);
    }
    check_share("rank_dropout", zeros / TOKENS, 20 * SAMPLES * RANK, 0.5);
    drop_free(&d);
}

static void modules(void **state)
{
    (void)state;
    dropping d = drop_new("module_dropout", "0.3", true);
    double skipped = 0, both = 0;
    for (int32_t seed = 0; seed < 300; seed++) {
        drop_run(&d, seed);
        int zeros = zeros_of(d.mask[0], 1); /* what is kept is not scaled */
        assert_true(zeros == 0 || zeros == ROWS * RANK);
        skipped += zeros > 0;
        both += zeros > 0 && zeros_of(d.mask[1], 1) > 0;
    }
    check_gradient(&d);
    check_share("module_dropout", skipped, 300, 0.3);
    check_share("of both modules", both, 300, 0.09);
    drop_free(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(elements),
        cmocka_unit_test(ranks),
        cmocka_unit_test(modules),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
