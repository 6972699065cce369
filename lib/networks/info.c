/* SPDX-License-Identifier: MIT */
/* A look at any model file.  Names and shapes decide what it is; weights are not read but for the
 * alphas of networks, so that a file of gigabytes takes milliseconds.  Knows the name patterns of
 * embeddings and model parts; what a network's names tell, netlook.c knows. */
#include "networks/info.h"

#include <stdio.h>
#include <string.h>

#include "base/status.h"
#include "base/str.h"
#include "io/file.h"
#include "io/hash.h"
#include "io/json.h"
#include "io/safetensors.h"
#include "io/torchfile.h"
#include "models/checkpoint.h"
#include "networks/hypernet.h"
#include "networks/netlook.h"

enum { MAX_ROWS = 48, MAX_TRIGGERS = 8 };

/* Counts by a short text: ranks, types, parts. */
typedef struct tally {
    struct {
        char what[40];
        int64_t n, params;
    } row[MAX_ROWS];
    size_t n;
} tally;

typedef struct looking {
    slr_mem *m;
    slr_log log;
    const char *path;
    slr_safetensors *st;
    slr_torchfile *torch;
    slr_checkpoint *model; /* of folders and files with a UNet */
    slr_netlook *network;
    tally dtypes;
    int64_t tensors, params;
    const char *kind, *family; /* NULL: not known */
    bool unet, vae, te, embedding;
    int64_t hyper; /* the widest MLP of a hypernetwork; 0: it is none */
} looking;

static void count(tally *t, const char *what, int64_t params)
{
    size_t i = 0, n = strlen(what);

    while (i < t->n && strcmp(t->row[i].what, what) != 0)
        i++;
    if (i == MAX_ROWS || n >= sizeof t->row[i].what)
        return; /* more kinds than anyone reads */
    if (i == t->n)
        memcpy(t->row[t->n++].what, what, n + 1);
    t->row[i].n++;
    t->row[i].params += params;
}

/* --- names --- */

static const struct {
    const char *prefix;
    size_t flag; /* offset of a bool in looking */
} marks[] = {
    {"model.diffusion_model.", offsetof(looking, unet)},
    {"input_blocks.", offsetof(looking, unet)},
    {"down_blocks.", offsetof(looking, unet)},
    {"first_stage_model.", offsetof(looking, vae)},
    {"decoder.conv_in.", offsetof(looking, vae)},
    {"cond_stage_model.", offsetof(looking, te)},
    {"conditioner.", offsetof(looking, te)},
    {"text_model.", offsetof(looking, te)},
    {"emb_params", offsetof(looking, embedding)},
    {"string_to_param", offsetof(looking, embedding)},
    {"clip_l", offsetof(looking, embedding)},
    {"clip_g", offsetof(looking, embedding)},
};

static int see_tensor(looking *l, const char *name, const slr_tensor *t, const char *type)
{
    int64_t n = slr_tensor_count(t);

    l->tensors++;
    l->params += n;
    count(&l->dtypes, type, n);
    for (size_t i = 0; i < sizeof marks / sizeof *marks; i++)
        if (slr_starts(name, marks[i].prefix))
            *((bool *)((char *)l + marks[i].flag)) = true;
    if (l->torch && slr_hyper_key_width(name) > l->hyper)
        l->hyper = slr_hyper_key_width(name);
    return slr_netlook_tensor(l->network, name, t);
}

static int see_weights(looking *l)
{
    for (int part = 0; part < SLR_PART_COUNT; part++) {
        slr_weights *w = slr_checkpoint_part(l->model, part);

        for (size_t i = 0; w && i < slr_weights_count(w); i++) {
            const slr_tensor *t;
            const char *name = slr_weights_at(w, i, &t);

            SLR_TRY(see_tensor(l, name, t, slr_dtype(t->dtype)->st_tag));
        }
    }
    return SDLORA_OK;
}

static int see_all(looking *l)
{
    slr_tensor t;

    for (size_t i = 0; l->st && i < slr_safetensors_count(l->st); i++) {
        const char *name = slr_safetensors_at(l->st, i, &t);

        SLR_TRY(see_tensor(l, name, &t, slr_safetensors_tag(l->st, i)));
    }
    for (size_t i = 0; l->torch && i < slr_torchfile_count(l->torch); i++) {
        const char *name = slr_torchfile_at(l->torch, i, &t);
        const slr_dtype_row *row = slr_dtype(t.dtype);

        SLR_TRY(see_tensor(l, name, &t, row ? row->st_tag : "other"));
    }
    return SDLORA_OK;
}

/* --- what it is --- */

static const char *meta(const looking *l, const char *key)
{
    return l->st ? slr_safetensors_meta(l->st, key) : NULL;
}

/* Metadata first, then structure. */
static const char *network_family(const looking *l)
{
    static const struct {
        const char *key, *prefix, *family;
    } rows[] = {
        {"ss_base_model_version", "sdxl_refiner", "sdxl-refiner"},
        {"ss_base_model_version", "sdxl_", "sdxl"},
        {"ss_base_model_version", "sd_v2", "sd2"},
        {"ss_base_model_version", "sd_v1", "sd1"},
        {"modelspec.architecture", "stable-diffusion-xl-v1-refiner", "sdxl-refiner"},
        {"modelspec.architecture", "stable-diffusion-xl", "sdxl"},
        {"modelspec.architecture", "stable-diffusion-v2", "sd2"},
        {"modelspec.architecture", "stable-diffusion-v1", "sd1"},
        {"ss_v2", "True", "sd2"},
    };

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const char *value = meta(l, rows[i].key);

        if (value && slr_starts(value, rows[i].prefix))
            return rows[i].family;
    }
    return slr_netlook_family(l->network);
}

static int open_model(looking *l)
{
    slr_checkpoint_config config = {.mem = l->m, .log = l->log, .predict = -1};
    int rc = slr_checkpoint_open(&l->model, l->path, &config);

    if (rc < 0 && rc != SDLORA_ENOMEM) {
        l->model = NULL; /* foreign, or no model at all: what the names say stands */
        slr_clear();
        rc = SDLORA_OK;
    }
    return rc;
}

static int classify(looking *l)
{
    bool network = slr_netlook_modules(l->network) > 0;
    bool embedding = l->embedding && l->tensors <= 4;

    /* names with a prefix of someone's own are still a model if it opens as one */
    if (!network && !embedding && !l->hyper && !l->model && (l->unet || (!l->vae && !l->te)))
        SLR_TRY(open_model(l));
    if (l->model && slr_checkpoint_part(l->model, SLR_PART_UNET))
        l->unet = true;
    l->kind = network     ? "lora"
              : l->hyper  ? "hypernetwork"
              : l->unet   ? "checkpoint"
              : embedding ? "embedding"
              : l->vae    ? "vae"
              : l->te     ? "text encoder"
                          : "unknown";
    l->family = network    ? network_family(l)
                : l->model ? slr_checkpoint_family(l->model)->name
                           : NULL;
    return SDLORA_OK;
}

static int open_it(looking *l)
{
    slr_checkpoint_config config = {.mem = l->m, .log = l->log, .predict = -1};
    unsigned char first[16];
    uint64_t size;

    if (slr_dir_exists(l->path)) {
        SLR_TRY(slr_checkpoint_open(&l->model, l->path, &config));
        l->unet = slr_checkpoint_part(l->model, SLR_PART_UNET) != NULL;
        return see_weights(l);
    }
    SLR_TRY(slr_file_size(l->path, &size));
    if (size >= sizeof first)
        SLR_TRY(slr_file_read_at(l->path, 0, first, sizeof first));
    if (size >= sizeof first && slr_torchfile_is(first, sizeof first))
        SLR_TRY(slr_torchfile_open(&l->torch, l->m, l->path));
    else
        SLR_TRY(slr_safetensors_open(&l->st, l->m, l->path, true));
    return see_all(l);
}

/* --- trigger words --- */

typedef struct trigger {
    const char *word;
    int64_t n;
} trigger;

static void offer(trigger *top, size_t *n, const char *word, int64_t times)
{
    size_t at = *n;

    for (size_t i = 0; i < *n; i++)
        if (!strcmp(top[i].word, word)) {
            top[i].n += times;
            return;
        }
    while (at > 0 && top[at - 1].n < times)
        at--;
    if (at == MAX_TRIGGERS)
        return;
    if (*n < MAX_TRIGGERS)
        ++*n;
    memmove(top + at + 1, top + at, (*n - at - 1) * sizeof *top);
    top[at] = (trigger){word, times};
}

/* Pictures of a folder as ss_dataset_dirs tells it; 0: it does not. */
static int64_t pictures_of(const json_t *dirs, const char *dir)
{
    return json_integer_value(json_object_get(json_object_get(dirs, dir), "img_count"));
}

/* Tags that nine of ten pictures of a folder have; the most frequent one where the count of
 * pictures is not known. */
static void from_folder(json_t *tags, int64_t pictures, trigger *top, size_t *n)
{
    const char *tag, *best = NULL;
    json_t *times;
    int64_t most = 0;

    json_object_foreach(tags, tag, times)
    {
        int64_t k = json_integer_value(times);

        if (k > most) {
            most = k;
            best = tag;
        }
        if (pictures > 0 && k * 10 >= pictures * 9)
            offer(top, n, tag, k);
    }
    if (!pictures && best)
        offer(top, n, best, most);
}

/* Texts that are no JSON name no words. */
static int parse_lenient(json_t **out, const char *text, const char *label)
{
    int rc = text ? slr_json_parse(out, text, strlen(text), label) : SDLORA_OK;

    if (rc < 0 && rc != SDLORA_ENOMEM) {
        slr_clear();
        rc = SDLORA_OK;
    }
    return rc;
}

static int put_triggers(looking *l, slr_buf *b)
{
    const char *phrase = meta(l, "modelspec.trigger_phrase"), *dir;
    const char *frequency = meta(l, "ss_tag_frequency"), *folders = meta(l, "ss_dataset_dirs");
    json_t *all = NULL, *dirs = NULL, *tags;
    trigger top[MAX_TRIGGERS];
    size_t n = 0;

    SLR_TRY(slr_buf_ok(b)); /* whose sentence would be cleared */
    SLR_TRY(parse_lenient(&all, frequency, "ss_tag_frequency"));
    int rc = parse_lenient(&dirs, folders, "ss_dataset_dirs");
    if (rc < 0) {
        json_decref(all);
        return rc;
    }
    if (phrase && *phrase)
        offer(top, &n, phrase, INT64_MAX / 2);
    json_object_foreach(all, dir, tags) from_folder(tags, pictures_of(dirs, dir), top, &n);
    slr_buf_puts(b, ",\n    \"trigger_words\": [");
    for (size_t i = 0; i < n; i++) {
        slr_buf_puts(b, i ? ", " : "");
        slr_json_quote(b, top[i].word, strlen(top[i].word), false);
    }
    slr_buf_puts(b, "]");
    json_decref(all);
    json_decref(dirs);
    return slr_buf_ok(b);
}

/* --- the text --- */

static void put_text(slr_buf *b, const char *key, const char *value)
{
    slr_buf_printf(b, "  \"%s\": ", key);
    if (value)
        slr_json_quote(b, value, strlen(value), false);
    else
        slr_buf_puts(b, "null");
    slr_buf_puts(b, ",\n");
}

static int put_network(looking *l, slr_buf *b)
{
    slr_buf_puts(b, "  \"network\": {\n");
    slr_netlook_put(l->network, b);
    SLR_TRY(put_triggers(l, b));
    slr_buf_puts(b, "\n  },\n");
    return SDLORA_OK;
}

static void put_dtypes(slr_buf *b, const tally *t)
{
    slr_buf_puts(b, "  \"dtypes\": {");
    for (size_t i = 0; i < t->n; i++)
        slr_buf_printf(b, "%s\"%s\": {\"tensors\": %lld, \"parameters\": %lld}", i ? ", " : "",
                       t->row[i].what, (long long)t->row[i].n, (long long)t->row[i].params);
    slr_buf_puts(b, "},\n");
}

static int put_hashes(const looking *l, slr_buf *b)
{
    slr_hashes h;

    SLR_TRY(slr_hash_all(&h, l->m, l->path, false, NULL, NULL));
    slr_buf_printf(b,
                   "  \"hashes\": {\n    \"sha256\": \"%s\",\n    \"autov2\": \"%.10s\",\n"
                   "    \"legacy\": \"%s\"",
                   h.sha256, h.sha256, h.legacy);
    if (*h.tensors)
        slr_buf_printf(b, ",\n    \"tensors\": \"%s\",\n    \"addnet\": \"%.12s\"", h.tensors,
                       h.tensors);
    slr_buf_puts(b, "\n  },\n");
    return SDLORA_OK;
}

/* What a hypernetwork or an embedding says beside its tensors, spelled as Python does. */
static void put_values(const looking *l, slr_buf *b)
{
    for (size_t i = 0, n = 0; i < slr_torchfile_values(l->torch); i++) {
        const slr_torch_value *v = slr_torchfile_value_at(l->torch, i);
        char number[32];
        const char *text = v->text;

        if (v->type == SLR_TORCH_NONE)
            continue;
        if (v->type == SLR_TORCH_BOOL)
            text = v->i ? "True" : "False";
        else if (v->type == SLR_TORCH_INT)
            snprintf(number, sizeof number, "%lld", (long long)v->i);
        else if (v->type == SLR_TORCH_REAL)
            slr_real_repr(v->f, number);
        if (!text)
            text = number;
        slr_buf_puts(b, n++ ? ",\n    " : "\n    ");
        slr_json_quote(b, v->name, strlen(v->name), false);
        slr_buf_puts(b, ": ");
        slr_json_quote(b, text, strlen(text), false);
    }
}

static void put_metadata(const looking *l, slr_buf *b)
{
    slr_buf_puts(b, "  \"metadata\": {");
    if (l->torch && (l->hyper || l->embedding))
        put_values(l, b);
    for (size_t i = 0; l->st && i < slr_safetensors_meta_count(l->st); i++) {
        const char *value, *key = slr_safetensors_meta_at(l->st, i, &value);

        slr_buf_puts(b, i ? ",\n    " : "\n    ");
        slr_json_quote(b, key, strlen(key), false);
        slr_buf_puts(b, ": ");
        slr_json_quote(b, value, strlen(value), false);
    }
    slr_buf_puts(b, "\n  }\n}\n");
}

/* How it was trained; a look at names runs no UNet to find out. */
static void put_model(const slr_checkpoint *model, slr_buf *b)
{
    const char *source = slr_checkpoint_predict_source(model);
    bool v = source && slr_checkpoint_predict(model) == SLR_PREDICT_V;

    put_text(b, "prediction", !source ? "unknown" : v ? "v" : "epsilon");
    if (source)
        put_text(b, "prediction_from", source);
    if (slr_checkpoint_ztsnr(model))
        slr_buf_puts(b, "  \"zero_terminal_snr\": true,\n");
    if (slr_checkpoint_inpaint(model))
        slr_buf_puts(b, "  \"inpainting\": true,\n");
    if (slr_checkpoint_edit(model))
        slr_buf_puts(b, "  \"editing\": true,\n");
}

static int put_all(looking *l, slr_buf *b, bool hashes)
{
    uint64_t bytes = 0;
    bool folder = !l->st && !l->torch;

    if (!folder)
        SLR_TRY(slr_file_size(l->path, &bytes));
    slr_buf_puts(b, "{\n");
    put_text(b, "path", l->path);
    put_text(b, "container", l->st ? "safetensors" : l->torch ? "torch" : "folder");
    if (!folder)
        slr_buf_printf(b, "  \"bytes\": %llu,\n", (unsigned long long)bytes);
    put_text(b, "kind", l->kind);
    put_text(b, "family", l->family);
    if (l->model) {
        put_text(b, "layout", slr_checkpoint_layout(l->model));
        put_model(l->model, b);
    }
    slr_buf_printf(b, "  \"tensors\": %lld,\n  \"parameters\": %lld,\n", (long long)l->tensors,
                   (long long)l->params);
    put_dtypes(b, &l->dtypes);
    if (slr_netlook_modules(l->network))
        SLR_TRY(put_network(l, b));
    if (hashes && !folder)
        SLR_TRY(put_hashes(l, b));
    put_metadata(l, b);
    return slr_buf_ok(b);
}

int slr_file_info(char **json, slr_mem *m, slr_log log, const char *path, bool hashes)
{
    looking *l = slr_calloc(m, 1, sizeof *l);
    slr_buf b;
    int rc;

    *json = NULL;
    if (!l)
        return SDLORA_ENOMEM;
    *l = (looking){.m = m, .log = log, .path = path};
    slr_buf_init(&b, m);
    rc = slr_netlook_new(&l->network, m);
    if (rc >= 0)
        rc = open_it(l);
    if (rc >= 0)
        rc = classify(l);
    if (rc >= 0)
        rc = put_all(l, &b, hashes);
    slr_checkpoint_unref(l->model);
    slr_safetensors_close(l->st);
    slr_torchfile_close(l->torch);
    slr_netlook_free(l->network);
    slr_free(m, l);
    if (rc >= 0 && !(*json = slr_buf_take(&b)))
        rc = SDLORA_ENOMEM;
    slr_buf_free(&b);
    return rc;
}
