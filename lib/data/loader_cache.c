/* SPDX-License-Identifier: MIT */
/* What a loader encodes before the first step: read from disk where a file fits, made where none
 * does, kept in memory.  Refuses to know the encoder and the order of use. */
#include <math.h>
#include <string.h>

#include "base/map.h"
#include "base/status.h"
#include "data/ahead.h"
#include "data/loader_impl.h"

size_t slr_loader_latent_size(const slr_loader *l, const slr_item *item)
{
    const slr_bucket *b = slr_dataset_bucket(l->d, item->bucket);
    return (size_t)(b->width / l->c.factor) * (size_t)(b->height / l->c.factor) *
           (size_t)l->c.channels;
}

int slr_loader_variants(const slr_loader *l)
{
    return l->flip && !l->random_crop ? 2 : 1;
}

int slr_loader_check_finite(const slr_loader *l, const slr_item *item, const float *x, size_t n)
{
    (void)l;
    for (size_t i = 0; i < n; i++)
        if (!isfinite(x[i]))
            return slr_fail(SDLORA_ENAN, __func__,
                            "%s: the VAE gave values that are not finite; a VAE in half precision "
                            "may need another one or f32",
                            item->path);
    return SDLORA_OK;
}

int slr_loader_stopped(const slr_loader *l)
{
    if (l->c.cancel && atomic_load(l->c.cancel))
        return slr_fail(SDLORA_ECANCELED, __func__, "canceled while pictures were encoded");
    return SDLORA_OK;
}

/* --- on disk --- */

slr_cache_key slr_loader_key(const slr_loader *l, const slr_item *item)
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
                           .variants = slr_loader_variants(l),
                           .settings = slr_hash64(how, sizeof how, 0)};
}

/* OK: it was on disk.  DONE: it has to be made. */
static int from_disk(slr_loader *l, const slr_item *item, const slr_cache_key *key, float *values)
{
    if (!l->disk)
        return SDLORA_DONE;
    int rc = slr_cache_load(l->m, item, key, values);
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
int slr_loader_to_disk(slr_loader *l, const slr_item *item, const slr_cache_key *key,
                       const float *values)
{
    if (!l->disk || l->cannot_write)
        return SDLORA_OK;
    int rc = slr_cache_save(l->m, item, key, values);
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

int slr_loader_load(slr_loader *l, const slr_item *item, float *latents, float *extra,
                    unsigned *lacks)
{
    slr_cache_key key = slr_loader_key(l, item);
    int rc = from_disk(l, item, &key, latents);
    SLR_TRY(rc);
    *lacks = rc == SDLORA_DONE ? SLR_LACKS_LATENTS : 0;
    if (!extra)
        return SDLORA_OK;
    key = slr_loader_extra_key(l, item);
    rc = from_disk(l, item, &key, extra);
    SLR_TRY(rc);
    *lacks |= rc == SDLORA_DONE ? SLR_LACKS_EXTRA : 0;
    return SDLORA_OK;
}

/* --- making --- */

int slr_loader_encode(slr_loader *l, const slr_item *item, const slr_pixels *p, float *latents)
{
    const slr_bucket *b = slr_dataset_bucket(l->d, item->bucket);
    size_t n = slr_loader_latent_size(l, item);
    size_t pixels = (size_t)b->width * (size_t)b->height * 3;
    int variants = slr_loader_variants(l);
    slr_cache_key key = slr_loader_key(l, item);
    SLR_TRY(slr_grow(l->m, &l->pixels, &l->pixels_cap, pixels, sizeof *l->pixels));
    for (int flip = 0; flip < variants; flip++) {
        SLR_TRY(slr_loader_stopped(l));
        slr_picture_floats(p, item->crop_left, item->crop_top, b->width, b->height, flip,
                           l->pixels);
        SLR_TRY(l->c.encode(l->c.encode_user, l->pixels, 1, b->height, b->width,
                            latents + (size_t)flip * n));
    }
    SLR_TRY(slr_loader_check_finite(l, item, latents, n * (size_t)variants));
    return slr_loader_to_disk(l, item, &key, latents);
}

static int report(slr_loader *l, int64_t done, int64_t total)
{
    SLR_TRY(slr_loader_stopped(l));
    if (l->c.progress && l->c.progress(l->c.progress_user, done, total) != 0)
        return slr_fail(SDLORA_ECANCELED, __func__, "canceled by the progress callback");
    return SDLORA_OK;
}

/* Pictures that lack something, and what. */
typedef struct missing {
    size_t *item;
    unsigned *lacks;
    size_t n;
} missing;

static int make_room(slr_loader *l, size_t i)
{
    const slr_item *item = slr_dataset_item(l->d, i);
    size_t variants = (size_t)slr_loader_variants(l), masks = (size_t)slr_loader_masks(l, item);
    l->latents[i] =
        slr_calloc(l->m, slr_loader_latent_size(l, item) * variants, sizeof **l->latents);
    if (!l->latents[i])
        return SDLORA_ENOMEM;
    if (!masks)
        return SDLORA_OK;
    l->extra[i] =
        slr_calloc(l->m, slr_loader_extra_size(l, item) * variants * masks, sizeof **l->extra);
    return l->extra[i] ? SDLORA_OK : SDLORA_ENOMEM;
}

static int load_all(slr_loader *l, missing *left)
{
    size_t n = slr_dataset_items(l->d);
    for (size_t i = 0; i < n; i++) {
        unsigned lacks;
        SLR_TRY(make_room(l, i));
        SLR_TRY(slr_loader_load(l, slr_dataset_item(l->d, i), l->latents[i],
                                l->extra ? l->extra[i] : NULL, &lacks));
        if (lacks) {
            left->item[left->n] = i;
            left->lacks[left->n++] = lacks;
        } else {
            SLR_TRY(report(l, (int64_t)(i + 1 - left->n), (int64_t)n));
        }
    }
    if (l->n_bad > 0)
        slr_logf(&l->c.log, SLR_LOG_WARN, "%lld latent cache files are made anew: %s",
                 (long long)l->n_bad, l->first_bad ? l->first_bad : "");
    return SDLORA_OK;
}

static int make_one(slr_loader *l, size_t i, unsigned lacks, const slr_pixels *p)
{
    const slr_item *item = slr_dataset_item(l->d, i);
    if (lacks & SLR_LACKS_LATENTS)
        SLR_TRY(slr_loader_encode(l, item, p, l->latents[i]));
    return lacks & SLR_LACKS_EXTRA ? slr_loader_encode_masked(l, item, p, l->extra[i]) : SDLORA_OK;
}

static int make_all(slr_loader *l, const missing *left)
{
    size_t n = slr_dataset_items(l->d);
    slr_ahead *ahead;
    int rc = slr_ahead_new(&ahead, l->m, &l->picture, l->d, left->item, left->n);
    for (size_t i = 0; rc == 0 && i < left->n; i++) {
        slr_pixels p;
        rc = slr_ahead_next(ahead, &p);
        if (rc == 0)
            rc = make_one(l, left->item[i], left->lacks[i], &p);
        slr_free(l->m, p.data);
        if (rc == 0)
            rc = report(l, (int64_t)(n - left->n + i + 1), (int64_t)n);
    }
    slr_ahead_free(ahead);
    return rc;
}

int slr_loader_fill(slr_loader *l)
{
    size_t n = slr_dataset_items(l->d);
    missing left = {.item = slr_calloc(l->m, n, sizeof *left.item),
                    .lacks = slr_calloc(l->m, n, sizeof *left.lacks)};
    l->latents = slr_calloc(l->m, n, sizeof *l->latents);
    if (l->c.inpaint)
        l->extra = slr_calloc(l->m, n, sizeof *l->extra);
    bool room = left.item && left.lacks && l->latents && (l->extra || !l->c.inpaint);
    int rc = room ? load_all(l, &left) : SDLORA_ENOMEM;
    if (rc == 0 && left.n > 0)
        rc = make_all(l, &left);
    slr_free(l->m, left.item);
    slr_free(l->m, left.lacks);
    return rc;
}
