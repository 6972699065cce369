/* SPDX-License-Identifier: MIT */
/* Hashes are read from headers where those have them and computed otherwise; nothing is kept, since
 * a text is matched once and its picture drawn many times. */
#include "api/byhash.h"

#include <string.h>
#include <strings.h>

#include "base/status.h"
#include "io/hash.h"
#include "io/safetensors.h"

enum { MAX_DEPTH = 16, SHORTEST = 8, LEGACY = 8, LONGEST = 64 };

/* A failure to read ends nothing but want of memory and a cancel. */
static int forgive(int rc)
{
    if (rc >= 0 || rc == SDLORA_ENOMEM || rc == SDLORA_ECANCELED)
        return rc;
    slr_clear();
    return SDLORA_OK;
}

static bool begins(const char *hash, slr_str digits)
{
    return hash && strlen(hash) >= digits.n && !strncasecmp(hash, digits.p, digits.n);
}

static bool usable(slr_str digits)
{
    return digits.n >= SHORTEST && digits.n <= LONGEST;
}

/* The tensors' hash of a header. */
static int is_told(slr_mem *m, const char *path, slr_str digits, bool *same)
{
    slr_safetensors *f;
    *same = false;
    if (!slr_ends(path, ".safetensors"))
        return SDLORA_OK;
    int rc = slr_safetensors_open(&f, m, path, false);
    if (rc < 0)
        return forgive(rc);
    *same = begins(slr_safetensors_meta(f, "sshs_model_hash"), digits);
    slr_safetensors_close(f);
    return SDLORA_OK;
}

static int is_computed(const char *path, slr_str digits, bool *same)
{
    char hex[65] = "";
    SLR_TRY(forgive(slr_hash_file(path, hex)));
    *same = begins(hex, digits);
    if (!*same && digits.n == LEGACY) {
        hex[0] = '\0';
        SLR_TRY(forgive(slr_hash_legacy(path, hex)));
        *same = begins(hex, digits);
    }
    if (!*same && slr_ends(path, ".safetensors")) {
        hex[0] = '\0';
        SLR_TRY(forgive(slr_hash_tensors(path, hex)));
        *same = begins(hex, digits);
    }
    return SDLORA_OK;
}

int slr_byhash_is(slr_mem *m, const char *path, slr_str digits, bool *same)
{
    *same = false;
    if (!usable(digits) || !slr_file_exists(path))
        return SDLORA_OK;
    SLR_TRY(is_told(m, path, digits, same));
    return *same ? SDLORA_OK : is_computed(path, digits, same);
}

/* --- the walk --- */

typedef struct search {
    slr_mem *m;
    slr_str digits;
    bool compute; /* second walk: files whose headers say nothing */
    char *found;
} search;

static bool is_network(const char *path)
{
    static const char *const ends[] = {".safetensors", ".pt", ".ckpt", ".bin"};
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
        if (slr_ends(path, ends[i]))
            return true;
    return false;
}

static int look(search *s, const char *path)
{
    bool same = false;
    SLR_TRY(s->compute ? is_computed(path, s->digits, &same)
                       : is_told(s->m, path, s->digits, &same));
    if (!same)
        return SDLORA_OK;
    const char *base = slr_path_base(path);
    s->found = slr_strndup(s->m, base, slr_path_stem(base));
    return s->found ? SDLORA_OK : SDLORA_ENOMEM;
}

static int walk(search *s, const char *dir, int depth)
{
    slr_list list = {0};
    int rc = forgive(slr_dir_list(&list, s->m, dir));
    for (int folders = 0; folders < 2; folders++)
        for (size_t i = 0; rc >= 0 && !s->found && i < list.n; i++) {
            char *path = slr_path_join(s->m, dir, list.item[i]);
            if (!path)
                rc = SDLORA_ENOMEM;
            else if (folders && depth < MAX_DEPTH && slr_dir_exists(path))
                rc = walk(s, path, depth + 1);
            else if (!folders && is_network(path) && slr_file_exists(path))
                rc = look(s, path);
            slr_free(s->m, path);
        }
    slr_list_free(&list);
    return rc;
}

int slr_byhash_find(slr_mem *m, const slr_list *dirs, slr_str digits, char **stem)
{
    search s = {.m = m, .digits = digits};
    *stem = NULL;
    if (!usable(digits))
        return SDLORA_OK;
    for (int k = 0; k < 2; k++)
        for (size_t i = 0; !s.found && i < dirs->n; i++) {
            s.compute = k;
            SLR_TRY(walk(&s, dirs->item[i], 0));
        }
    *stem = s.found;
    return SDLORA_OK;
}
