/* SPDX-License-Identifier: MIT */
/* Hashes are read from headers where those have them and computed otherwise.  A file is known by
 * its path, and again unknown once its size or time is another. */
#include "api/byhash.h"

#include <string.h>
#include <strings.h>

#include "api/walk.h"
#include "base/map.h"
#include "base/status.h"
#include "base/thread.h"
#include "io/hash.h"
#include "io/safetensors.h"

enum { SHORTEST = 8, LEGACY = 8, LONGEST = 64 };
enum { TOLD, WHOLE, OLD, TENSORS, KINDS }; /* of hashes */

/* A hash that there is not is "". */
typedef struct known {
    slr_file_id id;
    bool has[KINDS];
    char hex[KINDS][LONGEST + 1];
} known;

struct slr_byhash {
    slr_mem *m;
    slr_map *by_path; /* -> index into at */
    known *at;
    size_t n, cap;
};

int slr_byhash_new(slr_byhash **out, slr_mem *m)
{
    slr_byhash *b = slr_calloc(m, 1, sizeof *b);
    *out = NULL;
    if (!b)
        return SDLORA_ENOMEM;
    b->m = m;
    if (slr_map_new(&b->by_path, m) < 0) {
        slr_free(m, b);
        return SDLORA_ENOMEM;
    }
    *out = b;
    return SDLORA_OK;
}

void slr_byhash_free(slr_byhash *b)
{
    if (!b)
        return;
    slr_map_free(b->by_path);
    slr_free(b->m, b->at);
    slr_free(b->m, b);
}

/* A failure to read ends nothing but want of memory and a cancel. */
static int forgive(int rc)
{
    if (rc >= 0 || rc == SDLORA_ENOMEM || rc == SDLORA_ECANCELED)
        return rc;
    slr_clear();
    return SDLORA_OK;
}

static bool usable(slr_str digits)
{
    return digits.n >= SHORTEST && digits.n <= LONGEST;
}

/* --- one file --- */

/* *out NULL: it is no regular file.  Valid until the next call. */
static int know(slr_byhash *b, const char *path, known **out)
{
    slr_file_id id;
    int64_t at;
    *out = NULL;
    if (!slr_file_identify(path, &id))
        return SDLORA_OK;
    if (!slr_map_get(b->by_path, path, &at)) {
        SLR_TRY(slr_grow(b->m, &b->at, &b->cap, b->n + 1, sizeof *b->at));
        at = (int64_t)b->n;
        SLR_TRY(slr_map_set(b->by_path, path, at));
        b->at[b->n++] = (known){.id = id};
    }
    *out = &b->at[at];
    if (!slr_file_same(&(*out)->id, &id))
        **out = (known){.id = id};
    return SDLORA_OK;
}

/* The tensors' hash of a header. */
static int read_told(slr_mem *m, const char *path, char hex[LONGEST + 1])
{
    slr_safetensors *f;
    if (!slr_ends(path, ".safetensors"))
        return SDLORA_OK;
    SLR_TRY(slr_safetensors_open(&f, m, path, false));
    const char *told = slr_safetensors_meta(f, "sshs_model_hash");
    if (told && strlen(told) <= LONGEST)
        memcpy(hex, told, strlen(told) + 1);
    slr_safetensors_close(f);
    return SDLORA_OK;
}

static int read_hash(slr_mem *m, const char *path, int kind, char hex[LONGEST + 1])
{
    if (slr_canceled())
        return slr_fail(SDLORA_ECANCELED, __func__, "canceled");
    switch (kind) {
    case TOLD:
        return read_told(m, path, hex);
    case WHOLE:
        return slr_hash_file(path, hex);
    case OLD:
        return slr_hash_legacy(path, hex);
    default:
        return slr_ends(path, ".safetensors") ? slr_hash_tensors(path, hex) : SDLORA_OK;
    }
}

/* What is known of a file's hash of a kind, which is computed if it is not; a file that can't be
 * read has none, and rc says why.  Errors: ENOMEM, ECANCELED. */
static int learn(slr_byhash *b, known *k, const char *path, int kind, int *rc)
{
    char hex[LONGEST + 1] = "";
    *rc = SDLORA_OK;
    if (k->has[kind])
        return SDLORA_OK;
    *rc = read_hash(b->m, path, kind, hex);
    if (*rc == SDLORA_ENOMEM || *rc == SDLORA_ECANCELED)
        return *rc;
    if (*rc >= 0)
        memcpy(k->hex[kind], hex, sizeof hex);
    k->has[kind] = true;
    return SDLORA_OK;
}

static bool is_asked(int of, int kind, slr_str digits)
{
    if (kind == OLD)
        return digits.n == LEGACY;
    return kind == WHOLE || of == SLR_BYHASH_NETWORK;
}

/* Whether the file's hash of a kind begins so. */
static int is_kind(slr_byhash *b, const char *path, int of, int kind, slr_str digits, bool *same)
{
    known *k;
    int rc;
    *same = false;
    if (!usable(digits) || !is_asked(of, kind, digits))
        return SDLORA_OK;
    SLR_TRY(know(b, path, &k));
    if (!k)
        return SDLORA_OK;
    SLR_TRY(learn(b, k, path, kind, &rc));
    SLR_TRY(forgive(rc));
    *same = strlen(k->hex[kind]) >= digits.n && !strncasecmp(k->hex[kind], digits.p, digits.n);
    return SDLORA_OK;
}

int slr_byhash_whole(slr_byhash *b, const char *path, char hex[65])
{
    known *k;
    int rc = SDLORA_OK;
    SLR_TRY(know(b, path, &k));
    if (k)
        SLR_TRY(learn(b, k, path, WHOLE, &rc));
    SLR_TRY(rc);
    if (!k || !k->hex[WHOLE][0])
        return slr_hash_file(path, hex);
    memcpy(hex, k->hex[WHOLE], LONGEST + 1);
    return SDLORA_OK;
}

static int is_computed(slr_byhash *b, const char *path, int of, slr_str digits, bool *same)
{
    *same = false;
    for (int kind = WHOLE; !*same && kind < KINDS; kind++)
        SLR_TRY(is_kind(b, path, of, kind, digits, same));
    return SDLORA_OK;
}

int slr_byhash_is(slr_byhash *b, const char *path, int of, slr_str digits, bool *same)
{
    SLR_TRY(is_kind(b, path, of, TOLD, digits, same));
    return *same ? SDLORA_OK : is_computed(b, path, of, digits, same);
}

/* --- the walk --- */

static int collect(void *user, const char *path)
{
    slr_list *files = user;
    if (slr_canceled())
        return slr_fail(SDLORA_ECANCELED, __func__, "canceled");
    if (!slr_walk_is_weights(path) || !slr_file_exists(path))
        return 0;
    SLR_TRY(slr_grow(files->m, &files->item, &files->cap, files->n + 1, sizeof *files->item));
    char *copy = slr_strdup(files->m, path);
    if (!copy)
        return SDLORA_ENOMEM;
    files->item[files->n++] = copy;
    return 0;
}

static int look(slr_byhash *b, const char *path, int of, bool compute, slr_byhash_wanted *w)
{
    bool same;
    SLR_TRY(compute ? is_computed(b, path, of, w->digits, &same)
                    : is_kind(b, path, of, TOLD, w->digits, &same));
    if (!same)
        return SDLORA_OK;
    const char *base = slr_path_base(path);
    w->stem = slr_strndup(b->m, base, slr_path_stem(base));
    w->path = slr_strdup(b->m, path);
    return w->stem && w->path ? SDLORA_OK : SDLORA_ENOMEM;
}

int slr_byhash_find(slr_byhash *b, const slr_list *dirs, int of, slr_byhash_wanted *wanted,
                    size_t n)
{
    slr_list files = {.m = b->m};
    int rc = SDLORA_OK;
    bool any = false;
    for (size_t k = 0; k < n; k++) {
        wanted[k].stem = wanted[k].path = NULL;
        any = any || usable(wanted[k].digits);
    }
    for (size_t i = 0; any && rc >= 0 && i < dirs->n; i++)
        rc = forgive(slr_walk(b->m, NULL, dirs->item[i], collect, &files));
    for (int compute = 0; compute < 2; compute++)
        for (size_t i = 0; i < files.n; i++)
            for (size_t k = 0; rc >= 0 && k < n; k++)
                if (!wanted[k].stem)
                    rc = look(b, files.item[i], of, compute, &wanted[k]);
    slr_list_free(&files);
    return rc;
}
