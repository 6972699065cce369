/* SPDX-License-Identifier: MIT */
/* T-LoRA on single layers of the small checkpoint against lycoris-lora
 * (tests/golden/tlora.safetensors): what it begins with, the change of the weight, output and
 * gradients, the ranks of timesteps; its files, and what is refused. */
#include <math.h>

#include "base/str.h"
#include "failing.h"
#include "networks/dialect.h"
#include "networks/kind.h"
#include "tools_test.h"

#define GOLDEN TEST_ROOT "/golden/tlora.safetensors"
#define KEPT   240 /* make_lycoris.py */

/* Of a singular value decomposition in f32 there, and of the difference of two products.  Measured
 * 9e-7 and 3e-6. */
#define TOL_FIRST  1e-5
#define TOL_CHANGE 3e-5
#define TOL_GRAD   1e-4 /* measured 2e-6 */

enum { Q = 0, P = 1, LAMBDA = 2, BEGUN = 3 };

static slr_weights *unet; /* f32 */
static golden g;

static int setup(void **state)
{
    int rc = tools_setup(state);
    unet = widened(slr_checkpoint_part(base, SLR_PART_UNET));
    g = golden_open(GOLDEN);
    return g.file ? rc : -1;
}

static int teardown(void **state)
{
    golden_close(&g);
    slr_weights_unref(unet);
    return tools_teardown(state);
}

static const struct layer {
    const char *name, *path;
    bool conv;
} LAYERS[] = {
    {"linear", "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k", false},
    {"one", "down_blocks.1.resnets.0.conv_shortcut", true},
};
enum { N_LAYERS = 2 };

static const struct row {
    const char *variant, *dim, *args;
    bool begins; /* the file leaves what it began with to the weight */
    bool drawn;  /* not from the weight: another one here */
} ROWS[] = {
    {"principal", "3", "algo=tlora", true, false},
    {"wide", "40", "algo=tlora\nsig_type=principal\nmask_group_id=0", true, false},
    {"middle", "3", "algo=tlora\nsig_type=middle", false, false},
    {"last", "3", "algo=tlora\nsig_type=last", false, false},
    {"random", "3", "algo=tlora\nuse_data_init=False", false, true},
};
enum { N_ROWS = sizeof ROWS / sizeof *ROWS };

/* Relative error of x, thinned, against `<key>.<what>`. */
static double error(const char *key, const char *what, const float *x, size_t n)
{
    char name[160];
    slr_tensor t;
    snprintf(name, sizeof name, "%s%s%s", key, *what ? "." : "", what);
    float *want = golden_f32(&g, name, &t), *got = slr_alloc(NULL, n * sizeof *got);
    memcpy(got, x, n * sizeof *x);
    assert_int_equal(golden_thin(got, n, KEPT), slr_tensor_count(&t));
    double e = golden_compare(got, want, (size_t)slr_tensor_count(&t)).l2;
    slr_free(NULL, got);
    slr_free(NULL, want);
    return e;
}

static const char *key_of(char key[64], const struct row *row, const struct layer *l)
{
    snprintf(key, 64, "tlora.%s.%s", row->variant, l->name);
    return key;
}

/* The oracle's tensors `<key>.net.*` as a file; but not the one that ends in `without`. */
static void write_case(const char *path, const char *key, const char *without)
{
    char prefix[96];
    slr_st_entry e[16];
    size_t n = 0;
    snprintf(prefix, sizeof prefix, "%s.net.", key);
    for (size_t i = 0; i < slr_safetensors_count(g.file); i++) {
        slr_tensor t;
        const char *name = slr_safetensors_at(g.file, i, &t);
        if (strncmp(name, prefix, strlen(prefix)) || (without && slr_ends(name, without)))
            continue;
        assert_true(n < 16);
        e[n++] = (slr_st_entry){name + strlen(prefix), t};
    }
    assert_true(n >= 3);
    ok(slr_safetensors_write(NULL, path, e, n, NULL, 0));
}

static slr_network *open_case(const char *key)
{
    char path[64];
    slr_network *n;
    write_case(temp_file(path), key, NULL);
    ok(slr_network_open(&n, NULL, base, path));
    unlink(path);
    return n;
}

static slr_network *make_args(const char *dim, const char *args)
{
    slr_network *n;
    ok(make_rc(&n, base,
               (const char *[]){"network_module", "lycoris.kohya", "network_dim", dim,
                                "network_alpha", "1.5", "network_args", args, NULL},
               1));
    return n;
}

/* P diag(l) Q of the three leaves from `leaf` on; caller frees. */
static float *product(const slr_network *n, const slr_module *mod, int leaf)
{
    const slr_network_slot *slots = &n->slot[mod->slot];
    const float *q = n->params + slr_module_slot(mod, slots, leaf + Q)->offset,
                *p = n->params + slr_module_slot(mod, slots, leaf + P)->offset,
                *l = n->params + slr_module_slot(mod, slots, leaf + LAMBDA)->offset;
    int64_t in = mod->target.in, r = mod->rank;
    float *d = slr_alloc(NULL, (size_t)(mod->target.out * in) * sizeof *d);
    for (int64_t o = 0; o < mod->target.out; o++)
        for (int64_t i = 0; i < in; i++) {
            double sum = 0;
            for (int64_t k = 0; k < r; k++)
                sum += (double)p[o * r + k] * l[k] * q[k * in + i];
            d[o * in + i] = (float)sum;
        }
    return d;
}

static double first_error(const char *key, const slr_network *n, const slr_module *mod)
{
    float *d = product(n, mod, BEGUN);
    double e = error(key, "first", d, (size_t)(mod->target.out * mod->target.in));
    slr_free(NULL, d);
    return e;
}

/* W' - W of the merged weight. */
static double change_error(const char *key, slr_network *n, const struct layer *l)
{
    char name[SLR_LAYER_KEY];
    slr_weights *w;
    const slr_stack_item item = {n, 1, 1, 0, {0}};
    slr_nn_path(name, "%s.weight", l->path);
    ok(slr_merge_part(&w, NULL, devices, unet, SLR_PART_UNET, &item, 1));
    const slr_tensor *before = slr_weights_find(unet, name), *after = slr_weights_find(w, name);
    size_t count = (size_t)slr_tensor_count(after);
    float *d = slr_alloc(NULL, count * sizeof *d);
    for (size_t i = 0; i < count; i++)
        d[i] = ((const float *)after->data)[i] - ((const float *)before->data)[i];
    double e = error(key, "dw", d, count);
    slr_free(NULL, d);
    slr_weights_unref(w);
    return e;
}

static slr_val input(slr_graph *graph, const char *which, const struct layer *l)
{
    char key[64];
    slr_tensor t;
    snprintf(key, sizeof key, "%s.%s", which, l->name);
    assert_true(slr_safetensors_find(g.file, key, &t));
    return slr_input(graph, which, SDLORA_F32, t.rank, t.dim);
}

static void put_input(slr_plan *p, const char *which, const struct layer *l)
{
    char key[64];
    slr_val v;
    slr_tensor t;
    snprintf(key, sizeof key, "%s.%s", which, l->name);
    float *x = golden_f32(&g, key, &t);
    ok(slr_plan_find(p, which, &v));
    memcpy(slr_plan_data(p, v), x, (size_t)slr_tensor_count(&t) * sizeof *x);
    slr_free(NULL, x);
}

static double value_error(slr_plan *p, const char *name, const char *key, const char *what)
{
    slr_val v;
    size_t n = 1;
    ok(slr_plan_find(p, name, &v));
    slr_shape s = slr_plan_shape(p, v);
    for (int i = 0; i < s.rank; i++)
        n *= (size_t)s.dim[i];
    return error(key, what, slr_plan_data(p, v), n);
}

/* Forward and backward pass of one layer with its module: the errors of both. */
static void pass(const char *key, slr_network *n, const slr_module *mod, const struct layer *l,
                 double *y_error, double *grad_error)
{
    static const char *const grads[] = {"grad.q_layer.weight", "grad.p_layer.weight",
                                        "grad.lambda_layer"};
    slr_graph *graph;
    slr_plan *p;
    slr_train_hook hook;
    slr_val vals[6], wrt[3], grad[3];
    assert_int_equal(slr_network_slots(n), 6);
    ok(slr_graph_new(&graph, NULL, (slr_policy){SDLORA_F32, SDLORA_MATH_STRICT}));
    slr_train_hook_init(&hook, n, SLR_NONE, vals);
    slr_nn nn = {.g = graph, .w = unet, .part = SLR_PART_UNET, .adapter = &hook.adapter};
    slr_val x = input(graph, "x", l),
            y = l->conv ? slr_nn_conv(&nn, l->path, x, SLR_NONE, (slr_conv){1, 0, 0, 0, 0})
                        : slr_nn_linear(&nn, l->path, x, SLR_NONE);
    for (int i = 0; i < 3; i++)
        wrt[i] = vals[mod->at[i]];
    ok(slr_graph_grad(graph, slr_mul(graph, y, input(graph, "dy", l)), wrt, 3, grad));
    slr_output(graph, y, "y");
    for (int i = 0; i < 3; i++)
        slr_output(graph, grad[i], grads[i]);
    ok(slr_graph_status(graph));
    ok(slr_plan_new(&p, graph, devices));
    for (int i = 0; i < 6; i++)
        ok(slr_plan_bind(p, vals[mod->at[i]],
                         n->params + slr_module_slot(mod, &n->slot[mod->slot], i)->offset));
    ok(slr_plan_back(p));
    put_input(p, "x", l);
    put_input(p, "dy", l);
    ok(slr_plan_run(p, NULL));
    *y_error = fmax(*y_error, value_error(p, "y", key, "y"));
    for (int i = 0; i < 3; i++)
        *grad_error = fmax(*grad_error, value_error(p, grads[i], key, grads[i]));
    slr_plan_free(p);
    slr_graph_free(graph);
}

static void layers(void **state)
{
    (void)state;
    double first = 0, change = 0, y = 0, grad = 0;
    for (size_t i = 0; i < N_ROWS * N_LAYERS; i++) {
        const struct row *row = &ROWS[i / N_LAYERS];
        const struct layer *l = &LAYERS[i % N_LAYERS];
        char key[64];
        slr_network *n = open_case(key_of(key, row, l));
        const slr_module *mod = slr_network_find(n, SLR_PART_UNET, l->path);
        assert_ptr_equal(mod->kind, &slr_kind_tlora);
        first = fmax(first, first_error(key, n, mod));
        change = fmax(change, change_error(key, n, l));
        pass(key, n, mod, l, &y, &grad);
        slr_network_unref(n);
    }
    print_message("first %.2g, change %.2g, y %.2g, gradients %.2g\n", first, change, y, grad);
    assert_true(first <= TOL_FIRST && change <= TOL_CHANGE && y <= TOL_FIRST && grad <= TOL_GRAD);
}

/* The change of every layer of the UNet is exactly none. */
static void does_nothing(slr_network *n)
{
    slr_weights *w;
    const slr_stack_item item = {n, 1, 1, 0, {0}};
    ok(slr_merge_part(&w, NULL, devices, unet, SLR_PART_UNET, &item, 1));
    for (size_t i = 0; i < slr_weights_count(unet); i++) {
        const slr_tensor *before, *after;
        const char *name = slr_weights_at(unet, i, &before);
        after = slr_weights_find(w, name);
        assert_memory_equal(after->data, before->data, slr_tensor_bytes(before));
    }
    slr_weights_unref(w);
}

/* What is saved is what LyCORIS saves, and its buffers where they can't be found again; opening
 * and saving gives the same tensors. */
static void files(const slr_network *n, const struct row *row)
{
    static const char *const leaves[] = {"q_layer.weight", "p_layer.weight", "lambda_layer",
                                         "alpha",          "base_q",         "base_p",
                                         "base_lambda"};
    char path[2][64], hash[2][65], name[160];
    slr_network *again;
    slr_tensor t;
    ok(slr_network_save_as(n, temp_file(path[0]), SDLORA_F32, slr_spelling_at(0)));
    golden file = golden_open(path[0]);
    assert_int_equal(slr_safetensors_count(file.file), n->n_modules * (row->begins ? 4 : 7));
    for (size_t i = 0; i < (row->begins ? 4 : 7); i++) {
        snprintf(name, sizeof name, "%s.%s", n->module[0].target.name, leaves[i]);
        assert_true(slr_safetensors_find(file.file, name, &t));
    }
    golden_close(&file);
    ok(slr_network_open(&again, NULL, base, path[0]));
    assert_int_equal(again->n_slots, n->n_slots);
    for (size_t i = 0; i < n->n_slots; i++) {
        const slr_network_slot *s = &n->slot[i];
        const slr_target *to = &n->module[s->module].target;
        const slr_module *mod = slr_network_find(again, s->part, to->path);
        assert_memory_equal(again->params +
                                slr_module_slot(mod, &again->slot[mod->slot], s->leaf)->offset,
                            n->params + s->offset, s->count * sizeof *n->params);
    }
    ok(slr_network_save_as(again, temp_file(path[1]), SDLORA_F32, slr_spelling_at(0)));
    for (int i = 0; i < 2; i++)
        ok(slr_hash_tensors(path[i], hash[i]));
    assert_string_equal(hash[0], hash[1]);
    slr_network_unref(again);
    unlink(path[0]);
    unlink(path[1]);
}

static void new_networks(void **state)
{
    (void)state;
    char key[64];
    for (size_t i = 0; i < N_ROWS; i++) {
        const struct row *row = &ROWS[i];
        slr_network *n = make_args(row->dim, row->args);
        for (size_t k = 0; k < n->n_modules; k++)
            assert_int_equal(n->module[k].target.kh * n->module[k].target.kw, 1);
        for (size_t k = 0; k < n->n_slots; k++)
            assert_true(n->slot[k].leaf < BEGUN ? n->slot[k].lr_scale == 1
                                                : n->slot[k].lr_scale == 0);
        for (size_t k = 0; k < N_LAYERS; k++) {
            const slr_module *mod = slr_network_find(n, SLR_PART_UNET, LAYERS[k].path);
            double e = first_error(key_of(key, row, &LAYERS[k]), n, mod);
            assert_true(row->drawn ? e > 0.1 : e <= TOL_FIRST);
            assert_true(mod->scale == 1.5 / strtod(row->dim, NULL));
        }
        does_nothing(n);
        files(n, row);
        slr_network_unref(n);
    }
}

/* What was not the first singular vectors of a file's weight is kept in the network's file. */
static void begun_elsewhere(void **state)
{
    (void)state;
    slr_network *last = make_args("3", ROWS[3].args), *n = make_args("3", ROWS[0].args);
    ok(slr_network_load_into(n, last));
    files(n, &ROWS[3]);
    slr_network_unref(last);
    slr_network_unref(n);

    slr_checkpoint *made;
    ok(slr_checkpoint_synthetic(&made, "tiny", SDLORA_F16, 1, &CONFIG));
    const char *pairs[] = {"network_module", "lycoris.kohya", "network_dim", "3",
                           "network_args",   "algo=tlora",    NULL};
    ok(make_rc(&n, made, pairs, 1));
    for (size_t k = 0; k < n->n_modules; k++)
        assert_false(n->module[k].begins);
    slr_network_unref(n);
    slr_checkpoint_unref(made);
}

/* rs_lora is unheard, as in LyCORIS. */
static void unheard(void **state)
{
    (void)state;
    slr_network *n = make_args("4", "algo=tlora\nrs_lora=True");
    assert_true(n->module[0].alpha == 1.5 && n->module[0].scale == 1.5 / 4);
    slr_network_unref(n);
}

/* A network whose mask is of the row's rank, least rank and exponent. */
static slr_network *make_masked(const float *row)
{
    char dim[16], args[96];
    snprintf(dim, sizeof dim, "%d", (int)row[1]);
    snprintf(args, sizeof args, "algo=tlora\npreset=attn-only\ntlora_min_rank=%d\ntlora_alpha=%g",
             (int)row[2], (double)row[3]);
    slr_network *n = make_args(dim, args);
    assert_int_equal(slr_network_mask_width(n), (int)row[1]);
    return n;
}

static void ranks_of_timesteps(void **state)
{
    (void)state;
    slr_tensor t;
    slr_network *n = NULL;
    float *of = golden_f32(&g, "masks.of", &t), *want = golden_f32(&g, "masks.ranks", NULL);
    assert_true(t.dim[0] > 50);
    for (int64_t i = 0; i < t.dim[0]; i++) {
        const float *row = of + 4 * i;
        float mask[32], sum = 0;
        if (!i || memcmp(row + 1, row - 3, 3 * sizeof *row) != 0) {
            slr_network_unref(n);
            n = make_masked(row);
        }
        slr_network_timestep_mask(n, row[0], 1000, mask);
        for (int k = 0; k < (int)row[1]; k++) {
            assert_true(mask[k] == 1 || (mask[k] == 0 && (k + 1 == (int)row[1] || !mask[k + 1])));
            sum += mask[k];
        }
        if (sum != want[i])
            fail_msg("t %g, %g of %g ranks, exponent %g: %g ranks, not %g", row[0], row[2], row[1],
                     row[3], sum, want[i]);
    }
    slr_network_unref(n);
    n = make_args("4", "algo=tlora");
    assert_int_equal(slr_network_mask_width(n), 0);
    slr_network_unref(n);
    slr_free(NULL, of);
    slr_free(NULL, want);
}

/* ---- refused ---- */

static void bad_arguments(void **state)
{
    (void)state;
    static const char *const rows[][2] = {{"algo=tlora\nsig_type=best", "sig_type=best"},
                                          {"algo=tlora\ntlora_min_rank=0", "tlora_min_rank"}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        slr_network *n;
        assert_int_equal(make_rc(&n, base,
                                 (const char *[]){"network_module", "lycoris.kohya", "network_args",
                                                  rows[i][0], NULL},
                                 1),
                         SDLORA_EINVAL);
        says(rows[i][1]);
    }
}

static void bad_files(void **state)
{
    (void)state;
    static const char *const rows[][3] = {
        {"tlora.principal.linear", "p_layer.weight", "p_layer.weight is missing"},
        {"tlora.last.linear", "base_p", "only some of base_q"},
        {"tlora.last.one", "base_lambda", "only some of base_q"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char path[64];
        slr_network *n;
        write_case(temp_file(path), rows[i][0], rows[i][1]);
        assert_int_equal(slr_network_open(&n, NULL, base, path), SDLORA_EFORMAT);
        says(rows[i][2]);
        says(path);
        unlink(path);
    }
}

/* One tensor of every leaf in turn has a row too many, and then the file is a convolution's. */
static void bad_shapes(void **state)
{
    (void)state;
    static const char *const leaves[] = {"q_layer.weight", "p_layer.weight", "lambda_layer",
                                         "base_q",         "base_p",         "base_lambda"};
    static const char *const module =
        "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k";
    static float zeros[4096];
    for (size_t bad = 0; bad <= 6; bad++) {
        char path[64], name[6][160];
        slr_st_entry e[6];
        slr_network *n;
        for (size_t i = 0; i < 6; i++) {
            char from[200];
            slr_tensor t, like;
            snprintf(from, sizeof from, "tlora.last.linear.net.%s.%s", module, leaves[i]);
            assert_true(slr_safetensors_find(g.file, from, &like));
            t = (slr_tensor){.dtype = SDLORA_F32, .rank = 2, .data = zeros};
            memcpy(t.dim, like.dim, sizeof t.dim);
            t.dim[i % 3 == 2] += i == bad;
            snprintf(name[i], sizeof name[i], "%s.%s", bad == 6 ? "lora_unet_conv_in" : module,
                     leaves[i]);
            e[i] = (slr_st_entry){name[i], t};
        }
        ok(slr_safetensors_write(NULL, temp_file(path), e, 6, NULL, 0));
        assert_int_equal(slr_network_open(&n, NULL, base, path), SDLORA_EFORMAT);
        says(bad == 6 ? "not a layer that tlora can adapt" : leaves[bad ? bad : 1]);
        unlink(path);
    }
}

/* Tools know it by its weight: with the checkpoint it becomes a LoRA, and without it is refused. */
static void tools(void **state)
{
    (void)state;
    char key[64], path[64];
    slr_network *n = open_case(key_of(key, &ROWS[0], &LAYERS[0])), *lora;
    sdlora_options *o = tool_options("resize", (const char *[]){"new_rank", "6", NULL});
    ok(slr_network_resize(&lora, &tool, n, (slr_opt){o, "resize"}));
    assert_ptr_equal(lora->module[0].kind, &slr_kind_lora);
    /* two ranks for each: nothing is lost */
    assert_true(change_error(key, lora, &LAYERS[0]) <= TOL_CHANGE);
    slr_network_unref(lora);

    slr_tool hollow = tool;
    hollow.hollow = true;
    assert_int_equal(slr_network_resize(&lora, &hollow, n, (slr_opt){o, "resize"}), SDLORA_ENOTSUP);
    says("tlora, which changes a layer by its weights");
    slr_network_unref(n);

    slr_checkpoint *shapes;
    write_case(temp_file(path), key, NULL);
    ok(slr_checkpoint_for_network(&shapes, path, &CONFIG));
    ok(slr_network_open(&n, NULL, shapes, path));
    slr_network_unref(n);
    slr_checkpoint_unref(shapes);
    unlink(path);
    slr_options_unref(o);
}

/* ---- memory ---- */

static void failed_allocations(void **state)
{
    (void)state;
    char path[64], key[64];
    int rc = -1;
    write_case(temp_file(path), key_of(key, &ROWS[0], &LAYERS[0]), NULL);
    for (int64_t k = 0; rc < 0; k++) {
        failing f = {.left = k};
        const slr_mem_hooks hooks = {fail_alloc, fail_realloc, fail_free, &f};
        slr_mem *m;
        slr_network *n;
        assert_true(k < 100000);
        rc = slr_mem_new(&m, &hooks, 0);
        if (rc >= 0) {
            rc = slr_network_open(&n, m, base, path);
            if (rc >= 0)
                slr_network_unref(n);
            slr_mem_unref(m);
        }
        if (rc < 0 && rc != SDLORA_ENOMEM)
            fail_msg("allocation %d: %s", (int)k, sdlora_last_error()->message);
        assert_int_equal(f.held, 0);
    }
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(layers),
                                       cmocka_unit_test(new_networks),
                                       cmocka_unit_test(begun_elsewhere),
                                       cmocka_unit_test(unheard),
                                       cmocka_unit_test(ranks_of_timesteps),
                                       cmocka_unit_test(bad_arguments),
                                       cmocka_unit_test(bad_files),
                                       cmocka_unit_test(bad_shapes),
                                       cmocka_unit_test(tools),
                                       cmocka_unit_test(failed_allocations)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
