/* SPDX-License-Identifier: MIT */
/* AUTOMATIC1111's `parameters` text (inference.md §5.2, §5.3). */
#ifndef SLR_SAMPLE_INFOTEXT_H
#define SLR_SAMPLE_INFOTEXT_H

#include "base/str.h"

typedef struct slr_infotext {
    slr_buf text;
    int n_items;
} slr_infotext;

/* Starts with the prompts; a negative prompt that is empty is left out. */
void slr_infotext_init(slr_infotext *t, slr_mem *m, const char *prompt, const char *negative);
/* ", key: value", the value quoted as JSON when it holds a comma, colon or line break.  NULL:
 * nothing. */
void slr_infotext_add(slr_infotext *t, const char *key, const char *value);
void slr_infotext_int(slr_infotext *t, const char *key, int64_t value);
/* Whole numbers without a decimal point. */
void slr_infotext_real(slr_infotext *t, const char *key, double value);
/* The text becomes the caller's; NULL (ENOMEM) when memory ran out. */
char *slr_infotext_take(slr_infotext *t);

#endif
