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
/* Where the bytes of an entry without data come from: [at, at + n) of entry i, as they stand in the
 * file.  Entries are asked for in the file's order (width of the type descending, then name), each
 * from 0 on in ascending pieces of at most SLR_ST_PIECE bytes, cut at multiples of that. */
#define SLR_ST_PIECE ((size_t)1 << 20)
typedef int slr_st_read(void *user, size_t i, uint64_t at, void *to, size_t n);
/* Writes the same file piece by piece: memory is one piece, whatever the size.  Room on the disk is
 * asked for first.  A read that fails ends it with its code, and what stood at path stays.
 * verify: before the file takes its name its header is parsed, and every entry is read a second
 * time and compared with what lies on the disk; EIO names the first that differs. */
int slr_safetensors_stream(slr_mem *m, const char *path, const slr_st_entry *e, size_t n,
                           const slr_st_pair *meta, size_t n_meta, slr_st_read *read, void *user,
                           bool verify);
/* Hands those bytes to put instead; *data_start (Nullable) is set before the first. */
typedef int slr_st_put(void *user, const void *bytes, size_t n);
int slr_safetensors_emit(slr_mem *m, const slr_st_entry *e, size_t n, const slr_st_pair *meta,
                         size_t n_meta, slr_st_read *read, slr_st_put *put, void *user,
                         uint64_t *data_start);
/* The same bytes in memory. Caller frees. */
int slr_safetensors_encode(slr_mem *m, const slr_st_entry *e, size_t n, const slr_st_pair *meta,
                           size_t n_meta, void **bytes, size_t *n_bytes, uint64_t *data_start);

#endif
