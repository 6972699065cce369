/* SPDX-License-Identifier: MIT */
/* Services lent to backends.  Each forwards to base/ with the memory, log and thread count of one
 * set of devices.  Refuses to know which backend calls. */
#include "backend/host.h"

#include "base/status.h"
#include "base/thread.h"

enum { ALIGNMENT = 64 }; /* what base/mem.h promises for every block */

static void *host_alloc(void *self, size_t bytes, size_t align)
{
    const slr_host *h = self;
    if (align > ALIGNMENT) {
        slr_fail(SDLORA_EINVAL, __func__,
                 "a backend asked for memory aligned to %zu; %d is the most", align,
                 (int)ALIGNMENT);
        return NULL;
    }
    return slr_alloc(h->mem, bytes);
}

static void host_free(void *self, void *ptr)
{
    const slr_host *h = self;
    slr_free(h->mem, ptr);
}

static void host_log(void *self, int level, const char *text)
{
    const slr_host *h = self;
    slr_logf(&h->log, level, "%s", text ? text : "");
}

static int host_fail(void *self, int code, const char *text)
{
    (void)self;
    return slr_fail(code, "backend", "%s", text ? text : "a backend failed and gave no reason");
}

static void host_parallel(void *self, int64_t n, int64_t grain,
                          void (*body)(void *arg, int64_t lo, int64_t hi), void *arg)
{
    const slr_host *h = self;
    slr_parallel(h->threads, n, grain, body, arg);
}

static int host_threads(void *self)
{
    const slr_host *h = self;
    return h->threads;
}

static int host_canceled(void *self)
{
    (void)self;
    return slr_canceled();
}

void slr_host_init(slr_host *h, slr_mem *mem, slr_log log, int threads, uint64_t cpu_features)
{
    *h = (slr_host){
        .face = {.struct_size = sizeof h->face,
                 .abi = SDLORA_BACKEND_ABI,
                 .self = h,
                 .alloc = host_alloc,
                 .free = host_free,
                 .log = host_log,
                 .fail = host_fail,
                 .parallel = host_parallel,
                 .threads = host_threads,
                 .cpu_features = cpu_features,
                 .canceled = host_canceled},
        .mem = mem,
        .log = log,
        .threads = threads,
    };
}
