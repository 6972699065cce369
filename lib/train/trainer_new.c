/* SPDX-License-Identifier: MIT */
/* Making and ending a trainer: options checked against each other, parts opened, pictures encoded.
 */
#include "train/trainer_impl.h"

#include <math.h>
#include <string.h>

#include "base/clock.h"
#include "base/rng.h"
#include "base/status.h"
#include "models/unet.h"
#include "networks/hypernet.h"

/* --- settings --- */

static bool has_part(const slr_network *n, int part)
{
    size_t first, last;
    slr_network_part_range(n, part, &first, &last);
    return last > first;
}

/* Parts with a learning rate of 0 are left out of graph, optimiser and clipping altogether. */
static int read_rates(slr_trainer *t)
{
    double rate[SLR_PART_COUNT] = {0};
    rate[SLR_PART_UNET] =
        slr_opt_real(t->o, slr_opt_has(t->o, "unet_lr") ? "unet_lr" : "learning_rate");
    SLR_TRY(slr_trainer_text_rates(t, rate));
    for (int part = 0; part < SLR_PART_COUNT; part++) {
        if (!has_part(t->c.network, part))
            continue;
        t->base_lr[part] = rate[part];
        if (rate[part] > 0)
            t->part_mask |= 1u << part;
    }
    return t->part_mask ? SDLORA_OK
                        : slr_fail(SDLORA_EINVAL, __func__,
                                   "all learning rates are 0: nothing is left to train");
}

static int read_length(slr_trainer *t)
{
    slr_opt data = {slr_dataset_options(t->c.data), "dataset"};
    t->batch_size = slr_opt_int(data, "train_batch_size");
    t->n_batches = slr_dataset_batches_per_epoch(t->c.data);
    t->accumulation = (int)slr_opt_int(t->o, "gradient_accumulation_steps");
    if (t->n_batches < 1)
        return slr_fail(SDLORA_EINVAL, __func__, "the data set has no batches");
    if (t->accumulation > SLR_MAX_ACCUMULATION)
        return slr_fail(SDLORA_EINVAL, __func__, "gradient_accumulation_steps %d is more than %d",
                        t->accumulation, SLR_MAX_ACCUMULATION);
    int64_t per_epoch = (t->n_batches + t->accumulation - 1) / t->accumulation;
    if (slr_opt_has(t->o, "max_train_epochs")) {
        t->epochs = slr_opt_int(t->o, "max_train_epochs");
        if (t->epochs > INT64_MAX / per_epoch)
            return slr_fail(SDLORA_EINVAL, __func__, "max_train_epochs is too large");
        t->total = t->epochs * per_epoch;
    } else {
        t->total = slr_opt_int(t->o, "max_train_steps");
        t->epochs = (t->total + per_epoch - 1) / per_epoch;
    }
    return SDLORA_OK;
}

static int read_schedule(slr_trainer *t)
{
    double warmup = slr_opt_real(t->o, "lr_warmup_steps");
    const char *name = slr_opt_text(t->o, "lr_scheduler");
    SLR_TRY(slr_lr_find(name, &t->lr));
    t->lr_plan = (slr_lr_plan){
        .warmup = warmup < 1 ? (int64_t)(warmup * (double)t->total) : (int64_t)warmup,
        .total = t->total,
        .cycles = (double)slr_opt_int(t->o, "lr_scheduler_num_cycles"),
        .power = slr_opt_real(t->o, "lr_scheduler_power"),
        .lr0 = slr_opt_real(t->o, "learning_rate"), /* torch's optimizer.defaults["lr"] */
    };
    if (!strcmp(name, "polynomial") && t->lr_plan.lr0 <= 1e-7)
        return slr_fail(SDLORA_EINVAL, __func__,
                        "polynomial ends at 1e-7: learning_rate has to be larger");
    if (t->lr_plan.warmup > 0 && !strcmp(name, "constant"))
        return slr_fail(
            SDLORA_EINVAL, __func__,
            "lr_warmup_steps needs another lr_scheduler than constant: constant_with_warmup");
    return SDLORA_OK;
}

/* Before hours of encoding and not after: sides that the UNet can halve as often as it does. */
static int check_buckets(const slr_trainer *t, const slr_dataset *d)
{
    slr_weights *vae = slr_trainer_vae(&t->c),
                *unet = slr_checkpoint_part(t->c.base, SLR_PART_UNET);
    slr_unet_shape shape;
    int factor;
    if (!d || !vae || !unet)
        return SDLORA_OK;
    SLR_TRY(slr_vae_factor(vae, &factor));
    SLR_TRY(slr_unet_read(&shape, slr_checkpoint_family(t->c.base), unet));
    int step = 1 << (factor + shape.n_levels - 1);
    for (size_t i = 0; i < slr_dataset_buckets(d); i++) {
        const slr_bucket *b = slr_dataset_bucket(d, i);
        if (b->width % step || b->height % step)
            return slr_fail(SDLORA_EINVAL, __func__,
                            "samples of %dx%d pixels: both sides must be multiples of %d for %s "
                            "(see resolution and bucket_reso_steps)",
                            (int)b->width, (int)b->height, step, slr_checkpoint_path(t->c.base));
    }
    return SDLORA_OK;
}

/* What inpainting models and the refiner have of their own. */
static int read_kind(slr_trainer *t)
{
    const char *path = slr_checkpoint_path(t->c.base);
    bool inpaint = slr_checkpoint_inpaint(t->c.base);
    int timesteps = slr_checkpoint_family(t->c.base)->timesteps;
    slr_opt data = {slr_dataset_options(t->c.data), "dataset"};
    t->score = (float)slr_opt_real(t->o, "aesthetic_score");
    if (slr_opt_given(t->o, "train_inpainting") &&
        slr_opt_bool(t->o, "train_inpainting") != inpaint)
        return slr_fail(SDLORA_EINVAL, __func__, "%s is %s model: train_inpainting has to be %s",
                        path, inpaint ? "an inpainting" : "no inpainting",
                        inpaint ? "true" : "false");
    if (inpaint) /* one spelling, for metadata and for states */
        SLR_TRY(slr_options_set_text(t->opts, "train_inpainting", "true"));
    if (inpaint && slr_opt_given(t->o, "masks_per_image") &&
        slr_opt_int(t->o, "masks_per_image") > 0 && slr_opt_bool(data, "random_crop"))
        return slr_fail(SDLORA_EINVAL, __func__,
                        "masks_per_image and random_crop exclude each other: a masked picture that "
                        "is encoded beforehand has one crop");
    if (timesteps < SLR_TIMESTEPS && !slr_opt_has(t->o, "max_timestep"))
        slr_logf(&t->c.log, SLR_LOG_WARN,
                 "%s is made for timesteps below %d: max_timestep %d fits it", path, timesteps,
                 timesteps);
    return SDLORA_OK;
}

static int read_settings(slr_trainer *t)
{
    SLR_TRY(slr_opt_check_supported(t->o));
    SLR_TRY(slr_precision_read(&t->precision, t->o, t->c.devices));
    SLR_TRY(slr_options_set_text(t->opts, "mixed_precision", slr_policy_name(t->precision.model)));
    t->seed = slr_opt_has(t->o, "seed") ? (uint64_t)slr_opt_int(t->o, "seed") : 0;
    t->max_grad_norm = slr_opt_real(t->o, "max_grad_norm");
    SLR_TRY(read_kind(t));
    SLR_TRY(check_buckets(t, t->c.data));
    SLR_TRY(check_buckets(t, t->c.validation));
    SLR_TRY(read_rates(t));
    SLR_TRY(read_length(t));
    SLR_TRY(read_schedule(t));
    SLR_TRY(slr_trainer_read_text(t));
    if (slr_checkpoint_ztsnr(t->c.base) && !slr_opt_bool(t->o, "zero_terminal_snr"))
        slr_logf(&t->c.log, SLR_LOG_WARN,
                 "%s was trained on a schedule that ends without signal: zero_terminal_snr fits it",
                 slr_checkpoint_path(t->c.base));
    if (slr_opt_bool(t->o, "v_parameterization") &&
        slr_checkpoint_predict(t->c.base) != SLR_PREDICT_V)
        slr_logf(&t->c.log, SLR_LOG_WARN,
                 "v_parameterization: %s was opened as one that predicts noise, and samples are "
                 "drawn so: prediction_type v opens it as one of v",
                 slr_checkpoint_path(t->c.base));
    return slr_noise_init(&t->noise, t->o, slr_checkpoint_predict(t->c.base));
}

/* --- parts --- */

/* What must be the same for a resumed run to go on. */
static uint64_t model_digest(const slr_trainer_config *c)
{
    uint64_t seed = (uint64_t)slr_checkpoint_predict(c->base);
    seed = slr_trainer_digest(slr_checkpoint_part(c->base, SLR_PART_TE), seed);
    seed = slr_trainer_digest(slr_checkpoint_part(c->base, SLR_PART_TE2), seed);
    return slr_trainer_digest(
        slr_trainer_vae(c), slr_trainer_digest(slr_checkpoint_part(c->base, SLR_PART_UNET), seed));
}

int slr_trainer_validator(slr_trainer *t, slr_loader *loader)
{
    SLR_TRY(slr_trainer_open_held_out_text(t));
    slr_validator_config config = {.mem = t->m,
                                   .base = t->c.base,
                                   .network = t->c.network,
                                   .devices = t->c.devices,
                                   .policy = t->precision.model,
                                   .phase = t->c.phase,
                                   .phase_user = t->c.phase_user,
                                   .loader = loader,
                                   .data = t->c.validation,
                                   .text = slr_trainer_held_out_text(t),
                                   .inversion = &t->inversion,
                                   .noise = &t->noise,
                                   .seed =
                                       0, /* the same noise for all runs, so that losses compare */
                                   .score = t->score,
                                   .n_chunks = t->n_chunks};
    if (slr_opt_has(t->o, "max_validation_steps"))
        config.max_pictures = slr_opt_int(t->o, "max_validation_steps");
    return slr_validator_new(&t->validator, &config);
}

static int open_optim(slr_trainer *t)
{
    slr_step_config config = slr_trainer_step_config(t, 1, 1, 1);
    bool *live = slr_calloc(t->m, slr_network_slots(t->c.network) + 1, sizeof *live);
    int rc = live ? slr_step_live(&config, live) : SDLORA_ENOMEM;
    if (rc >= 0)
        rc = slr_optim_new(&t->optim, t->m, t->c.network, t->c.devices, t->o, t->part_mask, live);
    slr_free(t->m, live);
    return rc;
}

static int open_parts(slr_trainer *t)
{
    if (t->c.bpe)
        t->bpe = slr_bpe_ref(t->c.bpe);
    else
        SLR_TRY(slr_bpe_new(&t->bpe, t->m));
    SLR_TRY(slr_inversion_init(&t->inversion, t->m, t->bpe, t->c.network, t->o));
    SLR_TRY(slr_trainer_open_text(t));
    SLR_TRY(open_optim(t));
    t->grad = slr_calloc(t->m, slr_network_param_count(t->c.network), sizeof *t->grad);
    if (!t->grad)
        return SDLORA_ENOMEM;
    t->model = model_digest(&t->c);
    SLR_TRY(slr_outputs_init(&t->out, t->m, t->o, t->epochs));
    if (t->c.network && slr_network_is_hyper(t->c.network))
        t->out.ending = ".pt"; /* all that reads them, reads that */
    if (!t->out.dir && (t->out.every_epochs || t->out.every_steps || t->out.state_at_end))
        return slr_fail(SDLORA_EINVAL, __func__, "saving is asked for, but there is no output_dir");
    SLR_TRY(slr_meta_new(&t->hashes, t->m));
    t->run.losses = slr_calloc(t->m, (size_t)t->n_batches, sizeof(float));
    if (!t->run.losses)
        return SDLORA_ENOMEM;
    t->run.val_loss = NAN;
    t->run.started = slr_wall_time();
    slr_rng rng;
    slr_rng_init(&rng, t->seed ^ slr_clock_seed(), SLR_STREAM_INIT, UINT32_MAX);
    t->run.session = slr_rng_u32(&rng);
    return SDLORA_OK;
}

static int open_pictures(slr_trainer *t)
{
    SLR_TRY(slr_inversion_check(&t->inversion, t->bpe, t->m, t->c.data));
    SLR_TRY(slr_outputs_begin(&t->out));
    slr_feed_use use = slr_trainer_use(t), held_out = slr_trainer_held_out_use(t);
    SLR_TRY(slr_feed_open(&t->feed, &t->c, t->c.data, &use));
    t->loader = t->feed.loader;
    if (t->c.validation)
        SLR_TRY(slr_feed_open(&t->val_feed, &t->c, t->c.validation, &held_out));
    if (slr_opt_has(t->o, "resume")) /* captions are encoded with the state's network */
        SLR_TRY(slr_trainer_resume(t, slr_opt_text(t->o, "resume")));
    SLR_TRY(slr_trainer_keep_captions(t));
    return t->c.validation ? slr_trainer_validator(t, t->val_feed.loader) : SDLORA_OK;
}

/* Takes references to all that the configuration names. */
static int hold(slr_trainer *t, const slr_trainer_config *config)
{
    t->c = *config;
    slr_checkpoint_ref(t->c.base);
    slr_weights_ref(t->c.vae);
    slr_network_ref(t->c.network);
    slr_dataset_ref(t->c.data);
    slr_dataset_ref(t->c.validation);
    slr_devices_ref(t->c.devices);
    t->c.vae_path = config->vae_path ? slr_strdup(t->m, config->vae_path) : NULL;
    if (config->vae_path && !t->c.vae_path)
        return SDLORA_ENOMEM;
    if (config->opts)
        SLR_TRY(slr_options_copy(&t->opts, config->opts));
    else
        SLR_TRY(slr_options_new(&t->opts, t->m, "train"));
    t->o = (slr_opt){t->opts, "train"};
    return SDLORA_OK;
}

int slr_trainer_make(slr_trainer **out, const slr_trainer_config *config)
{
    *out = NULL;
    slr_trainer *t = slr_calloc(config->mem, 1, sizeof *t);
    if (!t)
        return SDLORA_ENOMEM;
    t->m = config->mem;
    int rc = hold(t, config);
    if (rc >= 0)
        rc = read_settings(t);
    if (rc >= 0)
        rc = open_parts(t);
    if (rc < 0) {
        slr_trainer_free(t);
        return rc;
    }
    *out = t;
    return SDLORA_OK;
}

int slr_trainer_new(slr_trainer **out, const slr_trainer_config *config)
{
    slr_trainer *t;
    *out = NULL;
    SLR_TRY(slr_trainer_make(&t, config));
    int rc = open_pictures(t);
    if (rc < 0) {
        slr_trainer_free(t);
        return rc;
    }
    *out = t;
    return SDLORA_OK;
}

void slr_trainer_free(slr_trainer *t)
{
    if (!t)
        return;
    for (int i = 0; i < SLR_MAX_GRAPHS; i++)
        slr_step_free(t->graph[i].step);
    slr_free(t->m, t->grad);
    slr_validator_free(t->validator);
    slr_captions_free(t->val_text);
    slr_captions_free(t->text);
    slr_inversion_free(&t->inversion);
    slr_optim_free(t->optim);
    slr_feed_close(&t->feed);
    slr_feed_close(&t->val_feed);
    slr_outputs_free(&t->out);
    slr_meta_free(t->hashes);
    slr_free(t->m, t->run.losses);
    slr_bpe_unref(t->bpe);
    slr_free(t->m, (void *)(uintptr_t)t->c.vae_path);
    slr_options_unref(t->opts);
    slr_devices_unref(t->c.devices);
    slr_dataset_unref(t->c.validation);
    slr_dataset_unref(t->c.data);
    slr_network_unref(t->c.network);
    slr_weights_unref(t->c.vae);
    slr_checkpoint_unref(t->c.base);
    slr_free(t->m, t);
}
