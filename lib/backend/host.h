/* SPDX-License-Identifier: MIT */
/* The services that the core lends to backends: memory, log, error slot and the one thread pool.
 * Knows base only. */
#ifndef SLR_BACKEND_HOST_H
#define SLR_BACKEND_HOST_H

#include <sdlora/backend.h>
#include "base/log.h"
#include "base/mem.h"

typedef struct slr_host {
    sdlora_host face; /* what a backend sees; face.self points here */
    slr_mem *mem;     /* borrowed */
    slr_log log;
    int threads;
} slr_host;

/* The struct must not move afterwards. */
void slr_host_init(slr_host *h, slr_mem *mem, slr_log log, int threads, uint64_t cpu_features);

#endif
