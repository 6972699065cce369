/* SPDX-License-Identifier: MIT */
/* The metadata of a safetensors file, as it stands and as people read it. */
#ifndef SLR_NETWORKS_METAVIEW_H
#define SLR_NETWORKS_METAVIEW_H

#include "base/mem.h"

/* key NULL: JSON with "metadata" (all pairs), "training" (settings under readable names), "folders"
 * and "tags" (counts over all folders).  Else that key's value as it stands; ENOTFOUND without it.
 * *text is the caller's. */
int slr_metadata_text(char **text, slr_mem *m, const char *path, const char *key);

#endif
