/* SPDX-License-Identifier: MIT */
/* Named pieces of prompts out of AUTOMATIC1111's styles.csv. */
#ifndef SLR_SAMPLE_STYLES_H
#define SLR_SAMPLE_STYLES_H

#include "base/map.h"
#include "base/mem.h"
#include "base/str.h"

/* Texts may be NULL: a short row has none. */
typedef struct slr_style {
    const char *name, *prompt, *negative;
} slr_style;

typedef struct slr_styles {
    slr_mem *m;
    slr_arena *texts;
    slr_style *at; /* in the order of first mention; of two with one name the later row counts */
    size_t n, cap;
    slr_map *by_name;
} slr_styles;

int slr_styles_new(slr_styles *out, slr_mem *m);
void slr_styles_free(slr_styles *s); /* zeros: nothing */
/* Adds those of a file, or of its text.  EFORMAT where there is no header with a name and a prompt.
 */
int slr_styles_read(slr_styles *s, const char *path);
int slr_styles_parse(slr_styles *s, const char *text, size_t n, const char *label);
/* New, with those of files, one a line; on failure what is there is to be freed as well. */
int slr_styles_read_all(slr_styles *out, slr_mem *m, const char *files);
const slr_style *slr_styles_find(const slr_styles *s, const char *name); /* NULL: none */

/* Puts styles around or behind both prompts, in order; names: one a line.  Results are the
 * caller's. ENOTFOUND names a style that is not there. */
int slr_styles_apply(const slr_styles *s, const char *names, const char *prompt,
                     const char *negative, char **out, char **out_negative);
/* The reverse, for prompts out of a picture: takes styles off as long as one fits both.  names: one
 * a line, in the order that apply() wants. */
int slr_styles_extract(const slr_styles *s, const char *prompt, const char *negative, char **names,
                       char **out, char **out_negative);

#endif
