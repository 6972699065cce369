/* SPDX-License-Identifier: MIT */
/* Metadata made readable.  Knows the names that kohya's trainer and the model spec give settings
 * and the JSON inside some of them, which may be cut or broken: then it is told as text.  Refuses
 * to trust any of it. */
#include "networks/metaview.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/map.h"
#include "base/status.h"
#include "base/str.h"
#include "io/json.h"
#include "io/safetensors.h"

/* In the order in which people ask. */
static const struct {
    const char *key, *label;
} SETTINGS[] = {
    {"modelspec.title", "Title"},
    {"modelspec.author", "Author"},
    {"modelspec.description", "Description"},
    {"modelspec.license", "License"},
    {"modelspec.trigger_phrase", "Trigger words"},
    {"modelspec.usage_hint", "Usage"},
    {"modelspec.architecture", "Architecture"},
    {"ss_output_name", "Name"},
    {"ss_sd_model_name", "Trained on"},
    {"ss_base_model_version", "Base model"},
    {"ss_vae_name", "VAE"},
    {"ss_network_module", "Network"},
    {"ss_network_dim", "Rank"},
    {"ss_network_alpha", "Alpha"},
    {"ss_network_dropout", "Dropout"},
    {"ss_network_args", "Network settings"},
    {"ss_resolution", "Resolution"},
    {"ss_clip_skip", "Clip skip"},
    {"ss_num_train_images", "Pictures with repeats"},
    {"ss_num_reg_images", "Regularisation pictures"},
    {"ss_num_epochs", "Epochs planned"},
    {"ss_epoch", "Epoch"},
    {"ss_steps", "Steps"},
    {"ss_max_train_steps", "Steps planned"},
    {"ss_total_batch_size", "Batch size"},
    {"ss_batch_size_per_device", "Batch size per device"},
    {"ss_gradient_accumulation_steps", "Gradient accumulation"},
    {"ss_optimizer", "Optimiser"},
    {"ss_learning_rate", "Learning rate"},
    {"ss_unet_lr", "UNet learning rate"},
    {"ss_text_encoder_lr", "Text encoder learning rate"},
    {"ss_lr_scheduler", "Schedule"},
    {"ss_lr_warmup_steps", "Warm-up steps"},
    {"ss_mixed_precision", "Precision"},
    {"ss_seed", "Seed"},
    {"ss_min_snr_gamma", "Min-SNR gamma"},
    {"ss_noise_offset", "Noise offset"},
    {"ss_multires_noise_iterations", "Multires noise"},
    {"ss_prior_loss_weight", "Prior loss weight"},
    {"ss_max_grad_norm", "Gradient clipping"},
    {"ss_scale_weight_norms", "Weight norm limit"},
    {"ss_shuffle_caption", "Captions shuffled"},
    {"ss_keep_tokens", "Tokens kept"},
    {"ss_caption_dropout_rate", "Caption dropout"},
    {"ss_caption_tag_dropout_rate", "Tag dropout"},
    {"ss_flip_aug", "Mirrored"},
    {"ss_color_aug", "Colours varied"},
    {"ss_random_crop", "Random crops"},
    {"ss_enable_bucket", "Buckets"},
    {"ss_min_bucket_reso", "Smallest bucket side"},
    {"ss_max_bucket_reso", "Largest bucket side"},
    {"ss_training_comment", "Comment"},
};

/* Seconds since 1970 as text. */
static const struct {
    const char *key, *label;
} TIMES[] = {
    {"ss_training_started_at", "Started"},
    {"ss_training_finished_at", "Finished"},
};

typedef struct view {
    slr_mem *m;
    const slr_safetensors *f;
    slr_buf b;
    bool comma;
} view;

static void put_pair(view *v, const char *name, const char *value)
{
    slr_buf_puts(&v->b, v->comma ? ",\n    " : "\n    ");
    slr_json_quote(&v->b, name, strlen(name), false);
    slr_buf_puts(&v->b, ": ");
    slr_json_quote(&v->b, value, strlen(value), false);
    v->comma = true;
}

static void put_metadata(view *v)
{
    v->comma = false;
    slr_buf_puts(&v->b, "{\n  \"metadata\": {");
    for (size_t i = 0; i < slr_safetensors_meta_count(v->f); i++) {
        const char *value, *key = slr_safetensors_meta_at(v->f, i, &value);
        put_pair(v, key, value);
    }
    slr_buf_puts(&v->b, "\n  },\n");
}

static void put_time(view *v, const char *label, const char *text)
{
    char date[32];
    double seconds;
    struct tm tm;
    if (!slr_parse_real(text, &seconds) || !(seconds > 0 && seconds < 1e11))
        return;
    time_t t = (time_t)seconds;
    if (gmtime_r(&t, &tm) && strftime(date, sizeof date, "%Y-%m-%d %H:%M UTC", &tm))
        put_pair(v, label, date);
}

static void put_training(view *v)
{
    v->comma = false;
    slr_buf_puts(&v->b, "  \"training\": {");
    for (size_t i = 0; i < sizeof SETTINGS / sizeof *SETTINGS; i++) {
        const char *value = slr_safetensors_meta(v->f, SETTINGS[i].key);
        if (value && *value && strcmp(value, "None") != 0)
            put_pair(v, SETTINGS[i].label, value);
    }
    for (size_t i = 0; i < sizeof TIMES / sizeof *TIMES; i++) {
        const char *value = slr_safetensors_meta(v->f, TIMES[i].key);
        if (value)
            put_time(v, TIMES[i].label, value);
    }
    slr_buf_puts(&v->b, "\n  },\n");
}

/* The JSON inside a value; NULL when there is none that can be read. */
static json_t *inner(const view *v, const char *key)
{
    const char *text = slr_safetensors_meta(v->f, key);
    json_t *root = NULL;
    if (text && slr_json_parse(&root, text, strlen(text), key) < 0) {
        slr_clear();
        root = NULL;
    }
    return root;
}

static void put_folders(view *v)
{
    json_t *root = inner(v, "ss_dataset_dirs"), *dir;
    const char *name;
    bool comma = false;
    slr_buf_puts(&v->b, "  \"folders\": [");
    json_object_foreach(root, name, dir)
    {
        slr_buf_puts(&v->b, comma ? ",\n    {\"name\": " : "\n    {\"name\": ");
        slr_json_quote(&v->b, name, strlen(name), false);
        slr_buf_printf(&v->b, ", \"repeats\": %lld, \"pictures\": %lld}",
                       (long long)json_integer_value(json_object_get(dir, "n_repeats")),
                       (long long)json_integer_value(json_object_get(dir, "img_count")));
        comma = true;
    }
    slr_buf_puts(&v->b, comma ? "\n  ],\n" : "],\n");
    json_decref(root);
}

/* ---- tags ---- */

typedef struct tag {
    const char *name; /* in the map */
    int64_t count;
} tag;

static int by_count(const void *a, const void *b)
{
    const tag *x = a, *y = b;
    if (x->count != y->count)
        return x->count < y->count ? 1 : -1;
    return strcmp(x->name, y->name);
}

static int count_tags(slr_map *map, json_t *root)
{
    const char *folder, *name;
    json_t *tags, *count;
    json_object_foreach(root, folder, tags)
    {
        json_object_foreach(tags, name, count)
        {
            int64_t n = 0, more = json_integer_value(count);
            slr_map_get(map, name, &n);
            if (more < 0 || __builtin_add_overflow(n, more, &n))
                continue;
            SLR_TRY(slr_map_set(map, name, n));
        }
    }
    return SDLORA_OK;
}

static int put_tags(view *v)
{
    json_t *root = inner(v, "ss_tag_frequency");
    slr_map *map = NULL;
    tag *tags = NULL;
    int rc = slr_map_new(&map, v->m);
    if (rc == SDLORA_OK)
        rc = count_tags(map, root);
    json_decref(root);
    size_t n = rc == SDLORA_OK ? slr_map_count(map) : 0;
    if (rc == SDLORA_OK && !(tags = slr_calloc(v->m, n + 1, sizeof *tags)))
        rc = SDLORA_ENOMEM;
    slr_buf_puts(&v->b, "  \"tags\": [");
    for (size_t i = 0; i < n && rc == SDLORA_OK; i++)
        tags[i].name = slr_map_at(map, i, &tags[i].count);
    if (rc == SDLORA_OK && n)
        qsort(tags, n, sizeof *tags, by_count);
    for (size_t i = 0; i < n && rc == SDLORA_OK; i++) {
        slr_buf_puts(&v->b, i ? ",\n    {\"tag\": " : "\n    {\"tag\": ");
        slr_json_quote(&v->b, tags[i].name, strlen(tags[i].name), false);
        slr_buf_printf(&v->b, ", \"count\": %lld}", (long long)tags[i].count);
    }
    slr_buf_puts(&v->b, n ? "\n  ]\n}\n" : "]\n}\n");
    slr_free(v->m, tags);
    slr_map_free(map);
    return rc;
}

static int whole(char **text, view *v)
{
    put_metadata(v);
    put_training(v);
    put_folders(v);
    SLR_TRY(put_tags(v));
    SLR_TRY(slr_buf_ok(&v->b));
    *text = slr_buf_take(&v->b);
    return *text ? SDLORA_OK : SDLORA_ENOMEM;
}

int slr_metadata_text(char **text, slr_mem *m, const char *path, const char *key)
{
    slr_safetensors *f;
    *text = NULL;
    SLR_TRY(slr_safetensors_open(&f, m, path, false));
    view v = {.m = m, .f = f};
    int rc = SDLORA_OK;
    slr_buf_init(&v.b, m);
    if (!key) {
        rc = whole(text, &v);
    } else {
        const char *value = slr_safetensors_meta(f, key);
        if (!value)
            rc = slr_fail(SDLORA_ENOTFOUND, __func__, "%s has no metadata \"%s\"", path, key);
        else if (!(*text = slr_strdup(m, value)))
            rc = SDLORA_ENOMEM;
    }
    slr_buf_free(&v.b);
    slr_safetensors_close(f);
    return rc;
}
