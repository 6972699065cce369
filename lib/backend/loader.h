/* SPDX-License-Identifier: MIT */
/* Finds and opens backend plugins.  Knows directories and the handshake; refuses to know devices.
 */
#ifndef SLR_BACKEND_LOADER_H
#define SLR_BACKEND_LOADER_H

#include <sdlora/backend.h>
#include "base/mem.h"

/* Opens one shared object and shakes hands.  The object stays loaded for the life of the process
 * once this succeeds.  EBACKEND: not loadable or not a plugin; EVERSION: made for another ABI. */
int slr_loader_open(const sdlora_backend **out, const char *path, const sdlora_host *host);

/* Checks what an entry function gave: sizes, version, name and the members no backend may lack. */
int slr_loader_check(const sdlora_backend *b, const char *path);

/* Calls found(path) for each DIR/sdlora-*.so: first in the installed directory, then in those of
 * app_path (':'-separated, may be NULL), then in those of SDLORA_BACKEND_PATH.  Only absolute
 * directories count; skipped(line) hears of others in app_path. */
typedef struct slr_loader_visitor {
    int (*found)(void *user, const char *path); /* negative ends the walk */
    int (*skipped)(void *user, const char *line);
    void *user;
} slr_loader_visitor;
int slr_loader_walk(slr_mem *m, const char *app_path, const slr_loader_visitor *v);

#endif
