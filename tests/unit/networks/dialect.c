/* SPDX-License-Identifier: MIT */
/* Files of other programs: each opens, adapts the layers that its writer meant, and changes weights
 * and outputs as there (tests/golden/make_dialects.py).  Keys of SDXL by names and shapes.  What is
 * written in another dialect means the same when it is read again. */
#include "failing.h"
#include "network_test.h"

#include "io/json.h"
#include "models/clip.h"
#include "networks/dialect.h"
#include "networks/info.h"
#include "networks/peft.h"

#define DIALECTS TEST_ROOT "/golden/dialects/"

/* A change is read off as the difference of two f32 weights, so it has their rounding: weights are
 * some ten times larger than changes.  Measured 2e-6 at worst. */
#define TOL_DELTA 2e-5
/* Sums of a whole pass in another order, both in f32.  Measured 8e-7. */
#define TOL_PASS 1e-5

static slr_devices *devices;
static slr_checkpoint *base;
static slr_weights *unet, *te; /* in f32 */
static golden expected;

static int setup(void **state)
{
    (void)state;
    const slr_devices_config config = {.cpu_features = slr_cpu_features(), .backend = "cpu"};
    ok(slr_devices_open(&devices, &config));
    ok(slr_checkpoint_open(&base, TINYSD, &CONFIG));
    unet = widened(slr_checkpoint_part(base, SLR_PART_UNET));
    te = widened(slr_checkpoint_part(base, SLR_PART_TE));
    expected = golden_open(DIALECTS "expected.safetensors");
    return expected.file ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    golden_close(&expected);
    slr_weights_unref(unet);
    slr_weights_unref(te);
    slr_checkpoint_unref(base);
    slr_devices_unref(devices);
    return 0;
}

/* ---- what a network does ---- */

static float *run(slr_graph *graph, slr_val y, const char *const *names, const void *const *data,
                  const size_t *bytes)
{
    slr_plan *p;
    slr_val v;
    slr_output(graph, y, "y");
    ok(slr_graph_status(graph));
    ok(slr_plan_new(&p, graph, devices));
    for (int i = 0; names[i]; i++) {
        ok(slr_plan_find(p, names[i], &v));
        memcpy(slr_plan_data(p, v), data[i], bytes[i]);
    }
    ok(slr_plan_run(p, NULL));
    ok(slr_plan_find(p, "y", &v));
    size_t n = 1;
    slr_shape s = slr_shape_of(graph, y);
    for (int i = 0; i < s.rank; i++)
        n *= (size_t)s.dim[i];
    float *out = slr_alloc(NULL, n * sizeof *out);
    memcpy(out, slr_plan_data(p, v), n * sizeof *out);
    slr_plan_free(p);
    slr_graph_free(graph);
    return out;
}

static float *text_states(slr_weights *w, slr_tensor *shape)
{
    slr_tensor t;
    slr_graph *graph;
    int32_t *ids = golden_i32(&expected, "ids", &t);
    ok(slr_graph_new(&graph, NULL, (slr_policy){.storage = SDLORA_F32}));
    slr_nn nn = {.g = graph, .w = w, .part = SLR_PART_TE};
    slr_val y = slr_clip_build(&nn, slr_checkpoint_family(base),
                               slr_input(graph, "ids", SDLORA_I32, 2, t.dim), 1);
    slr_shape s = slr_shape_of(graph, y);
    *shape = (slr_tensor){.rank = s.rank};
    memcpy(shape->dim, s.dim, sizeof s.dim);
    float *out = run(graph, y, (const char *[]){"ids", NULL}, (const void *[]){ids},
                     (size_t[]){slr_tensor_bytes(&t)});
    slr_free(NULL, ids);
    return out;
}

static float *eps(slr_weights *w, const float *text, const slr_tensor *ts)
{
    slr_tensor xs, steps;
    slr_graph *graph;
    float *x = golden_nhwc(&expected, "latents", &xs), *t = golden_f32(&expected, "t", &steps);
    ok(slr_graph_new(&graph, NULL, (slr_policy){.storage = SDLORA_F32}));
    slr_nn nn = {.g = graph, .w = w, .part = SLR_PART_UNET};
    slr_val y = slr_unet_build(&nn, slr_checkpoint_family(base),
                               slr_input(graph, "x", SDLORA_F32, 4, xs.dim),
                               slr_input(graph, "t", SDLORA_F32, 1, steps.dim),
                               slr_input(graph, "ctx", SDLORA_F32, 3, ts->dim));
    float *out =
        run(graph, y, (const char *[]){"x", "t", "ctx", NULL}, (const void *[]){x, t, text},
            (size_t[]){(size_t)slr_tensor_count(&xs) * 4, 4, (size_t)slr_tensor_count(ts) * 4});
    slr_free(NULL, x);
    slr_free(NULL, t);
    return out;
}

/* Each "<name>.delta.<part>:<path>" of the oracle. */
static size_t compare_deltas(const char *name, slr_weights *const merged[SLR_PART_COUNT])
{
    size_t seen = 0;
    for (size_t i = 0; i < slr_safetensors_count(expected.file); i++) {
        slr_tensor t;
        const slr_tensor *before, *after;
        const char *key = slr_safetensors_at(expected.file, i, &t), *colon = strchr(key, ':');
        size_t n = strlen(name);
        char weight[256];
        if (strncmp(key, name, n) || strncmp(key + n, ".delta.", 7) || !colon)
            continue;
        int part = strncmp(key + n + 7, "unet", 4) ? SLR_PART_TE : SLR_PART_UNET;
        snprintf(weight, sizeof weight, "%s.weight", colon + 1);
        ok(slr_weights_get(part == SLR_PART_UNET ? unet : te, weight, &before));
        ok(slr_weights_get(merged[part], weight, &after));
        float *want = golden_f32(&expected, key, NULL);
        size_t count = (size_t)slr_tensor_count(&t);
        float *got = slr_alloc(NULL, count * sizeof *got);
        assert_int_equal(slr_tensor_count(after), slr_tensor_count(&t));
        for (size_t k = 0; k < count; k++)
            got[k] = ((const float *)after->data)[k] - ((const float *)before->data)[k];
        if (!golden_close_to(key, got, want, count, TOL_DELTA))
            fail_msg("%s", key);
        slr_free(NULL, got);
        slr_free(NULL, want);
        seen++;
    }
    return seen;
}

/* Merged into the base, the network gives the oracle's weights, text states and output. */
static void compare(const slr_network *net, const char *name)
{
    const slr_stack_item item = {.network = (slr_network *)net, .te = 1, .unet = 1};
    slr_weights *merged[SLR_PART_COUNT] = {NULL};
    slr_tensor shape, t;
    char key[128];
    ok(slr_merge_part(&merged[SLR_PART_UNET], NULL, devices, unet, SLR_PART_UNET, &item, 1));
    ok(slr_merge_part(&merged[SLR_PART_TE], NULL, devices, te, SLR_PART_TE, &item, 1));
    assert_true(compare_deltas(name, merged) > 0);

    float *text = text_states(merged[SLR_PART_TE], &shape);
    snprintf(key, sizeof key, "%s.text", name);
    if (slr_safetensors_find(expected.file, key, &t)) {
        float *want = golden_f32(&expected, key, NULL);
        assert_true(golden_close_to(key, text, want, (size_t)slr_tensor_count(&t), TOL_PASS));
        slr_free(NULL, want);
    }
    snprintf(key, sizeof key, "%s.eps", name);
    float *want = golden_nhwc(&expected, key, &t), *got = eps(merged[SLR_PART_UNET], text, &shape);
    assert_true(golden_close_to(key, got, want, (size_t)slr_tensor_count(&t), TOL_PASS));
    slr_free(NULL, want);
    slr_free(NULL, got);
    slr_free(NULL, text);
    slr_weights_unref(merged[SLR_PART_UNET]);
    slr_weights_unref(merged[SLR_PART_TE]);
}

/* ---- reading ---- */

static const struct {
    const char *name, *file, *dialect, *algo;
    size_t modules;
} FILES[] = {
    {"kohya", "kohya.pt", "kohya", "lora", 8},
    {"ldm", "ldm.safetensors", "kohya", "lora", 8},
    {"native", "native.safetensors", "native", "lora", 8},
    {"onetrainer", "onetrainer.safetensors", "kohya", "lora", 8},
    {"lycoris", "lycoris.safetensors", "lycoris", "lora", 36},
    {"diffusers", "diffusers.safetensors", "diffusers", "lora", 8},
    {"diffusers_metadata", "diffusers_metadata.safetensors", "diffusers", "lora", 8},
    {"diffusers_old", "diffusers_old.bin", "diffusers-old", "lora", 5},
    {"diffusers_processor", "diffusers_processor.safetensors", "diffusers-processor", "lora", 5},
    {"processor_bare", "processor_bare.ckpt", "diffusers-processor", "lora", 3},
    {"peft_lora", "peft_lora/adapter_model.safetensors", "peft", "lora", 6},
    {"peft_dora", "peft_dora/adapter_model.safetensors", "peft", "lora", 6},
    {"peft_loha", "peft_loha/adapter_model.safetensors", "peft", "loha", 6},
    {"peft_loha_flat", "peft_loha_flat/adapter_model.safetensors", "peft", "loha", 6},
    {"peft_lokr", "peft_lokr/adapter_model.safetensors", "peft", "lokr", 6},
    {"peft_lokr_full", "peft_lokr_full/adapter_model.safetensors", "peft", "lokr", 6},
    {"peft_ia3", "peft_ia3/adapter_model.safetensors", "peft", "ia3", 3},
    {"peft_oft", "peft_oft/adapter_model.safetensors", "peft", "oft-v2", 3},
};

static void path_of(char path[256], const char *file)
{
    snprintf(path, 256, DIALECTS "%s", file);
}

static void reading(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof FILES / sizeof *FILES; i++) {
        char path[256];
        slr_network *net;
        if (!slr_kind_named(FILES[i].algo)) {
            print_message("%s waits for %s\n", FILES[i].name, FILES[i].algo);
            continue;
        }
        path_of(path, FILES[i].file);
        ok(slr_network_open(&net, NULL, base, path));
        assert_int_equal(slr_network_modules(net), FILES[i].modules);
        compare(net, FILES[i].name);
        slr_network_unref(net);
    }
}

/* ---- writing ---- */

static int save_as(const slr_network *net, const char *path, const char *dialect, uint32_t dtype)
{
    const slr_spelling *s;
    slr_meta *meta;
    ok(slr_spelling_named(&s, dialect));
    ok(slr_meta_new(&meta, NULL));
    ok(slr_meta_set(meta, "ss_output_name", "cat"));
    int rc = slr_netfile_save_as(net, path, dtype, meta, s);
    slr_meta_free(meta);
    return rc;
}

/* The same values bit by bit, whatever the order of modules. */
static void same_values(const slr_network *a, const slr_network *b)
{
    assert_int_equal(slr_network_slots(a), slr_network_slots(b));
    for (size_t i = 0; i < slr_network_slots(a); i++) {
        const slr_network_slot *s = slr_network_slot_at(a, i), *t = NULL;
        for (size_t k = 0; k < slr_network_slots(b) && !t; k++)
            if (!strcmp(slr_network_slot_at(b, k)->key, s->key))
                t = slr_network_slot_at(b, k);
        assert_true(t && t->count == s->count);
        assert_memory_equal(slr_network_params((slr_network *)a) + s->offset,
                            slr_network_params((slr_network *)b) + t->offset,
                            s->count * sizeof(float));
        double alpha = slr_network_alpha(a, s->module), other = slr_network_alpha(b, t->module);
        assert_true(isnan(alpha) ? isnan(other) : fabs(alpha - other) <= 1e-6 * alpha);
    }
}

static char folder[64], adapter[128];

/* What one dialect says is read again as the writer's program meant it. */
static void writing(void **state)
{
    (void)state;
    static const struct {
        const char *from, *name, *dialect;
        bool folds;
    } CASES[] = {
        {"kohya.pt", "kohya", "kohya", false},
        {"kohya.pt", "kohya", "onetrainer", false},
        {"kohya.pt", "kohya", "lycoris", false},
        {"kohya.pt", "kohya", "diffusers", false},
        {"kohya.pt", "kohya", "diffusers-folded", true},
        {"kohya.pt", "kohya", "diffusers-old", true},
        {"diffusers_metadata.safetensors", "diffusers_metadata", "kohya", false},
        {"diffusers_metadata.safetensors", "diffusers_metadata", "diffusers", false},
        {"diffusers_metadata.safetensors", "diffusers_metadata", "diffusers-folded", true},
        {"onetrainer.safetensors", "onetrainer", "diffusers", false},
        {"onetrainer.safetensors", "onetrainer", "kohya", false},
        {"peft_lora/adapter_model.safetensors", "peft_lora", "peft", false},
        {"peft_lora/adapter_model.safetensors", "peft_lora", "kohya", false},
        {"peft_dora/adapter_model.safetensors", "peft_dora", "peft", false},
        {"peft_dora/adapter_model.safetensors", "peft_dora", "kohya", false},
        {"peft_loha/adapter_model.safetensors", "peft_loha", "peft", false},
        {"peft_loha/adapter_model.safetensors", "peft_loha", "lycoris", false},
        {"peft_loha_flat/adapter_model.safetensors", "peft_loha_flat", "peft", false},
        {"peft_lokr/adapter_model.safetensors", "peft_lokr", "kohya", false},
        {"peft_lokr_full/adapter_model.safetensors", "peft_lokr_full", "kohya", true},
        {"peft_ia3/adapter_model.safetensors", "peft_ia3", "kohya", false},
        {"peft_ia3/adapter_model.safetensors", "peft_ia3", "peft", true},
        {"peft_oft/adapter_model.safetensors", "peft_oft", "kohya", false},
    };
    strcpy(folder, "/tmp/sdlora-dialect-XXXXXX");
    assert_non_null(mkdtemp(folder));
    snprintf(adapter, sizeof adapter, "%s/adapter_model.safetensors", folder);
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        char path[256];
        slr_network *net, *back;
        if (strstr(CASES[i].name, "ia3") && !slr_kind_named("ia3"))
            continue;
        path_of(path, CASES[i].from);
        ok(slr_network_open(&net, NULL, base, path));
        ok(save_as(net, adapter, CASES[i].dialect, SDLORA_F32));
        ok(slr_network_open(&back, NULL, base, adapter));
        print_message("%s as %s\n", CASES[i].from, CASES[i].dialect);
        if (!CASES[i].folds)
            same_values(net, back);
        compare(back, CASES[i].name);
        assert_string_equal(slr_meta_get(slr_network_meta(back), "ss_output_name"), "cat");
        slr_network_unref(net);
        slr_network_unref(back);
        unlink(adapter);
        snprintf(path, sizeof path, "%s/adapter_config.json", folder);
        unlink(path);
    }
    rmdir(folder);
}

static void not_written(void **state)
{
    (void)state;
    static const struct {
        const char *from, *dialect, *to;
        int code;
        const char *word;
    } CASES[] = {
        {"peft_lokr/adapter_model.safetensors", "diffusers-old", NULL, SDLORA_ENOTSUP, "'lokr'"},
        {"peft_lokr/adapter_model.safetensors", "diffusers", NULL, SDLORA_ENOTSUP, "can't hold"},
        {"peft_lokr/adapter_model.safetensors", "peft", NULL, SDLORA_ENOTSUP, "'lokr'"},
        {"onetrainer.safetensors", "diffusers-old", NULL, SDLORA_ENOTSUP, "DoRA"},
        {"peft_oft/adapter_model.safetensors", "peft", NULL, SDLORA_ENOTSUP, "'oft-v2'"},
        {"kohya.pt", "peft", NULL, SDLORA_EINVAL, "adapter_model.safetensors"},
        {"kohya.pt", "peft", "/tmp/adapter_model.safetensors", SDLORA_ENOTSUP, "one model"},
    };
    const slr_spelling *s;
    char to[64];
    temp_file(to);
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        char path[256];
        uint64_t size;
        slr_network *net;
        path_of(path, CASES[i].from);
        ok(slr_network_open(&net, NULL, base, path));
        assert_int_equal(save_as(net, CASES[i].to ? CASES[i].to : to, CASES[i].dialect, SDLORA_F16),
                         CASES[i].code);
        says(CASES[i].word);
        ok(slr_file_size(to, &size));
        assert_int_equal(size, 0);
        slr_network_unref(net);
    }
    assert_int_equal(slr_spelling_named(&s, "comfy"), SDLORA_EINVAL);
    says("kohya, onetrainer, lycoris, diffusers, diffusers-folded, diffusers-old, peft");
    unlink(to);
}

/* A tucker core, a scalar and a norm beside it, from kohya's form to diffusers'. */
static void tucker(void **state)
{
    (void)state;
    char a[64];
    slr_network *net, *back;
    slr_weights *one, *two;
    const char *const pairs[] = {"network_module",
                                 "lycoris.kohya",
                                 "network_args",
                                 "algo=lora\nuse_tucker=True\nconv_dim=3",
                                 "network_dim",
                                 "3",
                                 NULL};
    if (make_rc(&net, base, pairs, 5) < 0) {
        print_message("tucker is not made here: %s\n", sdlora_last_error()->message);
        return;
    }
    slr_network_unref(net);
    net = make(base, pairs, 5, 0.2);
    ok(save_as(net, temp_file(a), "diffusers", SDLORA_F32));
    ok(slr_network_open(&back, NULL, base, a));
    const slr_stack_item items[] = {{net, 1, 1, 0, {0}}, {back, 1, 1, 0, {0}}};
    ok(slr_merge_part(&one, NULL, devices, unet, SLR_PART_UNET, &items[0], 1));
    ok(slr_merge_part(&two, NULL, devices, unet, SLR_PART_UNET, &items[1], 1));
    for (size_t i = 0; i < slr_weights_count(one); i++) {
        const slr_tensor *x, *y;
        const char *name = slr_weights_at(one, i, &x);
        ok(slr_weights_get(two, name, &y));
        /* the sums of a core are taken in another order */
        assert_true(golden_compare(y->data, x->data, (size_t)slr_tensor_count(x)).l2 < 1e-6);
    }
    slr_weights_unref(one);
    slr_weights_unref(two);
    slr_network_unref(net);
    slr_network_unref(back);
    unlink(a);
}

/* ---- a look without a checkpoint ---- */

static json_t *look(const char *path)
{
    char *text;
    json_t *j;
    ok(slr_file_info(&text, NULL, (slr_log){0}, path, false));
    ok(slr_json_parse(&j, text, strlen(text), path));
    slr_free(NULL, text);
    return j;
}

static void info(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof FILES / sizeof *FILES; i++) {
        char path[256];
        path_of(path, FILES[i].file);
        json_t *j = look(path), *n = json_object_get(j, "network");
        assert_string_equal(json_string_value(json_object_get(j, "kind")), "lora");
        assert_string_equal(json_string_value(json_object_get(n, "dialect")), FILES[i].dialect);
        assert_int_equal(json_integer_value(json_object_get(n, "modules")), FILES[i].modules);
        assert_int_equal(
            json_integer_value(json_object_get(json_object_get(n, "algorithms"), FILES[i].algo)),
            FILES[i].modules);
        assert_int_equal(json_object_size(json_object_get(n, "algorithms")), 1);
        const char *naming = json_string_value(json_object_get(n, "naming"));
        bool ldm = !strcmp(FILES[i].name, "ldm") || !strcmp(FILES[i].name, "native");
        assert_string_equal(naming, ldm ? "ldm" : "diffusers");
        json_decref(j);
    }
    json_t *j = look(TINYSD);
    assert_null(json_object_get(j, "network"));
    json_decref(j);
}

/* ---- what fits nothing ---- */

enum { ENTRIES = 128 };

static char scratch[64]; /* a file that tests write */

/* The tensors of a file, and room for more. */
static size_t entries(const golden *g, slr_st_entry e[ENTRIES])
{
    size_t n = slr_safetensors_count(g->file);
    assert_true(n + 4 < ENTRIES);
    for (size_t i = 0; i < n; i++)
        e[i].name = slr_safetensors_at(g->file, i, &e[i].t);
    return n;
}

static void log_line(int level, const char *text, void *user)
{
    (void)level;
    snprintf(user, 512, "%s", text);
}

static void unmatched(void **state)
{
    (void)state;
    static const float zeros[64] = {0};
    static slr_st_entry e[ENTRIES];
    static const char *const STRANGE[] = {"unet.down_blocks.9.attn.to_q.lora_A.weight",
                                          "transformer.blocks.0.lora_A.weight",
                                          "unet.conv_in.lora_A.bias", "seasons_greetings"};
    char told[512] = "";
    const slr_log log = {log_line, told, SLR_LOG_WARN};
    const slr_open_config skip = {.skip = true, .log = &log};
    slr_network *net;
    golden g = golden_open(DIALECTS "diffusers.safetensors");
    size_t n = entries(&g, e);
    temp_file(scratch);
    for (size_t i = 0; i < 4; i++)
        e[n + i] = (slr_st_entry){STRANGE[i],
                                  {.dtype = SDLORA_F32, .rank = 1, .dim = {64}, .data = zeros}};
    ok(slr_safetensors_write(NULL, scratch, e, n + 4, NULL, 0));
    assert_true(slr_network_open(&net, NULL, base, scratch) < 0);
    says("transformer.blocks.0.lora_A.weight");
    ok(slr_safetensors_write(NULL, scratch, e, n + 1, NULL, 0));
    assert_int_equal(slr_network_open(&net, NULL, base, scratch), SDLORA_EFORMAT);
    says("1 of 17 tensors match no layer");
    assert_null(strstr(sdlora_last_error()->message, "in the file"));
    says(STRANGE[0]);

    ok(slr_safetensors_write(NULL, scratch, e, n + 4, NULL, 0));
    ok(slr_network_open_with(&net, NULL, base, scratch, &skip));
    assert_int_equal(slr_network_modules(net), 8);
    assert_int_equal(slr_network_skipped(net), 4);
    assert_null(slr_network_skipped_at(net, 4));
    for (size_t i = 0; i < 4; i++) {
        bool found = false;
        for (size_t k = 0; k < 4; k++)
            found = found || !strcmp(slr_network_skipped_at(net, k), STRANGE[i]);
        assert_true(found);
    }
    assert_non_null(strstr(told, "4 of 20 tensors were skipped"));
    compare(net, "diffusers");
    slr_network_unref(net);

    /* nothing left, and what is broken stays refused */
    ok(slr_safetensors_write(NULL, scratch, e + n, 4, NULL, 0));
    assert_int_equal(slr_network_open_with(&net, NULL, base, scratch, &skip), SDLORA_EFORMAT);
    says("holds no network module");
    e[0].t.dim[0]++;
    e[0].t.data = memset(slr_calloc(NULL, 1 << 20, 1), 0, 1 << 20);
    ok(slr_safetensors_write(NULL, scratch, e, n, NULL, 0));
    assert_int_equal(slr_network_open_with(&net, NULL, base, scratch, &skip), SDLORA_EFORMAT);
    slr_free(NULL, (void *)e[0].t.data);
    golden_close(&g);
    unlink(scratch);
}

/* ---- hostile ---- */

static size_t n_mutants;

static void refused(const char *file, const char *word, const char *before)
{
    char after[65];
    slr_network *net;
    int rc = slr_network_open(&net, NULL, base, file);
    if (rc != SDLORA_EFORMAT && rc != SDLORA_ENOTSUP)
        fail_msg("%s: %d %s", word, rc, rc < 0 ? sdlora_last_error()->message : "taken");
    assert_null(net);
    says(word);
    base_hash(base, after);
    assert_string_equal(before, after);
    n_mutants++;
}

/* Names cut short or bent, doubled in another spelling. */
static void bent_names(const char *file, const char *before)
{
    static slr_st_entry e[ENTRIES];
    /* without ".weight", which is 7, a key is what some write */
    static const size_t CUTS[] = {1, 2, 3, 5, 6, 8, 9, 10, 13, 14, 17, 20, 24, 30};
    static const char *const DOUBLES[][2] = {
        {"lora_A.weight", "lora_A.default.weight"},
        {"lora_A.weight", "lora.down.weight"},
        {"lora_A.weight", "lora_down.weight"},
        {"lora_B.weight", "lora_B"},
        {"lora_B.weight", "lora_linear_layer.up.weight"},
    };
    golden g = golden_open(file);
    for (size_t i = 0; i < sizeof CUTS / sizeof *CUTS; i++) {
        char name[256];
        size_t n = entries(&g, e), at = i % n, cut = CUTS[i];
        snprintf(name, sizeof name, "%.*s", (int)(strlen(e[at].name) - cut), e[at].name);
        e[at].name = name;
        ok(slr_safetensors_write(NULL, scratch, e, n, NULL, 0));
        refused(scratch, scratch, before);
    }
    for (size_t i = 0; i < sizeof DOUBLES / sizeof *DOUBLES; i++) {
        char name[256];
        size_t n = entries(&g, e), at = 0;
        while (!slr_ends(e[at].name, DOUBLES[i][0]))
            at++;
        snprintf(name, sizeof name, "%.*s%s", (int)(strlen(e[at].name) - strlen(DOUBLES[i][0])),
                 e[at].name, DOUBLES[i][1]);
        e[n] = e[at];
        e[n++].name = name;
        ok(slr_safetensors_write(NULL, scratch, e, n, NULL, 0));
        refused(scratch, "one tensor in two spellings", before);
        says(e[at].name);
        says(name);
    }
    golden_close(&g);
}

/* Settings that are no settings, or contradict the tensors. */
static const struct {
    const char *text; /* '@' in front: repeated 100000 times */
    const char *word;
} SETTINGS[] = {
    {"", ""},
    {"{", ""},
    {"[]", "not a JSON object"},
    {"null", ""},
    {"@[", ""},
    {"@{\"a\":", ""},
    {"{\"r\": 4, \"r\": 4}", ""},
    {"{\"r\": 1000000000}", "rank 1000000000"},
    {"{\"r\": 1e300}", "rank 1e+300"},
    {"{\"r\": 0}", "rank 0"},
    {"{\"r\": -4}", "rank -4"},
    {"{\"r\": 4.5}", "rank 4.5"},
    {"{\"r\": 5}", "rank 5"},
    {"{\"r\": \"4\"}", "not a number"},
    {"{\"r\": null}", "not a number"},
    {"{\"r\": [4]}", "not a number"},
    {"{\"r\": 4, \"lora_alpha\": 1e999}", ""},
    {"{\"r\": 4, \"lora_alpha\": \"4\"}", "not a number"},
    {"{\"r\": 4, \"lora_alpha\": {}}", "not a number"},
    {"{\"r\": 4, \"rank_pattern\": {\".*to_q\": 4}}", "expression"},
    {"{\"r\": 4, \"rank_pattern\": {\"(a|b)\": 4}}", "expression"},
    {"{\"r\": 4, \"rank_pattern\": {\"conv_in\": 1000000000}}", "rank 1000000000"},
    {"{\"r\": 4, \"rank_pattern\": {\"conv_in\": \"x\"}}", "not a number"},
    {"{\"r\": 4, \"alpha_pattern\": {\"conv_in\": []}}", "not a number"},
    {"{\"r\": 4, \"alpha_pattern\": {\"conv+in\": 1}}", "expression"},
    {"{\"r\": 4, \"init_lora_weights\": \"pissa_niter_16\"}", "pissa"},
    {"{\"r\": 4, \"init_lora_weights\": \"olora\"}", "olora"},
    {"{\"r\": 4", ""},
    {"{\"r\": 4}x", ""},
    {"\xff\xfe", ""},
};

static void bent_settings(const char *before)
{
    static slr_st_entry e[ENTRIES];
    golden g = golden_open(DIALECTS "peft_dora/adapter_model.safetensors");
    size_t n = entries(&g, e);
    char config[128];
    strcpy(folder, "/tmp/sdlora-dialect-XXXXXX");
    assert_non_null(mkdtemp(folder));
    snprintf(adapter, sizeof adapter, "%s/adapter_model.safetensors", folder);
    snprintf(config, sizeof config, "%s/adapter_config.json", folder);
    ok(slr_safetensors_write(NULL, adapter, e, n, NULL, 0));
    for (size_t i = 0; i < sizeof SETTINGS / sizeof *SETTINGS; i++) {
        const char *text = SETTINGS[i].text;
        slr_buf b;
        slr_buf_init(&b, NULL);
        for (int k = 0; k < (*text == '@' ? 100000 : 1); k++)
            slr_buf_puts(&b, text + (*text == '@'));
        ok(slr_buf_ok(&b));
        ok(slr_file_write(NULL, config, b.data ? b.data : "", b.len));
        refused(adapter, config, before);
        says(SETTINGS[i].word);
        /* the same as diffusers' metadata, whose names would have the part in front */
        if (b.len && *text != '{' && (unsigned char)*text < 0x80) {
            const slr_st_pair pair = {SLR_PEFT_METADATA, b.data};
            ok(slr_safetensors_write(NULL, scratch, e, n, &pair, 1));
            refused(scratch, SLR_PEFT_METADATA, before);
        }
        slr_buf_free(&b);
    }
    unlink(config);
    unlink(adapter);
    rmdir(folder);
    golden_close(&g);
}

static void hostile(void **state)
{
    (void)state;
    char before[65];
    base_hash(base, before);
    temp_file(scratch);
    bent_names(DIALECTS "diffusers.safetensors", before);
    bent_names(DIALECTS "peft_lora/adapter_model.safetensors", before);
    bent_settings(before);
    print_message("%zu mutants\n", n_mutants);
    assert_true(n_mutants >= 60);
    unlink(scratch);
}

/* ---- memory ---- */

static int open_and_save(slr_mem *m, const char *from, const char *dialect, const char *to)
{
    const slr_open_config config = {.skip = true};
    const slr_spelling *s;
    slr_network *net = NULL;
    slr_meta *meta = NULL;
    char *json = NULL;
    ok(slr_spelling_named(&s, dialect));
    int rc = slr_network_open_with(&net, m, base, from, &config);
    if (rc >= 0)
        rc = slr_meta_new(&meta, m);
    if (rc >= 0)
        rc = slr_netfile_save_as(net, to, SDLORA_F32, meta, s);
    if (rc >= 0)
        rc = slr_file_info(&json, m, (slr_log){0}, from, false);
    slr_free(m, json);
    slr_meta_free(meta);
    slr_network_unref(net);
    return rc;
}

static void failed_allocations(void **state)
{
    (void)state;
    static const struct {
        const char *from, *dialect;
    } CASES[] = {{"diffusers_metadata.safetensors", "diffusers"},
                 {"peft_ia3/adapter_model.safetensors", "kohya"},
                 {"peft_dora/adapter_model.safetensors", "peft"}};
    char config[128];
    strcpy(folder, "/tmp/sdlora-dialect-XXXXXX");
    assert_non_null(mkdtemp(folder));
    snprintf(adapter, sizeof adapter, "%s/adapter_model.safetensors", folder);
    snprintf(config, sizeof config, "%s/adapter_config.json", folder);
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        char path[256];
        int rc = -1;
        if (strstr(CASES[i].from, "ia3") && !slr_kind_named("ia3"))
            continue;
        path_of(path, CASES[i].from);
        /* most of them list the layers of the model, all alike */
        for (int64_t n = 0; rc < 0; n += n < 60 ? 1 : 13) {
            failing f = {.left = n};
            const slr_mem_hooks hooks = {fail_alloc, fail_realloc, fail_free, &f};
            slr_mem *m;
            assert_true(n < 100000);
            rc = slr_mem_new(&m, &hooks, 0);
            if (rc >= 0) {
                rc = open_and_save(m, path, CASES[i].dialect, adapter);
                slr_mem_unref(m);
            }
            if (rc < 0 && rc != SDLORA_ENOMEM)
                fail_msg("allocation %d: %s", (int)n, sdlora_last_error()->message);
            if (f.held)
                fail_msg("allocation %d: %d blocks are lost", (int)n, (int)f.held);
        }
    }
    unlink(config);
    unlink(adapter);
    rmdir(folder);
}

/* ---- SDXL ---- */

static const slr_target *target_of(const slr_targets *t, const char *key)
{
    slr_key k;
    return slr_key_read(&k, key) ? slr_key_target(t, &k) : NULL;
}

static void sdxl_group(const slr_targets *t, json_t *names, json_t *others, size_t *seen)
{
    const char *name;
    json_t *shapes;
    json_object_foreach(names, name, shapes)
    {
        char key[320];
        const slr_target *x = slr_targets_find(t, name, strlen(name));
        if (!x)
            fail_msg("%s is not a name here", name);
        json_t *down = json_array_get(shapes, 0), *up = json_array_get(shapes, 1);
        assert_int_equal(json_integer_value(json_array_get(down, 1)), x->in);
        assert_int_equal(json_integer_value(json_array_get(up, 0)), x->out);
        if (json_array_size(down) == 4)
            assert_int_equal(json_integer_value(json_array_get(down, 2)), x->kh);
        snprintf(key, sizeof key, "%s.lora_down.weight", name);
        assert_ptr_equal(target_of(t, key), x);
        const char *other = json_string_value(json_object_get(others, name));
        if (other)
            snprintf(key, sizeof key, "%s.lora_down.weight", other);
        if (target_of(t, key) != x)
            fail_msg("%s does not mean %s", key, name);
        snprintf(key, sizeof key, "%s.%s.lora_B.default.weight",
                 x->part == SLR_PART_UNET ? "unet"
                 : x->part == SLR_PART_TE ? "text_encoder"
                                          : "text_encoder_2",
                 x->path);
        assert_ptr_equal(target_of(t, key), x);
        ++*seen;
    }
}

/* sd-scripts' names of every layer and diffusers', of a LoRA and of what a LoCon adds. */
static void sdxl_names(void **state)
{
    (void)state;
    json_t *j;
    slr_checkpoint *c;
    slr_targets *t;
    size_t lora = 0, locon = 0;
    ok(slr_json_read(&j, NULL, DIALECTS "keys_sdxl.json", 16 << 20));
    ok(slr_checkpoint_shapes(&c, "sdxl", &CONFIG));
    ok(slr_targets_new(&t, NULL, c));
    json_t *others = json_object_get(j, "diffusers");
    sdxl_group(t, json_object_get(j, "lora"), others, &lora);
    sdxl_group(t, json_object_get(j, "locon"), others, &locon);
    assert_int_equal(lora, 986); /* 722 of the UNet, 72 and 192 of the encoders */
    assert_int_equal(locon, 66);
    size_t rule[4] = {0};
    for (size_t i = 0; i < slr_targets_count(t); i++)
        rule[slr_target_rule(slr_targets_at(t, i))]++;
    assert_int_equal(rule[SLR_TARGET_LINEAR], 986);
    assert_int_equal(rule[SLR_TARGET_CONV] + rule[SLR_TARGET_CONV_LINEAR], 66);
    slr_targets_free(t);
    slr_checkpoint_unref(c);
    json_decref(j);
}

/* ---- keys ---- */

static void spellings(void **state)
{
    (void)state;
    static const struct {
        const char *key, *module, *leaf;
        int dialect, parts;
        bool peft;
    } CASES[] = {
#define U (1 << SLR_PART_UNET)
#define T (1 << SLR_PART_TE)
#define B (1 << SLR_PART_TE2)
        {"lora_unet_a_b.lora_down.weight", "a_b", "lora_down.weight", SLR_DIALECT_KOHYA, U, false},
        {"lora_te_a.alpha", "a", "alpha", SLR_DIALECT_KOHYA, T, false},
        {"lora_te2_a.hada_w1_a", "a", "hada_w1_a", SLR_DIALECT_KOHYA, B, false},
        {"oft_unet_a.oft_blocks", "a", "oft_blocks", SLR_DIALECT_KOHYA, U, false},
        {"lycoris_a.lokr_w1", "a", "lokr_w1", SLR_DIALECT_LYCORIS, U | T | B, false},
        {"unet.a.0.b.lora_A.weight", "a_0_b", "lora_down.weight", SLR_DIALECT_DIFFUSERS, U, true},
        {"unet.a.lora_B.default.weight", "a", "lora_up.weight", SLR_DIALECT_DIFFUSERS, U, true},
        {"unet.a.hada_w1_b.my-cat", "a", "hada_w1_b", SLR_DIALECT_DIFFUSERS, U, true},
        {"text_encoder_2.a.lora_A", "a", "lora_down.weight", SLR_DIALECT_DIFFUSERS, B, true},
        {"base_model.model.a.b.lora_magnitude_vector.default.weight", "a_b", "dora_scale",
         SLR_DIALECT_PEFT, U | T | B, true},
        {"base_model.model.a.hada_t1.default", "a", "hada_t1", SLR_DIALECT_PEFT, U | T | B, true},
        {"base_model.model.unet.a.ia3_l", "a", "weight", SLR_DIALECT_PEFT, U, true},
        {"unet.x.attn1.processor.to_out_lora.up.weight", "x_attn1_to_out_0", "lora_up.weight",
         SLR_DIALECT_PROCESSOR, U, false},
        {"text_encoder.l.self_attn.to_k_lora.down.weight", "l_self_attn_k_proj", "lora_down.weight",
         SLR_DIALECT_PROCESSOR, T, false},
        {"text_encoder.l.self_attn.to_out_lora.down.weight", "l_self_attn_out_proj",
         "lora_down.weight", SLR_DIALECT_PROCESSOR, T, false},
        {"text_encoder.q_proj.lora_linear_layer.up.weight", "q_proj", "lora_up.weight",
         SLR_DIALECT_OLD, T, false},
        {"unet.x.to_out.0.lora.down.weight", "x_to_out_0", "lora_down.weight", SLR_DIALECT_OLD, U,
         false},
        {"diffusion_model.input_blocks.1.1.proj_in.alpha", "input_blocks_1_1_proj_in", "alpha",
         SLR_DIALECT_NATIVE, U, false},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        slr_key k;
        assert_true(slr_key_read(&k, CASES[i].key));
        assert_string_equal(k.module, CASES[i].module);
        assert_string_equal(k.leaf, CASES[i].leaf);
        assert_int_equal(k.dialect, CASES[i].dialect);
        assert_int_equal(k.parts, CASES[i].parts);
        assert_int_equal(k.peft, CASES[i].peft);
    }
    static const char *const BAD[] = {"",
                                      ".",
                                      "..",
                                      "lora_unet_",
                                      "lora_unet_.alpha",
                                      "unet.",
                                      "unet.lora_A.weight",
                                      ".lora_A.weight",
                                      "lora_A.weight",
                                      "nothing",
                                      "_lora.down.weight"};
    for (size_t i = 0; i < sizeof BAD / sizeof *BAD; i++) {
        slr_key k;
        if (slr_key_read(&k, BAD[i]) && (!*k.module || !*k.leaf))
            fail_msg("'%s' gives '%s' and '%s'", BAD[i], k.module, k.leaf);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(spellings),   cmocka_unit_test(sdxl_names),
        cmocka_unit_test(reading),     cmocka_unit_test(writing),
        cmocka_unit_test(not_written), cmocka_unit_test(tucker),
        cmocka_unit_test(info),        cmocka_unit_test(unmatched),
        cmocka_unit_test(hostile),     cmocka_unit_test(failed_allocations),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
