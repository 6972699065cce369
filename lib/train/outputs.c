/* SPDX-License-Identifier: MIT */
/* Names and lifetimes of a run's files.  Refuses to know what is in them. */
#include "train/outputs.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/status.h"
#include "base/str.h"
#include "io/file.h"
#include "train/state.h"

#define METRICS_FILE "metrics.jsonl"
#define METRICS_LIMIT                                                                              \
    ((uint64_t)1 << 32) /* bytes of an old metrics file that are read when resuming */

static int64_t int_or(slr_opt o, const char *name, int64_t otherwise)
{
    return slr_opt_has(o, name) ? slr_opt_int(o, name) : otherwise;
}

int slr_outputs_init(slr_outputs *o, slr_mem *m, slr_opt opts, int64_t epochs)
{
    const char *dir = slr_opt_text(opts, "output_dir"), *name = slr_opt_text(opts, "output_name");
    const char *precision = slr_opt_text(opts, "save_precision");
    *o = (slr_outputs){
        .m = m,
        .every_epochs = int_or(opts, "save_every_n_epochs", 0),
        .every_steps = int_or(opts, "save_every_n_steps", 0),
        .last_epochs = int_or(opts, "save_last_n_epochs", 0),
        .last_steps = int_or(opts, "save_last_n_steps", 0),
        .state = slr_opt_bool(opts, "save_state"),
        .state_at_end =
            slr_opt_bool(opts, "save_state_on_train_end") || slr_opt_bool(opts, "save_state"),
        .dtype = SDLORA_F32,
        .ending = !strcmp(slr_opt_text(opts, "save_model_as"), "pt") ? ".pt" : ".safetensors",
    };
    o->last_epochs_state = int_or(opts, "save_last_n_epochs_state", o->last_epochs);
    o->last_steps_state = int_or(opts, "save_last_n_steps_state", o->last_steps);
    if (slr_opt_has(opts, "save_n_epoch_ratio")) {
        int64_t every = epochs / slr_opt_int(opts, "save_n_epoch_ratio");
        o->every_epochs = every > 1 ? every : 1;
    }
    const slr_dtype_row *type = precision ? slr_dtype_by_precision(precision) : NULL;
    if (type)
        o->dtype = type->dtype;
    o->dir = dir ? slr_strdup(m, dir) : NULL;
    o->name = slr_strdup(m, name ? name : "last");
    return (dir && !o->dir) || !o->name ? SDLORA_ENOMEM : SDLORA_OK;
}

int slr_outputs_begin(const slr_outputs *o)
{
    enum { AN_HOUR = 3600 };
    if (!o->dir)
        return SDLORA_OK;
    SLR_TRY(slr_dir_make(o->dir));
    if (slr_writer_sweep(o->m, o->dir, AN_HOUR, NULL) < 0)
        slr_clear(); /* a folder that may be written to and not read */
    return SDLORA_OK;
}

void slr_outputs_free(slr_outputs *o)
{
    slr_free(o->m, o->dir);
    slr_free(o->m, o->name);
    o->dir = o->name = NULL;
}

char *slr_outputs_path(const slr_outputs *o, int what, int64_t number, bool state)
{
    static const char *const formats[] = {
        [SLR_SAVE_FINAL] = "%s",
        [SLR_SAVE_EPOCH] = "%s-%06lld",
        [SLR_SAVE_STEP] = "%s-step%08lld",
    };
    slr_buf b;
    slr_buf_init(&b, o->m);
    if (o->dir)
        slr_buf_printf(&b, "%s/", o->dir);
    if (what == SLR_SAVE_FINAL)
        slr_buf_printf(&b, "%s", o->name);
    else
        slr_buf_printf(&b, formats[what], o->name, (long long)number);
    slr_buf_puts(&b, state ? "-state" : o->ending);
    if (slr_buf_ok(&b) < 0) {
        slr_buf_free(&b);
        return NULL;
    }
    return slr_buf_take(&b);
}

int64_t slr_outputs_outdated(const slr_outputs *o, int what, int64_t number, bool state)
{
    if (what == SLR_SAVE_EPOCH) {
        int64_t keep = state ? o->last_epochs_state : o->last_epochs;
        int64_t old = number - o->every_epochs * keep;
        return keep > 0 && old > 0 ? old : 0;
    }
    /* kohya counts steps, not files */
    int64_t keep = state ? o->last_steps_state : o->last_steps;
    if (keep <= 0 || o->every_steps <= 0 || number - keep - 1 <= 0)
        return 0;
    return (number - keep - 1) / o->every_steps * o->every_steps;
}

int slr_outputs_remove(const slr_outputs *o, int what, int64_t number, bool state)
{
    char *path = slr_outputs_path(o, what, number, state);
    if (!path)
        return SDLORA_ENOMEM;
    int rc = SDLORA_OK;
    if (state) {
        char *file = slr_path_join(o->m, path, SLR_STATE_FILE);
        if (file)
            unlink(file);
        slr_free(o->m, file);
        rmdir(path);
    } else if (unlink(path) < 0 && errno != ENOENT) {
        rc = slr_fail(SDLORA_EIO, __func__, "%s: cannot be removed: %s", path, strerror(errno));
    }
    slr_free(o->m, path);
    return rc;
}

/* --- metrics.jsonl --- */

/* The prefix of `text` whose lines have a step up to `step`. */
static size_t lines_up_to(const char *text, size_t n, int64_t step)
{
    size_t at = 0;
    while (at < n) {
        const char *end = memchr(text + at, '\n', n - at);
        long long number;
        if (!end || sscanf(text + at, "{\"step\": %lld", &number) != 1 || number > step)
            break;
        at = (size_t)(end - text) + 1;
    }
    return at;
}

int slr_metrics_begin(const slr_outputs *o, int64_t step)
{
    if (!o->dir)
        return SDLORA_OK;
    char *path = slr_path_join(o->m, o->dir, METRICS_FILE);
    void *old = NULL;
    size_t n = 0, keep = 0;
    int rc = path ? SDLORA_OK : SDLORA_ENOMEM;
    if (rc >= 0 && step > 0 && slr_file_exists(path))
        rc = slr_file_read(o->m, path, METRICS_LIMIT, &old, &n);
    if (rc >= 0) {
        keep = old ? lines_up_to(old, n, step) : 0;
        rc = slr_file_write(o->m, path, old ? old : "", keep);
    }
    slr_free(o->m, old);
    slr_free(o->m, path);
    return rc;
}

int slr_metrics_add(const slr_outputs *o, const slr_progress *now)
{
    if (!o->dir)
        return SDLORA_OK;
    const struct {
        const char *key;
        double value;
    } reals[] = {
        {"loss", now->loss},
        {"average_loss", now->average_loss},
        {"unet_lr", now->unet_lr},
        {"text_encoder_lr", now->text_encoder_lr},
        {"text_encoder_2_lr", now->text_encoder_2_lr},
        {"grad_norm", now->grad_norm},
        {"val_loss", now->val_loss},
        {"elapsed", now->elapsed},
    };
    slr_buf b;
    slr_buf_init(&b, o->m);
    slr_buf_printf(&b, "{\"step\": %lld, \"epoch\": %lld", (long long)now->step,
                   (long long)now->epoch);
    for (size_t i = 0; i < sizeof reals / sizeof *reals; i++) {
        char number[32];
        slr_real_repr(reals[i].value, number);
        slr_buf_printf(&b, ", \"%s\": %s", reals[i].key,
                       isfinite(reals[i].value) ? number : "null");
    }
    slr_buf_puts(&b, "}");
    char *path = slr_path_join(o->m, o->dir, METRICS_FILE);
    int rc = path ? slr_buf_ok(&b) : SDLORA_ENOMEM;
    if (rc >= 0)
        rc = slr_file_append_line(path, b.data);
    slr_free(o->m, path);
    slr_buf_free(&b);
    return rc;
}
