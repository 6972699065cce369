/* SPDX-License-Identifier: MIT */
/* resize against networks/resize_lora.py of sd-scripts: ranks, alphas, changes and metadata; a
 * LoHa, which that program cannot take; and what is refused. */
#include "tools_test.h"

static slr_network *resized(const slr_network *n, const char *const *pairs)
{
    slr_network *out;
    sdlora_options *o = tool_options("resize", pairs);
    ok(slr_network_resize(&out, &tool, n, (slr_opt){o, "resize"}));
    slr_options_unref(o);
    return out;
}

static void test_golden(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        const char *pairs[8];
    } rows[] = {
        {"resize_fixed", {"new_rank", "4"}},
        {"resize_conv", {"new_rank", "6", "new_conv_rank", "3"}},
        {"resize_sv_ratio",
         {"new_rank", "7", "dynamic_method", "sv_ratio", "dynamic_param", "2.5"}},
        {"resize_sv_fro", {"new_rank", "7", "dynamic_method", "sv_fro", "dynamic_param", "0.9"}},
        {"resize_sv_cumulative",
         {"new_rank", "7", "dynamic_method", "sv_cumulative", "dynamic_param", "0.7"}},
    };
    slr_network *a = opened("a");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        slr_network *n = resized(a, rows[i].pairs);
        assert_true(same_network(n, rows[i].name, true) <= TOL_DELTA);
        same_metadata(n, rows[i].name);
        survives(n);
        slr_network_unref(n);
    }
    slr_network_unref(a);
}

/* More ranks than there are: the same change, and no more ranks than the layer has sides. */
static void test_larger(void **state)
{
    (void)state;
    slr_network *a = opened("a"), *n = resized(a, (const char *[]){"new_rank", "100", NULL});
    for (size_t i = 0; i < a->n_modules; i++) {
        const slr_module *x = &a->module[i],
                         *y = slr_network_find(n, x->target.part, x->target.path);
        int64_t width = slr_target_fan_in(&x->target);
        int64_t most = x->target.out < width ? x->target.out : width;
        assert_int_equal(y->rank, most < 100 ? most : 100);
        assert_true(delta_error(n, y, a, x) <= 1e-5);
    }
    slr_network_unref(n);
    slr_network_unref(a);
}

/* Every kind that is a change of its own: at full rank it is the same change as a LoRA. */
static void test_kinds(void **state)
{
    (void)state;
    static const char *const algos[] = {"algo=loha", "algo=lokr"};
    for (size_t k = 0; k < sizeof algos / sizeof *algos; k++) {
        if (!slr_kind_named(algos[k] + 5))
            continue;
        slr_network *n = make(base,
                              (const char *[]){"network_module", "lycoris.kohya", "network_dim",
                                               "2", "network_args", algos[k],
                                               "network_train_unet_only", "true", NULL},
                              3, 0.3);
        slr_network *all = resized(n, (const char *[]){"new_rank", "512", NULL}),
                    *few = resized(n, (const char *[]){"new_rank", "3", NULL});
        assert_int_equal(all->n_modules, n->n_modules);
        for (size_t i = 0; i < n->n_modules; i++) {
            const slr_module *x = &n->module[i];
            const slr_module *y = slr_network_find(all, x->target.part, x->target.path);
            const slr_module *z = slr_network_find(few, x->target.part, x->target.path);
            assert_string_equal(y->kind->name, "lora");
            /* values below 1e-6 of the largest are left out, and f32 rounds: measured 3e-7 */
            assert_true(delta_error(all, y, n, x) <= 1e-5);
            assert_int_equal(z->rank, 3);
        }
        survives(few);
        slr_network_unref(few);
        slr_network_unref(all);
        slr_network_unref(n);
    }
}

static void test_refused(void **state)
{
    (void)state;
    slr_network *out, *a = opened("a");
    sdlora_options *o = tool_options("resize", (const char *[]){"dynamic_method", "sv_fro", NULL});
    assert_int_equal(slr_network_resize(&out, &tool, a, (slr_opt){o, "resize"}), SDLORA_EINVAL);
    says("dynamic_param");
    assert_null(out);
    slr_options_unref(o);
    slr_network_unref(a);

    slr_network *dora = with_dora();
    assert_int_equal(slr_network_resize(&out, &tool, dora, (slr_opt){NULL, "resize"}),
                     SDLORA_ENOTSUP);
    says("dora_scale");
    says(dora->module[0].target.name);
    slr_network_unref(dora);
}

static int stop_at(void *user, const char *phase, int64_t done, int64_t total)
{
    (void)total;
    assert_string_equal(phase, "resize");
    return done > *(int *)user;
}

static void test_cancel(void **state)
{
    (void)state;
    int at = -1;
    slr_network *out, *a = opened("a");
    slr_tool t = tool;
    t.tell = stop_at;
    t.user = &at;
    assert_int_equal(slr_network_resize(&out, &t, a, (slr_opt){NULL, "resize"}), SDLORA_ECANCELED);
    assert_null(out);
    at = 1;
    assert_int_equal(slr_network_resize(&out, &t, a, (slr_opt){NULL, "resize"}), SDLORA_ECANCELED);
    at = 1000;
    ok(slr_network_resize(&out, &t, a, (slr_opt){NULL, "resize"}));
    slr_network_unref(out);
    slr_network_unref(a);
}

/* The layers come from a model without values, which the file itself tells. */
static void test_standin(void **state)
{
    (void)state;
    slr_checkpoint *c;
    slr_network *n, *out;
    ok(slr_checkpoint_for_network(&c, TOOLS "a.safetensors", &CONFIG));
    assert_string_equal(slr_checkpoint_family(c)->name, "sd1");
    ok(slr_network_open(&n, NULL, c, TOOLS "a.safetensors"));
    slr_tool t = {.devices = devices, .base = c, .hollow = true};
    ok(slr_network_resize(&out, &t, n, (slr_opt){NULL, "resize"}));
    assert_true(same_network(out, "resize_fixed", true) <= TOL_DELTA);
    slr_network_unref(out);
    slr_network_unref(n);
    slr_checkpoint_unref(c);
    assert_true(slr_checkpoint_for_network(&c, TINYSD, &CONFIG) < 0);
    assert_int_equal(slr_checkpoint_for_network(&c, "/nowhere/x.safetensors", &CONFIG),
                     SDLORA_ENOTFOUND);
}

/* SDXL runs nowhere here, but its networks have layers: kohya's 722 and 264 of the two text
 * encoders. */
static void test_sdxl(void **state)
{
    (void)state;
    char path[64];
    slr_checkpoint *c, *found;
    slr_network *n, *again, *out;
    slr_meta *meta;
    ok(slr_checkpoint_shapes(&c, "sdxl", &CONFIG));
    n = make(c, (const char *[]){"network_dim", "2", "network_alpha", "1", NULL}, 1, 0.01);
    assert_int_equal(n->n_modules, 722 + 72 + 192);
    ok(slr_meta_new(&meta, NULL));
    ok(slr_netfile_save(n, temp_file(path), SDLORA_F16, meta));
    ok(slr_checkpoint_for_network(&found, path, &CONFIG));
    assert_string_equal(slr_checkpoint_family(found)->name, "sdxl");
    ok(slr_network_open(&again, NULL, found, path));
    slr_tool t = {.devices = devices, .base = found, .hollow = true};
    sdlora_options *o = tool_options("resize", (const char *[]){"new_rank", "1", NULL});
    ok(slr_network_resize(&out, &t, again, (slr_opt){o, "resize"}));
    slr_options_unref(o);
    assert_int_equal(out->n_modules, again->n_modules);
    assert_int_equal(out->module[0].rank, 1);
    unlink(path);
    slr_meta_free(meta);
    slr_network_unref(out);
    slr_network_unref(again);
    slr_network_unref(n);
    slr_checkpoint_unref(found);
    slr_checkpoint_unref(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden), cmocka_unit_test(test_larger),
        cmocka_unit_test(test_kinds),  cmocka_unit_test(test_refused),
        cmocka_unit_test(test_cancel), cmocka_unit_test(test_standin),
        cmocka_unit_test(test_sdxl),
    };
    return cmocka_run_group_tests(tests, tools_setup, tools_teardown);
}
