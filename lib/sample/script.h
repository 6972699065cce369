/* SPDX-License-Identifier: MIT */
/* Prompts as programs: comments, AND, and which text stands at which step.  Knows the grammar;
 * refuses to know tokens and models.  All of it takes time linear in what it reads and writes,
 * whatever the brackets. */
#ifndef SLR_SAMPLE_SCRIPT_H
#define SLR_SAMPLE_SCRIPT_H

#include <stdbool.h>

#include "base/map.h"
#include "base/mem.h"

/* A text that stands until, and with, evaluation `end` (evaluations are counted from 0, so the
 * first text of [a:b:5] serves 6). */
typedef struct slr_script_text {
    int end;
    const char *text; /* equal texts of a script are one */
} slr_script_text;

/* One prompt between two ANDs. */
typedef struct slr_script_part {
    double weight; /* 1 when none is written */
    slr_script_text *at;
    size_t n, cap; /* n >= 1; ends ascend */
} slr_script_part;

typedef struct slr_script {
    slr_mem *m;
    slr_script_part *part;
    size_t n, cap;  /* n >= 1 */
    slr_map *texts; /* owns them */
    size_t work;    /* tokens and bytes that were looked at: for tests */
} slr_script;

typedef struct slr_script_config {
    int steps;       /* evaluations of the first pass (second order samplers: twice the steps) */
    int hires_steps; /* > 0: this is the second pass, of so many evaluations */
    bool old;        /* scheduling of before 1.6.0 */
    bool compose;    /* AND splits (positive prompts); false: it is a word */
} slr_script_config;

/* Errors: EINVAL where the prompt is not UTF-8, or where its alternatives make too much text. */
int slr_script_new(slr_script *out, slr_mem *m, const char *prompt, const slr_script_config *c);
void slr_script_free(slr_script *s); /* zeros: nothing */
/* The text of a part at an evaluation. */
const char *slr_script_text_at(const slr_script_part *p, int evaluation);

/* The prompt without comments: lines that begin with # and what follows a # in others.  Caller
 * frees; NULL: no memory. */
char *slr_prompt_uncomment(slr_mem *m, const char *prompt);

#endif
