/* SPDX-License-Identifier: MIT */
/* Writes what a run was into text pairs.  Values are Python's str() of kohya's argument values:
 * "None", "True", shortest floats.  Most keys are rows of one table; the rest have a reason each.
 */
#include "train/metadata.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include <sdlora/version.h>

#include "base/status.h"
#include "base/str.h"
#include "io/file.h"
#include "io/hash.h"
#include "io/json.h"
#include "networks/embedding.h"
#include "train/metadata_impl.h"

/* --- rows: key <- option --- */

enum { FROM_TRAIN, FROM_DATASET, FROM_NETWORK };

static const struct {
    const char *key;
    int from;
    const char *option;
    bool always; /* also with no_metadata */
} rows[] = {
    {"ss_learning_rate", FROM_TRAIN, "learning_rate", false},
    {"ss_text_encoder_lr", FROM_TRAIN, "text_encoder_lr", false},
    {"ss_unet_lr", FROM_TRAIN, "unet_lr", false},
    {"ss_gradient_checkpointing", FROM_TRAIN, "gradient_checkpointing", false},
    {"ss_gradient_accumulation_steps", FROM_TRAIN, "gradient_accumulation_steps", false},
    {"ss_lr_warmup_steps", FROM_TRAIN, "lr_warmup_steps", false},
    {"ss_lr_scheduler", FROM_TRAIN, "lr_scheduler", false},
    {"ss_network_module", FROM_NETWORK, "network_module", true},
    {"ss_network_dim", FROM_NETWORK, "network_dim", true},
    {"ss_network_alpha", FROM_NETWORK, "network_alpha", true},
    {"ss_network_dropout", FROM_NETWORK, "network_dropout", false},
    {"ss_mixed_precision", FROM_TRAIN, "mixed_precision", false},
    {"ss_full_fp16", FROM_TRAIN, "full_fp16", false},
    {"ss_fp8_base", FROM_TRAIN, "fp8_base", false},
    {"ss_fp8_base_unet", FROM_TRAIN, "fp8_base_unet", false},
    {"ss_lowram", FROM_TRAIN, "lowram", false},
    {"ss_clip_skip", FROM_TRAIN, "clip_skip", false},
    {"ss_max_token_length", FROM_TRAIN, "max_token_length", false},
    {"ss_cache_latents", FROM_DATASET, "cache_latents", false},
    {"ss_noise_offset", FROM_TRAIN, "noise_offset", false},
    {"ss_noise_offset_random_strength", FROM_TRAIN, "noise_offset_random_strength", false},
    {"ss_multires_noise_iterations", FROM_TRAIN, "multires_noise_iterations", false},
    {"ss_multires_noise_discount", FROM_TRAIN, "multires_noise_discount", false},
    {"ss_adaptive_noise_scale", FROM_TRAIN, "adaptive_noise_scale", false},
    {"ss_zero_terminal_snr", FROM_TRAIN, "zero_terminal_snr", false},
    {"ss_ip_noise_gamma", FROM_TRAIN, "ip_noise_gamma", false},
    {"ss_ip_noise_gamma_random_strength", FROM_TRAIN, "ip_noise_gamma_random_strength", false},
    {"ss_min_snr_gamma", FROM_TRAIN, "min_snr_gamma", false},
    {"ss_debiased_estimation", FROM_TRAIN, "debiased_estimation_loss", false},
    {"ss_prior_loss_weight", FROM_DATASET, "prior_loss_weight", false},
    {"ss_loss_type", FROM_TRAIN, "loss_type", false},
    {"ss_huber_schedule", FROM_TRAIN, "huber_schedule", false},
    {"ss_huber_scale", FROM_TRAIN, "huber_scale", false},
    {"ss_huber_c", FROM_TRAIN, "huber_c", false},
    {"ss_max_grad_norm", FROM_TRAIN, "max_grad_norm", false},
    {"ss_scale_weight_norms", FROM_TRAIN, "scale_weight_norms", false},
    {"ss_caption_dropout_rate", FROM_DATASET, "caption_dropout_rate", false},
    {"ss_caption_dropout_every_n_epochs", FROM_DATASET, "caption_dropout_every_n_epochs", false},
    {"ss_caption_tag_dropout_rate", FROM_DATASET, "caption_tag_dropout_rate", false},
    {"ss_face_crop_aug_range", FROM_DATASET, "face_crop_aug_range", false},
    {"ss_validation_seed", FROM_TRAIN, "validation_seed", false},
    {"ss_validation_split", FROM_TRAIN, "validation_split", false},
    {"ss_max_validation_steps", FROM_TRAIN, "max_validation_steps", false},
    {"ss_validate_every_n_epochs", FROM_TRAIN, "validate_every_n_epochs", false},
    {"ss_validate_every_n_steps", FROM_TRAIN, "validate_every_n_steps", false},
    {"ss_resize_interpolation", FROM_DATASET, "resize_interpolation", false},
    {"ss_training_comment", FROM_TRAIN, "training_comment", false},
    {"ss_batch_size_per_device", FROM_DATASET, "train_batch_size", false},
    {"ss_color_aug", FROM_DATASET, "color_aug", false},
    {"ss_flip_aug", FROM_DATASET, "flip_aug", false},
    {"ss_random_crop", FROM_DATASET, "random_crop", false},
    {"ss_shuffle_caption", FROM_DATASET, "shuffle_caption", false},
    {"ss_enable_bucket", FROM_DATASET, "enable_bucket", false},
    {"ss_bucket_no_upscale", FROM_DATASET, "bucket_no_upscale", false},
    {"ss_keep_tokens", FROM_DATASET, "keep_tokens", false},
};

/* Options of "train" that mean something to some models alone; runs of others do without the key,
 * as kohya's do. */
static bool inpaints(const slr_run_facts *f)
{
    return slr_checkpoint_inpaint(f->base);
}

/* Random crops have a mask for each use and none beforehand. */
static bool keeps_masks(const slr_run_facts *f)
{
    return inpaints(f) &&
           !slr_opt_bool((slr_opt){slr_dataset_options(f->data), "dataset"}, "random_crop");
}

static bool refines(const slr_run_facts *f)
{
    return slr_network_family(f->network)->id == SLR_FAMILY_REFINER;
}

static const struct {
    const char *key, *option;
    bool (*of)(const slr_run_facts *f);
} own_rows[] = {
    {"ss_train_inpainting", "train_inpainting", inpaints},
    {"ss_masks_per_image", "masks_per_image", keeps_masks},
    {"ss_aesthetic_score", "aesthetic_score", refines},
};

bool slr_metadata_row(size_t i, const char **key, const char **kind, const char **option)
{
    static const char *const kinds[] = {
        [FROM_TRAIN] = "train", [FROM_DATASET] = "dataset", [FROM_NETWORK] = "network"};
    const size_t n = sizeof rows / sizeof *rows;
    if (i >= n + sizeof own_rows / sizeof *own_rows)
        return false;
    *key = i < n ? rows[i].key : own_rows[i - n].key;
    *kind = kinds[i < n ? rows[i].from : FROM_TRAIN];
    *option = i < n ? rows[i].option : own_rows[i - n].option;
    return true;
}

/* Options whose unset default kohya spells otherwise: integer literals, and values that mean
 * "none".
 *
 * kohya writes the arguments, not the network: with dim_from_weights ss_network_dim is "None" and
 * ss_network_alpha "1" unless they are given, and then what is given, though the ranks and alphas
 * are the file's.  So it is here. */
static const struct {
    const char *option, *unset;
} unset_spelling[] = {
    {"network_dim", "None"},
    {"network_alpha", "1"},
    {"clip_skip", "None"},
    {"lr_warmup_steps", "0"},
};

/* Real options that kohya reads as int or float: whole numbers are ints. */
static bool int_or_float(const char *option)
{
    return !strcmp(option, "lr_warmup_steps");
}

int slr_metadata_option(slr_meta *meta, const char *key, slr_opt o, const char *option)
{
    const slr_option_row *row = slr_option_find(o.kind, option);
    if (!row)
        return slr_fail(SDLORA_ERROR, __func__, "there is no %s option %s", o.kind, option);
    if (!slr_opt_given(o, option))
        for (size_t i = 0; i < sizeof unset_spelling / sizeof *unset_spelling; i++)
            if (!strcmp(unset_spelling[i].option, option))
                return slr_meta_set(meta, key, unset_spelling[i].unset);
    if (!slr_opt_has(o, option))
        return slr_meta_set(meta, key, "None");

    char number[32];
    double real = row->type == SLR_OPT_REAL ? slr_opt_real(o, option) : 0;
    switch (row->type) {
    case SLR_OPT_BOOL:
        return slr_meta_set(meta, key, slr_opt_bool(o, option) ? "True" : "False");
    case SLR_OPT_INT:
        return slr_meta_setf(meta, key, "%lld", (long long)slr_opt_int(o, option));
    case SLR_OPT_REAL:
        if (int_or_float(option) && real == floor(real))
            return slr_meta_setf(meta, key, "%lld", (long long)real);
        slr_real_repr(real, number);
        return slr_meta_set(meta, key, number);
    default:
        return slr_meta_set(meta, key, slr_opt_text(o, option));
    }
}

/* One rate as a number, several as Python's list. */
static int set_rates(slr_meta *meta, const char *key, slr_opt o, const char *option)
{
    char list[128];
    const char *text = slr_opt_text(o, option), *end = text ? strchr(text, '\n') : NULL;
    if (!end)
        return slr_metadata_option(meta, key, o, option);
    snprintf(list, sizeof list, "[%.*s, %s]", (int)(end - text), text, end + 1);
    return slr_meta_set(meta, key, list);
}

/* What an embedding has instead of ranks; kohya's script writes none of these. */
static int set_embedding(slr_meta *meta, slr_opt o)
{
    SLR_TRY(slr_meta_set(meta, "ss_network_module", "textual_inversion"));
    SLR_TRY(slr_metadata_option(meta, "ss_token_string", o, "token_string"));
    SLR_TRY(slr_metadata_option(meta, "ss_init_word", o, "init_word"));
    return slr_metadata_option(meta, "ss_num_vectors_per_token", o, "num_vectors_per_token");
}

static int set_rows(slr_meta *meta, const slr_run_facts *f, bool bare)
{
    const slr_opt from[] = {
        [FROM_TRAIN] = f->opts,
        [FROM_DATASET] = {slr_dataset_options(f->data), "dataset"},
        [FROM_NETWORK] = slr_network_options(f->network),
    };
    bool embedding = slr_network_is_embedding(f->network);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if ((rows[i].always || !bare) && !(embedding && rows[i].from == FROM_NETWORK)) {
            bool rates = !strcmp(rows[i].option, "text_encoder_lr");
            SLR_TRY((rates ? set_rates : slr_metadata_option)(meta, rows[i].key, from[rows[i].from],
                                                              rows[i].option));
        }
    for (size_t i = 0; !bare && i < sizeof own_rows / sizeof *own_rows; i++)
        if (own_rows[i].of(f))
            SLR_TRY(slr_metadata_option(meta, own_rows[i].key, f->opts, own_rows[i].option));
    return embedding ? set_embedding(meta, from[FROM_NETWORK]) : SDLORA_OK;
}

/* --- the run's own numbers --- */

static int set_numbers(slr_meta *meta, const slr_run_facts *f)
{
    const struct {
        const char *key;
        int64_t value;
    } ints[] = {
        {"ss_session_id", (int64_t)f->session},
        {"ss_num_train_images", slr_dataset_train_images(f->data)},
        {"ss_num_validation_images", f->validation_images},
        {"ss_num_reg_images", slr_dataset_reg_images(f->data)},
        {"ss_num_batches_per_epoch", f->batches_per_epoch},
        {"ss_num_epochs", f->epochs},
        {"ss_max_train_steps", f->max_steps},
        {"ss_steps", f->steps},
        {"ss_epoch", f->epoch},
        {"ss_seed", f->seed},
    };
    for (size_t i = 0; i < sizeof ints / sizeof *ints; i++)
        SLR_TRY(slr_meta_setf(meta, ints[i].key, "%lld", (long long)ints[i].value));
    char started[32], now[32];
    slr_real_repr(f->started, started);
    slr_real_repr(f->now, now);
    SLR_TRY(slr_meta_set(meta, "ss_training_started_at", started));
    SLR_TRY(slr_meta_set(meta, "ss_training_finished_at", now));
    return slr_meta_set(meta, "ss_optimizer", f->optimizer);
}

void slr_metadata_resolution(const slr_run_facts *f, long long *w, long long *h)
{
    slr_opt o = {slr_dataset_options(f->data), "dataset"};
    *w = *h = 512;
    int n = sscanf(slr_opt_text(o, "resolution"), "%lld , %lld", w, h);
    if (n == 1)
        *h = *w;
}

static int set_owned(slr_meta *meta, slr_mem *m, const char *key, char *text)
{
    if (!text)
        return SDLORA_ENOMEM;
    int rc = slr_meta_set(meta, key, text);
    slr_free(m, text);
    return rc;
}

static int set_dataset(slr_meta *meta, slr_mem *m, const slr_run_facts *f)
{
    slr_opt o = {slr_dataset_options(f->data), "dataset"};
    bool buckets = slr_opt_bool(o, "enable_bucket");
    long long w, h,
        total = slr_opt_int(o, "train_batch_size") *
                slr_opt_int(f->opts, "gradient_accumulation_steps");
    slr_metadata_resolution(f, &w, &h);
    SLR_TRY(slr_meta_setf(meta, "ss_resolution", "(%lld, %lld)", w, h));
    SLR_TRY(slr_meta_setf(meta, "ss_total_batch_size", "%lld", total));
    const char *const sides[] = {"min_bucket_reso", "max_bucket_reso"};
    const char *const keys[] = {"ss_min_bucket_reso", "ss_max_bucket_reso"};
    for (int i = 0; i < 2; i++)
        SLR_TRY(buckets ? slr_meta_setf(meta, keys[i], "%lld", (long long)slr_opt_int(o, sides[i]))
                        : slr_meta_set(meta, keys[i], "None"));
    SLR_TRY(set_owned(meta, m, "ss_bucket_info", slr_dataset_bucket_info(f->data, m)));
    SLR_TRY(set_owned(meta, m, "ss_tag_frequency", slr_dataset_tag_frequency(f->data, m)));
    SLR_TRY(set_owned(meta, m, "ss_dataset_dirs", slr_dataset_dirs_json(f->data, m, false)));
    return set_owned(meta, m, "ss_reg_dataset_dirs", slr_dataset_dirs_json(f->data, m, true));
}

/* --- base model and VAE --- */

static int hash_once(slr_meta *hashes, const char *key, const char *path, bool legacy)
{
    char full[65], old[9];
    if (slr_meta_get(hashes, key))
        return SDLORA_OK;
    SLR_TRY(legacy ? slr_hash_legacy(path, old) : slr_hash_file(path, full));
    return slr_meta_set(hashes, key, legacy ? old : full);
}

static int set_model(slr_meta *meta, slr_meta *hashes, const char *path, const char *name_key,
                     const char *old_key, const char *new_key)
{
    SLR_TRY(slr_meta_set(meta, name_key, slr_path_base(path)));
    if (!slr_file_exists(path))
        return SDLORA_OK; /* a folder, or a synthetic model: kohya hashes files only */
    SLR_TRY(hash_once(hashes, old_key, path, true));
    SLR_TRY(hash_once(hashes, new_key, path, false));
    SLR_TRY(slr_meta_set(meta, old_key, slr_meta_get(hashes, old_key)));
    return slr_meta_set(meta, new_key, slr_meta_get(hashes, new_key));
}

static int set_models(slr_meta *meta, slr_meta *hashes, const slr_run_facts *f)
{
    SLR_TRY(set_model(meta, hashes, slr_checkpoint_path(f->base), "ss_sd_model_name",
                      "ss_sd_model_hash", "ss_new_sd_model_hash"));
    if (!f->vae_path)
        return SDLORA_OK;
    return set_model(meta, hashes, f->vae_path, "ss_vae_name", "ss_vae_hash", "ss_new_vae_hash");
}

static bool is_arg(slr_opt o, const char *name)
{
    slr_str rest = slr_str_of(slr_opt_text(o, "network_args")), key, value;
    while (slr_pair_next(&rest, "network_args", &key, &value) > 0)
        if (slr_str_eq(key, name))
            return true;
    return false;
}

/* kohya hands network_dropout on as one more argument, the only one that is no string; not so with
 * dim_from_weights, nor where network_args have one. */
static void add_dropout(slr_buf *b, slr_opt o)
{
    char number[32];
    if (!slr_opt_given(o, "network_dropout") || slr_opt_bool(o, "dim_from_weights") ||
        is_arg(o, "dropout"))
        return;
    slr_real_repr(slr_opt_real(o, "network_dropout"), number);
    slr_buf_printf(b, "%s\"dropout\": %s", b->len ? ", " : "{", number);
}

/* network_args as a JSON object of strings; conv_dim and its kin may have been given as options of
 * their own. */
static int set_network_args(slr_meta *meta, slr_mem *m, const slr_run_facts *f)
{
    static const char *const own[] = {"conv_dim", "conv_alpha", "rank_dropout", "module_dropout"};
    slr_opt o = slr_network_options(f->network);
    slr_buf b;
    slr_buf_init(&b, m);
    slr_str rest = slr_str_of(slr_opt_text(o, "network_args")), key, value;
    while (slr_pair_next(&rest, "network_args", &key, &value) > 0) {
        slr_buf_puts(&b, b.len ? ", " : "{");
        slr_json_quote(&b, key.p, key.n, true);
        slr_buf_puts(&b, ": ");
        slr_json_quote(&b, value.p, value.n, true);
    }
    for (size_t i = 0; i < sizeof own / sizeof *own; i++) {
        char number[32];
        if (!slr_opt_given(o, own[i]) || is_arg(o, own[i]))
            continue;
        double v = slr_network_arg(f->network, own[i], 0);
        slr_real_repr(v, number);
        if (v == floor(v))
            snprintf(number, sizeof number, "%.0f", v);
        slr_buf_printf(&b, "%s\"%s\": \"%s\"", b.len ? ", " : "{", own[i], number);
    }
    add_dropout(&b, o);
    if (b.len)
        slr_buf_puts(&b, "}");
    int rc = slr_buf_ok(&b);
    if (rc >= 0 && b.len)
        rc = slr_meta_set(meta, "ss_network_args", b.data);
    slr_buf_free(&b);
    return rc;
}

static int set_base_version(slr_meta *meta, const slr_run_facts *f)
{
    const slr_family *family = slr_network_family(f->network);
    bool sdxl = family->id == SLR_FAMILY_SDXL; /* has one name, whatever it predicts */
    SLR_TRY(slr_meta_set(meta, "ss_v2", family->id == SLR_FAMILY_SD2 ? "True" : "False"));
    return slr_meta_setf(meta, "ss_base_model_version", "%s%s", family->base_version,
                         f->v_prediction && !sdxl ? "_v" : "");
}

int slr_metadata_fill(slr_meta *meta, slr_mem *m, const slr_run_facts *f, slr_meta *hashes)
{
    bool bare = slr_opt_bool(f->opts, "no_metadata");
    const char *name = slr_opt_text(f->opts, "output_name");
    SLR_TRY(set_base_version(meta, f));
    SLR_TRY(set_rows(meta, f, bare));
    SLR_TRY(set_network_args(meta, m, f));
    if (!bare) {
        SLR_TRY(slr_meta_set(meta, "ss_output_name", name ? name : "last"));
        SLR_TRY(
            slr_meta_set(meta, "ss_sd_scripts_commit_hash", "libsdlora " SDLORA_VERSION_STRING));
        SLR_TRY(set_numbers(meta, f));
        SLR_TRY(set_dataset(meta, m, f));
        SLR_TRY(set_models(meta, hashes, f));
    }
    return slr_metadata_modelspec(meta, f);
}
