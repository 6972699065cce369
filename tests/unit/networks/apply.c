/* SPDX-License-Identifier: MIT */
/* Networks at work: live and merged, strengths, sums, removal, refusals.  Agreement with sd-scripts
 * is in tests/unit/train. */
#include "network_test.h"

#include "models/clip.h"

#define OPENMOJI TEST_ROOT "/data/torch-openmoji-lora.safetensors"
#define GOLDEN   TEST_ROOT "/golden/tinysd.safetensors"

/* Both in f32, the same terms in another order: measured 4e-7. */
#define TOL_F32 1e-5
/* Merging into f16 rounds each changed weight by up to 2^-11 of itself, some 2.8e-4 at random; the
 * layers of a path add such errors up.  Measured 1.8e-4. */
#define TOL_F16 1e-3

static slr_devices *devices;
static slr_checkpoint *base;
static slr_weights *unet, *te, *unet32; /* unet32: the same in f32 */
static golden g;

static int setup(void **state)
{
    (void)state;
    const slr_devices_config config = {.cpu_features = slr_cpu_features(), .backend = "cpu"};
    ok(slr_devices_open(&devices, &config));
    ok(slr_checkpoint_open(&base, TINYSD, &CONFIG));
    unet = slr_checkpoint_part(base, SLR_PART_UNET);
    te = slr_checkpoint_part(base, SLR_PART_TE);
    unet32 = widened(unet);
    g = golden_open(GOLDEN);
    return g.file ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    golden_close(&g);
    slr_weights_unref(unet32);
    slr_checkpoint_unref(base);
    slr_devices_unref(devices);
    return 0;
}

/* ---- a pass of the UNet or of the text encoder ---- */

typedef struct pass {
    slr_plan *plan;
    size_t n; /* floats of the output */
} pass;

static void put(slr_plan *p, const char *name, const void *data, size_t bytes)
{
    slr_val v;
    ok(slr_plan_find(p, name, &v));
    memcpy(slr_plan_data(p, v), data, bytes);
}

static pass finish(slr_graph *graph, slr_val y, slr_stack *s)
{
    pass p = {.n = 1};
    slr_output(graph, y, "y");
    ok(slr_graph_status(graph));
    slr_shape shape = slr_shape_of(graph, y);
    for (int i = 0; i < shape.rank; i++)
        p.n *= (size_t)shape.dim[i];
    ok(slr_plan_new(&p.plan, graph, devices));
    slr_graph_free(graph);
    if (s)
        ok(slr_stack_bind(s, p.plan));
    return p;
}

static pass unet_pass(slr_weights *w, slr_stack *s)
{
    slr_tensor xs, ts, cs;
    slr_graph *graph;
    float *x = golden_nhwc(&g, "unet.x", &xs), *t = golden_f32(&g, "unet.t", &ts),
          *c = golden_f32(&g, "unet.ctx", &cs);
    slr_adapter adapter = s ? slr_stack_adapter(s) : (slr_adapter){0};
    ok(slr_graph_new(&graph, NULL, (slr_policy){.storage = SDLORA_F32}));
    slr_nn nn = {.g = graph, .w = w, .part = SLR_PART_UNET, .adapter = s ? &adapter : NULL};
    slr_val y = slr_unet_build(&nn, slr_checkpoint_family(base),
                               slr_input(graph, "x", SDLORA_F32, 4, xs.dim),
                               slr_input(graph, "t", SDLORA_F32, 1, ts.dim),
                               slr_input(graph, "ctx", SDLORA_F32, 3, cs.dim));
    pass p = finish(graph, y, s);
    put(p.plan, "x", x, (size_t)slr_tensor_count(&xs) * sizeof *x);
    put(p.plan, "t", t, (size_t)slr_tensor_count(&ts) * sizeof *t);
    put(p.plan, "ctx", c, (size_t)slr_tensor_count(&cs) * sizeof *c);
    slr_free(NULL, x);
    slr_free(NULL, t);
    slr_free(NULL, c);
    return p;
}

static pass text_pass(slr_weights *w, slr_stack *s)
{
    slr_tensor t;
    slr_graph *graph;
    int32_t *ids = golden_i32(&g, "ids", &t);
    slr_adapter adapter = s ? slr_stack_adapter(s) : (slr_adapter){0};
    ok(slr_graph_new(&graph, NULL, (slr_policy){.storage = SDLORA_F32}));
    slr_nn nn = {.g = graph, .w = w, .part = SLR_PART_TE, .adapter = s ? &adapter : NULL};
    slr_val y = slr_clip_build(&nn, slr_checkpoint_family(base),
                               slr_input(graph, "ids", SDLORA_I32, 2, t.dim), 1);
    pass p = finish(graph, y, s);
    put(p.plan, "ids", ids, slr_tensor_bytes(&t));
    slr_free(NULL, ids);
    return p;
}

static float *run(const pass *p)
{
    slr_val v;
    float *y = slr_alloc(NULL, p->n * sizeof *y);
    ok(slr_plan_run(p->plan, NULL));
    ok(slr_plan_find(p->plan, "y", &v));
    memcpy(y, slr_plan_data(p->plan, v), p->n * sizeof *y);
    return y;
}

typedef pass (*pass_fn)(slr_weights *w, slr_stack *s);

static float *once(pass_fn fn, slr_weights *w, slr_stack *s, size_t *n)
{
    pass p = fn(w, s);
    float *y = run(&p);
    *n = p.n;
    slr_plan_free(p.plan);
    return y;
}

static float *stacked(pass_fn fn, slr_weights *w, const slr_stack_item *items, size_t n_items,
                      size_t *n)
{
    slr_stack *s;
    ok(slr_stack_new(&s, NULL, devices, base, items, n_items));
    float *y = once(fn, w, s, n);
    slr_stack_free(s);
    return y;
}

static float *merged(pass_fn fn, slr_weights *w, int part, const slr_stack_item *items,
                     size_t n_items, size_t *n)
{
    slr_weights *m;
    ok(slr_merge_part(&m, NULL, devices, w, part, items, n_items));
    float *y = once(fn, m, NULL, n);
    slr_weights_unref(m);
    return y;
}

/* Frees both.  n is read late: the passes in the arguments set it. */
static double distance(float *got, float *want, const size_t *n)
{
    double d = golden_compare(got, want, *n).l2;
    slr_free(NULL, got);
    slr_free(NULL, want);
    return d;
}

static const char *const LOCON[] = {
    "network_dim", "4", "network_alpha", "3", "conv_dim", "2", "conv_alpha", "1", NULL};

/* ---- applying ---- */

static void third_party_file(void **state)
{
    (void)state;
    slr_network *net;
    size_t n;
    ok(slr_network_open(&net, NULL, base, OPENMOJI));
    assert_int_equal(slr_network_modules(net), 156);
    assert_string_equal(slr_meta_get(slr_network_meta(net), "ss_output_name"), "openmoji");
    for (size_t i = 0; i < slr_network_modules(net); i++)
        assert_true(slr_network_rank(net, i) == 16 && slr_network_alpha(net, i) == 8);
    const slr_stack_item item = {net, 1, 1, 0, {0}};
    double change =
        distance(stacked(unet_pass, unet, &item, 1, &n), once(unet_pass, unet, NULL, &n), &n);
    double text = distance(stacked(text_pass, te, &item, 1, &n), once(text_pass, te, NULL, &n), &n);
    double both = distance(merged(unet_pass, unet, SLR_PART_UNET, &item, 1, &n),
                           stacked(unet_pass, unet, &item, 1, &n), &n);
    print_message(
        "changes the UNet's output by %.3g, text states by %.3g; merged differs by %.3g\n", change,
        text, both);
    assert_true(change > 0.01 && text > 0.001);
    assert_true(both <= TOL_F16);
    slr_network_unref(net);
}

static void merged_and_live(void **state)
{
    (void)state;
    slr_network *net = make(base, LOCON, 4, 0.15);
    const slr_stack_item item = {net, 0.8, 0.8, 0, {0}};
    size_t n;
    char before[65], after[65];
    base_hash(base, before);
    double change =
        distance(stacked(unet_pass, unet, &item, 1, &n), once(unet_pass, unet, NULL, &n), &n);
    double f32 = distance(merged(unet_pass, unet32, SLR_PART_UNET, &item, 1, &n),
                          stacked(unet_pass, unet32, &item, 1, &n), &n);
    double f16 = distance(merged(unet_pass, unet, SLR_PART_UNET, &item, 1, &n),
                          stacked(unet_pass, unet, &item, 1, &n), &n);
    double text = distance(merged(text_pass, te, SLR_PART_TE, &item, 1, &n),
                           stacked(text_pass, te, &item, 1, &n), &n);
    print_message("change %.3g; merged against live: f32 %.3g, f16 %.3g, text (f16) %.3g\n", change,
                  f32, f16, text);
    assert_true(change > 0.05);
    assert_true(f32 <= TOL_F32);
    assert_true(f16 <= TOL_F16 && text <= TOL_F16);
    base_hash(base, after);
    assert_string_equal(before, after);
    slr_network_unref(net);
}

/* Networks of several ranks and sets of modules, and one of them twice. */
static void sums(void **state)
{
    (void)state;
    slr_network *a = make(base, LOCON, 4, 0.1),
                *b = make(base, (const char *[]){"network_dim", "7", NULL}, 5, 0.1),
                *c = make(
                    base,
                    (const char *[]){"network_dim", "1", "network_train_unet_only", "true", NULL},
                    6, 0.1);
    const slr_stack_item items[] = {
        {a, 1, 0.5, 0, {0}}, {b, 1, -1.5, 0, {0}}, {c, 1, 2, 0, {0}}, {a, 1, 0.25, 0, {0}}};
    size_t n;
    double e = distance(stacked(unet_pass, unet32, items, 4, &n),
                        merged(unet_pass, unet32, SLR_PART_UNET, items, 4, &n), &n);
    /* one by one into the weights, in another order */
    slr_weights *w = slr_weights_ref(unet32);
    for (int i = 3; i >= 0; i--) {
        slr_weights *next;
        ok(slr_merge_part(&next, NULL, devices, w, SLR_PART_UNET, &items[i], 1));
        slr_weights_unref(w);
        w = next;
    }
    double one_by_one =
        distance(stacked(unet_pass, unet32, items, 4, &n), once(unet_pass, w, NULL, &n), &n);
    double twice = 0, part = distance(stacked(unet_pass, unet32, items, 3, &n),
                                      stacked(unet_pass, unet32, items, 4, &n), &n);
    const slr_stack_item three_quarters = {a, 1, 0.75, 0, {0}}, a_twice[] = {items[0], items[3]};
    twice = distance(stacked(unet_pass, unet32, a_twice, 2, &n),
                     stacked(unet_pass, unet32, &three_quarters, 1, &n), &n);
    print_message("four at once: %.3g, one by one %.3g, one twice %.3g\n", e, one_by_one, twice);
    assert_true(e <= TOL_F32 && one_by_one <= TOL_F32 && twice <= TOL_F32);
    assert_true(part > 1e-3);
    slr_weights_unref(w);
    slr_network_unref(a);
    slr_network_unref(b);
    slr_network_unref(c);
}

static void assert_same(float *got, float *want, const size_t *n)
{
    for (size_t i = 0; i < *n; i++)
        if (got[i] != want[i])
            fail_msg("value %zu: %.9g is not %.9g", i, got[i], want[i]);
    slr_free(NULL, got);
    slr_free(NULL, want);
}

static bool differ(float *a, float *b, const size_t *n)
{
    return distance(a, b, n) > 1e-4;
}

/* One plan, many strengths: each to the bit what a new stack gives; 0 is to the bit the base. */
static void strengths(void **state)
{
    (void)state;
    slr_network *a = make(base, LOCON, 4, 0.1), *b = make(base, NULL, 5, 0.1);
    const slr_stack_item first[] = {{a, 1, 1, 0, {0}}, {b, 1, 1, 0, {0}}},
                         second[] = {{a, 0.3, -2, 0, {0}}, {b, 0, 0.5, 0, {0}}},
                         none[] = {{a, 0, 0, 0, {0}}, {b, 0, 0, 0, {0}}},
                         text[] = {{a, 0.7, 0, 0, {0}}, {b, 0.7, 0, 0, {0}}},
                         picture[] = {{a, 0, 0.7, 0, {0}}, {b, 0, 0.7, 0, {0}}};
    slr_stack *s;
    size_t n, tn;
    ok(slr_stack_new(&s, NULL, devices, base, first, 2));
    pass u = unet_pass(unet, s), t = text_pass(te, s);
    n = u.n;
    tn = t.n;
    assert_same(run(&u), stacked(unet_pass, unet, first, 2, &n), &n);
    ok(slr_stack_set(s, second, 2));
    assert_same(run(&u), stacked(unet_pass, unet, second, 2, &n), &n);
    assert_same(run(&t), stacked(text_pass, te, second, 2, &tn), &tn);
    ok(slr_stack_set(s, none, 2));
    assert_same(run(&u), once(unet_pass, unet, NULL, &n), &n);
    ok(slr_stack_set(s, text, 2));
    assert_same(run(&u), once(unet_pass, unet, NULL, &n), &n);
    assert_true(differ(run(&t), once(text_pass, te, NULL, &tn), &tn));
    ok(slr_stack_set(s, picture, 2));
    assert_same(run(&t), once(text_pass, te, NULL, &tn), &tn);
    assert_true(differ(run(&u), once(unet_pass, unet, NULL, &n), &n));

    /* weights that change later are copied when the strengths are set again */
    assert_false(slr_stack_stale(s));
    for (size_t i = 0; i < slr_network_param_count(a); i++)
        slr_network_params(a)[i] *= -1.25f;
    slr_network_touch(a);
    assert_true(slr_stack_stale(s));
    ok(slr_stack_set(s, second, 2));
    assert_false(slr_stack_stale(s));
    assert_same(run(&u), stacked(unet_pass, unet, second, 2, &n), &n);
    ok(slr_stack_set(s, picture, 2));

    /* the stack is of these networks, in this order */
    const slr_stack_item swapped[] = {{b, 1, 1, 0, {0}}, {a, 1, 1, 0, {0}}};
    assert_int_equal(slr_stack_set(s, swapped, 2), SDLORA_EINVAL);
    assert_int_equal(slr_stack_set(s, first, 1), SDLORA_EINVAL);
    assert_same(run(&t), once(text_pass, te, NULL, &tn), &tn);
    slr_plan_free(u.plan);
    slr_plan_free(t.plan);
    slr_stack_free(s);
    slr_network_unref(a);
    slr_network_unref(b);
}

/* A graph serves the next network too where layers and ranks are the same, to the bit. */
static void another_epoch(void **state)
{
    (void)state;
    slr_network *a = make(base, LOCON, 4, 0.1), *b = make(base, LOCON, 5, 0.1),
                *c = make(base, (const char *[]){"network_dim", "7", NULL}, 5, 0.1);
    const slr_stack_item first = {a, 1, 1, 0, {0}}, second = {b, 0.5, -0.7, 0, {0}},
                         wide = {c, 1, 1, 0, {0}}, few = {b, 1, 1, 1, {0}},
                         both[] = {first, second};
    const struct {
        const slr_stack_item *item;
        size_t n;
        bool alike;
    } OTHERS[] = {{&second, 1, true}, {&wide, 1, false}, {&few, 1, false}, {both, 2, false}};
    slr_stack *s, *other;
    size_t n;
    ok(slr_stack_new(&s, NULL, devices, base, &first, 1));
    pass u = unet_pass(unet, s);
    n = u.n;
    for (size_t i = 0; i < sizeof OTHERS / sizeof *OTHERS; i++) {
        ok(slr_stack_new(&other, NULL, devices, base, OTHERS[i].item, OTHERS[i].n));
        assert_int_equal(slr_stack_alike(s, other), OTHERS[i].alike);
        assert_int_equal(slr_stack_alike(other, s), OTHERS[i].alike);
        if (OTHERS[i].alike) {
            ok(slr_stack_bind(other, u.plan));
            assert_same(run(&u), stacked(unet_pass, unet, OTHERS[i].item, 1, &n), &n);
            ok(slr_stack_bind(s, u.plan));
        }
        slr_stack_free(other);
    }
    assert_same(run(&u), stacked(unet_pass, unet, &first, 1, &n), &n);
    slr_plan_free(u.plan);
    slr_stack_free(s);
    slr_network_unref(a);
    slr_network_unref(b);
    slr_network_unref(c);
}

static void removal(void **state)
{
    (void)state;
    size_t n;
    float *before = once(unet_pass, unet, NULL, &n);
    slr_network *a = make(base, LOCON, 4, 0.1);
    const slr_stack_item item = {a, 1, 1, 0, {0}};
    slr_weights *w;
    slr_free(NULL, stacked(unet_pass, unet, &item, 1, &n));
    ok(slr_merge_part(&w, NULL, devices, unet, SLR_PART_UNET, &item, 1));
    slr_weights_unref(w);
    slr_network_unref(a);
    assert_same(once(unet_pass, unet, NULL, &n), before, &n);
}

/* Block weights by layer: numbers that are all alike are a strength, and a layer of a block that
 * weighs nothing is as if the network had no such module. */
static void block_weights(void **state)
{
    (void)state;
    size_t n;
    slr_network *a = make(base, LOCON, 4, 0.1);
    slr_stack_item half = {.network = a, .te = 0.5, .unet = 0.5},
                   even = {.network = a, .te = 1, .unet = 1}, none = even, middle = even;
    even.blocks.n = none.blocks.n = middle.blocks.n = 26;
    for (int i = 0; i < 26; i++)
        even.blocks.weight[i] = 0.5;
    middle.blocks.weight[13] = 1;
    assert_same(stacked(unet_pass, unet, &half, 1, &n), stacked(unet_pass, unet, &even, 1, &n), &n);
    assert_same(stacked(text_pass, te, &half, 1, &n), stacked(text_pass, te, &even, 1, &n), &n);
    assert_same(once(unet_pass, unet, NULL, &n),
                merged(unet_pass, unet, SLR_PART_UNET, &none, 1, &n), &n);
    slr_weights *w;
    ok(slr_merge_part(&w, NULL, devices, unet, SLR_PART_UNET, &middle, 1));
    for (size_t i = 0; i < slr_network_modules(a); i++) {
        const slr_target *t = slr_network_target(a, i);
        const slr_tensor *is, *was;
        char name[256];
        if (t->part != SLR_PART_UNET)
            continue;
        snprintf(name, sizeof name, "%s.weight", t->path);
        ok(slr_weights_get(w, name, &is));
        ok(slr_weights_get(unet, name, &was));
        bool same = !memcmp(is->data, was->data, slr_tensor_bytes(was));
        assert_int_equal(same, strncmp(t->path, "mid_block.", 10) != 0);
    }
    slr_weights_unref(w);

    /* other numbers serve a stack that stands */
    slr_stack *s;
    ok(slr_stack_new(&s, NULL, devices, base, &none, 1));
    pass p = unet_pass(unet, s);
    assert_same(run(&p), once(unet_pass, unet, NULL, &n), &n);
    assert_false(slr_item_same_strength(&none, &even));
    ok(slr_stack_set(s, &even, 1));
    assert_same(run(&p), stacked(unet_pass, unet, &half, 1, &n), &n);
    slr_plan_free(p.plan);
    slr_stack_free(s);
    slr_network_unref(a);
}

/* The first two ranks of four at the scale of four, against a network that holds only these. */
static void rank_limit(void **state)
{
    (void)state;
    size_t n;
    slr_network *four =
        make(base, (const char *[]){"network_dim", "4", "network_alpha", "3", NULL}, 9, 0.1);
    slr_network *two =
        make(base, (const char *[]){"network_dim", "2", "network_alpha", "1.5", NULL}, 9, 0.1);
    for (size_t i = 0; i < slr_network_slots(two); i++) {
        const slr_network_slot *to = slr_network_slot_at(two, i),
                               *from = slr_network_slot_at(four, i);
        float *dst = slr_network_params(two) + to->offset;
        const float *src = slr_network_params(four) + from->offset;
        bool up = to->dim[0] != 2; /* [out,r]: columns; [r,in]: rows */
        for (size_t k = 0; k < to->count; k++)
            dst[k] = src[up ? k / 2 * 4 + k % 2 : k];
    }
    const slr_stack_item limited = {four, 1, 0.7, 2, {0}}, whole = {four, 1, 0.7, 0, {0}},
                         small = {two, 1, 0.7, 0, {0}};
    double same = distance(stacked(unet_pass, unet, &limited, 1, &n),
                           stacked(unet_pass, unet, &small, 1, &n), &n);
    double other = distance(stacked(unet_pass, unet, &limited, 1, &n),
                            stacked(unet_pass, unet, &whole, 1, &n), &n);
    print_message("two of four ranks: %.3g from a network of two, %.3g from all\n", same, other);
    assert_true(same <= TOL_F32 && other > 1e-3);
    slr_network_unref(four);
    slr_network_unref(two);
}

static void another_shape(void **state)
{
    (void)state;
    slr_checkpoint *other;
    slr_stack *s;
    slr_weights *w;
    ok(slr_checkpoint_shapes(&other, "sd15", &CONFIG));
    slr_network *good = make(base, NULL, 4, 0.1),
                *bad = make(other, (const char *[]){"network_dim", "1", NULL}, 4, 0.1);
    const slr_stack_item items[] = {{good, 1, 1, 0, {0}}, {bad, 1, 1, 0, {0}}};
    assert_int_equal(slr_stack_new(&s, NULL, devices, base, items, 2), SDLORA_EINVAL);
    assert_null(s);
    says("lora_te_text_model_encoder_layers_0_"); /* a name that both have */
    says("does not fit");
    assert_int_equal(slr_merge_part(&w, NULL, devices, unet, SLR_PART_UNET, items, 2),
                     SDLORA_EINVAL);
    assert_null(w);
    says("does not fit");
    slr_network_unref(good);
    slr_network_unref(bad);
    slr_checkpoint_unref(other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(third_party_file),
        cmocka_unit_test(merged_and_live),
        cmocka_unit_test(sums),
        cmocka_unit_test(strengths),
        cmocka_unit_test(another_epoch),
        cmocka_unit_test(removal),
        cmocka_unit_test(block_weights),
        cmocka_unit_test(rank_limit),
        cmocka_unit_test(another_shape),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
