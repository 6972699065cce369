/* SPDX-License-Identifier: MIT */
/* Metadata back into options: the runs of real sd-scripts (tests/golden/make_metadata.py) give the
 * settings that they were started with; values that mean nothing here are told. */
#include "unit/io/io_test.h"

#include "base/str.h"
#include "io/json.h"
#include "io/safetensors.h"
#include "train/metafrom.h"

#define LIST(...) ((const char *const[]){__VA_ARGS__, NULL})

static const char *file_of(const char *const *pairs, json_t *more)
{
    slr_st_pair pair[256];
    size_t n = 0;
    const char *path = in_scratch("a.safetensors"), *key;
    json_t *value;
    for (; pairs && pairs[0]; pairs += 2)
        pair[n++] = (slr_st_pair){pairs[0], pairs[1]};
    json_object_foreach(more, key, value) pair[n++] = (slr_st_pair){key, json_string_value(value)};
    assert_int_equal(slr_safetensors_write(NULL, path, NULL, 0, pair, n), 0);
    return path;
}

/* The options of a kind that a file sets; "given" ones were set before. */
static sdlora_options *taken(const char *kind, const char *path, const char *const *given,
                             char **notes)
{
    sdlora_options *o;
    assert_int_equal(slr_options_new(&o, NULL, kind), 0);
    for (; given && given[0]; given += 2)
        assert_int_equal(slr_options_set_text(o, given[0], given[1]), 0);
    if (slr_options_from_metadata(o, NULL, path, notes) < 0)
        fail_msg("%s", sdlora_last_error_text());
    return o;
}

static void expect(sdlora_options *o, const char *const *pairs)
{
    for (; pairs[0]; pairs += 2) {
        slr_opt is = {o, slr_options_kind(o)};
        const char *have = slr_opt_given(is, pairs[0]) ? slr_opt_text(is, pairs[0]) : "not set";
        double a, b;
        bool same = slr_parse_real(have, &a) && slr_parse_real(pairs[1], &b) && a == b;
        if (!same && strcmp(have, pairs[1]))
            fail_msg("%s is '%s', wanted '%s'", pairs[0], have, pairs[1]);
    }
}

static void real_runs(void **state)
{
    (void)state;
    static const struct {
        const char *name, *train[40], *network[12], *dataset[32];
    } RUNS[] = {
        {"full",
         {"learning_rate",
          "0.0001",
          "unet_lr",
          "0.0001",
          "text_encoder_lr",
          "5e-05",
          "lr_scheduler",
          "cosine_with_restarts",
          "lr_warmup_steps",
          "1",
          "optimizer_type",
          "AdamW",
          "optimizer_args",
          "weight_decay=0.05",
          "clip_skip",
          "2",
          "noise_offset",
          "0.05",
          "min_snr_gamma",
          "5",
          "max_grad_norm",
          "0.5",
          "seed",
          "1",
          "output_name",
          "not set",
          "training_comment",
          "not set",
          "huber_c",
          "0.1",
          "max_train_epochs",
          "not set",
          NULL},
         {"network_module", "networks.lora", "network_dim", "4", "network_alpha", "2",
          "network_args", "conv_dim=4\nconv_alpha=1", "network_dropout", "0.1", NULL},
         {"resolution",
          "64,64",
          "train_batch_size",
          "2",
          "enable_bucket",
          "true",
          "min_bucket_reso",
          "64",
          "max_bucket_reso",
          "128",
          "shuffle_caption",
          "true",
          "keep_tokens",
          "1",
          "cache_latents",
          "true",
          "prior_loss_weight",
          "0.9",
          "caption_dropout_rate",
          "0.1",
          NULL}},
        {"plain",
         {"learning_rate", "2e-06", "unet_lr", "not set", "text_encoder_lr", "not set",
          "max_train_steps", "10", NULL},
         {"network_dim", "not set", "network_alpha", "1", "network_args", "not set", NULL},
         {"resolution", "64,64", "random_crop", "true", "enable_bucket", "false", "min_bucket_reso",
          "not set", NULL}},
        {"toml",
         {"learning_rate", "0.0001", NULL},
         {"network_dim", "4", NULL},
         {"resolution", "64,64", "train_batch_size", "2", "enable_bucket", "true",
          "min_bucket_reso", "64", "max_bucket_reso", "128", "shuffle_caption", "true",
          "keep_tokens", "1", "caption_prefix", "not set", NULL}},
    };
    json_t *golden, *run;
    size_t i;
    if (slr_json_read(&golden, NULL, TEST_ROOT "/golden/metadata.json", 1 << 20) < 0)
        fail_msg("%s", sdlora_last_error_text());
    json_array_foreach(json_object_get(golden, "runs"), i, run)
    {
        for (size_t k = 0; k < sizeof RUNS / sizeof *RUNS; k++) {
            if (strcmp(RUNS[k].name, json_string_value(json_object_get(run, "name"))))
                continue;
            const char *path = file_of(NULL, json_object_get(run, "metadata"));
            const char *const *const want[] = {RUNS[k].train, RUNS[k].network, RUNS[k].dataset};
            static const char *const kinds[] = {"train", "network", "dataset"};
            for (int kind = 0; kind < 3; kind++) {
                char *notes;
                sdlora_options *o = taken(kinds[kind], path, NULL, &notes);
                if (*notes)
                    fail_msg("%s: %s", kinds[kind], notes);
                expect(o, want[kind]);
                slr_free(NULL, notes);
                slr_options_unref(o);
            }
        }
    }
    json_decref(golden);
}

static void odd_values(void **state)
{
    (void)state;
    char *notes;
    const char *path = file_of(
        LIST("ss_learning_rate", "fast\x1b", "ss_unet_lr", "0.5", "ss_text_encoder_lr",
             "[5e-05, 4e-05]", "ss_optimizer",
             "torch.optim.adamw.AdamW(weight_decay=0.1,betas=(0.9, 0.95))", "ss_lr_scheduler",
             "adafactor:1e-4", "ss_base_model_version", "sd_v2_v", "ss_something_new", "7",
             "modelspec.title", "x", "ss_network_args", "{\"algo\": \"lokr\", \"factor\": \"8\"}",
             "ss_network_module", "lycoris.kohya", "ss_network_dim", "Dynamic", "ss_datasets",
             "[{\"resolution\": [512, 768], \"subsets\": [{\"keep_tokens\": 2}, {}]}]"),
        NULL);
    sdlora_options *o = taken("train", path, LIST("unet_lr", "0.25"), &notes);
    expect(o, LIST("learning_rate", "not set", "unet_lr", "0.25", "text_encoder_lr", "5e-05\n4e-05",
                   "optimizer_args", "weight_decay=0.1\nbetas=(0.9,0.95)", "v_parameterization",
                   "true", "lr_scheduler", "not set"));
    assert_non_null(strstr(notes, "ss_learning_rate = fast?: "));
    assert_non_null(strstr(notes, "ss_lr_scheduler = adafactor:1e-4: "));
    assert_non_null(strstr(notes, "ss_something_new = 7: not a setting that is known here\n"));
    assert_null(strstr(notes, "modelspec"));
    assert_null(strstr(notes, "ss_unet_lr"));
    slr_free(NULL, notes);
    slr_options_unref(o);

    o = taken("network", path, NULL, &notes);
    expect(o, LIST("network_args", "algo=lokr\nfactor=8", "network_module", "lycoris.kohya",
                   "network_dim", "not set"));
    assert_non_null(strstr(notes, "ss_network_dim = Dynamic: "));
    slr_free(NULL, notes);
    slr_options_unref(o);

    o = taken("dataset", path, NULL, NULL);
    expect(o, LIST("resolution", "512,768", "keep_tokens", "2"));
    slr_options_unref(o);

    path = file_of(LIST("ss_optimizer", "bitsandbytes.optim.adamw.AdamW8bit(weight_decay=0.1)",
                        "ss_network_args", "{broken"),
                   NULL);
    o = taken("train", path, NULL, &notes);
    expect(o, LIST("optimizer_type", "not set", "optimizer_args", "not set"));
    assert_non_null(strstr(notes, "AdamW8bit(weight_decay=0.1): there is AdamW only\n"));
    slr_free(NULL, notes);
    slr_options_unref(o);
    o = taken("network", path, NULL, &notes);
    assert_non_null(strstr(notes, "ss_network_args = {broken: "));
    slr_free(NULL, notes);
    slr_options_unref(o);
}

static void refuses(void **state)
{
    (void)state;
    sdlora_options *o;
    char *notes;
    assert_int_equal(slr_options_new(&o, NULL, "train"), 0);
    const char *path = file_of(LIST("modelspec.title", "x"), NULL);
    assert_int_equal(slr_options_from_metadata(o, NULL, path, &notes), SDLORA_ENOTFOUND);
    assert_says("does not tell how it was trained");
    assert_null(notes);
    assert_int_equal(slr_options_from_metadata(o, NULL, in_scratch("none"), &notes),
                     SDLORA_ENOTFOUND);
    slr_options_unref(o);
    assert_int_equal(slr_options_new(&o, NULL, "generate"), 0);
    assert_int_equal(slr_options_from_metadata(o, NULL, path, &notes), SDLORA_EINVAL);
    assert_says("not of generate");
    slr_options_unref(o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(real_runs), cmocka_unit_test(odd_values),
                                       cmocka_unit_test(refuses)};
    return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
