/* SPDX-License-Identifier: MIT */
/* Statistics of files, modules that change nothing, and metadata as people read it. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/status.h"
#include "io/json.h"
#include "io/safetensors.h"
#include "networks/check.h"
#include "networks/metaview.h"

static char path[64];

static int setup(void **state)
{
    snprintf(path, sizeof path, "/tmp/slr-check-XXXXXX");
    int fd = mkstemp(path);
    if (fd >= 0)
        close(fd);
    return fd >= 0 ? 0 : -1;
}

static int teardown(void **state)
{
    return unlink(path);
}

static json_t *checked(bool each)
{
    char *text = NULL;
    json_t *root = NULL;
    if (slr_file_check(&text, NULL, 2, path, each, NULL, NULL) < 0)
        fail_msg("%s", sdlora_last_error()->message);
    assert_int_equal(slr_json_parse(&root, text, strlen(text), "report"), SDLORA_OK);
    slr_free(NULL, text);
    return root;
}

static double real(const json_t *at, const char *key)
{
    return json_number_value(json_object_get(at, key));
}

static void write_all(const slr_st_entry *e, size_t n, const slr_st_pair *meta, size_t n_meta)
{
    assert_int_equal(slr_safetensors_write(NULL, path, e, n, meta, n_meta), SDLORA_OK);
}

/* More than a batch of pieces, with values that a formula gives. */
static void figures(void **state)
{
    enum { N = 5000000 };
    float *x = malloc(N * sizeof *x);
    double abs = 0, square = 0;
    for (int i = 0; i < N; i++) {
        x[i] = (float)((i * 2654435761u >> 8) % 2001) / 1000.0f - 0.9999f;
        abs += fabs((double)x[i]);
        square += (double)x[i] * x[i];
    }
    slr_st_entry e = {"model.diffusion_model.input_blocks.4.0.in_layers.2.weight",
                      {.dtype = SDLORA_F32, .rank = 2, .dim = {N / 1000, 1000}, .data = x}};
    write_all(&e, 1, NULL, 0);
    json_t *r = checked(true);
    json_t *block = json_array_get(json_object_get(r, "blocks"), 0);
    assert_string_equal(json_string_value(json_object_get(block, "name")),
                        "model.diffusion_model.input_blocks.4");
    /* sums in double of 5 million terms: their order moves the 12th digit */
    assert_true(fabs(real(block, "mean") - abs / N) <= 1e-11);
    assert_true(fabs(real(block, "norm") - sqrt(square)) <= 1e-10 * sqrt(square));
    assert_true(fabs(real(block, "max") - 1.0001) < 1e-6);
    assert_true(real(block, "min") > 0 && real(block, "min") < 2e-4);
    assert_int_equal(real(json_object_get(r, "all"), "parameters"), N);
    assert_true(json_is_true(json_object_get(r, "ok")));
    assert_int_equal(json_array_size(json_object_get(r, "each")), 1);
    json_decref(r);
    free(x);
}

static void not_finite(void **state)
{
    const float x[4] = {1, NAN, -INFINITY, -3};
    const float zero[2] = {0, 0};
    const slr_st_entry e[] = {
        {"a.weight", {.dtype = SDLORA_F32, .rank = 1, .dim = {4}, .data = x}},
        {"b.weight", {.dtype = SDLORA_F32, .rank = 1, .dim = {2}, .data = zero}},
    };
    write_all(e, 2, NULL, 0);
    json_t *r = checked(false), *all = json_object_get(r, "all");
    assert_true(json_is_false(json_object_get(r, "ok")));
    assert_int_equal(real(all, "nan"), 1);
    assert_int_equal(real(all, "inf"), 1);
    assert_true(real(all, "mean") == 1.0); /* (1 + 3 + 0 + 0) / 4 */
    assert_true(real(all, "max") == 3.0);
    json_t *bad = json_array_get(json_object_get(r, "not_finite"), 0);
    assert_string_equal(json_string_value(json_object_get(bad, "name")), "a.weight");
    assert_string_equal(json_string_value(json_array_get(json_object_get(r, "zero"), 0)),
                        "b.weight");
    json_decref(r);
}

/* One row per module: tensors that are not zero, and whether it does anything. */
static void dead_modules(void **state)
{
    static const struct {
        const char *name;
        bool zero;
    } TENSORS[] = {
        {"lora_unet_a.lora_up.weight", true},
        {"lora_unet_a.lora_down.weight", false},
        {"lora_unet_b.lora_up.weight", false},
        {"lora_unet_b.lora_down.weight", false},
        {"lora_unet_c.hada_w1_a", false},
        {"lora_unet_c.hada_w1_b", false},
        {"lora_unet_c.hada_w2_a", true},
        {"lora_unet_c.hada_w2_b", false},
        {"lora_unet_d.a1.weight", false},
        {"lora_unet_d.a2.weight", true},
        {"lora_unet_d.b1.weight", false},
        {"lora_unet_d.b2.weight", false},
        {"lora_unet_e.a1.weight", true},
        {"lora_unet_e.a2.weight", false},
        {"lora_unet_e.b1.weight", true},
        {"lora_unet_e.b2.weight", false},
        {"unet.f.lora_B.weight", true},
        {"unet.f.lora_A.weight", false},
        {"lora_unet_g.weight", true},
        {"lora_unet_h.oft_blocks", true},
        {"lora_unet_i.diff", true},
        {"lora_unet_i.diff_b", false},
        {"lora_unet_k.lora_up.weight", true},
        {"lora_unet_k.lora_down.weight", false},
        {"lora_unet_k.bias_values", false},
        {"lora_unet_l.lora_up.weight", true},
        {"lora_unet_l.lora_down.weight", false},
        {"lora_unet_l.bias_values", true},
    };
    static const char *const DEAD[] = {"lora_unet_a", "lora_unet_c", "lora_unet_e", "lora_unet_g",
                                       "lora_unet_h", "lora_unet_l", "unet.f"};
    static const float one[1] = {1}, zero[1] = {0};
    enum { N = sizeof TENSORS / sizeof *TENSORS, N_DEAD = sizeof DEAD / sizeof *DEAD };
    slr_st_entry e[N];
    for (size_t i = 0; i < N; i++)
        e[i] = (slr_st_entry){
            TENSORS[i].name,
            {.dtype = SDLORA_F32, .rank = 1, .dim = {1}, .data = TENSORS[i].zero ? zero : one}};
    write_all(e, N, NULL, 0);
    json_t *r = checked(false), *dead = json_object_get(r, "dead");
    assert_int_equal(real(r, "modules"), 11);
    assert_int_equal(json_array_size(dead), N_DEAD);
    for (size_t i = 0; i < N_DEAD; i++)
        assert_string_equal(json_string_value(json_array_get(dead, i)), DEAD[i]);
    assert_true(json_is_true(json_object_get(r, "ok")));
    json_decref(r);
    write_all(e, 2, NULL, 0); /* the first module alone: never trained */
    r = checked(false);
    assert_true(json_is_false(json_object_get(r, "ok")));
    json_decref(r);
}

static json_t *viewed(void)
{
    char *text = NULL;
    json_t *root = NULL;
    if (slr_metadata_text(&text, NULL, path, NULL) < 0)
        fail_msg("%s", sdlora_last_error()->message);
    assert_int_equal(slr_json_parse(&root, text, strlen(text), "view"), SDLORA_OK);
    slr_free(NULL, text);
    return root;
}

/* Counts over folders, most first; values that are no JSON are told as they stand. */
static void readable_metadata(void **state)
{
    static const slr_st_pair META[] = {
        {"ss_tag_frequency",
         "{\"10_a\": {\"cat\": 3, \"hat\": 4}, \"2_b\": {\"cat\": 2, \"x\": 4}}"},
        {"ss_dataset_dirs", "{\"10_a\": {\"n_repeats\": 10, \"img_count\": 7}}"},
        {"ss_network_dim", "16"},
        {"ss_vae_name", "None"},
        {"ss_training_started_at", "1700000000.25"},
    };
    static const slr_st_pair BROKEN[] = {{"ss_tag_frequency", "{\"10_a\": {\"cat\": 3"},
                                         {"ss_dataset_dirs", "[1]"}};
    static const char *const TAGS[] = {"cat", "hat", "x"};
    static const float one = 1;
    const slr_st_entry e = {"x", {.dtype = SDLORA_F32, .data = &one}};
    char *value = NULL;
    write_all(&e, 1, META, sizeof META / sizeof *META);
    json_t *v = viewed(), *tags = json_object_get(v, "tags"), *t = json_object_get(v, "training");
    assert_int_equal(json_array_size(tags), 3);
    for (size_t i = 0; i < 3; i++)
        assert_string_equal(json_string_value(json_object_get(json_array_get(tags, i), "tag")),
                            TAGS[i]);
    assert_int_equal(real(json_array_get(tags, 0), "count"), 5);
    assert_string_equal(json_string_value(json_object_get(t, "Rank")), "16");
    assert_null(json_object_get(t, "VAE"));
    assert_string_equal(json_string_value(json_object_get(t, "Started")), "2023-11-14 22:13 UTC");
    assert_int_equal(real(json_array_get(json_object_get(v, "folders"), 0), "repeats"), 10);
    json_decref(v);
    assert_int_equal(slr_metadata_text(&value, NULL, path, "ss_network_dim"), SDLORA_OK);
    assert_string_equal(value, "16");
    slr_free(NULL, value);
    assert_int_equal(slr_metadata_text(&value, NULL, path, "none"), SDLORA_ENOTFOUND);

    write_all(&e, 1, BROKEN, 2);
    v = viewed();
    assert_int_equal(json_array_size(json_object_get(v, "tags")), 0);
    assert_string_equal(
        json_string_value(json_object_get(json_object_get(v, "metadata"), "ss_tag_frequency")),
        BROKEN[0].value);
    json_decref(v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(figures),
        cmocka_unit_test(not_finite),
        cmocka_unit_test(dead_modules),
        cmocka_unit_test(readable_metadata),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
