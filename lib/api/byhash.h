/* SPDX-License-Identifier: MIT */
/* Files by the hashes that parameters texts and sites give: AUTOMATIC1111's and Civitai's. */
#ifndef SLR_API_BYHASH_H
#define SLR_API_BYHASH_H

#include <stdbool.h>

#include "base/str.h"
#include "io/file.h"

/* Whether the digits are the first of one of a file's hashes: of all its bytes, of a network's
 * tensors (also as its metadata tell), or, if they are eight, of the old kind.  *same is set on
 * success; a file that can't be read has none. */
int slr_byhash_is(slr_mem *m, const char *path, slr_str digits, bool *same);
/* The stem of the first network file below these directories that has the hash; files whose
 * metadata tell it first, since that costs a header.  *stem NULL: there is none; else the caller
 * frees it. */
int slr_byhash_find(slr_mem *m, const slr_list *dirs, slr_str digits, char **stem);

#endif
