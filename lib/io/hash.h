/* SPDX-License-Identifier: MIT */
/* SHA-256 (OpenSSL's EVP) and the digests that users know (inference.md §1.7). */
#ifndef SLR_IO_HASH_H
#define SLR_IO_HASH_H

#include <stddef.h>
#include <stdint.h>

#include "base/mem.h"

typedef struct slr_sha256 slr_sha256;
int slr_sha256_new(slr_sha256 **out, slr_mem *m);
int slr_sha256_add(slr_sha256 *s, const void *bytes, size_t n);
/* Ends it: *s becomes NULL, even on failure.  hex Nullable: only frees.  *s NULL: nothing. */
int slr_sha256_hex(slr_sha256 **s, char hex[65]);

int slr_hash_bytes(const void *bytes, size_t n, char hex[65]);
int slr_hash_file(const char *path, char hex[65]);    /* whole file */
int slr_hash_legacy(const char *path, char hex[9]);   /* 0x10000 bytes at 0x100000, 8 digits */
int slr_hash_tensors(const char *path, char hex[65]); /* bytes after the safetensors header */

#endif
