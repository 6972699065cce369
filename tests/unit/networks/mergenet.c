/* SPDX-License-Identifier: MIT */
/* Networks merged into one: the sum is what its parts do together, whatever their kinds and ranks;
 * and methods average and svd against sd-scripts' merge_lora.py and svd_merge_lora.py. */
#include "tools_test.h"

/* What tinysd becomes is a sum of f32 changes in another order. */
#define TOL_SUM 1e-5

static int merged_rc(slr_network **out, slr_network *const *n, const double *ratio, size_t count,
                     const char *const *pairs)
{
    slr_stack_item items[4] = {0};
    sdlora_options *o = tool_options("merge", pairs);
    for (size_t i = 0; i < count; i++)
        items[i] = (slr_stack_item){.network = n[i], .te = ratio[i], .unet = ratio[i]};
    int rc = slr_network_combine(out, &tool, items, count, (slr_opt){o, "merge"});
    slr_options_unref(o);
    return rc;
}

static slr_network *merged(slr_network *const *n, const double *ratio, size_t count,
                           const char *const *pairs)
{
    slr_network *out;
    ok(merged_rc(&out, n, ratio, count, pairs));
    return out;
}

static const double ratios[] = {0.7, -0.4, 0.3};

static void test_golden(void **state)
{
    (void)state;
    static const struct {
        const char *name, *second;
        double tol;
        const char *pairs[12];
    } rows[] = {
        {"merge_average", "b", TOL_DELTA, {"method", "average"}},
        {"merge_concat", "c", TOL_DELTA, {"method", "average", "concat", "true"}},
        {"svd_noclamp",
         "c",
         TOL_DELTA,
         {"method", "svd", "new_rank", "4", "new_conv_rank", "2", "clamp_quantile", "0"}},
        /* the quantile is one of signed values, whose signs an SVD chooses: measured 0.09; see
         * clamps_as() */
        {"svd_clamp", "c", 0.2, {"method", "svd"}},
        {"svd_lbw",
         "c",
         TOL_DELTA,
         {"method", "svd", "clamp_quantile", "0", "lbws",
          "[1.0, 0.5, 0.25, 0, 0.1, 0.2, 0.3, 2.0, 0.0, 0.1, 0.2, 0.30000000000000004, 0.4, 0.5, "
          "0.6000000000000001, 0.7000000000000001, 0.8]\n"
          "0.5,0.5,0.5,0.5,0.5,0.5,0.5,0.5,0.5,0.5,0.5,0.5,0.5,0.5,0.5,0.5,0.5"}},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const char *pairs[16] = {"metadata_title", rows[i].name};
        memcpy(pairs + 2, rows[i].pairs, sizeof rows[i].pairs);
        slr_network *in[2] = {opened("a"), opened(rows[i].second)};
        slr_network *n = merged(in, ratios, 2, pairs);
        assert_true(same_network(n, rows[i].name, true) <= rows[i].tol);
        same_metadata(n, rows[i].name);
        survives(n);
        slr_network_unref(n);
        slr_network_unref(in[0]);
        slr_network_unref(in[1]);
    }
    clamps_as("svd_noclamp", "svd_clamp", 0.99);
}

/* sum_i ratio_i D_i of one layer */
static float *wanted(slr_network *const *n, const double *ratio, size_t count, const slr_target *t,
                     size_t *size)
{
    float *sum = NULL;
    for (size_t i = 0; i < count; i++) {
        const slr_module *mod = slr_network_find(n[i], t->part, t->path);
        if (!mod)
            continue;
        float *d = module_delta(n[i], mod, size);
        sum = sum ? sum : slr_calloc(NULL, *size, sizeof *sum);
        for (size_t k = 0; k < *size; k++)
            sum[k] += (float)ratio[i] * d[k];
        slr_free(NULL, d);
    }
    return sum;
}

static void check_sum(const slr_network *got, slr_network *const *n, const double *ratio,
                      size_t count, double tol)
{
    double worst = 0;
    for (size_t i = 0; i < got->n_modules; i++) {
        size_t size = 0, have;
        float *want = wanted(n, ratio, count, &got->module[i].target, &size),
              *d = module_delta(got, &got->module[i], &have);
        assert_non_null(want);
        assert_int_equal(have, size);
        worst = fmax(worst, golden_compare(d, want, size).l2);
        slr_free(NULL, want);
        slr_free(NULL, d);
    }
    printf("sum of %zu networks: %zu modules, delta %.2g\n", count, got->n_modules, worst);
    assert_true(worst <= tol);
}

static void test_sum(void **state)
{
    (void)state;
    slr_network *in[3] = {opened("a"), opened("b"), opened("c")};
    slr_network *n = merged(in, ratios, 3, NULL);
    const slr_module *x = &n->module[5]; /* in all three */
    assert_int_equal(n->n_modules, in[0]->n_modules + 1);
    assert_true(x->rank == 19 || x->rank == 20);
    assert_true(x->alpha == (double)x->rank);
    check_sum(n, in, ratios, 3, TOL_SUM);
    survives(n);

    /* the best of few ranks is what an SVD of the whole gives: as many as there are change nothing
     */
    slr_network *all = merged(in, ratios, 3, (const char *[]){"new_rank", "20", NULL});
    check_sum(all, in, ratios, 3, TOL_SUM);
    slr_network *few =
        merged(in, ratios, 3, (const char *[]){"new_rank", "6", "new_conv_rank", "2", NULL});
    for (size_t i = 0; i < few->n_modules; i++) {
        const slr_target *t = &few->module[i].target;
        int64_t most = t->kh > 1 ? 2 : 6;
        assert_true(few->module[i].rank <= most);
    }
    slr_network_unref(few);
    slr_network_unref(all);
    slr_network_unref(n);

    slr_network *mixed = merged(in, ratios, 3, (const char *[]){"shuffle", "true", NULL});
    check_sum(mixed, in, ratios, 3, TOL_SUM);
    slr_network_unref(mixed);
    for (int i = 0; i < 3; i++)
        slr_network_unref(in[i]);
}

/* Other kinds, and DoRA, which depends on the weights: summed as matrices. */
static void test_kinds(void **state)
{
    (void)state;
    slr_network *in[3] = {opened("a"), with_dora()};
    size_t count = 2;
    if (slr_kind_named("lokr"))
        in[count++] = make(base,
                           (const char *[]){"network_module", "lycoris.kohya", "network_dim", "2",
                                            "network_args", "algo=lokr", NULL},
                           3, 0.3);
    slr_network *out, *n = merged(in, ratios, count, (const char *[]){"new_rank", "512", NULL});
    check_sum(n, in, ratios, count, TOL_SUM);
    slr_network_unref(n);

    assert_int_equal(merged_rc(&out, in, ratios, count, NULL), SDLORA_EINVAL);
    says("new_rank");
    assert_null(out);
    slr_tool kept = tool;
    tool.hollow = true;
    assert_int_equal(merged_rc(&out, in, ratios, 2, (const char *[]){"new_rank", "4", NULL}),
                     SDLORA_ENOTSUP);
    says("DoRA");
    tool = kept;
    assert_int_equal(merged_rc(&out, in, ratios, 2, (const char *[]){"method", "average", NULL}),
                     SDLORA_EINVAL);
    says("LoRA alone");
    for (size_t i = 0; i < count; i++)
        slr_network_unref(in[i]);
}

/* Strengths of text encoder and UNet apart; whole layers and norms are summed as they are. */
static void test_whole(void **state)
{
    (void)state;
    if (!slr_kind_named("full"))
        return;
    slr_network *in[2] = {opened("a"), opened("lycoris_whole")};
    slr_network *n = merged(in, ratios, 2, NULL);
    check_sum(n, in, ratios, 2, TOL_SUM);
    size_t whole = 0;
    for (size_t i = 0; i < n->n_modules; i++)
        whole += !strcmp(n->module[i].kind->name, "full");
    assert_int_equal(whole, 2);
    survives(n);
    slr_network_unref(n);
    slr_network_unref(in[0]);
    slr_network_unref(in[1]);
}

static void test_parts(void **state)
{
    (void)state;
    slr_network *a = opened("a"), *n;
    slr_stack_item item = {.network = a, .te = 0.25, .unet = -2};
    ok(slr_network_combine(&n, &tool, &item, 1, (slr_opt){NULL, "merge"}));
    for (size_t i = 0; i < n->n_modules; i++) {
        const slr_module *x = &n->module[i];
        double ratio = x->target.part == SLR_PART_TE ? 0.25 : -2;
        size_t size = 0;
        float *want = wanted(&a, &ratio, 1, &x->target, &size), *got = module_delta(n, x, &size);
        assert_true(golden_compare(got, want, size).l2 <= TOL_SUM);
        slr_free(NULL, want);
        slr_free(NULL, got);
    }
    slr_network_unref(n);
    slr_network_unref(a);
}

static void test_refused(void **state)
{
    (void)state;
    static const struct {
        const char *second, *word;
        const char *pairs[8];
    } rows[] = {
        {"c", "equal ranks", {"method", "average"}},
        {"b", "concat", {"concat", "true"}},
        {"b", "lbws", {"method", "average", "lbws", "1"}},
        {"b", "12, 17, 20 or 26", {"lbws", "1,2\n1,2"}},
        {"b", "12, 17, 20 or 26", {"lbws", "1,2,x\n1,2"}},
        {"b", "1 lbws for 2", {"lbws", "1,1,1,1,1,1,1,1,1,1,1,1"}},
        {"b", "12 and 17", {"lbws", "1,1,1,1,1,1,1,1,1,1,1,1\n1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1"}},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        slr_network *out, *in[2] = {opened("a"), opened(rows[i].second)};
        assert_int_equal(merged_rc(&out, in, ratios, 2, rows[i].pairs), SDLORA_EINVAL);
        says(rows[i].word);
        assert_null(out);
        slr_network_unref(in[0]);
        slr_network_unref(in[1]);
    }
}

/* svd_merge_lora.py's get_lbw_block_index: a name and its place in the lists of SD 1. */
static void test_blocks(void **state)
{
    (void)state;
    static const struct {
        const char *path;
        int of26, of17; /* -1: no number of its own */
    } rows[] = {
        {"down_blocks.0.attentions.0.proj_in", 2, 1}, {"down_blocks.0.attentions.1.proj_in", 3, 2},
        {"down_blocks.0.downsamplers.0.conv", 4, -1}, {"down_blocks.2.attentions.1.proj_out", 9, 6},
        {"down_blocks.3.resnets.1.conv1", 12, -1},    {"mid_block.attentions.0.proj_in", 13, 7},
        {"up_blocks.0.resnets.0.conv1", 14, -1},      {"up_blocks.0.upsamplers.0.conv", 16, -1},
        {"up_blocks.1.attentions.0.proj_in", 17, 8},  {"up_blocks.3.attentions.2.proj_in", 25, 16},
        {"time_embedding.linear_1", -1, -1},
    };
    slr_blocks b26, b17;
    ok(slr_blocks_parse(&b26,
                        "0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25"));
    ok(slr_blocks_parse(&b17, "[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]"));
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        double x = slr_blocks_weight(&b26, SLR_PART_UNET, rows[i].path),
               y = slr_blocks_weight(&b17, SLR_PART_UNET, rows[i].path);
        assert_true(x == (rows[i].of26 < 0 ? 1 : rows[i].of26));
        assert_true(y == (rows[i].of17 < 0 ? 1 : rows[i].of17));
    }
    assert_true(slr_blocks_weight(&b26, SLR_PART_TE, "text_model.encoder.layers.0.mlp.fc1") == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden), cmocka_unit_test(test_sum),   cmocka_unit_test(test_kinds),
        cmocka_unit_test(test_whole),  cmocka_unit_test(test_parts), cmocka_unit_test(test_refused),
        cmocka_unit_test(test_blocks),
    };
    return cmocka_run_group_tests(tests, tools_setup, tools_teardown);
}
