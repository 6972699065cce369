/* SPDX-License-Identifier: MIT */
/* Links are followed, as AUTOMATIC1111 does, down to a depth at which one that leads to its own
 * parent ends. */
#include "api/walk.h"

#include "base/status.h"
#include "base/str.h"
#include "io/file.h"

enum { MAX_DEPTH = 16 };

typedef struct walker {
    slr_mem *m;
    const slr_log *log;
    slr_walk_fn fn;
    void *user;
} walker;

static int walk(const walker *w, const char *dir, int depth);

/* Whatever is wrong with one folder of many is not the others' fault. */
static int skip(const walker *w, int rc)
{
    slr_error_copy error;

    if (rc == SDLORA_ENOMEM)
        return rc;
    slr_error_take(&error);
    slr_logf(w->log, SLR_LOG_WARN, "folder skipped: %s", error.text);
    slr_clear();
    return SDLORA_OK;
}

static int visit(const walker *w, const char *dir, const char *name, int depth, bool folders)
{
    int rc = SDLORA_OK;
    char *path = slr_path_join(w->m, dir, name);

    if (!path)
        return SDLORA_ENOMEM;
    if (!folders)
        rc = w->fn(w->user, path);
    else if (depth < MAX_DEPTH && slr_dir_exists(path))
        rc = walk(w, path, depth + 1);
    slr_free(w->m, path);
    return rc;
}

static int walk(const walker *w, const char *dir, int depth)
{
    slr_list list;
    int rc = slr_dir_list(&list, w->m, dir);

    if (rc < 0)
        return depth ? skip(w, rc) : rc;
    for (int folders = 0; folders < 2; folders++)
        for (size_t i = 0; rc == 0 && i < list.n; i++)
            rc = visit(w, dir, list.item[i], depth, folders);
    slr_list_free(&list);
    return rc;
}

int slr_walk(slr_mem *m, const slr_log *log, const char *dir, slr_walk_fn fn, void *user)
{
    const walker w = {m, log, fn, user};

    return walk(&w, dir, 0);
}

bool slr_walk_is_weights(const char *path)
{
    static const char *const ends[] = {".safetensors", ".pt", ".pth", ".ckpt", ".bin"};

    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
        if (slr_ends(path, ends[i]))
            return true;
    return false;
}
