/* SPDX-License-Identifier: MIT */
/* Network files: key names <-> targets, kohya safetensors writing with full metadata and hashes,
 * and a look at any file's header without loading weights. */
#ifndef SLR_NETWORKS_NETFILE_H
#define SLR_NETWORKS_NETFILE_H

#include "networks/network.h"

/* Ordered key/value text pairs. */
typedef struct slr_meta slr_meta;
int slr_meta_new(slr_meta **out, slr_mem *m);
void slr_meta_free(slr_meta *meta);
int slr_meta_set(slr_meta *meta, const char *key, const char *value); /* replaces */
int slr_meta_setf(slr_meta *meta, const char *key, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
const char *slr_meta_get(const slr_meta *meta, const char *key); /* NULL: absent */
size_t slr_meta_count(const slr_meta *meta);
const char *slr_meta_at(const slr_meta *meta, size_t i, const char **value);

/* What a safetensors header spends on each pair of metadata, and on each tensor beside its name. */
#define SLR_NETFILE_PAIR  6
#define SLR_NETFILE_ENTRY 72
/* Of all keys and values as JSON. */
uint64_t slr_meta_text_bytes(const slr_meta *meta);

/* Saves kohya's layout atomically (temp + fsync + rename).  save_dtype: SDLORA_F32, F16 or BF16.
 * meta gains sshs_model_hash and sshs_legacy_hash.  ENAN when a weight is not finite: nothing is
 * written. */
int slr_netfile_save(const slr_network *n, const char *path, uint32_t save_dtype, slr_meta *meta);

/* The same in another dialect (dialect.h). ENOTSUP names the first module that it can't hold. */
struct slr_spelling;
int slr_netfile_save_as(const slr_network *n, const char *path, uint32_t save_dtype, slr_meta *meta,
                        const struct slr_spelling *spelling);

/* With a copy of the network's own metadata. */
int slr_network_save_as(const slr_network *n, const char *path, uint32_t save_dtype,
                        const struct slr_spelling *spelling);

/* How big that file is with this metadata, within a few percent of its header. */
uint64_t slr_netfile_size(const slr_network *n, uint32_t save_dtype, const slr_meta *meta);

/* The metadata of an opened network (borrowed, may be empty). */
const slr_meta *slr_network_meta(const slr_network *n);

#endif
