/* SPDX-License-Identifier: MIT */
/* Safetensors files: lazy views over a mapping, header-only reading, streaming atomic writing.  The
 * format itself is subprojects/safetensors-c.  Strict: a file with holes, overlaps, repeated names
 * or bytes after its last tensor is refused. */
#ifndef SLR_IO_SAFETENSORS_H
#define SLR_IO_SAFETENSORS_H

#include <stdbool.h>

#include "tensor/tensor.h"

typedef struct slr_safetensors slr_safetensors;
/* weights false: only the header is read (no mapping; tensors have data NULL). */
int slr_safetensors_open(slr_safetensors **out, slr_mem *m, const char *path, bool weights);
/* The same from bytes that the caller keeps until close; `label` stands in messages. */
int slr_safetensors_parse(slr_safetensors **out, slr_mem *m, const void *bytes, size_t n,
                          const char *label);
void slr_safetensors_close(slr_safetensors *f); /* tensors keep the mapping through storage refs */
size_t slr_safetensors_count(const slr_safetensors *f);
/* File order; storage borrowed.  A type that this library has no row for (U16, F4, ...) gives dtype
 * 0 and no data; slr_safetensors_tag() has its spelling. */
const char *slr_safetensors_at(const slr_safetensors *f, size_t i, slr_tensor *t);
const char *slr_safetensors_tag(const slr_safetensors *f, size_t i); /* "F16" */
bool slr_safetensors_find(const slr_safetensors *f, const char *name, slr_tensor *t);
size_t slr_safetensors_meta_count(const slr_safetensors *f);
const char *slr_safetensors_meta_at(const slr_safetensors *f, size_t i, const char **value);
const char *slr_safetensors_meta(const slr_safetensors *f, const char *key); /* NULL: absent */
uint64_t slr_safetensors_data_start(const slr_safetensors *f);               /* 8 + header length */

/* One tensor to write; name and data borrowed. */
typedef struct slr_st_entry {
    const char *name;
    slr_tensor t;
} slr_st_entry;
typedef struct slr_st_pair {
    const char *key, *value;
} slr_st_pair;
/* Byte-equal to the reference writer's layout (dtype width descending, then name). Atomic.
 * meta NULL: no `__metadata__`; else it is written in the caller's order. */
int slr_safetensors_write(slr_mem *m, const char *path, const slr_st_entry *e, size_t n,
                          const slr_st_pair *meta, size_t n_meta);
/* The same bytes in memory. Caller frees. */
int slr_safetensors_encode(slr_mem *m, const slr_st_entry *e, size_t n, const slr_st_pair *meta,
                           size_t n_meta, void **bytes, size_t *n_bytes, uint64_t *data_start);

#endif
