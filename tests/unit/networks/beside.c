/* SPDX-License-Identifier: MIT */
/* Biases, set weights and residuals beside factors: in sums and averages of networks, in a look at
 * a file, in a merge into a model file, and while they are trained. */
#include "tools_test.h"

#include "io/json.h"
#include "networks/info.h"

#define TOL    1e-5 /* sums in another order */

#define LINEAR "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_out_0"
#define OTHER  "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_ff_net_2"
#define BARE   "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q" /* no bias */

static slr_weights *unet; /* f32 */

static int setup(void **state)
{
    int rc = tools_setup(state);
    unet = widened(slr_checkpoint_part(base, SLR_PART_UNET));
    return rc;
}

static int teardown(void **state)
{
    slr_weights_unref(unet);
    return tools_teardown(state);
}

/* ---- files ---- */

typedef struct file {
    slr_st_entry e[16];
    char name[16][128];
    size_t n;
    slr_rng rng;
} file;

static const slr_target *target_of(const char *module, slr_targets *t)
{
    const slr_target *x = target_named(t, module, strlen(module));
    assert_non_null(x);
    return x;
}

static void put(file *f, const char *module, const char *leaf, int rank, const int64_t *dim,
                double size)
{
    slr_tensor t = {.dtype = SDLORA_F32, .rank = rank};
    memcpy(t.dim, dim, (size_t)rank * sizeof *dim);
    size_t n = (size_t)slr_tensor_count(&t);
    float *x = slr_calloc(NULL, n + 1, sizeof *x);
    slr_rng_normal(&f->rng, x, n);
    for (size_t i = 0; i < n; i++)
        x[i] *= (float)size;
    t.data = x;
    snprintf(f->name[f->n], sizeof f->name[0], "%s.%s", module, leaf);
    f->e[f->n] = (slr_st_entry){f->name[f->n], t};
    f->n++;
}

static void begin(file *f, uint32_t seed)
{
    *f = (file){0};
    slr_rng_init(&f->rng, 11, SLR_STREAM_INIT, seed);
}

/* Two ranks, no alpha: the scale is 1. */
static void put_lora(file *f, slr_targets *t, const char *module)
{
    const slr_target *x = target_of(module, t);
    put(f, module, "lora_down.weight", 2, (int64_t[]){2, x->in}, 0.3);
    put(f, module, "lora_up.weight", 2, (int64_t[]){x->out, 2}, 0.3);
}

static void put_bias(file *f, slr_targets *t, const char *module)
{
    put(f, module, "diff_b", 1, &target_of(module, t)->out, 0.5);
}

static const char *written(file *f, char path[64])
{
    ok(slr_safetensors_write(NULL, temp_file(path), f->e, f->n, NULL, 0));
    for (size_t i = 0; i < f->n; i++)
        slr_free(NULL, (void *)f->e[i].t.data);
    return path;
}

static slr_network *open_file(file *f)
{
    char path[64];
    slr_network *n;
    ok(slr_network_open(&n, NULL, base, written(f, path)));
    unlink(path);
    return n;
}

/* ---- what networks do ---- */

/* The changed leaf minus the base's; NULL: it is not changed. */
static float *change_of(const slr_stack_item *item, size_t n, const slr_target *t, int leaf,
                        size_t *count)
{
    char name[SLR_LAYER_KEY];
    slr_weights *w;
    slr_nn_path(name, leaf == SLR_LEAF_WEIGHT ? "%s.weight" : "%s.bias", t->path);
    ok(slr_merge_leaf(&w, NULL, devices, unet, SLR_PART_UNET, item, n, t->path, leaf));
    const slr_tensor *is = slr_weights_find(w, name), *was = slr_weights_find(unet, name);
    *count = is ? (size_t)slr_tensor_count(is) : 0;
    float *d = is ? slr_calloc(NULL, *count, sizeof *d) : NULL;
    for (size_t i = 0; i < *count; i++)
        d[i] = ((const float *)is->data)[i] - (was ? ((const float *)was->data)[i] : 0);
    slr_weights_unref(w);
    return d;
}

/* One network alone against others together, with all that they change multiplied by `times`. */
static void same_changes(slr_network *got, const slr_stack_item *want, size_t n, double times)
{
    const slr_stack_item one = {got, 1, 1, 0, {0}};
    for (size_t k = 0; k < n; k++)
        for (size_t i = 0; i < 2 * want[k].network->n_modules; i++) {
            const slr_target *t = slr_network_target(want[k].network, i / 2);
            int leaf = i % 2 ? SLR_LEAF_BIAS : SLR_LEAF_WEIGHT;
            size_t a, b;
            float *x = change_of(&one, 1, t, leaf, &a), *y = change_of(want, n, t, leaf, &b);
            for (size_t j = 0; j < b; j++)
                y[j] *= (float)times;
            assert_int_equal(a, b);
            assert_true(!a || golden_compare(x, y, a).l2 <= TOL);
            slr_free(NULL, x);
            slr_free(NULL, y);
        }
}

static int combine(slr_network **out, const slr_stack_item *item, size_t n,
                   const char *const *pairs)
{
    sdlora_options *o = tool_options("merge", pairs);
    int rc = slr_network_combine(out, &tool, item, n, (slr_opt){o, "merge"});
    slr_options_unref(o);
    return rc;
}

static const slr_module *module_named(const slr_network *n, const char *name)
{
    for (size_t i = 0; i < n->n_modules; i++)
        if (!strcmp(n->module[i].target.name, name))
            return &n->module[i];
    fail_msg("%s is missing", name);
    return NULL;
}

/* ---- the tests ---- */

/* A bias that stands alone makes no whole weight of what is beside it in the sum. */
static void summed(void **state)
{
    (void)state;
    slr_targets *t;
    file f;
    slr_network *sum;
    ok(slr_targets_new(&t, NULL, base));
    begin(&f, 1);
    put_lora(&f, t, LINEAR);
    put_bias(&f, t, LINEAR);
    slr_network *a = open_file(&f);
    begin(&f, 2);
    put_bias(&f, t, LINEAR);
    put_bias(&f, t, OTHER);
    slr_network *b = open_file(&f);
    const slr_stack_item item[] = {{a, 0.7, 0.7, 0, {0}}, {b, -0.5, -0.5, 0, {0}}};
    ok(combine(&sum, item, 2, NULL));
    assert_int_equal(sum->n_modules, 2);
    const slr_module *x = module_named(sum, LINEAR), *y = module_named(sum, OTHER);
    assert_ptr_equal(x->kind, &slr_kind_lora);
    assert_int_equal(x->rank, 2);
    assert_true(slr_module_has(x, SLR_LEAF_DIFF_B));
    assert_ptr_equal(y->kind, &slr_kind_full);
    assert_false(slr_module_has(y, 0));
    same_changes(sum, item, 2, 1);
    survives(sum);
    slr_network_unref(sum);

    /* by singular values too */
    ok(combine(&sum, item, 2,
               (const char *[]){"method", "svd", "new_rank", "2", "clamp_quantile", "0", NULL}));
    assert_ptr_equal(module_named(sum, LINEAR)->kind, &slr_kind_lora);
    same_changes(sum, item, 2, 1);
    slr_network_unref(sum);
    slr_network_unref(a);
    slr_network_unref(b);
    slr_targets_free(t);
}

/* The average has the square of a ratio before the product of factors, and before biases. */
static void averaged(void **state)
{
    (void)state;
    slr_targets *t;
    file f;
    slr_network *sum;
    ok(slr_targets_new(&t, NULL, base));
    begin(&f, 3);
    put_lora(&f, t, LINEAR);
    put_bias(&f, t, LINEAR);
    slr_network *a = open_file(&f);
    for (int turn = 0; turn < 2; turn++) {
        double ratio = turn ? -0.5 : 0.5;
        const slr_stack_item item = {a, ratio, ratio, 0, {0}}, one = {a, 1, 1, 0, {0}};
        ok(combine(&sum, &item, 1, (const char *[]){"method", "average", NULL}));
        same_changes(sum, &one, 1, ratio * fabs(ratio));
        slr_network_unref(sum);
    }
    slr_network_unref(a);
    slr_targets_free(t);
}

/* A new weight instead of a change: only an approximation stands beside factors. */
static void set_weights(void **state)
{
    (void)state;
    slr_targets *t;
    file f;
    slr_network *sum;
    ok(slr_targets_new(&t, NULL, base));
    const slr_target *x = target_of(LINEAR, t);
    begin(&f, 4);
    put(&f, LINEAR, "set_weight", 2, (int64_t[]){x->out, x->in}, 0.1);
    put_lora(&f, t, OTHER);
    slr_network *a = open_file(&f);
    const slr_stack_item item = {a, 1, 1, 0, {0}};
    assert_int_equal(combine(&sum, &item, 1, NULL), SDLORA_EINVAL);
    says("is set, which has no two factors");
    ok(combine(&sum, &item, 1, (const char *[]){"new_rank", "512", NULL}));
    same_changes(sum, &item, 1, 1);
    slr_network_unref(sum);
    slr_network_unref(a);
    slr_targets_free(t);
}

/* A residual is named; one of no values is none. */
static void residuals(void **state)
{
    (void)state;
    slr_targets *t;
    file f;
    slr_network *sum, *a;
    ok(slr_targets_new(&t, NULL, base));
    for (int64_t n = 0; n < 2; n++) {
        begin(&f, 5);
        put_lora(&f, t, LINEAR);
        put(&f, LINEAR, "bias_indices", 2, (int64_t[]){2, n}, 0); /* at 0, 0 */
        put(&f, LINEAR, "bias_values", 1, &n, 0.5);
        a = open_file(&f);
        const slr_stack_item item = {a, 1, 1, 0, {0}};
        assert_int_equal(slr_module_has(module_named(a, LINEAR), SLR_LEAF_SPARSE), n);
        assert_int_equal(combine(&sum, &item, 1, NULL), n ? SDLORA_EINVAL : SDLORA_OK);
        if (n)
            says("is lora with a sparse residual, which has no two factors");
        slr_network_unref(sum);
        assert_int_equal(combine(&sum, &item, 1, (const char *[]){"method", "average", NULL}),
                         n ? SDLORA_EINVAL : SDLORA_OK);
        if (n)
            says("is lora with a sparse residual, and factors");
        slr_network_unref(sum);
        slr_network_unref(a);
    }
    slr_targets_free(t);
}

static void looks(void **state)
{
    (void)state;
    static const struct {
        bool bare, set, lora; /* on OTHER, on LINEAR, on LINEAR or on BARE */
        const char *algorithm;
        int modules, full, of_lora;
    } ROWS[] = {{true, false, false, "full", 1, 1, 0},
                {true, false, true, "lora", 2, 1, 1},
                {false, true, true, "lora", 2, 0, 1},
                {false, true, false, "set", 1, 0, 0}};
    slr_targets *t;
    ok(slr_targets_new(&t, NULL, base));
    const slr_target *x = target_of(LINEAR, t);
    for (size_t i = 0; i < sizeof ROWS / sizeof *ROWS; i++) {
        char path[64], *text;
        file f;
        json_t *j;
        begin(&f, 6);
        if (ROWS[i].set)
            put(&f, LINEAR, "set_weight", 2, (int64_t[]){x->out, x->in}, 0.1);
        if (ROWS[i].lora) {
            const char *module = ROWS[i].set ? BARE : LINEAR;
            if (!ROWS[i].set)
                put_bias(&f, t, module);
            put_lora(&f, t, module);
        }
        if (ROWS[i].bare)
            put_bias(&f, t, OTHER);
        ok(slr_file_info(&text, NULL, (slr_log){0}, written(&f, path), false));
        unlink(path);
        ok(slr_json_parse(&j, text, strlen(text), path));
        json_t *n = json_object_get(j, "network"), *all = json_object_get(n, "algorithms");
        assert_string_equal(json_string_value(json_object_get(j, "kind")), "lora");
        assert_string_equal(json_string_value(json_object_get(n, "algorithm")), ROWS[i].algorithm);
        assert_int_equal(json_integer_value(json_object_get(n, "modules")), ROWS[i].modules);
        assert_int_equal(json_integer_value(json_object_get(all, "full")), ROWS[i].full);
        assert_int_equal(json_integer_value(json_object_get(all, "lora")), ROWS[i].of_lora);
        json_decref(j);
        slr_free(NULL, text);
    }
    slr_targets_free(t);
}

/* The file has to have what is changed. */
static void no_such_bias(void **state)
{
    (void)state;
    char path[64];
    slr_targets *t;
    file f;
    uint64_t size;
    ok(slr_targets_new(&t, NULL, base));
    begin(&f, 7);
    put_lora(&f, t, BARE);
    put_bias(&f, t, BARE);
    slr_network *a = open_file(&f);
    const slr_stack_item item = {a, 1, 1, 0, {0}};
    temp_file(path);
    assert_int_equal(slr_merge_file(&tool, &item, 1, NULL, path, (slr_opt){NULL, "merge"}),
                     SDLORA_EINVAL);
    says("has no bias that a network could change");
    ok(slr_file_size(path, &size));
    assert_int_equal(size, 0);
    unlink(path);
    slr_network_unref(a);
    slr_targets_free(t);
}

/* y = x (W + up down)' + b + diff_b over 20 rows: the gradient of sum(y) by each bias is 20. */
static void trained(void **state)
{
    (void)state;
    slr_targets *t;
    file f;
    slr_graph *g;
    slr_plan *p;
    slr_train_hook hook;
    slr_val vals[3], grad, v;
    ok(slr_targets_new(&t, NULL, base));
    begin(&f, 8);
    put_lora(&f, t, LINEAR);
    put_bias(&f, t, LINEAR);
    slr_network *from = open_file(&f), *n;
    sdlora_options *o = options((const char *const[]){"network_dim", "4", NULL});
    ok(slr_network_make_like(&n, base, o, from));
    const slr_module *mod = &n->module[0];
    const slr_target *x = &mod->target;
    const slr_network_slot *slot = slr_module_slot(mod, n->slot, SLR_LEAF_DIFF_B);
    float before[2];

    ok(slr_graph_new(&g, NULL, (slr_policy){SDLORA_F32, SDLORA_MATH_STRICT}));
    slr_train_hook_init(&hook, n, SLR_NONE, vals);
    slr_nn nn = {.g = g, .w = unet, .part = SLR_PART_UNET, .adapter = &hook.adapter};
    slr_val in = slr_input(g, "x", SDLORA_F32, 2, (int64_t[]){20, x->in});
    slr_val y = slr_nn_linear(&nn, x->path, in, SLR_NONE);
    slr_val at = vals[mod->at[SLR_LEAF_DIFF_B]];
    assert_true(at != SLR_NONE);
    ok(slr_graph_grad(g, slr_affine(g, y, 1.0, 0.0), &at, 1, &grad));
    slr_output(g, grad, "grad");
    slr_output(g, y, "y");
    ok(slr_graph_status(g));
    ok(slr_plan_new(&p, g, devices));
    for (int i = 0; i < 3; i++)
        ok(slr_plan_bind(p, vals[i], n->params + n->slot[i].offset));
    ok(slr_plan_back(p));
    for (int turn = 0; turn < 2; turn++) {
        ok(slr_plan_find(p, "x", &v));
        memset(slr_plan_data(p, v), 0, (size_t)(20 * x->in) * sizeof(float));
        ok(slr_plan_run(p, NULL));
        ok(slr_plan_find(p, "y", &v));
        before[turn] = ((const float *)slr_plan_data(p, v))[0];
        n->params[slot->offset] += 0.25f;
    }
    assert_true(fabs(before[1] - before[0] - 0.25) < 1e-6);
    ok(slr_plan_find(p, "grad", &v));
    for (int64_t i = 0; i < x->out; i++)
        assert_true(((const float *)slr_plan_data(p, v))[i] == 20);
    slr_plan_free(p);
    slr_graph_free(g);
    slr_options_unref(o);
    slr_network_unref(n);
    slr_network_unref(from);
    slr_targets_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(summed),    cmocka_unit_test(averaged), cmocka_unit_test(set_weights),
        cmocka_unit_test(residuals), cmocka_unit_test(looks),    cmocka_unit_test(no_such_bias),
        cmocka_unit_test(trained)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
