/* SPDX-License-Identifier: MIT */
/* What prompts become for a model's UNet: text states and pooled states, kept by string.  One
 * thread at a time. */
#ifndef SLR_SAMPLE_CONDS_H
#define SLR_SAMPLE_CONDS_H

#include "models/text.h"
#include "sample/engine.h"
#include "sample/prompt.h"

typedef struct slr_conds slr_conds;

/* engine is borrowed, and its model is the one that encodes. */
int slr_conds_new(slr_conds **out, slr_mem *m, slr_engine *engine, slr_bpe *bpe);
void slr_conds_free(slr_conds *c); /* NULL: nothing */
/* Gives back what is kept. */
void slr_conds_rest(slr_conds *c);

/* Embeddings whose names prompts may use from now on; of two with one name the later one.  Old
 * states make room here and nowhere else, so every pass begins with it. */
int slr_conds_set_embeddings(slr_conds *c, slr_network *const *embeddings, size_t n);

/* How texts are read. */
typedef struct slr_cond_config {
    int clip_skip; /* 0 and 1: none; slr_text_build() */
    int emphasis;  /* SLR_EMPHASIS_* */
    int backtrack; /* tokens that a comma may stand before a chunk's end; 0: off; -1: 20 */
    bool zero;     /* an empty text gives zeros where the family says so (negative prompts) */
} slr_cond_config;

/* Lifetime: until other networks, embeddings or precisions are set, or the next
 * slr_conds_set_embeddings() after 256 more prompts. */
typedef struct slr_cond {
    const float *states; /* [tokens,width] */
    const float *pooled; /* [pooled]; NULL: the family has none */
    int64_t tokens;      /* 77 for each chunk */
} slr_cond;

/* All texts of one prompt's schedule, which are encoded as one batch: equal numbers of chunks, and
 * one mean for emphasis "Original".  out: n of them. */
int slr_conds_get(slr_conds *c, const char *const *text, size_t n, const slr_cond_config *config,
                  const slr_cancel_flag *cancel, slr_cond *out);
/* Which embeddings a text uses, by number, in the order of first use.  Caller frees. */
int slr_conds_uses(slr_conds *c, const char *text, const slr_cond_config *config, size_t **list,
                   size_t *n);
const slr_text_shape *slr_conds_shape(const slr_conds *c);

#endif
