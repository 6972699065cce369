/* SPDX-License-Identifier: MIT */
/* What a dataset says of itself in a network's metadata, with the spelling of Python's json.dumps
 * since other programs read it.  Knows no other part of the metadata. */
#include <string.h>

#include "base/map.h"
#include "base/status.h"
#include "base/str.h"
#include "data/caption.h"
#include "data/dataset_impl.h"
#include "io/json.h"

static void comma(slr_buf *b, bool *first)
{
    if (!*first)
        slr_buf_puts(b, ", ");
    *first = false;
}

static void quote(slr_buf *b, const char *text)
{
    slr_json_quote(b, text, strlen(text), true);
}

static char *finish(slr_buf *b)
{
    char *text = slr_buf_ok(b) == 0 ? slr_buf_take(b) : NULL;
    slr_buf_free(b);
    return text;
}

/* --- tags --- */

static int count_caption(slr_map *tags, slr_mem *m, const char *caption)
{
    slr_str rest = slr_str_of(caption), piece;
    slr_buf tag;
    int rc = SDLORA_OK;
    slr_buf_init(&tag, m);
    while (rc == 0 && slr_str_next(&rest, ',', &piece)) {
        int64_t n = 0;
        piece = slr_caption_strip(piece);
        if (piece.n == 0)
            continue;
        tag.len = 0;
        slr_caption_lower(&tag, piece);
        rc = slr_buf_ok(&tag);
        if (rc == 0) {
            slr_map_get(tags, tag.data, &n);
            rc = slr_map_set(tags, tag.data, n + 1);
        }
    }
    slr_buf_free(&tag);
    return rc;
}

/* Folders of one name (a training and a regularisation one) are counted together, at the place of
 * the first. */
static bool is_first(const slr_dataset *d, size_t at)
{
    for (size_t i = 0; i < at; i++)
        if (!strcmp(d->subset[i].dir, d->subset[at].dir))
            return false;
    return true;
}

static int count_dir(const slr_dataset *d, const char *dir, slr_map *tags)
{
    slr_map_clear(tags);
    for (size_t i = 0; i < d->n_item; i++)
        if (!strcmp(d->subset[d->item[i].subset].dir, dir))
            SLR_TRY(count_caption(tags, d->m, d->item[i].caption));
    return SDLORA_OK;
}

static int write_tags(const slr_dataset *d, slr_map *tags, slr_buf *b)
{
    bool first_dir = true;
    slr_buf_putc(b, '{');
    for (size_t s = 0; s < d->n_subset; s++) {
        bool first = true;
        if (!is_first(d, s))
            continue;
        SLR_TRY(count_dir(d, d->subset[s].dir, tags));
        comma(b, &first_dir);
        quote(b, d->subset[s].dir);
        slr_buf_puts(b, ": {");
        for (size_t i = 0; i < slr_map_count(tags); i++) {
            int64_t n;
            const char *tag = slr_map_at(tags, i, &n);
            comma(b, &first);
            quote(b, tag);
            slr_buf_printf(b, ": %lld", (long long)n);
        }
        slr_buf_putc(b, '}');
    }
    slr_buf_putc(b, '}');
    return slr_buf_ok(b);
}

int slr_dataset_count_tags(slr_dataset *d)
{
    slr_map *tags;
    slr_buf b;
    SLR_TRY(slr_map_new(&tags, d->m));
    slr_buf_init(&b, d->m);
    int rc = write_tags(d, tags, &b);
    slr_map_free(tags);
    if (rc == 0 && !(d->tags = slr_buf_take(&b)))
        rc = SDLORA_ENOMEM;
    slr_buf_free(&b);
    return rc;
}

char *slr_dataset_tag_frequency(const slr_dataset *d, slr_mem *m)
{
    return slr_strdup(m, d->tags);
}

/* --- folders and buckets --- */

char *slr_dataset_dirs_json(const slr_dataset *d, slr_mem *m, bool reg)
{
    bool first = true;
    slr_buf b;
    slr_buf_init(&b, m);
    slr_buf_putc(&b, '{');
    for (size_t i = 0; i < d->n_subset; i++) {
        const slr_subset *s = &d->subset[i];
        if (s->is_reg != reg)
            continue;
        comma(&b, &first);
        quote(&b, s->dir);
        slr_buf_printf(&b, ": {\"n_repeats\": %lld, \"img_count\": %lld}", (long long)s->repeats,
                       (long long)s->images);
    }
    slr_buf_putc(&b, '}');
    return finish(&b);
}

char *slr_dataset_bucket_info(const slr_dataset *d, slr_mem *m)
{
    char number[32];
    bool first = true;
    slr_buf b;
    slr_buf_init(&b, m);
    if (!d->rule.enable) {
        slr_buf_puts(&b, "null");
        return finish(&b);
    }
    slr_buf_puts(&b, "{\"buckets\": {");
    for (size_t i = 0; i < d->n_bucket; i++) {
        comma(&b, &first);
        slr_buf_printf(&b, "\"%zu\": {\"resolution\": [%d, %d], \"count\": %lld}", i,
                       (int)d->bucket[i].width, (int)d->bucket[i].height,
                       (long long)d->bucket[i].count);
    }
    slr_real_repr(d->mean_error, number);
    slr_buf_printf(&b, "}, \"mean_img_ar_error\": %s}", number);
    return finish(&b);
}
