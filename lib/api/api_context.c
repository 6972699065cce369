/* SPDX-License-Identifier: MIT */
/* Contexts: the memory hooks and budget, the log, and the opened devices that every other handle
 * shares.  Knows option names of the kind "context"; refuses to know what the devices do. */
#include "api/api.h"

#include <stdio.h>

#include "base/cpu.h"
#include "base/status.h"

const char *sdlora_version(void)
{
    return SDLORA_VERSION_STRING;
}

/* Lower rooms copy their slr_log when they are made; this one stays valid when the caller changes
 * his mind about the log. */
static void pass_on(int level, const char *text, void *user)
{
    const sdlora_context *ctx = user;

    if (ctx->user.fn && level <= ctx->user.level)
        ctx->user.fn(level, text, ctx->user.user);
}

static int make_memory(slr_mem **out, slr_opt o, const sdlora_allocator *a)
{
    uint64_t budget = (uint64_t)slr_opt_int(o, "memory_limit");

    if (!a)
        return slr_mem_new(out, NULL, budget);
    if (!a->alloc || !a->realloc || !a->free)
        return slr_fail(SDLORA_EINVAL, "sdlora_context_new",
                        "an allocator needs all of alloc, realloc and free");
    slr_mem_hooks hooks = {a->alloc, a->realloc, a->free, a->user};
    return slr_mem_new(out, &hooks, budget);
}

static int open_devices(sdlora_context *ctx, slr_opt o)
{
    slr_devices_config config = {
        .mem = ctx->mem,
        .log = ctx->log,
        .threads = (int)slr_opt_int(o, "threads"),
        .cpu_features = slr_cpu_features() & slr_cpu_mask(slr_opt_text(o, "cpu")),
        .backend = slr_opt_text(o, "backend"),
        .plugin_path = slr_opt_text(o, "plugin_path"),
    };

    return slr_devices_open(&ctx->devices, &config);
}

int sdlora_context_new(sdlora_context **out, const sdlora_options *opts,
                       const sdlora_allocator *allocator)
{
    slr_opt o = {opts, "context"};
    slr_mem *mem = NULL;
    int rc;

    slr_clear();
    SLR_TRY(slr_api_given(out, "out", __func__));
    *out = NULL;
    SLR_TRY(slr_api_kind(opts, "context", __func__));
    SLR_TRY(make_memory(&mem, o, allocator));
    sdlora_context *ctx = slr_calloc(mem, 1, sizeof *ctx);
    if (!ctx) {
        slr_mem_unref(mem);
        return SDLORA_ENOMEM;
    }
    slr_refs_init(&ctx->refs);
    ctx->mem = mem;
    ctx->log = (slr_log){.fn = pass_on, .user = ctx, .level = SLR_LOG_DEBUG};
    pthread_mutex_init(&ctx->lock, NULL);
    rc = open_devices(ctx, o);
    if (rc < 0) {
        sdlora_context_unref(ctx);
        return rc;
    }
    *out = ctx;
    return SDLORA_OK;
}

sdlora_context *sdlora_context_ref(sdlora_context *ctx)
{
    if (ctx)
        slr_refs_get(&ctx->refs);
    return ctx;
}

void sdlora_context_unref(sdlora_context *ctx)
{
    if (!ctx || !slr_refs_put(&ctx->refs))
        return;
    slr_mem *mem = ctx->mem;
    slr_bpe_unref(ctx->bpe);
    slr_devices_unref(ctx->devices);
    pthread_mutex_destroy(&ctx->lock);
    slr_free(mem, ctx);
    slr_mem_unref(mem);
}

int sdlora_context_set_log(sdlora_context *ctx, int level, sdlora_log_fn fn, void *user)
{
    slr_clear();
    SLR_TRY(slr_api_given(ctx, "ctx", __func__));
    if (fn && (level < SDLORA_LOG_ERROR || level > SDLORA_LOG_DEBUG))
        return slr_fail(SDLORA_EINVAL, __func__, "log level %d is not between %d and %d", level,
                        SDLORA_LOG_ERROR, SDLORA_LOG_DEBUG);
    ctx->user = (slr_log){.fn = fn, .user = user, .level = level};
    return SDLORA_OK;
}

size_t sdlora_context_device_count(const sdlora_context *ctx)
{
    return ctx ? slr_devices_count(ctx->devices) : 0;
}

int sdlora_context_device_info(sdlora_context *ctx, size_t i, sdlora_device_info *info)
{
    sdlora_dev_info dev = {.struct_size = sizeof dev};
    sdlora_device_info filled = {0};

    slr_clear();
    SLR_TRY(slr_api_given(ctx, "ctx", __func__));
    SLR_TRY(slr_api_given(info, "info", __func__));
    if (i >= slr_devices_count(ctx->devices))
        return slr_fail(SDLORA_ENOTFOUND, __func__, "there are %zu devices, no number %zu",
                        slr_devices_count(ctx->devices), i);
    SLR_TRY(slr_devices_info(ctx->devices, i, &dev));
    snprintf(filled.name, sizeof filled.name, "%s", dev.name);
    snprintf(filled.backend, sizeof filled.backend, "%s",
             slr_devices_backend(ctx->devices, i)->name);
    filled.mem_total = dev.mem_total;
    filled.mem_free = dev.mem_free;
    filled.host_memory = (dev.flags & SDLORA_DEV_HOST_MEMORY) != 0;
    filled.threads = slr_devices_threads(ctx->devices);
    return slr_api_fill(info, &filled, sizeof filled, __func__);
}

const char *sdlora_context_device_note(const sdlora_context *ctx, size_t i)
{
    const char *const *lines;

    return ctx && i < slr_devices_notes(ctx->devices, &lines) ? lines[i] : NULL;
}

uint64_t sdlora_context_memory_used(const sdlora_context *ctx)
{
    return ctx ? slr_mem_used(ctx->mem) : 0;
}

uint64_t sdlora_context_memory_peak(const sdlora_context *ctx)
{
    return ctx ? slr_mem_peak(ctx->mem) : 0;
}

int slr_api_bpe(sdlora_context *ctx, slr_bpe **out)
{
    int rc = SDLORA_OK;

    pthread_mutex_lock(&ctx->lock);
    if (!ctx->bpe)
        rc = slr_bpe_new(&ctx->bpe, ctx->mem);
    *out = ctx->bpe;
    pthread_mutex_unlock(&ctx->lock);
    return rc;
}
