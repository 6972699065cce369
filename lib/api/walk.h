/* SPDX-License-Identifier: MIT */
/* What lies in a directory and below it.  Refuses to know what files are for. */
#ifndef SLR_API_WALK_H
#define SLR_API_WALK_H

#include <stdbool.h>

#include "base/log.h"
#include "base/mem.h"

/* path: of an entry, which may be a folder; borrowed.  0 goes on, more than 0 ends the walk, less
 * fails it. */
typedef int (*slr_walk_fn)(void *user, const char *path);
/* Visits the entries of a directory in byte order, then those of its folders, so that what is
 * nearer to the top comes first.  A folder that can't be read is skipped with a warning; log NULL:
 * without.  Returns what fn returned last; errors of `dir` itself, ENOMEM. */
int slr_walk(slr_mem *m, const slr_log *log, const char *dir, slr_walk_fn fn, void *user);

/* Whether a file's name has an ending of weights: of checkpoints, VAEs, upscalers and networks. */
bool slr_walk_is_weights(const char *path);

#endif
