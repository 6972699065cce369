/* SPDX-License-Identifier: MIT */
/* The CLIP text encoder as a graph. */
#ifndef SLR_MODELS_CLIP_H
#define SLR_MODELS_CLIP_H

#include "models/bpe.h"
#include "models/family.h"
#include "models/nn.h"

typedef struct slr_clip_shape {
    int64_t width, layers, heads, positions, vocab;
} slr_clip_shape;
int slr_clip_read(slr_clip_shape *out, const slr_family *family, const slr_weights *te);

/* ids [B,77] i32 -> states [B,77,width] of the encoder that nn->part says.  clip_skip 1: the last
 * layer's output; n > 1: hidden_states[-n], both behind the final layer norm where the family has
 * it there.  Families whose states are those of a fixed layer ignore it; -n moves them too, save
 * those of an encoder that gives a pooled state. */
slr_val slr_clip_build(slr_nn *nn, const slr_family *family, slr_val ids, int clip_skip);
/* The same with the pooled state [B,pooled] of the place that `end` [B,1,77] f32 marks in each row;
 * SLR_NONE where the family's encoder gives none. */
slr_val slr_clip_build_pooled(slr_nn *nn, const slr_family *family, slr_val ids, int clip_skip,
                              slr_val end, slr_val *pooled);
/* All layers of an encoder, those too that its states do not need. */
int slr_clip_layers(const slr_family *family, const slr_weights *te, slr_layer_fn fn, void *user);

/* kohya's training chunking: max_token_length 75 (one chunk of 77), 150 or 225. ids receives
 * [n_chunks,77]; n_chunks is 1, 2 or 3. */
int slr_clip_caption_ids(slr_mem *m, const slr_bpe *bpe, const slr_family *family,
                         const char *caption, int n_chunks, int32_t *ids);
/* The same of n tokens. */
int slr_clip_rows(const slr_family *family, const int32_t *token, size_t n, int n_chunks,
                  int32_t *ids);
/* States of n_chunks chunks [B*n_chunks,77,width] -> [B,75*n_chunks+2,width] by kohya's rule (BOS
 * of the first, 75 of each, EOS of the last); n_chunks 1: as they are. */
slr_val slr_clip_join(slr_graph *g, slr_val states, int n_chunks);

#endif
