/* SPDX-License-Identifier: MIT */
/* The text side of a step: captions' ids through every text encoder of a model into what its UNet
 * takes. */
#ifndef SLR_TRAIN_TEXTGRAPH_H
#define SLR_TRAIN_TEXTGRAPH_H

#include "graph/exec.h"
#include "models/text.h"
#include "networks/words.h"

typedef struct slr_text_graph {
    const slr_family *family;
    const slr_text_shape *shape;
    const slr_adapter *adapter;              /* Nullable */
    slr_weights *weights[SLR_TEXT_ENCODERS]; /* of each encoder */
    int64_t n;                               /* captions */
    int n_chunks, clip_skip;
} slr_text_graph;

/* Vectors that stand for a caption: 77, 152 or 227. */
int64_t slr_text_tokens(int n_chunks);
/* states: [n,tokens,width]; pooled: [n,pooled] of the first chunks, SLR_NONE where the family has
 * none. */
void slr_text_graph_build(slr_graph *g, const slr_text_graph *t, slr_val *states, slr_val *pooled);

/* The inputs of such a graph, by encoder; NULL: it has none. */
typedef struct slr_text_io {
    int32_t *ids[SLR_TEXT_ENCODERS];    /* [n*n_chunks,77] */
    float *end;                         /* [n*n_chunks,77]: 1 where a text ends */
    float *put[SLR_TEXT_ENCODERS];      /* [n*n_chunks,77]: 1 where a row of an embedding stands */
    float *rows[SLR_TEXT_ENCODERS];     /* [n*n_chunks,77,width]: those rows */
    int32_t *splice[SLR_TEXT_ENCODERS]; /* which row of the embedding that is trained */
} slr_text_io;
slr_text_io slr_text_io_of(slr_plan *p);
/* From the ids of the first encoder, of `rows` rows, what all inputs hold.  words: Nullable. */
void slr_text_io_fill(const slr_text_io *io, const slr_words *words, const slr_family *family,
                      const slr_text_shape *shape, size_t rows);
/* What a plan holds under a name, or NULL. */
void *slr_train_held(slr_plan *p, const char *name);

#endif
