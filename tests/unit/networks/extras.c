/* SPDX-License-Identifier: MIT */
/* Modules that hold more than one algorithm: sparse residuals, a change of the bias beside
 * anything, weights that are set, and rank limits in layers of several kinds; against
 * AUTOMATIC1111's classes (tests/golden/extras.safetensors).  Each case is applied, written, read
 * and applied again. */
#include "network_test.h"

#include "networks/dialect.h"
#include "networks/tools.h"

#define GOLDEN TEST_ROOT "/golden/extras.safetensors"
#define NETS   2

/* f32 on both sides, sums in another order.  Measured 3e-7. */
#define TOL_DELTA 1e-5

static slr_devices *devices;
static slr_checkpoint *base;
static slr_weights *unet; /* f32 */
static golden g;

static int setup(void **state)
{
    (void)state;
    const slr_devices_config config = {.cpu_features = slr_cpu_features(), .backend = "cpu"};
    ok(slr_devices_open(&devices, &config));
    ok(slr_checkpoint_open(&base, TINYSD, &CONFIG));
    unet = widened(slr_checkpoint_part(base, SLR_PART_UNET));
    g = golden_open(GOLDEN);
    return g.file ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    golden_close(&g);
    slr_weights_unref(unet);
    slr_checkpoint_unref(base);
    slr_devices_unref(devices);
    return 0;
}

/* As make_extras.py has them. */
static const struct extra {
    const char *name;
    double strength[NETS];
    int64_t dyn[NETS];
    bool live;
} CASES[] = {
    {"residual", {0.7, -0.5}, {0, 0}, false},
    {"live", {0.7, -0.5}, {0, 0}, true},
    {"beside", {0.7, 1}, {0, 0}, false},
    {"limit", {0.7, -0.4}, {2, 2}, false},
};
enum { N_CASES = sizeof CASES / sizeof *CASES };

/* The tensors of one network of a case; names are borrowed from the golden. */
static size_t entries(const char *name, int which, slr_st_entry e[64])
{
    char prefix[64];
    size_t n = 0;
    snprintf(prefix, sizeof prefix, "%s.%d.net.", name, which);
    for (size_t i = 0; i < slr_safetensors_count(g.file); i++) {
        slr_tensor t;
        const char *key = slr_safetensors_at(g.file, i, &t);
        if (!strncmp(key, prefix, strlen(prefix)))
            e[n++] = (slr_st_entry){key + strlen(prefix), t};
    }
    assert_true(n > 0);
    return n;
}

static slr_network *open_entries(const slr_st_entry *e, size_t n)
{
    char path[64];
    slr_network *net;
    ok(slr_safetensors_write(NULL, temp_file(path), e, n, NULL, 0));
    ok(slr_network_open(&net, NULL, base, path));
    unlink(path);
    return net;
}

static void open_case(const struct extra *c, slr_stack_item item[NETS])
{
    for (int i = 0; i < NETS; i++) {
        slr_st_entry e[64];
        size_t n = entries(c->name, i, e);
        item[i] =
            (slr_stack_item){open_entries(e, n), c->strength[i], c->strength[i], c->dyn[i], {0}};
    }
}

static void close_case(slr_stack_item item[NETS])
{
    for (int i = 0; i < NETS; i++)
        slr_network_unref(item[i].network);
}

/* What the networks change of a layer, against "<case>.<which>.<module>"; no such key: nothing. */
static double leaf_error(const char *name, const slr_stack_item item[NETS], const slr_target *t,
                         int leaf)
{
    char key[256], path[256];
    slr_weights *got;
    slr_tensor want;
    const slr_tensor *is, *was;
    bool weight = leaf == SLR_LEAF_WEIGHT;
    snprintf(key, sizeof key, "%s.%s.%s", name, weight ? "dw" : "db", t->name);
    snprintf(path, sizeof path, "%s.%s", t->path, weight ? "weight" : "bias");
    ok(slr_merge_leaf(&got, NULL, devices, unet, SLR_PART_UNET, item, NETS, t->path, leaf));
    if (!slr_safetensors_find(g.file, key, &want)) {
        assert_int_equal(slr_weights_count(got), 0);
        slr_weights_unref(got);
        return 0;
    }
    float *wanted = golden_f32(&g, key, NULL);
    size_t count = (size_t)slr_tensor_count(&want);
    was = slr_weights_find(unet, path);
    is = slr_weights_find(got, path);
    float *d = slr_calloc(NULL, count, sizeof *d);
    for (size_t i = 0; is && i < count; i++)
        d[i] = ((const float *)is->data)[i] - (was ? ((const float *)was->data)[i] : 0);
    double norm = 0;
    for (size_t i = 0; i < count; i++)
        norm += fabs(wanted[i]);
    double worst =
        norm > 0 ? golden_compare(d, wanted, count).l2 : golden_compare(d, wanted, count).max;
    slr_free(NULL, d);
    slr_free(NULL, wanted);
    slr_weights_unref(got);
    return worst;
}

static double case_error(const char *name, const slr_stack_item item[NETS])
{
    double worst = 0;
    for (int i = 0; i < NETS; i++)
        for (size_t k = 0; k < slr_network_modules(item[i].network); k++) {
            const slr_target *t = slr_network_target(item[i].network, k);
            double w = leaf_error(name, item, t, SLR_LEAF_WEIGHT),
                   b = leaf_error(name, item, t, SLR_LEAF_BIAS);
            if (w > TOL_DELTA || b > TOL_DELTA)
                print_message("%s: weight %.2g, bias %.2g\n", t->name, w, b);
            worst = fmax(worst, fmax(w, b));
        }
    return worst;
}

static void applied(void **state)
{
    (void)state;
    for (int c = 0; c < N_CASES; c++) {
        slr_stack_item item[NETS];
        open_case(&CASES[c], item);
        double error = case_error(CASES[c].name, item);
        print_message("%s: %.2g\n", CASES[c].name, error);
        assert_true(error <= TOL_DELTA);
        close_case(item);
    }
}

/* The same bytes of all values, and the same names and types, when it was written by LyCORIS. */
static void written(void **state)
{
    (void)state;
    for (int c = 0; c < N_CASES; c++) {
        slr_stack_item item[NETS], again[NETS];
        open_case(&CASES[c], item);
        for (int i = 0; i < NETS; i++) {
            char path[64];
            slr_st_entry e[64];
            slr_safetensors *file;
            ok(slr_network_save_as(item[i].network, temp_file(path), SDLORA_F16,
                                   slr_spelling_at(0)));
            ok(slr_safetensors_open(&file, NULL, path, true));
            for (size_t n = entries(CASES[c].name, i, e); n-- > 0;) {
                slr_tensor t;
                if (!slr_safetensors_find(file, e[n].name, &t))
                    fail_msg("%s is not written", e[n].name);
                if (strstr(e[n].name, ".alpha")) /* a number of the save type */
                    continue;
                assert_int_equal(t.dtype, e[n].t.dtype);
                assert_int_equal(slr_tensor_bytes(&t), slr_tensor_bytes(&e[n].t));
                assert_memory_equal(t.data, e[n].t.data, slr_tensor_bytes(&t));
            }
            slr_safetensors_close(file);
            again[i] = item[i];
            ok(slr_network_open(&again[i].network, NULL, base, path));
            unlink(path);
        }
        assert_true(case_error(CASES[c].name, again) <= TOL_DELTA);
        close_case(item);
        close_case(again);
    }
}

/* --- a layer of a graph --- */

static float *layer_out(slr_weights *w, slr_stack *s, const slr_target *t, size_t *n)
{
    slr_graph *graph;
    slr_plan *p;
    slr_val v;
    slr_adapter adapter = s ? slr_stack_adapter(s) : (slr_adapter){0};
    const int64_t dim[4] = {1, 5, 4, t->in};
    ok(slr_graph_new(&graph, NULL, (slr_policy){.storage = SDLORA_F32}));
    slr_nn nn = {.g = graph, .w = w, .part = SLR_PART_UNET, .adapter = s ? &adapter : NULL};
    slr_val x = slr_input(graph, "x", SDLORA_F32, 4, dim);
    int pad = (int)t->kh / 2;
    slr_val y = t->conv ? slr_nn_conv(&nn, t->path, x, SLR_NONE, (slr_conv){1, pad, pad, pad, pad})
                        : slr_nn_linear(&nn, t->path, x, SLR_NONE);
    slr_output(graph, y, "y");
    ok(slr_graph_status(graph));
    *n = (size_t)(20 * t->out);
    ok(slr_plan_new(&p, graph, devices));
    slr_graph_free(graph);
    if (s)
        ok(slr_stack_bind(s, p));
    ok(slr_plan_find(p, "x", &v));
    for (int64_t i = 0; i < 20 * t->in; i++)
        ((float *)slr_plan_data(p, v))[i] = (float)sin((double)(i + 1));
    ok(slr_plan_run(p, NULL));
    ok(slr_plan_find(p, "y", &v));
    float *out = slr_alloc(NULL, *n * sizeof *out);
    memcpy(out, slr_plan_data(p, v), *n * sizeof *out);
    slr_plan_free(p);
    return out;
}

/* Factors and biases ride along, and another strength needs no new graph. */
static void biases_live(void **state)
{
    (void)state;
    const struct extra *c = &CASES[1];
    slr_stack_item item[NETS];
    slr_stack *s;
    slr_weights *merged;
    open_case(c, item);
    for (int turn = 0; turn < 2; turn++) {
        ok(turn ? SDLORA_OK : slr_stack_new(&s, NULL, devices, base, item, NETS));
        item[0].unet = turn ? -1.5 : item[0].unet;
        if (turn)
            ok(slr_stack_set(s, item, NETS));
        assert_true(slr_stack_live(s));
        ok(slr_merge_part(&merged, NULL, devices, unet, SLR_PART_UNET, item, NETS));
        for (size_t k = 0; k < slr_network_modules(item[0].network); k++) {
            const slr_target *t = slr_network_target(item[0].network, k);
            size_t n;
            float *live = layer_out(unet, s, t, &n), *want = layer_out(merged, NULL, t, &n),
                  *plain = layer_out(unet, NULL, t, &n);
            assert_true(golden_compare(live, want, n).l2 <= TOL_DELTA);
            assert_true(golden_compare(live, plain, n).l2 > 1e-2);
            slr_free(NULL, live);
            slr_free(NULL, want);
            slr_free(NULL, plain);
        }
        slr_weights_unref(merged);
    }
    slr_stack_free(s);
    close_case(item);
}

static void rebuilt_or_live(void **state)
{
    (void)state;
    for (int c = 0; c < N_CASES; c++) {
        slr_stack_item item[NETS];
        slr_stack *s;
        open_case(&CASES[c], item);
        ok(slr_stack_new(&s, NULL, devices, base, item, NETS));
        assert_int_equal(slr_stack_live(s), CASES[c].live);
        slr_stack_free(s);
        close_case(item);
    }
}

/* --- tools --- */

/* The sum of both networks does what they do one after the other: they don't depend on W. */
static void summed(void **state)
{
    (void)state;
    const struct extra *c = &CASES[1];
    const slr_tool tool = {.devices = devices, .base = base};
    slr_stack_item item[NETS];
    slr_network *sum;
    sdlora_options *o;
    open_case(c, item);
    ok(slr_options_new(&o, NULL, "merge"));
    ok(slr_network_combine(&sum, &tool, item, NETS, (slr_opt){o, "merge"}));
    slr_stack_item one[NETS] = {{sum, 1, 1, 0, {0}}, {sum, 0, 0, 0, {0}}};
    assert_true(case_error(c->name, one) <= TOL_DELTA);
    slr_network_unref(sum);
    slr_options_unref(o);
    close_case(item);
}

/* All ranks are enough: a smaller network of the same changes, the residual within the factors. */
static void resized(void **state)
{
    (void)state;
    const slr_tool tool = {.devices = devices, .base = base};
    for (int c = 0; c < 2; c++) {
        slr_stack_item item[NETS];
        slr_network *small;
        sdlora_options *o;
        open_case(&CASES[c], item);
        ok(slr_options_new(&o, NULL, "resize"));
        ok(slr_options_set_text(o, "new_rank", "64"));
        ok(slr_network_resize(&small, &tool, item[0].network, (slr_opt){o, "resize"}));
        for (size_t i = 0; i < slr_network_modules(small); i++)
            assert_false(slr_module_has(&small->module[i], SLR_LEAF_SPARSE));
        slr_network_unref(item[0].network);
        item[0].network = small;
        assert_true(case_error(CASES[c].name, item) <= TOL_DELTA);
        slr_options_unref(o);
        close_case(item);
    }
}

/* Dialects that have no place for it say so. */
static void dialects(void **state)
{
    (void)state;
    static const struct {
        int of;
        const char *dialect, *word;
    } rows[] = {{0, "diffusers", "sparse residual"}, {1, "diffusers-old", "change of a bias"}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        slr_stack_item item[NETS];
        const slr_spelling *spelling;
        char path[64];
        open_case(&CASES[rows[i].of], item);
        ok(slr_spelling_named(&spelling, rows[i].dialect));
        assert_int_equal(
            slr_network_save_as(item[0].network, temp_file(path), SDLORA_F32, spelling),
            SDLORA_ENOTSUP);
        says(rows[i].word);
        ok(slr_spelling_named(&spelling, "lycoris"));
        ok(slr_network_save_as(item[0].network, path, SDLORA_F32, spelling));
        slr_network_unref(item[0].network);
        ok(slr_network_open(&item[0].network, NULL, base, path));
        assert_true(case_error(CASES[rows[i].of].name, item) <= TOL_DELTA);
        unlink(path);
        close_case(item);
    }
}

/* --- hostile files --- */

static void broken(void **state)
{
    (void)state;
    static const int16_t size[2] = {64, 65}, three[3] = {1, 2, 3};
    static const int16_t outside[2] = {128, 0}, negative[2] = {0, -1};
    static const float half[2] = {0.5f, 0}, value = 1, bad[2] = {1, NAN};
    static const struct {
        const char *leaf;
        slr_tensor t; /* no data: the tensor is left out */
        const char *word;
    } ROWS[] = {
        {"bias_indices", {0}, "bias_indices is missing"},
        {"bias_values", {0}, "bias_values is missing"},
        {"bias_size", {.dtype = SDLORA_I16, .rank = 1, .dim = {2}, .data = size}, "says [64,65]"},
        {"bias_size", {.dtype = SDLORA_I16, .rank = 1, .dim = {3}, .data = three}, "[2]"},
        {"bias_indices", {.dtype = SDLORA_I16, .rank = 1, .dim = {2}, .data = size}, "[2,values]"},
        {"bias_indices",
         {.dtype = SDLORA_I16, .rank = 2, .dim = {2, 1}, .data = outside},
         "outside of the weight"},
        {"bias_indices",
         {.dtype = SDLORA_I16, .rank = 2, .dim = {2, 1}, .data = negative},
         "outside of the weight"},
        {"bias_indices",
         {.dtype = SDLORA_F32, .rank = 2, .dim = {2, 1}, .data = half},
         "outside of the weight"},
        {"bias_indices",
         {.dtype = SDLORA_F32, .rank = 2, .dim = {2, 1}, .data = bad},
         "outside of the weight"},
        {"bias_values",
         {.dtype = SDLORA_F32, .rank = 1, .dim = {1}, .data = &value},
         "bias_values"},
        {"diff_b", {.dtype = SDLORA_F32, .rank = 1, .dim = {1}, .data = &value}, "diff_b"},
    };
    char path[64];
    temp_file(path);
    for (size_t i = 0; i < sizeof ROWS / sizeof *ROWS; i++) {
        slr_st_entry e[64], kept[65];
        char key[256] = "";
        slr_network *net;
        size_t n = entries("residual", 0, e), m = 0;
        for (size_t k = 0; k < n; k++) {
            bool linear = strstr(e[k].name, "attn2_to_k.") != NULL;
            if (linear)
                snprintf(key, sizeof key, "%.*s.%s", (int)strcspn(e[k].name, "."), e[k].name,
                         ROWS[i].leaf);
            if (linear && slr_ends(e[k].name, ROWS[i].leaf))
                continue;
            kept[m++] = e[k];
        }
        if (ROWS[i].t.data)
            kept[m++] = (slr_st_entry){key, ROWS[i].t};
        ok(slr_safetensors_write(NULL, path, kept, m, NULL, 0));
        int rc = slr_network_open(&net, NULL, base, path);
        if (rc != SDLORA_EFORMAT)
            fail_msg("%s, %s: %d", ROWS[i].leaf, ROWS[i].word, rc);
        assert_null(net);
        says(ROWS[i].word);
        says(path);
    }
    unlink(path);
}

/* A run that takes its modules from such a file trains its biases, and refuses a residual. */
static void trained(void **state)
{
    (void)state;
    sdlora_options *o = options((const char *const[]){"network_dim", "4", NULL});
    for (int c = 0; c < 2; c++) {
        slr_stack_item item[NETS];
        slr_network *n = NULL;
        open_case(&CASES[c], item);
        int rc = slr_network_make_like(&n, base, o, item[0].network);
        assert_int_equal(rc, c ? SDLORA_OK : SDLORA_ENOTSUP);
        if (rc < 0)
            says("sparse residual");
        for (size_t i = 0; n && i < slr_network_slots(n); i++)
            assert_true(slr_network_slot_at(n, i)->lr_scale > 0);
        slr_network_unref(n);
        close_case(item);
    }
    slr_options_unref(o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(applied),         cmocka_unit_test(written), cmocka_unit_test(biases_live),
        cmocka_unit_test(rebuilt_or_live), cmocka_unit_test(summed),  cmocka_unit_test(resized),
        cmocka_unit_test(dialects),        cmocka_unit_test(broken),  cmocka_unit_test(trained),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
