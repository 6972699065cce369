/* SPDX-License-Identifier: MIT */
/* Looks at every value of a model or network file: what is not finite, how large things are, which
 * modules change nothing.  Streaming; time is linear in the file. */
#ifndef SLR_NETWORKS_CHECK_H
#define SLR_NETWORKS_CHECK_H

#include <stdbool.h>

#include "base/mem.h"
#include "base/phase.h"

/* *json is the caller's (slr_free with m); docs of the fields: sdlora/tools.h.  path: a file of any
 * format, or a diffusers folder.  each: a row for every tensor also.  phase (Nullable) "check",
 * bytes. */
int slr_file_check(char **json, slr_mem *m, int threads, const char *path, bool each,
                   slr_phase_fn phase, void *user);

#endif
