/* SPDX-License-Identifier: MIT */
/* Networks of many kinds come and go in any order: what stands at the moment decides the output,
 * kinds that add do so in any order, a live stack and merged weights agree, and the base keeps its
 * bytes. */
#include "network_test.h"

#define GOLDEN TEST_ROOT "/golden/tinysd.safetensors"

static golden g;
static slr_checkpoint *base;
static slr_devices *devices;

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

/* Every kind, restricted to the transformers: dims and sizes that change the output by a tenth or
 * so. */
static const struct {
    const char *args;
    double size;
    bool adds; /* its change does not depend on the weights that it finds */
} KINDS[] = {
    {"algo=lora\npreset=attn-mlp", 0.05, true},
    {"algo=loha\npreset=attn-mlp", 0.15, true},
    {"algo=lokr\nfactor=4\npreset=attn-mlp", 0.1, true},
    {"algo=full\npreset=attn-only", 0.005, true},
    {"algo=lora\ndora_wd=True\npreset=attn-only", 0.05, false},
    {"algo=diag-oft\npreset=attn-only", 0.02, false},
    {"algo=glora\npreset=attn-only", 0.03, false},
};
enum { N_KINDS = sizeof KINDS / sizeof *KINDS };

static void open_all(slr_network **net)
{
    for (size_t k = 0; k < N_KINDS; k++) {
        const char *pairs[] = {"network_module", "lycoris.kohya", "network_dim", "4",
                               "network_args",   KINDS[k].args,   NULL};
        net[k] = make(base, pairs, 100 + k, KINDS[k].size);
    }
}

static void put(slr_plan *p, const char *name, float *data, const slr_tensor *t)
{
    slr_val v;
    ok(slr_plan_find(p, name, &v));
    memcpy(slr_plan_data(p, v), data, (size_t)slr_tensor_count(t) * sizeof *data);
    slr_free(NULL, data);
}

/* The UNet's output with a stack, or with other weights. */
static float *output(slr_weights *w, slr_stack *s, size_t *n)
{
    slr_tensor xs, ts, cs;
    slr_graph *graph;
    slr_plan *p;
    slr_val v;
    float *x = golden_nhwc(&g, "unet.x", &xs), *t = golden_f32(&g, "unet.t", &ts),
          *c = golden_f32(&g, "unet.ctx", &cs);
    slr_adapter adapter = s ? slr_stack_adapter(s) : (slr_adapter){0};
    ok(slr_graph_new(&graph, NULL, (slr_policy){.storage = SDLORA_F32}));
    slr_nn nn = {.g = graph, .w = w, .part = SLR_PART_UNET, .adapter = s ? &adapter : NULL};
    slr_output(graph,
               slr_unet_build(&nn, slr_checkpoint_family(base),
                              slr_input(graph, "x", SDLORA_F32, 4, xs.dim),
                              slr_input(graph, "t", SDLORA_F32, 1, ts.dim),
                              slr_input(graph, "ctx", SDLORA_F32, 3, cs.dim)),
               "y");
    ok(slr_graph_status(graph));
    ok(slr_plan_new(&p, graph, devices));
    slr_graph_free(graph);
    if (s)
        ok(slr_stack_bind(s, p));
    put(p, "x", x, &xs);
    put(p, "t", t, &ts);
    put(p, "ctx", c, &cs);
    ok(slr_plan_run(p, NULL));
    ok(slr_plan_find(p, "y", &v));
    slr_shape shape = slr_plan_shape(p, v);
    *n = 1;
    for (int i = 0; i < shape.rank; i++)
        *n *= (size_t)shape.dim[i];
    float *y = slr_alloc(NULL, *n * sizeof *y);
    memcpy(y, slr_plan_data(p, v), *n * sizeof *y);
    slr_plan_free(p);
    return y;
}

static float *with(const slr_stack_item *items, size_t n_items, size_t *n)
{
    slr_stack *s;
    ok(slr_stack_new(&s, NULL, devices, base, items, n_items));
    float *y = output(slr_stack_weights(s, SLR_PART_UNET), s, n);
    slr_stack_free(s);
    return y;
}

static double distance(float *got, float *want, const size_t *n)
{
    double d = golden_compare(got, want, *n).l2;
    slr_free(NULL, got);
    slr_free(NULL, want);
    return d;
}

/* Two dozen times something comes or goes, then all goes; the output has the bits of the beginning.
 */
static void come_and_go(void **state)
{
    (void)state;
    slr_network *net[N_KINDS];
    slr_stack_item items[N_KINDS];
    size_t n, held = 0;
    slr_rng r;
    char before[65], after[65];
    open_all(net);
    base_hash(base, before);
    float *plain = output(slr_checkpoint_part(base, SLR_PART_UNET), NULL, &n);
    slr_rng_init(&r, 7, SLR_STREAM_INIT, 0);
    for (int event = 0; event < 24 || held; event++) {
        size_t k = (size_t)(slr_rng_real(&r) * N_KINDS), at = 0;
        while (at < held && items[at].network != net[k])
            at++;
        if (at < held)
            memmove(&items[at], &items[at + 1], (--held - at) * sizeof *items);
        else if (event < 24)
            items[held++] =
                (slr_stack_item){.network = net[k], .te = 1, .unet = 0.5 + slr_rng_real(&r)};
        if (event % 6 == 5 && held) {
            float *now = with(items, held, &n);
            assert_true(golden_compare(plain, now, n).l2 > 1e-4);
            slr_free(NULL, now);
        }
    }
    float *left = output(slr_checkpoint_part(base, SLR_PART_UNET), NULL, &n);
    assert_memory_equal(plain, left, n * sizeof *plain);
    base_hash(base, after);
    assert_string_equal(before, after);
    slr_free(NULL, plain);
    slr_free(NULL, left);
    for (size_t k = 0; k < N_KINDS; k++)
        slr_network_unref(net[k]);
}

/* Each kind alone: the live stack and merged weights agree, and both change the output.  The tiny
 * model's weights are f16, to which both round once, but for LoRA, which rides along unrounded:
 * hence 2e-3. */
static void each_kind(void **state)
{
    (void)state;
    slr_network *net[N_KINDS];
    open_all(net);
    for (size_t k = 0; k < N_KINDS; k++) {
        const slr_stack_item item = {net[k], 1, 0.8, 0, {0}};
        slr_weights *unet = slr_checkpoint_part(base, SLR_PART_UNET), *m;
        size_t n;
        ok(slr_merge_part(&m, NULL, devices, unet, SLR_PART_UNET, &item, 1));
        double change = distance(with(&item, 1, &n), output(unet, NULL, &n), &n);
        double apart = distance(with(&item, 1, &n), output(m, NULL, &n), &n);
        print_message("%-42.42s changes %.3g, merged differs %.3g\n", KINDS[k].args, change, apart);
        assert_true(change > 1e-3 && apart < 2e-3);
        slr_weights_unref(m);
    }
    for (size_t k = 0; k < N_KINDS; k++)
        slr_network_unref(net[k]);
}

/* Kinds that add commute; the others do not, and then the prompt's order counts. */
static void any_order(void **state)
{
    (void)state;
    slr_network *net[N_KINDS];
    slr_stack_item there[N_KINDS], back[N_KINDS];
    size_t n, held = 0;
    open_all(net);
    for (size_t k = 0; k < N_KINDS; k++)
        if (KINDS[k].adds)
            there[held++] = (slr_stack_item){net[k], 1, 0.5, 0, {0}};
    for (size_t i = 0; i < held; i++)
        back[held - 1 - i] = there[i];
    double commute = distance(with(there, held, &n), with(back, held, &n), &n);
    /* a turn of the sum is not the sum of a turned one */
    const slr_stack_item first[] = {{net[0], 1, 1, 0, {0}}, {net[5], 1, 1, 0, {0}}},
                         last[] = {{net[5], 1, 1, 0, {0}}, {net[0], 1, 1, 0, {0}}};
    double turned = distance(with(first, 2, &n), with(last, 2, &n), &n);
    print_message("reversed: %.3g; OFT before and after LoRA: %.3g\n", commute, turned);
    assert_true(commute < 1e-4 &&
                turned > 1e-4); /* f32 sums in another order, rounded to f16 once */
    for (size_t k = 0; k < N_KINDS; k++)
        slr_network_unref(net[k]);
}

/* Most weights of tinysd's UNet are its convolutions'. */
static void what_a_stack_rebuilds(void **state)
{
    (void)state;
    static const struct {
        const char *args;
        bool live, most;
    } rows[] = {
        {"algo=lora\npreset=full", true, false},
        {"algo=lokr\nfactor=4\npreset=attn-only", false, false},
        {"algo=lokr\nfactor=4\npreset=full", false, true},
    };
    for (size_t k = 0; k < sizeof rows / sizeof *rows; k++) {
        const char *pairs[] = {"network_module", "lycoris.kohya", "network_dim", "4",
                               "network_args",   rows[k].args,    NULL};
        slr_stack_item item = {make(base, pairs, 7, 0.1), 1, 1, 0, {0}};
        slr_stack *s;
        ok(slr_stack_new(&s, NULL, devices, base, &item, 1));
        assert_int_equal(slr_stack_live(s), rows[k].live);
        assert_int_equal(slr_stack_rebuilds_most(s, SLR_PART_UNET), rows[k].most);
        slr_stack_free(s);
        slr_network_unref(item.network);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(come_and_go),
        cmocka_unit_test(each_kind),
        cmocka_unit_test(any_order),
        cmocka_unit_test(what_a_stack_rebuilds),
    };
    return cmocka_run_group_tests_name("networks-orders", tests, setup, teardown);
}
