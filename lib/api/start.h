/* SPDX-License-Identifier: MIT */
/* What a generator draws from besides words: a picture and its mask, VAEs,
 * upscalers and further checkpoints by name. */
#ifndef SLR_API_START_H
#define SLR_API_START_H

#include "api/folders.h"
#include "base/options.h"
#include "base/str.h"
#include "sample/generator.h"

/* One of the generator's checkpoints besides its first. */
typedef struct slr_api_other {
    sdlora_checkpoint *given; /* by the caller, whatever options say; NULL */
    sdlora_checkpoint *named; /* by the option of the last run; NULL */
    char *path;               /* of that; NULL */
} slr_api_other;

typedef struct slr_api_start {
    slr_pixels init, mask; /* upright, RGB or RGBA; data NULL: none */
    slr_folders vaes, upscalers, ckpts;
    slr_api_other other[SLR_ROLES]; /* by SLR_ROLE_*, the first unused */
    char *upscaler_path;            /* of the last run; NULL: none */
} slr_api_start;

void slr_api_start_init(slr_api_start *s, slr_mem *m);
void slr_api_start_free(slr_api_start *s, slr_mem *m);
/* Fills the request's pictures and upscaler, and lets the generator use the
 * checkpoints and VAEs that options ask for. */
int slr_api_start_request(slr_request *r, sdlora_generator *g, slr_opt o);

/* --- api_others.c --- */

/* The option that names a role's checkpoint. */
const char *slr_api_other_option(int role);
/* What AUTOMATIC1111 calls a checkpoint: "name [hash]". */
typedef struct slr_api_title {
    slr_str name, hash; /* parts of the text; hash.n 0: none */
} slr_api_title;
slr_api_title slr_api_title_of(const char *text);
/* The file of the directories of models that a name means; ENOTFOUND. */
int slr_api_other_named(const sdlora_generator *g, slr_str name, char **path);
/* Lets the generator use the checkpoint of a role that handle or option name. */
int slr_api_other_choose(sdlora_generator *g, int role, slr_opt o);
void slr_api_other_free(slr_api_other *c, slr_mem *m);

#endif
