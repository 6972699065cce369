/* SPDX-License-Identifier: MIT */
/* What happens between steps: one picture's held-out loss, one prediction and one decoded picture
 * of the samples are timed, and stand for all. */
#include "train/forecast_probe.h"

#include "base/clock.h"
#include "base/status.h"
#include "train/forecast_count.h"

/* --- the held-out loss --- */

static const slr_bucket *biggest_bucket(const slr_dataset *d)
{
    const slr_bucket *big = slr_dataset_bucket(d, 0);
    for (size_t i = 1; i < slr_dataset_buckets(d); i++) {
        const slr_bucket *b = slr_dataset_bucket(d, i);
        if ((int64_t)b->width * b->height > (int64_t)big->width * big->height)
            big = b;
    }
    return big;
}

static double mean_pixels(const slr_dataset *d)
{
    double sum = 0;
    for (size_t i = 0; i < slr_dataset_items(d); i++) {
        const slr_bucket *b = slr_dataset_bucket(d, slr_dataset_item(d, i)->bucket);
        sum += (double)b->width * b->height;
    }
    return sum / (double)slr_dataset_items(d);
}

/* The held-out loss of one picture, each time with a caption that is not encoded yet. */
static int time_validation(slr_probe *p, const float *latents, const float *extra,
                           const slr_bucket *b, int factor, double *seconds)
{
    double loss;
    for (int i = 0; i < 2; i++) {
        double start = slr_clock();
        const slr_item *item = slr_dataset_item(p->c->validation, 0);
        slr_captions_forget(slr_trainer_held_out_text(p->t));
        SLR_TRY(slr_validator_picture(p->t->validator, 0, p->caption ? p->caption : item->caption,
                                      latents, extra, b->height / factor, b->width / factor,
                                      &p->t->cancel, &loss));
        *seconds = slr_clock() - start;
    }
    return SDLORA_OK;
}

int slr_probe_validation(slr_probe *p)
{
    slr_trainer *t = p->t;
    const slr_dataset *d = p->c->validation;
    if (!d || !p->f->validations)
        return SDLORA_OK;
    SLR_TRY(slr_probe_tell(p));
    int factor;
    SLR_TRY(slr_vae_factor(slr_trainer_vae(p->c), &factor));
    factor = 1 << factor;
    uint64_t before = slr_probe_used(p);
    SLR_TRY(slr_trainer_validator(t, NULL));
    const slr_bucket *b = biggest_bucket(d);
    int64_t pictures = (int64_t)slr_dataset_items(d), encoded;
    if (slr_opt_has(t->o, "max_validation_steps") &&
        slr_opt_int(t->o, "max_validation_steps") < pictures)
        pictures = slr_opt_int(t->o, "max_validation_steps");
    size_t pixels = (size_t)(b->width / factor) * (size_t)(b->height / factor);
    float *latents = slr_calloc(t->m, pixels * 4, sizeof *latents);
    float *extra = slr_calloc(t->m, pixels * (1 + 4), sizeof *extra);
    double one = 0;
    int rc = latents && extra ? time_validation(p, latents, extra, b, factor, &one) : SDLORA_ENOMEM;
    slr_free(t->m, latents);
    slr_free(t->m, extra);
    uint64_t states = slr_captions_floats(slr_trainer_held_out_text(t)) * sizeof(float), kept;
    slr_forecast_texts(&p->val_needs, pictures, 0, states, &encoded, &kept);
    p->f->memory.validation += slr_probe_used(p) - before + kept;
    one *= mean_pixels(d) / ((double)b->width * b->height);
    p->f->seconds.validation = one * (double)(pictures * p->f->validations);
    return rc;
}

/* --- samples --- */

/* Seconds of one prediction for a picture, with or without guidance. */
static int time_prediction(slr_probe *p, const slr_forecast_picture *s, int factor, double *seconds)
{
    slr_step *step;
    slr_step_config config =
        slr_trainer_step_config(p->t, s->guided ? 2 : 1, s->height / factor, s->width / factor);
    config.part_mask = 0;
    config.grad = NULL;
    config.text_states = true;
    config.recompute = false;
    uint64_t before = slr_probe_used(p);
    SLR_TRY(slr_step_new(&step, &config));
    int rc = SDLORA_OK;
    for (int i = 0; rc >= 0 && i < 2; i++) {
        double start = slr_clock();
        rc = slr_step_run(step, &p->t->cancel);
        *seconds = slr_clock() - start;
    }
    p->f->memory.samples = slr_probe_used(p) - before;
    slr_step_free(step);
    return rc;
}

/* Seconds of the autoencoder's other half. */
static int time_decoder(slr_probe *p, const slr_forecast_picture *s, int factor, double *seconds)
{
    slr_trainer *t = p->t;
    slr_vae_runner *vae;
    int64_t h = s->height / factor, w = s->width / factor;
    size_t pixels = (size_t)(s->height * s->width * 3);
    SLR_TRY(slr_vae_runner_new(&vae, slr_trainer_vae(p->c), slr_checkpoint_family(p->c->base),
                               p->c->devices));
    slr_vae_runner_set_policy(vae, t->precision.vae);
    if (slr_opt_bool(t->o, "vae_tiling")) /* cannot fail: the side is the runner's own */
        (void)slr_vae_runner_set_tiling(vae, slr_vae_runner_tile(vae));
    uint64_t before = slr_probe_used(p);
    float *latents = slr_calloc(t->m, (size_t)(h * w * 4), sizeof *latents);
    float *image = slr_calloc(t->m, pixels, sizeof *image);
    int rc = latents && image ? SDLORA_OK : SDLORA_ENOMEM;
    for (int i = 0; rc >= 0 && i < 2; i++) {
        double start = slr_clock();
        rc = slr_vae_decode(vae, latents, 1, h, w, image, &t->cancel);
        *seconds = slr_clock() - start;
    }
    p->f->memory.samples += slr_probe_used(p) - before + p->encoders; /* prompts are texts too */
    slr_free(t->m, latents);
    slr_free(t->m, image);
    slr_vae_runner_free(vae);
    return rc;
}

int slr_probe_samples(slr_probe *p, const slr_forecast_picture *s, size_t n)
{
    double step, decode, all = 0, bytes = 0;
    int factor;
    size_t big = 0;
    if (!p->f->samples)
        return SDLORA_OK;
    SLR_TRY(slr_probe_tell(p));
    SLR_TRY(slr_vae_factor(slr_trainer_vae(p->c), &factor));
    for (size_t i = 1; i < n; i++)
        if (s[i].width * s[i].height > s[big].width * s[big].height)
            big = i;
    SLR_TRY(time_prediction(p, &s[big], 1 << factor, &step));
    SLR_TRY(time_decoder(p, &s[big], 1 << factor, &decode));
    for (size_t i = 0; i < n; i++) {
        double share = (double)(s[i].width * s[i].height) / (double)(s[big].width * s[big].height);
        double half = (double)(1 + s[i].guided) / (double)(1 + s[big].guided);
        all += share * ((double)s[i].steps * step * half + decode);
        bytes += 1.5 * (double)(s[i].width * s[i].height); /* a photograph as PNG: half of RGB */
    }
    p->f->seconds.samples = all / (double)n * (double)p->f->samples;
    p->sample_file = (uint64_t)(bytes / (double)n);
    return SDLORA_OK;
}
