/* SPDX-License-Identifier: MIT */
/* The devices of a context: opens the built-in CPU and each plugin's devices, orders them by the
 * user's wish, and asks them in turn for kernels.  A plugin that fails is a line of notes, never an
 * error. Refuses to know operations: it only carries descriptors. */
#include "backend/registry.h"

#include <pthread.h>
#include <string.h>

#include "backend/builtin.h"
#include "backend/host.h"
#include "backend/loader.h"
#include "base/status.h"
#include "base/str.h"
#include "base/thread.h"

typedef struct entry {
    const sdlora_backend *backend;
    sdlora_dev *dev;
    sdlora_queue *queue;
} entry;

struct slr_devices {
    slr_refs refs;
    slr_mem *mem;
    slr_host host;
    pthread_mutex_t lock; /* prepare() may be called for several plans at once */
    entry *entries;       /* in the order of asking */
    size_t n, cap;
    char **notes;
    size_t n_notes, cap_notes;
};

static const sdlora_backend *const builtin[] = {&slr_backend_cpu};

static int add_note(void *user, const char *line)
{
    slr_devices *d = user;
    char *copy = slr_strdup(d->mem, line);
    if (!copy)
        return SDLORA_ENOMEM;
    int rc = slr_grow(d->mem, &d->notes, &d->cap_notes, d->n_notes + 1, sizeof *d->notes);
    if (rc < 0) {
        slr_free(d->mem, copy);
        return rc;
    }
    d->notes[d->n_notes++] = copy;
    slr_logf(&d->host.log, SLR_LOG_WARN, "%s", line);
    return SDLORA_OK;
}

/* Keeps the text of this thread's failure as a note. */
static int note_failure(slr_devices *d)
{
    slr_error_copy e;
    slr_error_take(&e);
    return e.code == SDLORA_ENOMEM ? e.code : add_note(d, e.text);
}

static void close_entry(entry *e)
{
    if (e->queue)
        e->backend->queue_free(e->queue);
    if (e->dev)
        e->backend->dev_close(e->dev);
}

static int open_device(slr_devices *d, const sdlora_backend *b, int index)
{
    entry e = {.backend = b};
    sdlora_dev_info info = {.struct_size = sizeof info};
    int rc = b->dev_open(&e.dev, &d->host.face, index);
    if (rc >= 0)
        rc = b->dev_info(e.dev, &info);
    if (rc >= 0 && !(info.flags & SDLORA_DEV_HOST_MEMORY))
        rc = slr_fail(SDLORA_ENOTSUP, __func__,
                      "%s: device %d has memory of its own, which plans do not use yet", b->name,
                      index);
    if (rc >= 0)
        rc = b->queue_new(&e.queue, e.dev);
    if (rc >= 0)
        rc = slr_grow(d->mem, &d->entries, &d->cap, d->n + 1, sizeof *d->entries);
    if (rc < 0) {
        close_entry(&e);
        return rc;
    }
    d->entries[d->n++] = e;
    return SDLORA_OK;
}

static bool has_backend(const slr_devices *d, const char *name)
{
    for (size_t i = 0; i < d->n; i++)
        if (!strcmp(d->entries[i].backend->name, name))
            return true;
    for (size_t i = 0; i < sizeof builtin / sizeof *builtin; i++)
        if (!strcmp(builtin[i]->name, name))
            return true;
    return false;
}

/* One plugin file.  Its failures become notes; only ENOMEM ends the walk. */
static int open_plugin(void *user, const char *path)
{
    slr_devices *d = user;
    const sdlora_backend *b = NULL;
    int rc = slr_loader_open(&b, path, &d->host.face);
    if (rc >= 0 && has_backend(d, b->name))
        rc = slr_fail(SDLORA_EBACKEND, __func__, "%s: a backend called %s is there already", path,
                      b->name);
    int count = rc < 0 ? 0 : b->dev_count(&d->host.face);
    if (rc >= 0 && count <= 0)
        rc = slr_fail(SDLORA_EBACKEND, __func__, "%s: backend %s found no device", path, b->name);
    for (int i = 0; rc >= 0 && i < count; i++)
        rc = open_device(d, b, i);
    return rc < 0 ? note_failure(d) : SDLORA_OK;
}

/* Moves the devices of the wished backend to the front, keeping the order of the rest. */
static int put_first(slr_devices *d, const char *name)
{
    size_t front = 0;
    for (size_t i = 0; i < d->n; i++) {
        if (strcmp(d->entries[i].backend->name, name))
            continue;
        entry e = d->entries[i];
        memmove(d->entries + front + 1, d->entries + front, (i - front) * sizeof e);
        d->entries[front++] = e;
    }
    if (front)
        return SDLORA_OK;
    slr_buf names;
    slr_buf_init(&names, d->mem);
    for (size_t i = 0; i < d->n; i++)
        slr_buf_printf(&names, "%s%s", i ? ", " : "", d->entries[i].backend->name);
    int rc = slr_buf_ok(&names);
    if (rc >= 0)
        rc =
            slr_fail(SDLORA_ENOTFOUND, __func__, "no backend called %s; there are %s%s%s", name,
                     names.data, d->n_notes ? "; not loaded: " : "", d->n_notes ? d->notes[0] : "");
    slr_buf_free(&names);
    return rc;
}

static int open_all(slr_devices *d, const slr_devices_config *c)
{
    const slr_loader_visitor visitor = {.found = open_plugin, .skipped = add_note, .user = d};
    SLR_TRY(slr_loader_walk(d->mem, c->plugin_path, &visitor));
    for (size_t i = 0; i < sizeof builtin / sizeof *builtin; i++)
        SLR_TRY(open_device(d, builtin[i], 0));
    bool any = !c->backend || !c->backend[0] || !strcmp(c->backend, "auto");
    return any ? SDLORA_OK : put_first(d, c->backend);
}

int slr_devices_open(slr_devices **out, const slr_devices_config *config)
{
    *out = NULL;
    slr_devices *d = slr_calloc(config->mem, 1, sizeof *d);
    if (!d)
        return SDLORA_ENOMEM;
    int threads = config->threads > 0 ? config->threads : slr_threads_default();
    slr_refs_init(&d->refs);
    d->mem = config->mem ? slr_mem_ref(config->mem) : NULL;
    pthread_mutex_init(&d->lock, NULL);
    slr_host_init(&d->host, d->mem, config->log, threads, config->cpu_features);
    int rc = open_all(d, config);
    if (rc < 0) {
        slr_devices_unref(d);
        return rc;
    }
    *out = d;
    return SDLORA_OK;
}

slr_devices *slr_devices_ref(slr_devices *d)
{
    if (d)
        slr_refs_get(&d->refs);
    return d;
}

void slr_devices_unref(slr_devices *d)
{
    if (!d || !slr_refs_put(&d->refs))
        return;
    for (size_t i = d->n; i-- > 0;)
        close_entry(&d->entries[i]);
    for (size_t i = 0; i < d->n_notes; i++)
        slr_free(d->mem, d->notes[i]);
    slr_mem *mem = d->mem;
    pthread_mutex_destroy(&d->lock);
    slr_free(mem, d->notes);
    slr_free(mem, d->entries);
    slr_free(mem, d);
    slr_mem_unref(mem);
}

size_t slr_devices_count(const slr_devices *d)
{
    return d->n;
}

const sdlora_backend *slr_devices_backend(const slr_devices *d, size_t i)
{
    return i < d->n ? d->entries[i].backend : NULL;
}

sdlora_dev *slr_devices_dev(const slr_devices *d, size_t i)
{
    return i < d->n ? d->entries[i].dev : NULL;
}

sdlora_queue *slr_devices_queue(const slr_devices *d, size_t i)
{
    return i < d->n ? d->entries[i].queue : NULL;
}

int slr_devices_info(const slr_devices *d, size_t i, sdlora_dev_info *out)
{
    slr_require(i < d->n);
    *out = (sdlora_dev_info){.struct_size = sizeof *out};
    return d->entries[i].backend->dev_info(d->entries[i].dev, out);
}

int slr_devices_threads(const slr_devices *d)
{
    return d->host.threads;
}

slr_mem *slr_devices_mem(const slr_devices *d)
{
    return d->mem;
}

const sdlora_host *slr_devices_host(const slr_devices *d)
{
    return &d->host.face;
}

size_t slr_devices_notes(const slr_devices *d, const char *const **lines)
{
    *lines = (const char *const *)d->notes;
    return d->n_notes;
}

static int ask_in_turn(slr_devices *d, const sdlora_opdesc *op, size_t *which,
                       sdlora_kernel **kernel, uint64_t *scratch, slr_buf *reasons)
{
    for (size_t i = 0; i < d->n; i++) {
        const entry *e = &d->entries[i];
        *kernel = NULL;
        *scratch = 0;
        slr_clear();
        int rc = e->backend->prepare(kernel, scratch, e->dev, op);
        if (rc >= 0) {
            *which = i;
            return SDLORA_OK;
        }
        slr_error_copy why;
        slr_error_take(&why);
        if (rc != SDLORA_ENOTSUP)
            return slr_fail(rc, __func__, "%s: %s", e->backend->name,
                            why.code == rc ? why.text : "failed and gave no reason");
        const char *text = why.code == rc ? why.text : "declined and gave no reason";
        slr_logf(&d->host.log, SLR_LOG_DEBUG, "%s declined operation %u: %s", e->backend->name,
                 (unsigned)op->op, text);
        slr_buf_printf(reasons, "%s%s: %s", i ? "; " : "", e->backend->name, text);
    }
    SLR_TRY(slr_buf_ok(reasons));
    return slr_fail(SDLORA_ENOTSUP, __func__, "no backend takes operation %u (%s)",
                    (unsigned)op->op, reasons->len ? reasons->data : "there is none");
}

int slr_devices_prepare(slr_devices *d, const sdlora_opdesc *op, size_t *which,
                        sdlora_kernel **kernel, uint64_t *scratch)
{
    slr_buf reasons;
    slr_buf_init(&reasons, d->mem);
    pthread_mutex_lock(&d->lock);
    int rc = ask_in_turn(d, op, which, kernel, scratch, &reasons);
    pthread_mutex_unlock(&d->lock);
    slr_buf_free(&reasons);
    return rc;
}
