/* SPDX-License-Identifier: MIT */
/* What falls due after a step: saved networks and states, the held-out loss, samples; and max-norm
 * scaling. */
#include "train/trainer_impl.h"

#include <math.h>
#include <string.h>

#include "base/clock.h"
#include "base/status.h"
#include "train/metadata.h"

slr_state_parts slr_trainer_state_parts(slr_trainer *t)
{
    return (slr_state_parts){.m = t->m,
                             .network = t->c.network,
                             .optim = t->optim,
                             .data = t->c.data,
                             .masks = slr_checkpoint_inpaint(t->c.base),
                             .opts = t->o,
                             .batches_per_epoch = t->n_batches,
                             .model = t->model};
}

/* Epochs finished so far; a file saved in mid-epoch carries the number of the epoch it is in. */
static int64_t epoch_number(const slr_trainer *t)
{
    return t->run.epoch + (t->run.index ? 1 : 0);
}

int slr_trainer_metadata(slr_trainer *t, slr_meta *meta)
{
    slr_run_facts facts = {
        .opts = t->o,
        .network = t->c.network,
        .data = t->c.data,
        .base = t->c.base,
        .vae_path = t->c.vae_path,
        .optimizer = slr_optim_text(t->optim),
        .session = t->run.session,
        .started = t->run.started,
        .now = slr_wall_time(),
        .steps = t->run.step,
        .epoch = epoch_number(t),
        .epochs = t->epochs,
        .max_steps = t->total,
        .batches_per_epoch = t->n_batches,
        .validation_images = t->c.validation ? (int64_t)slr_dataset_items(t->c.validation) : 0,
        .seed = (int64_t)t->seed,
        .v_prediction = t->noise.v_prediction,
    };
    return slr_metadata_fill(meta, t->m, &facts, t->hashes);
}

int slr_trainer_save(slr_trainer *t, const char *path)
{
    slr_meta *meta;
    char *own = path ? NULL : slr_outputs_path(&t->out, SLR_SAVE_FINAL, 0, false);
    if (!path && !own)
        return SDLORA_ENOMEM;
    int rc = slr_meta_new(&meta, t->m);
    if (rc >= 0)
        rc = slr_trainer_metadata(t, meta);
    if (rc >= 0)
        rc = slr_netfile_save(t->c.network, path ? path : own, t->out.dtype, meta);
    slr_meta_free(meta);
    slr_free(t->m, own);
    return rc;
}

int slr_trainer_save_state(slr_trainer *t, const char *path)
{
    slr_state_parts parts = slr_trainer_state_parts(t);
    char *own = path ? NULL : slr_outputs_path(&t->out, SLR_SAVE_FINAL, 0, true);
    if (!path && !own)
        return SDLORA_ENOMEM;
    int rc = slr_state_save(&parts, &t->run, path ? path : own);
    slr_free(t->m, own);
    return rc;
}

/* --- files that are due --- */

/* Which there are after this step, and how many are written. */
typedef struct saves {
    bool step, epoch, final, final_state;
    int64_t done, total;
    bool stop; /* the caller wants to end */
} saves;

/* A cancel waits until all files of the step are there. */
static void tell(const slr_trainer *t, saves *s)
{
    if (s->total && t->c.phase && t->c.phase(t->c.phase_user, "save", s->done, s->total))
        s->stop = true;
}

static int save_network(slr_trainer *t, saves *s, const char *path)
{
    SLR_TRY(slr_trainer_save(t, path));
    s->done++;
    tell(t, s);
    return SDLORA_OK;
}

static int save_state(slr_trainer *t, saves *s, const char *path)
{
    SLR_TRY(slr_trainer_save_state(t, path));
    s->done++;
    tell(t, s);
    return SDLORA_OK;
}

/* Saves one numbered network, its state when asked for, and removes what it outdates. */
static int save_numbered(slr_trainer *t, saves *s, int what, int64_t number)
{
    char *file = slr_outputs_path(&t->out, what, number, false);
    char *state = slr_outputs_path(&t->out, what, number, true);
    int rc = file && state ? save_network(t, s, file) : SDLORA_ENOMEM;
    if (rc >= 0 && t->out.state)
        rc = save_state(t, s, state);
    slr_free(t->m, file);
    slr_free(t->m, state);
    SLR_TRY(rc);

    int64_t old = slr_outputs_outdated(&t->out, what, number, false);
    if (old)
        SLR_TRY(slr_outputs_remove(&t->out, what, old, false));
    old = slr_outputs_outdated(&t->out, what, number, true);
    return old && t->out.state ? slr_outputs_remove(&t->out, what, old, true) : SDLORA_OK;
}

static bool every(int64_t number, int64_t n)
{
    return n > 0 && number % n == 0;
}

static int64_t option_or(const slr_trainer *t, const char *name, int64_t otherwise)
{
    return slr_opt_has(t->o, name) ? slr_opt_int(t->o, name) : otherwise;
}

int slr_trainer_validate(slr_trainer *t, double *loss)
{
    if (!t->validator)
        return slr_fail(SDLORA_EINVAL, __func__, "the trainer was made without held-out pictures");
    slr_captions_forget(slr_trainer_held_out_text(t));
    int rc = slr_validator_run(t->validator, &t->cancel, loss);
    if (rc == SDLORA_ECANCELED)
        atomic_store(&t->cancel, 0);
    return rc;
}

static int due_validation(slr_trainer *t, bool epoch_ended, bool last)
{
    if (!t->validator)
        return SDLORA_OK;
    int64_t steps = option_or(t, "validate_every_n_steps", 0);
    int64_t epochs = option_or(t, "validate_every_n_epochs", steps ? 0 : 1);
    if (last || every(t->run.step, steps) || (epoch_ended && every(t->run.epoch, epochs)))
        return slr_trainer_validate(t, &t->run.val_loss);
    return SDLORA_OK;
}

static int due_samples(slr_trainer *t, bool epoch_ended)
{
    if (!t->sample)
        return SDLORA_OK;
    int64_t epochs = option_or(t, "sample_every_n_epochs", 0);
    int64_t steps = epochs ? 0 : option_or(t, "sample_every_n_steps", 0);
    if (every(t->run.step, steps) || (epoch_ended && every(t->run.epoch, epochs)))
        return t->sample(t->sample_user, epoch_number(t), t->run.step);
    return SDLORA_OK;
}

static int save_all(slr_trainer *t, saves *s)
{
    s->total = (s->step + s->epoch) * (1 + t->out.state) + s->final + s->final_state;
    tell(t, s);
    if (s->step)
        SLR_TRY(save_numbered(t, s, SLR_SAVE_STEP, t->run.step));
    if (s->final)
        SLR_TRY(save_network(t, s, NULL));
    if (s->final_state)
        SLR_TRY(save_state(t, s, NULL));
    if (s->epoch)
        SLR_TRY(save_numbered(t, s, SLR_SAVE_EPOCH, t->run.epoch));
    return s->stop ? slr_fail(SDLORA_ECANCELED, __func__,
                              "cancelled after step %lld; its files are written",
                              (long long)t->run.step)
                   : SDLORA_OK;
}

static int due_saves(slr_trainer *t, bool epoch_ended, bool last)
{
    saves s = {
        .step = every(t->run.step, t->out.every_steps),
        .epoch = !last && epoch_ended && t->run.epoch < t->epochs &&
                 every(t->run.epoch, t->out.every_epochs),
        .final = last && t->out.dir,
        .final_state = last && t->out.dir && t->out.state_at_end,
    };
    return save_all(t, &s);
}

int slr_trainer_save_final(slr_trainer *t)
{
    return save_all(t, &(saves){.final = true});
}

int slr_trainer_due(slr_trainer *t)
{
    bool epoch_ended = t->run.index == 0, last = t->run.step >= t->total;
    SLR_TRY(due_saves(t, epoch_ended, last)); /* first: what follows may fail or be cancelled */
    SLR_TRY(due_validation(t, epoch_ended, last));
    return due_samples(t, epoch_ended);
}

/* --- scale_weight_norms --- */

int slr_trainer_scale_norms(slr_trainer *t)
{
    double max =
        slr_opt_has(t->o, "scale_weight_norms") ? slr_opt_real(t->o, "scale_weight_norms") : 0;
    return max > 0 ? slr_network_scale_norms(t->c.network, t->c.devices, max) : SDLORA_OK;
}
