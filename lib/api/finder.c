/* SPDX-License-Identifier: MIT */
/* Directories are walked anew for each name that is not kept yet, in byte order and in the order in
 * which they were added, so that files may appear between pictures.  Only headers of candidates
 * are read until one is chosen. */
#include "api/finder.h"

#include <string.h>
#include <strings.h>

#include "api/walk.h"
#include "base/map.h"
#include "base/status.h"
#include "base/str.h"
#include "io/file.h"
#include "io/hash.h"
#include "io/safetensors.h"
#include "sample/generator.h"

typedef struct kept {
    char *path;
    slr_network *network;
} kept;

struct slr_finder {
    slr_mem *m;
    const slr_checkpoint *base;
    slr_list dirs;
    kept *at;
    size_t n, cap;
    slr_open_config config;
    slr_map *by_name; /* "kind:name" asked for -> index into at */
    slr_byhash *hashes;
};

int slr_finder_new(slr_finder **out, slr_mem *m, const slr_checkpoint *base)
{
    slr_finder *f = slr_calloc(m, 1, sizeof *f);

    *out = NULL;
    if (!f)
        return SDLORA_ENOMEM;
    f->m = m;
    f->base = base;
    f->dirs.m = m;
    if (slr_map_new(&f->by_name, m) < 0 || slr_byhash_new(&f->hashes, m) < 0) {
        slr_finder_free(f);
        return SDLORA_ENOMEM;
    }
    *out = f;
    return SDLORA_OK;
}

void slr_finder_free(slr_finder *f)
{
    if (!f)
        return;
    for (size_t i = 0; i < f->n; i++) {
        slr_network_unref(f->at[i].network);
        slr_free(f->m, f->at[i].path);
    }
    slr_free(f->m, f->at);
    slr_map_free(f->by_name);
    slr_byhash_free(f->hashes);
    slr_list_free(&f->dirs);
    slr_free(f->m, f);
}

int slr_finder_add(slr_finder *f, const char *dir)
{
    if (!slr_dir_exists(dir))
        return slr_fail(SDLORA_ENOTFOUND, __func__, "%s is not a directory", dir);
    SLR_TRY(slr_grow(f->m, &f->dirs.item, &f->dirs.cap, f->dirs.n + 1, sizeof *f->dirs.item));
    char *copy = slr_strdup(f->m, dir);
    if (!copy)
        return SDLORA_ENOMEM;
    f->dirs.item[f->dirs.n++] = copy;
    return SDLORA_OK;
}

const slr_list *slr_finder_dirs(const slr_finder *f)
{
    return &f->dirs;
}

slr_byhash *slr_finder_hashes(slr_finder *f)
{
    return f->hashes;
}

void slr_finder_skip(slr_finder *f, bool skip, const slr_log *log)
{
    f->config = (slr_open_config){.skip = skip, .log = log};
}

/* --- what a walk looks for --- */

typedef struct search {
    slr_mem *m;
    const char *name;
    int (*match)(struct search *s, const char *path); /* 1: it is this one; negative: it failed */
    char *found;                                      /* NULL: not yet */
    char *alias;                                      /* the file that goes by this name */
} search;

static bool has_stem(const char *path, const char *name, size_t n_name)
{
    const char *base = slr_path_base(path);
    size_t n = slr_path_stem(base);

    return n == n_name && !memcmp(base, name, n);
}

static bool is_safetensors(const char *path)
{
    return slr_ends(path, ".safetensors");
}

/* LoRAs and hypernetworks may share directories and names: what ends in .safetensors is no
 * hypernetwork, and what does not is one rather than a LoRA. */
static int lora_matches(search *s, const char *path)
{
    return is_safetensors(path) && has_stem(path, s->name, strlen(s->name));
}

static int other_matches(search *s, const char *path)
{
    return !is_safetensors(path) && has_stem(path, s->name, strlen(s->name));
}

/* "name(hash)": the first digits of the file's SHA-256, or the eight of old. */
static int hashed_matches(search *s, const char *path)
{
    const char *open = strrchr(s->name, '(');
    size_t digits = open ? strspn(open + 1, "0123456789abcdef") : 0;
    char full[65], legacy[9];

    if (digits < 8 || digits > 64 || strcmp(open + 1 + digits, ")") != 0 || is_safetensors(path) ||
        !has_stem(path, s->name, (size_t)(open - s->name)))
        return 0;
    if (slr_hash_file(path, full) < 0 || slr_hash_legacy(path, legacy) < 0)
        return 0;
    return !memcmp(full, open + 1, digits) || (digits == 8 && !memcmp(legacy, open + 1, 8));
}

/* A name that two files carry is nobody's, as in AUTOMATIC1111, nor is "none".  A file that can't
 * be read is no match; opening it by its stem will say why. */
static int alias_matches(search *s, const char *path)
{
    slr_safetensors *f;

    if (!is_safetensors(path) || !strcasecmp(s->name, "none"))
        return 0;
    int rc = slr_safetensors_open(&f, s->m, path, false);
    if (rc < 0)
        return rc == SDLORA_ENOMEM ? rc : 0;
    const char *alias = slr_safetensors_meta(f, "ss_output_name");
    bool same = alias && !strcmp(alias, s->name);
    slr_safetensors_close(f);
    if (!same || (s->alias && slr_path_same(s->alias, path)))
        return 0;
    if (s->alias)
        return slr_fail(SDLORA_ENOTFOUND, __func__,
                        "<lora:%s>: both %s and %s have this ss_output_name: name the file",
                        s->name, s->alias, path);
    s->alias = slr_strdup(s->m, path);
    return s->alias ? 0 : SDLORA_ENOMEM;
}

static int visit(void *user, const char *path)
{
    search *s = user;

    if (!slr_walk_is_weights(path) || !slr_file_exists(path))
        return 0;
    int rc = s->match(s, path);
    if (rc > 0 && !(s->found = slr_strdup(s->m, path)))
        return SDLORA_ENOMEM;
    return rc;
}

static bool is_hypernet(const char *kind)
{
    return !strcmp(kind, "hypernet");
}

static int locate(slr_finder *f, const char *kind, const char *name, char **path)
{
    enum { WAYS = 3 };
    static int (*const lora[WAYS])(search *, const char *) = {lora_matches, other_matches,
                                                              alias_matches};
    static int (*const hypernet[WAYS])(search *, const char *) = {other_matches, hashed_matches,
                                                                  lora_matches};
    int (*const *ways)(search *, const char *) = is_hypernet(kind) ? hypernet : lora;

    search s = {.m = f->m, .name = name};
    int rc = SDLORA_OK;
    for (size_t w = 0; rc >= 0 && !s.found && w < WAYS; w++) {
        s.match = ways[w];
        for (size_t d = 0; rc >= 0 && !s.found && d < f->dirs.n; d++)
            rc = slr_walk(f->m, w ? NULL : f->config.log, f->dirs.item[d], visit, &s);
    }
    if (rc >= 0 && (s.found || s.alias)) {
        slr_clear(); /* of files that the walk could not read */
        *path = s.found ? s.found : s.alias;
        return SDLORA_OK;
    }
    slr_free(f->m, s.alias);
    SLR_TRY(rc);
    if (!f->dirs.n)
        return slr_generator_no_dirs(kind, name);
    return slr_fail(SDLORA_ENOTFOUND, __func__,
                    "<%s:%s>: there is no such network in %s%s, neither by file name nor by %s",
                    kind, name, f->dirs.item[0], f->dirs.n > 1 ? " or the other directories" : "",
                    is_hypernet(kind) ? "name(hash)" : "ss_output_name");
}

/* The index of an opened path; takes it over. */
static int keep(slr_finder *f, char *path, size_t *index)
{
    for (*index = 0; *index < f->n; ++*index)
        if (!strcmp(f->at[*index].path, path)) {
            slr_free(f->m, path);
            return SDLORA_OK;
        }
    slr_network *network = NULL;
    int rc = slr_grow(f->m, &f->at, &f->cap, f->n + 1, sizeof *f->at);
    if (rc >= 0)
        rc = slr_network_open_with(&network, f->m, f->base, path, &f->config);
    if (rc < 0) {
        slr_free(f->m, path);
        return rc;
    }
    f->at[f->n++] = (kept){path, network};
    return SDLORA_OK;
}

static int find_new(slr_finder *f, const char *kind, const char *name, const char *key,
                    int64_t *known)
{
    size_t index;
    char *path = NULL;

    SLR_TRY(locate(f, kind, name, &path));
    SLR_TRY(keep(f, path, &index));
    SLR_TRY(slr_map_set(f->by_name, key, (int64_t)index));
    *known = (int64_t)index;
    return SDLORA_OK;
}

int slr_finder_find(void *user, const char *kind, const char *name, slr_network **out)
{
    slr_finder *f = user;
    int64_t known;
    slr_buf key;

    *out = NULL;
    slr_buf_init(&key, f->m);
    slr_buf_printf(&key, "%s:%s", kind, name);
    int rc = slr_buf_ok(&key);
    if (rc >= 0 && !slr_map_get(f->by_name, key.data, &known))
        rc = find_new(f, kind, name, key.data, &known);
    slr_buf_free(&key);
    SLR_TRY(rc);
    slr_network *network = f->at[known].network;
    if (!f->config.skip && slr_network_skipped(network))
        return slr_fail(SDLORA_EFORMAT, __func__,
                        "%s: %zu of its tensors match no layer of this checkpoint: %s ...",
                        f->at[known].path, slr_network_skipped(network),
                        slr_network_skipped_at(network, 0));
    *out = slr_network_ref(network);
    return SDLORA_OK;
}
