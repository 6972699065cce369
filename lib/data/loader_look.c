/* SPDX-License-Identifier: MIT */
/* What a loader will take, before it is made: bytes are counted, seconds measured on a few
 * pictures.  Writes nothing. */
#include "base/clock.h"
#include "base/map.h"
#include "base/status.h"
#include "data/ahead.h"
#include "data/loader_impl.h"

enum { TRIES = 9, CACHE_HEADER = 512 };
static const double TRY_SECONDS = 3;

static double pixels_of(const slr_loader *l, size_t i)
{
    const slr_bucket *b = slr_dataset_bucket(l->d, slr_dataset_item(l->d, i)->bucket);
    return (double)b->width * b->height;
}

/* Pixels that the encoder sees before the first step, and in an epoch. */
typedef struct work {
    double once, each;
} work;

static void count_file(slr_loader_needs *needs, size_t floats)
{
    needs->cache_files++;
    needs->cache_bytes += floats * sizeof(float) + CACHE_HEADER;
}

/* What stays in memory, and what of it has to be made. */
static int count_kept(slr_loader *l, size_t i, slr_loader_needs *needs, work *w)
{
    const slr_item *item = slr_dataset_item(l->d, i);
    size_t variants = (size_t)slr_loader_variants(l), masks = (size_t)slr_loader_masks(l, item);
    size_t floats = variants * slr_loader_latent_size(l, item);
    size_t more = variants * masks * slr_loader_extra_size(l, item);
    unsigned lacks;
    SLR_TRY(slr_grow(l->m, &l->data, &l->data_cap, floats, sizeof *l->data));
    SLR_TRY(slr_grow(l->m, &l->extra_data, &l->extra_cap, more, sizeof *l->extra_data));
    SLR_TRY(slr_loader_load(l, item, l->data, masks ? l->extra_data : NULL, &lacks));
    needs->latent_bytes += (floats + more) * sizeof *l->data;
    size_t encodes = lacks & SLR_LACKS_LATENTS ? variants : 0;
    encodes += lacks & SLR_LACKS_EXTRA ? variants * masks : 0;
    w->once += (double)encodes * pixels_of(l, i);
    needs->pictures += lacks != 0;
    if (l->disk && (lacks & SLR_LACKS_LATENTS))
        count_file(needs, floats);
    if (l->disk && (lacks & SLR_LACKS_EXTRA))
        count_file(needs, more);
    return SDLORA_OK;
}

/* Pictures that are encoded at any time, into `some`. */
static int count_pictures(slr_loader *l, size_t *some, size_t *n, slr_loader_needs *needs, work *w)
{
    for (size_t i = 0; i < slr_dataset_items(l->d); i++) {
        const slr_item *item = slr_dataset_item(l->d, i);
        bool fresh = l->c.inpaint && slr_loader_masks(l, item) == 0;
        int64_t before = needs->pictures;
        SLR_TRY(slr_loader_stopped(l));
        if (!l->random_crop)
            SLR_TRY(count_kept(l, i, needs, w));
        if (l->random_crop || fresh) {
            needs->epoch_pictures += item->repeats;
            w->each += (double)(item->repeats * (l->random_crop + fresh)) * pixels_of(l, i);
        }
        if (l->random_crop || fresh || needs->pictures > before)
            some[(*n)++] = i;
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
        size_t variants = (size_t)slr_loader_variants(l);
        size_t floats = slr_loader_latent_size(l, item) * variants;
        slr_pixels p = {0};
        rc = slr_ahead_next(ahead, &p);
        if (rc >= 0)
            rc = slr_grow(l->m, &l->data, &l->data_cap, floats, sizeof *l->data);
        if (rc >= 0)
            rc = slr_loader_encode(l, item, &p, l->data);
        slr_free(l->m, p.data);
        if (i == 0)
            first = slr_clock();
        else
            *pixels += (double)variants * pixels_of(l, items[i]);
        *seconds = slr_clock() - first;
    }
    slr_ahead_free(ahead);
    return rc;
}

/* The biggest picture makes the plan and its memory; then a few from all over the set are timed. */
static int time_pictures(slr_loader *l, const size_t *some, size_t n, const work *w,
                         slr_loader_needs *needs)
{
    size_t row[TRIES], big = 0, n_row = n < TRIES ? n : TRIES;
    double seconds, pixels;
    for (size_t i = 0; i < n; i++)
        if (pixels_of(l, some[i]) > pixels_of(l, some[big]))
            big = i;
    row[0] = some[big];
    double begun = slr_clock();
    SLR_TRY(try_row(l, row, 1, &seconds, &pixels));
    double first = slr_clock() - begun;
    for (size_t i = 0; i < n_row; i++)
        row[i] = some[i * n / n_row];
    if (n_row == 1)
        row[n_row++] = row[0];
    SLR_TRY(try_row(l, row, n_row, &seconds, &pixels));
    double rate = seconds / pixels;
    needs->seconds = w->once * rate;
    needs->epoch_seconds = w->each * rate;
    first -= rate * slr_loader_variants(l) * pixels_of(l, some[big]);
    needs->start = first > 0 ? first : 0;
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
    work w = {0};
    slr_require(out);
    *out = (slr_loader_needs){0};
    SLR_TRY(slr_loader_make(&l, d, config));
    l->cannot_write = true;
    size_t *some = slr_calloc(l->m, slr_dataset_items(d), sizeof *some);
    int rc = some ? count_pictures(l, some, &n, out, &w) : SDLORA_ENOMEM;
    if (rc >= 0 && n > 0)
        rc = time_pictures(l, some, n, &w, out);
    if (rc >= 0)
        rc = count_captions(l, out);
    slr_free(config->mem, some);
    slr_loader_free(l);
    return rc;
}
