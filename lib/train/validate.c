/* SPDX-License-Identifier: MIT */
/* Runs the loss-only graph of each picture at ten fixed timesteps.  Refuses to know optimisers and
 * files. */
#include "train/validate.h"

#include <math.h>
#include <string.h>

#include "base/rng.h"
#include "base/status.h"

enum { N_TIMES = 10 };

struct slr_validator {
    slr_validator_config c;
    slr_step *step; /* of the last picture's size */
    int64_t h, w;
    bool *seen; /* one per picture: repeats count once */
};

int slr_validator_new(slr_validator **out, const slr_validator_config *config)
{
    *out = NULL;
    slr_validator *v = slr_calloc(config->mem, 1, sizeof *v);
    if (!v)
        return SDLORA_ENOMEM;
    v->c = *config;
    v->seen = slr_calloc(config->mem, slr_dataset_items(config->data) + 1, sizeof *v->seen);
    if (!v->seen) {
        slr_validator_free(v);
        return SDLORA_ENOMEM;
    }
    *out = v;
    return SDLORA_OK;
}

void slr_validator_free(slr_validator *v)
{
    if (!v)
        return;
    slr_step_free(v->step);
    slr_free(v->c.mem, v->seen);
    slr_free(v->c.mem, v);
}

static int step_for(slr_validator *v, int64_t h, int64_t w)
{
    if (v->step && v->h == h && v->w == w)
        return SDLORA_OK;
    slr_step_free(v->step);
    v->step = NULL;
    slr_step_config config = {.mem = v->c.mem,
                              .base = v->c.base,
                              .network = v->c.network,
                              .stack = v->c.stack,
                              .devices = v->c.devices,
                              .policy = v->c.policy,
                              .n = N_TIMES,
                              .h = h,
                              .w = w,
                              .n_chunks = v->c.n_chunks,
                              .loss_type = SDLORA_LOSS_L2,
                              .text_states = true};
    SLR_TRY(slr_step_new(&v->step, &config));
    v->h = h;
    v->w = w;
    return SDLORA_OK;
}

/* The middle of each of ten parts of the timesteps that the model works at. */
static int timestep(const slr_validator *v, int i)
{
    int part = slr_checkpoint_family(v->c.base)->timesteps / N_TIMES;
    return part / 2 + i * part;
}

int slr_validator_picture(slr_validator *v, size_t item, const char *caption, const float *latents,
                          const float *extra, int64_t h, int64_t w, const slr_cancel_flag *cancel,
                          double *loss)
{
    const slr_item *of = slr_dataset_item(v->c.data, item);
    float sizes[SLR_SAMPLE_SIZES];
    slr_sample_sizes(of->width, of->height, slr_dataset_bucket(v->c.data, of->bucket), false,
                     sizes);
    SLR_TRY(step_for(v, h, w));
    const slr_step_io *io = slr_step_io_of(v->step);
    int64_t floats = h * w * io->channels;
    float *noise = slr_alloc(v->c.mem, (size_t)floats * sizeof *noise);
    if (!noise)
        return SDLORA_ENOMEM;
    int rc = SDLORA_OK;
    for (int i = 0; rc >= 0 && i < N_TIMES; i++) {
        slr_rng rng;
        int t = timestep(v, i);
        slr_rng_init(&rng, v->c.seed, SLR_STREAM_EVAL, (uint32_t)(item * N_TIMES + (size_t)i));
        slr_rng_normal(&rng, noise, (size_t)floats);
        slr_noise_fixed(v->c.noise, latents, noise, floats, t, io->x + i * floats,
                        io->target + i * floats);
        io->t[i] = (float)t;
        io->weight[i] = 1.0f;
        slr_step_fill_sizes(v->step, sizes, v->c.score, i);
        slr_step_fill_extra(v->step, extra, i);
        rc = slr_captions_put(v->c.text, caption, cancel, io, i);
    }
    slr_free(v->c.mem, noise);
    SLR_TRY(rc);
    SLR_TRY(slr_step_run(v->step, cancel));
    *loss = 0;
    for (int i = 0; i < N_TIMES; i++)
        *loss += io->loss[i] / N_TIMES;
    return SDLORA_OK;
}

static int tell(const slr_validator *v, int64_t done, int64_t total)
{
    if (v->c.phase && v->c.phase(v->c.phase_user, "validate", done, total))
        return slr_fail(SDLORA_ECANCELED, __func__,
                        "the held-out loss was cancelled after %lld of %lld pictures",
                        (long long)done, (long long)total);
    return SDLORA_OK;
}

int slr_validator_run(slr_validator *v, const slr_cancel_flag *cancel, double *loss)
{
    double sum = 0;
    int64_t n = 0, items = (int64_t)slr_dataset_items(v->c.data), limit = v->c.max_pictures;
    int64_t total = limit && limit < items ? limit : items;
    memset(v->seen, 0, (size_t)items * sizeof *v->seen);
    SLR_TRY(tell(v, 0, total));
    for (int64_t i = 0; i < slr_dataset_batches_per_epoch(v->c.data); i++) {
        const slr_batch *b;
        SLR_TRY(slr_loader_get(v->c.loader, 0, i, 0, &b));
        int64_t floats = b->lh * b->lw * b->channels, more = b->lh * b->lw * (1 + b->channels);
        for (int64_t k = 0; k < b->n; k++) {
            char text[SLR_INVERSION_TEXT];
            double one;
            if (v->seen[b->items[k]] || n >= total)
                continue;
            v->seen[b->items[k]] = true;
            const char *caption =
                slr_inversion_caption(v->c.inversion, b->captions[k], b->items[k], text);
            SLR_TRY(slr_validator_picture(v, b->items[k], caption, b->latents + k * floats,
                                          b->extra ? b->extra + k * more : NULL, b->lh, b->lw,
                                          cancel, &one));
            sum += one;
            SLR_TRY(tell(v, ++n, total));
        }
    }
    if (!n)
        return slr_fail(SDLORA_EINVAL, __func__, "the held-out set has no pictures");
    *loss = sum / (double)n;
    return isfinite(*loss) ? SDLORA_OK
                           : slr_fail(SDLORA_ENAN, __func__, "the held-out loss is not finite");
}
