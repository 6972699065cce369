/* SPDX-License-Identifier: MIT */
/* Plugin search and handshake.  Looks where the build installed plugins, where the application says
 * and where SDLORA_BACKEND_PATH says; never in the working directory or beside the executable.
 * Refuses to know what a plugin can compute. */
#include "backend/loader.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "base/str.h"
#include "io/file.h"

static const struct member {
    size_t offset;
    const char *name;
} required[] = {
#define MEMBER(m)                                                                                  \
    {                                                                                              \
        offsetof(sdlora_backend, m), #m                                                            \
    }
    MEMBER(dev_count),  MEMBER(dev_open), MEMBER(dev_close), MEMBER(dev_info),    MEMBER(queue_new),
    MEMBER(queue_free), MEMBER(prepare),  MEMBER(launch),    MEMBER(kernel_free),
#undef MEMBER
};

int slr_loader_check(const sdlora_backend *b, const char *path)
{
    if (!b)
        return slr_fail(SDLORA_EBACKEND, __func__, "%s: the entry function gave no backend", path);
    if (b->abi != SDLORA_BACKEND_ABI)
        return slr_fail(SDLORA_EVERSION, __func__,
                        "%s: made for backend ABI %u, this library has %u", path, (unsigned)b->abi,
                        SDLORA_BACKEND_ABI);
    if (b->struct_size < offsetof(sdlora_backend, kernel_free) + sizeof b->kernel_free)
        return slr_fail(SDLORA_EVERSION, __func__,
                        "%s: its table of %u bytes ends before kernel_free", path,
                        (unsigned)b->struct_size);
    if (!b->name || !b->name[0])
        return slr_fail(SDLORA_EBACKEND, __func__, "%s: the backend has no name", path);
    for (size_t i = 0; i < sizeof required / sizeof *required; i++) {
        void (*fn)(void);
        memcpy(&fn, (const char *)b + required[i].offset, sizeof fn);
        if (!fn)
            return slr_fail(SDLORA_EBACKEND, __func__, "%s: backend %s lacks %s", path, b->name,
                            required[i].name);
    }
    return SDLORA_OK;
}

/* A data pointer from dlsym as a function pointer, as POSIX allows. */
static sdlora_backend_entry_fn *entry_of(void *so)
{
    sdlora_backend_entry_fn *entry = NULL;
    void *sym = dlsym(so, "sdlora_backend_entry");
    memcpy(&entry, &sym, sizeof entry);
    return entry;
}

int slr_loader_open(const sdlora_backend **out, const char *path, const sdlora_host *host)
{
    *out = NULL;
    void *so = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!so) {
        const char *why = dlerror();
        return slr_fail(SDLORA_EBACKEND, __func__, "%s: %s", path, why ? why : "cannot be loaded");
    }
    int rc = SDLORA_OK;
    const sdlora_backend *b = NULL;
    sdlora_backend_entry_fn *entry = entry_of(so);
    if (!entry) {
        rc = slr_fail(SDLORA_EBACKEND, __func__, "%s: exports no sdlora_backend_entry", path);
        goto fail;
    }
    slr_clear();
    rc = entry(host, &b);
    if (rc < 0) {
        rc = slr_fail(rc, __func__, "%s: its entry function declined (%d)", path, rc);
        goto fail;
    }
    rc = slr_loader_check(b, path);
    if (rc < 0)
        goto fail;
    *out = b; /* from here on the object stays: its threads and tables may outlive any device */
    return SDLORA_OK;
fail:
    dlclose(so);
    return rc;
}

static int walk_dir(slr_mem *m, const char *dir, const slr_loader_visitor *v)
{
    if (!slr_dir_exists(dir))
        return SDLORA_OK;
    slr_list list = {0};
    int rc = slr_dir_list(&list, m, dir);
    for (size_t i = 0; rc >= 0 && i < list.n; i++) {
        if (!slr_starts(list.item[i], "sdlora-") || !slr_ends(list.item[i], ".so"))
            continue;
        char *path = slr_path_join(m, dir, list.item[i]);
        rc = path ? v->found(v->user, path) : SDLORA_ENOMEM;
        slr_free(m, path);
    }
    slr_list_free(&list);
    return rc;
}

static int walk_path(slr_mem *m, const char *path, bool tell, const slr_loader_visitor *v)
{
    slr_str rest = slr_str_of(path), piece;
    while (slr_str_next(&rest, ':', &piece)) {
        if (piece.n == 0)
            continue;
        char *dir = slr_strndup(m, piece.p, piece.n);
        if (!dir)
            return SDLORA_ENOMEM;
        int rc = SDLORA_OK;
        if (dir[0] == '/') {
            rc = walk_dir(m, dir, v);
        } else if (tell) {
            slr_buf line;
            slr_buf_init(&line, m);
            slr_buf_printf(&line, "%s: not an absolute directory, so not searched for backends",
                           dir);
            rc = slr_buf_ok(&line);
            if (rc >= 0)
                rc = v->skipped(v->user, line.data);
            slr_buf_free(&line);
        }
        slr_free(m, dir);
        SLR_TRY(rc);
    }
    return SDLORA_OK;
}

int slr_loader_walk(slr_mem *m, const char *app_path, const slr_loader_visitor *v)
{
    SLR_TRY(walk_dir(m, SLR_BACKEND_DIR, v));
    if (app_path)
        SLR_TRY(walk_path(m, app_path, true, v));
    const char *env = secure_getenv("SDLORA_BACKEND_PATH");
    return env ? walk_path(m, env, false, v) : SDLORA_OK;
}
