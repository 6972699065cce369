/* SPDX-License-Identifier: MIT */
/* Measures what a forecast cannot count: a trainer without pictures is made, its parts are timed
 * one after the other (forecast_steps.c, forecast_between.c), and here is summed what a whole run
 * would take.  Refuses to know files' contents and JSON. */
#include "train/forecast.h"

#include "base/clock.h"
#include "base/status.h"
#include "io/file.h"
#include "train/forecast_count.h"
#include "train/forecast_probe.h"

/* Writing through fsync, where nothing can be measured without writing. */
static const double DISK_RATE = 3e8, FILE_SECONDS = 5e-3;

int slr_probe_tell(slr_probe *p)
{
    int64_t done = p->done++;
    if (p->c->phase && p->c->phase(p->c->phase_user, "plan", done, p->total))
        return slr_fail(SDLORA_ECANCELED, __func__, "the plan was cancelled at part %lld of %lld",
                        (long long)done, (long long)p->total);
    return SDLORA_OK;
}

/* --- sums --- */

/* The model's files are hashed for the metadata of the first network that is saved. */
static double save_seconds(const slr_probe *p)
{
    const slr_forecast *f = p->f;
    const slr_forecast_file *network = &f->file[SLR_FORECAST_NETWORK];
    double all = 0;
    for (int i = 0; i <= SLR_FORECAST_STATE; i++)
        all += (double)f->file[i].written * (FILE_SECONDS + (double)f->file[i].bytes / DISK_RATE);
    all += 2 * p->hash * (double)network->written * (double)network->bytes;
    const char *paths[] = {slr_checkpoint_path(p->c->base), p->c->vae_path};
    for (size_t i = 0; network->written && i < sizeof paths / sizeof *paths; i++) {
        uint64_t bytes;
        if (paths[i] && slr_file_exists(paths[i]) && slr_file_size(paths[i], &bytes) >= 0)
            all += p->hash * (double)bytes;
    }
    return all;
}

static void sum_seconds(slr_probe *p)
{
    slr_forecast *f = p->f;
    slr_forecast_seconds *s = &f->seconds;
    double epoch = 0;
    for (size_t i = 0; i < f->n_shapes; i++)
        epoch += (double)f->shapes[i].batches * f->shapes[i].seconds;
    s->steps = epoch * (double)f->batches / (double)f->batches_per_epoch;
    s->optimizer = p->update * (double)f->steps;
    s->step = (s->steps + s->optimizer) / (double)f->steps;
    s->text = p->text_seconds * (double)f->captions;
    s->save = save_seconds(p);
    s->total = s->load + s->encode + s->text + s->steps + s->optimizer + s->validation +
               s->samples + s->save;
}

static uint64_t tensor_bytes(const slr_weights *w)
{
    uint64_t bytes = 0;
    for (size_t i = 0; w && i < slr_weights_count(w); i++) {
        const slr_tensor *t;
        slr_weights_at(w, i, &t);
        bytes += slr_tensor_bytes(t);
    }
    return bytes;
}

static void sum_memory(slr_probe *p)
{
    slr_forecast_memory *m = &p->f->memory;
    uint64_t encoder = m->encoder > p->encoders + m->text ? m->encoder : p->encoders + m->text;
    uint64_t before = p->made + encoder + m->latents;
    uint64_t after = m->packed + m->graphs + m->workspace + m->optimizer + m->text + m->latents +
                     m->validation + m->samples + (p->needs.epoch_pictures ? m->encoder : 0);
    m->peak = m->process + m->handles + (before > after ? before : after);
    m->mapped = tensor_bytes(slr_trainer_vae(p->c));
    for (int part = 0; part < SLR_PART_VAE; part++)
        m->mapped += tensor_bytes(slr_checkpoint_part(p->c->base, part));
    if (m->mapped <= m->handles) /* random weights, or an archive that was unpacked */
        m->mapped = 0;
    m->network = slr_network_param_count(p->c->network) * sizeof(float);
}

/* Captions of all steps; with the text encoder in the graph there are none apart. */
static void count_texts(slr_probe *p)
{
    slr_forecast *f = p->f;
    int64_t each = 0;
    uint64_t kept;
    if (!p->t->text)
        return;
    for (size_t i = 0; i < f->n_shapes; i++)
        each += f->shapes[i].batches * f->shapes[i].n;
    if (p->t->cache_text) {
        f->captions = p->needs.captions + p->val_needs.captions;
        f->memory.text += (uint64_t)f->captions * slr_captions_floats(p->t->text) * sizeof(float);
        return;
    }
    int64_t uses = (int64_t)((double)each * (double)f->batches / (double)f->batches_per_epoch);
    slr_forecast_texts(&p->needs, uses, uses > each ? each : 0,
                       slr_captions_floats(p->t->text) * sizeof(float), &f->captions, &kept);
    f->memory.text += kept;
}

static int make_trainer(slr_probe *p)
{
    slr_forecast_memory *m = &p->f->memory;
    double start = slr_clock();
    m->handles = slr_probe_used(p);
    SLR_TRY(slr_trainer_make(&p->t, p->c));
    if (p->t->cache_text)
        SLR_TRY(slr_dataset_caption(p->c->data, p->t->m, 0, &p->caption));
    p->f->seconds.load = slr_clock() - start;
    p->made = slr_probe_used(p) - m->handles;
    m->optimizer = 4 * slr_network_param_count(p->c->network) * sizeof(float);
    m->packed = p->made > m->optimizer ? p->made - m->optimizer : 0;
    return SDLORA_OK;
}

static int run(slr_probe *p, const slr_forecast_picture *pictures, size_t n)
{
    SLR_TRY(slr_probe_tell(p));
    SLR_TRY(make_trainer(p));
    SLR_TRY(slr_forecast_lengths(p->f, p->t));
    slr_forecast_events(p->f, p->t, n);
    p->total = 3 + (int64_t)p->f->n_shapes + (p->f->validations > 0) + (p->f->samples > 0);
    SLR_TRY(slr_probe_tell(p));
    SLR_TRY(slr_probe_pictures(p));
    SLR_TRY(slr_probe_shapes(p));
    count_texts(p);
    SLR_TRY(slr_probe_validation(p));
    SLR_TRY(slr_probe_samples(p, pictures, n));
    SLR_TRY(slr_forecast_disk(p->f, p->t, &p->needs, p->sample_file));
    sum_seconds(p);
    sum_memory(p);
    return slr_probe_tell(p);
}

int slr_forecast_make(slr_forecast *out, const slr_trainer_config *config,
                      const slr_forecast_picture *pictures, size_t n_pictures)
{
    slr_probe p = {.f = out, .c = config, .total = 3};
    *out = (slr_forecast){0};
    int rc = slr_trainer_vae(config) ? run(&p, pictures, n_pictures)
                                     : slr_fail(SDLORA_EINVAL, __func__, "%s has no VAE: give one",
                                                slr_checkpoint_path(config->base));
    slr_free(config->mem, p.caption);
    slr_trainer_free(p.t);
    return rc;
}

void slr_forecast_clear(slr_forecast *f, slr_mem *m)
{
    slr_free(m, f->shapes);
    f->shapes = NULL;
    f->n_shapes = 0;
}
