/* SPDX-License-Identifier: MIT */
/* A picture's parameters text with what AUTOMATIC1111's X/Y/Z script adds of its axes. */
#ifndef SLR_API_GRID_TEXT_H
#define SLR_API_GRID_TEXT_H

#include "api/grid_values.h"

typedef struct slr_grid_words {
    char letter; /* 'X' */
    const char *type, *values;
    const slr_grid_values *fixed; /* Nullable: seeds that were drawn or given */
} slr_grid_words;

/* Caller frees *out. */
int slr_grid_text(char **out, slr_mem *m, const char *text, const slr_grid_words *words, size_t n);

#endif
