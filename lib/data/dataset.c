/* SPDX-License-Identifier: MIT */
/* A dataset: what the folders gave, counted, sorted into buckets and frozen.  Knows repeats,
 * regularisation pictures and batch arithmetic.  Refuses to decode a picture: that is the loader's
 * work. */
#include "data/dataset.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/map.h"
#include "base/status.h"
#include "base/str.h"
#include "data/augment.h"
#include "data/dataset_impl.h"

#define MAX_SIDE 16384 /* of the resolution, pixels */

int slr_dataset_note(slr_dataset *d, const char *fmt, ...)
{
    char text[1200];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    slr_logf(&d->log, SLR_LOG_WARN, "%s", text);
    SLR_TRY(slr_grow(d->m, &d->note, &d->cap_note, d->n_note + 1, sizeof *d->note));
    d->note[d->n_note] = slr_arena_strdup(d->arena, text);
    if (!d->note[d->n_note])
        return SDLORA_ENOMEM;
    d->n_note++;
    return SDLORA_OK;
}

/* --- settings --- */

/* "512" or "512,768". */
static int parse_resolution(const char *text, slr_shape *out)
{
    int64_t side[2] = {0, 0};
    slr_str rest = slr_str_of(text), piece;
    size_t n = 0;
    bool good = true;
    while (good && slr_str_next(&rest, ',', &piece)) {
        char number[24];
        piece = slr_str_trim(piece);
        good = n < 2 && piece.n > 0 && piece.n < sizeof number;
        if (good) {
            memcpy(number, piece.p, piece.n);
            number[piece.n] = '\0';
            good = slr_parse_i64(number, &side[n]) && side[n] >= 8 && side[n] <= MAX_SIDE;
            n++;
        }
    }
    if (!good || n == 0)
        return slr_fail(SDLORA_EINVAL, __func__,
                        "resolution \"%s\" is not a side or \"width,height\" of 8 to %d pixels",
                        text, MAX_SIDE);
    *out = (slr_shape){(int32_t)side[0], (int32_t)(n == 2 ? side[1] : side[0])};
    return SDLORA_OK;
}

static int settings(slr_dataset *d)
{
    slr_opt o = {d->opts, "dataset"};
    slr_background colour;
    SLR_TRY(slr_opt_check_supported(o));
    if (!slr_opt_text(o, "train_data_dir") || !*slr_opt_text(o, "train_data_dir"))
        return slr_fail(SDLORA_EINVAL, __func__, "train_data_dir is not given");
    d->rule = (slr_bucket_rule){.min = (int32_t)slr_opt_int(o, "min_bucket_reso"),
                                .max = (int32_t)slr_opt_int(o, "max_bucket_reso"),
                                .step = (int32_t)slr_opt_int(o, "bucket_reso_steps"),
                                .enable = slr_opt_bool(o, "enable_bucket"),
                                .no_upscale = slr_opt_bool(o, "bucket_no_upscale")};
    SLR_TRY(parse_resolution(slr_opt_text(o, "resolution"), &d->rule.resolution));
    SLR_TRY(slr_bucket_check(&d->rule));
    if (d->rule.max > 65535)
        return slr_fail(SDLORA_EINVAL, __func__, "max_bucket_reso %d is above 65535",
                        (int)d->rule.max);
    SLR_TRY(slr_background_parse(slr_opt_text(o, "background"), &colour));
    bool cached = slr_opt_bool(o, "cache_latents") || slr_opt_bool(o, "cache_latents_to_disk");
    if (cached && slr_opt_bool(o, "random_crop"))
        return slr_fail(SDLORA_EINVAL, __func__,
                        "cache_latents and random_crop exclude each other: a cached latent has "
                        "one crop");
    d->batch = slr_opt_int(o, "train_batch_size");
    return slr_bucket_table(d->m, &d->rule, &d->table, &d->n_table);
}

/* --- counting --- */

/* Regularisation pictures are taken in turn until there are as many as training samples; what is
 * not needed is left out. */
static int balance(slr_dataset *d)
{
    int64_t have = 0, used = 0, turn = 0;
    size_t kept = 0;
    for (size_t i = 0; i < d->n_item; i++)
        if (!d->subset[d->item[i].subset].is_reg)
            d->n_train += d->item[i].repeats;
        else
            d->n_reg += d->item[i].repeats;
    for (size_t i = 0; i < d->n_item; i++) {
        if (!d->subset[d->item[i].subset].is_reg)
            continue;
        if (have >= d->n_train)
            d->item[i].repeats = 0;
        have += d->item[i].repeats;
        used += d->item[i].repeats > 0;
    }
    for (size_t i = 0; i < d->n_item; i++) {
        slr_item *it = &d->item[i];
        if (d->subset[it->subset].is_reg && it->repeats > 0 && have < d->n_train) {
            /* the turn-th of `used` gets the whole rounds and, early in line, one more */
            int64_t more = d->n_train - have;
            it->repeats += more / used + (turn < more % used);
            turn++;
        }
        if (it->repeats > 0) {
            d->ar_error[kept] = d->ar_error[i];
            d->item[kept++] = *it;
        }
    }
    if (kept < d->n_item)
        SLR_TRY(slr_dataset_note(d,
                                 "%zu regularisation pictures are not used: there are more "
                                 "than training samples",
                                 d->n_item - kept));
    d->n_item = kept;
    return SDLORA_OK;
}

static int by_key(const void *a, const void *b)
{
    const size_t *p = a, *q = b;
    return (*p > *q) - (*p < *q);
}

static int sort_buckets(slr_dataset *d)
{
    size_t *key = slr_calloc(d->m, d->n_item, sizeof *key), n = 0;
    d->bucket = slr_calloc(d->m, d->n_item, sizeof *d->bucket);
    if (!key || !d->bucket) {
        slr_free(d->m, key);
        return SDLORA_ENOMEM;
    }
    for (size_t i = 0; i < d->n_item; i++)
        key[i] = d->item[i].bucket;
    qsort(key, d->n_item, sizeof *key, by_key);
    for (size_t i = 0; i < d->n_item; i++)
        if (n == 0 || key[i] != key[n - 1])
            key[n++] = key[i];
    for (size_t i = 0; i < n; i++)
        d->bucket[i] = (slr_bucket){(int32_t)(key[i] >> 16), (int32_t)(key[i] & 0xFFFF), 0};
    for (size_t i = 0; i < d->n_item; i++) {
        slr_item *it = &d->item[i];
        size_t *at = bsearch(&it->bucket, key, n, sizeof *key, by_key);
        it->bucket = at ? (size_t)(at - key) : 0;
        d->bucket[it->bucket].count += it->repeats;
    }
    d->n_bucket = n;
    slr_free(d->m, key);
    return SDLORA_OK;
}

/* numpy's mean, so that its last digit in the metadata is the same: halves down to 128 numbers,
 * eight sums inside. */
static double pairwise(const double *x, size_t n)
{
    if (n > 128) {
        size_t half = n / 2 - n / 2 % 8;
        return pairwise(x, half) + pairwise(x + half, n - half);
    }
    double r[8] = {0}, sum;
    size_t i = 0;
    for (; i + 8 <= n; i += 8)
        for (size_t k = 0; k < 8; k++)
            r[k] = i ? r[k] + x[i + k] : x[i + k];
    sum = ((r[0] + r[1]) + (r[2] + r[3])) + ((r[4] + r[5]) + (r[6] + r[7]));
    for (; i < n; i++)
        sum += x[i];
    return sum;
}

static int count(slr_dataset *d)
{
    int64_t entries = 0;
    SLR_TRY(balance(d));
    SLR_TRY(sort_buckets(d));
    for (size_t i = 0; i < d->n_bucket; i++) {
        entries += d->bucket[i].count;
        d->n_batches += (d->bucket[i].count + d->batch - 1) / d->batch;
    }
    if (entries > SLR_MAX_ENTRIES)
        return slr_fail(SDLORA_EINVAL, __func__,
                        "an epoch would have %lld samples, more than %lld: lower the repeats in "
                        "the folders' names",
                        (long long)entries, (long long)SLR_MAX_ENTRIES);
    for (size_t i = 0; i < d->n_item; i++)
        d->ar_error[i] = fabs(d->ar_error[i]);
    d->mean_error = pairwise(d->ar_error, d->n_item) / (double)d->n_item;
    return SDLORA_OK;
}

/* --- fingerprint --- */

/* Options that change where bytes come from or how fast, but not which samples are drawn. */
static bool is_setting(const char *name)
{
    static const char *const no[] = {"train_data_dir",
                                     "reg_data_dir",
                                     "cache_latents",
                                     "cache_latents_to_disk",
                                     "cache_info",
                                     "skip_cache_check",
                                     "persistent_data_loader_workers",
                                     "vae_batch_size",
                                     "max_data_loader_n_workers"};
    for (size_t i = 0; i < sizeof no / sizeof *no; i++)
        if (!strcmp(no[i], name))
            return false;
    return true;
}

static uint64_t add_text(uint64_t h, const char *text)
{
    return slr_hash64(text ? text : "", text ? strlen(text) + 1 : 0, h);
}

uint64_t slr_dataset_fingerprint(const slr_dataset *d, bool masks)
{
    slr_opt o = {d->opts, "dataset"};
    size_t n;
    const slr_option_row *row = slr_option_rows(&n);
    uint64_t h = 1;
    for (size_t i = 0; i < n; i++)
        if (!strcmp(row[i].kind, "dataset") && is_setting(row[i].name)) {
            h = add_text(h, row[i].name);
            h = add_text(h, slr_opt_text(o, row[i].name));
        }
    for (size_t i = 0; i < d->n_item; i++) {
        const slr_item *it = &d->item[i];
        const slr_subset *s = &d->subset[it->subset];
        const int64_t number[] = {it->repeats, s->is_reg, (int64_t)it->subset};
        h = slr_hash64(&it->content_hash, sizeof it->content_hash, h);
        h = slr_hash64(number, sizeof number, h);
        h = add_text(h, it->caption);
        if (masks && it->mask)
            h = slr_hash64(&it->mask_hash, sizeof it->mask_hash, h);
    }
    return h;
}

/* --- life --- */

static void destroy(slr_dataset *d)
{
    slr_mem *m = d->m;
    slr_options_unref(d->opts);
    slr_arena_free(d->arena);
    slr_free(m, d->table);
    slr_free(m, d->subset);
    slr_free(m, d->item);
    slr_free(m, d->ar_error);
    slr_free(m, d->bucket);
    slr_free(m, d->note);
    slr_free(m, d->tags);
    slr_free(m, d);
    slr_mem_unref(m);
}

static int tell(slr_dataset *d)
{
    slr_opt o = {d->opts, "dataset"};
    if (d->n_text_beside > 0)
        SLR_TRY(slr_dataset_note(d,
                                 "%lld pictures have no caption file ending in %s, but one ending "
                                 "in .txt: set caption_extension to .txt to use it",
                                 (long long)d->n_text_beside,
                                 slr_opt_text(o, "caption_extension")));
    else if (d->n_uncaptioned > 0)
        SLR_TRY(slr_dataset_note(d,
                                 "%lld pictures have no caption file: the name of their folder is "
                                 "used, or nothing where it has none",
                                 (long long)d->n_uncaptioned));
    if (d->n_cropped > 0)
        SLR_TRY(slr_dataset_note(d,
                                 "%lld pictures lose more than a quarter of their area to "
                                 "cropping%s",
                                 (long long)d->n_cropped,
                                 d->rule.enable ? "" : ": enable_bucket keeps more of them"));
    if (d->n_turned > 0)
        SLR_TRY(slr_dataset_note(d, "%lld pictures are marked as turned and used unturned",
                                 (long long)d->n_turned));
    if (d->n_stray > 0)
        SLR_TRY(
            slr_dataset_note(d, "%lld masks (-masklabel.png) belong to no picture, the first is %s",
                             (long long)d->n_stray, d->first_stray));
    return SDLORA_OK;
}

static int fill(slr_dataset *d)
{
    slr_opt o = {d->opts, "dataset"};
    const char *reg = slr_opt_text(o, "reg_data_dir");
    SLR_TRY(settings(d));
    SLR_TRY(slr_dataset_scan(d, slr_opt_text(o, "train_data_dir"), false));
    if (reg && *reg)
        SLR_TRY(slr_dataset_scan(d, reg, true));
    SLR_TRY(slr_dataset_count_tags(d));
    SLR_TRY(count(d));
    return tell(d);
}

int slr_dataset_open(slr_dataset **out, slr_mem *m, slr_log log, const sdlora_options *opts)
{
    slr_require(out);
    *out = NULL;
    slr_require(opts && !strcmp(slr_options_kind(opts), "dataset"));
    slr_dataset *d = slr_calloc(m, 1, sizeof *d);
    if (!d)
        return SDLORA_ENOMEM;
    d->m = slr_mem_ref(m);
    d->log = log;
    slr_refs_init(&d->refs);
    int rc = slr_options_copy(&d->opts, opts);
    if (rc == 0)
        rc = slr_arena_new(&d->arena, m);
    if (rc == 0)
        rc = fill(d);
    if (rc < 0)
        destroy(d);
    else
        *out = d;
    return rc;
}

slr_dataset *slr_dataset_ref(slr_dataset *d)
{
    if (d)
        slr_refs_get(&d->refs);
    return d;
}

void slr_dataset_unref(slr_dataset *d)
{
    if (d && slr_refs_put(&d->refs))
        destroy(d);
}

/* --- reading --- */

const slr_subset *slr_dataset_subset(const slr_dataset *d, size_t i)
{
    return i < d->n_subset ? &d->subset[i] : NULL;
}

size_t slr_dataset_items(const slr_dataset *d)
{
    return d->n_item;
}

const slr_item *slr_dataset_item(const slr_dataset *d, size_t i)
{
    return i < d->n_item ? &d->item[i] : NULL;
}

size_t slr_dataset_buckets(const slr_dataset *d)
{
    return d->n_bucket;
}

const slr_bucket *slr_dataset_bucket(const slr_dataset *d, size_t i)
{
    return i < d->n_bucket ? &d->bucket[i] : NULL;
}

int64_t slr_dataset_batches_per_epoch(const slr_dataset *d)
{
    return d->n_batches;
}

int64_t slr_dataset_batch_size(const slr_dataset *d)
{
    return d->batch;
}

int64_t slr_dataset_train_images(const slr_dataset *d)
{
    return d->n_train;
}

int64_t slr_dataset_reg_images(const slr_dataset *d)
{
    return d->n_reg;
}

const sdlora_options *slr_dataset_options(const slr_dataset *d)
{
    return d->opts;
}

size_t slr_dataset_notes(const slr_dataset *d, const char *const **lines)
{
    if (lines)
        *lines = d->note;
    return d->n_note;
}
