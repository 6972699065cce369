/* SPDX-License-Identifier: MIT */
/* lib/data/bucket.c against sd-scripts' BucketManager, and the limits that it refuses. */
#include "data_test.h"

#include <math.h>

#include "data/bucket.h"

static int64_t at(const json_t *list, size_t i)
{
    return json_integer_value(json_array_get(list, i));
}

static slr_bucket_rule rule_of(const json_t *t, bool no_upscale)
{
    json_t *reso = json_object_get(t, "resolution");
    return (slr_bucket_rule){
        .resolution = {(int32_t)at(reso, 0), (int32_t)at(reso, 1)},
        .min = (int32_t)json_integer_value(json_object_get(t, "min")),
        .max = (int32_t)json_integer_value(json_object_get(t, "max")),
        .step = (int32_t)json_integer_value(json_object_get(t, "step")),
        .enable = true,
        .no_upscale = no_upscale,
    };
}

static void check_fits(const json_t *rows, const slr_bucket_rule *rule, const slr_shape *table,
                       size_t n)
{
    /* null rows carry no size: the script's own list of sizes begins as below, and none is null
     * among the rows that matter; a null row is only counted. */
    for (size_t i = 0; i < json_array_size(rows); i++) {
        const json_t *r = json_array_get(rows, i);
        slr_fit fit;
        if (json_is_null(r))
            continue;
        slr_shape image = {(int32_t)at(r, 0), (int32_t)at(r, 1)};
        assert_ok(slr_bucket_fit(rule, table, n, image, &fit));
        assert_int_equal(fit.bucket.w, at(r, 2));
        assert_int_equal(fit.bucket.h, at(r, 3));
        assert_int_equal(fit.resized.w, at(r, 4));
        assert_int_equal(fit.resized.h, at(r, 5));
        assert_true(fit.ar_error == json_real_value(json_array_get(r, 6)));
    }
}

static void check_sizes(const json_t *rows)
{
    for (size_t i = 0; i < json_array_size(rows); i++) {
        const json_t *r = json_array_get(rows, i);
        slr_bucket b = {.width = (int32_t)at(r, 2), .height = (int32_t)at(r, 3)};
        float size[SLR_SAMPLE_SIZES];
        for (int flip = 0; flip < 2; flip++) {
            slr_sample_sizes(at(r, 0), at(r, 1), &b, flip, size);
            const int64_t want[] = {at(r, 1), at(r, 0), at(r, 4), at(r, 5 + (size_t)flip),
                                    at(r, 3), at(r, 2)};
            for (int k = 0; k < SLR_SAMPLE_SIZES; k++)
                assert_int_equal((int64_t)size[k], want[k]);
        }
    }
}

static void tables_and_fits_of_sd_scripts(void **state)
{
    json_t *all = golden_json("buckets.json"), *tables = json_object_get(all, "tables");
    size_t fits = 0;
    assert_int_equal(json_array_size(tables), 9);
    for (size_t i = 0; i < json_array_size(tables); i++) {
        const json_t *t = json_array_get(tables, i), *want = json_object_get(t, "buckets");
        slr_bucket_rule rule = rule_of(t, false), free_rule = rule_of(t, true);
        slr_shape *table;
        size_t n;
        assert_ok(slr_bucket_table(NULL, &rule, &table, &n));
        assert_int_equal(n, json_array_size(want));
        for (size_t k = 0; k < n; k++) {
            assert_int_equal(table[k].w, at(json_array_get(want, k), 0));
            assert_int_equal(table[k].h, at(json_array_get(want, k), 1));
        }
        if (json_object_get(t, "fit")) {
            check_fits(json_object_get(t, "fit"), &rule, table, n);
            check_fits(json_object_get(t, "no_upscale"), &free_rule, NULL, 0);
            check_sizes(json_object_get(t, "sizes"));
            fits++;
        }
        slr_free(NULL, table);
    }
    assert_int_equal(fits, 4);
    json_decref(all);
}

static void limits_and_narrow_pictures(void **state)
{
    slr_bucket_rule r = {{512, 512}, 256, 1000, 64, true, false};
    slr_fit fit;
    assert_ok(slr_bucket_check(&r));
    assert_int_equal(r.max, 1024);
    r.min = 300;
    assert_ok(slr_bucket_check(&r));
    assert_int_equal(r.min, 256);
    r.min = 576;
    assert_int_equal(slr_bucket_check(&r), SDLORA_EINVAL);
    assert_says("min_bucket_reso 576");
    r.min = 256;
    r.max = 448;
    assert_int_equal(slr_bucket_check(&r), SDLORA_EINVAL);
    r.no_upscale = true; /* limits are not used there */
    assert_ok(slr_bucket_check(&r));
    assert_int_equal(slr_bucket_fit(&r, NULL, 0, (slr_shape){100000, 3}, &fit), SDLORA_EINVAL);
    assert_int_equal(slr_bucket_fit(&r, NULL, 0, (slr_shape){300, 40}, &fit), SDLORA_EINVAL);
    assert_ok(slr_bucket_fit(&r, NULL, 0, (slr_shape){40, 300}, &fit));
    assert_int_equal(fit.bucket.w, 0);
}

static void without_buckets_one_shape(void **state)
{
    slr_bucket_rule r = {{512, 768}, 256, 1024, 64, false, false};
    slr_shape *table;
    slr_fit fit;
    size_t n;
    assert_ok(slr_bucket_table(NULL, &r, &table, &n));
    assert_int_equal(n, 1);
    assert_ok(slr_bucket_fit(&r, table, n, (slr_shape){100, 100}, &fit));
    assert_int_equal(fit.bucket.w, 512);
    assert_int_equal(fit.resized.w, 768);
    assert_int_equal(fit.resized.h, 768);
    slr_free(NULL, table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(tables_and_fits_of_sd_scripts),
                                       cmocka_unit_test(limits_and_narrow_pictures),
                                       cmocka_unit_test(without_buckets_one_shape)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
