/* SPDX-License-Identifier: MIT */
/* The backends and opened devices of a context: the built-in row, then plugins.  Knows the plugin
 * ABI and how to find shared objects; refuses to know graphs. */
#ifndef SLR_BACKEND_REGISTRY_H
#define SLR_BACKEND_REGISTRY_H

#include <sdlora/backend.h>
#include "base/log.h"
#include "base/mem.h"

typedef struct slr_devices slr_devices; /* refcounted; shared by all plans of a context */

typedef struct slr_devices_config {
    slr_mem *mem;
    slr_log log;
    int threads;           /* 0: all cores */
    uint64_t cpu_features; /* already masked */
    const char *backend;   /* "auto", "cpu", "null", ... : who is asked first */
    const char
        *plugin_path; /* Nullable: extra directories, ':'-separated, set by the application */
} slr_devices_config;

int slr_devices_open(slr_devices **out, const slr_devices_config *config);
slr_devices *slr_devices_ref(slr_devices *d);
void slr_devices_unref(slr_devices *d);

/* Candidates in the order in which prepare() asks them. */
size_t slr_devices_count(const slr_devices *d);
const sdlora_backend *slr_devices_backend(const slr_devices *d, size_t i);
sdlora_dev *slr_devices_dev(const slr_devices *d, size_t i);
sdlora_queue *slr_devices_queue(const slr_devices *d, size_t i);
int slr_devices_info(const slr_devices *d, size_t i, sdlora_dev_info *out);
int slr_devices_threads(const slr_devices *d);
slr_mem *slr_devices_mem(const slr_devices *d);
const sdlora_host *slr_devices_host(const slr_devices *d);

/* Asks the candidates in turn.  *which is the candidate's index.  ENOTSUP when all decline: the
 * text lists each one's reason. */
int slr_devices_prepare(slr_devices *d, const sdlora_opdesc *op, size_t *which,
                        sdlora_kernel **kernel, uint64_t *scratch);

/* What was found but not loaded, one line each, for `sdlora devices`. */
size_t slr_devices_notes(const slr_devices *d, const char *const **lines);

#endif
