/* SPDX-License-Identifier: MIT */
/* Training steps against sd-scripts' networks/lora.py under torch
 * (tests/golden/lora_tinysd.safetensors): forward, loss, every LoRA gradient, then 20 AdamW steps,
 * for linear + 1x1 modules and for LoCon. */
#include "golden_step.h"

#define GOLDEN TEST_ROOT "/golden/lora_tinysd.safetensors"

/* f32 on both sides with sums in another order; measured 7e-7 (eps), 4e-5 (gradients), 5e-6
 * (delta-W). */
#define TOL_EPS  1e-5
#define TOL_GRAD 2e-4 /* each tensor by itself; small gradients are differences of large sums */
/* Adam divides by the root of tiny second moments, so single values drift: the limit is on
 * delta-W. */
#define TOL_DELTA 1e-4

static slr_devices *devices;
static slr_checkpoint *base;
static golden g;

static int setup(void **state)
{
    (void)state;
    const slr_devices_config config = {.cpu_features = slr_cpu_features(), .backend = "cpu"};
    ok(slr_devices_open(&devices, &config));
    ok(slr_checkpoint_open(&base, TINYSD, &CONFIG));
    g = golden_open(GOLDEN);
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

static bool find(const char *name, slr_tensor *t)
{
    return slr_safetensors_find(g.file, name, t);
}

static const char *named(char buf[320], const char *a, const char *b, const char *c)
{
    snprintf(buf, 320, "%s.%s.%s", a, b, c);
    return buf;
}

static void check_eps(const char *what, slr_step *s, const char *name)
{
    float *want = golden_nhwc(&g, name, NULL);
    assert_true(golden_close_to(what, slr_step_io_of(s)->pred, want, 2 * 4 * 8 * 8, TOL_EPS));
    slr_free(NULL, want);
}

static void gradients(const char *which)
{
    char name[320];
    slr_network *net = golden_network(&g, base, which);
    slr_step *s = golden_step(base, devices, net, NULL, 1u << SLR_PART_UNET | 1u << SLR_PART_TE);
    golden_fill(&g, s, which, 0);
    ok(slr_step_run(s, NULL));
    snprintf(name, sizeof name, "%s.eps", which);
    check_eps(which, s, name);
    snprintf(name, sizeof name, "%s.loss", which);
    float *loss = golden_f32(&g, name, NULL);
    assert_true(fabs(golden_loss(s) - loss[0]) <= 1e-5 * loss[0]);
    slr_free(NULL, loss);

    size_t compared = 0;
    double worst = 0, sum = 0, norm = 0;
    for (size_t i = 0; i < slr_network_slots(net); i++) {
        const slr_network_slot *slot = slr_network_slot_at(net, i);
        slr_tensor t;
        if (!find(named(name, which, "grad", slot->key), &t))
            continue;
        float *want = golden_f32(&g, name, NULL);
        golden_error e = golden_compare(slr_step_io_of(s)->grad + slot->offset, want, slot->count);
        if (e.l2 > TOL_GRAD)
            print_message("%s: %g\n", slot->key, e.l2);
        worst = fmax(worst, e.l2);
        for (size_t k = 0; k < slot->count; k++) {
            double d = slr_step_io_of(s)->grad[slot->offset + k] - want[k];
            sum += d * d;
            norm += (double)want[k] * want[k];
        }
        slr_free(NULL, want);
        compared++;
    }
    print_message("%s: %zu gradients, worst relative error %.3g, all together %.3g\n", which,
                  compared, worst, sqrt(sum / norm));
    assert_true(compared > 70);
    assert_true(worst <= TOL_GRAD);
    slr_step_free(s);
    slr_network_unref(net);
}

static void gradients_linear(void **state)
{
    (void)state;
    gradients("lin");
}

static void gradients_locon(void **state)
{
    (void)state;
    gradients("locon");
}

/* up x down of a module as one matrix [out, in*kh*kw]. */
static float *product(const float *up, const float *down, int64_t out, int64_t rank, int64_t width)
{
    float *w = slr_calloc(NULL, (size_t)(out * width), sizeof *w);
    for (int64_t o = 0; o < out; o++)
        for (int64_t p = 0; p < rank; p++)
            for (int64_t i = 0; i < width; i++)
                w[o * width + i] += up[o * rank + p] * down[p * width + i];
    return w;
}

static void check_delta(slr_network *net, const char *which, double *sum, double *norm, size_t *n)
{
    char name[320];
    for (size_t i = 0; i + 1 < slr_network_slots(net); i += 2) {
        const slr_network_slot *down = slr_network_slot_at(net, i), *up = down + 1;
        const slr_target *t = slr_network_target(net, down->module);
        int64_t rank = slr_network_rank(net, down->module), width = t->in * t->kh * t->kw;
        slr_tensor have;
        if (!find(named(name, which, "final", down->key), &have))
            continue;
        float *want_down = golden_f32(&g, name, NULL);
        float *want_up = golden_f32(&g, named(name, which, "final", up->key), NULL);
        const float *params = slr_network_params(net);
        float *got = product(params + up->offset, params + down->offset, t->out, rank, width);
        float *want = product(want_up, want_down, t->out, rank, width);
        for (int64_t k = 0; k < t->out * width; k++) {
            *sum += ((double)got[k] - want[k]) * ((double)got[k] - want[k]);
            *norm += (double)want[k] * want[k];
        }
        slr_free(NULL, got);
        slr_free(NULL, want);
        slr_free(NULL, want_down);
        slr_free(NULL, want_up);
        (*n)++;
    }
}

static void steps(const char *which)
{
    char prefix[64], name[80];
    slr_network *net = golden_network(&g, base, which);
    unsigned parts = 1u << SLR_PART_UNET | 1u << SLR_PART_TE;
    slr_step *s = golden_step(base, devices, net, NULL, parts);
    snprintf(prefix, sizeof prefix, "%s.steps", which);
    snprintf(name, sizeof name, "%s.loss", prefix);
    double worst_loss = golden_train(&g, &g, name, base, devices, net, s, prefix, parts, NULL);
    double sum = 0, norm = 0;
    size_t n = 0;
    check_delta(net, which, &sum, &norm, &n);
    print_message("%s: 20 steps, losses within %.3g, delta-W of %zu modules within %.3g\n", which,
                  worst_loss, n, sqrt(sum / norm));
    assert_true(n > 10);
    assert_true(worst_loss <= 1e-3); /* the drift of the parameters as the loss sees it */
    assert_true(sqrt(sum / norm) <= TOL_DELTA);
    slr_step_free(s);
    slr_network_unref(net);
}

static void steps_linear(void **state)
{
    (void)state;
    steps("lin");
}

static void steps_locon(void **state)
{
    (void)state;
    steps("locon");
}

/* A stack at strength 0.6 and at 0 gives what the oracle's multiplier gives; without a new graph.
 */
static void strengths(void **state)
{
    (void)state;
    static const char *const which[] = {"lin", "locon"};
    for (int i = 0; i < 2; i++) {
        char name[80];
        slr_network *net = golden_network(&g, base, which[i]);
        slr_stack *stack;
        slr_stack_item item = {net, 0.6, 0.6, 0, {0}};
        ok(slr_stack_new(&stack, slr_checkpoint_mem(base), devices, base, &item, 1));
        slr_step *s = golden_step(base, devices, NULL, stack, 0);
        golden_fill(&g, s, which[i], 0);
        ok(slr_step_run(s, NULL));
        snprintf(name, sizeof name, "%s.eps_w0.6", which[i]);
        check_eps(name, s, name);
        item.te = item.unet = 0;
        ok(slr_stack_set(stack, &item, 1));
        golden_fill(&g, s, which[i], 0);
        ok(slr_step_run(s, NULL));
        snprintf(name, sizeof name, "%s.eps_w0", which[i]);
        check_eps(name, s, name);
        slr_step_free(s);
        slr_stack_free(stack);
        slr_network_unref(net);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gradients_linear), cmocka_unit_test(gradients_locon),
        cmocka_unit_test(steps_linear),     cmocka_unit_test(steps_locon),
        cmocka_unit_test(strengths),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
