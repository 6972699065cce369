/* SPDX-License-Identifier: MIT */
/* The texts of a picture file as a list of keywords.  It knows that a keyword stands once; where a
 * format keeps its texts is the codec's, and what they say is for rooms to the right. */
#include "io/image.h"

#include <string.h>

#include "base/status.h"
#include "io/codec.h"
#include "io/file.h"

enum { TEXTS_MAX = 1000 };

#define BYTES_MAX ((size_t)64 << 20) /* of all texts together; what is beyond is left out */

void slr_image_text_keep(slr_buf *out, const uint8_t *bytes, size_t n)
{
    for (size_t at = 0; at < n;) {
        size_t good = slr_utf8_valid((const char *)bytes + at, n - at);
        for (size_t i = at; i < at + good; i++)
            if (bytes[i])
                slr_buf_putc(out, (char)bytes[i]);
        at += good + 1;
    }
}

void slr_image_texts_free(slr_image_texts *t)
{
    for (size_t i = 0; i < t->n; i++) {
        slr_free(t->m, t->at[i].keyword);
        slr_free(t->m, t->at[i].text);
    }
    slr_free(t->m, t->at);
    *t = (slr_image_texts){.m = t->m};
}

const char *slr_image_texts_get(const slr_image_texts *t, const char *keyword)
{
    for (size_t i = 0; i < t->n; i++)
        if (!strcmp(t->at[i].keyword, keyword))
            return t->at[i].text;
    return NULL;
}

static size_t bytes_of(const slr_image_texts *t)
{
    size_t sum = 0;
    for (size_t i = 0; i < t->n; i++)
        sum += strlen(t->at[i].text);
    return sum;
}

static int add(slr_image_texts *t, const char *keyword, char *text)
{
    char *copy = slr_strdup(t->m, keyword);
    if (!copy || slr_grow(t->m, &t->at, &t->cap, t->n + 1, sizeof *t->at) < 0) {
        slr_free(t->m, copy);
        slr_free(t->m, text);
        return SDLORA_ENOMEM;
    }
    t->at[t->n++] = (slr_image_text){copy, text};
    return SDLORA_OK;
}

int slr_image_texts_set(slr_image_texts *t, const char *keyword, char *text)
{
    if (!text)
        return SDLORA_ENOMEM;
    size_t i = 0, sum = strlen(text) + bytes_of(t);
    while (i < t->n && strcmp(t->at[i].keyword, keyword) != 0)
        i++;
    if (i < t->n)
        sum -= strlen(t->at[i].text);
    if (sum > BYTES_MAX || (i == t->n && t->n == TEXTS_MAX)) {
        slr_free(t->m, text);
        return SDLORA_OK;
    }
    if (i == t->n)
        return add(t, keyword, text);
    slr_free(t->m, t->at[i].text);
    t->at[i].text = text;
    return SDLORA_OK;
}

int slr_image_texts_copy(slr_image_texts *out, slr_mem *m, const slr_image_texts *from)
{
    int rc = SDLORA_OK;
    *out = (slr_image_texts){.m = m};
    for (size_t i = 0; rc >= 0 && i < from->n; i++)
        rc = slr_image_texts_set(out, from->at[i].keyword, slr_strdup(m, from->at[i].text));
    return rc;
}

static int texts_of(slr_source *s, slr_image_texts *out)
{
    uint8_t first[32] = {0};
    size_t n = s->size < sizeof first ? (size_t)s->size : sizeof first;
    const slr_codec *codec;
    SLR_TRY(slr_source_get(s, 0, first, n));
    SLR_TRY(slr_codec_find(&codec, first, n, s->label));
    return codec->texts(s, out);
}

int slr_image_texts_parse(slr_image_texts *out, slr_mem *m, const void *bytes, size_t n,
                          const char *label)
{
    slr_source s;
    slr_require(out && label && (bytes || !n));
    *out = (slr_image_texts){.m = m};
    slr_source_memory(&s, bytes ? bytes : "", n, label);
    return texts_of(&s, out);
}

int slr_image_texts_read(slr_image_texts *out, slr_mem *m, const char *path)
{
    slr_source s;
    uint64_t size;
    int fd, rc;
    slr_require(out && path);
    *out = (slr_image_texts){.m = m};
    SLR_TRY(slr_file_fd_open(&fd, &size, path));
    slr_source_file(&s, fd, size, path);
    rc = texts_of(&s, out);
    slr_file_fd_close(fd);
    return rc;
}
