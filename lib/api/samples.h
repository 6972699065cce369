/* SPDX-License-Identifier: MIT */
/* Pictures drawn while training: a file of prompts with kohya's flags, and where the pictures go.
 */
#ifndef SLR_API_SAMPLES_H
#define SLR_API_SAMPLES_H

#include "api/api.h"
#include "sample/generator.h"

/* One prompt of the file. */
typedef struct slr_sample_line {
    char *prompt, *negative, *sampler; /* sampler NULL: the option's */
    int width, height, steps;
    int64_t seed; /* -1: random */
    double cfg;
} slr_sample_line;

typedef struct slr_sample_lines {
    slr_mem *m;
    slr_sample_line *at;
    size_t n, cap;
} slr_sample_lines;

/* A .txt file (one prompt a line, "#" comments, " --n --w --h --d --l --s --ss" flags) or a .json
 * file (a list of objects).  EFORMAT names file and line. */
int slr_sample_lines_read(slr_sample_lines *out, slr_mem *m, const char *path);
void slr_sample_lines_free(slr_sample_lines *l);

/* What samples are drawn from. */
typedef struct slr_samples {
    sdlora_context *ctx;
    slr_checkpoint *base;
    slr_weights *vae;     /* Nullable */
    const char *vae_path; /* Nullable */
    slr_network *network; /* being trained; applied at strength 1 */
    slr_generator **gen;  /* kept by the owner from one draw to the next; NULL at first */
    slr_opt train;
    const slr_cancel_flag *cancel;
    int (*progress)(void *user, int64_t done, int64_t total); /* Nullable; non-zero cancels */
    void *user;
} slr_samples;

/* Draws all prompts of `sample_prompts` into <output_dir>/sample.  The file is read anew each time,
 * so that it can be edited during a run.  *gen is made when it is NULL; the owner frees it. */
int slr_samples_draw(const slr_samples *s, int64_t epoch, int64_t step);

#endif
