/* SPDX-License-Identifier: MIT */
/* What network_module and network_args make: layers, kinds, ranks, alphas and rates as LyCORIS' and
 * kohya's own modules have them (tests/golden/make_presets.py), and what is refused. */
#include "network_test.h"

#include <math.h>

#include "io/json.h"
#include "networks/kind.h"

static slr_checkpoint *sd15;
static json_t *oracle;

static int setup(void **state)
{
    (void)state;
    ok(slr_checkpoint_shapes(&sd15, "sd15", &CONFIG));
    ok(slr_json_read(&oracle, NULL, TEST_ROOT "/golden/presets.json", 1 << 20));
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    slr_checkpoint_unref(sd15);
    json_decref(oracle);
    return 0;
}

static void put_text(const char *path, const char *text)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

/* ---- as the oracles do it ---- */

/* network_args of a case, one a line; the preset file's line is added. */
static void args_of(json_t *c, const char *preset, char *out, size_t cap)
{
    json_t *args = json_object_get(c, "args");
    size_t n = 0;
    for (size_t i = 0; i < json_array_size(args); i++)
        n += (size_t)snprintf(out + n, cap - n, "%s\n", json_string_value(json_array_get(args, i)));
    if (preset)
        snprintf(out + n, cap - n, "preset=%s\n", preset);
    else
        out[n] = '\0';
}

static int make_case(slr_network **out, json_t *c, const char *preset)
{
    char args[2048], dim[32], alpha[32];
    args_of(c, preset, args, sizeof args);
    snprintf(dim, 32, "%d", (int)json_integer_value(json_object_get(c, "dim")));
    snprintf(alpha, 32, "%.9g", json_number_value(json_object_get(c, "alpha")));
    return make_rc(out, sd15,
                   (const char *[]){"network_module",
                                    json_string_value(json_object_get(c, "module")), "network_dim",
                                    dim, "network_alpha", alpha, args[0] ? "network_args" : NULL,
                                    args, NULL},
                   1);
}

/* Rates of all slots of a module are the same here. */
static void compare_module(slr_network *n, const char *name, const char *want)
{
    char kind[16];
    double rank, alpha, scale, rate;
    assert_int_equal(sscanf(want, "%15s %lf %lf %lf %lf", kind, &rank, &alpha, &scale, &rate), 5);
    for (size_t i = 0; i < n->n_modules; i++) {
        const slr_module *mod = &n->module[i];
        if (strcmp(mod->target.name, name))
            continue;
        bool ranked = rank > 0 && strcmp(kind, "oft");
        const slr_network_slot *last = &n->slot[mod->slot];
        for (size_t k = mod->slot; k < n->n_slots && n->slot[k].module == i; k++)
            last = &n->slot[k]; /* `up`: the one that LoRA-FA trains */
        if (strcmp(mod->kind->name, kind) || fabs(last->lr_scale - rate) > 1e-6 ||
            (ranked && ((double)mod->rank != rank || fabs(mod->alpha - alpha) > 1e-5 ||
                        fabs(mod->scale - scale) > 1e-5)))
            fail_msg("%s: %s, rank %d, alpha %g, scale %g, rate %g; wanted %s", name,
                     mod->kind->name, (int)mod->rank, mod->alpha, mod->scale, last->lr_scale, want);
        return;
    }
    fail_msg("%s is missing: %s", name, want);
}

static bool all_kinds(json_t *groups)
{
    const char *key;
    json_t *value;
    char kind[16];
    json_object_foreach(groups, key, value)
    {
        assert_int_equal(sscanf(key, "%15s", kind), 1);
        if (!slr_kind_named(kind))
            return false;
    }
    return true;
}

static void compare_case(json_t *c, slr_network *n)
{
    json_t *names = json_object_get(oracle, "names"), *ranges, *range;
    const char *want;
    size_t i;
    json_object_foreach(json_object_get(c, "groups"), want, ranges)
    {
        json_array_foreach(ranges, i, range)
        {
            json_int_t k = json_integer_value(json_array_get(range, 0));
            for (; k <= json_integer_value(json_array_get(range, 1)); k++)
                compare_module(n, json_string_value(json_array_get(names, (size_t)k)), want);
        }
    }
    size_t count = (size_t)json_integer_value(json_object_get(c, "count"));
    if (slr_network_modules(n) != count)
        fail_msg("%d modules, wanted %d", (int)slr_network_modules(n), (int)count);
}

static void as_oracles(void **state)
{
    (void)state;
    json_t *documents = json_object_get(oracle, "documents"), *c;
    size_t i, left_out = 0;
    json_array_foreach(json_object_get(oracle, "cases"), i, c)
    {
        const char *document = json_string_value(json_object_get(c, "preset"));
        char path[64] = "/tmp/sdlora-preset-XXXXXX";
        slr_network *n;
        if (!all_kinds(json_object_get(c, "groups"))) {
            left_out++;
            continue;
        }
        if (document) {
            close(mkstemp(path));
            put_text(path, json_string_value(json_object_get(documents, document)));
        }
        int rc = make_case(&n, c, document ? path : NULL);
        if (document)
            unlink(path);
        if (rc < 0) {
            char *text = json_dumps(c, 0);
            text[200] = '\0';
            fail_msg("%s: %s", text, sdlora_last_error()->message);
        }
        compare_case(c, n);
        slr_network_unref(n);
    }
    if (left_out)
        print_message("%zu cases wait for their algorithms\n", left_out);
}

/* ---- ia3 ---- */

/* The preset alone does what LyCORIS means: `on_input` for the second half of feed-forwards. */
static void ia3(void **state)
{
    (void)state;
    slr_network *n;
    size_t on_input = 0;
    if (!slr_kind_named("ia3"))
        skip();
    ok(make_rc(&n, sd15,
               (const char *[]){"network_module", "lycoris.kohya", "network_args",
                                "algo=ia3\npreset=ia3", NULL},
               1));
    assert_int_equal(slr_network_modules(n), 116);
    for (size_t i = 0; i < n->n_modules; i++) {
        const char *path = n->module[i].target.path;
        bool wanted = strstr(path, "ff.net.2") || strstr(path, "mlp.fc2");
        assert_true(n->module[i].set->train_on_input == wanted);
        on_input += wanted;
    }
    assert_int_equal(on_input, 28);
    slr_network_unref(n);
}

/* ---- rates ---- */

static void loraplus(void **state)
{
    (void)state;
    slr_network *n;
    static const char *const LINES[] = {"loraplus_lr_ratio=16",
                                        "loraplus_lr_ratio=16\nloraplus_unet_lr_ratio=4",
                                        "loraplus_text_encoder_lr_ratio=2\nmid_lr_weight=.5"};
    static const double UNET[] = {16, 4, 1}, TE[] = {16, 16, 2}, MID[] = {16, 4, .5},
                        DOWN_MID[] = {1, 1, .5};
    for (size_t k = 0; k < 3; k++) {
        ok(make_rc(&n, sd15, (const char *[]){"network_args", LINES[k], NULL}, 1));
        for (size_t i = 0; i < slr_network_slots(n); i++) {
            const slr_network_slot *s = slr_network_slot_at(n, i);
            bool up = strstr(s->key, "lora_up") != NULL, mid = strstr(s->key, "mid_block") != NULL;
            double want = s->part != SLR_PART_UNET ? (up ? TE[k] : 1)
                          : mid                    ? (up ? MID[k] : DOWN_MID[k])
                          : up                     ? UNET[k]
                                                   : 1;
            if (s->lr_scale != want)
                fail_msg("%s has %g, wanted %g", s->key, s->lr_scale, want);
        }
        slr_network_unref(n);
    }
}

static void lora_fa(void **state)
{
    (void)state;
    slr_network *n;
    ok(make_rc(&n, sd15,
               (const char *[]){"network_module", "networks.lora_fa", "network_dim", "8",
                                "network_args", "conv_dim=4", NULL},
               1));
    for (size_t i = 0; i < slr_network_slots(n); i++) {
        const slr_network_slot *s = slr_network_slot_at(n, i);
        const slr_target *t = slr_network_target(n, s->module);
        const float *x = slr_network_params(n) + s->offset;
        bool down = strstr(s->key, "lora_down") != NULL;
        double square = 0, wanted = 2.0 / (double)(t->in + slr_network_rank(n, s->module));
        for (size_t k = 0; k < s->count; k++)
            square += (double)x[k] * x[k] / (double)s->count;
        assert_true(s->lr_scale == (down ? 0 : 1));
        /* the mean of `count` squares of normals is within 6 sqrt(2 / count) of 1 */
        assert_true(down ? fabs(square / wanted - 1) < 6 * sqrt(2 / (double)s->count)
                         : square == 0);
    }
    slr_network_unref(n);
}

/* ---- scale_weight_norms ---- */

static double sum_of(const slr_network *n, const slr_module *mod, int leaf)
{
    const slr_network_slot *s = slr_module_slot(mod, &n->slot[mod->slot], leaf);
    double sum = 0;
    for (size_t k = 0; s && k < s->count; k++)
        sum += (double)n->params[s->offset + k] * n->params[s->offset + k];
    return sum;
}

/* |scale D| by definition; of LoHa's linear layers, LoKr with full factors, and OFT's blocks. */
static double norm_of(const slr_network *n, const slr_module *mod)
{
    if (!strcmp(mod->kind->name, "lokr"))
        return mod->scale * sqrt(sum_of(n, mod, 0) * sum_of(n, mod, 3));
    if (strcmp(mod->kind->name, "loha"))
        return sqrt(sum_of(n, mod, 0));
    const float *f[4];
    double sum = 0;
    for (int i = 0; i < 4; i++)
        f[i] = n->params + slr_module_slot(mod, &n->slot[mod->slot], i)->offset;
    for (int64_t o = 0; o < mod->target.out; o++)
        for (int64_t i = 0; i < mod->target.in; i++) {
            double half[2] = {0, 0};
            for (int64_t r = 0; r < mod->rank; r++)
                for (int h = 0; h < 2; h++)
                    half[h] +=
                        (double)f[2 * h][o * mod->rank + r] * f[2 * h + 1][r * mod->target.in + i];
            sum += half[0] * half[0] * half[1] * half[1];
        }
    return mod->scale * sqrt(sum);
}

static void norms(void **state)
{
    (void)state;
    static const struct {
        const char *args;
        double size;
    } CASES[] = {{"algo=loha\npreset=attn-only", 0.5},
                 {"algo=lokr\nfull_matrix=1\npreset=attn-only", 0.3},
                 {"algo=diag-oft\npreset=attn-only", 0.1}};
    const slr_devices_config config = {.cpu_features = slr_cpu_features(), .backend = "cpu"};
    slr_checkpoint *base;
    slr_devices *devices;
    ok(slr_checkpoint_open(&base, TINYSD, &CONFIG));
    ok(slr_devices_open(&devices, &config));
    for (size_t c = 0; c < sizeof CASES / sizeof *CASES; c++) {
        slr_network *n =
            make(base,
                 (const char *[]){"network_module", "lycoris.kohya", "network_dim", "4",
                                  "network_alpha", "2", "network_args", CASES[c].args, NULL},
                 3, CASES[c].size);
        double *before = calloc(n->n_modules, sizeof *before), middle = 0;
        size_t smaller = 0;
        for (size_t i = 0; i < n->n_modules; i++)
            middle += (before[i] = norm_of(n, &n->module[i])) / (double)n->n_modules;
        for (int pass = 0; pass < 2; pass++) /* a second finds nothing to do */
            ok(slr_network_scale_norms(n, devices, middle));
        for (size_t i = 0; i < n->n_modules; i++) {
            double want = fmin(before[i], middle), have = norm_of(n, &n->module[i]);
            smaller += before[i] > middle;
            if (fabs(have - want) > 1e-5 * want) /* sums of f32 */
                fail_msg("%s: %.8g, wanted %.8g", n->module[i].target.name, have, want);
        }
        assert_true(smaller > 0 && smaller < n->n_modules);
        free(before);
        slr_network_unref(n);
    }
    slr_devices_unref(devices);
    slr_checkpoint_unref(base);
}

/* ---- refusals ---- */

static void refuses(void **state)
{
    (void)state;
    static const struct {
        const char *module, *args, *says[2];
    } CASES[] = {
        {"networks.lora", "con_dim=4", {"'con_dim'", "did you mean 'conv_dim'"}},
        {"networks.lora", "factor=4", {"'factor' is not supported by networks.lora", ""}},
        {"lycoris.kohya", "use_tuker=1", {"did you mean 'use_tucker'", ""}},
        {"lycoris.kohya", "block_dims=1", {"'block_dims' is not supported by lycoris.kohya", ""}},
        {"lycoris.kohya", "algo=lorra", {"algo=lorra is not known", ""}},
        {"lycoris.kohya", "preset=fulll", {"preset fulll is neither a file nor one of", "ia3"}},
        {"networks.flux", "", {"network_module networks.flux is not known", "lycoris.kohya"}},
        {"networks.lora", "block_dims=1,2", {"block_dims has 2 values", "25 blocks"}},
        {"networks.lora", "block_dims=1,x", {"block_dims: 'x' is not a whole number", ""}},
        {"networks.lora", "block_dims=1.5", {"'1.5' is not a whole number", ""}},
        {"networks.lora", "block_alphas=1", {"need block_dims", ""}},
        {"networks.lora", "down_lr_weight=sinus", {"down_lr_weight=sinus", "reverse_linear"}},
        {"networks.lora", "up_lr_weight=1,-1", {"'-1' is not a number from 0", ""}},
        {"networks.lora", "down_lr_weight=zeros\nmid_lr_weight=0\nup_lr_weight=zeros", {"", ""}},
        {"networks.dylora", "conv_dim=8", {"conv_dim has to be network_dim", "4"}},
        {"networks.dylora", "unit=3", {"rank 4", "not a multiple of 3"}},
        {"networks.dylora", "dropout=.1", {"'dropout' is not supported by networks.dylora", ""}},
        {"lycoris.kohya", "algo=dylora\nblock_size=3", {"not a multiple of 3", ""}},
        {"lycoris.kohya", "algo=dylora\ndora_wd=1", {"DyLoRA has no weight decomposition", ""}},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        slr_network *n;
        int rc =
            make_rc(&n, sd15,
                    (const char *[]){"network_module", CASES[i].module,
                                     CASES[i].args[0] ? "network_args" : NULL, CASES[i].args, NULL},
                    1);
        if (!CASES[i].says[0][0]) { /* the text encoder is left */
            ok(rc);
            assert_int_equal(slr_network_modules(n), 72);
            slr_network_unref(n);
            continue;
        }
        if (rc >= 0)
            fail_msg("%s with %s was not refused", CASES[i].module, CASES[i].args);
        assert_null(n);
        says(CASES[i].says[0]);
        says(CASES[i].says[1]);
    }
}

static void refuses_presets(void **state)
{
    (void)state;
    static const struct {
        const char *text, *says[2];
    } CASES[] = {
        {"enable_conv = 1", {"enable_conv: true or false", ""}},
        {"enable_con = true", {"no key enable_con", "did you mean enable_conv"}},
        {"unet_target_module = ['Transformer2DModle']",
         {"Transformer2DModle", "Transformer2DModel?"}},
        {"unet_target_name = 'conv_in'", {"unet_target_name: a list", ""}},
        {"unet_target_name = ['a(?=b)']", {"'a(?=b)' is not a regular expression", "use_fnmatch"}},
        {"unet_target_name = ['*.to_k']", {"'*.to_k' is not a regular expression", "use_fnmatch"}},
        {"exclude_name = ['((a{9}){9}){9}']", {"is not a regular expression", ""}},
        {"[module_algo_map.Attention]\nalgo = 'lokrr'", {"algo=lokrr is not known", ""}},
        {"[module_algo_map.Attention]\nrank = 3", {"'rank' is not supported", ""}},
        {"[module_algo_map.Attention]\nfacter = 3", {"did you mean 'factor'", ""}},
        {"[module_algo_map.Attention]\ndim = 0", {"dim=0 is not a whole number from 1", ""}},
        {"module_algo_map = 3", {"module_algo_map: a table", ""}},
        {"a = [", {"line 1", ""}},
        {"unet_target_module = []\nunet_target_name = []\ntext_encoder_target_module = []",
         {"leave no module to train", ""}},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        char path[64] = "/tmp/sdlora-preset-XXXXXX", args[128];
        slr_network *n;
        close(mkstemp(path));
        put_text(path, CASES[i].text);
        snprintf(args, sizeof args, "preset=%s", path);
        int rc = make_rc(
            &n, sd15,
            (const char *[]){"network_module", "lycoris.kohya", "network_args", args, NULL}, 1);
        unlink(path);
        if (rc >= 0)
            fail_msg("%s was not refused", CASES[i].text);
        says(CASES[i].says[0]);
        says(CASES[i].says[1]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(as_oracles),      cmocka_unit_test(ia3),   cmocka_unit_test(loraplus),
        cmocka_unit_test(lora_fa),         cmocka_unit_test(norms), cmocka_unit_test(refuses),
        cmocka_unit_test(refuses_presets),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
