/* SPDX-License-Identifier: MIT */
/* Aspect-ratio buckets with the numbers of kohya's trainers, since the batches of a run follow from
 * them.  Knows only sizes.  Refuses to know where a picture comes from or how many there are. */
#include "data/bucket.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>

#include "base/status.h"

int slr_bucket_check(slr_bucket_rule *rule)
{
    int32_t w = rule->resolution.w, h = rule->resolution.h;
    if (!rule->enable || rule->no_upscale)
        return SDLORA_OK;
    int32_t lo = rule->min - rule->min % rule->step;
    int64_t hi = ((int64_t)rule->max + rule->step - 1) / rule->step * rule->step;
    if (lo < rule->step)
        lo = rule->step;
    if (lo > (w < h ? w : h))
        return slr_fail(SDLORA_EINVAL, __func__,
                        "min_bucket_reso %d must not be larger than the shorter side of the "
                        "resolution %dx%d",
                        (int)rule->min, (int)w, (int)h);
    if (hi < (w > h ? w : h))
        return slr_fail(SDLORA_EINVAL, __func__,
                        "max_bucket_reso %d must not be smaller than the longer side of the "
                        "resolution %dx%d",
                        (int)rule->max, (int)w, (int)h);
    rule->min = lo;
    rule->max = (int32_t)hi;
    return SDLORA_OK;
}

static int by_shape(const void *a, const void *b)
{
    const slr_shape *p = a, *q = b;
    if (p->w != q->w)
        return p->w < q->w ? -1 : 1;
    return (p->h > q->h) - (p->h < q->h);
}

static int add(slr_mem *m, slr_shape **list, size_t *n, size_t *cap, int64_t w, int64_t h)
{
    SLR_TRY(slr_grow(m, list, cap, *n + 1, sizeof **list));
    (*list)[(*n)++] = (slr_shape){(int32_t)w, (int32_t)h};
    return SDLORA_OK;
}

/* All pairs whose area stays below that of the resolution, both ways round, repeats included. */
static int collect(slr_mem *m, const slr_bucket_rule *r, slr_shape **list, size_t *n)
{
    int64_t area = (int64_t)r->resolution.w * r->resolution.h;
    int64_t square = (int64_t)(sqrt((double)area) / r->step) * r->step;
    size_t cap = 0;
    SLR_TRY(add(m, list, n, &cap, square, square));
    for (int64_t x = r->min; x <= r->max; x += r->step) {
        int64_t y = area / x / r->step * r->step;
        if (y > r->max)
            y = r->max;
        if (y < r->min)
            continue;
        SLR_TRY(add(m, list, n, &cap, x, y));
        SLR_TRY(add(m, list, n, &cap, y, x));
    }
    return SDLORA_OK;
}

int slr_bucket_table(slr_mem *m, const slr_bucket_rule *rule, slr_shape **out, size_t *n)
{
    slr_shape *list = NULL;
    size_t count = 0, cap = 0, kept = 0;
    slr_require(rule && out && n && rule->step > 0 && rule->resolution.w > 0 &&
                rule->resolution.h > 0);
    *out = NULL;
    *n = 0;
    if (rule->enable && rule->no_upscale)
        return SDLORA_OK;
    slr_require(!rule->enable || rule->min > 0);
    int rc = rule->enable ? collect(m, rule, &list, &count)
                          : add(m, &list, &count, &cap, rule->resolution.w, rule->resolution.h);
    if (rc < 0) {
        slr_free(m, list);
        return rc;
    }
    qsort(list, count, sizeof *list, by_shape);
    for (size_t i = 0; i < count; i++)
        if (kept == 0 || by_shape(&list[i], &list[kept - 1]) != 0)
            list[kept++] = list[i];
    *out = list;
    *n = kept;
    return SDLORA_OK;
}

/* The table's shape of nearest aspect, the first of equals; the picture is scaled to cover it. */
static void fit_table(const slr_shape *table, size_t n, slr_shape image, slr_fit *out)
{
    double aspect = (double)image.w / image.h, best = INFINITY;
    bool exact = false;
    for (size_t i = 0; i < n && !exact; i++) {
        double off = fabs((double)table[i].w / table[i].h - aspect);
        exact = table[i].w == image.w && table[i].h == image.h;
        if (off < best || exact) {
            best = off;
            out->bucket = table[i];
        }
    }
    double w = out->bucket.w, h = out->bucket.h;
    double scale = aspect > w / h ? h / image.h : w / image.w;
    out->resized = (slr_shape){(int32_t)(image.w * scale + 0.5), (int32_t)(image.h * scale + 0.5)};
}

static int64_t to_step(double x, int32_t step)
{
    int64_t whole = (int64_t)(x + 0.5);
    return whole - whole % step;
}

/* Two candidates of the resolution's area, one with its width and one with its height on the grid:
 * the one of nearer aspect wins. */
static int shrink(const slr_bucket_rule *r, slr_shape image, slr_shape *resized)
{
    double aspect = (double)image.w / image.h;
    double area = (double)r->resolution.w * r->resolution.h;
    double w = sqrt(area * aspect), h = area / w;
    int64_t w1 = to_step(w, r->step), h1 = to_step((double)w1 / aspect, r->step);
    int64_t h2 = to_step(h, r->step), w2 = to_step((double)h2 * aspect, r->step);
    if (h1 == 0 || h2 == 0)
        return slr_fail(SDLORA_EINVAL, __func__, "a picture of %dx%d is too narrow for any bucket",
                        (int)image.w, (int)image.h);
    if (fabs((double)w1 / (double)h1 - aspect) < fabs((double)w2 / (double)h2 - aspect))
        *resized = (slr_shape){(int32_t)w1, (int32_t)((double)w1 / aspect + 0.5)};
    else
        *resized = (slr_shape){(int32_t)((double)h2 * aspect + 0.5), (int32_t)h2};
    return SDLORA_OK;
}

int slr_bucket_fit(const slr_bucket_rule *rule, const slr_shape *table, size_t n, slr_shape image,
                   slr_fit *out)
{
    slr_require(rule && out && image.w > 0 && image.h > 0);
    *out = (slr_fit){.resized = image};
    if (!rule->enable || !rule->no_upscale) {
        slr_require(table && n > 0);
        fit_table(table, n, image, out);
    } else {
        int64_t area = (int64_t)rule->resolution.w * rule->resolution.h;
        if ((int64_t)image.w * image.h > area)
            SLR_TRY(shrink(rule, image, &out->resized));
        out->bucket.w = out->resized.w - out->resized.w % rule->step;
        out->bucket.h = out->resized.h - out->resized.h % rule->step;
    }
    if (out->bucket.h == 0)
        return slr_fail(SDLORA_EINVAL, __func__, "a picture of %dx%d is lower than one step of %d",
                        (int)image.w, (int)image.h, (int)rule->step);
    out->ar_error = (double)out->bucket.w / out->bucket.h - (double)image.w / image.h;
    return SDLORA_OK;
}
