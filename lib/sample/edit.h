/* SPDX-License-Identifier: MIT */
/* Prompt editing: [a:b:0.5], [a|b], and brackets that are something else.  One text is read once
 * and written for each step that is asked for. */
#ifndef SLR_SAMPLE_EDIT_H
#define SLR_SAMPLE_EDIT_H

#include "base/str.h"
#include "sample/script.h"

typedef struct slr_edit slr_edit;

/* text is borrowed, and valid UTF-8.  *work grows by what is looked at, here and below. */
int slr_edit_new(slr_edit **out, slr_mem *m, const char *text, size_t n, const slr_script_config *c,
                 size_t *work);
void slr_edit_free(slr_edit *e);
int slr_edit_steps(const slr_edit *e);           /* the last step; the first is 1 */
bool slr_edit_ends(const slr_edit *e, int step); /* whether the text may change behind a step */
void slr_edit_render(const slr_edit *e, int step, slr_buf *out, size_t *work);

#endif
