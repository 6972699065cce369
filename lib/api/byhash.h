/* SPDX-License-Identifier: MIT */
/* Files by the hashes that parameters texts and sites give: AUTOMATIC1111's and Civitai's.  Hashes
 * are kept until their file is written to. */
#ifndef SLR_API_BYHASH_H
#define SLR_API_BYHASH_H

#include <stdbool.h>

#include "base/str.h"
#include "io/file.h"

/* What is known of files; for one thread at a time. */
typedef struct slr_byhash slr_byhash;

int slr_byhash_new(slr_byhash **out, slr_mem *m);
void slr_byhash_free(slr_byhash *b); /* NULL: nothing */

/* What a hash is of, and so how often a file has to be read. */
enum {
    SLR_BYHASH_FILE,   /* all bytes, or, if it has eight digits, the old kind: checkpoints, VAEs */
    SLR_BYHASH_NETWORK /* or a network's tensors, also as its metadata tell */
};
/* Whether the digits are the first of one of a file's hashes.  *same is set on success; a file that
 * can't be read has none.  ECANCELED inside a watched job whose flag is set. */
int slr_byhash_is(slr_byhash *b, const char *path, int of, slr_str digits, bool *same);

/* The sha256 of a file, computed once for each state of it.  Errors: those of slr_hash_file(). */
int slr_byhash_whole(slr_byhash *b, const char *path, char hex[65]);

typedef struct slr_byhash_wanted {
    slr_str digits;
    char *stem, *path; /* the caller's, even after a failure; NULL: no file has the hash */
} slr_byhash_wanted;
/* The first file of weights below these directories that has the hash, for n of them in
 * one walk; files whose metadata tell it first, since that costs a header. */
int slr_byhash_find(slr_byhash *b, const slr_list *dirs, int of, slr_byhash_wanted *wanted,
                    size_t n);

#endif
