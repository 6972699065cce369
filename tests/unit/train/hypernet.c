/* SPDX-License-Identifier: MIT */
/* Hypernetworks against torch.nn's modules in front of diffusers' attention layers
 * (tests/golden/hypernet.safetensors): outputs at several strengths and in a chain, every gradient,
 * and 20 steps of AdamW. */
#include "golden_step.h"
#include "networks/hypernet.h"
#include "networks/kind.h"

#define GOLDEN TEST_ROOT "/golden/hypernet.safetensors"
#define INPUTS TEST_ROOT "/golden/lora_tinysd.safetensors"

/* f32 on both sides with sums in another order; the limits are those of the other networks. */
#define TOL_EPS   1e-5
#define TOL_GRAD  2e-4
#define TOL_STEPS 1e-2

enum { FLOATS = 2 * 4 * 8 * 8, DENSE = 2000, STRIDE = 7 };

static slr_devices *devices;
static slr_checkpoint *base;
static golden g, inputs;

static int setup(void **state)
{
    (void)state;
    const slr_devices_config config = {.cpu_features = slr_cpu_features(), .backend = "cpu"};
    ok(slr_devices_open(&devices, &config));
    ok(slr_checkpoint_open(&base, TINYSD, &CONFIG));
    g = golden_open(GOLDEN);
    inputs = golden_open(INPUTS);
    return g.file && inputs.file ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    golden_close(&g);
    golden_close(&inputs);
    slr_checkpoint_unref(base);
    slr_devices_unref(devices);
    return 0;
}

static slr_network *open_net(const char *name)
{
    char path[512];
    slr_network *n;
    snprintf(path, sizeof path, "%s/golden/hypernet/%s.pt", TEST_ROOT, name);
    ok(slr_network_open(&n, NULL, base, path));
    assert_true(slr_network_is_hyper(n));
    return n;
}

static double eps_of(slr_step *s, const char *name)
{
    float *want = golden_nhwc(&g, name, NULL);
    golden_fill(&inputs, s, "lin", 0);
    ok(slr_step_run(s, NULL));
    double off = golden_compare(slr_step_io_of(s)->pred, want, FLOATS).l2;
    slr_free(NULL, want);
    print_message("%s: %.2g\n", name, off);
    return off;
}

/* A graph for a stack gives `name`; then, in the same graph, other strengths give theirs. */
static void stacked(slr_stack_item *items, size_t n, const char *const *names,
                    const double *strengths)
{
    slr_stack *stack;
    ok(slr_stack_new(&stack, NULL, devices, base, items, n));
    slr_step *s = golden_step(base, devices, NULL, stack, 0);
    assert_true(eps_of(s, names[0]) <= TOL_EPS);
    for (size_t i = 1; names[i]; i++) {
        assert_true(eps_of(s, names[i]) > 1e-3); /* the strength before: it does matter */
        items[0].unet = strengths[i];
        ok(slr_stack_set(stack, items, n));
        assert_true(eps_of(s, names[i]) <= TOL_EPS);
    }
    slr_step_free(s);
    slr_stack_free(stack);
}

static void outputs(void **state)
{
    (void)state;
    static const char *const relu[] = {"relu.eps_w1.0", "relu.eps_w0.6", "relu.eps_w-0.5", NULL},
                             *const deep[] = {"deep.eps_w1.0", NULL},
                             *const nai[] = {"nai.eps_w1.0", NULL},
                             *const chain[] = {"chain.eps", NULL};
    static const double at[] = {1, 0.6, -0.5};
    slr_network *r = open_net("relu"), *d = open_net("deep"), *o = open_net("nai");
    stacked((slr_stack_item[]){{r, 9, 1, 0, {0}}}, 1, relu, at);
    stacked((slr_stack_item[]){{d, 9, 1, 0, {0}}}, 1, deep, at);
    stacked((slr_stack_item[]){{o, 9, 1, 0, {0}}}, 1, nai, at);
    stacked((slr_stack_item[]){{d, 9, 0.8, 0, {0}}, {r, 9, 0.5, 0, {0}}, {o, 9, 0.7, 0, {0}}}, 3,
            chain, at);
    slr_network_unref(r);
    slr_network_unref(d);
    slr_network_unref(o);
}

/* What the golden kept of a slot. */
static float *kept(const slr_network *n, const slr_network_slot *slot, const char *what,
                   size_t *count, size_t *stride)
{
    const slr_hyper *h = n->hyper;
    size_t mlp = slot->module / (size_t)h->layers;
    char key[96], name[160];
    slr_tensor t;
    slr_hyper_key(h, (int)(mlp / 2), mlp % 2, (int)(slot->module % (size_t)h->layers), slot->leaf,
                  key);
    snprintf(name, sizeof name, "relu.%s.%s", what, key);
    float *want = golden_f32(&g, name, &t);
    *stride = slot->count > DENSE ? STRIDE : 1;
    *count = (slot->count + *stride - 1) / *stride;
    assert_int_equal(slr_tensor_count(&t), *count);
    return want;
}

static double error_of(const float *have, const float *want, size_t n, size_t stride, double *sum,
                       double *norm)
{
    double s = 0, w = 0;
    for (size_t i = 0; i < n; i++) {
        double d = (double)have[i * stride] - want[i];
        s += d * d;
        w += (double)want[i] * want[i];
    }
    *sum += s;
    *norm += w;
    return sqrt(s / w);
}

/* The last shift of an MLP for keys. */
static bool moves_all_keys_alike(const slr_network *n, const slr_network_slot *slot)
{
    size_t layers = (size_t)n->hyper->layers;
    return slot->module / layers % 2 == 0 && slot->module % layers == layers - 1 &&
           slot->leaf == SLR_HYPER_NORM_BIAS;
}

static void gradients_and_steps(void **state)
{
    (void)state;
    slr_network *net = open_net("relu");
    slr_step *s = golden_step(base, devices, net, NULL, 1u << SLR_PART_UNET);
    double worst = 0, sum = 0, norm = 0;
    size_t count, stride, silent = 0;
    assert_true(eps_of(s, "relu.eps_w1.0") <= TOL_EPS);
    for (size_t i = 0; i < slr_network_slots(net); i++) {
        const slr_network_slot *slot = slr_network_slot_at(net, i);
        float *want = kept(net, slot, "grad", &count, &stride);
        double e =
            error_of(slr_step_io_of(s)->grad + slot->offset, want, count, stride, &sum, &norm);
        if (moves_all_keys_alike(net, slot))
            silent++; /* softmax does not feel it: both sides have only their rounding */
        else
            worst = fmax(worst, e);
        slr_free(NULL, want);
    }
    assert_int_equal(silent, 2);
    print_message("%zu gradients: worst %.2g, all %.2g\n", slr_network_slots(net), worst,
                  sqrt(sum / norm));
    assert_true(slr_network_slots(net) == 32);
    assert_true(worst <= TOL_GRAD);

    float *before = slr_alloc(NULL, slr_network_param_count(net) * sizeof *before);
    memcpy(before, slr_network_params(net), slr_network_param_count(net) * sizeof *before);
    double loss = golden_train(&inputs, &g, "relu.steps.loss", base, devices, net, s, "lin.steps",
                               1u << SLR_PART_UNET, NULL);
    sum = norm = 0;
    for (size_t i = 0; i < slr_network_slots(net); i++) {
        const slr_network_slot *slot = slr_network_slot_at(net, i);
        float *want = kept(net, slot, "moved", &count, &stride);
        for (size_t k = 0; k < slot->count; k++)
            before[slot->offset + k] =
                slr_network_params(net)[slot->offset + k] - before[slot->offset + k];
        if (!moves_all_keys_alike(net, slot))
            error_of(before + slot->offset, want, count, stride, &sum, &norm);
        slr_free(NULL, want);
    }
    print_message("20 steps: losses %.2g, change %.2g\n", loss, sqrt(sum / norm));
    assert_true(loss <= 1e-3);
    assert_true(sqrt(sum / norm) <= TOL_STEPS);
    slr_free(NULL, before);
    slr_step_free(s);
    slr_network_unref(net);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(outputs),
        cmocka_unit_test(gradients_and_steps),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
