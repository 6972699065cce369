/* SPDX-License-Identifier: MIT */
/* Inside the room: a preset from a TOML file, and the patterns that it may hold. */
#ifndef SLR_NETWORKS_PRESETFILE_H
#define SLR_NETWORKS_PRESETFILE_H

#include "networks/preset.h"

enum { SLR_PATH_MAX = 256 }; /* bytes of a module path, with the NUL */

/* Puts what the file says over what *p holds. */
int slr_preset_read(slr_preset *p, slr_mem *m, slr_arena *texts, const char *path);
/* Python's re.match: the pattern fits the beginning of the path.  The pattern was checked. */
bool slr_pattern_fits(const char *pattern, const char *path);
/* All names of classes, with repetitions; NULL: no more. */
const char *slr_class_at(size_t i);

#endif
