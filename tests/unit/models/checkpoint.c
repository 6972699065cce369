/* SPDX-License-Identifier: MIT */
/* Opening models: layouts of the wild, families, parts, EMA, broken files; lists of layers; caption
 * ids. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>

#include "failing.h"
#include "base/str.h"
#include "golden_test.h"
#include "io/file.h"
#include "models/checkpoint.h"
#include "models/clip.h"
#include "models/keymap.h"
#include "models/unet.h"
#include "models/vae.h"

#define LAYOUTS TEST_ROOT "/golden/layouts/"
#define TINYSD  TEST_ROOT "/../examples/data/tinysd/tinysd.safetensors"

static const slr_checkpoint_config CONFIG = {.predict = -1};
static char temp[64]; /* a folder of this run */

static int setup(void **state)
{
    snprintf(temp, sizeof temp, "/tmp/slr-models-XXXXXX");
    return mkdtemp(temp) ? 0 : -1;
}

static int teardown(void **state)
{
    slr_list l = {0};
    if (slr_dir_list(&l, NULL, temp) == SDLORA_OK)
        for (size_t i = 0; i < l.n; i++) {
            char path[256];
            snprintf(path, sizeof path, "%s/%s", temp, l.item[i]);
            unlink(path);
        }
    slr_list_free(&l);
    return rmdir(temp);
}

static slr_checkpoint *opened(const char *path, const slr_checkpoint_config *config)
{
    slr_checkpoint *c = NULL;
    if (slr_checkpoint_open(&c, path, config) < 0)
        fail_msg("%s", sdlora_last_error()->message);
    return c;
}

/* Every tensor of a part equals the reference part's, whatever name it came in under. */
static void same_part(const slr_checkpoint *c, const slr_checkpoint *ref, int part, size_t count)
{
    slr_weights *got = slr_checkpoint_part(c, part), *want = slr_checkpoint_part(ref, part);
    assert_non_null(got);
    assert_int_equal(slr_weights_count(got), count);
    for (size_t i = 0; i < count; i++) {
        const slr_tensor *a, *b;
        const char *name = slr_weights_at(got, i, &a);
        if (slr_weights_get(want, name, &b) < 0)
            fail_msg("%s", sdlora_last_error()->message);
        assert_int_equal(slr_tensor_bytes(a), slr_tensor_bytes(b));
        assert_memory_equal(a->data, b->data, slr_tensor_bytes(a));
        assert_true(a->id != 0 && b->id != 0 && a->id != b->id);
    }
}

static void layouts(void **state)
{
    static const struct {
        const char *file;
        const char *layout;
        size_t unet, te, vae; /* tensors; 0: no such part */
    } CASES[] = {
        {"diffusers", "diffusers", 206, 36, 120}, {"nai.safetensors", "part", 0, 36, 0},
        {"wrapped.safetensors", "ldm", 54, 0, 0}, {"vae.safetensors", "part", 0, 0, 120},
        {"legacy.pt", "part", 0, 36, 0},          {"lightning.vae.pt", "part", 0, 0, 120},
        {"lightning.ckpt", "ldm", 28, 36, 0},
    };
    slr_checkpoint *ref = opened(LAYOUTS "ldm.safetensors", &CONFIG);
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        char path[512];
        snprintf(path, sizeof path, LAYOUTS "%s", CASES[i].file);
        slr_checkpoint *c = opened(path, &CONFIG);
        assert_string_equal(slr_checkpoint_layout(c), CASES[i].layout);
        assert_int_equal(slr_checkpoint_family(c)->id, SLR_FAMILY_SD1);
        const size_t n[SLR_PART_COUNT] = {[SLR_PART_UNET] = CASES[i].unet,
                                          [SLR_PART_TE] = CASES[i].te,
                                          [SLR_PART_VAE] = CASES[i].vae};
        for (int part = 0; part < SLR_PART_COUNT; part++) {
            if (n[part])
                same_part(c, ref, part, n[part]);
            else
                assert_null(slr_checkpoint_part(c, part));
        }
        slr_checkpoint_unref(c);
    }
    slr_checkpoint_unref(ref);
}

/* Canonical names lead back to the very names of the LDM file. */
static void names_lead_back(void **state)
{
    static const char *const PREFIX[SLR_PART_COUNT] = {
        [SLR_PART_UNET] = "model.diffusion_model.", [SLR_PART_VAE] = "first_stage_model."};
    static const char *const PATHS[] = {LAYOUTS "ldm.safetensors", TINYSD};
    for (int k = 0; k < 2; k++) {
        slr_checkpoint *c = opened(PATHS[k], &CONFIG);
        slr_weights *vae = slr_checkpoint_part(c, SLR_PART_VAE);
        slr_safetensors *file;
        slr_unet_map map;
        int levels = 0;
        assert_int_equal(slr_safetensors_open(&file, NULL, PATHS[k], false), SDLORA_OK);
        assert_int_equal(slr_unet_map_read(&map, slr_checkpoint_part(c, SLR_PART_UNET)), SDLORA_OK);
        assert_int_equal(slr_vae_factor(vae, &levels), SDLORA_OK);
        levels++; /* one more level than samplers */
        for (int part = 0; part < SLR_PART_COUNT; part++) {
            slr_weights *w = PREFIX[part] ? slr_checkpoint_part(c, part) : NULL;
            for (size_t i = 0; w && i < slr_weights_count(w); i++) {
                char name[SLR_NAME], full[SLR_NAME + 32];
                slr_tensor t;
                const char *ours = slr_weights_at(w, i, NULL);
                assert_true(part == SLR_PART_UNET ? slr_unet_to_ldm(&map, ours, name)
                                                  : slr_vae_to_ldm(levels, ours, name));
                snprintf(full, sizeof full, "%s%s", PREFIX[part], name);
                if (!slr_safetensors_find(file, full, &t))
                    fail_msg("%s became %s", ours, full);
            }
        }
        slr_safetensors_close(file);
        slr_checkpoint_unref(c);
    }
}

/* lightning.ckpt holds twice the raw weight as EMA of conv_in. */
static void ema_on_request(void **state)
{
    slr_checkpoint_config config = CONFIG;
    float raw[32], ema[32];
    for (int use = 0; use < 2; use++) {
        const slr_tensor *t;
        config.use_ema = use;
        slr_checkpoint *c = opened(LAYOUTS "lightning.ckpt", &config);
        assert_int_equal(slr_weights_get(slr_checkpoint_part(c, SLR_PART_UNET), "conv_in.bias", &t),
                         SDLORA_OK);
        assert_int_equal(slr_tensor_count(t), 32);
        assert_int_equal(slr_tensor_to_f32(t, use ? ema : raw), SDLORA_OK);
        slr_checkpoint_unref(c);
    }
    for (int i = 0; i < 32; i++)
        assert_true(raw[i] != 0 && ema[i] == 2 * raw[i]);
}

static void metadata_and_views(void **state)
{
    slr_checkpoint *c = opened(TINYSD, &CONFIG), *again = slr_checkpoint_ref(c);
    const slr_tensor *t;
    slr_checkpoint_unref(c);
    assert_string_equal(slr_checkpoint_metadata(again, "modelspec.title"), "tinysd");
    assert_null(slr_checkpoint_metadata(again, "nothing"));
    assert_int_equal(slr_checkpoint_predict(again), SLR_PREDICT_EPS);
    assert_string_equal(slr_checkpoint_path(again), TINYSD);
    slr_weights *unet = slr_weights_ref(slr_checkpoint_part(again, SLR_PART_UNET));
    slr_checkpoint_unref(again); /* weights outlive the checkpoint */
    assert_int_equal(slr_weights_get(unet, "conv_in.weight", &t), SDLORA_OK);
    assert_int_equal(t->dtype, SDLORA_F16); /* a view of the file */
    assert_true(slr_storage_bytes(t->storage) > 26000000);
    assert_int_equal(slr_weights_get(unet, "nothing", &t), SDLORA_ENOTFOUND);
    assert_string_equal(sdlora_last_error()->message,
                        "tinysd.safetensors: UNet has no tensor nothing");
    slr_weights_unref(unet);
}

/* ---- made-up files ---- */

typedef struct made {
    const char *name;
    int rank;
    int64_t dim[4];
} made;

static const char *write_file(const char *file, const made *list, size_t n, const slr_st_pair *meta,
                              size_t n_meta)
{
    static char path[256];
    static const float zeros[1 << 14];
    slr_st_entry e[16] = {0};
    for (size_t i = 0; i < n; i++) {
        e[i].name = list[i].name;
        e[i].t = (slr_tensor){.dtype = SDLORA_F32, .rank = list[i].rank, .data = zeros};
        memcpy(e[i].t.dim, list[i].dim, sizeof list[i].dim);
    }
    snprintf(path, sizeof path, "%s/%s", temp, file);
    assert_int_equal(slr_safetensors_write(NULL, path, e, n, meta, n_meta), SDLORA_OK);
    return path;
}

static void refused(const char *path, int code, const char *words)
{
    slr_checkpoint *c = (slr_checkpoint *)temp;
    int rc = slr_checkpoint_open(&c, path, &CONFIG);
    assert_null(c);
    if (rc != code || !strstr(sdlora_last_error()->message, words))
        fail_msg("%s: code %d, \"%s\"; wanted %d, \"%s\"", path, rc, sdlora_last_error()->message,
                 code, words);
}

#define U "model.diffusion_model."

static void families_are_told_apart(void **state)
{
    static const made HEAD[] = {{U "input_blocks.0.0.weight", 4, {8, 4, 1, 1}},
                                {U "out.2.weight", 4, {4, 8, 1, 1}}};
    static const struct {
        const char *words;
        int code;
        made extra;
    } CASES[] = {
        {"Stable Diffusion 3", SDLORA_ENOTSUP, {U "x_embedder.proj.weight", 1, {4}}},
        {"depth or upscaling", SDLORA_ENOTSUP, {U "input_blocks.0.0.weight", 4, {8, 5, 1, 1}}},
        {"unCLIP", SDLORA_ENOTSUP, {"embedder.model.ln_final.weight", 1, {4}}},
        {"Playground", SDLORA_ENOTSUP, {"edm_mean", 1, {4}}},
    };
    static const struct {
        int family, in; /* in: channels of the first convolution */
        made extra;
    } KNOWN[] = {
        {SLR_FAMILY_SD1, 4, {U "input_blocks.1.1.proj_in.weight", 4, {8, 8, 1, 1}}},
        {SLR_FAMILY_SD2, 4, {U "input_blocks.1.1.proj_in.weight", 2, {8, 8}}},
        {SLR_FAMILY_SDXL, 4, {U "label_emb.0.0.weight", 2, {4, 2816}}},
        {SLR_FAMILY_REFINER, 4, {U "label_emb.0.0.weight", 2, {4, 2560}}},
        {SLR_FAMILY_SD1, 9, {U "input_blocks.0.0.weight", 4, {8, 9, 1, 1}}},
        {SLR_FAMILY_SD1, 8, {U "input_blocks.0.0.weight", 4, {8, 8, 1, 1}}},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        made list[3] = {HEAD[0], HEAD[1], CASES[i].extra};
        size_t n = 3;
        if (strcmp(CASES[i].extra.name, HEAD[0].name) == 0) {
            list[0] = CASES[i].extra;
            n = 2;
        }
        refused(write_file("family.safetensors", list, n, NULL, 0), CASES[i].code, CASES[i].words);
    }
    for (size_t i = 0; i < sizeof KNOWN / sizeof *KNOWN; i++) {
        made list[3] = {HEAD[0], HEAD[1], KNOWN[i].extra};
        size_t n = KNOWN[i].in > 4 ? 2 : 3;
        list[0] = KNOWN[i].in > 4 ? KNOWN[i].extra : HEAD[0];
        slr_checkpoint *c = opened(write_file("family.safetensors", list, n, NULL, 0), &CONFIG);
        assert_int_equal(slr_checkpoint_family(c)->id, KNOWN[i].family);
        assert_int_equal(slr_checkpoint_inpaint(c), KNOWN[i].in == 9);
        assert_int_equal(slr_checkpoint_edit(c), KNOWN[i].in == 8);
        slr_checkpoint_unref(c);
    }
    static const made LORA[] = {
        {"lora_unet_mid_block_attentions_0_proj_in.lora_down.weight", 2, {4, 8}}};
    refused(write_file("lora.safetensors", LORA, 1, NULL, 0), SDLORA_ENOTSUP, "LoRA network");
    static const made OTHER[] = {{"bert.pooler.weight", 1, {4}}};
    refused(write_file("other.safetensors", OTHER, 1, NULL, 0), SDLORA_EFORMAT,
            "none of its 1 tensors");
}

static void predictions(void **state)
{
    static const made LIST[] = {{U "input_blocks.0.0.weight", 4, {8, 4, 1, 1}}, {"v_pred", 1, {1}}};
    static const slr_st_pair V[] = {{"modelspec.prediction_type", "v"}},
                             EPS[] = {{"modelspec.predict_key", "epsilon"}};
    static const struct {
        size_t n;
        const slr_st_pair *meta;
        const char *yaml;
        int config, want;
    } CASES[] = {
        {1, NULL, NULL, -1, SLR_PREDICT_EPS},
        {2, NULL, NULL, -1, SLR_PREDICT_V},
        {1, V, NULL, -1, SLR_PREDICT_V},
        {1, EPS, NULL, -1, SLR_PREDICT_EPS},
        {1, NULL, "model:\n  params:\n    parameterization: \"v\"\n", -1, SLR_PREDICT_V},
        {1, NULL, "model:\n  params:\n    parameterization: eps\n", -1, SLR_PREDICT_EPS},
        {1, NULL, "    parameterization: \"v\"  # not eps\r\n", -1, SLR_PREDICT_V},
        {2, V, NULL, SLR_PREDICT_EPS, SLR_PREDICT_EPS},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        char yaml[256];
        slr_checkpoint_config config = {.predict = CASES[i].config};
        const char *path = write_file("predict.safetensors", LIST, CASES[i].n, CASES[i].meta,
                                      CASES[i].meta != NULL);
        snprintf(yaml, sizeof yaml, "%s/predict.yaml", temp);
        if (CASES[i].yaml)
            assert_int_equal(slr_file_write(NULL, yaml, CASES[i].yaml, strlen(CASES[i].yaml)),
                             SDLORA_OK);
        slr_checkpoint *c = opened(path, &config);
        assert_int_equal(slr_checkpoint_predict(c), CASES[i].want);
        slr_checkpoint_unref(c);
        unlink(yaml);
    }
}

static void count_warning(int level, const char *text, void *user)
{
    if (level == SLR_LOG_WARN && strstr(text, "prediction_type"))
        ++*(int *)user;
}

/* SD 2 that says nothing, of a UNet that cannot be run. */
static void no_answer(void **state)
{
    static const made LIST[] = {{U "input_blocks.0.0.weight", 4, {8, 4, 1, 1}},
                                {U "input_blocks.1.1.proj_in.weight", 2, {8, 8}}};
    int warnings = 0;
    slr_checkpoint_config config = {.predict = -1, .log = {count_warning, &warnings, SLR_LOG_WARN}};
    slr_checkpoint *c = opened(write_file("silent.safetensors", LIST, 2, NULL, 0), &config);
    assert_null(slr_checkpoint_predict_source(c));
    assert_int_equal(slr_checkpoint_predict(c), SLR_PREDICT_V);
    assert_int_equal(slr_checkpoint_predict(c), SLR_PREDICT_V);
    assert_string_equal(slr_checkpoint_predict_source(c), "its family");
    assert_int_equal(warnings, 1);
    slr_checkpoint_unref(c);
}

static void find_gap(int level, const char *text, void *user)
{
    const char *at = strstr(text, "the UNet has no ");
    if (level == SLR_LOG_WARN && at)
        snprintf(user, 64, "%.*s", (int)strcspn(at + 16, ","), at + 16);
}

/* Forms of a middle: those that some pruned model has are silent. */
static void a_middle_that_is_missing(void **state)
{
#define MIDDLE(name) {"mid_block." name ".weight", 4, {8, 8, 1, 1}}
    static const made HEAD[] = {{"conv_in.weight", 4, {8, 4, 1, 1}},
                                {"conv_out.weight", 4, {4, 8, 1, 1}},
                                {"down_blocks.0.resnets.0.conv1.weight", 4, {8, 8, 1, 1}},
                                {"down_blocks.0.attentions.0.proj_in.weight", 4, {8, 8, 1, 1}}},
                      SECOND = {"down_blocks.0.resnets.1.conv1.weight", 4, {8, 8, 1, 1}},
                      PARTS[] = {MIDDLE("resnets.0.conv1"), MIDDLE("attentions.0.proj_in"),
                                 MIDDLE("resnets.1.conv1")};
#undef MIDDLE
    static const struct {
        const char *gap;
        bool thin, part[3];
    } CASES[] = {
        {"", false, {true, true, true}},
        {"", false, {true, false, false}}, /* SSD-1B */
        {"", true, {false, false, false}}, /* BK-SDM */
        {"middle block", false, {false, false, false}},
        {"middle block's first residual block", false, {false, true, true}},
        {"middle block's attention", false, {true, false, true}},
        {"middle block's last residual block", true, {true, true, false}},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        made list[8];
        char gap[64] = "";
        size_t n = 4;
        slr_checkpoint_config config = {.predict = -1, .log = {find_gap, gap, SLR_LOG_WARN}};
        memcpy(list, HEAD, sizeof HEAD);
        if (!CASES[i].thin)
            list[n++] = SECOND;
        for (int k = 0; k < 3; k++)
            if (CASES[i].part[k])
                list[n++] = PARTS[k];
        slr_checkpoint_unref(opened(write_file("middle.safetensors", list, n, NULL, 0), &config));
        assert_string_equal(gap, CASES[i].gap);
    }
}

static void broken_files(void **state)
{
    static const struct {
        const char *bytes;
        int code;
        const char *words;
    } CASES[] = {
        {"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", SDLORA_EFORMAT,
         "git-lfs pointer"},
        {"<!DOCTYPE html><html>not found</html>", SDLORA_EFORMAT, "web page"},
        {"", SDLORA_EFORMAT, ""},
        {"PK\003\004", SDLORA_EFORMAT, ""},
        {"\200\002}q\001.", SDLORA_EFORMAT, ""},
        {"\377\377\377\377\377\377\377\377{}", SDLORA_EFORMAT, ""},
    };
    char path[256];
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        snprintf(path, sizeof path, "%s/broken.safetensors", temp);
        assert_int_equal(slr_file_write(NULL, path, CASES[i].bytes, strlen(CASES[i].bytes)),
                         SDLORA_OK);
        refused(path, CASES[i].code, CASES[i].words);
    }
    refused("/nonexistent/model.safetensors", SDLORA_ENOTFOUND, "/nonexistent/model.safetensors");
    refused(temp, SDLORA_EFORMAT, "without a diffusers model");
    static const char index[] = "{\"weight_map\":{\"conv_in.weight\":\"../outside.safetensors\"}}";
    snprintf(path, sizeof path, "%s/diffusion_pytorch_model.safetensors.index.json", temp);
    assert_int_equal(slr_file_write(NULL, path, index, sizeof index - 1), SDLORA_OK);
    slr_weights *vae;
    assert_int_equal(slr_vae_weights_open(&vae, temp, &CONFIG), SDLORA_EFORMAT);
    assert_non_null(strstr(sdlora_last_error()->message, "../outside.safetensors"));
    unlink(path);
}

static void sharded_vae(void **state)
{
    static const made ONE[] = {{"decoder.conv_in.weight", 4, {4, 4, 3, 3}}},
                      TWO[] = {{"encoder.mid_block.attentions.0.query.weight", 2, {4, 4}}};
    static const char index[] =
        "{\"metadata\":{},\"weight_map\":{\"decoder.conv_in.weight\":\"a-00001-of-00002."
        "safetensors\","
        "\"encoder.mid_block.attentions.0.query.weight\":\"a-00002-of-00002.safetensors\"}}";
    char path[256];
    slr_weights *vae;
    write_file("a-00001-of-00002.safetensors", ONE, 1, NULL, 0);
    write_file("a-00002-of-00002.safetensors", TWO, 1, NULL, 0);
    snprintf(path, sizeof path, "%s/diffusion_pytorch_model.safetensors.index.json", temp);
    assert_int_equal(slr_file_write(NULL, path, index, sizeof index - 1), SDLORA_OK);
    assert_int_equal(slr_vae_weights_open(&vae, temp, &CONFIG), SDLORA_OK);
    assert_int_equal(slr_weights_count(vae), 2);
    assert_non_null(
        slr_weights_find(vae, "encoder.mid_block.attentions.0.to_q.weight")); /* old spelling */
    slr_weights_unref(vae);
    unlink(path);
}

/* ---- memory ---- */

/* Opening with the n-th allocation failing, for every n: ENOMEM, nothing leaks, and at last
 * success. */
static void failed_allocations(void **state)
{
    static const char *const PATHS[] = {LAYOUTS "nai.safetensors", LAYOUTS "legacy.pt",
                                        LAYOUTS "diffusers"};
    for (size_t i = 0; i < sizeof PATHS / sizeof *PATHS; i++) {
        int rc = -1;
        for (int64_t n = 0; rc < 0; n++) {
            failing f = {.left = n};
            const slr_mem_hooks hooks = {fail_alloc, fail_realloc, fail_free, &f};
            slr_checkpoint_config config = CONFIG;
            slr_checkpoint *c = NULL;
            assert_true(n < 20000);
            rc = slr_mem_new(&config.mem, &hooks, 0);
            if (rc == SDLORA_OK)
                rc = slr_checkpoint_open(&c, PATHS[i], &config);
            if (rc < 0 && rc != SDLORA_ENOMEM)
                fail_msg("%s, allocation %d: %s", PATHS[i], (int)n, sdlora_last_error()->message);
            slr_checkpoint_unref(c);
            slr_mem_unref(config.mem);
            assert_int_equal(f.held, 0);
        }
    }
}

/* ---- architectures ---- */

typedef struct tally {
    size_t n, norms, in_attentions, in_resnets, samplers, convs;
    char first[192], last[192];
} tally;

static int count_layer(void *user, const slr_layer *l)
{
    tally *t = user;
    if (l->norm) {
        t->norms++;
        assert_true(l->weight->rank == 1 && l->weight->dim[0] == l->out && l->in == 1);
        return SDLORA_OK;
    }
    if (t->n++ == 0)
        snprintf(t->first, sizeof t->first, "%s", l->path);
    snprintf(t->last, sizeof t->last, "%s", l->path);
    t->in_attentions += strstr(l->path, ".attentions.") != NULL;
    t->in_resnets += strstr(l->path, ".resnets.") != NULL;
    t->samplers += strstr(l->path, "samplers.") != NULL;
    t->convs += l->conv;
    assert_true(l->weight->dim[0] == l->out && l->weight->dim[1] == l->in &&
                l->conv == (l->weight->rank == 4));
    return SDLORA_OK;
}

static int stop_at_third(void *user, const slr_layer *l)
{
    return ++*(int *)user == 3 ? slr_fail(SDLORA_ECANCELED, __func__, "enough") : SDLORA_OK;
}

/* What kohya's trainers adapt.  Norms: two to a resnet, four to a transformer of one block and
 * three to each block more, conv_norm_out; two to a layer of text and the last one. */
static void layers_of_real_architectures(void **state)
{
    static const struct {
        const char *name;
        size_t attentions, resnets, samplers, text, norms, text_norms;
    } CASES[] = {
        {"sd15", 192, 80, 6, 72, 22 * 2 + 16 * 4 + 1, 25},
        {"sd21", 192, 80, 6, 138, 22 * 2 + 16 * 4 + 1, 47},
        {"sdxl", 722, 62, 4, 72, 17 * 2 + 11 + (5 * 2 + 6 * 10) * 3 + 1, 25},
        {"tiny", 10 * 12, 0, 4, 36, 0, 13},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        slr_checkpoint *c;
        tally t = {0};
        int n = 0;
        assert_int_equal(slr_checkpoint_shapes(&c, CASES[i].name, &CONFIG), SDLORA_OK);
        const slr_family *family = slr_checkpoint_family(c);
        slr_weights *unet = slr_checkpoint_part(c, SLR_PART_UNET),
                    *te = slr_checkpoint_part(c, SLR_PART_TE);
        if (slr_unet_layers(family, unet, count_layer, &t) < 0)
            fail_msg("%s: %s", CASES[i].name, sdlora_last_error()->message);
        assert_int_equal(t.in_attentions, CASES[i].attentions);
        if (CASES[i].resnets)
            assert_int_equal(t.in_resnets, CASES[i].resnets);
        assert_int_equal(t.samplers, CASES[i].samplers);
        if (CASES[i].norms)
            assert_int_equal(t.norms, CASES[i].norms);
        assert_string_equal(t.first, "time_embedding.linear_1");
        assert_string_equal(t.last, "conv_out");
        assert_int_equal(slr_unet_layers(family, unet, stop_at_third, &n), SDLORA_ECANCELED);
        assert_int_equal(n, 3);
        t = (tally){0};
        if (CASES[i].text)
            assert_int_equal(slr_clip_layers(family, te, count_layer, &t), SDLORA_OK);
        assert_int_equal(t.n, CASES[i].text);
        assert_int_equal(t.norms, CASES[i].text_norms);
        slr_checkpoint_unref(c);
    }
}

static void synthetic_weights(void **state)
{
    slr_checkpoint *a, *b;
    const slr_tensor *x, *y;
    assert_int_equal(slr_checkpoint_synthetic(&a, "tiny", SDLORA_F16, 7, &CONFIG), SDLORA_OK);
    assert_int_equal(slr_checkpoint_synthetic(&b, "tiny", SDLORA_F32, 7, &CONFIG), SDLORA_OK);
    slr_weights_get(slr_checkpoint_part(a, SLR_PART_UNET), "mid_block.resnets.0.conv1.weight", &x);
    slr_weights_get(slr_checkpoint_part(b, SLR_PART_UNET), "mid_block.resnets.0.conv1.weight", &y);
    size_t n = (size_t)slr_tensor_count(x);
    float *p = slr_alloc(NULL, n * sizeof *p), *q = slr_alloc(NULL, n * sizeof *q);
    double square = 0;
    assert_int_equal(slr_tensor_to_f32(x, p), SDLORA_OK);
    assert_int_equal(slr_tensor_to_f32(y, q), SDLORA_OK);
    for (size_t i = 0; i < n; i++) {
        assert_true(fabsf(p[i] - q[i]) <= 1e-3f * fabsf(q[i]) + 1e-6f); /* f16 rounding */
        square += (double)q[i] * q[i];
    }
    /* variance 1 / fan-in, to the 1 % that 147 thousand draws give */
    assert_true(fabs(square / (double)n * (128 * 9) - 1) < 0.01);
    slr_free(NULL, p);
    slr_free(NULL, q);
    slr_checkpoint_unref(a);
    slr_checkpoint_unref(b);
    assert_int_equal(slr_checkpoint_synthetic(&a, "sd9", SDLORA_F16, 7, &CONFIG), SDLORA_EINVAL);
    assert_null(a);
}

/* ---- captions ---- */

static void caption_ids(void **state)
{
    const slr_family *sd1 = slr_family_by_id(SLR_FAMILY_SD1),
                     *sd2 = slr_family_by_id(SLR_FAMILY_SD2);
    slr_bpe *bpe;
    int32_t ids[3 * 77];
    char commas[400];
    assert_int_equal(slr_bpe_new(&bpe, NULL), SDLORA_OK);
    assert_int_equal(slr_clip_caption_ids(NULL, bpe, sd1, "red apple, fruit", 1, ids), SDLORA_OK);
    const int32_t want[] = {49406, 736, 3055, 267, 5190, 49407, 49407};
    assert_memory_equal(ids, want, sizeof want);
    assert_int_equal(ids[76], 49407);
    assert_int_equal(slr_clip_caption_ids(NULL, bpe, sd2, "red apple, fruit", 1, ids), SDLORA_OK);
    assert_int_equal(ids[5], 49407);
    assert_int_equal(ids[6], 0);
    assert_int_equal(ids[76], 0);

    /* 80 tokens in chunks of 75: the second holds five, and each row of SD 1 ends with EOS */
    commas[0] = '\0';
    for (int i = 0; i < 40; i++)
        strcat(commas, "cat, ");
    assert_int_equal(slr_clip_caption_ids(NULL, bpe, sd1, commas, 2, ids), SDLORA_OK);
    assert_true(ids[0] == 49406 && ids[75] == 2368 && ids[76] == 49407);
    assert_true(ids[77] == 49406 && ids[78] == 267 && ids[82] == 267 && ids[83] == 49407 &&
                ids[153] == 49407);
    /* one chunk cuts */
    assert_int_equal(slr_clip_caption_ids(NULL, bpe, sd1, commas, 1, ids), SDLORA_OK);
    assert_true(ids[75] == 2368 && ids[76] == 49407);
    /* padding other than EOS: a full chunk ends with EOS, an empty one starts with it */
    assert_int_equal(slr_clip_caption_ids(NULL, bpe, sd2, commas, 3, ids), SDLORA_OK);
    assert_true(ids[76] == 49407 && ids[83] == 49407 && ids[84] == 0 && ids[153] == 0);
    assert_true(ids[154] == 49406 && ids[155] == 49407 && ids[156] == 0 && ids[230] == 0);
    assert_int_equal(slr_clip_caption_ids(NULL, bpe, sd1, "a", 4, ids), SDLORA_EINVAL);
    slr_bpe_unref(bpe);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(layouts),
        cmocka_unit_test(names_lead_back),
        cmocka_unit_test(ema_on_request),
        cmocka_unit_test(metadata_and_views),
        cmocka_unit_test(families_are_told_apart),
        cmocka_unit_test(predictions),
        cmocka_unit_test(no_answer), cmocka_unit_test(a_middle_that_is_missing),
        cmocka_unit_test(broken_files),
        cmocka_unit_test(sharded_vae),
        cmocka_unit_test(failed_allocations),
        cmocka_unit_test(layers_of_real_architectures),
        cmocka_unit_test(synthetic_weights),
        cmocka_unit_test(caption_ids),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
