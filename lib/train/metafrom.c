/* SPDX-License-Identifier: MIT */
/* Reads what kohya's and LyCORIS' trainers write about a run back into options: the rows of
 * metadata.c the other way round, and some keys that are more than one value.  Values of other
 * people's files may be anything, so each is tried on a set of its own first.  Refuses to know what
 * an option does. */
#include "train/metafrom.h"

#include <stdio.h>
#include <string.h>

#include "base/status.h"
#include "base/str.h"
#include "io/json.h"
#include "io/safetensors.h"
#include "train/metadata.h"

typedef struct taking {
    sdlora_options *o;
    slr_opt is; /* the same, to be read */
    slr_mem *m;
    slr_buf notes;
} taking;

/* Text from a file, for a line of notes: controls become '?', and it is not long. */
static void put_clean(slr_buf *b, const char *text, size_t n)
{
    enum { SHOWN = 120 };
    size_t shown = slr_utf8_valid(text, n < SHOWN ? n : SHOWN);
    for (size_t i = 0; i < shown; i++)
        slr_buf_putc(b, (unsigned char)text[i] < 0x20 || text[i] == 0x7f ? '?' : text[i]);
    if (shown < n)
        slr_buf_puts(b, "...");
}

static void note(taking *t, const char *key, const char *value, const char *why)
{
    slr_buf_puts(&t->notes, key);
    slr_buf_puts(&t->notes, " = ");
    put_clean(&t->notes, value, strlen(value));
    slr_buf_printf(&t->notes, ": %s\n", why);
}

/* Python's spelling of nothing. */
static bool nothing(const char *value)
{
    return !*value || !strcmp(value, "None") || !strcmp(value, "null");
}

static int try_value(const taking *t, const char *option, const char *value)
{
    sdlora_options *probe;
    SLR_TRY(slr_options_new(&probe, t->m, t->is.kind));
    int rc = slr_options_set_text(probe, option, value);
    if (rc >= 0)
        rc = slr_opt_check_supported((slr_opt){probe, t->is.kind});
    slr_options_unref(probe);
    return rc;
}

static int take(taking *t, const char *key, const char *option, const char *value)
{
    if (nothing(value) || slr_opt_given(t->is, option))
        return SDLORA_OK;
    const char *text = !strcmp(value, "True") ? "true" : !strcmp(value, "False") ? "false" : value;
    int rc = try_value(t, option, text);
    if (rc >= 0)
        return slr_options_set_text(t->o, option, text);
    if (rc == SDLORA_ENOMEM)
        return rc;
    note(t, key, value, sdlora_last_error()->message);
    slr_clear();
    return SDLORA_OK;
}

/* --- keys that are more than one value --- */

/* "[5e-05, 4e-05]": of each text encoder, one a line. */
static int take_rates(taking *t, const char *key, const char *option, const char *value)
{
    char text[64];
    size_t n = 0;
    for (const char *p = value; *p && n + 1 < sizeof text; p++)
        if (!strchr("[] ", *p))
            text[n++] = *p == ',' ? '\n' : *p;
    text[n] = '\0';
    slr_str rest = slr_str_of(text), one;
    while (!nothing(text) && slr_str_next(&rest, '\n', &one)) {
        double rate;
        char number[64];
        snprintf(number, sizeof number, "%.*s", (int)one.n, one.p);
        if (slr_parse_real(number, &rate))
            continue;
        note(t, key, value, "not a number");
        return SDLORA_OK;
    }
    return take(t, key, option, text);
}

/* "(512, 768)" */
static int take_size(taking *t, const char *key, const char *option, const char *value)
{
    char text[64];
    size_t n = 0;
    for (const char *p = value; *p && n + 1 < sizeof text; p++)
        if (!strchr("() ", *p))
            text[n++] = *p;
    text[n] = '\0';
    return take(t, key, option, text);
}

/* sd_v1_v, sd_v2_v */
static int take_prediction(taking *t, const char *key, const char *option, const char *value)
{
    return slr_ends(value, "_v") ? take(t, key, option, "true") : SDLORA_OK;
}

/* "torch.optim.adamw.AdamW(weight_decay=0.1,betas=(0.9, 0.99))" */
static int take_optimizer(taking *t, const char *key, const char *option, const char *value)
{
    size_t n = strcspn(value, "("), depth = 0;
    const char *name = value + n;
    while (name > value && name[-1] != '.')
        name--;
    size_t length = (size_t)(value + n - name);
    if (length != 5 || memcmp(name, "AdamW", 5)) {
        note(t, key, value, "there is AdamW only");
        return SDLORA_OK;
    }
    SLR_TRY(take(t, key, option, "AdamW"));
    slr_buf args;
    slr_buf_init(&args, t->m);
    for (const char *p = value + n + (value[n] == '('); *p && !(*p == ')' && !depth); p++) {
        depth += *p == '(';
        depth -= *p == ')';
        if (*p == ',' && !depth)
            slr_buf_putc(&args, '\n');
        else if (*p != ' ')
            slr_buf_putc(&args, *p);
    }
    int rc = slr_buf_ok(&args);
    if (rc >= 0 && args.len)
        rc = take(t, key, "optimizer_args", args.data);
    slr_buf_free(&args);
    return rc;
}

/* A value that fails to parse is noted. */
static int parse(taking *t, const char *key, const char *value, json_t **out)
{
    int rc = slr_json_parse(out, value, strlen(value), key);
    if (rc < 0 && rc != SDLORA_ENOMEM) {
        note(t, key, value, sdlora_last_error()->message);
        slr_clear();
        return SDLORA_OK;
    }
    return rc;
}

/* An object of strings.  The one number in it is kohya's network_dropout, which has its own key. */
static int take_args(taking *t, const char *key, const char *option, const char *value)
{
    json_t *j, *item;
    const char *name;
    slr_buf args;
    SLR_TRY(parse(t, key, value, &j));
    slr_buf_init(&args, t->m);
    json_object_foreach(j, name, item)
    {
        const char *text = json_string_value(item);
        if (text && !strpbrk(name, "=\n") && !strchr(text, '\n'))
            slr_buf_printf(&args, "%s%s=%s", args.len ? "\n" : "", name, text);
    }
    int rc = slr_buf_ok(&args);
    if (rc >= 0 && args.len)
        rc = take(t, key, option, args.data);
    slr_buf_free(&args);
    json_decref(j);
    return rc;
}

static size_t put_integer(char *text, size_t cap, const json_t *j)
{
    return (size_t)snprintf(text, cap, "%lld", (long long)json_integer_value(j));
}

/* A number, text or switch of a JSON tree as Python would print it. */
static int take_json(taking *t, const char *key, const char *option, const json_t *j)
{
    char text[96];
    if (json_is_string(j))
        return take(t, key, option, json_string_value(j));
    if (json_is_boolean(j))
        return take(t, key, option, json_is_true(j) ? "true" : "false");
    if (json_is_integer(j)) {
        put_integer(text, sizeof text, j);
        return take(t, key, option, text);
    }
    if (json_is_real(j)) {
        slr_real_repr(json_number_value(j), text);
        return take(t, key, option, text);
    }
    if (json_array_size(j) != 2) /* null, or nothing that an option takes */
        return SDLORA_OK;
    size_t n = put_integer(text, sizeof text, json_array_get(j, 0));
    text[n++] = ',';
    put_integer(text + n, sizeof text - n, json_array_get(j, 1));
    return take(t, key, option, text);
}

/* ss_datasets of runs with a dataset TOML: the first data set and its first folder. */
static int take_datasets(taking *t, const char *key, const char *option, const char *value)
{
    static const struct {
        const char *key, *option;
        bool folder; /* of a subset */
    } fields[] = {{"batch_size_per_device", "train_batch_size", false},
                  {"resolution", "resolution", false},
                  {"enable_bucket", "enable_bucket", false},
                  {"min_bucket_reso", "min_bucket_reso", false},
                  {"max_bucket_reso", "max_bucket_reso", false},
                  {"color_aug", "color_aug", true},
                  {"flip_aug", "flip_aug", true},
                  {"random_crop", "random_crop", true},
                  {"shuffle_caption", "shuffle_caption", true},
                  {"keep_tokens", "keep_tokens", true},
                  {"keep_tokens_separator", "keep_tokens_separator", true},
                  {"secondary_separator", "secondary_separator", true},
                  {"enable_wildcard", "enable_wildcard", true},
                  {"caption_prefix", "caption_prefix", true},
                  {"caption_suffix", "caption_suffix", true}};
    json_t *j;
    (void)option;
    SLR_TRY(parse(t, key, value, &j));
    json_t *set = json_array_get(j, 0), *folders = json_object_get(set, "subsets");
    int rc = SDLORA_OK;
    for (size_t i = 0; rc >= 0 && i < sizeof fields / sizeof *fields; i++) {
        json_t *from = fields[i].folder ? json_array_get(folders, 0) : set;
        rc = take_json(t, key, fields[i].option, json_object_get(from, fields[i].key));
    }
    if (json_array_size(j) > 1 || json_array_size(folders) > 1)
        note(t, key, "several data sets or folders", "the settings of the first are taken");
    json_decref(j);
    return rc;
}

static const struct {
    const char *key, *kind, *option;
    int (*take)(taking *t, const char *key, const char *option, const char *value);
} special[] = {
    {"ss_text_encoder_lr", "train", "text_encoder_lr", take_rates},
    {"ss_optimizer", "train", "optimizer_type", take_optimizer},
    {"ss_seed", "train", "seed", take},
    {"ss_max_train_steps", "train", "max_train_steps", take},
    {"ss_base_model_version", "train", "v_parameterization", take_prediction},
    {"ss_network_args", "network", "network_args", take_args},
    {"ss_token_string", "network", "token_string", take},
    {"ss_init_word", "network", "init_word", take},
    {"ss_num_vectors_per_token", "network", "num_vectors_per_token", take},
    {"ss_resolution", "dataset", "resolution", take_size},
    {"ss_min_bucket_reso", "dataset", "min_bucket_reso", take},
    {"ss_max_bucket_reso", "dataset", "max_bucket_reso", take},
    {"ss_datasets", "dataset", NULL, take_datasets},
};

/* What a run was, and no setting of the next. */
static const char *const facts[] = {
    "ss_bucket_info",
    "ss_dataset_dirs",
    "ss_epoch",
    "ss_new_sd_model_hash",
    "ss_new_vae_hash",
    "ss_num_batches_per_epoch",
    "ss_num_epochs",
    "ss_num_reg_images",
    "ss_num_train_images",
    "ss_num_validation_images",
    "ss_output_name",
    "ss_reg_dataset_dirs",
    "ss_sd_model_hash",
    "ss_sd_model_name",
    "ss_sd_scripts_commit_hash",
    "ss_session_id",
    "ss_steps",
    "ss_tag_frequency",
    "ss_total_batch_size",
    "ss_train_inpainting",
    "ss_training_comment",
    "ss_training_finished_at",
    "ss_training_started_at",
    "ss_v2",
    "ss_vae_hash",
    "ss_vae_name",
};

static bool is_fact(const char *key)
{
    for (size_t i = 0; i < sizeof facts / sizeof *facts; i++)
        if (!strcmp(facts[i], key))
            return true;
    return false;
}

/* --- all keys --- */

static int take_key(taking *t, const char *key, const char *value)
{
    const char *row, *kind, *option;
    for (size_t i = 0; i < sizeof special / sizeof *special; i++)
        if (!strcmp(special[i].key, key))
            return strcmp(special[i].kind, t->is.kind)
                       ? SDLORA_OK
                       : special[i].take(t, key, special[i].option, value);
    if (is_fact(key))
        return SDLORA_OK;
    for (size_t i = 0; slr_metadata_row(i, &row, &kind, &option); i++)
        if (!strcmp(row, key))
            return strcmp(kind, t->is.kind) ? SDLORA_OK : take(t, key, option, value);
    if (slr_starts(key, "ss_") && !strcmp(t->is.kind, "train"))
        note(t, key, value, "not a setting that is known here");
    return SDLORA_OK;
}

int slr_options_from_metadata(sdlora_options *o, slr_mem *m, const char *path, char **notes)
{
    slr_safetensors *f;
    taking t = {.o = o, .is = {o, slr_options_kind(o)}, .m = m};
    if (notes)
        *notes = NULL;
    if (strcmp(t.is.kind, "train") && strcmp(t.is.kind, "network") && strcmp(t.is.kind, "dataset"))
        return slr_fail(SDLORA_EINVAL, __func__,
                        "metadata tell of train, network and dataset options, not of %s",
                        t.is.kind);
    SLR_TRY(slr_safetensors_open(&f, m, path, true));
    slr_buf_init(&t.notes, m);
    bool any = false;
    int rc = SDLORA_OK;
    for (size_t i = 0; rc >= 0 && i < slr_safetensors_meta_count(f); i++) {
        const char *value, *key = slr_safetensors_meta_at(f, i, &value);
        any |= slr_starts(key, "ss_");
        rc = take_key(&t, key, value);
    }
    slr_safetensors_close(f);
    if (rc >= 0 && !any)
        rc = slr_fail(SDLORA_ENOTFOUND, __func__, "%s does not tell how it was trained", path);
    if (rc >= 0)
        slr_buf_putc(&t.notes, '\0'); /* a text even when there is no line */
    if (rc >= 0)
        rc = slr_buf_ok(&t.notes);
    if (rc >= 0 && notes)
        *notes = slr_buf_take(&t.notes);
    slr_buf_free(&t.notes);
    return rc;
}
