/* SPDX-License-Identifier: MIT */
/* Steps, batches by shape, files and what falls due in a run: sums over options and data set, in
 * the words of trainer_due.c and outputs.c.  Refuses to measure anything. */
#include "train/forecast_count.h"

#include <math.h>

#include "base/status.h"

/* --- steps and shapes --- */

static int64_t steps_per_epoch(const slr_trainer *t)
{
    return (t->n_batches + t->accumulation - 1) / t->accumulation;
}

/* Micro-batches of the planned steps: an epoch ends in a short step. */
static int64_t count_batches(const slr_trainer *t)
{
    int64_t per_epoch = steps_per_epoch(t);
    int64_t rest = t->total % per_epoch * t->accumulation;
    return t->total / per_epoch * t->n_batches + rest;
}

static void add_shape(slr_forecast *f, const slr_bucket *b, int64_t n, int64_t batches)
{
    if (n && batches)
        f->shapes[f->n_shapes++] = (slr_forecast_shape){
            .width = b->width, .height = b->height, .n = n, .batches = batches};
}

int slr_forecast_lengths(slr_forecast *f, const slr_trainer *t)
{
    size_t n = slr_dataset_buckets(t->c.data);
    f->steps = t->total;
    f->epochs = t->epochs;
    f->batches_per_epoch = t->n_batches;
    f->batches = count_batches(t);
    f->precision = slr_policy_name(t->precision.model);
    f->shapes = slr_calloc(t->m, 2 * n, sizeof *f->shapes);
    if (!f->shapes)
        return SDLORA_ENOMEM;
    for (size_t i = 0; i < n; i++) {
        const slr_bucket *b = slr_dataset_bucket(t->c.data, i);
        add_shape(f, b, t->batch_size, b->count / t->batch_size);
        add_shape(f, b, b->count % t->batch_size, 1);
    }
    return SDLORA_OK;
}

/* --- what falls due --- */

static int64_t option_or(const slr_trainer *t, const char *name, int64_t otherwise)
{
    return slr_opt_has(t->o, name) ? slr_opt_int(t->o, name) : otherwise;
}

static int64_t common_divisor(int64_t a, int64_t b)
{
    while (b) {
        int64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

/* How many of the steps are multiples of `steps` or end an epoch whose number is a multiple of
 * `epochs`; 0: never.  last: the last step counts in any case. */
static int64_t count_due(const slr_trainer *t, int64_t steps, int64_t epochs, bool last)
{
    int64_t per_epoch = steps_per_epoch(t), n = 0;
    bool at_end = false;
    int64_t by_epochs = epochs > 0 && epochs <= t->total / per_epoch ? epochs * per_epoch : 0;
    if (steps > 0) {
        n += t->total / steps;
        at_end = t->total % steps == 0;
    }
    if (by_epochs) {
        n += t->total / by_epochs;
        at_end = at_end || t->total % by_epochs == 0;
    }
    if (steps > 0 && by_epochs) /* both at once count once */
        n -= t->total / by_epochs / (steps / common_divisor(steps, by_epochs));
    return n + (last && !at_end);
}

void slr_forecast_events(slr_forecast *f, const slr_trainer *t, size_t n_pictures)
{
    int64_t steps = option_or(t, "validate_every_n_steps", 0);
    if (t->c.validation)
        f->validations =
            count_due(t, steps, option_or(t, "validate_every_n_epochs", steps ? 0 : 1), true);
    if (n_pictures) {
        int64_t epochs = option_or(t, "sample_every_n_epochs", 0);
        steps = epochs ? 0 : option_or(t, "sample_every_n_steps", 0);
        f->samples = (int64_t)n_pictures *
                     (count_due(t, steps, epochs, false) + slr_opt_bool(t->o, "sample_at_first"));
    }
}

/* --- files --- */

enum { METRICS_LINE = 241 }; /* bytes, on average */

/* Numbered files of one sort: `count` are written at multiples of `every`. */
static void add_numbered(slr_forecast_file *file, const slr_trainer *t, int what, bool state,
                         int64_t count, int64_t every)
{
    if (count < 1)
        return;
    file->written += count;
    file->kept += count - slr_outputs_outdated(&t->out, what, count * every, state) / every;
}

static void count_saves(slr_forecast *f, const slr_trainer *t)
{
    const slr_outputs *o = &t->out;
    slr_forecast_file *network = &f->file[SLR_FORECAST_NETWORK];
    slr_forecast_file *state = &f->file[SLR_FORECAST_STATE];
    int64_t steps = o->every_steps > 0 ? t->total / o->every_steps : 0;
    int64_t epochs = o->every_epochs > 0 ? (t->total - 1) / steps_per_epoch(t) / o->every_epochs
                                         : 0; /* the last epoch's is the final file */
    add_numbered(network, t, SLR_SAVE_STEP, false, steps, o->every_steps);
    add_numbered(network, t, SLR_SAVE_EPOCH, false, epochs, o->every_epochs);
    if (o->state) {
        add_numbered(state, t, SLR_SAVE_STEP, true, steps, o->every_steps);
        add_numbered(state, t, SLR_SAVE_EPOCH, true, epochs, o->every_epochs);
    }
    if (!o->dir)
        return;
    network->written++;
    network->kept++;
    state->written += o->state_at_end;
    state->kept += o->state_at_end;
    f->file[SLR_FORECAST_METRICS] = (slr_forecast_file){1, 1, (uint64_t)t->total * METRICS_LINE};
}

/* With hashes as long as real ones, which are not computed. */
static int network_bytes(slr_trainer *t, uint64_t *bytes)
{
    static const char *const keys[] = {"ss_sd_model_hash", "ss_new_sd_model_hash", "ss_vae_hash",
                                       "ss_new_vae_hash"};
    static const char hash[] = "0000000000000000000000000000000000000000000000000000000000000000";
    slr_meta *meta;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        SLR_TRY(slr_meta_set(t->hashes, keys[i], hash));
    SLR_TRY(slr_meta_new(&meta, t->m));
    int rc = slr_trainer_metadata(t, meta);
    *bytes = slr_netfile_size(t->c.network, t->out.dtype, meta);
    slr_meta_free(meta);
    return rc;
}

int slr_forecast_disk(slr_forecast *f, slr_trainer *t, const slr_loader_needs *needs,
                      uint64_t sample_bytes)
{
    slr_state_parts parts = slr_trainer_state_parts(t);
    SLR_TRY(network_bytes(t, &f->file[SLR_FORECAST_NETWORK].bytes));
    SLR_TRY(slr_state_size(&parts, &t->run, &f->file[SLR_FORECAST_STATE].bytes));
    count_saves(f, t);
    if (needs->cache_files)
        f->file[SLR_FORECAST_CACHE] =
            (slr_forecast_file){needs->cache_files, needs->cache_files,
                                needs->cache_bytes / (uint64_t)needs->cache_files};
    f->file[SLR_FORECAST_SAMPLE] = (slr_forecast_file){f->samples, f->samples, sample_bytes};
    for (int i = 0; i < SLR_FORECAST_FILES; i++)
        f->disk += (uint64_t)f->file[i].kept * f->file[i].bytes;
    return SDLORA_OK;
}

/* --- texts --- */

void slr_forecast_texts(const slr_loader_needs *needs, int64_t uses, int64_t each,
                        uint64_t text_bytes, int64_t *encoded, uint64_t *kept)
{
    int64_t room = (int64_t)(SLR_CAPTIONS_KEPT_BYTES / text_bytes);
    int64_t different = needs->captions_change || needs->captions > uses ? uses : needs->captions;
    *encoded = different;
    if (!needs->captions_change && needs->captions > room && each > 0)
        *encoded = uses; /* all are dropped before they come again */
    *kept = (uint64_t)(different < room ? different : room) * text_bytes;
}
