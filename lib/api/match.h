/* SPDX-License-Identifier: MIT */
/* What the files that compare a parameters text with a generator share.  For lib/api only. */
#ifndef SLR_API_MATCH_H
#define SLR_API_MATCH_H

#include "api/byhash.h"
#include "api/generator.h"
#include "sample/infotext.h"

enum { SLR_MATCH_MOST = 100 }; /* hashes of networks of a text that are looked at */

/* A network whose name is none here or another file's; texts are its own. */
typedef struct slr_match_missing {
    char *name, *hash, *path; /* path: of the other file, NULL: none */
} slr_match_missing;

typedef struct slr_matching {
    sdlora_generator *g;
    slr_mem *m;
    sdlora_options *o;
    const slr_info *info;
    slr_buf *notes;
    int rc; /* of a callback */
    size_t n_loras, n_missing;
    slr_match_missing missing[SLR_MATCH_MOST];
} slr_matching;

/* Whether a file has a hash (of: SLR_BYHASH_*); ends early when the generator is cancelled. */
int slr_match_is(slr_matching *k, const char *path, int of, slr_str hash, bool *same);

/* --- match_other.c --- */

/* The refiner and the checkpoint of the second pass: their options get the files. */
int slr_match_others(slr_matching *k);
/* What the picture was made of, which no text holds. */
int slr_match_start(slr_matching *k);

#endif
