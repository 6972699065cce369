/* SPDX-License-Identifier: MIT */
/* Kinds besides lycoris.c: rotations as other programs write them, against sd-scripts and PEFT
 * (tests/golden/oft.safetensors); GLoRA's old files; mutants of files of every kind; and gradients
 * where activations are bf16 and rebuilt weights f32. */
#include "networks/kind.h"
#include "network_test.h"

#define GOLDEN TEST_ROOT "/golden/oft.safetensors"
#define KEPT   240 /* make_lycoris.py */

static slr_devices *devices;
static slr_checkpoint *base;
static slr_weights *unet; /* f32 */
static golden g;
static char path[64];
static void *zeros; /* contents of bent tensors */
static const size_t ROOM = 64u << 20;

static int setup(void **state)
{
    (void)state;
    const slr_devices_config config = {.cpu_features = slr_cpu_features(), .backend = "cpu"};
    ok(slr_devices_open(&devices, &config));
    ok(slr_checkpoint_open(&base, TINYSD, &CONFIG));
    unet = widened(slr_checkpoint_part(base, SLR_PART_UNET));
    g = golden_open(GOLDEN);
    zeros = slr_calloc(NULL, 1, ROOM);
    temp_file(path);
    return g.file && zeros ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    unlink(path);
    slr_free(NULL, zeros);
    golden_close(&g);
    slr_weights_unref(unet);
    slr_checkpoint_unref(base);
    slr_devices_unref(devices);
    return 0;
}

/* --- rotations of other programs --- */

static const struct form {
    const char *name, *kind, *layers;
} FORMS[] = {
    {"kohya", "diag-oft", "linear one conv"}, {"kohya_loose", "diag-oft", "linear one conv"},
    {"diag", "oft-old", "linear one conv"},   {"peft", "oft-v2", "linear"},
    {"peft_shared", "oft-v2", "linear"},      {"onetrainer", "oft-v2", "one conv"},
};

static slr_network *open_case(const char *key)
{
    char prefix[96];
    slr_st_entry e[8];
    size_t n = 0;
    slr_network *net;
    snprintf(prefix, sizeof prefix, "%s.net.", key);
    for (size_t i = 0; i < slr_safetensors_count(g.file); i++) {
        slr_tensor t;
        const char *name = slr_safetensors_at(g.file, i, &t);
        if (!strncmp(name, prefix, strlen(prefix))) {
            assert_true(n < 8);
            e[n++] = (slr_st_entry){name + strlen(prefix), t};
        }
    }
    ok(slr_safetensors_write(NULL, path, e, n, NULL, 0));
    ok(slr_network_open(&net, NULL, base, path));
    assert_int_equal(slr_network_modules(net), 1);
    return net;
}

static double error(const char *key, const char *what, float *x, size_t n)
{
    char name[96];
    slr_tensor t;
    snprintf(name, sizeof name, "%s.%s", key, what);
    float *want = golden_f32(&g, name, &t);
    size_t m = golden_thin(x, n, KEPT);
    assert_true((size_t)slr_tensor_count(&t) == m);
    double e = golden_compare(x, want, m).l2;
    slr_free(NULL, want);
    return e;
}

/* D, and the gradient of sum(D cos i) by the first leaf, in `grad` if that is wanted. */
static float *delta_of(slr_network *n, size_t *count, float *grad)
{
    const slr_module *mod = &n->module[0];
    const slr_target *t = &mod->target;
    const slr_layer layer = {.conv = t->conv, .out = t->out, .in = t->in, .kh = t->kh, .kw = t->kw};
    const slr_network_slot *slot = &n->slot[mod->slot];
    int64_t dim[4] = {t->out, t->in, t->kh, t->kw};
    int rank = t->kh > 1 ? 4 : 2;
    char name[128];
    slr_graph *graph;
    slr_plan *p;
    slr_val v, by;
    ok(slr_graph_new(&graph, NULL, (slr_policy){SDLORA_F32, SDLORA_MATH_STRICT}));
    slr_apply a = {.g = graph, .network = n, .layer = &layer, .seed = SLR_NONE, .strength = 1};
    for (int i = 0; i < SLR_KIND_LEAVES; i++) {
        const slr_network_slot *s = slr_module_slot(mod, slot, i);
        a.param[i] = s ? slr_param(graph, s->key, s->rank, s->dim) : SLR_NONE;
    }
    slr_val w = slr_input(graph, "w", SDLORA_F32, rank, dim);
    slr_val d = mod->kind->delta(&a, mod, w);
    slr_val root = slr_mul(graph, d, slr_input(graph, "c", SDLORA_F32, rank, dim));
    ok(slr_graph_grad(graph, root, &a.param[0], 1, &by));
    slr_output(graph, d, "d");
    slr_output(graph, by, "by");
    ok(slr_plan_new(&p, graph, devices));
    for (int i = 0; i < SLR_KIND_LEAVES; i++)
        if (a.param[i] != SLR_NONE)
            ok(slr_plan_bind(p, a.param[i],
                             slr_network_params(n) + slr_module_slot(mod, slot, i)->offset));
    ok(slr_plan_back(p));
    snprintf(name, sizeof name, "%s.weight", t->path);
    const slr_tensor *weight = slr_weights_find(unet, name);
    *count = (size_t)slr_tensor_count(weight);
    ok(slr_plan_find(p, "w", &v));
    memcpy(slr_plan_data(p, v), weight->data, *count * sizeof(float));
    ok(slr_plan_find(p, "c", &v));
    for (size_t i = 0; i < *count; i++)
        ((float *)slr_plan_data(p, v))[i] = (float)cos((double)i);
    ok(slr_plan_run(p, NULL));
    float *out = slr_alloc(NULL, *count * sizeof *out);
    ok(slr_plan_find(p, "d", &v));
    memcpy(out, slr_plan_data(p, v), *count * sizeof *out);
    ok(slr_plan_find(p, "by", &v));
    if (grad)
        memcpy(grad, slr_plan_data(p, v), slot->count * sizeof *grad);
    slr_plan_free(p);
    slr_graph_free(graph);
    return out;
}

/* f32 on both sides.  PEFT's change is a difference of outputs near 1, some tenth as large. */
static void rotations(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof FORMS / sizeof *FORMS; i++) {
        char layers[32], *save = NULL;
        strcpy(layers, FORMS[i].layers);
        for (char *l = strtok_r(layers, " ", &save); l; l = strtok_r(NULL, " ", &save)) {
            char key[64];
            size_t count;
            double by = 0;
            snprintf(key, sizeof key, "%s.%s", FORMS[i].name, l);
            slr_network *n = open_case(key);
            assert_string_equal(n->module[0].kind->name, FORMS[i].kind);
            float *grad = slr_alloc(NULL, n->slot[0].count * sizeof *grad);
            float *d = delta_of(n, &count, grad);
            double e = error(key, "dw", d, count);
            if (!strncmp(key, "kohya", 5))
                by = error(key, "grad.oft_blocks", grad, n->slot[0].count);
            print_message("%s: dW %.2g, gradient %.2g\n", key, e, by);
            assert_true(e <= 1e-5);
            assert_true(by <= 1e-3);
            slr_free(NULL, d);
            slr_free(NULL, grad);
            slr_network_unref(n);
        }
    }
}

/* --- files of each kind --- */

static golden saved(const slr_network *n, uint32_t dtype)
{
    slr_meta *meta;
    ok(slr_meta_new(&meta, NULL));
    ok(slr_netfile_save(n, path, dtype, meta));
    slr_meta_free(meta);
    golden f = golden_open(path);
    unlink(path);
    return f;
}

static slr_network *made(const char *args, const char *dim, double size)
{
    const char *const pairs[] = {
        "network_module", "lycoris.kohya", "network_dim", dim, "network_args", args, NULL};
    return make(base, pairs, 7, size);
}

/* Old files of GLoRA call 1 what is 2 now; the change is the same to the last bit. */
static void old_glora(void **state)
{
    (void)state;
    enum { MANY = 1200 };
    slr_network *now = made("algo=glora", "3", 0.1), *old;
    golden f = saved(now, SDLORA_F32);
    slr_st_entry *e = slr_calloc(NULL, MANY, sizeof *e);
    char(*name)[192] = slr_calloc(NULL, MANY, sizeof *name);
    size_t n = slr_safetensors_count(f.file);
    assert_true(n <= MANY);
    for (size_t i = 0; i < n; i++) {
        snprintf(name[i], sizeof *name, "%s", slr_safetensors_at(f.file, i, &e[i].t));
        e[i].name = name[i];
        char *dot = strrchr(name[i], '.');
        if (!strcmp(dot, ".weight"))
            dot[-1] = dot[-1] == '1' ? '2' : '1';
    }
    ok(slr_safetensors_write(NULL, path, e, n, NULL, 0));
    ok(slr_network_open(&old, NULL, base, path));
    assert_int_equal(slr_network_modules(old), slr_network_modules(now));
    for (size_t i = 0; i < slr_network_modules(old); i++)
        assert_true(old->module[i].marked && !now->module[i].marked);
    slr_weights *a, *b;
    const slr_stack_item x = {now, 1, 1, 0, {0}}, y = {old, 1, 1, 0, {0}};
    ok(slr_merge_part(&a, NULL, devices, unet, SLR_PART_UNET, &x, 1));
    ok(slr_merge_part(&b, NULL, devices, unet, SLR_PART_UNET, &y, 1));
    for (size_t i = 0; i < slr_weights_count(a); i++) {
        const slr_tensor *t, *u;
        const char *key = slr_weights_at(a, i, &t);
        ok(slr_weights_get(b, key, &u));
        assert_memory_equal(t->data, u->data, slr_tensor_bytes(t));
    }
    slr_weights_unref(a);
    slr_weights_unref(b);
    slr_network_unref(now);
    slr_network_unref(old);
    slr_free(NULL, name);
    slr_free(NULL, e);
    golden_close(&f);
}

/* --- mutants --- */

#define LINEAR_ "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k"
#define ONE     "lora_unet_down_blocks_0_attentions_0_proj_in"
#define CONV_   "lora_unet_down_blocks_0_resnets_0_conv1"
#define TEXT    "lora_te_text_model_encoder_layers_0_self_attn_q_proj"
#define NORM_   "lora_unet_down_blocks_0_resnets_0_norm1"
#define NORM2   "lora_unet_mid_block_attentions_0_transformer_blocks_0_norm2"

static const struct victim {
    const char *args, *dim, *module[4];
} VICTIMS[] = {
    {"algo=ia3", "4", {LINEAR_, ONE, CONV_, TEXT}},
    {"algo=glora", "3", {LINEAR_, ONE, CONV_, TEXT}},
    {"algo=diag-oft\nrescaled=True", "4", {LINEAR_, ONE, CONV_, TEXT}},
    {"algo=boft\nrescaled=True", "8", {LINEAR_, ONE, CONV_, TEXT}},
    {"algo=full", "4", {LINEAR_, ONE, CONV_, TEXT}},
    {"algo=full\ntrain_norm=True", "4", {NORM_, NORM2, NORM_, NORM2}},
};

/* Each bends t; false: this tensor cannot be bent that way. */
static bool bend(slr_tensor *t, int how)
{
    static const uint32_t strange[] = {SDLORA_I64, SDLORA_BOOL, SDLORA_U8, SDLORA_I32};
    int axis = how / 4;
    if (how < 4 * 4) { /* an axis longer, shorter, empty, doubled */
        static const int add[] = {1, -1, 0, 0};
        if (axis >= t->rank)
            return false;
        t->dim[axis] += add[how % 4];
        t->dim[axis] *= how % 4 == 2 ? 0 : how % 4 == 3 ? 2 : 1;
        return t->dim[axis] >= 0;
    }
    if (how < 20) {
        t->dtype = strange[how - 16];
        return t->rank > 0; /* numbers may be of any type */
    }
    if (how == 20) { /* more axes than there are kinds for */
        t->dim[t->rank++] = 2;
        return true;
    }
    if (how == 21) { /* swapped */
        if (t->rank < 2)
            return false;
        int64_t first = t->dim[0];
        t->dim[0] = t->dim[t->rank - 1];
        t->dim[t->rank - 1] = first;
        return t->dim[0] != first;
    }
    t->rank = 0;
    return how == 22;
}

enum { BENDS = 23 };

/* A file like f in which tensor `at` was bent; NULL for `to`: it is dropped. */
static void write_like(const golden *f, size_t at, const slr_tensor *to)
{
    size_t n = slr_safetensors_count(f->file), k = 0;
    slr_st_entry *e = slr_calloc(NULL, n, sizeof *e);
    for (size_t i = 0; i < n; i++) {
        e[k].name = slr_safetensors_at(f->file, i, &e[k].t);
        if (i == at && to)
            e[k].t = *to;
        k += i != at || to;
    }
    ok(slr_safetensors_write(NULL, path, e, k, NULL, 0));
    slr_free(NULL, e);
}

/* What has as many numbers as before may be taken, since files differ in axes of length 1. */
static size_t bend_all(const golden *f, size_t at, const char *module)
{
    size_t count = 0;
    slr_tensor was;
    const char *key = slr_safetensors_at(f->file, at, &was);
    for (int how = 0; how < BENDS; how++) {
        slr_tensor t = was;
        slr_network *n;
        if (!bend(&t, how))
            continue;
        t.data = zeros;
        assert_true(slr_tensor_bytes(&t) <= ROOM);
        write_like(f, at, &t);
        int rc = slr_network_open(&n, NULL, base, path);
        count++;
        if (rc >= 0) {
            bool fewer = how == 1 && was.rank == 4 && strstr(key, ".oft_blocks"); /* stages */
            if (!fewer && (slr_tensor_count(&t) != slr_tensor_count(&was) || t.dtype != was.dtype))
                fail_msg("%s, bent in way %d, was taken", key, how);
            slr_network_unref(n);
            continue;
        }
        if (rc != SDLORA_EFORMAT)
            fail_msg("%s, way %d: %d: %s", key, how, rc, sdlora_last_error()->message);
        assert_null(n);
        says(path);
        says(module);
    }
    return count;
}

/* A module without one of its tensors: refused, or what is left is a module too. */
static void drop(const golden *f, size_t at)
{
    slr_network *n;
    write_like(f, at, NULL);
    int rc = slr_network_open(&n, NULL, base, path);
    assert_true(rc >= 0 || rc == SDLORA_EFORMAT || rc == SDLORA_ENOTSUP);
    if (rc >= 0)
        slr_network_unref(n);
    else
        says(path);
}

static void mutants(void **state)
{
    (void)state;
    char before[65], after[65];
    base_hash(base, before);
    for (size_t v = 0; v < sizeof VICTIMS / sizeof *VICTIMS; v++) {
        slr_network *n = made(VICTIMS[v].args, VICTIMS[v].dim, 0.1);
        golden f = saved(n, SDLORA_F16);
        size_t count = 0;
        slr_network_unref(n);
        for (int m = 0; m < 4; m++)
            for (size_t i = 0; i < slr_safetensors_count(f.file); i++) {
                slr_tensor t;
                const char *key = slr_safetensors_at(f.file, i, &t), *name = VICTIMS[v].module[m];
                if (strncmp(key, name, strlen(name)) || key[strlen(name)] != '.')
                    continue;
                count += 1 + bend_all(&f, i, name);
                drop(&f, i);
            }
        print_message("%s: %zu mutants\n", VICTIMS[v].args, count);
        assert_true(count >= 60);
        golden_close(&f);
        base_hash(base, after);
        assert_string_equal(before, after);
    }
}

/* --- bf16 --- */

enum { LINEAR, CONV, GROUP, LAYER };

static const struct layer {
    const char *path;
    int type;
    int64_t dim[4]; /* of x */
} LAYERS[] = {
    {"down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_k", LINEAR, {2, 3, 4, 0}},
    {"down_blocks.1.resnets.0.conv1", CONV, {1, 6, 5, 0}},
    {"down_blocks.1.resnets.0.norm1", GROUP, {1, 6, 5, 0}},
    {"down_blocks.1.attentions.0.transformer_blocks.0.norm1", LAYER, {2, 3, 4, 0}},
};

static slr_val build(slr_nn *nn, const struct layer *l, slr_val x)
{
    switch (l->type) {
    case LINEAR:
        return slr_nn_linear(nn, l->path, x, SLR_NONE);
    case CONV:
        return slr_nn_conv(nn, l->path, x, SLR_NONE, (slr_conv){1, 1, 1, 1, 1});
    case GROUP:
        return slr_nn_group_norm(nn, l->path, x, 32, SDLORA_ACT_SILU, 1e-5);
    default:
        return slr_nn_layer_norm(nn, l->path, x, 1e-5);
    }
}

/* Gradients of sum(y c) by all leaves of the layer's module, one after the other. */
static size_t gradients(slr_network *n, const struct layer *l, uint32_t storage, float *to)
{
    const slr_module *mod = slr_network_find(n, SLR_PART_UNET, l->path);
    slr_graph *graph;
    slr_plan *p;
    slr_train_hook hook;
    slr_val *vals = slr_calloc(NULL, slr_network_slots(n), sizeof *vals), wrt[4], grad[4], v;
    int n_wrt = 0, at[4];
    int64_t dim[4] = {l->dim[0], l->dim[1], l->dim[2],
                      mod->target.norm ? mod->target.out : mod->target.in};
    assert_non_null(mod);
    ok(slr_graph_new(&graph, NULL, (slr_policy){storage, SDLORA_MATH_STRICT}));
    slr_train_hook_init(&hook, n, SLR_NONE, vals);
    slr_nn nn = {.g = graph, .w = unet, .part = SLR_PART_UNET, .adapter = &hook.adapter};
    slr_val x = slr_input(graph, "x", SDLORA_F32, 4, dim);
    slr_val y = slr_cast(graph, build(&nn, l, slr_nn_store(&nn, x)), SDLORA_F32);
    slr_shape s = slr_shape_of(graph, y);
    slr_val c = slr_input(graph, "c", SDLORA_F32, s.rank, s.dim);
    for (int i = 0; i < SLR_KIND_LEAVES; i++)
        if (slr_module_has(mod, i)) {
            at[n_wrt] = mod->at[i];
            wrt[n_wrt++] = vals[mod->slot + (size_t)mod->at[i]];
        }
    ok(slr_graph_grad(graph, slr_mul(graph, y, c), wrt, (size_t)n_wrt, grad));
    for (int i = 0; i < n_wrt; i++) {
        char name[4] = {'g', (char)('0' + i), 0, 0};
        assert_int_equal(slr_shape_of(graph, grad[i]).dtype, SDLORA_F32);
        slr_output(graph, grad[i], name);
    }
    ok(slr_plan_new(&p, graph, devices));
    for (int i = 0; i < n_wrt; i++)
        ok(slr_plan_bind(p, wrt[i],
                         slr_network_params(n) + n->slot[mod->slot + (size_t)at[i]].offset));
    ok(slr_plan_back(p));
    for (int k = 0; k < 2; k++) {
        ok(slr_plan_find(p, k ? "c" : "x", &v));
        slr_shape shape = slr_plan_shape(p, v);
        size_t m = 1;
        slr_rng r;
        for (int i = 0; i < shape.rank; i++)
            m *= (size_t)shape.dim[i];
        slr_rng_init(&r, 3, SLR_STREAM_INIT, (uint32_t)k);
        slr_rng_normal(&r, slr_plan_data(p, v), m);
    }
    ok(slr_plan_run(p, NULL));
    size_t count = 0;
    for (int i = 0; i < n_wrt; i++) {
        char name[4] = {'g', (char)('0' + i), 0, 0};
        size_t m = n->slot[mod->slot + (size_t)at[i]].count;
        ok(slr_plan_find(p, name, &v));
        memcpy(to + count, slr_plan_data(p, v), m * sizeof *to);
        count += m;
    }
    slr_plan_free(p);
    slr_graph_free(graph);
    slr_free(NULL, vals);
    return count;
}

/* bf16 has 8 bits: x, W' and dy are each off by up to 2^-9, of which sums keep some thousandths. */
static void stored_in_bf16(void **state)
{
    (void)state;
    static const char *const ARGS[] = {"algo=ia3\ntrain_norm=True", "algo=glora",
                                       "algo=diag-oft\nrescaled=True", "algo=boft", "algo=full"};
    const size_t room = 1u << 20;
    float *want = slr_alloc(NULL, room * sizeof *want), *got = slr_alloc(NULL, room * sizeof *got);
    for (size_t i = 0; i < sizeof ARGS / sizeof *ARGS; i++) {
        slr_network *n = made(ARGS[i], i == 3 ? "8" : "4", 0.1);
        for (size_t l = 0; l < sizeof LAYERS / sizeof *LAYERS; l++) {
            if (!slr_network_find(n, SLR_PART_UNET, LAYERS[l].path))
                continue;
            size_t m = gradients(n, &LAYERS[l], SDLORA_F32, want);
            assert_true(m <= room);
            assert_true(gradients(n, &LAYERS[l], SDLORA_BF16, got) == m);
            double e = golden_compare(got, want, m).l2;
            print_message("%s, %s: gradients differ by %.2g\n", n->module[0].kind->name,
                          LAYERS[l].path, e);
            assert_true(e > 1e-6 && e < 6e-3);
        }
        slr_network_unref(n);
    }
    slr_free(NULL, want);
    slr_free(NULL, got);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rotations),
        cmocka_unit_test(old_glora),
        cmocka_unit_test(mutants),
        cmocka_unit_test(stored_in_bf16),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
