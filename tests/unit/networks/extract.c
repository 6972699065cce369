/* SPDX-License-Identifier: MIT */
/* extract against sd-scripts' extract_lora_from_models.py and LyCORIS' extract_diff, on tinysd with
 * a dozen changed weights; kohya's rule of the text encoder; and what is refused. */
#include "tools_test.h"

#include "models/checkpoint_part.h"

static slr_checkpoint *tuned;

/* tinysd's weights, and over them those of tuned.safetensors, "te:path" and "unet:path". */
static slr_weights *changed(slr_weights *w, const char *prefix)
{
    golden g = golden_open(TOOLS "tuned.safetensors");
    slr_weights *out;
    ok(slr_weights_new(&out, NULL, "tuned"));
    for (size_t i = 0; i < slr_weights_count(w); i++) {
        const slr_tensor *t;
        const char *name = slr_weights_at(w, i, &t);
        ok(slr_weights_put(out, name, t));
    }
    for (size_t i = 0; i < slr_safetensors_count(g.file); i++) {
        slr_tensor t;
        char name[256];
        const char *key = slr_safetensors_at(g.file, i, &t);
        if (strncmp(key, prefix, strlen(prefix)))
            continue;
        snprintf(name, sizeof name, "%s.weight", key + strlen(prefix));
        assert_non_null(slr_weights_find(w, name));
        ok(slr_weights_put(out, name, &t));
    }
    golden_close(&g);
    return out;
}

static int setup(void **state)
{
    tools_setup(state);
    slr_weights *te = changed(slr_checkpoint_part(base, SLR_PART_TE), "te:"),
                *unet = changed(slr_checkpoint_part(base, SLR_PART_UNET), "unet:");
    ok(slr_checkpoint_make(&tuned, NULL, "tuned", slr_checkpoint_family(base),
                           slr_checkpoint_traits(base), "ldm"));
    slr_checkpoint_set_part(tuned, SLR_PART_TE, te);
    slr_checkpoint_set_part(tuned, SLR_PART_UNET, unet);
    slr_weights_unref(te);
    slr_weights_unref(unet);
    return 0;
}

static int teardown(void **state)
{
    slr_checkpoint_unref(tuned);
    return tools_teardown(state);
}

static int extract_rc(slr_network **out, const slr_tool *t, const char *const *pairs)
{
    sdlora_options *o = tool_options("extract", pairs);
    int rc = slr_network_extract(out, t, tuned, (slr_opt){o, "extract"});
    slr_options_unref(o);
    return rc;
}

static slr_network *extracted(const char *const *pairs)
{
    slr_network *n;
    ok(extract_rc(&n, &tool, pairs));
    return n;
}

static void test_kohya(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        double tol;
        const char *pairs[8];
    } rows[] = {
        {"extract_noclamp", TOL_DELTA, {"min_diff", "0", "clamp_quantile", "0"}},
        {"extract_conv", TOL_DELTA, {"conv_dim", "3", "clamp_quantile", "0"}},
        /* the quantile is one of signed values, whose signs an SVD chooses; see clamps_as() */
        {"extract_clamp", 0.2, {"min_diff", "1"}},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const char *pairs[16] = {"metadata_title", rows[i].name};
        memcpy(pairs + 2, rows[i].pairs, sizeof rows[i].pairs);
        slr_network *n = extracted(pairs), *want = opened(rows[i].name);
        assert_true(same_network(n, rows[i].name, true) <= rows[i].tol);
        same_metadata(n, rows[i].name);
        assert_int_equal(n->n_modules, atoi(slr_meta_get(want->meta, "modules")));
        slr_network_unref(want);
        slr_network_unref(n);
    }
    clamps_as("extract_noclamp", "extract_clamp", 0.99);
}

static void test_lycoris(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        bool needs_full;
        const char *pairs[14];
    } rows[] = {
        {"lycoris_fixed",
         false,
         {"mode", "fixed", "dim", "6", "conv_dim", "4", "small_conv", "false"}},
        {"lycoris_small", false, {"mode", "fixed", "dim", "6", "conv_dim", "4"}},
        {"lycoris_threshold",
         false,
         {"mode", "threshold", "linear_param", "0.05", "conv_param", "0.1", "small_conv", "false"}},
        {"lycoris_ratio",
         false,
         {"mode", "ratio", "linear_param", "0.2", "conv_param", "0.3", "small_conv", "false"}},
        {"lycoris_quantile",
         false,
         {"mode", "quantile", "linear_param", "0.8", "conv_param", "0.6", "small_conv", "false"}},
        {"lycoris_sparse",
         false,
         {"mode", "fixed", "dim", "6", "conv_dim", "4", "small_conv", "false", "use_sparse_bias",
          "true", "sparsity", "0.97"}},
        {"lycoris_whole",
         true,
         {"mode", "fixed", "dim", "32", "conv_dim", "2", "small_conv", "false"}},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (rows[i].needs_full && !slr_kind_named("full"))
            continue;
        slr_network *n = extracted(rows[i].pairs);
        assert_true(same_network(n, rows[i].name, true) <= TOL_DELTA);
        assert_int_equal(n->n_modules, 12); /* those that changed */
        survives(n);
        slr_network_unref(n);
    }
}

/* The residual's places are LyCORIS' own; values to the rounding of an SVD in f32. */
static void test_residual(void **state)
{
    (void)state;
    static const char *const pairs[][10] = {
        {"mode", "fixed", "dim", "6", "conv_dim", "4", "small_conv", "false", NULL},
        {"mode", "fixed", "dim", "6", "conv_dim", "4", NULL}};
    slr_network *want = opened("lycoris_sparse"), *whole;
    whole = extracted((const char *[]){"mode", "full", NULL});
    size_t places = 0, same = 0;
    for (int i = 0; i < 2; i++) {
        const char *more[14];
        size_t n = 0, closer = 0, with = 0;
        for (; pairs[i][n]; n++)
            more[n] = pairs[i][n];
        slr_network *plain = extracted(pairs[i]);
        memcpy(more + n, (const char *[]){"use_sparse_bias", "true", "sparsity", "0.97", NULL},
               5 * sizeof *more);
        slr_network *got = extracted(more);
        for (size_t k = 0; k < want->n_modules; k++) {
            const slr_module *y = &want->module[k];
            const slr_module *x = slr_network_find(got, y->target.part, y->target.path),
                             *p = slr_network_find(plain, y->target.part, y->target.path),
                             *f = slr_network_find(whole, y->target.part, y->target.path);
            with += slr_module_has(x, SLR_LEAF_SPARSE);
            closer += delta_error(got, x, whole, f) < delta_error(plain, p, whole, f);
            if (i || !slr_module_has(x, SLR_LEAF_SPARSE))
                continue;
            const slr_network_slot *a = slr_module_slot(x, &got->slot[x->slot], SLR_LEAF_PLACES),
                                   *b = slr_module_slot(y, &want->slot[y->slot], SLR_LEAF_PLACES);
            assert_non_null(b);
            assert_int_equal(a->count, b->count);
            for (size_t j = 0; j < a->count; j++, places++)
                same += got->params[a->offset + j] == want->params[b->offset + j];
        }
        assert_true(with >= 5 && closer == with);
        slr_network_unref(got);
        slr_network_unref(plain);
    }
    print_message("%zu of %zu rows and columns\n", same, places);
    assert_true(same == places && places > 100);
    slr_network_unref(want);
    slr_network_unref(whole);
}

/* Everything that changed, whole: the change itself. */
static void test_full(void **state)
{
    (void)state;
    if (!slr_kind_named("full") || !slr_kind_named("norm"))
        return;
    slr_network *n = extracted((const char *[]){"mode", "full", NULL});
    assert_int_equal(n->n_modules, 12);
    for (size_t i = 0; i < n->n_modules; i++) {
        const slr_target *t = &n->module[i].target;
        char name[256];
        size_t count;
        const slr_tensor *x, *y;
        snprintf(name, sizeof name, "%s.weight", t->path);
        ok(slr_weights_get(slr_checkpoint_part(tuned, t->part), name, &x));
        ok(slr_weights_get(slr_checkpoint_part(base, t->part), name, &y));
        float *d = module_delta(n, &n->module[i], &count), *a = slr_alloc(NULL, count * sizeof *a),
              *b = slr_alloc(NULL, count * sizeof *b);
        ok(slr_tensor_to_f32(x, a));
        ok(slr_tensor_to_f32(y, b));
        for (size_t k = 0; k < count; k++)
            assert_true(d[k] == a[k] - b[k]);
        slr_free(NULL, a);
        slr_free(NULL, b);
        slr_free(NULL, d);
    }
    slr_network_unref(n);
}

/* The same bytes whatever the number of threads. */
static void test_threads(void **state)
{
    (void)state;
    slr_network *n[2];
    for (int i = 0; i < 2; i++) {
        slr_devices *d;
        const slr_devices_config config = {
            .cpu_features = slr_cpu_features(), .backend = "cpu", .threads = i + 1};
        ok(slr_devices_open(&d, &config));
        slr_tool t = {.devices = d, .base = base};
        ok(extract_rc(&n[i], &t, (const char *[]){"conv_dim", "3", NULL}));
        slr_devices_unref(d);
    }
    assert_int_equal(n[0]->n_params, n[1]->n_params);
    assert_memory_equal(n[0]->params, n[1]->params, n[0]->n_params * sizeof(float));
    slr_network_unref(n[0]);
    slr_network_unref(n[1]);
}

static void test_refused(void **state)
{
    (void)state;
    static const struct {
        int code;
        const char *word;
        const char *pairs[6];
    } rows[] = {
        {SDLORA_EINVAL, "linear_param", {"mode", "ratio"}},
        {SDLORA_EINVAL, "between 0 and 1", {"mode", "quantile", "linear_param", "2"}},
        {SDLORA_EINVAL, "LyCORIS' modes", {"use_sparse_bias", "true"}},
    };
    slr_network *n;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        assert_int_equal(extract_rc(&n, &tool, rows[i].pairs), rows[i].code);
        says(rows[i].word);
        assert_null(n);
    }
    slr_checkpoint *other;
    ok(slr_checkpoint_shapes(&other, "sd21", &CONFIG));
    slr_tool t = tool;
    t.base = other;
    assert_int_equal(extract_rc(&n, &t, NULL), SDLORA_EINVAL);
    says("cannot have been trained");
    slr_checkpoint_unref(other);
    ok(slr_checkpoint_shapes(&other, "sd15", &CONFIG));
    t.base = other;
    assert_true(extract_rc(&n, &t, NULL) < 0);
    assert_null(n);
    slr_checkpoint_unref(other);
    /* nothing changed: kohya's rules give modules of zeros, LyCORIS' none at all */
    slr_checkpoint *kept = tuned;
    tuned = base;
    assert_int_equal(extract_rc(&n, &tool, (const char *[]){"mode", "fixed", NULL}), SDLORA_EINVAL);
    says("nothing is left");
    ok(extract_rc(&n, &tool, NULL));
    for (size_t i = 0; i < n->n_modules; i++)
        assert_int_equal(n->module[i].target.part, SLR_PART_UNET);
    slr_network_unref(n);
    tuned = kept;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kohya),    cmocka_unit_test(test_lycoris),
        cmocka_unit_test(test_residual), cmocka_unit_test(test_full),
        cmocka_unit_test(test_threads),  cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
