/* SPDX-License-Identifier: MIT */
/**
 * @file sdlora/context.h
 * A context: memory, log, threads and devices that everything else is made from.
 *
 * Unless a comment below says otherwise (in this and all other headers):
 *  - Return: SDLORA_OK (0), or a negative SDLORA_E* whose text sdlora_last_error() holds;
 *  - Out: `out` comes first, is NULL after a failure, and on success is one reference that the
 *    caller gives back with the matching _unref(); handles keep what they were made from alive,
 *    so the order of unref calls is free, and unref(NULL) does nothing;
 *  - Text is UTF-8 and NUL-terminated; returned text and getters are borrowed from the handle;
 *  - Thread: _ref, _unref and _cancel from any thread.  Contexts, checkpoints and VAEs never change
 *    after they are made and may be shared by threads.
 *
 * The library never prints, aborts, exits, installs signal handlers or changes the locale.
 */
#ifndef SDLORA_CONTEXT_H
#define SDLORA_CONTEXT_H

#include <sdlora/types.h>

SDLORA_BEGIN_DECLS

enum { SDLORA_LOG_ERROR = 1, SDLORA_LOG_WARN = 2, SDLORA_LOG_INFO = 3, SDLORA_LOG_DEBUG = 4 };

/** Receives log lines, from any thread that runs a job of the context. */
typedef void (*sdlora_log_fn)(int level, const char *text, void *user);

/** Memory hooks: all three or none.  Called from any thread.  alloc(0) may return NULL. */
typedef struct sdlora_allocator {
    void *(*alloc)(void *user, size_t bytes);
    void *(*realloc)(void *user, void *ptr, size_t bytes);
    void (*free)(void *user, void *ptr);
    void *user;
} sdlora_allocator;

/**
 * Makes a context.
 * @param opts       Nullable: defaults.  Kind "context": threads, backend, cpu, memory_limit ...
 * @param allocator  Nullable: the C library's.  Copied.  Third-party codecs use malloc themselves.
 */
SDLORA_API int sdlora_context_new(sdlora_context **out, const sdlora_options *opts,
                                  const sdlora_allocator *allocator);
SDLORA_API sdlora_context *sdlora_context_ref(sdlora_context *ctx);
SDLORA_API void sdlora_context_unref(sdlora_context *ctx);

/**
 * Sends log lines up to `level` to fn; NULL ends it.  There is no log until this is called.
 * Thread: before the context is shared.
 */
SDLORA_API int sdlora_context_set_log(sdlora_context *ctx, int level, sdlora_log_fn fn, void *user);

/** One device that a backend offers, in the order in which operations ask for a kernel. */
typedef struct sdlora_device_info {
    size_t struct_size; /**< set by the caller to sizeof(sdlora_device_info) */
    char name[64];      /**< "AVX-512, 2 threads" */
    char backend[32];   /**< "cpu" */
    uint64_t mem_total; /**< bytes; 0: unknown */
    uint64_t mem_free;
    int32_t host_memory; /**< 1: works on the process's own memory */
    int32_t threads;
} sdlora_device_info;

SDLORA_API size_t sdlora_context_device_count(const sdlora_context *ctx);
/** Errors: SDLORA_ENOTFOUND when i is too large. */
SDLORA_API int sdlora_context_device_info(sdlora_context *ctx, size_t i, sdlora_device_info *info);
/** Why plugins that were found are not used; one line each.  NULL when i is too large. */
SDLORA_API const char *sdlora_context_device_note(const sdlora_context *ctx, size_t i);

/** Bytes that the context's handles hold now, and the most they ever held. */
SDLORA_API uint64_t sdlora_context_memory_used(const sdlora_context *ctx);
SDLORA_API uint64_t sdlora_context_memory_peak(const sdlora_context *ctx);

SDLORA_END_DECLS
#endif /* SDLORA_CONTEXT_H */
