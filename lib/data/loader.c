/* SPDX-License-Identifier: MIT */
/* Serves batches: latents from the cache that it fills first (or encoded on the spot when crops are
 * random), captions drawn anew.  Every chance is addressed by (seed, epoch, picture, repeat), so a
 * batch is the same whenever it is asked for.  Refuses to know the encoder. */
#include "data/loader.h"

#include <math.h>
#include <string.h>

#include "base/clock.h"
#include "base/map.h"
#include "base/rng.h"
#include "base/status.h"
#include "data/ahead.h"
#include "data/cache.h"
#include "data/caption.h"
#include "data/order.h"

struct slr_loader {
    slr_mem *m;
    slr_dataset *d;
    slr_loader_config c;
    char *encoder_id;
    slr_picture_rule picture;
    slr_caption_rule caption;
    bool flip, random_crop, disk;
    float prior_weight;
    float **latents; /* [items] of [1 or 2, lh, lw, channels]; NULL with random_crop */
    slr_order order;
    slr_batch batch;
    slr_arena *texts;      /* captions of the batch */
    const char **captions; /* [batch size], as the next three */
    float *weight;
    float *sizes; /* [batch size,SLR_SAMPLE_SIZES] */
    size_t *items;
    float *data;   /* latents of the batch */
    float *pixels; /* [n,h,w,3] */
    size_t data_cap, pixels_cap;
    int64_t n_bad; /* cache files that were not usable */
    char *first_bad;
    bool cannot_write;
};

/* --- shapes --- */

static size_t latent_size(const slr_loader *l, const slr_item *item)
{
    const slr_bucket *b = slr_dataset_bucket(l->d, item->bucket);
    return (size_t)(b->width / l->c.factor) * (size_t)(b->height / l->c.factor) *
           (size_t)l->c.channels;
}

static int check_shapes(const slr_loader *l)
{
    for (size_t i = 0; i < slr_dataset_buckets(l->d); i++) {
        const slr_bucket *b = slr_dataset_bucket(l->d, i);
        if (b->width % l->c.factor || b->height % l->c.factor)
            return slr_fail(SDLORA_EINVAL, __func__,
                            "samples of %dx%d pixels: both sides must be multiples of %d (see "
                            "resolution and bucket_reso_steps)",
                            (int)b->width, (int)b->height, l->c.factor);
    }
    return SDLORA_OK;
}

static int check_finite(const slr_loader *l, const slr_item *item, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!isfinite(x[i]))
            return slr_fail(SDLORA_ENAN, __func__,
                            "%s: the VAE gave values that are not finite; a VAE in half precision "
                            "may need another one or f32",
                            item->path);
    return SDLORA_OK;
}

static int stopped(const slr_loader *l)
{
    if (l->c.cancel && atomic_load(l->c.cancel))
        return slr_fail(SDLORA_ECANCELED, __func__, "canceled while pictures were encoded");
    return SDLORA_OK;
}

/* --- cache --- */

static slr_cache_key cache_key(const slr_loader *l, const slr_item *item)
{
    const slr_bucket *b = slr_dataset_bucket(l->d, item->bucket);
    const slr_background *on = &l->picture.background;
    const int32_t how[] = {l->picture.apply_exif,
                           l->picture.filter,
                           on->drop,
                           on->rgb[0],
                           on->rgb[1],
                           on->rgb[2],
                           l->c.factor};
    return (slr_cache_key){.what = "latents",
                           .encoder_id = l->encoder_id,
                           .h = b->height / l->c.factor,
                           .w = b->width / l->c.factor,
                           .c = l->c.channels,
                           .variants = l->flip ? 2 : 1,
                           .settings = slr_hash64(how, sizeof how, 0)};
}

/* OK: it was on disk.  DONE: it has to be made. */
static int from_disk(slr_loader *l, const slr_item *item, float *latents)
{
    slr_cache_key key = cache_key(l, item);
    if (!l->disk)
        return SDLORA_DONE;
    int rc = slr_cache_load(l->m, item, &key, latents);
    if (rc != SDLORA_EFORMAT)
        return rc;
    if (l->n_bad++ == 0) {
        slr_error_copy why;
        slr_error_take(&why);
        l->first_bad = slr_strdup(l->m, why.text);
    }
    slr_clear();
    return SDLORA_DONE;
}

/* A directory that cannot be written costs the next run's time, not this run. */
static int to_disk(slr_loader *l, const slr_item *item, const float *latents)
{
    slr_cache_key key = cache_key(l, item);
    if (!l->disk || l->cannot_write)
        return SDLORA_OK;
    int rc = slr_cache_save(l->m, item, &key, latents);
    if (rc < 0 && rc != SDLORA_ENOMEM) {
        slr_error_copy why;
        slr_error_take(&why);
        slr_logf(&l->c.log, SLR_LOG_WARN, "latents are not kept on disk: %s", why.text);
        slr_clear();
        l->cannot_write = true;
        rc = SDLORA_OK;
    }
    return rc;
}

static int encode_item(slr_loader *l, const slr_item *item, const slr_pixels *p, float *latents)
{
    const slr_bucket *b = slr_dataset_bucket(l->d, item->bucket);
    size_t n = latent_size(l, item), pixels = (size_t)b->width * (size_t)b->height * 3;
    SLR_TRY(slr_grow(l->m, &l->pixels, &l->pixels_cap, pixels, sizeof *l->pixels));
    for (int flip = 0; flip <= (int)l->flip; flip++) {
        SLR_TRY(stopped(l));
        slr_picture_floats(p, item->crop_left, item->crop_top, b->width, b->height, flip,
                           l->pixels);
        SLR_TRY(l->c.encode(l->c.encode_user, l->pixels, 1, b->height, b->width,
                            latents + (size_t)flip * n));
    }
    SLR_TRY(check_finite(l, item, latents, n * (l->flip ? 2 : 1)));
    return to_disk(l, item, latents);
}

static int report(slr_loader *l, int64_t done, int64_t total)
{
    SLR_TRY(stopped(l));
    if (l->c.progress && l->c.progress(l->c.progress_user, done, total) != 0)
        return slr_fail(SDLORA_ECANCELED, __func__, "canceled by the progress callback");
    return SDLORA_OK;
}

/* What can be had from disk; the numbers of the others into `missing`. */
static int load_all(slr_loader *l, size_t *missing, size_t *n_missing)
{
    size_t n = slr_dataset_items(l->d);
    for (size_t i = 0; i < n; i++) {
        const slr_item *item = slr_dataset_item(l->d, i);
        size_t count = latent_size(l, item) * (l->flip ? 2 : 1);
        l->latents[i] = slr_calloc(l->m, count, sizeof **l->latents);
        if (!l->latents[i])
            return SDLORA_ENOMEM;
        int rc = from_disk(l, item, l->latents[i]);
        SLR_TRY(rc);
        if (rc == SDLORA_DONE)
            missing[(*n_missing)++] = i;
        else
            SLR_TRY(report(l, (int64_t)(i + 1 - *n_missing), (int64_t)n));
    }
    if (l->n_bad > 0)
        slr_logf(&l->c.log, SLR_LOG_WARN, "%lld latent cache files are made anew: %s",
                 (long long)l->n_bad, l->first_bad ? l->first_bad : "");
    return SDLORA_OK;
}

static int make_all(slr_loader *l, const size_t *missing, size_t n_missing)
{
    size_t n = slr_dataset_items(l->d);
    slr_ahead *ahead;
    int rc = slr_ahead_new(&ahead, l->m, &l->picture, l->d, missing, n_missing);
    for (size_t i = 0; rc == 0 && i < n_missing; i++) {
        slr_pixels p;
        rc = slr_ahead_next(ahead, &p);
        if (rc == 0)
            rc = encode_item(l, slr_dataset_item(l->d, missing[i]), &p, l->latents[missing[i]]);
        slr_free(l->m, p.data);
        if (rc == 0)
            rc = report(l, (int64_t)(n - n_missing + i + 1), (int64_t)n);
    }
    slr_ahead_free(ahead);
    return rc;
}

static int fill_cache(slr_loader *l)
{
    size_t n = slr_dataset_items(l->d), n_missing = 0;
    size_t *missing = slr_calloc(l->m, n, sizeof *missing);
    l->latents = slr_calloc(l->m, n, sizeof *l->latents);
    int rc = missing && l->latents ? load_all(l, missing, &n_missing) : SDLORA_ENOMEM;
    if (rc == 0 && n_missing > 0)
        rc = make_all(l, missing, n_missing);
    slr_free(l->m, missing);
    return rc;
}

/* --- life --- */

static int prepare(slr_loader *l)
{
    slr_opt o = {slr_dataset_options(l->d), "dataset"};
    size_t n = (size_t)slr_dataset_batch_size(l->d);
    l->flip = slr_opt_bool(o, "flip_aug");
    l->random_crop = slr_opt_bool(o, "random_crop");
    l->disk = slr_opt_bool(o, "cache_latents_to_disk");
    l->prior_weight = (float)slr_opt_real(o, "prior_loss_weight");
    SLR_TRY(check_shapes(l));
    SLR_TRY(slr_picture_rule_new(&l->picture, o));
    SLR_TRY(slr_caption_rule_new(&l->caption, o, l->c.max_steps));
    SLR_TRY(slr_arena_new(&l->texts, l->m));
    SLR_TRY(slr_order_new(&l->order, l->m, l->d, l->c.seed));
    l->encoder_id = slr_strdup(l->m, l->c.encoder_id ? l->c.encoder_id : "");
    l->captions = slr_calloc(l->m, n, sizeof *l->captions);
    l->weight = slr_calloc(l->m, n, sizeof *l->weight);
    l->sizes = slr_calloc(l->m, n, SLR_SAMPLE_SIZES * sizeof *l->sizes);
    l->items = slr_calloc(l->m, n, sizeof *l->items);
    return l->encoder_id && l->captions && l->weight && l->sizes && l->items ? SDLORA_OK
                                                                             : SDLORA_ENOMEM;
}

/* Without latents. */
static int make(slr_loader **out, slr_dataset *d, const slr_loader_config *config)
{
    *out = NULL;
    slr_require(d && config && config->encode && config->factor > 0 && config->channels > 0);
    slr_loader *l = slr_calloc(config->mem, 1, sizeof *l);
    if (!l)
        return SDLORA_ENOMEM;
    l->m = slr_mem_ref(config->mem);
    l->d = slr_dataset_ref(d);
    l->c = *config;
    int rc = prepare(l);
    if (rc < 0)
        slr_loader_free(l);
    else
        *out = l;
    return rc;
}

int slr_loader_new(slr_loader **out, slr_dataset *d, const slr_loader_config *config)
{
    slr_loader *l;
    slr_require(out);
    *out = NULL;
    SLR_TRY(make(&l, d, config));
    int rc = l->random_crop ? SDLORA_OK : fill_cache(l);
    if (rc < 0)
        slr_loader_free(l);
    else
        *out = l;
    return rc;
}

void slr_loader_free(slr_loader *l)
{
    if (!l)
        return;
    slr_mem *m = l->m;
    for (size_t i = 0; l->latents && i < slr_dataset_items(l->d); i++)
        slr_free(m, l->latents[i]);
    slr_free(m, l->latents);
    slr_order_free(&l->order);
    slr_arena_free(l->texts);
    slr_free(m, l->encoder_id);
    slr_free(m, l->first_bad);
    slr_free(m, l->captions);
    slr_free(m, l->weight);
    slr_free(m, l->sizes);
    slr_free(m, l->items);
    slr_free(m, l->data);
    slr_free(m, l->pixels);
    slr_dataset_unref(l->d);
    slr_free(m, l);
    slr_mem_unref(m);
}

/* --- what it will take --- */

enum { TRIES = 9, CACHE_HEADER = 512 };
static const double TRY_SECONDS = 3;

/* Pixels that the encoder sees of a picture. */
static double pixels_of(const slr_loader *l, size_t i)
{
    const slr_item *item = slr_dataset_item(l->d, i);
    const slr_bucket *b = slr_dataset_bucket(l->d, item->bucket);
    return (l->flip ? 2 : 1) * (double)b->width * (double)b->height;
}

/* Pictures that are not on disk, into `missing`; all of them with random_crop. */
static int count_pictures(slr_loader *l, size_t *missing, size_t *n, slr_loader_needs *needs)
{
    needs->each_epoch = l->random_crop;
    for (size_t i = 0; i < slr_dataset_items(l->d); i++) {
        const slr_item *item = slr_dataset_item(l->d, i);
        size_t floats = latent_size(l, item) * (l->flip ? 2 : 1);
        int rc = SDLORA_DONE;
        SLR_TRY(stopped(l));
        if (!l->random_crop) {
            SLR_TRY(slr_grow(l->m, &l->data, &l->data_cap, floats, sizeof *l->data));
            SLR_TRY(rc = from_disk(l, item, l->data));
            needs->latent_bytes += floats * sizeof *l->data;
        }
        if (rc != SDLORA_DONE)
            continue;
        missing[(*n)++] = i;
        needs->pictures += l->random_crop ? item->repeats : 1;
        if (l->disk && !l->random_crop)
            needs->cache_bytes += floats * sizeof *l->data + CACHE_HEADER;
    }
    return SDLORA_OK;
}

/* Encodes n pictures one after the other.  seconds and pixels: of all but the first, while later
 * ones are decoded beside, as in a long row. */
static int try_row(slr_loader *l, const size_t *items, size_t n, double *seconds, double *pixels)
{
    double first = 0;
    slr_ahead *ahead;
    int rc = slr_ahead_new(&ahead, l->m, &l->picture, l->d, items, n);
    *seconds = *pixels = 0;
    for (size_t i = 0; rc >= 0 && i < n && *seconds < TRY_SECONDS; i++) {
        const slr_item *item = slr_dataset_item(l->d, items[i]);
        size_t floats = latent_size(l, item) * (l->flip ? 2 : 1);
        slr_pixels p = {0};
        rc = slr_ahead_next(ahead, &p);
        if (rc >= 0)
            rc = slr_grow(l->m, &l->data, &l->data_cap, floats, sizeof *l->data);
        if (rc >= 0)
            rc = encode_item(l, item, &p, l->data);
        slr_free(l->m, p.data);
        if (i == 0)
            first = slr_clock();
        else
            *pixels += pixels_of(l, items[i]);
        *seconds = slr_clock() - first;
    }
    slr_ahead_free(ahead);
    return rc;
}

/* The biggest picture makes the plan and its memory; then a few from all over the set are timed. */
static int time_pictures(slr_loader *l, const size_t *missing, size_t n, slr_loader_needs *needs)
{
    size_t row[TRIES], big = 0, n_row = n < TRIES ? n : TRIES;
    double seconds, pixels, all = 0;
    for (size_t i = 0; i < n; i++) {
        int64_t times = l->random_crop ? slr_dataset_item(l->d, missing[i])->repeats : 1;
        all += pixels_of(l, missing[i]) * (double)times;
        if (pixels_of(l, missing[i]) > pixels_of(l, missing[big]))
            big = i;
    }
    row[0] = missing[big];
    double begun = slr_clock();
    SLR_TRY(try_row(l, row, 1, &seconds, &pixels));
    needs->start = slr_clock() - begun;
    for (size_t i = 0; i < n_row; i++)
        row[i] = missing[i * n / n_row];
    if (n_row == 1)
        row[n_row++] = row[0];
    SLR_TRY(try_row(l, row, n_row, &seconds, &pixels));
    needs->seconds = all * seconds / pixels;
    return SDLORA_OK;
}

static int count_captions(slr_loader *l, slr_loader_needs *needs)
{
    const slr_caption_rule *r = &l->caption;
    slr_map *seen;
    needs->captions_change =
        r->shuffle || r->wildcard || r->tag_drop_rate > 0 || r->warmup_steps > 0;
    SLR_TRY(slr_map_new(&seen, l->m));
    int rc = SDLORA_OK;
    for (size_t i = 0; rc >= 0 && i < slr_dataset_items(l->d); i++) {
        int64_t known;
        const char *caption = slr_dataset_item(l->d, i)->caption;
        if (slr_map_get(seen, caption, &known))
            continue;
        needs->captions++;
        rc = slr_map_set(seen, caption, 0);
    }
    slr_map_free(seen);
    if (r->drop_rate > 0 || r->drop_every > 0)
        needs->captions++; /* the empty one */
    return rc;
}

int slr_loader_look(slr_dataset *d, const slr_loader_config *config, slr_loader_needs *out)
{
    slr_loader *l;
    size_t n = 0;
    slr_require(out);
    *out = (slr_loader_needs){0};
    SLR_TRY(make(&l, d, config));
    l->cannot_write = true;
    l->flip = l->flip && !l->random_crop; /* a crop is encoded one way */
    size_t *missing = slr_calloc(l->m, slr_dataset_items(d), sizeof *missing);
    int rc = missing ? count_pictures(l, missing, &n, out) : SDLORA_ENOMEM;
    if (rc >= 0 && n > 0)
        rc = time_pictures(l, missing, n, out);
    if (rc >= 0)
        rc = count_captions(l, out);
    slr_free(config->mem, missing);
    slr_loader_free(l);
    return rc;
}

/* --- batches --- */

static void stream(const slr_loader *l, uint32_t use, int64_t epoch, const slr_entry *e,
                   slr_rng *rng)
{
    const uint64_t address[] = {(uint64_t)epoch, e->item, e->draw};
    slr_rng_init(rng, slr_hash64(address, sizeof address, l->c.seed), use, e->item);
}

int slr_dataset_caption(const slr_dataset *d, slr_mem *m, size_t i, char **out)
{
    slr_caption_rule rule;
    slr_rng rng;
    slr_buf text;
    SLR_TRY(slr_caption_rule_new(&rule, (slr_opt){slr_dataset_options(d), "dataset"}, 1));
    rule.drop_rate = 0;
    rule.drop_every = 0;
    slr_rng_init(&rng, 0, SLR_STREAM_CAPTION, 0);
    slr_buf_init(&text, m);
    int rc = slr_caption_draw(&rule, m, slr_dataset_item(d, i)->caption, &rng, 0, 0, &text);
    if (rc == 0 && !(*out = slr_buf_take(&text)))
        rc = SDLORA_ENOMEM;
    slr_buf_free(&text);
    return rc;
}

static int draw_caption(slr_loader *l, int64_t epoch, int64_t step, const slr_entry *e,
                        const char **out)
{
    slr_rng rng;
    slr_buf text;
    stream(l, SLR_STREAM_CAPTION, epoch, e, &rng);
    slr_buf_init(&text, l->m);
    int rc = slr_caption_draw(&l->caption, l->m, slr_dataset_item(l->d, e->item)->caption, &rng,
                              epoch, step, &text);
    if (rc == 0 && !(*out = slr_arena_strdup(l->texts, text.data)))
        rc = SDLORA_ENOMEM;
    slr_buf_free(&text);
    return rc;
}

/* The first draw of a sample's stream: whether it is mirrored. */
static bool draw_flip(const slr_loader *l, int64_t epoch, const slr_entry *e, slr_rng *rng)
{
    stream(l, SLR_STREAM_AUGMENT, epoch, e, rng);
    return l->flip && slr_rng_real(rng) < 0.5;
}

/* Both orientations lie in the cache; the draw takes one. */
static void from_cache(slr_loader *l, int64_t epoch, const slr_entry *e, size_t size, float *to)
{
    slr_rng rng;
    bool flip = draw_flip(l, epoch, e, &rng);
    memcpy(to, l->latents[e->item] + (flip ? size : 0), size * sizeof *to);
}

static void tell_sizes(const slr_loader *l, int64_t epoch, const slr_entry *e, float *to)
{
    slr_rng rng;
    const slr_item *item = slr_dataset_item(l->d, e->item);
    const slr_bucket *b = slr_dataset_bucket(l->d, item->bucket);
    slr_sample_sizes(item->width, item->height, b, draw_flip(l, epoch, e, &rng), to);
}

static void crop_at_random(slr_loader *l, int64_t epoch, const slr_entry *e, const slr_pixels *p,
                           float *to)
{
    const slr_item *item = slr_dataset_item(l->d, e->item);
    const slr_bucket *b = slr_dataset_bucket(l->d, item->bucket);
    slr_rng rng;
    bool flip = draw_flip(l, epoch, e, &rng);
    int32_t left = (int32_t)slr_rng_below(&rng, (uint64_t)(p->width - b->width) + 1);
    int32_t top = (int32_t)slr_rng_below(&rng, (uint64_t)(p->height - b->height) + 1);
    slr_picture_floats(p, left, top, b->width, b->height, flip, to);
}

static int encode_batch(slr_loader *l, const slr_entry *e)
{
    slr_batch *b = &l->batch;
    size_t one = (size_t)(b->w * b->h * 3);
    slr_ahead *ahead;
    SLR_TRY(slr_grow(l->m, &l->pixels, &l->pixels_cap, one * (size_t)b->n, sizeof *l->pixels));
    int rc = slr_ahead_new(&ahead, l->m, &l->picture, l->d, l->items, (size_t)b->n);
    for (int64_t i = 0; rc == 0 && i < b->n; i++) {
        slr_pixels p;
        rc = slr_ahead_next(ahead, &p);
        if (rc == 0)
            crop_at_random(l, b->epoch, &e[i], &p, l->pixels + (size_t)i * one);
        slr_free(l->m, p.data);
    }
    slr_ahead_free(ahead);
    SLR_TRY(rc);
    SLR_TRY(stopped(l));
    SLR_TRY(l->c.encode(l->c.encode_user, l->pixels, b->n, b->h, b->w, l->data));
    size_t size = (size_t)(b->lw * b->lh * b->channels);
    for (int64_t i = 0; i < b->n; i++)
        SLR_TRY(
            check_finite(l, slr_dataset_item(l->d, l->items[i]), l->data + (size_t)i * size, size));
    return SDLORA_OK;
}

static int fill_batch(slr_loader *l, const slr_entry *e, int64_t step)
{
    slr_batch *b = &l->batch;
    size_t size = (size_t)(b->lw * b->lh * b->channels);
    SLR_TRY(slr_grow(l->m, &l->data, &l->data_cap, size * (size_t)b->n, sizeof *l->data));
    slr_arena_clear(l->texts);
    for (int64_t i = 0; i < b->n; i++) {
        const slr_item *item = slr_dataset_item(l->d, e[i].item);
        bool reg = slr_dataset_subset(l->d, item->subset)->is_reg;
        l->items[i] = e[i].item;
        l->weight[i] = reg ? l->prior_weight : 1.0f;
        tell_sizes(l, b->epoch, &e[i], l->sizes + i * SLR_SAMPLE_SIZES);
        SLR_TRY(draw_caption(l, b->epoch, step, &e[i], &l->captions[i]));
        if (!l->random_crop)
            from_cache(l, b->epoch, &e[i], size, l->data + (size_t)i * size);
    }
    if (l->random_crop)
        SLR_TRY(encode_batch(l, e));
    b->latents = l->data;
    b->captions = l->captions;
    b->loss_weight = l->weight;
    b->sizes = l->sizes;
    b->items = l->items;
    return SDLORA_OK;
}

int slr_loader_get(slr_loader *l, int64_t epoch, int64_t index, int64_t step, const slr_batch **out)
{
    const slr_entry *e;
    int64_t n;
    slr_require(out);
    *out = NULL;
    slr_require(l);
    SLR_TRY(slr_order_batch(&l->order, epoch, index, &e, &n));
    const slr_bucket *b = slr_dataset_bucket(l->d, slr_dataset_item(l->d, e[0].item)->bucket);
    l->batch = (slr_batch){.n = n,
                           .w = b->width,
                           .h = b->height,
                           .lw = b->width / l->c.factor,
                           .lh = b->height / l->c.factor,
                           .channels = l->c.channels,
                           .epoch = epoch,
                           .index = index};
    SLR_TRY(fill_batch(l, e, step));
    *out = &l->batch;
    return SDLORA_OK;
}
