/* SPDX-License-Identifier: MIT */
/* Names of embeddings in texts, found by their tokens as AUTOMATIC1111 finds them, and the nodes
 * that put their rows into a text encoder.  A name becomes ids of its own, one for each row, which
 * no tokenizer gives; so they can be cut into chunks like any others. */
#ifndef SLR_NETWORKS_WORDS_H
#define SLR_NETWORKS_WORDS_H

#include "models/bpe.h"
#include "networks/network.h"

enum { SLR_WORDS_FIRST = 1 << 20 }; /* ids from here on are rows of embeddings */

typedef struct slr_words slr_words;

/* bpe is borrowed. */
int slr_words_new(slr_words **out, slr_mem *m, const slr_bpe *bpe);
void slr_words_free(slr_words *w);
/* Takes a reference.  An embedding of the same name gives way.  "embedding:NAME" is found too. */
int slr_words_add(slr_words *w, slr_network *embedding);
size_t slr_words_count(const slr_words *w);              /* w Nullable in all that follow */
slr_network *slr_words_at(const slr_words *w, size_t i); /* borrowed; in the order they came */

/* Ids of a text, names turned into rows: the longest name at each place.  Caller frees. */
int slr_words_encode(const slr_words *w, const slr_bpe *bpe, slr_mem *m, const char *text, size_t n,
                     int32_t **ids, size_t *count);
/* kohya's rows of 77 for a caption: slr_clip_caption_ids() with names. */
int slr_words_caption(const slr_words *w, const slr_bpe *bpe, slr_mem *m, const slr_family *family,
                      const char *caption, int n_chunks, int32_t *ids);
/* How many rows begin at an id: 0 for a token, and for a row that is not its embedding's first. */
int64_t slr_words_span(const slr_words *w, int32_t id);
/* The embeddings that ids use in the order of first use, each once, by slr_words_at()'s number:
 * how many.  list has room for slr_words_count(). */
size_t slr_words_used(const slr_words *w, const int32_t *ids, size_t n, size_t *list);
/* Whether any id is a row. */
bool slr_words_any(const int32_t *ids, size_t n);

/* Splits ids into what the graph of a text encoder (SLR_PART_*) takes: rows become id 0, put[i] is
 * 1 where one stands and 0 elsewhere.  rows: [n,width], the values; index: [n], which row of the
 * only embedding (0 where there is none).  Both Nullable. */
void slr_words_split(const slr_words *w, int part, int32_t *ids, size_t n, float *put, float *rows,
                     int64_t width, int32_t *index);

/* A slr_adapter.tokens for rows that are inputs: "put" f32 [N,T,1] and "rows" f32 [N,T,width]. */
slr_val slr_words_tokens(void *user, slr_graph *g, int part, slr_val ids, slr_val x);
/* x where the input "put" (made here) is 0, rows where it is 1, exactly. */
slr_val slr_words_put(slr_graph *g, slr_val x, slr_val rows);

#endif
