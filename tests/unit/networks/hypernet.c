/* SPDX-License-Identifier: MIT */
/* Hypernetwork files and options: what AUTOMATIC1111's files mean, what is refused with which
 * sentence, what is written, how new ones begin; and every activation against torch's.  Agreement
 * of outputs and gradients with torch is in tests/unit/train/hypernet.c. */
#include "io/torchwrite.h"
#include "failing.h"
#include "network_test.h"
#include "networks/hypernet.h"
#include "networks/kind.h"

#define GOLDEN TEST_ROOT "/golden/hypernet.safetensors"
#define FILES  TEST_ROOT "/golden/hypernet/"

static slr_checkpoint *base;
static slr_devices *devices;
static char path[64];

static int setup(void **state)
{
    (void)state;
    const slr_devices_config config = {.cpu_features = slr_cpu_features(), .backend = "cpu"};
    ok(slr_devices_open(&devices, &config));
    ok(slr_checkpoint_open(&base, TINYSD, &CONFIG));
    strcpy(path, "/tmp/sdlora-test-XXXXXX.pt");
    close(mkstemps(path, 3));
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    unlink(path);
    slr_checkpoint_unref(base);
    slr_devices_unref(devices);
    return 0;
}

static slr_network *open_file(const char *name)
{
    slr_network *n;
    ok(slr_network_open(&n, NULL, base, name));
    assert_true(slr_network_is_hyper(n));
    return n;
}

/* ---- reading ---- */

static void reads_settings(void **state)
{
    (void)state;
    slr_network *n = open_file(FILES "deep.pt");
    const slr_hyper *h = n->hyper;
    assert_int_equal(slr_network_modules(n), 2 * 3);
    assert_int_equal(h->layers, 3);
    assert_true(h->structure[1] == 2 && h->structure[2] == 1.5);
    assert_true(h->dropout[1] == 0.3 && h->dropout[2] == 0.3 && h->dropout[3] == 0);
    assert_int_equal(h->act, SDLORA_ACT_MISH);
    assert_true(h->activate_output && h->use_dropout && !h->is_layer_norm);
    assert_int_equal(h->step, 1504);
    assert_string_equal(h->sd_checkpoint, "fe4efff1e1");
    assert_string_equal(slr_network_name(n), "deep");
    assert_string_equal(slr_meta_get(slr_network_meta(n), "layer_structure"), "[1, 2, 1.5, 1]");
    assert_string_equal(slr_meta_get(slr_network_meta(n), "activation_func"), "mish");
    assert_true(slr_network_has_dropout(n));
    slr_network_unref(n);

    n = open_file(FILES "nai.pt"); /* says nothing but its structure */
    h = n->hyper;
    assert_true(!h->activation && h->activate_output && !h->use_dropout && !h->is_layer_norm);
    assert_int_equal(h->widths, 1);
    assert_false(slr_network_has_dropout(n));
    slr_network_unref(n);
}

/* ---- a file of one width, bent ---- */

enum { WIDTH = 64, HIDDEN = 16 };

typedef struct bent {
    const char *activation; /* NULL: not said */
    double structure[4];    /* up to the first 0 */
    double dropout[4];      /* likewise; first -1: an empty text instead of a list */
    int64_t width;
    const char *rename, *to; /* a key; NULL `to`: left out */
    int64_t wrong;           /* added to the first axis of the last weight */
    uint32_t dtype;
    bool extra, text_number, norm, one_dict;
} bent;

static float block[4 * WIDTH * WIDTH];

static void tell_list(slr_torchwrite *w, const char *key, const double *v, bool text)
{
    if (!v[0] && !v[1])
        return;
    slr_torchwrite_text(w, key);
    slr_torchwrite_list(w);
    for (int i = 0; i < 4 && (v[i] != 0 || (i == 0)); i++)
        if (text && i == 1)
            slr_torchwrite_text(w, "two");
        else
            slr_torchwrite_real(w, v[i]);
    slr_torchwrite_end(w);
}

static void tell_leaf(slr_torchwrite *w, const bent *b, const char *key, int rank, int64_t out,
                      int64_t in)
{
    slr_tensor t = {.dtype = b->dtype ? b->dtype : SDLORA_F32, .rank = rank, .dim = {out, in}};
    t.data = block;
    if (b->rename && !strcmp(key, b->rename)) {
        if (!b->to)
            return;
        key = b->to;
    }
    slr_torchwrite_text(w, key);
    slr_torchwrite_tensor(w, &t, t.dtype);
}

static void tell_mlp(slr_torchwrite *w, const bent *b)
{
    slr_torchwrite_ordered_dict(w);
    tell_leaf(w, b, "linear.0.weight", 2, HIDDEN, b->width);
    tell_leaf(w, b, "linear.0.bias", 1, HIDDEN, 0);
    tell_leaf(w, b, "linear.1.weight", 2, b->width + b->wrong, HIDDEN);
    tell_leaf(w, b, "linear.1.bias", 1, b->width, 0);
    if (b->extra)
        tell_leaf(w, b, "linear.2.bias", 1, b->width, 0);
    slr_torchwrite_end(w);
}

static void write_bent(const bent *b)
{
    slr_torchwrite *w;
    slr_tensor moment = {.dtype = SDLORA_F32, .rank = 1, .dim = {3}, .data = block};
    ok(slr_torchwrite_new(&w, NULL));
    slr_torchwrite_dict(w);
    slr_torchwrite_int(w, b->width);
    slr_torchwrite_list(w); /* a tuple as a rule */
    tell_mlp(w, b);
    if (!b->one_dict)
        tell_mlp(w, b);
    slr_torchwrite_end(w);
    tell_list(w, "layer_structure", b->structure, b->text_number);
    tell_list(w, "dropout_structure", b->dropout, false);
    if (b->activation) {
        slr_torchwrite_text(w, "activation_func");
        slr_torchwrite_text(w, b->activation);
    }
    slr_torchwrite_text(w, "is_layer_norm");
    slr_torchwrite_bool(w, b->norm);
    slr_torchwrite_text(w, "optimizer_state_dict"); /* some tools leave it in */
    slr_torchwrite_dict(w);
    slr_torchwrite_text(w, "exp_avg");
    slr_torchwrite_tensor(w, &moment, SDLORA_F32);
    slr_torchwrite_end(w);
    slr_torchwrite_end(w);
    ok(slr_torchwrite_save(w, path));
    slr_torchwrite_free(w);
}

static void refuses_mutants(void **state)
{
    (void)state;
    static const struct {
        bent b;
        int code;
        const char *word;
    } CASES[] = {
        {{.width = WIDTH}, SDLORA_EFORMAT, "is [16,64], wanted [128,64]"}, /* [1,2,1] assumed */
        {{.structure = {1, 0.25, 1}, .width = 999}, SDLORA_EFORMAT, "wanted [249,999]"},
        {{.structure = {1, 0.25, 0.5}, .width = WIDTH}, SDLORA_EFORMAT, "begin and end with 1"},
        {{.structure = {2, 0.25, 1}, .width = WIDTH}, SDLORA_EFORMAT, "begin and end with 1"},
        {{.structure = {1, -0.25, 1}, .width = WIDTH}, SDLORA_EFORMAT, "layer_structure has -0.25"},
        {{.structure = {1, 1e9, 1}, .width = WIDTH}, SDLORA_EFORMAT, "layer_structure has 1e+09"},
        {{.structure = {1, 0.001, 1}, .width = WIDTH}, SDLORA_EFORMAT, "makes no layer of 64"},
        {{.structure = {1, NAN, 1}, .width = WIDTH}, SDLORA_EFORMAT, "layer_structure has "},
        {{.structure = {1, 0.25, 1}, .width = WIDTH, .text_number = true},
         SDLORA_EFORMAT,
         "layer_structure.1 is not a number"},
        {{.structure = {1, 0.25, 1, 1}, .width = WIDTH},
         SDLORA_EFORMAT,
         "linear.2.weight is missing"},
        {{.structure = {1, 1}, .width = WIDTH}, SDLORA_EFORMAT, "is [16,64], wanted [64,64]"},
        {{.structure = {1, 0.25, 1}, .width = WIDTH, .wrong = 1},
         SDLORA_EFORMAT,
         "linear.1.weight is [65,16], wanted [64,16]"},
        {{.structure = {1, 0.25, 1}, .width = WIDTH, .rename = "linear.0.bias"},
         SDLORA_EFORMAT,
         "64.0.linear.0.bias is missing"},
        {{.structure = {1, 0.25, 1}, .width = WIDTH, .rename = "linear.0.bias", .to = "lin.0.bias"},
         SDLORA_EFORMAT,
         "64.0.lin.0.bias is no part"},
        {{.structure = {1, 0.25, 1}, .width = WIDTH, .extra = true},
         SDLORA_EFORMAT,
         "holds 10 weights, of which layer_structure and the other settings explain 8"},
        {{.structure = {1, 0.25, 1}, .width = WIDTH, .dtype = SDLORA_I32},
         SDLORA_EFORMAT,
         "not of a floating-point type"},
        {{.structure = {1, 0.25, 1}, .width = WIDTH, .activation = "softmax"},
         SDLORA_ENOTSUP,
         "softmax"},
        {{.structure = {1, 0.25, 1}, .width = WIDTH, .activation = "multiheadattention"},
         SDLORA_ENOTSUP,
         "multiheadattention"},
        {{.structure = {1, 0.25, 1}, .width = WIDTH, .activation = "relu"},
         SDLORA_EFORMAT,
         "linear.2.weight is missing"}, /* a relu is the second of the sequence */
        {{.structure = {1, 0.25, 1}, .width = WIDTH, .norm = true},
         SDLORA_EFORMAT,
         "linear.1.weight is [64,16], wanted [16]"},
        {{.structure = {1, 0.25, 1}, .width = WIDTH, .dropout = {0.1, 1.5, 0.1}},
         SDLORA_EFORMAT,
         "dropout_structure has 1.5"},
        {{.structure = {1, 0.25, 1}, .width = WIDTH, .dropout = {0.1, 0.1}},
         SDLORA_EFORMAT,
         "dropout_structure has 2 numbers, layer_structure 3"},
        {{.structure = {1, 0.25, 1}, .width = WIDTH, .one_dict = true},
         SDLORA_EFORMAT,
         "64.1.linear.0.weight is missing"},
        {{.structure = {1, 0.25, 1}, .width = 32}, SDLORA_EFORMAT, "wanted [8,32]"},
    };
    char before[65], after[65];
    base_hash(base, before);
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        slr_network *n;
        write_bent(&CASES[i].b);
        int rc = slr_network_open(&n, NULL, base, path);
        if (rc != CASES[i].code)
            fail_msg("case %zu: %d, not %d: %s", i, rc, CASES[i].code,
                     rc < 0 ? sdlora_last_error()->message : "taken");
        assert_null(n);
        says(path);
        says(CASES[i].word);
    }
    base_hash(base, after);
    assert_string_equal(before, after);
    write_bent(&(bent){.structure = {1, 0.25, 1}, .width = WIDTH}); /* unbent it is taken */
    slr_network_unref(open_file(path));
}

static void refuses_other_models(void **state)
{
    (void)state;
    slr_network *n;
    write_bent(&(bent){.structure = {1, (double)HIDDEN / 48, 1}, .width = 48});
    assert_int_equal(slr_network_open(&n, NULL, base, path), SDLORA_EFORMAT);
    says("for another model");
    says("(48)");
}

/* Every damaged copy is refused or is a network; nothing else happens. */
static void survives_damage(void **state)
{
    (void)state;
    void *bytes;
    size_t n, refused = 0;
    ok(slr_file_read(NULL, FILES "relu.pt", 1 << 20, &bytes, &n));
    for (size_t i = 0; i < 240; i++) {
        unsigned char *p = slr_alloc(NULL, n);
        size_t keep = i % 4 == 3 ? n * (i + 1) / 241 : n;
        slr_network *net;
        memcpy(p, bytes, n);
        /* the pickle stands at the front, the directory at the end */
        size_t at = i % 2 ? n - 1 - (i * 37) % 3000 : (i * 53) % 6000;
        p[at] ^= (unsigned char)(1u << i % 8);
        ok(slr_file_write(NULL, path, p, keep));
        int rc = slr_network_open(&net, NULL, base, path);
        refused += rc < 0;
        if (rc < 0)
            says(path);
        slr_network_unref(net);
        slr_free(NULL, p);
    }
    print_message("%zu of 240 damaged files refused\n", refused);
    assert_true(refused >= 150); /* the rest are changed names of settings and the like */
    slr_free(NULL, bytes);
}

/* ---- writing ---- */

static void writes_what_it_reads(void **state)
{
    (void)state;
    static const char *const names[] = {"relu", "deep", "nai"};
    for (size_t i = 0; i < 3; i++) {
        char from[512];
        slr_meta *meta;
        snprintf(from, sizeof from, FILES "%s.pt", names[i]);
        slr_network *a = open_file(from);
        ok(slr_meta_new(&meta, NULL));
        ok(slr_netfile_save(a, path, SDLORA_F16, meta)); /* the values are f16 numbers */
        slr_network *b = open_file(path);
        const slr_hyper *x = a->hyper, *y = b->hyper;
        assert_int_equal(slr_network_slots(a), slr_network_slots(b));
        assert_memory_equal(slr_network_params(a), slr_network_params(b),
                            slr_network_param_count(a) * sizeof(float));
        assert_memory_equal(x->structure, y->structure, sizeof x->structure);
        assert_memory_equal(x->dropout, y->dropout, sizeof x->dropout);
        assert_int_equal(x->act, y->act);
        assert_int_equal(x->activate_output, y->activate_output);
        assert_int_equal(x->is_layer_norm, y->is_layer_norm);
        assert_int_equal(x->step, y->step);
        uint64_t size;
        ok(slr_file_size(path, &size));
        double forecast = (double)slr_netfile_size(a, SDLORA_F16, meta);
        assert_true(fabs(forecast - (double)size) < 0.35 * (double)size); /* small: mostly names */
        assert_int_equal(slr_netfile_save(a, "/tmp/x.safetensors", SDLORA_F16, meta),
                         SDLORA_EINVAL);
        says(".pt");
        slr_meta_free(meta);
        slr_network_unref(a);
        slr_network_unref(b);
    }
}

/* ---- new ones ---- */

static double deviation(const slr_network *n, const slr_network_slot *s, double *most)
{
    const float *p = slr_network_params((slr_network *)n) + s->offset;
    double sum = 0;
    *most = 0;
    for (size_t i = 0; i < s->count; i++) {
        sum += (double)p[i] * p[i];
        *most = fmax(*most, fabs(p[i]));
    }
    return sqrt(sum / (double)s->count);
}

/* torch.nn.init's formulas for the first layer, 64 to 128. */
static void begins_as_told(void **state)
{
    (void)state;
    static const struct {
        const char *way;
        double deviation, most; /* most 0: normal */
    } CASES[] = {
        {"Normal", 0.01, 0},
        {"XavierUniform", 0.102062, 0.176777},
        {"XavierNormal", 0.102062, 0},
        {"KaimingUniform", 0.176777, 0.306186},
        {"KaimingNormal", 0.176777, 0},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        char args[128];
        double most;
        snprintf(args, sizeof args, "weight_initialization=%s\nadd_layer_norm=True", CASES[i].way);
        slr_network *n;
        ok(make_rc(
            &n, base,
            (const char *const[]){"network_module", "hypernetwork", "network_args", args, NULL},
            7));
        assert_int_equal(slr_network_modules(n), 2 * 2 * 2); /* widths, k and v, layers */
        double have = deviation(n, slr_network_slot_at(n, 0), &most);
        assert_true(fabs(have / CASES[i].deviation - 1) < 0.05); /* of 8192 numbers: 0.8 % */
        if (CASES[i].most > 0)
            assert_true(most <= CASES[i].most && most > 0.99 * CASES[i].most);
        assert_true(deviation(n, slr_network_slot_at(n, 1), &most) == 0);
        assert_true(deviation(n, slr_network_slot_at(n, 2), &most) > 0.005);
        slr_network_unref(n);
    }
}

static void options_are_checked(void **state)
{
    (void)state;
    static const struct {
        const char *args;
        int code;
        const char *word;
    } CASES[] = {
        {"layer_structure=1", SDLORA_EINVAL, "list of 2 to 17"},
        {"layer_structure=1,2,3", SDLORA_EINVAL, "begin and end with 1"},
        {"layer_structure=1,two,1", SDLORA_EINVAL, "list of 2 to 17"},
        {"layer_structure=1,1e9,1", SDLORA_EINVAL, "1e+09"},
        {"activation_func=glu", SDLORA_ENOTSUP, "glu"},
        {"weight_initialization=Zero", SDLORA_EINVAL, "KaimingNormal"},
        {"dropout_structure=0,2,0", SDLORA_EINVAL, "has 2"},
        {"enable_sizes=77", SDLORA_EINVAL, "for another model"},
        {"enable_sizes=64,64", SDLORA_EINVAL, "list of widths"},
        {"algo=lokr", SDLORA_ENOTSUP, "'algo'"},
    };
    slr_network *n;
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        const char *const pairs[] = {"network_module", "hypernetwork", "network_args",
                                     CASES[i].args, NULL};
        int rc = make_rc(&n, base, pairs, 1);
        if (rc != CASES[i].code)
            fail_msg("%s: %d: %s", CASES[i].args, rc, sdlora_last_error()->message);
        says(CASES[i].word);
        assert_null(n);
    }
    ok(make_rc(&n, base,
               (const char *const[]){"network_module", "hypernetwork", "network_args",
                                     "layer_structure=[1, 2, 4, 1]\nuse_dropout=True\n"
                                     "last_layer_dropout=False\nenable_sizes=64",
                                     NULL},
               1));
    const slr_hyper *h = n->hyper;
    assert_true(h->layers == 3 && h->widths == 1 && h->dropout[1] == 0.3 && h->dropout[2] == 0);
    assert_true(slr_network_has_dropout(n));
    slr_network_unref(n);
    assert_int_equal(make_rc(&n, base,
                             (const char *const[]){"network_module", "hypernetwork",
                                                   "network_train_text_encoder_only", "true", NULL},
                             1),
                     SDLORA_EINVAL);
}

static void is_not_merged(void **state)
{
    (void)state;
    slr_weights *out = NULL;
    slr_network *n = open_file(FILES "relu.pt");
    const slr_stack_item item = {n, 1, 1, 0, {0}};
    assert_int_equal(slr_merge_part(&out, NULL, devices, slr_checkpoint_part(base, SLR_PART_UNET),
                                    SLR_PART_UNET, &item, 1),
                     SDLORA_ENOTSUP);
    says("no weights can hold");
    assert_null(out);
    slr_network_unref(n);
}

/* ---- memory ---- */

/* Reads a file and writes it again; the first allocation fails, then the second ... */
static void memory_runs_out(void **state)
{
    (void)state;
    int64_t n = 0;
    int rc;
    do {
        failing f = {.left = n++};
        const slr_mem_hooks hooks = {fail_alloc, fail_realloc, fail_free, &f};
        slr_network *net = NULL;
        slr_mem *m;
        rc = slr_mem_new(&m, &hooks, 0);
        if (rc >= 0)
            rc = slr_network_open(&net, m, base, FILES "deep.pt");
        if (rc >= 0)
            rc = slr_hyper_save(net, path, SDLORA_F16, NULL);
        if (rc < 0)
            assert_int_equal(rc, SDLORA_ENOMEM);
        slr_network_unref(net);
        slr_mem_unref(m);
        assert_int_equal(f.held, 0);
    } while (rc < 0 && n < 100000);
    print_message("%lld allocations\n", (long long)n - 1);
    assert_true(rc >= 0 && n > 50);
}

/* ---- activations ---- */

/* torch computes in f32 too: two roundings of an exponential and what is made of it. */
static const double TOL_ACT = 1e-6;

static void run(int act, const float *x, float *y, float *slope, int64_t n)
{
    slr_graph *g;
    slr_plan *p;
    slr_val v, grad;
    const int64_t one[1] = {1};
    ok(slr_graph_new(&g, NULL, (slr_policy){0}));
    slr_val in = slr_param(g, "x", 1, &n), out = slr_act(g, in, act);
    slr_val sum = slr_reshape(g, slr_sum_to(g, out, 1, one), 1, one);
    ok(slr_graph_grad(g, sum, &in, 1, &grad));
    slr_output(g, out, "y");
    slr_output(g, grad, "slope");
    ok(slr_plan_new(&p, g, devices));
    ok(slr_plan_find(p, "x", &v));
    memcpy(slr_plan_data(p, v), x, (size_t)n * sizeof *x);
    ok(slr_plan_run(p, NULL));
    ok(slr_plan_find(p, "y", &v));
    memcpy(y, slr_plan_data(p, v), (size_t)n * sizeof *y);
    ok(slr_plan_find(p, "slope", &v));
    memcpy(slope, slr_plan_data(p, v), (size_t)n * sizeof *slope);
    slr_plan_free(p);
    slr_graph_free(g);
}

static void activations(void **state)
{
    (void)state;
    static const char *const names[] = {
        "relu",        "leakyrelu", "elu",   "celu",     "swish",      "hardswish",  "tanh",
        "sigmoid",     "silu",      "gelu",  "mish",     "selu",       "softplus",   "logsigmoid",
        "hardsigmoid", "hardtanh",  "relu6", "softsign", "tanhshrink", "hardshrink", "softshrink"};
    static float y[513], slope[513];
    golden g = golden_open(GOLDEN);
    float *x = golden_f32(&g, "act.x", NULL);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        slr_hyper h = {.layers = 1, .structure = {1, 1}, .activation = names[i]};
        char key[64];
        ok(slr_hyper_check(&h, "test"));
        run(h.act, x, y, slope, 513);
        snprintf(key, sizeof key, "act.%s", names[i]);
        float *want = golden_f32(&g, key, NULL);
        snprintf(key, sizeof key, "slope.%s", names[i]);
        float *want_slope = golden_f32(&g, key, NULL);
        for (int k = 0; k < 513; k++) {
            bool corner = fabsf(x[k]) == 3 || fabsf(x[k]) == 1 || x[k] == 0 || x[k] == 6;
            if (fabs(y[k] - want[k]) > TOL_ACT * fmax(1, fabs(want[k])) ||
                (!corner && fabs(slope[k] - want_slope[k]) > TOL_ACT))
                fail_msg("%s at %g: %g and %g, wanted %g and %g", names[i], (double)x[k],
                         (double)y[k], (double)slope[k], (double)want[k], (double)want_slope[k]);
        }
        slr_free(NULL, want);
        slr_free(NULL, want_slope);
    }
    slr_free(NULL, x);
    golden_close(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_settings),       cmocka_unit_test(refuses_mutants),
        cmocka_unit_test(refuses_other_models), cmocka_unit_test(survives_damage),
        cmocka_unit_test(writes_what_it_reads), cmocka_unit_test(begins_as_told),
        cmocka_unit_test(options_are_checked),  cmocka_unit_test(is_not_merged),
        cmocka_unit_test(activations),          cmocka_unit_test(memory_runs_out),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
