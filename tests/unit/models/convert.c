/* SPDX-License-Identifier: MIT */
/* Model files made of model files: layouts there and back, precisions, averages, what is dropped,
 * another autoencoder; and failures that change nothing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/status.h"
#include "base/str.h"
#include "golden_test.h"
#include "io/file.h"
#include "io/safetensors.h"
#include "models/checkpoint.h"
#include "models/convert.h"

#define LAYOUTS TEST_ROOT "/golden/layouts/"

static char temp[64];

static int setup(void **state)
{
    snprintf(temp, sizeof temp, "/tmp/slr-convert-XXXXXX");
    return mkdtemp(temp) ? 0 : -1;
}

static void remove_tree(const char *path)
{
    slr_list l = {0};
    if (slr_dir_list(&l, NULL, path) == SDLORA_OK)
        for (size_t i = 0; i < l.n; i++) {
            char inner[512];
            snprintf(inner, sizeof inner, "%s/%s", path, l.item[i]);
            if (unlink(inner) != 0)
                remove_tree(inner);
        }
    slr_list_free(&l);
    rmdir(path);
}

static int teardown(void **state)
{
    remove_tree(temp);
    return slr_dir_exists(temp) ? -1 : 0;
}

static const char *in_temp(const char *name)
{
    static char path[4][256];
    static int next;
    char *p = path[next++ % 4];
    snprintf(p, sizeof path[0], "%s/%s", temp, name);
    return p;
}

static slr_convert_config plain(void)
{
    return (slr_convert_config){.ema = SLR_EMA_KEEP, .verify = true};
}

/* What the job told; the caller frees. */
static char *convert(const char *in, const char *out, slr_convert_config config)
{
    char *json = NULL;
    if (slr_model_convert(&json, in, out, &config) < 0)
        fail_msg("%s", sdlora_last_error()->message);
    return json;
}

static void convert_quietly(const char *in, const char *out, slr_convert_config config)
{
    slr_free(NULL, convert(in, out, config));
}

static slr_safetensors *opened(const char *path)
{
    slr_safetensors *f = NULL;
    if (slr_safetensors_open(&f, NULL, path, true) < 0)
        fail_msg("%s", sdlora_last_error()->message);
    return f;
}

/* Every tensor of a is in b with the same type, shape and bytes; returns how many. */
static size_t contained(slr_safetensors *a, slr_safetensors *b)
{
    size_t n = slr_safetensors_count(a);
    for (size_t i = 0; i < n; i++) {
        slr_tensor x, y;
        const char *name = slr_safetensors_at(a, i, &x);
        if (!slr_safetensors_find(b, name, &y))
            fail_msg("%s is missing", name);
        if (x.dtype != y.dtype || x.rank != y.rank || memcmp(x.dim, y.dim, sizeof x.dim) != 0)
            fail_msg("%s has another shape or type", name);
        assert_memory_equal(x.data, y.data, slr_tensor_bytes(&x));
    }
    return n;
}

/* The folder that diffusers wrote becomes the LDM file of the same weights, and one more buffer. */
static void folder_to_ldm(void **state)
{
    slr_convert_config config = plain();
    slr_safetensors *want, *got;
    slr_tensor t;
    config.layout = SLR_LAYOUT_LDM;
    convert_quietly(LAYOUTS "diffusers", in_temp("ldm.safetensors"), config);
    want = opened(LAYOUTS "ldm.safetensors");
    got = opened(in_temp("ldm.safetensors"));
    assert_int_equal(contained(want, got) + 1, slr_safetensors_count(got));
    assert_true(slr_safetensors_find(
        got, "cond_stage_model.transformer.text_model.embeddings.position_ids", &t));
    assert_int_equal(t.dtype, SDLORA_I64);
    assert_int_equal(((const int64_t *)t.data)[76], 76);
    assert_string_equal(slr_safetensors_meta(got, "format"), "pt");
    slr_safetensors_close(want);
    slr_safetensors_close(got);
}

/* The LDM file becomes the folder: components equal to those that diffusers wrote. */
static void ldm_to_folder(void **state)
{
    static const char *const FILES[] = {"unet/diffusion_pytorch_model.safetensors",
                                        "vae/diffusion_pytorch_model.safetensors",
                                        "text_encoder/model.safetensors"};
    static const char *const TEXTS[] = {"model_index.json",
                                        "unet/config.json",
                                        "vae/config.json",
                                        "text_encoder/config.json",
                                        "tokenizer/vocab.json",
                                        "tokenizer/merges.txt",
                                        "scheduler/scheduler_config.json"};
    slr_convert_config config = plain();
    char path[512];
    config.layout = SLR_LAYOUT_DIFFUSERS;
    convert_quietly(LAYOUTS "ldm.safetensors", in_temp("folder"), config);
    for (size_t i = 0; i < sizeof FILES / sizeof *FILES; i++) {
        snprintf(path, sizeof path, LAYOUTS "diffusers/%s", FILES[i]);
        slr_safetensors *want = opened(path);
        snprintf(path, sizeof path, "%s/folder/%s", temp, FILES[i]);
        slr_safetensors *got = opened(path);
        assert_int_equal(contained(want, got), slr_safetensors_count(got));
        slr_safetensors_close(want);
        slr_safetensors_close(got);
    }
    for (size_t i = 0; i < sizeof TEXTS / sizeof *TEXTS; i++) {
        snprintf(path, sizeof path, "%s/folder/%s", temp, TEXTS[i]);
        assert_true(slr_file_exists(path));
    }
    char *json = NULL; /* a folder that holds something is not written into */
    assert_int_equal(
        slr_model_convert(&json, LAYOUTS "ldm.safetensors", in_temp("folder"), &config),
        SDLORA_EINVAL);
    assert_null(json);
}

/* Wider and back is the same file, also onto itself. */
static void precision_there_and_back(void **state)
{
    slr_convert_config config = plain();
    size_t n_want, n_got;
    void *want, *got;
    config.dtype = SDLORA_F32;
    convert_quietly(LAYOUTS "ldm.safetensors", in_temp("wide.safetensors"), config);
    slr_safetensors *wide = opened(in_temp("wide.safetensors"));
    for (size_t i = 0; i < slr_safetensors_count(wide); i++) {
        slr_tensor t;
        slr_safetensors_at(wide, i, &t);
        assert_int_equal(t.dtype, SDLORA_F32);
    }
    slr_safetensors_close(wide);
    config.dtype = SDLORA_F16;
    config.drop_extras = true;
    convert_quietly(in_temp("wide.safetensors"), in_temp("wide.safetensors"), config);
    assert_int_equal(slr_file_read(NULL, LAYOUTS "ldm.safetensors", 1 << 24, &want, &n_want),
                     SDLORA_OK);
    assert_int_equal(slr_file_read(NULL, in_temp("wide.safetensors"), 1 << 24, &got, &n_got),
                     SDLORA_OK);
    assert_int_equal(n_got, n_want);
    assert_memory_equal(got, want, n_want);
    slr_free(NULL, want);
    slr_free(NULL, got);
}

/* The autoencoder may keep another type than the rest. */
static void vae_precision(void **state)
{
    slr_convert_config config = plain();
    slr_tensor t;
    config.dtype = SDLORA_BF16;
    config.vae_dtype = SDLORA_F32;
    convert_quietly(LAYOUTS "ldm.safetensors", in_temp("mixed.safetensors"), config);
    slr_safetensors *f = opened(in_temp("mixed.safetensors"));
    for (size_t i = 0; i < slr_safetensors_count(f); i++) {
        const char *name = slr_safetensors_at(f, i, &t);
        assert_int_equal(t.dtype,
                         slr_starts(name, "first_stage_model.") ? SDLORA_F32 : SDLORA_BF16);
    }
    slr_safetensors_close(f);
}

/* lightning.ckpt: averages of conv_in that are twice the raw weight, position ids, a training state
 * behind the state dict. */
static void averages(void **state)
{
    static const char RAW[] = "model.diffusion_model.input_blocks.0.0.weight",
                      EMA[] = "model_ema.diffusion_modelinput_blocks00weight";
    slr_convert_config config = plain();
    slr_tensor t, raw;
    slr_safetensors *ref = opened(LAYOUTS "ldm.safetensors");
    assert_true(slr_safetensors_find(ref, RAW, &raw));
    for (int ema = SLR_EMA_DROP; ema <= SLR_EMA_KEEP; ema++) {
        config.ema = ema;
        config.drop_extras = true;
        char *json = convert(LAYOUTS "lightning.ckpt", in_temp("ema.safetensors"), config);
        slr_safetensors *f = opened(in_temp("ema.safetensors"));
        assert_int_equal(slr_safetensors_find(f, EMA, &t), ema == SLR_EMA_KEEP);
        assert_int_equal(slr_safetensors_find(f, "model_ema.decay", &t), ema == SLR_EMA_KEEP);
        assert_int_equal(slr_safetensors_count(f), ema == SLR_EMA_KEEP ? 69 : 65);
        assert_true(slr_safetensors_find(f, RAW, &t));
        float a = slr_f16_to_f32(((const uint16_t *)t.data)[0]);
        float b = slr_f16_to_f32(((const uint16_t *)raw.data)[0]);
        assert_true(a == (ema == SLR_EMA_USE ? 2 * b : b));
        assert_int_equal(strstr(json, "\"what\": \"averaged weights\", \"tensors\": 4") != NULL,
                         ema != SLR_EMA_KEEP);
        slr_free(NULL, json);
        slr_safetensors_close(f);
    }
    char *json = NULL;
    config.ema = SLR_EMA_USE;
    assert_int_equal(
        slr_model_convert(&json, LAYOUTS "ldm.safetensors", in_temp("none.safetensors"), &config),
        SDLORA_ENOTFOUND);
    assert_false(slr_file_exists(in_temp("none.safetensors")));
    slr_safetensors_close(ref);
}

/* A file of one value under each of these names: which of them a pruned model keeps. */
static void what_pruning_keeps(void **state)
{
    static const struct {
        const char *name;
        bool stays;
    } ROWS[] = {
        {"betas", false},
        {"alphas_cumprod", false},
        {"posterior_mean_coef1", false},
        {"v_pred", true},
        {"ztsnr", true},
        {"cond_stage_model.logit_scale", true},
        {"optimizer_states.0.exp_avg", false},
        {"first_stage_model.loss.logvar", false},
        {"something.else", false},
    };
    enum { N = sizeof ROWS / sizeof *ROWS };
    static const float one = 1;
    slr_safetensors *ref = opened(LAYOUTS "ldm.safetensors");
    size_t n = slr_safetensors_count(ref);
    slr_st_entry *e = calloc(n + N, sizeof *e);
    slr_tensor t;
    for (size_t i = 0; i < n; i++)
        e[i].name = slr_safetensors_at(ref, i, &e[i].t);
    for (size_t i = 0; i < N; i++)
        e[n + i] = (slr_st_entry){ROWS[i].name, {.dtype = SDLORA_F32, .data = &one}};
    assert_int_equal(slr_safetensors_write(NULL, in_temp("full.safetensors"), e, n + N, NULL, 0),
                     SDLORA_OK);
    for (int prune = 0; prune < 2; prune++) {
        slr_convert_config config = {.drop_extras = prune, .dtype = SDLORA_F16, .verify = true};
        convert_quietly(in_temp("full.safetensors"), in_temp("pruned.safetensors"), config);
        slr_safetensors *f = opened(in_temp("pruned.safetensors"));
        for (size_t i = 0; i < N; i++)
            if (slr_safetensors_find(f, ROWS[i].name, &t) != (ROWS[i].stays || !prune))
                fail_msg("%s, pruned: %d", ROWS[i].name, prune);
        assert_true(slr_safetensors_find(f, "v_pred", &t) && t.dtype == SDLORA_F32);
        slr_safetensors_close(f);
    }
    free(e);
    slr_safetensors_close(ref);
}

/* Another autoencoder in place of the model's own; one of other sizes is refused. */
static void baked_vae(void **state)
{
    slr_convert_config config = plain();
    slr_tensor a, b;
    config.vae = LAYOUTS "lightning.vae.pt";
    convert_quietly(LAYOUTS "ldm.safetensors", in_temp("baked.safetensors"), config);
    slr_safetensors *want = opened(LAYOUTS "ldm.safetensors"),
                    *got = opened(in_temp("baked.safetensors"));
    assert_int_equal(contained(want, got), slr_safetensors_count(got)); /* the same weights */
    slr_safetensors_close(got);

    /* one changed value must arrive */
    slr_safetensors *vae = opened(LAYOUTS "vae.safetensors");
    size_t n = slr_safetensors_count(vae);
    slr_st_entry *e = calloc(n, sizeof *e);
    uint16_t other[4];
    for (size_t i = 0; i < n; i++) {
        e[i].name = slr_safetensors_at(vae, i, &e[i].t);
        if (!strcmp(e[i].name, "post_quant_conv.bias")) {
            memcpy(other, e[i].t.data, sizeof other);
            other[0] ^= 1;
            e[i].t.data = other;
        }
    }
    assert_int_equal(slr_safetensors_write(NULL, in_temp("vae.safetensors"), e, n, NULL, 0),
                     SDLORA_OK);
    char vae_path[256];
    snprintf(vae_path, sizeof vae_path, "%s/vae.safetensors", temp);
    config.vae = vae_path;
    convert_quietly(LAYOUTS "ldm.safetensors", in_temp("baked.safetensors"), config);
    got = opened(in_temp("baked.safetensors"));
    assert_true(slr_safetensors_find(got, "first_stage_model.post_quant_conv.bias", &a));
    assert_true(slr_safetensors_find(want, "first_stage_model.post_quant_conv.bias", &b));
    assert_int_equal(((const uint16_t *)a.data)[0] ^ 1, ((const uint16_t *)b.data)[0]);
    slr_safetensors_close(got);

    for (size_t i = 0; i < n; i++)
        if (!strcmp(e[i].name, "post_quant_conv.bias"))
            e[i].t.dim[0] = 3;
    assert_int_equal(slr_safetensors_write(NULL, in_temp("vae.safetensors"), e, n, NULL, 0),
                     SDLORA_OK);
    char *json = NULL;
    assert_int_equal(
        slr_model_convert(&json, LAYOUTS "ldm.safetensors", in_temp("bad.safetensors"), &config),
        SDLORA_EINVAL);
    assert_non_null(strstr(sdlora_last_error()->message, "post_quant_conv.bias is [3], the model"));
    free(e);
    slr_safetensors_close(vae);
    slr_safetensors_close(want);
}

/* Values that half precision can't hold are counted. */
static void overflows_are_told(void **state)
{
    static const float values[4] = {1, 70000, -1e9f, 65504};
    slr_st_entry e = {"x.weight", {.dtype = SDLORA_F32, .rank = 1, .dim = {4}, .data = values}};
    slr_convert_config config = {.dtype = SDLORA_F16, .verify = true};
    assert_int_equal(slr_safetensors_write(NULL, in_temp("loud.safetensors"), &e, 1, NULL, 0),
                     SDLORA_OK);
    char *json = convert(in_temp("loud.safetensors"), in_temp("half.safetensors"), config);
    assert_non_null(strstr(json, "\"overflows\": 2"));
    assert_non_null(strstr(json, "\"first_overflow\": \"x.weight\""));
    slr_free(NULL, json);
}

/* Cancelled at any report nothing is there, and nothing is left behind. */
static int cancel_at(void *user, const char *phase, int64_t done, int64_t total)
{
    int *left = user;
    assert_true(done > 0 && done <= total);
    return --*left == 0;
}

static size_t entries(const char *path)
{
    slr_list l;
    assert_int_equal(slr_dir_list(&l, NULL, path), SDLORA_OK);
    size_t n = l.n;
    slr_list_free(&l);
    return n;
}

static void cancelling(void **state)
{
    size_t before = entries(temp);
    for (int folder = 0; folder < 2; folder++)
        for (int k = 1; k < 700; k += 230) {
            int left = k;
            char *json = NULL;
            slr_convert_config config = plain();
            config.layout = folder ? SLR_LAYOUT_DIFFUSERS : SLR_LAYOUT_KEEP;
            config.phase = cancel_at;
            config.phase_user = &left;
            assert_int_equal(slr_model_convert(&json, LAYOUTS "ldm.safetensors",
                                               in_temp("no.safetensors"), &config),
                             SDLORA_ECANCELED);
            assert_null(json);
            assert_int_equal(entries(temp), before);
        }
}

/* Refused with a sentence: files that are no models asked for another layout, wrong endings. */
static void refusals(void **state)
{
    slr_convert_config config = plain();
    char *json = NULL;
    assert_int_equal(
        slr_model_convert(&json, LAYOUTS "ldm.safetensors", in_temp("x.ckpt"), &config),
        SDLORA_EINVAL);
    assert_int_equal(
        slr_model_convert(&json, in_temp("missing.ckpt"), in_temp("x.safetensors"), &config),
        SDLORA_ENOTFOUND);
    config.layout = SLR_LAYOUT_LDM;
    assert_int_equal(slr_model_convert(&json, TEST_ROOT "/golden/hash_lora.safetensors",
                                       in_temp("x.safetensors"), &config),
                     SDLORA_ENOTSUP);
    assert_false(slr_file_exists(in_temp("x.safetensors")));
}

/* An embedding's dictionary becomes the one tensor that other programs look for. */
static void embedding(void **state)
{
    slr_tensor t;
    convert_quietly(TEST_ROOT "/golden/embedding/a1111.pt", in_temp("emb.safetensors"), plain());
    slr_safetensors *f = opened(in_temp("emb.safetensors"));
    assert_int_equal(slr_safetensors_count(f), 1);
    assert_true(slr_safetensors_find(f, "emb_params", &t));
    slr_safetensors_close(f);
}

static const char *no_biases(const char *name)
{
    return slr_ends(name, ".bias") ? "too biased" : NULL;
}

static void refused_by_name(void **state)
{
    slr_convert_config config = plain();
    char *json = NULL;
    config.refuse = no_biases;
    assert_int_equal(
        slr_model_convert(&json, LAYOUTS "vae.safetensors", in_temp("x.safetensors"), &config),
        SDLORA_ENOTSUP);
    assert_non_null(strstr(sdlora_last_error()->message, "vae.safetensors is too biased"));
    assert_false(slr_file_exists(in_temp("x.safetensors")));
}

/* Each allocation may fail: then the code is ENOMEM, nothing leaks and nothing is written. */
static void no_memory(void **state)
{
    int rc = SDLORA_ENOMEM;
    for (uint64_t budget = 4096; rc == SDLORA_ENOMEM; budget = budget * 5 / 4) {
        slr_convert_config config = plain();
        char *json = NULL;
        assert_true(budget < 1u << 30);
        assert_int_equal(slr_mem_new(&config.mem, NULL, budget), SDLORA_OK);
        config.layout = SLR_LAYOUT_DIFFUSERS;
        rc = slr_model_convert(&json, LAYOUTS "ldm.safetensors", in_temp("tight"), &config);
        if (rc < 0)
            assert_false(slr_dir_exists(in_temp("tight")));
        slr_free(config.mem, json);
        assert_int_equal(slr_mem_used(config.mem), 0);
        slr_mem_unref(config.mem);
    }
    assert_int_equal(rc, SDLORA_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(folder_to_ldm),
        cmocka_unit_test(ldm_to_folder),
        cmocka_unit_test(precision_there_and_back),
        cmocka_unit_test(vae_precision),
        cmocka_unit_test(averages),
        cmocka_unit_test(what_pruning_keeps),
        cmocka_unit_test(baked_vae),
        cmocka_unit_test(overflows_are_told),
        cmocka_unit_test(cancelling),
        cmocka_unit_test(refusals),
        cmocka_unit_test(embedding),
        cmocka_unit_test(refused_by_name),
        cmocka_unit_test(no_memory),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
