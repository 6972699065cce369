/* SPDX-License-Identifier: MIT */
/* Saves and loads a run.  All random numbers are addressed by (seed, counter), so the state is the
 * parameters, the moments, a cursor and the settings that must not change in between. */
#include "train/state.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/status.h"
#include "base/str.h"
#include "io/file.h"
#include "io/safetensors.h"
#include "networks/netfile.h"

#define STATE_VERSION 1

/* Options that may change between the parts of a run: where and how often files are written, and
 * how long it goes on (the schedule is then computed for the new length). */
static const char *const free_options[] = {
    "output_dir",
    "output_name",
    "resume",
    "logging_dir",
    "log_prefix",
    "sample_prompts",
    "sample_every_n_steps",
    "sample_at_first",
    "sample_sampler",
    "sample_every_n_epochs",
    "max_train_steps",
    "max_train_epochs",
    "training_comment",
    "no_metadata",
    "validate_every_n_epochs",
    "validation_data_dir",
    "validate_every_n_steps",
    "max_validation_steps",
};

static bool is_free(const char *name)
{
    if (slr_starts(name, "save_") || slr_starts(name, "metadata_"))
        return true;
    for (size_t i = 0; i < sizeof free_options / sizeof *free_options; i++)
        if (!strcmp(free_options[i], name))
            return true;
    return false;
}

static const char *const compared_kinds[] = {"train", "network"};

static slr_opt options_of(const slr_state_parts *p, const char *kind)
{
    return strcmp(kind, "train") ? slr_network_options(p->network) : p->opts;
}

/* Calls fn for each option that must stay, with "none" for one that is not set. */
typedef int (*option_fn)(void *user, const char *key, const slr_option_row *row, const char *value);
static int each_option(const slr_state_parts *p, option_fn fn, void *user)
{
    size_t n;
    const slr_option_row *row = slr_option_rows(&n);
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < sizeof compared_kinds / sizeof *compared_kinds; k++) {
            char key[96];
            slr_opt o = options_of(p, compared_kinds[k]);
            if (strcmp(row[i].kind, compared_kinds[k]) || is_free(row[i].name))
                continue;
            const char *value = slr_opt_text(o, row[i].name);
            snprintf(key, sizeof key, "opt.%s.%s", row[i].kind, row[i].name);
            SLR_TRY(fn(user, key, &row[i], value ? value : "none"));
        }
    return SDLORA_OK;
}

static int put_option(void *user, const char *key, const slr_option_row *row, const char *value)
{
    return slr_meta_set(user, key, value);
}

static int put_facts(slr_meta *meta, const slr_state_parts *p, const slr_run_state *s)
{
    char real[32];
    SLR_TRY(slr_meta_setf(meta, "sdlora.state", "%d", STATE_VERSION));
    SLR_TRY(slr_meta_setf(meta, "step", "%lld", (long long)s->step));
    SLR_TRY(slr_meta_setf(meta, "epoch", "%lld", (long long)s->epoch));
    SLR_TRY(slr_meta_setf(meta, "index", "%lld", (long long)s->index));
    SLR_TRY(slr_meta_setf(meta, "n_losses", "%lld", (long long)s->n_losses));
    SLR_TRY(slr_meta_setf(meta, "session", "%lld", (long long)s->session));
    SLR_TRY(slr_meta_setf(meta, "fingerprint", "%016llx",
                          (unsigned long long)slr_dataset_fingerprint(p->data, p->masks)));
    SLR_TRY(slr_meta_setf(meta, "model", "%016llx", (unsigned long long)p->model));
    slr_real_repr(s->started, real);
    SLR_TRY(slr_meta_set(meta, "started", real));
    slr_real_repr(s->elapsed, real);
    SLR_TRY(slr_meta_set(meta, "elapsed", real));
    slr_real_repr(s->val_loss, real);
    SLR_TRY(slr_meta_set(meta, "val_loss", real));
    return each_option(p, put_option, meta);
}

enum { N_BLOCKS = 4 };

/* The tensors of a state, each a flat block of floats. */
static void blocks(const slr_state_parts *p, const slr_run_state *s, slr_st_entry e[N_BLOCKS])
{
    size_t n = slr_network_param_count(p->network);
    const struct {
        const char *name;
        const float *data;
        size_t n;
    } row[N_BLOCKS] = {
        {"params", slr_network_params(p->network), n},
        {"adam.m", slr_optim_moments(p->optim, 0), n},
        {"adam.v", slr_optim_moments(p->optim, 1), n},
        {"losses", s->losses, (size_t)p->batches_per_epoch},
    };
    for (int i = 0; i < N_BLOCKS; i++)
        e[i] = (slr_st_entry){
            row[i].name,
            {.dtype = SDLORA_F32, .rank = 1, .dim = {(int64_t)row[i].n}, .data = row[i].data}};
}

static int write_file(const slr_state_parts *p, const slr_run_state *s, const slr_meta *meta,
                      const char *path)
{
    slr_st_entry e[N_BLOCKS];
    size_t n = slr_meta_count(meta);
    slr_st_pair *pairs = slr_calloc(p->m, n, sizeof *pairs);
    if (!pairs)
        return SDLORA_ENOMEM;
    for (size_t i = 0; i < n; i++)
        pairs[i].key = slr_meta_at(meta, i, &pairs[i].value);
    blocks(p, s, e);
    int rc = slr_safetensors_write(p->m, path, e, N_BLOCKS, pairs, n);
    slr_free(p->m, pairs);
    return rc;
}

int slr_state_save(const slr_state_parts *p, const slr_run_state *s, const char *dir)
{
    slr_meta *meta;
    SLR_TRY(slr_dir_make(dir));
    SLR_TRY(slr_meta_new(&meta, p->m));
    char *path = slr_path_join(p->m, dir, SLR_STATE_FILE);
    int rc = path ? put_facts(meta, p, s) : SDLORA_ENOMEM;
    if (rc >= 0)
        rc = write_file(p, s, meta, path);
    slr_free(p->m, path);
    slr_meta_free(meta);
    return rc;
}

int slr_state_size(const slr_state_parts *p, const slr_run_state *s, uint64_t *bytes)
{
    slr_st_entry e[N_BLOCKS];
    slr_meta *meta;
    SLR_TRY(slr_meta_new(&meta, p->m));
    int rc = put_facts(meta, p, s);
    *bytes = slr_meta_text_bytes(meta);
    slr_meta_free(meta);
    blocks(p, s, e);
    for (int i = 0; i < N_BLOCKS; i++)
        *bytes += slr_tensor_bytes(&e[i].t) + SLR_NETFILE_ENTRY + strlen(e[i].name);
    return rc;
}

/* --- loading --- */

typedef struct comparison {
    const slr_safetensors *file;
    slr_buf changes;
} comparison;

static int compare_option(void *user, const char *key, const slr_option_row *row, const char *value)
{
    comparison *c = user;
    const char *saved = slr_safetensors_meta(c->file, key);
    if (!saved) /* the option is younger than the state */
        saved = row->def ? row->def : "none";
    if (strcmp(saved, value))
        slr_buf_printf(&c->changes, "%s%s was %s and is %s", c->changes.len ? "; " : "", row->name,
                       saved, value);
    return SDLORA_OK;
}

static int check_same_run(const slr_state_parts *p, const slr_safetensors *file, const char *path)
{
    comparison c = {.file = file};
    const struct {
        const char *key;
        uint64_t now;
        const char *change;
    } prints[] = {
        {"fingerprint", slr_dataset_fingerprint(p->data, p->masks),
         p->masks ? "the pictures, masks, captions or data set settings changed"
                  : "the pictures, captions or data set settings changed"},
        {"model", p->model, "the base model or VAE changed"},
    };
    slr_buf_init(&c.changes, p->m);
    for (size_t i = 0; i < sizeof prints / sizeof *prints; i++) {
        char now[32];
        const char *saved = slr_safetensors_meta(file, prints[i].key);
        snprintf(now, sizeof now, "%016llx", (unsigned long long)prints[i].now);
        if (!saved || strcmp(saved, now))
            slr_buf_printf(&c.changes, "%s%s", c.changes.len ? "; " : "", prints[i].change);
    }
    int rc = each_option(p, compare_option, &c);
    if (rc >= 0)
        rc = slr_buf_ok(&c.changes);
    if (rc >= 0 && c.changes.len)
        rc = slr_fail(SDLORA_EINVAL, __func__, "%s belongs to another run: %s", path,
                      c.changes.data);
    slr_buf_free(&c.changes);
    return rc;
}

static int read_int(const slr_safetensors *f, const char *path, const char *key, int64_t max,
                    int64_t *out)
{
    const char *text = slr_safetensors_meta(f, key);
    if (!text || !slr_parse_i64(text, out) || *out < 0 || *out > max)
        return slr_fail(SDLORA_EFORMAT, __func__, "%s: %s is missing or out of range", path, key);
    return SDLORA_OK;
}

static double read_real(const slr_safetensors *f, const char *key)
{
    double value;
    const char *text = slr_safetensors_meta(f, key);
    return text && slr_parse_real(text, &value) ? value : NAN;
}

static int read_facts(const slr_state_parts *p, slr_run_state *s, const slr_safetensors *f,
                      const char *path)
{
    int64_t version, session;
    SLR_TRY(read_int(f, path, "sdlora.state", 1 << 30, &version));
    if (version > STATE_VERSION)
        return slr_fail(SDLORA_EVERSION, __func__,
                        "%s was written by a newer library (state version %lld)", path,
                        (long long)version);
    SLR_TRY(read_int(f, path, "step", INT64_MAX, &s->step));
    SLR_TRY(read_int(f, path, "epoch", INT64_MAX / p->batches_per_epoch - 1, &s->epoch));
    SLR_TRY(read_int(f, path, "index", p->batches_per_epoch - 1, &s->index));
    SLR_TRY(read_int(f, path, "n_losses", p->batches_per_epoch, &s->n_losses));
    SLR_TRY(read_int(f, path, "session", INT64_MAX, &session));
    s->session = (uint64_t)session;
    s->started = read_real(f, "started");
    s->elapsed = read_real(f, "elapsed");
    s->val_loss = read_real(f, "val_loss");
    return SDLORA_OK;
}

static int read_blocks(const slr_state_parts *p, slr_run_state *s, const slr_safetensors *f,
                       const char *path)
{
    slr_st_entry e[N_BLOCKS];
    slr_tensor t[N_BLOCKS];
    blocks(p, s, e);
    for (int i = 0; i < N_BLOCKS; i++)
        if (!slr_safetensors_find(f, e[i].name, &t[i]) || t[i].dtype != SDLORA_F32 ||
            slr_tensor_count(&t[i]) != e[i].t.dim[0])
            return slr_fail(SDLORA_EFORMAT, __func__, "%s: %s is missing or not %lld floats", path,
                            e[i].name, (long long)e[i].t.dim[0]);
    for (int i = 0; i < N_BLOCKS; i++)
        memcpy((void *)(uintptr_t)e[i].t.data, t[i].data, slr_tensor_bytes(&t[i]));
    return SDLORA_OK;
}

int slr_state_load(const slr_state_parts *p, slr_run_state *s, const char *dir)
{
    slr_safetensors *f = NULL;
    slr_run_state loaded = *s;
    char *path =
        slr_dir_exists(dir) ? slr_path_join(p->m, dir, SLR_STATE_FILE) : slr_strdup(p->m, dir);
    int rc = path ? slr_safetensors_open(&f, p->m, path, true) : SDLORA_ENOMEM;
    if (rc >= 0)
        rc = check_same_run(p, f, path);
    if (rc >= 0)
        rc = read_facts(p, &loaded, f, path);
    if (rc >= 0)
        rc = read_blocks(p, &loaded, f, path);
    if (rc >= 0)
        *s = loaded;
    slr_safetensors_close(f);
    slr_free(p->m, path);
    return rc;
}
