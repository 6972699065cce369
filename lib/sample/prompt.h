/* SPDX-License-Identifier: MIT */
/* Prompts as AUTOMATIC1111 reads them: <lora:..> tags, emphasis, 75-token chunks; and what weights
 * do to text states. */
#ifndef SLR_SAMPLE_PROMPT_H
#define SLR_SAMPLE_PROMPT_H

#include "backend/registry.h"
#include "models/bpe.h"
#include "models/clip.h"
#include "networks/network.h"
#include "networks/words.h"

/* A <kind:args> tag cut out of the prompt. */
typedef struct slr_prompt_tag {
    char *kind, *name; /* "lora" */
    double te, unet;
    int dyn;           /* rank limit, 0: none */
    slr_blocks blocks; /* lbw=1,0,...; n 0: none */
    char *bad;         /* text that is no number: the tag is to be skipped; NULL otherwise */
} slr_prompt_tag;
/* The text without tags, and the tags in order. */
typedef struct slr_prompt_tags {
    slr_mem *m;
    char *text;
    slr_prompt_tag *tag;
    size_t n, cap;
    size_t work; /* bytes looked at: for tests */
} slr_prompt_tags;
int slr_prompt_cut_tags(slr_prompt_tags *out, slr_mem *m, const char *prompt);
void slr_prompt_tags_free(slr_prompt_tags *t);

/* Emphasis: (text, weight) pairs; weight -1 with text "BREAK" is the break. */
typedef struct slr_fragment {
    char *text;
    double weight;
} slr_fragment;
int slr_prompt_emphasis(slr_mem *m, const char *prompt, slr_fragment **out, size_t *n,
                        size_t *work); /* Nullable: what was looked at, for tests */
void slr_fragments_free(slr_mem *m, slr_fragment *f, size_t n);

/* 77-token chunks with a weight per token. */
typedef struct slr_chunks {
    slr_mem *m;
    size_t n;       /* chunks, >= 1 */
    int32_t *ids;   /* [n,77]; from SLR_WORDS_FIRST on: rows of embeddings */
    float *weights; /* [n,77] */
} slr_chunks;
enum { SLR_EMPHASIS_ORIGINAL = 0, SLR_EMPHASIS_NO_NORM, SLR_EMPHASIS_IGNORE, SLR_EMPHASIS_NONE };
typedef struct slr_chunk_config {
    int emphasis;  /* SLR_EMPHASIS_*: with NONE brackets are text */
    int backtrack; /* tokens that a comma may stand before a chunk's end to end it; 0: off */
} slr_chunk_config;
enum { SLR_BACKTRACK = 20 };
/* words Nullable: names that become rows of embeddings. */
int slr_prompt_chunks_by(slr_chunks *out, slr_mem *m, const slr_bpe *bpe, const slr_words *words,
                         const slr_family *family, const char *prompt,
                         const slr_chunk_config *config);
/* The same in mode Original with a backtrack of 20. */
int slr_prompt_chunks(slr_chunks *out, slr_mem *m, const slr_bpe *bpe, const slr_words *words,
                      const slr_family *family, const char *prompt);
void slr_chunks_free(slr_chunks *c);
/* Adds empty chunks until there are n. */
int slr_chunks_extend(slr_chunks *c, const slr_family *family, size_t n);

#endif
