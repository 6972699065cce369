/* SPDX-License-Identifier: MIT */
/* The texts of a diffusers folder: configurations of each component, read off the weights, and the
 * tokenizer's files, written from the built-in table.  Knows the keys that diffusers and
 * transformers read and the values that shapes cannot tell; refuses to know tensors' contents. */
#include <string.h>

#include "base/status.h"
#include "base/str.h"
#include "io/file.h"
#include "io/json.h"
#include "models/bpe.h"
#include "models/clip.h"
#include "models/convert.h"
#include "models/detect.h"
#include "models/unet.h"
#include "models/unet_block.h"

#define VERSION "0.21.0" /* of diffusers, whose keys these are; newer ones read them */

typedef struct configs {
    const slr_converting *c;
    slr_mem *m;
    const char *folder;
    slr_buf b; /* the text at hand */
} configs;

/* SDXL and its refiner. */
static bool is_xl(const configs *k)
{
    return k->c->family->n_sizes > 0;
}

/* Writes the text at hand to <folder>/<sub>/<name> and begins anew. */
static int put_file(configs *k, const char *sub, const char *name)
{
    char *dir = *sub ? slr_path_join(k->m, k->folder, sub) : slr_strdup(k->m, k->folder);
    char *path = dir ? slr_path_join(k->m, dir, name) : NULL;
    int rc = path ? slr_buf_ok(&k->b) : SDLORA_ENOMEM;
    if (rc == SDLORA_OK)
        rc = slr_dir_make(dir);
    if (rc == SDLORA_OK)
        rc = slr_file_write(k->m, path, k->b.data, k->b.len);
    slr_free(k->m, dir);
    slr_free(k->m, path);
    slr_buf_free(&k->b);
    slr_buf_init(&k->b, k->m);
    return rc;
}

static int64_t dim_of(const slr_weights *w, const char *name, int axis)
{
    const slr_tensor *t = slr_weights_find(w, name);
    return t && axis < t->rank ? t->dim[axis] : 0;
}

static void numbers(slr_buf *b, const char *key, const int64_t *v, int n)
{
    slr_buf_printf(b, "  \"%s\": [", key);
    for (int i = 0; i < n; i++)
        slr_buf_printf(b, "%s%lld", i ? ", " : "", (long long)v[i]);
    slr_buf_puts(b, "],\n");
}

/* A number when all are the same: the commoner spelling, which older versions want. */
static void number_or_numbers(slr_buf *b, const char *key, const int64_t *v, int n)
{
    bool same = true;
    for (int i = 1; i < n; i++)
        same = same && v[i] == v[0];
    if (same)
        slr_buf_printf(b, "  \"%s\": %lld,\n", key, (long long)v[0]);
    else
        numbers(b, key, v, n);
}

/* ---- UNet ---- */

static void block_types(slr_buf *b, const slr_unet_shape *s)
{
    for (int up = 0; up < 2; up++) {
        slr_buf_printf(b, "  \"%s_block_types\": [", up ? "up" : "down");
        for (int i = 0; i < s->n_levels; i++)
            slr_buf_printf(b, "%s\"%s%sBlock2D\"", i ? ", " : "",
                           s->depth[up ? s->n_levels - 1 - i : i] ? "CrossAttn" : "",
                           up ? "Up" : "Down");
        slr_buf_puts(b, "],\n");
    }
}

static int64_t proj_rank(const slr_weights *w)
{
    for (size_t i = 0; i < slr_weights_count(w); i++) {
        const slr_tensor *t;
        if (slr_ends(slr_weights_at(w, i, &t), ".proj_in.weight"))
            return t->rank;
    }
    return 0;
}

static int put_unet(configs *k)
{
    const slr_weights *w = k->c->parts.part[SLR_PART_UNET];
    int64_t depth[SLR_UNET_LEVELS], layers[SLR_UNET_LEVELS];
    slr_unet_shape s;
    slr_buf *b = &k->b;
    SLR_TRY(slr_unet_read(&s, k->c->family, w));
    int last = s.n_levels - 1;
    for (int i = 0; i <= last; i++) { /* the middle takes the last level's */
        depth[i] = s.depth[i] ? s.depth[i] : i == last && s.mid_depth ? s.mid_depth : 1;
        layers[i] = s.resnets[i];
        s.heads[i] = s.heads[i] ? s.heads[i] : 1; /* of a narrow level without attention */
    }
    if (s.mid_depth && depth[last] != s.mid_depth)
        return slr_fail(SDLORA_ENOTSUP, __func__,
                        "%s: the middle block is %d transformers deep and the last level %lld, "
                        "which a diffusers folder can't say",
                        slr_weights_label(w), s.mid_depth, (long long)depth[last]);
    slr_buf_puts(b, "{\n  \"_class_name\": \"UNet2DConditionModel\",\n"
                    "  \"_diffusers_version\": \"" VERSION "\",\n  \"act_fn\": \"silu\",\n");
    if (s.vector)
        slr_buf_printf(b,
                       "  \"addition_embed_type\": \"text_time\",\n"
                       "  \"addition_time_embed_dim\": 256,\n"
                       "  \"projection_class_embeddings_input_dim\": %lld,\n",
                       (long long)s.vector);
    number_or_numbers(b, "attention_head_dim", s.heads, s.n_levels); /* a count of heads */
    numbers(b, "block_out_channels", s.channels, s.n_levels);
    slr_buf_printf(b, "  \"center_input_sample\": false,\n  \"cross_attention_dim\": %lld,\n",
                   (long long)s.context);
    block_types(b, &s);
    slr_buf_printf(b,
                   "  \"downsample_padding\": 1,\n  \"flip_sin_to_cos\": true,\n"
                   "  \"freq_shift\": 0,\n  \"in_channels\": %lld,\n",
                   (long long)s.in_channels);
    number_or_numbers(b, "layers_per_block", layers, s.n_levels);
    slr_buf_printf(b,
                   "  \"mid_block_scale_factor\": 1,\n  \"norm_eps\": 1e-05,\n"
                   "  \"norm_num_groups\": %d,\n  \"out_channels\": %lld,\n"
                   "  \"sample_size\": %d,\n",
                   SLR_NORM_GROUPS, (long long)s.out_channels, k->c->family->native_size / 8);
    number_or_numbers(b, "transformer_layers_per_block", depth, s.n_levels);
    slr_buf_printf(b, "  \"use_linear_projection\": %s\n}\n", proj_rank(w) == 2 ? "true" : "false");
    return put_file(k, "unet", "config.json");
}

/* ---- autoencoder ---- */

static int put_vae(configs *k)
{
    const slr_weights *w = k->c->parts.part[SLR_PART_VAE];
    int64_t width[SLR_UNET_LEVELS], layers = 0;
    int n = 0;
    char name[192], scale[32];
    slr_buf *b = &k->b;
    while (n < SLR_UNET_LEVELS &&
           (width[n] = dim_of(
                w, slr_nn_path(name, "encoder.down_blocks.%d.resnets.0.conv1.weight", n), 0)))
        n++;
    while (dim_of(
        w, slr_nn_path(name, "encoder.down_blocks.0.resnets.%d.conv1.weight", (int)layers), 0))
        layers++;
    if (n == 0)
        return slr_fail(SDLORA_EFORMAT, __func__, "%s: this autoencoder has no encoder",
                        slr_weights_label(w));
    slr_real_repr(k->c->family->vae_scale, scale);
    slr_buf_puts(b, "{\n  \"_class_name\": \"AutoencoderKL\",\n"
                    "  \"_diffusers_version\": \"" VERSION "\",\n  \"act_fn\": \"silu\",\n");
    numbers(b, "block_out_channels", width, n);
    for (int up = 0; up < 2; up++) {
        slr_buf_printf(b, "  \"%s_block_types\": [", up ? "up" : "down");
        for (int i = 0; i < n; i++)
            slr_buf_printf(b, "%s\"%sBlock2D\"", i ? ", " : "", up ? "UpDecoder" : "DownEncoder");
        slr_buf_puts(b, "],\n");
    }
    slr_buf_printf(b,
                   "  \"force_upcast\": %s,\n  \"in_channels\": %lld,\n"
                   "  \"latent_channels\": %lld,\n  \"layers_per_block\": %lld,\n"
                   "  \"norm_num_groups\": %d,\n  \"out_channels\": %lld,\n"
                   "  \"sample_size\": %d,\n  \"scaling_factor\": %s,\n"
                   "  \"use_post_quant_conv\": %s,\n  \"use_quant_conv\": %s\n}\n",
                   is_xl(k) ? "true" : "false", (long long)dim_of(w, "encoder.conv_in.weight", 1),
                   (long long)dim_of(w, "decoder.conv_in.weight", 1), (long long)layers,
                   SLR_NORM_GROUPS, (long long)dim_of(w, "decoder.conv_out.weight", 0),
                   k->c->family->native_size, scale,
                   slr_nn_has(w, "post_quant_conv") ? "true" : "false",
                   slr_nn_has(w, "quant_conv") ? "true" : "false");
    return put_file(k, "vae", "config.json");
}

/* ---- text ---- */

/* What differs between the encoders of the families. */
static const struct text_row {
    int family, part;
    const char *sub, *tokenizer, *cls, *act, *pad; /* pad: the token behind a short text */
    int projection; /* width that the original's says; 0: of the weights */
    int most_layers;
} TEXTS[] = {
    {SLR_FAMILY_SD1, SLR_PART_TE, "text_encoder", "tokenizer", "CLIPTextModel", "quick_gelu",
     "<|endoftext|>", 0, 1000},
    {SLR_FAMILY_SD2, SLR_PART_TE, "text_encoder", "tokenizer", "CLIPTextModel", "gelu", "!", 512,
     23},
    {SLR_FAMILY_SDXL, SLR_PART_TE, "text_encoder", "tokenizer", "CLIPTextModel", "quick_gelu",
     "<|endoftext|>", 0, 1000},
    {SLR_FAMILY_SDXL, SLR_PART_TE2, "text_encoder_2", "tokenizer_2", "CLIPTextModelWithProjection",
     "gelu", "!", 0, 1000},
    {SLR_FAMILY_REFINER, SLR_PART_TE2, "text_encoder_2", "tokenizer_2",
     "CLIPTextModelWithProjection", "gelu", "!", 0, 1000},
};

static int put_text(configs *k, const struct text_row *row)
{
    const slr_weights *w = k->c->parts.part[row->part];
    slr_clip_shape s;
    SLR_TRY(slr_clip_read(&s, k->c->family, w));
    int64_t layers = s.layers < row->most_layers ? s.layers : row->most_layers;
    int64_t projection = dim_of(w, "text_projection.weight", 0);
    if (row->part != SLR_PART_TE2 || projection == 0)
        projection = row->projection ? row->projection : s.width;
    slr_buf_printf(
        &k->b,
        "{\n  \"architectures\": [\"%s\"],\n  \"attention_dropout\": 0.0,\n"
        "  \"bos_token_id\": 0,\n  \"dropout\": 0.0,\n  \"eos_token_id\": 2,\n"
        "  \"hidden_act\": \"%s\",\n  \"hidden_size\": %lld,\n  \"initializer_factor\": 1.0,\n"
        "  \"initializer_range\": 0.02,\n  \"intermediate_size\": %lld,\n"
        "  \"layer_norm_eps\": 1e-05,\n  \"max_position_embeddings\": %lld,\n"
        "  \"model_type\": \"clip_text_model\",\n  \"num_attention_heads\": %lld,\n"
        "  \"num_hidden_layers\": %lld,\n  \"pad_token_id\": 1,\n  \"projection_dim\": %lld,\n"
        "  \"vocab_size\": %lld\n}\n",
        row->cls, row->act, (long long)s.width,
        (long long)dim_of(w, "text_model.encoder.layers.0.mlp.fc1.weight", 0),
        (long long)s.positions, (long long)s.heads, (long long)layers, (long long)projection,
        (long long)s.vocab);
    return put_file(k, row->sub, "config.json");
}

static void special(slr_buf *b, const char *name, const char *token, const char *more)
{
    slr_buf_printf(b,
                   "  \"%s\": {%s\"content\": \"%s\", \"lstrip\": false, \"normalized\": true, "
                   "\"rstrip\": false, \"single_word\": false},\n",
                   name, more, token);
}

static int put_specials(configs *k, const struct text_row *row, bool config)
{
    slr_buf *b = &k->b;
    const char *more = config ? "\"__type\": \"AddedToken\", " : "";
    slr_buf_puts(b, "{\n");
    if (config)
        slr_buf_puts(b, "  \"add_prefix_space\": false,\n  \"do_lower_case\": true,\n"
                        "  \"errors\": \"replace\",\n  \"model_max_length\": 77,\n"
                        "  \"tokenizer_class\": \"CLIPTokenizer\",\n");
    special(b, "bos_token", "<|startoftext|>", more);
    special(b, "eos_token", "<|endoftext|>", more);
    special(b, "unk_token", "<|endoftext|>", more);
    slr_buf_printf(b, "  \"pad_token\": \"%s\"\n}\n", row->pad);
    return put_file(k, row->tokenizer,
                    config ? "tokenizer_config.json" : "special_tokens_map.json");
}

static int put_tokenizer(configs *k, const struct text_row *row, const slr_bpe *bpe)
{
    const char *left, *right, *token;
    slr_buf *b = &k->b;
    slr_buf_puts(b, "{");
    for (int32_t id = 0; (token = slr_bpe_token(bpe, id)) != NULL; id++) {
        slr_buf_puts(b, id ? ", " : "");
        slr_json_quote(b, token, strlen(token), true);
        slr_buf_printf(b, ": %d", (int)id);
    }
    slr_buf_puts(b, "}");
    SLR_TRY(put_file(k, row->tokenizer, "vocab.json"));
    slr_buf_puts(b, "#version: 0.2\n");
    for (size_t r = 0; slr_bpe_merge_at(bpe, r, &left, &right); r++)
        slr_buf_printf(b, "%s %s\n", left, right);
    SLR_TRY(put_file(k, row->tokenizer, "merges.txt"));
    SLR_TRY(put_specials(k, row, false));
    return put_specials(k, row, true);
}

static int put_texts(configs *k)
{
    slr_bpe *bpe;
    SLR_TRY(slr_bpe_new(&bpe, k->m));
    int rc = SDLORA_OK;
    for (size_t i = 0; i < sizeof TEXTS / sizeof *TEXTS && rc == SDLORA_OK; i++) {
        if (TEXTS[i].family != k->c->family->id || !k->c->parts.part[TEXTS[i].part])
            continue;
        rc = put_text(k, &TEXTS[i]);
        if (rc == SDLORA_OK)
            rc = put_tokenizer(k, &TEXTS[i], bpe);
    }
    slr_bpe_unref(bpe);
    return rc;
}

/* ---- the whole ---- */

/* A folder must say it, so a model that says nothing is asked. */
static int prediction(const configs *k)
{
    const slr_weights *unet = k->c->parts.part[SLR_PART_UNET];
    const slr_probe_limits limits = {k->c->config->threads, k->c->config->cpu_off};
    int predict = k->c->predict;
    if (predict < 0 &&
        (!unet || slr_probe_predict(&predict, k->m, k->c->family, unet, &limits) < 0)) {
        slr_clear(); /* a part of a model, or one in types that nothing computes with */
        predict = k->c->family->predict;
    }
    return predict;
}

static const char *scheduler_of(const configs *k)
{
    if (k->c->ztsnr)
        return "DDIMScheduler";
    return is_xl(k) ? "EulerDiscreteScheduler" : "PNDMScheduler";
}

static int put_scheduler(configs *k)
{
    bool xl = is_xl(k), ztsnr = k->c->ztsnr;
    int predict = prediction(k);
    slr_buf *b = &k->b;
    slr_buf_printf(b,
                   "{\n  \"_class_name\": \"%s\",\n  \"_diffusers_version\": \"" VERSION "\",\n"
                   "  \"beta_end\": 0.012,\n  \"beta_schedule\": \"scaled_linear\",\n"
                   "  \"beta_start\": 0.00085,\n  \"clip_sample\": false,\n"
                   "  \"num_train_timesteps\": 1000,\n  \"prediction_type\": \"%s\",\n",
                   scheduler_of(k), predict == SLR_PREDICT_V ? "v_prediction" : "epsilon");
    if (ztsnr)
        slr_buf_puts(b, "  \"rescale_betas_zero_snr\": true,\n");
    else if (xl)
        slr_buf_puts(b, "  \"interpolation_type\": \"linear\",\n"
                        "  \"use_karras_sigmas\": false,\n");
    else
        slr_buf_puts(b, "  \"skip_prk_steps\": true,\n");
    slr_buf_printf(b,
                   "  \"set_alpha_to_one\": false,\n  \"steps_offset\": 1,\n"
                   "  \"timestep_spacing\": \"%s\",\n  \"trained_betas\": null\n}\n",
                   ztsnr ? "trailing" : "leading");
    return put_file(k, "scheduler", "scheduler_config.json");
}

static void component(slr_buf *b, const char *name, const char *library, const char *cls,
                      bool there)
{
    if (there)
        slr_buf_printf(b, ",\n  \"%s\": [\"%s\", \"%s\"]", name, library, cls);
    else
        slr_buf_printf(b, ",\n  \"%s\": [null, null]", name);
}

static const char *pipeline(const configs *k)
{
    const slr_weights *w = k->c->parts.part[SLR_PART_UNET];
    bool inpaint = w && dim_of(w, "conv_in.weight", 1) == 9;
    if (k->c->family->id == SLR_FAMILY_REFINER)
        return "StableDiffusionXLImg2ImgPipeline";
    if (is_xl(k))
        return inpaint ? "StableDiffusionXLInpaintPipeline" : "StableDiffusionXLPipeline";
    return inpaint ? "StableDiffusionInpaintPipeline" : "StableDiffusionPipeline";
}

static int put_index(configs *k)
{
    slr_weights *const *part = k->c->parts.part;
    bool xl = is_xl(k);
    slr_buf *b = &k->b;
    slr_buf_printf(b,
                   "{\n  \"_class_name\": \"%s\",\n"
                   "  \"_diffusers_version\": \"" VERSION "\"",
                   pipeline(k));
    component(b, "feature_extractor", "", "", false);
    if (xl)
        slr_buf_puts(b, k->c->family->id == SLR_FAMILY_REFINER
                            ? ",\n  \"force_zeros_for_empty_prompt\": false"
                              ",\n  \"requires_aesthetics_score\": true"
                            : ",\n  \"force_zeros_for_empty_prompt\": true");
    else
        slr_buf_puts(b, ",\n  \"requires_safety_checker\": false,\n"
                        "  \"safety_checker\": [null, null]");
    component(b, "scheduler", "diffusers", scheduler_of(k), true);
    for (size_t i = 0; i < sizeof TEXTS / sizeof *TEXTS; i++) {
        if (TEXTS[i].family != k->c->family->id)
            continue;
        component(b, TEXTS[i].sub, "transformers", TEXTS[i].cls, part[TEXTS[i].part]);
        component(b, TEXTS[i].tokenizer, "transformers", "CLIPTokenizer", part[TEXTS[i].part]);
    }
    component(b, "unet", "diffusers", "UNet2DConditionModel", part[SLR_PART_UNET]);
    component(b, "vae", "diffusers", "AutoencoderKL", part[SLR_PART_VAE]);
    slr_buf_puts(b, "\n}\n");
    return put_file(k, "", "model_index.json");
}

int slr_write_df_configs(const slr_converting *c, const char *folder)
{
    configs k = {.c = c, .m = c->m, .folder = folder};
    int rc = SDLORA_OK;
    slr_buf_init(&k.b, c->m);
    if (c->parts.part[SLR_PART_UNET])
        rc = put_unet(&k);
    if (rc == SDLORA_OK && c->parts.part[SLR_PART_VAE])
        rc = put_vae(&k);
    if (rc == SDLORA_OK)
        rc = put_texts(&k);
    if (rc == SDLORA_OK)
        rc = put_scheduler(&k);
    if (rc == SDLORA_OK)
        rc = put_index(&k);
    slr_buf_free(&k.b);
    return rc;
}
