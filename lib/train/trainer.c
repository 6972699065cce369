/* SPDX-License-Identifier: MIT */
/* The loop: batches in, gradients summed, one update, and what falls due after it.  The caller
 * drives it step by step.  Every draw is addressed by (seed, sample number), so a step is a pure
 * function of the state before it. */
#include "train/trainer.h"

#include <math.h>
#include <string.h>

#include "base/clock.h"
#include "base/rng.h"
#include "base/status.h"
#include "base/str.h"
#include "models/vae.h"
#include "train/lr.h"
#include "train/metadata.h"
#include "train/noise.h"
#include "train/optim.h"
#include "train/outputs.h"
#include "train/state.h"
#include "train/trainer_impl.h"
#include "train/validate.h"

/* --- one micro-batch --- */

/* Number of the batch's first sample in the run: batches before it times the batch size. */
static uint64_t first_sample(const slr_trainer *t, const slr_batch *b)
{
    return (uint64_t)(b->epoch * t->n_batches + b->index) * (uint64_t)t->batch_size;
}

/* A dropped caption stays empty, whatever stands in for the others. */
static const char *caption_of(const slr_trainer *t, const slr_batch *b, int64_t i,
                              char text[SLR_INVERSION_TEXT])
{
    slr_rng rng;
    uint64_t sample = first_sample(t, b) + (uint64_t)i;
    if (!*b->captions[i] && *slr_dataset_item(t->c.data, b->items[i])->caption)
        return b->captions[i];
    slr_rng_init(&rng, t->seed + (sample >> 32), SLR_STREAM_TEMPLATE, (uint32_t)sample);
    return slr_inversion_caption(&t->inversion, b->captions[i], slr_rng_u32(&rng), text);
}

/* What conditions the UNet. */
static int fill_text(slr_trainer *t, slr_step *step, const slr_batch *b)
{
    const slr_family *family = slr_checkpoint_family(t->c.base);
    const slr_step_io *io = slr_step_io_of(step);
    const slr_words *words = t->inversion.words;
    int32_t *ids = io->text.ids[0];
    for (int64_t i = 0; i < b->n; i++) {
        char text[SLR_INVERSION_TEXT];
        const char *caption = caption_of(t, b, i, text);
        slr_step_fill_sizes(step, b->sizes + i * SLR_SAMPLE_SIZES, t->score, i);
        SLR_TRY(ids ? slr_words_caption(words, t->bpe, t->m, family, caption, t->n_chunks,
                                        ids + i * t->n_chunks * 77)
                    : slr_captions_put(t->text, caption, &t->cancel, io, i));
    }
    if (ids)
        slr_step_fill_text(step, words);
    return SDLORA_OK;
}

static void fill_seed(const slr_trainer *t, const slr_step_io *io, uint64_t first)
{
    if (!io->seed)
        return;
    slr_rng rng;
    slr_rng_init(&rng, t->seed + (first >> 32), SLR_STREAM_DROPOUT, (uint32_t)first);
    for (int i = 0; i < 2; i++)
        io->seed[i] = (int32_t)slr_rng_u32(&rng);
}

static void fill_masks(const slr_trainer *t, const slr_step_io *io, int64_t n)
{
    size_t width = slr_network_mask_width(t->c.network);
    for (int64_t i = 0; io->masks && i < n; i++)
        slr_network_timestep_mask(t->c.network, io->t[i], SLR_TIMESTEPS,
                                  io->masks + (size_t)i * width);
}

static void add_share(float *restrict sum, const float *restrict grad, size_t n, float share)
{
    for (size_t i = 0; i < n; i++)
        sum[i] += share * grad[i];
}

int slr_trainer_batch(slr_trainer *t, const slr_batch *b, double *loss)
{
    slr_step *step;
    SLR_TRY(slr_trainer_graph(t, b->n, b->lh, b->lw, &step));
    const slr_step_io *io = slr_step_io_of(step);
    uint64_t first = first_sample(t, b);
    SLR_TRY(slr_noise_fill(&t->noise, t->m, io, b->latents, b->n, b->lh, b->lw, t->seed, first,
                           b->loss_weight));
    for (int64_t i = 0; b->extra && i < b->n; i++)
        slr_step_fill_extra(step, b->extra + i * b->lh * b->lw * (1 + b->channels), i);
    SLR_TRY(fill_text(t, step, b));
    fill_seed(t, io, first);
    if (io->ranks)
        slr_network_draw_ranks(t->c.network, t->seed, first, io->ranks);
    fill_masks(t, io, b->n);
    SLR_TRY(slr_step_run(step, &t->cancel));

    *loss = 0;
    for (int64_t i = 0; i < b->n; i++)
        *loss += io->loss[i] / (double)b->n;
    if (!isfinite(*loss))
        return slr_fail(SDLORA_ENAN, __func__,
                        "the loss of batch %lld of epoch %lld is not finite: %s ...",
                        (long long)b->index + 1, (long long)b->epoch + 1,
                        slr_dataset_item(t->c.data, b->items[0])->path);

    if (io->ranks)
        slr_network_mask_ranks(t->c.network, io->ranks, t->grad, slr_optim_ranks(t->optim));
    add_share(slr_optim_grad(t->optim), io->grad, slr_network_param_count(t->c.network),
              1.0f / (float)t->accumulation);
    return SDLORA_OK;
}

/* --- one optimiser step --- */

/* Where the next batch is, without touching the trainer until the step has succeeded. */
typedef struct cursor {
    int64_t epoch, index;
} cursor;

typedef struct taken {
    cursor at;
    double losses[SLR_MAX_ACCUMULATION];
    int n;
} taken;

/* Runs micro-batches up to the accumulation count or the end of the epoch, as kohya's loop does. */
static int gather(slr_trainer *t, taken *k)
{
    memset(slr_optim_grad(t->optim), 0, slr_network_param_count(t->c.network) * sizeof(float));
    if (slr_optim_ranks(t->optim))
        memset(slr_optim_ranks(t->optim), 0, slr_network_ranks(t->c.network));
    *k = (taken){.at = {t->run.epoch, t->run.index}};
    do {
        const slr_batch *b;
        SLR_TRY(slr_loader_get(t->loader, k->at.epoch, k->at.index, t->run.step, &b));
        SLR_TRY(slr_trainer_batch(t, b, &k->losses[k->n++]));
        k->at.index++;
    } while (k->n < t->accumulation && k->at.index < t->n_batches);
    return SDLORA_OK;
}

/* Leaves rates and norm in *now. */
static int update(slr_trainer *t, slr_progress *now)
{
    double factor = slr_lr_factor(t->lr, &t->lr_plan, t->run.step), lr[SLR_PART_COUNT];
    for (int part = 0; part < SLR_PART_COUNT; part++)
        lr[part] = t->base_lr[part] * factor;
    now->unet_lr = lr[SLR_PART_UNET];
    now->text_encoder_lr = lr[SLR_PART_TE];
    now->text_encoder_2_lr = lr[SLR_PART_TE2];

    SLR_TRY(slr_optim_norm(t->optim, &now->grad_norm));
    if (!isfinite(now->grad_norm))
        return slr_fail(SDLORA_ENAN, __func__,
                        "the gradient of step %lld is not finite: the step was not applied",
                        (long long)t->run.step + 1);
    /* torch's clip_grad_norm_: max / (norm + 1e-6), never above 1 */
    double scale =
        t->max_grad_norm > 0 ? fmin(1.0, t->max_grad_norm / (now->grad_norm + 1e-6)) : 1.0;
    SLR_TRY(slr_optim_apply(t->optim, t->run.step + 1, lr, scale));
    return slr_trainer_scale_norms(t);
}

/* kohya's moving average: the losses of the last epoch's worth of batches. */
static void record_losses(slr_trainer *t, const taken *k)
{
    for (int i = 0; i < k->n; i++) {
        t->run.losses[(t->run.index + i) % t->n_batches] = (float)k->losses[i];
        if (t->run.n_losses < t->n_batches)
            t->run.n_losses++;
    }
}

static double average_loss(const slr_trainer *t)
{
    double sum = 0;
    for (int64_t i = 0; i < t->run.n_losses; i++)
        sum += t->run.losses[i];
    return t->run.n_losses ? sum / (double)t->run.n_losses : NAN;
}

void slr_trainer_now(const slr_trainer *t, slr_progress *now)
{
    double done = (double)(t->run.step - t->first_step), spent = t->run.elapsed - t->first_elapsed;
    *now = t->last;
    now->step = t->run.step;
    now->total = t->total;
    now->epoch = (t->run.index ? t->run.epoch : t->run.epoch - 1) + 1;
    now->epochs = t->epochs;
    now->average_loss = average_loss(t);
    now->elapsed = t->run.elapsed;
    now->eta = done > 0 ? spent / done * (double)(t->total - t->run.step) : NAN;
    now->val_loss = t->run.val_loss;
}

static void advance(slr_trainer *t, const taken *k)
{
    record_losses(t, k);
    t->run.step++;
    t->run.index = k->at.index;
    if (t->run.index >= t->n_batches) {
        t->run.index = 0;
        t->run.epoch++;
    }
}

static int begin(slr_trainer *t)
{
    t->first_step = t->run.step;
    t->first_elapsed = t->run.elapsed;
    SLR_TRY(slr_metrics_begin(&t->out, t->run.step));
    t->begun = true;
    if (t->sample && t->run.step == 0 && slr_opt_bool(t->o, "sample_at_first"))
        return t->sample(t->sample_user, 0, 0);
    return SDLORA_OK;
}

/* Gradients and update of one step; nothing is applied unless all of it succeeded. */
static int run_step(slr_trainer *t)
{
    double start = slr_clock();
    slr_progress now = {0};
    taken k;
    int rc = gather(t, &k);
    if (rc >= 0)
        rc = update(t, &now);
    if (rc == SDLORA_ECANCELED)
        atomic_store(&t->cancel, 0);
    SLR_TRY(rc);
    advance(t, &k);
    t->run.elapsed += slr_clock() - start;
    for (int i = 0; i < k.n; i++)
        now.loss += k.losses[i] / k.n;
    t->last = now;
    slr_trainer_now(t, &t->last);
    return SDLORA_OK;
}

/* What a step that is applied still owes: files, held-out loss, samples, its line of metrics. */
static int settle(slr_trainer *t)
{
    if (!t->due)
        return SDLORA_OK;
    SLR_TRY(slr_trainer_due(t));
    t->last.val_loss = t->run.val_loss;
    SLR_TRY(slr_metrics_add(&t->out, &t->last));
    t->due = false;
    return SDLORA_OK;
}

/* A run that was resumed from the state of its last step may have been stopped before its final
 * file was there. */
static int end(slr_trainer *t)
{
    if (!t->begun && t->out.dir) {
        SLR_TRY(slr_trainer_save_final(t));
        t->begun = true;
    }
    return SDLORA_OK;
}

int slr_trainer_step(slr_trainer *t, slr_progress *now)
{
    SLR_TRY(settle(t)); /* what failed after the step before */
    if (t->run.step >= t->total) {
        SLR_TRY(end(t));
        if (now) /* the caller may not have been told of the last step */
            slr_trainer_now(t, now);
        return SDLORA_DONE;
    }
    if (atomic_exchange(&t->cancel, 0))
        return slr_fail(SDLORA_ECANCELED, __func__, "cancelled before step %lld",
                        (long long)t->run.step + 1);
    if (!t->begun)
        SLR_TRY(begin(t));
    SLR_TRY(run_step(t));
    slr_network_touch(t->c.network);
    t->due = true;
    SLR_TRY(settle(t));
    if (now)
        *now = t->last;
    return SDLORA_OK;
}

void slr_trainer_cancel(slr_trainer *t)
{
    atomic_store(&t->cancel, 1);
}

int slr_trainer_resume(slr_trainer *t, const char *path)
{
    slr_state_parts parts = slr_trainer_state_parts(t);
    uint64_t text = slr_trainer_text_digest(t);
    SLR_TRY(slr_state_load(&parts, &t->run, path));
    t->begun = t->due = false;
    t->last = (slr_progress){0};
    t->first_step = t->run.step;
    t->first_elapsed = t->run.elapsed;
    atomic_store(&t->cancel, 0);
    slr_network_touch(t->c.network);
    return slr_trainer_text_digest(t) == text ? SDLORA_OK : slr_trainer_renew_captions(t);
}

void slr_trainer_set_sample_hook(slr_trainer *t, slr_sample_hook_fn fn, void *user)
{
    t->sample = fn;
    t->sample_user = user;
}
