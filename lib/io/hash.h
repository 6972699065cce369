/* SPDX-License-Identifier: MIT */
/* SHA-256 (OpenSSL's EVP) and the digests that users know. */
#ifndef SLR_IO_HASH_H
#define SLR_IO_HASH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/mem.h"
#include "base/phase.h"

typedef struct slr_sha256 slr_sha256;
int slr_sha256_new(slr_sha256 **out, slr_mem *m);
int slr_sha256_add(slr_sha256 *s, const void *bytes, size_t n);
/* Ends it: *s becomes NULL, even on failure.  hex Nullable: only frees.  *s NULL: nothing. */
int slr_sha256_hex(slr_sha256 **s, char hex[65]);

/* Those that read files end with ECANCELED inside a watched job whose flag is set (base/thread.h).
 */
int slr_hash_bytes(const void *bytes, size_t n, char hex[65]);
int slr_hash_file(const char *path, char hex[65]);    /* whole file */
int slr_hash_legacy(const char *path, char hex[9]);   /* 0x10000 bytes at 0x100000, 8 digits */
int slr_hash_tensors(const char *path, char hex[65]); /* bytes after the safetensors header */

/* All that is customary, in one reading and, for networks, a second.  "" where there is none. */
typedef struct slr_hashes {
    char sha256[65];     /* its first 10 digits are AutoV2 */
    char legacy[9];      /* AutoV1 */
    char tensors[65];    /* of a safetensors file; its first 12 are the short one of networks */
    char sshs_model[65]; /* kohya's, of the tensors as its writer orders them */
    char sshs_legacy[9];
} slr_hashes;
/* sshs: kohya's two also.  phase (Nullable) "hash", bytes. */
int slr_hash_all(slr_hashes *out, slr_mem *m, const char *path, bool sshs, slr_phase_fn phase,
                 void *user);
/* Kohya's two alone, with these pairs in place of the file's own metadata. */
struct slr_st_pair;
int slr_hash_sshs(char model[65], char legacy[9], slr_mem *m, const char *path,
                  const struct slr_st_pair *meta, size_t n_meta, slr_phase_fn phase, void *user);

#endif
