/* SPDX-License-Identifier: MIT */
/* Between netwrite.c, which writes files, and netspell.c, which shapes the tensors of dialects that
 * differ from kohya's by more than names. */
#ifndef SLR_NETWORKS_NETWRITE_H
#define SLR_NETWORKS_NETWRITE_H

#include "io/safetensors.h"
#include "networks/dialect.h"

typedef struct slr_writing {
    slr_mem *m;
    const slr_network *network;
    const slr_spelling *spelling;
    uint32_t dtype;
    slr_arena *texts; /* names and bytes */
    slr_st_entry *entry;
    size_t n, cap;
    slr_st_pair *pair;
} slr_writing;

/* One tensor of a module; the leaf is as the file shall spell it.  ENAN when a value is not finite
 * in the file's type. */
int slr_writing_add(slr_writing *w, const slr_module *mod, const char *leaf, int rank,
                    const int64_t *dim, const float *src);
/* A slot as it is, or multiplied by the module's scalar if it is the leaf that takes that. */
int slr_writing_slot(slr_writing *w, const slr_network_slot *s);
/* All tensors of a dialect with dots; what they can't say goes into meta, or for PEFT into the
 * adapter_config.json beside path. */
int slr_spell_collect(slr_writing *w, const char *path, slr_meta *meta);

#endif
