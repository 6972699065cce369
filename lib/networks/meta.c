/* SPDX-License-Identifier: MIT */
/* Ordered key/value text pairs: what stands in a file's __metadata__. */
#include "networks/netfile.h"

#include <stdio.h>
#include <string.h>

#include "base/status.h"
#include "base/str.h"

typedef struct pair {
    char *key, *value;
} pair;

struct slr_meta {
    slr_mem *m;
    pair *at;
    size_t n, cap;
};

int slr_meta_new(slr_meta **out, slr_mem *m)
{
    *out = slr_calloc(m, 1, sizeof **out);
    if (!*out)
        return SDLORA_ENOMEM;
    (*out)->m = m;
    return SDLORA_OK;
}

void slr_meta_free(slr_meta *meta)
{
    if (!meta)
        return;
    for (size_t i = 0; i < meta->n; i++) {
        slr_free(meta->m, meta->at[i].key);
        slr_free(meta->m, meta->at[i].value);
    }
    slr_free(meta->m, meta->at);
    slr_free(meta->m, meta);
}

static pair *find(const slr_meta *meta, const char *key)
{
    for (size_t i = 0; i < meta->n; i++)
        if (!strcmp(meta->at[i].key, key))
            return &meta->at[i];
    return NULL;
}

int slr_meta_set(slr_meta *meta, const char *key, const char *value)
{
    char *copy = slr_strdup(meta->m, value);
    if (!copy)
        return SDLORA_ENOMEM;
    pair *p = find(meta, key);
    if (p) {
        slr_free(meta->m, p->value);
        p->value = copy;
        return SDLORA_OK;
    }
    char *name = slr_strdup(meta->m, key);
    if (!name || slr_grow(meta->m, &meta->at, &meta->cap, meta->n + 1, sizeof *meta->at) < 0) {
        slr_free(meta->m, name);
        slr_free(meta->m, copy);
        return SDLORA_ENOMEM;
    }
    meta->at[meta->n++] = (pair){name, copy};
    return SDLORA_OK;
}

int slr_meta_setf(slr_meta *meta, const char *key, const char *fmt, ...)
{
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (n < 0 || (size_t)n >= sizeof text)
        return slr_fail(SDLORA_EINVAL, __func__, "the metadata value of %s is too long", key);
    return slr_meta_set(meta, key, text);
}

const char *slr_meta_get(const slr_meta *meta, const char *key)
{
    const pair *p = find(meta, key);
    return p ? p->value : NULL;
}

size_t slr_meta_count(const slr_meta *meta)
{
    return meta->n;
}

const char *slr_meta_at(const slr_meta *meta, size_t i, const char **value)
{
    *value = meta->at[i].value;
    return meta->at[i].key;
}

uint64_t slr_meta_text_bytes(const slr_meta *meta)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < slr_meta_count(meta); i++) {
        const char *value, *key = slr_meta_at(meta, i, &value);
        bytes += strlen(key) + strlen(value) + SLR_NETFILE_PAIR;
        for (const char *p = value; *p; p++)
            bytes += *p == '"' || *p == '\\';
    }
    return bytes;
}
