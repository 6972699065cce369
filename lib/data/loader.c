/* SPDX-License-Identifier: MIT */
/* Serves batches: latents from the cache that it fills first (or encoded on the spot when crops are
 * random), captions drawn anew.  Every chance is addressed by (seed, epoch, picture, repeat), so a
 * batch is the same whenever it is asked for.  Refuses to know the encoder. */
#include "data/loader.h"

#include <string.h>

#include "base/map.h"
#include "base/status.h"
#include "data/ahead.h"
#include "data/loader_impl.h"

/* --- life --- */

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
    SLR_TRY(slr_loader_check_masks(l));
    SLR_TRY(slr_caption_rule_new(&l->caption, o, l->c.max_steps));
    SLR_TRY(slr_arena_new(&l->texts, l->m));
    SLR_TRY(slr_order_new(&l->order, l->m, l->d, l->c.seed));
    l->encoder_id = slr_strdup(l->m, l->c.encoder_id ? l->c.encoder_id : "");
    l->captions = slr_calloc(l->m, n, sizeof *l->captions);
    l->weight = slr_calloc(l->m, n, sizeof *l->weight);
    l->sizes = slr_calloc(l->m, n, SLR_SAMPLE_SIZES * sizeof *l->sizes);
    l->items = slr_calloc(l->m, n, sizeof *l->items);
    l->fresh = slr_calloc(l->m, n, sizeof *l->fresh);
    bool room = l->captions && l->weight && l->sizes && l->items && l->fresh;
    return l->encoder_id && room ? SDLORA_OK : SDLORA_ENOMEM;
}

int slr_loader_make(slr_loader **out, slr_dataset *d, const slr_loader_config *config)
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
    SLR_TRY(slr_loader_make(&l, d, config));
    int rc = l->random_crop ? SDLORA_OK : slr_loader_fill(l);
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
    for (size_t i = 0; i < slr_dataset_items(l->d); i++) {
        slr_free(m, l->latents ? l->latents[i] : NULL);
        slr_free(m, l->extra ? l->extra[i] : NULL);
    }
    slr_free(m, l->latents);
    slr_free(m, l->extra);
    slr_order_free(&l->order);
    slr_arena_free(l->texts);
    slr_free(m, l->encoder_id);
    slr_free(m, l->first_bad);
    slr_free(m, l->captions);
    slr_free(m, l->weight);
    slr_free(m, l->sizes);
    slr_free(m, l->items);
    slr_free(m, l->fresh);
    slr_free(m, l->data);
    slr_free(m, l->extra_data);
    slr_free(m, l->pixels);
    slr_free(m, l->mask);
    slr_free(m, l->dark);
    slr_dataset_unref(l->d);
    slr_free(m, l);
    slr_mem_unref(m);
}

bool slr_loader_encodes(const slr_loader *l)
{
    bool encodes = l->random_crop;
    for (size_t i = 0; !encodes && l->c.inpaint && i < slr_dataset_items(l->d); i++)
        encodes = slr_loader_masks(l, slr_dataset_item(l->d, i)) == 0;
    return encodes;
}

/* --- batches --- */

void slr_loader_stream(const slr_loader *l, uint32_t use, int64_t epoch, const slr_entry *e,
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
    slr_loader_stream(l, SLR_STREAM_CAPTION, epoch, e, &rng);
    slr_buf_init(&text, l->m);
    int rc = slr_caption_draw(&l->caption, l->m, slr_dataset_item(l->d, e->item)->caption, &rng,
                              epoch, step, &text);
    if (rc == 0 && !(*out = slr_arena_strdup(l->texts, text.data)))
        rc = SDLORA_ENOMEM;
    slr_buf_free(&text);
    return rc;
}

bool slr_loader_flip(const slr_loader *l, int64_t epoch, const slr_entry *e, slr_rng *rng)
{
    slr_loader_stream(l, SLR_STREAM_AUGMENT, epoch, e, rng);
    return l->flip && slr_rng_real(rng) < 0.5;
}

slr_window slr_loader_window(const slr_loader *l, int64_t epoch, const slr_entry *e)
{
    const slr_item *item = slr_dataset_item(l->d, e->item);
    const slr_bucket *b = slr_dataset_bucket(l->d, item->bucket);
    slr_rng rng;
    slr_window at = {item->crop_left, item->crop_top, slr_loader_flip(l, epoch, e, &rng)};
    if (!l->random_crop)
        return at;
    at.left = (int32_t)slr_rng_below(&rng, (uint64_t)(item->resized_w - b->width) + 1);
    at.top = (int32_t)slr_rng_below(&rng, (uint64_t)(item->resized_h - b->height) + 1);
    return at;
}

/* Both orientations lie in the cache; the draw takes one. */
static void from_cache(slr_loader *l, int64_t epoch, const slr_entry *e, size_t size, float *to)
{
    slr_rng rng;
    bool flip = slr_loader_flip(l, epoch, e, &rng);
    memcpy(to, l->latents[e->item] + (flip ? size : 0), size * sizeof *to);
}

static void tell_sizes(const slr_loader *l, int64_t epoch, const slr_entry *e, float *to)
{
    slr_rng rng;
    const slr_item *item = slr_dataset_item(l->d, e->item);
    const slr_bucket *b = slr_dataset_bucket(l->d, item->bucket);
    slr_sample_sizes(item->width, item->height, b, slr_loader_flip(l, epoch, e, &rng), to);
}

static void crop_at_random(slr_loader *l, int64_t epoch, const slr_entry *e, const slr_pixels *p,
                           float *to)
{
    const slr_bucket *b = slr_dataset_bucket(l->d, slr_dataset_item(l->d, e->item)->bucket);
    slr_window at = slr_loader_window(l, epoch, e);
    slr_picture_floats(p, at.left, at.top, b->width, b->height, at.flip, to);
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
    SLR_TRY(slr_loader_stopped(l));
    SLR_TRY(l->c.encode(l->c.encode_user, l->pixels, b->n, b->h, b->w, l->data));
    size_t size = (size_t)(b->lw * b->lh * b->channels);
    for (int64_t i = 0; i < b->n; i++)
        SLR_TRY(slr_loader_check_finite(l, slr_dataset_item(l->d, l->items[i]),
                                        l->data + (size_t)i * size, size));
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
    if (l->c.inpaint)
        SLR_TRY(slr_loader_fill_extra(l, e));
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
