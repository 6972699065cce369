/* SPDX-License-Identifier: MIT */
/* What a file is, told from its header: kind, family, tensors, metadata; for networks ranks,
 * modules and trigger words; hashes on request. */
#ifndef SLR_NETWORKS_INFO_H
#define SLR_NETWORKS_INFO_H

#include <stdbool.h>

#include "base/log.h"
#include "base/mem.h"

/* *json is the caller's (slr_free with m).  path: a file of any format that can be opened, or a
 * diffusers folder (without hashes). */
int slr_file_info(char **json, slr_mem *m, slr_log log, const char *path, bool hashes);

#endif
