/* SPDX-License-Identifier: MIT */
/* Editing the metadata of a safetensors file.  Knows that a header is JSON in front of bytes that
 * may stay as they are; refuses to know what keys mean, but for the one hash that depends on
 * others. */
#include "io/metaedit.h"

#include <string.h>

#include "base/status.h"
#include "base/str.h"
#include "io/file.h"
#include "io/hash.h"
#include "io/json.h"

#define PIECE      ((size_t)1 << 20)
#define MAX_HEADER ((uint64_t)100000000) /* bytes; the format's limit */
#define LEGACY     "sshs_legacy_hash"

typedef struct edit {
    slr_mem *m;
    const char *in, *out;
    slr_st_pair *pair; /* as they will be; texts borrowed */
    size_t n;
    bool rehash; /* an ss_* pair changes */
    char model[65], legacy[9];
    slr_phase_fn phase;
    void *user;
} edit;

static slr_st_pair *find(edit *e, const char *key)
{
    for (size_t i = 0; i < e->n; i++)
        if (!strcmp(e->pair[i].key, key))
            return &e->pair[i];
    return NULL;
}

static void change(edit *e, const slr_st_pair *to)
{
    slr_st_pair *p = find(e, to->key);
    bool same = p ? to->value && !strcmp(p->value, to->value) : !to->value;
    if (same)
        return;
    e->rehash |= slr_starts(to->key, "ss_");
    if (p && to->value)
        p->value = to->value;
    else if (p)
        memmove(p, p + 1, (size_t)(e->pair + --e->n - p) * sizeof *p);
    else
        e->pair[e->n++] = *to;
}

/* The pairs as they will be. */
static int collect(edit *e, const slr_safetensors *f, const slr_st_pair *changes, size_t n)
{
    size_t n_old = slr_safetensors_meta_count(f);
    e->pair = slr_calloc(e->m, n_old + n + 1, sizeof *e->pair);
    if (!e->pair)
        return SDLORA_ENOMEM;
    for (size_t i = 0; i < n_old; i++)
        e->pair[e->n++].key = slr_safetensors_meta_at(f, i, &e->pair[i].value);
    for (size_t i = 0; i < n; i++) {
        size_t len = strlen(changes[i].key);
        if (slr_utf8_valid(changes[i].key, len) != len ||
            (changes[i].value && slr_utf8_valid(changes[i].value, strlen(changes[i].value)) !=
                                     strlen(changes[i].value)))
            return slr_fail(SDLORA_EINVAL, __func__,
                            "the metadata key or value number %zu is not UTF-8", i);
        change(e, &changes[i]);
    }
    slr_st_pair *legacy = e->rehash ? find(e, LEGACY) : NULL;
    for (size_t i = 0; i < n; i++) /* who sets the hash itself means it */
        if (!strcmp(changes[i].key, LEGACY))
            legacy = NULL;
    if (!legacy)
        return SDLORA_OK;
    int rc = slr_hash_sshs(e->model, e->legacy, e->m, e->in, e->pair, e->n, NULL, NULL);
    if (rc == SDLORA_ENOTSUP) { /* tensors of types that kohya does not write */
        slr_clear();
        return SDLORA_OK;
    }
    legacy->value = e->legacy;
    return rc;
}

/* The old header's JSON with the new pairs in front. */
static int new_json(edit *e, json_t *old, json_t **out)
{
    json_t *root = json_object(), *meta = json_object(), *value;
    const char *key;
    bool ok = root && meta;
    for (size_t i = 0; i < e->n && ok; i++)
        ok = json_object_set_new(meta, e->pair[i].key, json_string(e->pair[i].value)) == 0;
    if (ok && e->n)
        ok = json_object_set(root, "__metadata__", meta) == 0;
    json_object_foreach(old, key, value) if (ok && strcmp(key, "__metadata__") != 0) ok =
        json_object_set(root, key, value) == 0;
    json_decref(meta);
    if (!ok) {
        json_decref(root);
        return slr_nomem(__func__, 0);
    }
    *out = root;
    return SDLORA_OK;
}

static int take(const char *text, size_t n, void *buf)
{
    slr_buf_add(buf, text, n);
    return slr_buf_ok(buf) < 0 ? -1 : 0;
}

/* Length word, text, and blanks up to a multiple of eight. */
static int put_header(edit *e, slr_writer *w, const json_t *root)
{
    unsigned char word[8];
    slr_buf b;
    slr_buf_init(&b, e->m);
    int rc = json_dump_callback(root, take, &b, JSON_COMPACT) == 0 ? SDLORA_OK
                                                                   : slr_nomem(__func__, b.len);
    while (b.len % 8 && rc == SDLORA_OK) {
        slr_buf_putc(&b, ' ');
        rc = slr_buf_ok(&b);
    }
    if (rc == SDLORA_OK && b.len > MAX_HEADER)
        rc = slr_fail(SDLORA_EINVAL, __func__,
                      "%s: the header would have %zu bytes, a file may have %llu", e->out, b.len,
                      (unsigned long long)MAX_HEADER);
    for (int i = 0; i < 8; i++)
        word[i] = (unsigned char)((uint64_t)b.len >> 8 * i);
    if (rc == SDLORA_OK)
        rc = slr_writer_put(w, word, sizeof word);
    if (rc == SDLORA_OK)
        rc = slr_writer_put(w, b.data, b.len);
    slr_buf_free(&b);
    return rc;
}

static int copy_data(edit *e, slr_writer *w, int fd, uint64_t start, uint64_t size)
{
    unsigned char *piece = slr_alloc(e->m, PIECE);
    int rc = piece ? SDLORA_OK : SDLORA_ENOMEM;
    for (uint64_t at = start; at < size && rc == SDLORA_OK;) {
        size_t n = size - at < PIECE ? (size_t)(size - at) : PIECE;
        rc = slr_file_fd_read(fd, e->in, at, piece, n);
        if (rc == SDLORA_OK)
            rc = slr_writer_put(w, piece, n);
        at += n;
        if (rc == SDLORA_OK && e->phase &&
            e->phase(e->user, "write", (int64_t)(at - start), (int64_t)(size - start)))
            rc = slr_fail(SDLORA_ECANCELED, __func__, "%s: cancelled; nothing was changed", e->out);
    }
    slr_free(e->m, piece);
    return rc;
}

/* fd pins the file whose header was read. */
static int rewrite(edit *e, int fd, uint64_t start, uint64_t size)
{
    json_t *old = NULL, *root = NULL;
    slr_writer *w = NULL;
    size_t n = (size_t)start - 8;
    char *text = slr_alloc(e->m, n);
    int rc = text ? slr_file_fd_read(fd, e->in, 8, text, n) : SDLORA_ENOMEM;
    if (rc == SDLORA_OK)
        rc = slr_json_parse(&old, text, n, e->in);
    slr_free(e->m, text);
    if (rc == SDLORA_OK)
        rc = new_json(e, old, &root);
    json_decref(old);
    if (rc == SDLORA_OK)
        rc = slr_writer_open(&w, e->m, e->out);
    if (rc == SDLORA_OK)
        rc = slr_writer_reserve(w, size);
    if (rc == SDLORA_OK)
        rc = put_header(e, w, root);
    json_decref(root);
    if (rc == SDLORA_OK)
        rc = copy_data(e, w, fd, start, size);
    if (rc == SDLORA_OK)
        return slr_writer_commit(&w);
    slr_writer_abort(&w);
    return rc;
}

int slr_safetensors_edit(slr_mem *m, const char *in, const char *out, const slr_st_pair *changes,
                         size_t n, slr_phase_fn phase, void *user)
{
    edit e = {.m = m, .in = in, .out = out, .phase = phase, .user = user};
    slr_safetensors *f;
    uint64_t size;
    int fd;
    slr_require(in && out && (changes || !n));
    SLR_TRY(slr_file_fd_open(&fd, &size, in));
    int rc = slr_safetensors_open(&f, m, in, false);
    if (rc == SDLORA_OK) {
        rc = collect(&e, f, changes, n);
        if (rc == SDLORA_OK)
            rc = rewrite(&e, fd, slr_safetensors_data_start(f), size);
        slr_safetensors_close(f);
    }
    slr_file_fd_close(fd);
    slr_free(m, e.pair);
    return rc;
}
