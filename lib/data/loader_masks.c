/* SPDX-License-Identifier: MIT */
/* What an inpainting model is given beside the noisy latents: a mask and the latents of the masked
 * picture.  Some masks of a picture are encoded beforehand and used in turn, or each use gets one
 * of its own.  A picture that brings a mask has that one.  Refuses to know how masks are drawn. */
#include <string.h>

#include "base/map.h"
#include "base/status.h"
#include "data/ahead.h"
#include "data/loader_impl.h"
#include "data/masks.h"

int64_t slr_loader_masks(const slr_loader *l, const slr_item *item)
{
    if (!l->c.inpaint || l->random_crop)
        return 0;
    if (item->mask)
        return 1;
    int64_t uses = l->c.max_epochs > 0 && l->c.max_epochs <= INT64_MAX / item->repeats
                       ? l->c.max_epochs * item->repeats
                       : INT64_MAX;
    return l->c.masks < uses ? l->c.masks : uses;
}

size_t slr_loader_extra_size(const slr_loader *l, const slr_item *item)
{
    size_t channels = (size_t)l->c.channels;
    return slr_loader_latent_size(l, item) / channels * (1 + channels);
}

/* The masks that a seed draws are another's for another seed; a picture's own is its own. */
slr_cache_key slr_loader_extra_key(const slr_loader *l, const slr_item *item)
{
    slr_cache_key key = slr_loader_key(l, item);
    const uint64_t from[] = {item->mask != NULL, item->mask ? item->mask_hash : l->c.mask_seed};
    key.what = "inpaint";
    key.c = 1 + l->c.channels;
    key.variants *= slr_loader_masks(l, item);
    key.settings = slr_hash64(from, sizeof from, key.settings);
    return key;
}

int slr_loader_check_masks(const slr_loader *l)
{
    for (size_t i = 0; l->c.inpaint && i < slr_dataset_items(l->d); i++)
        if (slr_dataset_item(l->d, i)->mask)
            SLR_TRY(slr_masks_check(&l->picture, slr_dataset_item(l->d, i)));
    return SDLORA_OK;
}

static int make_room(slr_loader *l, const slr_item *item)
{
    const slr_bucket *b = slr_dataset_bucket(l->d, item->bucket);
    size_t pixels = (size_t)b->width * (size_t)b->height;
    SLR_TRY(slr_grow(l->m, &l->mask, &l->mask_cap, pixels, sizeof *l->mask));
    return slr_grow(l->m, &l->dark, &l->dark_cap, slr_loader_latent_size(l, item), sizeof *l->dark);
}

/* Mask and latents of what l->mask leaves of the picture `image` [h,w,3], which is changed. */
static int encode_one(slr_loader *l, const slr_item *item, float *image, float *extra)
{
    const slr_bucket *b = slr_dataset_bucket(l->d, item->bucket);
    SLR_TRY(slr_loader_stopped(l));
    slr_masks_cover(l->mask, (int64_t)b->width * b->height, image);
    SLR_TRY(l->c.encode(l->c.encode_user, image, 1, b->height, b->width, l->dark));
    SLR_TRY(slr_loader_check_finite(l, item, l->dark, slr_loader_latent_size(l, item)));
    slr_masks_join(l->mask, b->width, b->height, l->c.factor, l->dark, l->c.channels, extra);
    return SDLORA_OK;
}

/* --- beforehand --- */

/* Mask number k of a picture: a function of the seed and what the picture shows, so that another
 * picture in the folder changes nothing. */
static void kept_mask(slr_loader *l, const slr_item *item, const slr_pixels *own, int64_t k,
                      bool flip)
{
    const slr_bucket *b = slr_dataset_bucket(l->d, item->bucket);
    slr_rng rng;
    if (own->data) {
        slr_masks_window(own, item->crop_left, item->crop_top, b->width, b->height, flip, l->mask);
        return;
    }
    slr_rng_init(&rng, slr_hash64(&item->content_hash, sizeof item->content_hash, l->c.mask_seed),
                 SLR_STREAM_MASK, (uint32_t)k);
    slr_masks_draw(&rng, b->width, b->height, l->mask);
}

static int encode_all(slr_loader *l, const slr_item *item, const slr_pixels *p,
                      const slr_pixels *own, float *extra)
{
    const slr_bucket *b = slr_dataset_bucket(l->d, item->bucket);
    size_t size = slr_loader_extra_size(l, item);
    int64_t masks = slr_loader_masks(l, item);
    for (int flip = 0; flip < slr_loader_variants(l); flip++)
        for (int64_t k = 0; k < masks; k++, extra += size) {
            kept_mask(l, item, own, k, flip);
            slr_picture_floats(p, item->crop_left, item->crop_top, b->width, b->height, flip,
                               l->pixels);
            SLR_TRY(encode_one(l, item, l->pixels, extra));
        }
    return SDLORA_OK;
}

int slr_loader_encode_masked(slr_loader *l, const slr_item *item, const slr_pixels *p, float *extra)
{
    const slr_bucket *b = slr_dataset_bucket(l->d, item->bucket);
    size_t pixels = (size_t)b->width * (size_t)b->height * 3;
    slr_cache_key key = slr_loader_extra_key(l, item);
    slr_pixels own = {0};
    SLR_TRY(slr_grow(l->m, &l->pixels, &l->pixels_cap, pixels, sizeof *l->pixels));
    SLR_TRY(make_room(l, item));
    if (item->mask)
        SLR_TRY(slr_masks_read(&l->picture, l->m, item, &own));
    int rc = encode_all(l, item, p, &own, extra);
    slr_free(l->m, own.data);
    return rc < 0 ? rc : slr_loader_to_disk(l, item, &key, extra);
}

/* --- of a batch --- */

/* The masks of a picture in turn: each is used as often as any other. */
static void from_cache(slr_loader *l, const slr_entry *e, float *to)
{
    const slr_item *item = slr_dataset_item(l->d, e->item);
    slr_rng rng;
    int64_t masks = slr_loader_masks(l, item);
    int64_t k = (l->batch.epoch * item->repeats + e->draw) % masks;
    if (slr_loader_flip(l, l->batch.epoch, e, &rng))
        k += masks;
    size_t size = slr_loader_extra_size(l, item);
    memcpy(to, l->extra[e->item] + (size_t)k * size, size * sizeof *to);
}

/* The mask of a use that brings none beforehand. */
static int fresh_mask(slr_loader *l, const slr_entry *e, const slr_window *at)
{
    const slr_item *item = slr_dataset_item(l->d, e->item);
    const slr_bucket *b = slr_dataset_bucket(l->d, item->bucket);
    slr_pixels own;
    slr_rng rng;
    if (!item->mask) {
        slr_loader_stream(l, SLR_STREAM_MASK, l->batch.epoch, e, &rng);
        slr_masks_draw(&rng, b->width, b->height, l->mask);
        return SDLORA_OK;
    }
    SLR_TRY(slr_masks_read(&l->picture, l->m, item, &own));
    slr_masks_window(&own, at->left, at->top, b->width, b->height, at->flip, l->mask);
    slr_free(l->m, own.data);
    return SDLORA_OK;
}

static bool is_kept(const slr_loader *l, const slr_entry *e)
{
    return l->extra && l->extra[e->item];
}

/* `again`: the sample's picture, read once more because its latents came from the cache. */
static int make_fresh(slr_loader *l, const slr_entry *e, slr_ahead *again, float *image,
                      float *extra)
{
    const slr_item *item = slr_dataset_item(l->d, e->item);
    const slr_bucket *b = slr_dataset_bucket(l->d, item->bucket);
    slr_window at = slr_loader_window(l, l->batch.epoch, e);
    SLR_TRY(make_room(l, item));
    if (again) {
        slr_pixels p;
        SLR_TRY(slr_ahead_next(again, &p));
        slr_picture_floats(&p, at.left, at.top, b->width, b->height, at.flip, image);
        slr_free(l->m, p.data);
    }
    SLR_TRY(fresh_mask(l, e, &at));
    return encode_one(l, item, image, extra);
}

static int fill_extra(slr_loader *l, const slr_entry *e, slr_ahead *again)
{
    slr_batch *b = &l->batch;
    size_t size = slr_loader_extra_size(l, slr_dataset_item(l->d, e->item));
    size_t pixels = again ? 0 : (size_t)(b->w * b->h * 3); /* one after the other in one place */
    SLR_TRY(
        slr_grow(l->m, &l->extra_data, &l->extra_cap, size * (size_t)b->n, sizeof *l->extra_data));
    for (size_t i = 0; i < (size_t)b->n; i++) {
        float *to = l->extra_data + i * size;
        if (is_kept(l, &e[i]))
            from_cache(l, &e[i], to);
        else
            SLR_TRY(make_fresh(l, &e[i], again, l->pixels + i * pixels, to));
    }
    b->extra = l->extra_data;
    return SDLORA_OK;
}

int slr_loader_fill_extra(slr_loader *l, const slr_entry *e)
{
    const slr_batch *b = &l->batch;
    slr_ahead *again = NULL;
    size_t n = 0;
    for (int64_t i = 0; !l->random_crop && i < b->n; i++)
        if (!is_kept(l, &e[i]))
            l->fresh[n++] = e[i].item;
    if (n) {
        SLR_TRY(slr_grow(l->m, &l->pixels, &l->pixels_cap, (size_t)(b->w * b->h * 3),
                         sizeof *l->pixels));
        SLR_TRY(slr_ahead_new(&again, l->m, &l->picture, l->d, l->fresh, n));
    }
    int rc = fill_extra(l, e, again);
    slr_ahead_free(again);
    return rc;
}
