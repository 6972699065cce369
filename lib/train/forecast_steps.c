/* SPDX-License-Identifier: MIT */
/* What steps and the pictures before them take: a few pictures are encoded, and batches of random
 * latents with real captions go through the trainer's graphs, in the order of a real run, while the
 * allocator's counter says what each part takes.  Updates have a gradient and a rate of zero, which
 * leaves every parameter as it is. */
#include "train/forecast_probe.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/rng.h"
#include "base/status.h"
#include "io/hash.h"

static const double MAIN_SECONDS = 2, OTHER_SECONDS = 0.3, OTHERS_SECONDS = 6;
enum { MAX_RUNS = 16, TEXT_TRIES = 4 };

/* --- pictures --- */

static int look(slr_probe *p, slr_dataset *data, bool stays, slr_loader_needs *needs,
                uint64_t *bytes)
{
    slr_trainer *t = p->t;
    slr_feed *feed = stays ? &t->feed : &t->val_feed; /* both may show the same set */
    slr_feed_use use = stays ? slr_trainer_use(t) : slr_trainer_held_out_use(t);
    uint64_t before = slr_probe_used(p);
    SLR_TRY(slr_feed_look(feed, p->c, data, &use, needs));
    if (needs->pictures || needs->epoch_pictures)
        *bytes = slr_probe_used(p) - before;
    if (!stays || !needs->epoch_pictures)
        slr_feed_close(feed);
    p->f->seconds.load += needs->start;
    return SDLORA_OK;
}

int slr_probe_pictures(slr_probe *p)
{
    slr_forecast *f = p->f;
    SLR_TRY(look(p, p->c->data, true, &p->needs, &f->memory.encoder));
    f->memory.latents = p->needs.latent_bytes;
    double epochs = (double)f->batches / (double)f->batches_per_epoch;
    f->encoded = p->needs.pictures + (int64_t)((double)p->needs.epoch_pictures * epochs);
    f->seconds.encode = p->needs.seconds + p->needs.epoch_seconds * epochs;
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
    float *latents, *extra, *weight, *sizes;
    const char **captions;
    size_t *items;
} fake;

static void fake_free(fake *k, slr_mem *m)
{
    slr_free(m, k->latents);
    slr_free(m, k->extra);
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

static int fake_make(fake *k, const slr_probe *p, const slr_forecast_shape *s, int factor)
{
    const slr_trainer *t = p->t;
    const slr_dataset *d = t->c.data;
    int64_t lw = s->width / factor, lh = s->height / factor, pixels = s->n * lw * lh;
    int64_t floats = pixels * 4;
    *k = (fake){.latents = slr_calloc(t->m, (size_t)floats, sizeof *k->latents),
                .extra = slr_calloc(t->m, (size_t)pixels * (1 + 4), sizeof *k->extra),
                .weight = slr_calloc(t->m, (size_t)s->n, sizeof *k->weight),
                .sizes = slr_calloc(t->m, (size_t)s->n, SLR_SAMPLE_SIZES * sizeof *k->sizes),
                .captions = slr_calloc(t->m, (size_t)s->n, sizeof *k->captions),
                .items = slr_calloc(t->m, (size_t)s->n, sizeof *k->items)};
    if (!k->latents || !k->extra || !k->weight || !k->sizes || !k->captions || !k->items)
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
                       .extra = k->extra,
                       .captions = k->captions,
                       .loss_weight = k->weight,
                       .sizes = k->sizes,
                       .items = k->items};
    return SDLORA_OK;
}

/* Mean seconds of a batch after one that warms up. */
static int time_batch(slr_probe *p, const fake *k, double limit, double *first, double *mean)
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
static int close_text(slr_probe *p)
{
    slr_forecast_memory *m = &p->f->memory;
    SLR_TRY(slr_captions_keep(p->t->text, p->caption, NULL, &p->t->cancel));
    slr_captions_close(p->t->text);
    p->encoders = m->text;
    m->text = 0;
    return SDLORA_OK;
}

/* Seconds of a caption, and bytes of the encoder's graph. */
static int time_text(slr_probe *p, const fake *k)
{
    slr_trainer *t = p->t;
    slr_caption_states states;
    if (!t->text)
        return SDLORA_OK;
    uint64_t before = slr_probe_used(p);
    SLR_TRY(slr_captions_get(t->text, k->captions[0], &t->cancel, &states));
    slr_captions_forget(t->text);
    p->f->memory.text = slr_probe_used(p) - before;
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
static int time_update(slr_probe *p)
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
static int graph_bytes(slr_probe *p, const fake *k, uint64_t *bytes)
{
    slr_step *step;
    slr_step_config config = slr_trainer_step_config(p->t, k->b.n, k->b.lh, k->b.lw);
    uint64_t before = slr_probe_used(p);
    SLR_TRY(slr_step_new(&step, &config));
    *bytes = slr_probe_used(p) - before;
    slr_step_free(step);
    return SDLORA_OK;
}

static void add_plan(slr_probe *p, slr_forecast_shape *s, slr_step *step, uint64_t *arena,
                     uint64_t *scratch)
{
    slr_plan_stats stats;
    slr_plan_get_stats(slr_step_plan(step), &stats);
    s->flops = stats.flops;
    *arena = stats.arena_bytes > *arena ? stats.arena_bytes : *arena;
    *scratch = stats.scratch_bytes > *scratch ? stats.scratch_bytes : *scratch;
    p->f->memory.workspace = *arena + *scratch;
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

/* The shape that most pictures have: everything of a step. */
static int probe_main(slr_probe *p, slr_forecast_shape *s, const fake *k, uint64_t *arena,
                      uint64_t *scratch)
{
    slr_forecast_memory *memory = &p->f->memory;
    slr_step *step;
    double first, start = slr_clock();
    uint64_t before = slr_probe_used(p);
    SLR_TRY(time_text(p, k));
    SLR_TRY(slr_trainer_graph(p->t, s->n, k->b.lh, k->b.lw, &step));
    p->f->seconds.load += slr_clock() - start - TEXT_TRIES * p->text_seconds;
    uint64_t taken = slr_probe_used(p) - before - memory->text;
    SLR_TRY(graph_bytes(p, k, &memory->graphs));
    memory->packed += taken - memory->graphs;
    add_plan(p, s, step, arena, scratch);
    SLR_TRY(time_batch(p, k, MAIN_SECONDS, &first, &s->seconds));
    s->measured = true;
    if (p->t->text)
        slr_captions_forget(p->t->text);
    p->f->seconds.load += first > s->seconds ? first - s->seconds : 0;
    SLR_TRY(time_update(p));
    uint64_t resident = resident_bytes(), own = slr_probe_used(p);
    memory->process = resident > own ? resident - own : 0;
    return SDLORA_OK;
}

/* Others are planned, and run where that takes little. */
static int probe_other(slr_probe *p, slr_forecast_shape *s, const slr_forecast_shape *like,
                       const fake *k, uint64_t *arena, uint64_t *scratch)
{
    slr_step *step;
    double first, start = slr_clock();
    uint64_t before = slr_probe_used(p);
    SLR_TRY(slr_trainer_graph(p->t, s->n, k->b.lh, k->b.lw, &step));
    p->f->memory.graphs += slr_probe_used(p) - before;
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

int slr_probe_shapes(slr_probe *p)
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
        SLR_TRY(slr_probe_tell(p));
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
