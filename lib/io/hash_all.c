/* SPDX-License-Identifier: MIT */
/* Every customary digest of a file: what sites and other programs know it by.  Knows kohya's order
 * of serialising, which its hashes are made over; the digests themselves are hash.c's. */
#include "io/hash.h"

#include <string.h>

#include "base/status.h"
#include "base/str.h"
#include "io/file.h"
#include "io/safetensors.h"

#define PIECE ((size_t)1 << 20)

enum { LEGACY_AT = 0x100000, LEGACY_END = 0x110000 };

typedef struct job {
    const char *path;
    slr_phase_fn phase;
    void *user;
    uint64_t done, total;
} job;

static int tell(job *j, size_t n)
{
    j->done += n;
    if (j->phase && j->phase(j->user, "hash", (int64_t)j->done, (int64_t)j->total))
        return slr_fail(SDLORA_ECANCELED, "slr_hash_all", "%s: cancelled", j->path);
    return SDLORA_OK;
}

/* ---- the file as it lies ---- */

typedef struct digests {
    slr_sha256 *whole, *tensors, *legacy;
} digests;

static int digests_new(digests *d, slr_mem *m)
{
    memset(d, 0, sizeof *d);
    SLR_TRY(slr_sha256_new(&d->whole, m));
    SLR_TRY(slr_sha256_new(&d->tensors, m));
    return slr_sha256_new(&d->legacy, m);
}

static void digests_drop(digests *d)
{
    slr_sha256_hex(&d->whole, NULL);
    slr_sha256_hex(&d->tensors, NULL);
    slr_sha256_hex(&d->legacy, NULL);
}

/* Adds what of bytes [at, at + n) lies in [lo, hi). */
static int add_range(slr_sha256 *s, const unsigned char *bytes, uint64_t at, size_t n, uint64_t lo,
                     uint64_t hi)
{
    uint64_t from = at > lo ? at : lo, to = at + n < hi ? at + n : hi;
    return from < to ? slr_sha256_add(s, bytes + (from - at), (size_t)(to - from)) : SDLORA_OK;
}

static int add_all(digests *d, const unsigned char *bytes, uint64_t at, size_t n, uint64_t start)
{
    SLR_TRY(slr_sha256_add(d->whole, bytes, n));
    SLR_TRY(add_range(d->legacy, bytes, at, n, LEGACY_AT, LEGACY_END));
    return add_range(d->tensors, bytes, at, n, start, UINT64_MAX);
}

static int read_all(job *j, digests *d, int fd, uint64_t size, uint64_t start, unsigned char *piece)
{
    for (uint64_t at = 0; at < size;) {
        size_t n = size - at < PIECE ? (size_t)(size - at) : PIECE;
        SLR_TRY(slr_file_fd_read(fd, j->path, at, piece, n));
        SLR_TRY(add_all(d, piece, at, n, start));
        SLR_TRY(tell(j, n));
        at += n;
    }
    return SDLORA_OK;
}

/* start: of the tensors' bytes; 0: no safetensors file. */
static int hash_file(slr_hashes *out, slr_mem *m, job *j, uint64_t start)
{
    unsigned char *piece = slr_alloc(m, PIECE);
    char legacy[65] = "";
    uint64_t size = 0;
    digests d = {0};
    int fd = -1, rc = piece ? digests_new(&d, m) : SDLORA_ENOMEM;
    if (rc == SDLORA_OK)
        rc = slr_file_fd_open(&fd, &size, j->path);
    if (rc == SDLORA_OK)
        rc = read_all(j, &d, fd, size, start, piece);
    slr_file_fd_close(fd);
    slr_free(m, piece);
    if (rc == SDLORA_OK)
        rc = slr_sha256_hex(&d.whole, out->sha256);
    if (rc == SDLORA_OK)
        rc = slr_sha256_hex(&d.legacy, legacy);
    if (rc == SDLORA_OK && start)
        rc = slr_sha256_hex(&d.tensors, out->tensors);
    digests_drop(&d);
    memcpy(out->legacy, legacy, 8);
    return rc;
}

/* ---- as kohya would write it ---- */

typedef struct kohya {
    job *j;
    slr_st_entry *entry;
    const slr_tensor *source; /* with data, parallel to entry */
    uint64_t start, at;
    digests d;
} kohya;

static int kohya_read(void *user, size_t i, uint64_t at, void *to, size_t n)
{
    kohya *k = user;
    const char *from = (const char *)k->source[i].data + at;
    memcpy(to, from, n);
    if (slr_file_is_map(k->source[i].storage))
        slr_file_forget(from, n);
    return tell(k->j, n);
}

static int kohya_put(void *user, const void *bytes, size_t n)
{
    kohya *k = user;
    SLR_TRY(add_range(k->d.legacy, bytes, k->at, n, LEGACY_AT, LEGACY_END));
    SLR_TRY(add_range(k->d.tensors, bytes, k->at, n, k->start, UINT64_MAX));
    k->at += n;
    return SDLORA_OK;
}

static int hash_kohya(char model[65], char legacy[9], slr_mem *m, job *j, slr_safetensors *f,
                      const slr_st_pair *meta, size_t n_meta)
{
    size_t n = slr_safetensors_count(f), n_pairs = 0;
    slr_st_entry *entry = slr_calloc(m, n + 1, sizeof *entry);
    slr_tensor *source = slr_calloc(m, n + 1, sizeof *source);
    slr_st_pair *pair = slr_calloc(m, n_meta + 1, sizeof *pair);
    kohya k = {.j = j, .entry = entry, .source = source};
    char hex[65];
    int rc = entry && source && pair ? digests_new(&k.d, m) : SDLORA_ENOMEM;
    for (size_t i = 0; i < n && rc == SDLORA_OK; i++) {
        entry[i].name = slr_safetensors_at(f, i, &source[i]);
        entry[i].t = source[i];
        entry[i].t.data = NULL;
    }
    for (size_t i = 0; i < n_meta && rc == SDLORA_OK; i++)
        if (slr_starts(meta[i].key, "ss_"))
            pair[n_pairs++] = meta[i];
    if (rc == SDLORA_OK)
        rc = slr_safetensors_emit(m, entry, n, pair, n_pairs, kohya_read, kohya_put, &k, &k.start);
    if (rc == SDLORA_OK)
        rc = slr_sha256_hex(&k.d.tensors, model);
    if (rc == SDLORA_OK)
        rc = slr_sha256_hex(&k.d.legacy, hex);
    if (rc == SDLORA_OK) {
        memcpy(legacy, hex, 8);
        legacy[8] = '\0';
    }
    digests_drop(&k.d);
    slr_free(m, entry);
    slr_free(m, source);
    slr_free(m, pair);
    return rc;
}

/* The file's own pairs; the caller frees the array. */
static int own_pairs(slr_st_pair **pairs, size_t *n, slr_mem *m, const slr_safetensors *f)
{
    *n = slr_safetensors_meta_count(f);
    *pairs = slr_calloc(m, *n + 1, sizeof **pairs);
    if (!*pairs)
        return SDLORA_ENOMEM;
    for (size_t i = 0; i < *n; i++)
        (*pairs)[i].key = slr_safetensors_meta_at(f, i, &(*pairs)[i].value);
    return SDLORA_OK;
}

int slr_hash_sshs(char model[65], char legacy[9], slr_mem *m, const char *path,
                  const slr_st_pair *meta, size_t n_meta, slr_phase_fn phase, void *user)
{
    job j = {.path = path, .phase = phase, .user = user};
    slr_safetensors *f;
    SLR_TRY(slr_safetensors_open(&f, m, path, true));
    int rc = slr_file_size(path, &j.total);
    j.total -= slr_safetensors_data_start(f);
    if (rc == SDLORA_OK)
        rc = hash_kohya(model, legacy, m, &j, f, meta, n_meta);
    slr_safetensors_close(f);
    return rc;
}

int slr_hash_all(slr_hashes *out, slr_mem *m, const char *path, bool sshs, slr_phase_fn phase,
                 void *user)
{
    job j = {.path = path, .phase = phase, .user = user};
    slr_safetensors *f = NULL;
    slr_st_pair *pairs = NULL;
    size_t n_pairs = 0;
    memset(out, 0, sizeof *out);
    SLR_TRY(slr_file_size(path, &j.total));
    int rc = slr_safetensors_open(&f, m, path, sshs);
    if (rc == SDLORA_EFORMAT || rc == SDLORA_ENOTSUP) { /* another kind of file */
        slr_clear();
        return hash_file(out, m, &j, 0);
    }
    uint64_t start = rc == SDLORA_OK ? slr_safetensors_data_start(f) : 0;
    if (sshs)
        j.total += j.total - start;
    if (rc == SDLORA_OK)
        rc = hash_file(out, m, &j, start);
    if (rc == SDLORA_OK && sshs)
        rc = own_pairs(&pairs, &n_pairs, m, f);
    if (rc == SDLORA_OK && sshs)
        rc = hash_kohya(out->sshs_model, out->sshs_legacy, m, &j, f, pairs, n_pairs);
    if (rc == SDLORA_ENOTSUP) { /* a type that kohya's writer has no name for either */
        slr_clear();
        rc = SDLORA_OK;
    }
    slr_free(m, pairs);
    slr_safetensors_close(f);
    return rc;
}
