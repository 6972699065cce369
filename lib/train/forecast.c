/* SPDX-License-Identifier: MIT */
/* Measures what a forecast cannot count: a trainer without pictures is made, a few pictures are
 * encoded, and batches of random latents with real captions go through its graphs, in the order of
 * a real run, while the allocator's counter says what each part takes.  Updates have a gradient and
 * a rate of zero, which leaves every parameter as it is.  Refuses to know files' contents and JSON.
 */
#include "train/forecast.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/rng.h"
#include "base/status.h"
#include "io/file.h"
#include "io/hash.h"
#include "train/forecast_count.h"

static const double MAIN_SECONDS = 2, OTHER_SECONDS = 0.3, OTHERS_SECONDS = 6;
/* Writing through fsync, where nothing can be measured without writing. */
static const double DISK_RATE = 3e8, FILE_SECONDS = 5e-3;
enum { MAX_RUNS = 16, TEXT_TRIES = 4 };

typedef struct probe {
    slr_forecast *f;
    const slr_trainer_config *c;
    slr_trainer *t;
    slr_loader_needs needs, val_needs;
    int64_t done, total;
    uint64_t made;        /* bytes after which the trainer was there */
    double spent;         /* seconds for shapes but the first */
    double text_seconds;  /* of one caption */
    char *caption;        /* the one that is kept, with cache_text_encoder_outputs; else NULL */
    uint64_t encoders;    /* bytes of the text encoders that are given back before steps begin */
    double update;        /* seconds of one */
    double hash;          /* seconds per byte */
    uint64_t val_text;    /* bytes of the held-out pictures' states */
    uint64_t sample_file; /* bytes of the average one */
} probe;

static uint64_t used(const probe *p)
{
    return slr_mem_used(p->c->mem);
}

/* Bytes of physical memory that the process holds now; 0: not known. */
static uint64_t resident_bytes(void)
{
    char text[128];
    unsigned long long all, resident = 0;
    int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    text[n > 0 ? n : 0] = '\0';
    if (sscanf(text, "%llu %llu", &all, &resident) != 2)
        return 0;
    return resident * (uint64_t)sysconf(_SC_PAGESIZE);
}

static int tell(probe *p)
{
    int64_t done = p->done++;
    if (p->c->phase && p->c->phase(p->c->phase_user, "plan", done, p->total))
        return slr_fail(SDLORA_ECANCELED, __func__, "the plan was cancelled at part %lld of %lld",
                        (long long)done, (long long)p->total);
    return SDLORA_OK;
}

/* --- pictures --- */

static int look(probe *p, slr_dataset *data, bool stays, slr_loader_needs *needs, uint64_t *bytes)
{
    slr_trainer *t = p->t;
    slr_feed *feed = data == p->c->data ? &t->feed : &t->val_feed;
    uint64_t before = used(p);
    SLR_TRY(
        slr_feed_look(feed, p->c, data, t->precision.vae, t->seed, t->total, &t->cancel, needs));
    if (needs->pictures)
        *bytes = used(p) - before;
    if (!stays || !needs->each_epoch)
        slr_feed_close(feed);
    double each = needs->pictures ? needs->seconds / (double)needs->pictures : 0;
    p->f->seconds.load += needs->start > each ? needs->start - each : 0;
    return SDLORA_OK;
}

static int look_at_pictures(probe *p)
{
    slr_forecast *f = p->f;
    SLR_TRY(look(p, p->c->data, true, &p->needs, &f->memory.encoder));
    f->memory.latents = p->needs.latent_bytes;
    double epochs = p->needs.each_epoch ? (double)f->batches / (double)f->batches_per_epoch : 1;
    f->encoded = (int64_t)((double)p->needs.pictures * epochs);
    f->seconds.encode = p->needs.seconds * epochs;
    if (!p->c->validation)
        return SDLORA_OK;
    uint64_t bytes = 0;
    SLR_TRY(look(p, p->c->validation, false, &p->val_needs, &bytes));
    f->encoded += p->val_needs.pictures;
    f->seconds.encode += p->val_needs.seconds;
    f->memory.validation = p->val_needs.latent_bytes;
    if (bytes > f->memory.encoder)
        f->memory.encoder = bytes;
    return SDLORA_OK;
}

/* --- steps --- */

/* A batch of a shape: random latents, the captions of pictures of that bucket. */
typedef struct fake {
    slr_batch b;
    float *latents, *weight, *sizes;
    const char **captions;
    size_t *items;
} fake;

static void fake_free(fake *k, slr_mem *m)
{
    slr_free(m, k->latents);
    slr_free(m, k->weight);
    slr_free(m, k->sizes);
    slr_free(m, k->captions);
    slr_free(m, k->items);
}

static bool in_bucket(const slr_dataset *d, size_t item, int64_t w, int64_t h)
{
    const slr_bucket *b = slr_dataset_bucket(d, slr_dataset_item(d, item)->bucket);
    return b->width == w && b->height == h;
}

static int fake_make(fake *k, const probe *p, const slr_forecast_shape *s, int factor)
{
    const slr_trainer *t = p->t;
    const slr_dataset *d = t->c.data;
    int64_t lw = s->width / factor, lh = s->height / factor, floats = s->n * lw * lh * 4;
    *k = (fake){.latents = slr_calloc(t->m, (size_t)floats, sizeof *k->latents),
                .weight = slr_calloc(t->m, (size_t)s->n, sizeof *k->weight),
                .sizes = slr_calloc(t->m, (size_t)s->n, SLR_SAMPLE_SIZES * sizeof *k->sizes),
                .captions = slr_calloc(t->m, (size_t)s->n, sizeof *k->captions),
                .items = slr_calloc(t->m, (size_t)s->n, sizeof *k->items)};
    if (!k->latents || !k->weight || !k->sizes || !k->captions || !k->items)
        return SDLORA_ENOMEM;
    slr_rng rng;
    slr_rng_init(&rng, 0, SLR_STREAM_EVAL, 0);
    slr_rng_normal(&rng, k->latents, (size_t)floats);
    size_t item = 0;
    for (int64_t i = 0; i < s->n; i++, item++) {
        while (!in_bucket(d, item % slr_dataset_items(d), s->width, s->height))
            item++;
        k->items[i] = item % slr_dataset_items(d);
        k->captions[i] = p->caption ? p->caption : slr_dataset_item(d, k->items[i])->caption;
        k->weight[i] = 1;
    }
    k->b = (slr_batch){.n = s->n,
                       .w = s->width,
                       .h = s->height,
                       .lw = lw,
                       .lh = lh,
                       .channels = 4,
                       .latents = k->latents,
                       .captions = k->captions,
                       .loss_weight = k->weight,
                       .sizes = k->sizes,
                       .items = k->items};
    return SDLORA_OK;
}

/* Mean seconds of a batch after one that warms up. */
static int time_batch(probe *p, const fake *k, double limit, double *first, double *mean)
{
    double loss, start = slr_clock(), all = 0;
    int n = 0;
    SLR_TRY(slr_trainer_batch(p->t, &k->b, &loss));
    *first = slr_clock() - start;
    for (start = slr_clock(); n < MAX_RUNS && (n == 0 || all < limit); n++) {
        SLR_TRY(slr_trainer_batch(p->t, &k->b, &loss));
        all = slr_clock() - start;
    }
    *mean = all / n;
    return SDLORA_OK;
}

/* One caption stays for all batches, as all would in a run, and the encoders go. */
static int close_text(probe *p)
{
    slr_forecast_memory *m = &p->f->memory;
    SLR_TRY(slr_captions_keep(p->t->text, p->caption, NULL, &p->t->cancel));
    slr_captions_close(p->t->text);
    p->encoders = m->text;
    m->text = 0;
    return SDLORA_OK;
}

/* Seconds of a caption, and bytes of the encoder's graph. */
static int time_text(probe *p, const fake *k)
{
    slr_trainer *t = p->t;
    slr_caption_states states;
    if (!t->text)
        return SDLORA_OK;
    uint64_t before = used(p);
    SLR_TRY(slr_captions_get(t->text, k->captions[0], &t->cancel, &states));
    slr_captions_forget(t->text);
    p->f->memory.text = used(p) - before;
    double start = slr_clock();
    for (int i = 0; i < TEXT_TRIES; i++) {
        slr_captions_forget(t->text);
        SLR_TRY(slr_captions_get(t->text, k->captions[(int64_t)i % k->b.n], &t->cancel, &states));
    }
    p->text_seconds = (slr_clock() - start) / TEXT_TRIES;
    slr_captions_forget(t->text);
    return t->cache_text ? close_text(p) : SDLORA_OK;
}

/* The sum of squares, the update and max-norm scaling, without effect. */
static int time_update(probe *p)
{
    slr_trainer *t = p->t;
    size_t bytes = slr_network_param_count(t->c.network) * sizeof(float);
    const double lr[SLR_PART_COUNT] = {0};
    char hex[65];
    float *copy = slr_alloc(t->m, bytes);
    if (!copy)
        return SDLORA_ENOMEM;
    memcpy(copy, slr_network_params(t->c.network), bytes);
    int rc = SDLORA_OK;
    for (int i = 0; rc >= 0 && i < 2; i++) { /* the first makes the plans' memory */
        double start = slr_clock(), norm;
        memset(slr_optim_grad(t->optim), 0, bytes);
        rc = slr_optim_norm(t->optim, &norm);
        if (rc >= 0)
            rc = slr_optim_apply(t->optim, 1, lr, 1);
        if (rc >= 0)
            rc = slr_trainer_scale_norms(t);
        p->update = slr_clock() - start;
    }
    double start = slr_clock();
    if (rc >= 0)
        rc = slr_hash_bytes(copy, bytes, hex);
    p->hash = (slr_clock() - start) / (double)bytes;
    if (memcmp(copy, slr_network_params(t->c.network), bytes) != 0) /* scaled norms */
        memcpy(slr_network_params(t->c.network), copy, bytes);
    slr_free(t->m, copy);
    return rc;
}

static size_t main_shape(const slr_forecast *f)
{
    size_t best = 0;
    for (size_t i = 1; i < f->n_shapes; i++)
        if (f->shapes[i].batches * f->shapes[i].n > f->shapes[best].batches * f->shapes[best].n)
            best = i;
    return best;
}

/* What a graph holds by itself once the weights are packed. */
static int graph_bytes(probe *p, const fake *k, uint64_t *bytes)
{
    slr_step *step;
    slr_step_config config = slr_trainer_step_config(p->t, k->b.n, k->b.lh, k->b.lw);
    uint64_t before = used(p);
    SLR_TRY(slr_step_new(&step, &config));
    *bytes = used(p) - before;
    slr_step_free(step);
    return SDLORA_OK;
}

static void add_plan(probe *p, slr_forecast_shape *s, slr_step *step, uint64_t *arena,
                     uint64_t *scratch)
{
    slr_plan_stats stats;
    slr_plan_get_stats(slr_step_plan(step), &stats);
    s->flops = stats.flops;
    *arena = stats.arena_bytes > *arena ? stats.arena_bytes : *arena;
    *scratch = stats.scratch_bytes > *scratch ? stats.scratch_bytes : *scratch;
    p->f->memory.workspace = *arena + *scratch;
}

/* The shape that most pictures have: everything of a step. */
static int probe_main(probe *p, slr_forecast_shape *s, const fake *k, uint64_t *arena,
                      uint64_t *scratch)
{
    slr_forecast_memory *memory = &p->f->memory;
    slr_step *step;
    double first, start = slr_clock();
    uint64_t before = used(p);
    SLR_TRY(time_text(p, k));
    SLR_TRY(slr_trainer_graph(p->t, s->n, k->b.lh, k->b.lw, &step));
    p->f->seconds.load += slr_clock() - start - TEXT_TRIES * p->text_seconds;
    uint64_t taken = used(p) - before - memory->text;
    SLR_TRY(graph_bytes(p, k, &memory->graphs));
    memory->packed += taken - memory->graphs;
    add_plan(p, s, step, arena, scratch);
    SLR_TRY(time_batch(p, k, MAIN_SECONDS, &first, &s->seconds));
    s->measured = true;
    if (p->t->text)
        slr_captions_forget(p->t->text);
    p->f->seconds.load += first > s->seconds ? first - s->seconds : 0;
    SLR_TRY(time_update(p));
    uint64_t resident = resident_bytes(), own = used(p);
    memory->process = resident > own ? resident - own : 0;
    return SDLORA_OK;
}

/* Others are planned, and run where that takes little. */
static int probe_other(probe *p, slr_forecast_shape *s, const slr_forecast_shape *like,
                       const fake *k, uint64_t *arena, uint64_t *scratch)
{
    slr_step *step;
    double first, start = slr_clock();
    uint64_t before = used(p);
    SLR_TRY(slr_trainer_graph(p->t, s->n, k->b.lh, k->b.lw, &step));
    p->f->memory.graphs += used(p) - before;
    p->f->seconds.load += slr_clock() - start;
    add_plan(p, s, step, arena, scratch);
    s->seconds = like->seconds * s->flops / like->flops;
    if (p->spent + 2 * s->seconds > OTHERS_SECONDS)
        return SDLORA_OK;
    SLR_TRY(time_batch(p, k, OTHER_SECONDS, &first, &s->seconds));
    if (p->t->text)
        slr_captions_forget(p->t->text);
    s->measured = true;
    p->spent += slr_clock() - start;
    return SDLORA_OK;
}

static int probe_shapes(probe *p)
{
    slr_forecast *f = p->f;
    size_t main = main_shape(f), planned = 1;
    uint64_t arena = 0, scratch = 0;
    int factor;
    SLR_TRY(slr_vae_factor(slr_trainer_vae(p->c), &factor));
    for (size_t i = 0; i <= f->n_shapes; i++) {
        slr_forecast_shape *like = &f->shapes[main], *s = i ? &f->shapes[i - 1] : like;
        fake k;
        if (i && s == like)
            continue;
        SLR_TRY(tell(p));
        if (planned == SLR_MAX_GRAPHS) {
            s->seconds = like->seconds * (double)(s->n * s->width * s->height) /
                         (double)(like->n * like->width * like->height);
            continue;
        }
        int rc = fake_make(&k, p, s, 1 << factor);
        if (rc >= 0)
            rc = i ? probe_other(p, s, like, &k, &arena, &scratch)
                   : probe_main(p, s, &k, &arena, &scratch);
        fake_free(&k, p->t->m);
        SLR_TRY(rc);
        planned += i > 0;
    }
    return SDLORA_OK;
}

/* --- between steps --- */

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
static int time_validation(probe *p, const float *latents, const slr_bucket *b, int factor,
                           double *seconds)
{
    double loss;
    for (int i = 0; i < 2; i++) {
        double start = slr_clock();
        const slr_item *item = slr_dataset_item(p->c->validation, 0);
        slr_captions_forget(slr_trainer_held_out_text(p->t));
        SLR_TRY(slr_validator_picture(p->t->validator, 0, p->caption ? p->caption : item->caption,
                                      latents, b->height / factor, b->width / factor, &p->t->cancel,
                                      &loss));
        *seconds = slr_clock() - start;
    }
    return SDLORA_OK;
}

static int probe_validation(probe *p)
{
    slr_trainer *t = p->t;
    const slr_dataset *d = p->c->validation;
    if (!d || !p->f->validations)
        return SDLORA_OK;
    SLR_TRY(tell(p));
    int factor;
    SLR_TRY(slr_vae_factor(slr_trainer_vae(p->c), &factor));
    factor = 1 << factor;
    uint64_t before = used(p);
    SLR_TRY(slr_trainer_validator(t, NULL));
    const slr_bucket *b = biggest_bucket(d);
    int64_t pictures = (int64_t)slr_dataset_items(d), encoded;
    if (slr_opt_has(t->o, "max_validation_steps") &&
        slr_opt_int(t->o, "max_validation_steps") < pictures)
        pictures = slr_opt_int(t->o, "max_validation_steps");
    float *latents = slr_calloc(t->m, (size_t)b->width * (size_t)b->height, sizeof *latents);
    double one = 0;
    int rc = latents ? time_validation(p, latents, b, factor, &one) : SDLORA_ENOMEM;
    slr_free(t->m, latents);
    uint64_t states = slr_captions_floats(slr_trainer_held_out_text(t)) * sizeof(float), kept;
    slr_forecast_texts(&p->val_needs, pictures, 0, states, &encoded, &kept);
    p->f->memory.validation += used(p) - before + kept;
    one *= mean_pixels(d) / ((double)b->width * b->height);
    p->f->seconds.validation = one * (double)(pictures * p->f->validations);
    return rc;
}

/* --- samples --- */

/* Seconds of one prediction for a picture, with or without guidance. */
static int time_prediction(probe *p, const slr_forecast_picture *s, int factor, double *seconds)
{
    slr_step *step;
    slr_step_config config =
        slr_trainer_step_config(p->t, s->guided ? 2 : 1, s->height / factor, s->width / factor);
    config.part_mask = 0;
    config.grad = NULL;
    config.text_states = true;
    config.recompute = false;
    uint64_t before = used(p);
    SLR_TRY(slr_step_new(&step, &config));
    int rc = SDLORA_OK;
    for (int i = 0; rc >= 0 && i < 2; i++) {
        double start = slr_clock();
        rc = slr_step_run(step, &p->t->cancel);
        *seconds = slr_clock() - start;
    }
    p->f->memory.samples = used(p) - before;
    slr_step_free(step);
    return rc;
}

/* Seconds of the autoencoder's other half. */
static int time_decoder(probe *p, const slr_forecast_picture *s, int factor, double *seconds)
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
    uint64_t before = used(p);
    float *latents = slr_calloc(t->m, (size_t)(h * w * 4), sizeof *latents);
    float *image = slr_calloc(t->m, pixels, sizeof *image);
    int rc = latents && image ? SDLORA_OK : SDLORA_ENOMEM;
    for (int i = 0; rc >= 0 && i < 2; i++) {
        double start = slr_clock();
        rc = slr_vae_decode(vae, latents, 1, h, w, image, &t->cancel);
        *seconds = slr_clock() - start;
    }
    p->f->memory.samples += used(p) - before + p->encoders; /* prompts are texts too */
    slr_free(t->m, latents);
    slr_free(t->m, image);
    slr_vae_runner_free(vae);
    return rc;
}

static int probe_samples(probe *p, const slr_forecast_picture *s, size_t n)
{
    double step, decode, all = 0, bytes = 0;
    int factor;
    size_t big = 0;
    if (!p->f->samples)
        return SDLORA_OK;
    SLR_TRY(tell(p));
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

/* --- sums --- */

/* The model's files are hashed for the metadata of the first network that is saved. */
static double save_seconds(const probe *p)
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

static void sum_seconds(probe *p)
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

static void sum_memory(probe *p)
{
    slr_forecast_memory *m = &p->f->memory;
    uint64_t encoder = m->encoder > p->encoders + m->text ? m->encoder : p->encoders + m->text;
    uint64_t before = p->made + encoder + m->latents;
    uint64_t after = m->packed + m->graphs + m->workspace + m->optimizer + m->text + m->latents +
                     m->validation + m->samples + (p->needs.each_epoch ? m->encoder : 0);
    m->peak = m->process + m->handles + (before > after ? before : after);
    m->mapped = tensor_bytes(slr_trainer_vae(p->c));
    for (int part = 0; part < SLR_PART_VAE; part++)
        m->mapped += tensor_bytes(slr_checkpoint_part(p->c->base, part));
    if (m->mapped <= m->handles) /* random weights, or an archive that was unpacked */
        m->mapped = 0;
    m->network = slr_network_param_count(p->c->network) * sizeof(float);
}

/* Captions of all steps; with the text encoder in the graph there are none apart. */
static void count_texts(probe *p)
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

static int make_trainer(probe *p)
{
    slr_forecast_memory *m = &p->f->memory;
    double start = slr_clock();
    m->handles = used(p);
    SLR_TRY(slr_trainer_make(&p->t, p->c));
    if (p->t->cache_text)
        SLR_TRY(slr_dataset_caption(p->c->data, p->t->m, 0, &p->caption));
    p->f->seconds.load = slr_clock() - start;
    p->made = used(p) - m->handles;
    m->optimizer = 4 * slr_network_param_count(p->c->network) * sizeof(float);
    m->packed = p->made > m->optimizer ? p->made - m->optimizer : 0;
    return SDLORA_OK;
}

static int run(probe *p, const slr_forecast_picture *pictures, size_t n)
{
    SLR_TRY(tell(p));
    SLR_TRY(make_trainer(p));
    SLR_TRY(slr_forecast_lengths(p->f, p->t));
    slr_forecast_events(p->f, p->t, n);
    p->total = 3 + (int64_t)p->f->n_shapes + (p->f->validations > 0) + (p->f->samples > 0);
    SLR_TRY(tell(p));
    SLR_TRY(look_at_pictures(p));
    SLR_TRY(probe_shapes(p));
    count_texts(p);
    SLR_TRY(probe_validation(p));
    SLR_TRY(probe_samples(p, pictures, n));
    SLR_TRY(slr_forecast_disk(p->f, p->t, &p->needs, p->sample_file));
    sum_seconds(p);
    sum_memory(p);
    return tell(p);
}

int slr_forecast_make(slr_forecast *out, const slr_trainer_config *config,
                      const slr_forecast_picture *pictures, size_t n_pictures)
{
    probe p = {.f = out, .c = config, .total = 3};
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
