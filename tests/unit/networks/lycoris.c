/* SPDX-License-Identifier: MIT */
/* Every algorithm of LyCORIS on single layers of the small checkpoint, against lycoris-lora's own
 * modules (tests/golden/lycoris.safetensors): files as it writes them, the change of the weight,
 * the output and all gradients; and new modules by network_args, which must have the same tensors.
 */
#include "drawn.h"
#include "networks/kind.h"
#include "network_test.h"

#define GOLDEN TEST_ROOT "/golden/lycoris.safetensors"
#define FULL   TEST_ROOT "/golden/lycoris_full.safetensors"
#define KEPT   240 /* make_lycoris.py */

/* f32 on both sides, sums in another order. */
#define TOL_DELTA 1e-5
#define TOL_GRAD  1e-3 /* issue 4's; products of several sums */

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

/* --- rows --- */

enum { LINEAR, CONV, GROUP_NORM, LAYER_NORM };

/* Layers by the golden's names. */
static const struct layer {
    const char *name, *path;
    int type, stride;
} SMALL_LAYERS[] = {
    {"linear", "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k", LINEAR, 0},
    {"one", "down_blocks.1.resnets.0.conv_shortcut", CONV, 1},
    {"conv", "down_blocks.1.resnets.0.conv1", CONV, 1},
    {"stride", "down_blocks.0.downsamplers.0.conv", CONV, 2},
    {"small", "conv_in", CONV, 1},
    {"groupnorm", "down_blocks.1.resnets.0.norm1", GROUP_NORM, 0},
    {"layernorm", "down_blocks.1.attentions.0.transformer_blocks.0.norm1", LAYER_NORM, 0},
    {"", "", 0, 0},
};
/* Of SD 1.5. */
static const struct layer FULL_LAYERS[] = {
    {"linear", "down_blocks.2.attentions.0.transformer_blocks.0.attn2.to_k", LINEAR, 0},
    {"one", "down_blocks.2.resnets.0.conv_shortcut", CONV, 1},
    {"conv", "down_blocks.2.resnets.0.conv1", CONV, 1},
    {"groupnorm", "down_blocks.2.resnets.0.norm1", GROUP_NORM, 0},
    {"", "", 0, 0},
};
static const struct layer *layers = SMALL_LAYERS; /* the last has no name */

/* algo: what the golden calls it; kind: whose files they are; args: network_args of a new network
 * with the same tensors (NULL: this is not tried), whose rank is dim (0: 3). */
static const struct row {
    const char *algo, *variant, *kind, *args;
    int dim;
} ROWS[] = {
    {"lora", "plain", "lora", "algo=lora", 0},
    {"lora", "tucker", "lora", "algo=locon\nuse_tucker=True", 0},
    {"lora", "dora", "lora", "algo=lora\ndora_wd=True", 0},
    {"lora", "dora_in", "lora", "algo=lora\ndora_wd=True\nwd_on_output=False", 0},
    {"lora", "rs", "lora", "algo=lora\nrs_lora=True", 0},
    {"lora", "scalar", "lora", "algo=lora\nuse_scalar=True", 0},
    {"lora", "scalar_tucker", "lora", "algo=lora\nuse_scalar=True\nuse_tucker=True", 0},
    {"loha", "plain", "loha", "algo=loha", 0},
    {"loha", "tucker", "loha", "algo=loha\nuse_tucker=True", 0},
    {"loha", "dora", "loha", "algo=loha\ndora_wd=True", 0},
    {"loha", "dora_in", "loha", "algo=loha\ndora_wd=True\nwd_on_output=False", 0},
    {"loha", "rs", "loha", "algo=loha\nrs_lora=True", 0},
    {"loha", "scalar", "loha", "algo=loha\nuse_scalar=True", 0},
    {"loha", "scalar_tucker", "loha", "algo=loha\nuse_scalar=True\nuse_tucker=True", 0},
    {"lokr", "plain", "lokr", "algo=lokr", 0},
    {"lokr", "tucker", "lokr", "algo=lokr\nuse_tucker=True", 0},
    {"lokr", "dora", "lokr", "algo=lokr\ndora_wd=True", 0},
    {"lokr", "dora_in", "lokr", "algo=lokr\ndora_wd=True\nwd_on_output=False", 0},
    {"lokr", "rs", "lokr", "algo=lokr\nrs_lora=True", 0},
    {"lokr", "scalar", "lokr", "algo=lokr\nuse_scalar=True", 0},
    {"lokr", "factor4", "lokr", "algo=lokr\nfactor=4", 0},
    {"lokr", "both", "lokr", "algo=lokr\ndecompose_both=True", 0},
    {"lokr", "both_tucker", "lokr", "algo=lokr\ndecompose_both=True\nuse_tucker=True", 0},
    {"lokr", "both_scalar", "lokr", "algo=lokr\ndecompose_both=True\nuse_scalar=True", 0},
    {"lokr", "matrix", "lokr", "algo=lokr\nfull_matrix=True", 0},
    {"lokr", "unbalanced", "lokr", "algo=lokr\nunbalanced_factorization=True", 0},
    {"lokr", "large", "lokr", "algo=lokr\nfactor=8", 100000},
    {"ia3", "plain", "ia3", "algo=ia3", 0},
    {"ia3", "input", "ia3", NULL, 0},
    {"dylora", "plain", "lora", NULL, 0},
    {"glora", "plain", "glora", "algo=glora", 0},
    {"glora", "scalar", "glora", "algo=glora\nuse_scalar=True", 0},
    {"diag-oft", "plain", "diag-oft", "algo=diag-oft", 4},
    {"diag-oft", "constraint", "diag-oft", "algo=diag-oft\nconstraint=0.01", 4},
    {"diag-oft", "rescaled", "diag-oft", "algo=diag-oft\nrescaled=True", 4},
    {"diag-oft", "loose", "diag-oft", "algo=diag-oft\nconstraint=10", 8},
    {"boft", "plain", "boft", "algo=boft", 4},
    {"boft", "constraint", "boft", "algo=boft\nconstraint=0.01", 4},
    {"boft", "rescaled", "boft", "algo=boft\nrescaled=True", 4},
    {"boft", "eight", "boft", "algo=boft", 8},
    {"full", "plain", "full", "algo=full", 0},
    {"norm", "plain", "norm", "algo=lora\ntrain_norm=True", 0},
};

/* --- a layer in a graph --- */

static float *golden_of(const char *key, const char *what, size_t *n)
{
    char name[320];
    slr_tensor t;
    snprintf(name, sizeof name, "%s.%s", key, what);
    float *x = golden_f32(&g, name, &t);
    *n = (size_t)slr_tensor_count(&t);
    return x;
}

/* The error of what is thinned here against what is kept there. */
static double error(const char *key, const char *what, const float *got, size_t n)
{
    size_t m;
    float *want = golden_of(key, what, &m), *x = slr_alloc(NULL, n * sizeof *x);
    memcpy(x, got, n * sizeof *x);
    assert_true(golden_thin(x, n, KEPT) == m);
    double e = golden_compare(x, want, m).l2;
    slr_free(NULL, x);
    slr_free(NULL, want);
    return e;
}

static void check(const char *key, const char *what, double error, double tol)
{
    if (!(error <= tol))
        fail_msg("%s: %s is off by %g (tolerance %g)", key, what, error, tol);
}

static slr_val build(slr_nn *nn, const struct layer *l, slr_val x, const slr_target *t)
{
    int pad = t->kh / 2;
    switch (l->type) {
    case LINEAR:
        return slr_nn_linear(nn, l->path, x, SLR_NONE);
    case CONV:
        return slr_nn_conv(nn, l->path, x, SLR_NONE, (slr_conv){l->stride, pad, pad, pad, pad});
    case GROUP_NORM:
        return slr_nn_group_norm(nn, l->path, x, 32, 0, 1e-5);
    default:
        return slr_nn_layer_norm(nn, l->path, x, 1e-5);
    }
}

static void put_input(slr_plan *p, const char *name, const char *which, const char *layer)
{
    char key[64];
    slr_val v;
    snprintf(key, sizeof key, "%s.%s", which, layer);
    slr_tensor t;
    float *x = golden_f32(&g, key, &t);
    ok(slr_plan_find(p, name, &v));
    memcpy(slr_plan_data(p, v), x, (size_t)slr_tensor_count(&t) * sizeof *x);
    slr_free(NULL, x);
}

static slr_val input(slr_graph *graph, const char *name, const char *which, const char *layer)
{
    char key[64];
    slr_tensor t;
    snprintf(key, sizeof key, "%s.%s", which, layer);
    assert_true(slr_safetensors_find(g.file, key, &t));
    return slr_input(graph, name, SDLORA_F32, t.rank, t.dim);
}

static void compare_gradient(slr_plan *p, const char *key, const slr_module *mod, int leaf,
                             double *worst)
{
    char name[32], what[80];
    slr_val v;
    snprintf(name, sizeof name, "g%d", leaf);
    ok(slr_plan_find(p, name, &v));
    slr_shape s = slr_plan_shape(p, v);
    size_t n = 1;
    for (int i = 0; i < s.rank; i++)
        n *= (size_t)s.dim[i];
    snprintf(what, sizeof what, "grad.%s", slr_kind_leaf(mod->kind, leaf));
    double e = error(key, what, slr_plan_data(p, v), n);
    check(key, what, e, TOL_GRAD);
    *worst = fmax(*worst, e);
}

/* Forward and backward pass of one layer with its module; grads: whether the golden has them. */
static void pass(const char *key, slr_network *n, const slr_module *mod, const struct layer *l,
                 bool grads, double *worst_y, double *worst_grad)
{
    slr_graph *graph;
    slr_plan *p;
    slr_train_hook hook;
    slr_val vals[4096], wrt[SLR_KIND_LEAVES], grad[SLR_KIND_LEAVES], v;
    int leaf[SLR_KIND_LEAVES], n_wrt = 0;
    char name[32];
    assert_true(slr_network_slots(n) <= 4096);
    ok(slr_graph_new(&graph, NULL, (slr_policy){SDLORA_F32, SDLORA_MATH_STRICT}));
    slr_train_hook_init(&hook, n, SLR_NONE, vals);
    slr_nn nn = {.g = graph, .w = unet, .part = SLR_PART_UNET, .adapter = &hook.adapter};
    slr_val y = build(&nn, l, input(graph, "x", "x", l->name), &mod->target);
    slr_val root = slr_mul(graph, y, input(graph, "dy", "dy", l->name));
    for (int i = 0; i < SLR_KIND_LEAVES; i++)
        if (slr_module_has(mod, i)) {
            leaf[n_wrt] = i;
            wrt[n_wrt++] = vals[mod->slot + (size_t)mod->at[i]];
        }
    ok(slr_graph_status(graph));
    ok(slr_graph_grad(graph, root, wrt, (size_t)n_wrt, grad));
    slr_output(graph, y, "y");
    for (int i = 0; i < n_wrt; i++) {
        snprintf(name, sizeof name, "g%d", leaf[i]);
        slr_output(graph, grad[i], name);
    }
    ok(slr_graph_status(graph));
    ok(slr_plan_new(&p, graph, devices));
    for (int i = 0; i < n_wrt; i++)
        ok(slr_plan_bind(p, wrt[i],
                         slr_network_params(n) +
                             slr_module_slot(mod, &n->slot[mod->slot], leaf[i])->offset));
    ok(slr_plan_back(p));
    put_input(p, "x", "x", l->name);
    put_input(p, "dy", "dy", l->name);
    ok(slr_plan_run(p, NULL));
    ok(slr_plan_find(p, "y", &v));
    size_t count = 1;
    slr_shape s = slr_plan_shape(p, v);
    for (int i = 0; i < s.rank; i++)
        count *= (size_t)s.dim[i];
    double e = error(key, "y", slr_plan_data(p, v), count);
    check(key, "y", e, TOL_DELTA);
    *worst_y = fmax(*worst_y, e);
    for (int i = 0; grads && i < n_wrt; i++)
        compare_gradient(p, key, mod, leaf[i], worst_grad);
    slr_plan_free(p);
    slr_graph_free(graph);
}

static bool is_path(void *user, int part, const char *path)
{
    return part == SLR_PART_UNET && !strcmp(path, user);
}

/* W' - W of the merged weight. */
static double merged(const char *key, slr_network *n, const struct layer *l, const char *leaf,
                     const char *what)
{
    char name[128];
    slr_weights *w;
    const slr_stack_item item = {n, 1, 1, 0, {0}};
    snprintf(name, sizeof name, "%s.%s", l->path, leaf);
    ok(slr_merge_layers(&w, NULL, devices, unet, SLR_PART_UNET, &item, 1, is_path,
                        (void *)l->path));
    const slr_tensor *before = slr_weights_find(unet, name), *after = slr_weights_find(w, name);
    size_t count = (size_t)slr_tensor_count(after);
    float *d = slr_alloc(NULL, count * sizeof *d);
    for (size_t i = 0; i < count; i++)
        d[i] = ((const float *)after->data)[i] - (before ? ((const float *)before->data)[i] : 0);
    double e = error(key, what, d, count);
    check(key, what, e, TOL_DELTA);
    slr_free(NULL, d);
    slr_weights_unref(w);
    return e;
}

/* --- files --- */

/* A tensor that the golden describes by deviation, mean and shape; caller frees its data. */
static slr_tensor drawn_tensor(const char *case_key, const char *leaf, const slr_tensor *told)
{
    const float *spec = told->data;
    char name[160];
    slr_tensor t = {.dtype = SDLORA_F32, .rank = (int)told->dim[0] - 2};
    for (int i = 0; i < t.rank; i++)
        t.dim[i] = (int64_t)spec[2 + i];
    size_t n = (size_t)slr_tensor_count(&t);
    float *x = slr_alloc(NULL, n * sizeof *x);
    snprintf(name, sizeof name, "%s.%s", case_key, leaf);
    draw(name, spec[0], spec[1], x, n);
    t.data = x;
    return t;
}

/* The oracle's tensors of a case, written as a file and opened as any other. */
static slr_network *open_case(const char *key)
{
    char prefix[2][96], path[64];
    slr_st_entry e[16];
    size_t n = 0, n_drawn = 0;
    void *drawn[16];
    slr_network *net;
    snprintf(prefix[0], sizeof prefix[0], "%s.net.", key);
    snprintf(prefix[1], sizeof prefix[1], "%s.draw.", key);
    for (size_t i = 0; i < slr_safetensors_count(g.file); i++) {
        slr_tensor t;
        const char *name = slr_safetensors_at(g.file, i, &t);
        bool draws = !strncmp(name, prefix[1], strlen(prefix[1]));
        if (!draws && strncmp(name, prefix[0], strlen(prefix[0])))
            continue;
        name += strlen(prefix[draws]);
        assert_true(n < 16);
        if (draws) {
            t = drawn_tensor(key, strchr(name, '.') + 1, &t);
            drawn[n_drawn++] = (void *)t.data;
        }
        e[n++] = (slr_st_entry){name, t};
    }
    assert_true(n > 0);
    ok(slr_safetensors_write(NULL, temp_file(path), e, n, NULL, 0));
    while (n_drawn)
        slr_free(NULL, drawn[--n_drawn]);
    int rc = slr_network_open(&net, NULL, base, path);
    unlink(path);
    if (rc < 0)
        fail_msg("%s: %s", key, sdlora_last_error()->message);
    return net;
}

static const slr_module *module_of(const slr_network *n, const struct layer *l)
{
    return slr_network_find(n, SLR_PART_UNET, l->path);
}

/* A new network by the row's arguments; the module of the layer gets the oracle's values. */
static slr_network *make_case(const struct row *row, const struct layer *l, const char *key)
{
    char dim[32];
    snprintf(dim, sizeof dim, "%d", row->dim ? row->dim : 3);
    const char *const pairs[] = {
        "network_module", "lycoris.kohya", "network_dim", dim, "network_alpha", "1.5",
        "network_args",   row->args,       NULL};
    slr_network *n;
    int rc = make_rc(&n, base, pairs, 1);
    if (rc < 0)
        fail_msg("%s: %s", key, sdlora_last_error()->message);
    const slr_module *mod = module_of(n, l);
    for (int i = 0; mod && i < SLR_KIND_LEAVES; i++) {
        char raw[320], net[320];
        slr_tensor t;
        const slr_network_slot *s = slr_module_slot(mod, &n->slot[mod->slot], i);
        if (!s)
            continue;
        snprintf(raw, sizeof raw, "%s.raw.%s", key, slr_kind_leaf(mod->kind, i));
        snprintf(net, sizeof net, "%s.net.%s", key, s->key);
        const char *name = slr_safetensors_find(g.file, raw, &t) ? raw : net;
        float *x = golden_f32(&g, name, &t);
        if ((size_t)slr_tensor_count(&t) != s->count)
            fail_msg("%s has %zu numbers here, not %lld", name, s->count,
                     (long long)slr_tensor_count(&t));
        memcpy(slr_network_params(n) + s->offset, x, s->count * sizeof *x);
        slr_free(NULL, x);
    }
    return n;
}

/* What is saved must be what LyCORIS saves: keys, shapes, values. */
static void saved(const char *key, const slr_network *n, const slr_module *mod)
{
    char prefix[320], path[64];
    slr_meta *meta;
    ok(slr_meta_new(&meta, NULL));
    ok(slr_netfile_save(n, temp_file(path), SDLORA_F32, meta));
    slr_meta_free(meta);
    golden file = golden_open(path);
    unlink(path);
    snprintf(prefix, sizeof prefix, "%s.net.", key);
    size_t tensors = 0;
    for (size_t i = 0; i < slr_safetensors_count(g.file); i++) {
        slr_tensor want, have;
        const char *name = slr_safetensors_at(g.file, i, &want);
        if (strncmp(name, prefix, strlen(prefix)))
            continue;
        if (!slr_safetensors_find(file.file, name + strlen(prefix), &have))
            fail_msg("%s: nothing like %s was saved", key, name + strlen(prefix));
        assert_int_equal(have.rank, want.rank);
        assert_memory_equal(have.dim, want.dim, (size_t)want.rank * sizeof *want.dim);
        float *x = golden_f32(&g, name, &want),
              *y = golden_f32(&file, name + strlen(prefix), &have);
        check(key, name, golden_compare(y, x, (size_t)slr_tensor_count(&want)).l2, 1e-6);
        slr_free(NULL, x);
        slr_free(NULL, y);
        tensors++;
    }
    for (size_t i = 0; i < slr_safetensors_count(file.file); i++) {
        slr_tensor t;
        const char *name = slr_safetensors_at(file.file, i, &t);
        size_t stem = strlen(mod->target.name);
        if (!strncmp(name, mod->target.name, stem) && name[stem] == '.')
            tensors--;
    }
    assert_true(tensors == 0); /* no tensor more either */
    golden_close(&file);
}

/* --- the tests --- */

static bool exists(const char *key)
{
    char name[320];
    slr_tensor t;
    snprintf(name, sizeof name, "%s.y", key);
    return slr_safetensors_find(g.file, name, &t);
}

static void opened_case(const struct row *row, const struct layer *l, const char *key, double e[3])
{
    char raw[320];
    slr_tensor t;
    slr_network *n = open_case(key);
    const slr_module *mod = module_of(n, l);
    assert_non_null(mod);
    assert_string_equal(mod->kind->name, row->kind);
    snprintf(raw, sizeof raw, "%s.raw.scalar", key); /* gradients are of what is not folded */
    bool folded = slr_safetensors_find(g.file, raw, &t);
    pass(key, n, mod, l, !folded, &e[1], &e[2]);
    e[0] = fmax(e[0], merged(key, n, l, "weight", "dw"));
    snprintf(raw, sizeof raw, "%s.db", key);
    if (slr_safetensors_find(g.file, raw, &t))
        e[0] = fmax(e[0], merged(key, n, l, "bias", "db"));
    slr_network_unref(n);
}

static void made_case(const struct row *row, const struct layer *l, const char *key, double e[3])
{
    slr_network *n = make_case(row, l, key);
    const slr_module *mod = module_of(n, l);
    if (mod) { /* presets may leave it out */
        pass(key, n, mod, l, true, &e[1], &e[2]);
        saved(key, n, mod);
    }
    slr_network_unref(n);
}

typedef void (*case_fn)(const struct row *row, const struct layer *l, const char *key, double e[3]);

static void each(const char *title, case_fn fn, size_t least)
{
    size_t count = 0, skipped = 0;
    for (size_t r = 0; r < sizeof ROWS / sizeof *ROWS; r++) {
        double e[3] = {0};
        size_t here = 0;
        for (const struct layer *l = layers; *l->name; l++) {
            char key[96];
            snprintf(key, sizeof key, "%s.%s.%s", ROWS[r].algo, ROWS[r].variant, l->name);
            if (!exists(key))
                continue;
            if (!slr_kind_named(ROWS[r].kind) || (fn == made_case && !ROWS[r].args)) {
                skipped++;
                continue;
            }
            fn(&ROWS[r], l, key, e);
            here++;
        }
        if (here)
            print_message("%s %s %s: %zu layers, dW %.2g, y %.2g, gradients %.2g\n", title,
                          ROWS[r].algo, ROWS[r].variant, here, e[0], e[1], e[2]);
        count += here;
    }
    print_message("%s: %zu cases, %zu left out\n", title, count, skipped);
    assert_true(skipped == 0 || fn == made_case);
    assert_true(count >= least);
}

static void opened(void **state)
{
    (void)state;
    each("file", opened_case, 110);
}

static void made(void **state)
{
    (void)state;
    each("made", made_case, 110);
}

/* Puts a tensor in the place of one that has its shape; returns its numbers. */
static float *replace(const char *path, const char *leaf, const char *name, double deviation,
                      float mean)
{
    char key[128];
    slr_tensor t;
    snprintf(key, sizeof key, "%s.%s", path, leaf);
    const slr_tensor *have = slr_weights_find(unet, key);
    if (!have)
        return NULL;
    size_t n = (size_t)slr_tensor_count(have);
    float *x = slr_alloc(NULL, n * sizeof *x);
    draw(name, deviation, mean, x, n);
    t = (slr_tensor){.dtype = SDLORA_F32, .rank = have->rank, .data = x};
    memcpy(t.dim, have->dim, sizeof t.dim);
    ok(slr_weights_put(unet, key, &t));
    return x;
}

/* Layers as large as SD 1.5's, of weights drawn by their names: the rest of the model is nothing.
 */
static void full_size(void **state)
{
    (void)state;
    slr_checkpoint *small = base;
    slr_weights *small_unet = unet;
    golden small_golden = g;
    float *kept[16];
    size_t n = 0;
    ok(slr_checkpoint_shapes(&base, "sd15", &CONFIG));
    unet = slr_checkpoint_part(base, SLR_PART_UNET);
    g = golden_open(FULL);
    layers = FULL_LAYERS;
    for (const struct layer *l = layers; *l->name; l++) {
        char name[32];
        bool norm = l->type == GROUP_NORM;
        snprintf(name, sizeof name, "W.%s", l->name);
        kept[n++] = replace(l->path, "weight", name, norm ? 0.1 : 0.03, norm);
        kept[n++] = replace(l->path, "bias", name, 0, 0);
    }
    each("full size", opened_case, 20);
    golden_close(&g);
    slr_checkpoint_unref(base);
    while (n)
        slr_free(NULL, kept[--n]);
    layers = SMALL_LAYERS;
    base = small;
    unet = small_unet;
    g = small_golden;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(opened),
        cmocka_unit_test(made),
        cmocka_unit_test(full_size),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
