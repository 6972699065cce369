/* SPDX-License-Identifier: MIT */
/* Text states of captions when the text encoder is not trained: one graph, results kept by string.
 */
#ifndef SLR_TRAIN_TEXT_H
#define SLR_TRAIN_TEXT_H

#include "backend/registry.h"
#include "base/options.h"
#include "base/thread.h"
#include "models/clip.h"
#include "networks/network.h"
#include "networks/words.h"

/* States kept before all are dropped: shuffled captions are new each time. */
#define SLR_TEXT_KEPT_BYTES ((size_t)256 << 20)

typedef struct slr_text slr_text;

typedef struct slr_text_config {
    slr_mem *mem;
    slr_checkpoint *base;
    slr_network *network;   /* at full strength; Nullable */
    slr_stack *stack;       /* instead of network; Nullable */
    const slr_words *words; /* embeddings that captions may name, the network's too; Nullable */
    slr_devices *devices;
    slr_policy policy; /* zeros: f32 */
    const slr_bpe *bpe;
    int n_chunks, clip_skip;
} slr_text_config;

/* The option max_token_length, 75 when it is not set, as chunks of 75 tokens. */
int slr_text_chunks(slr_opt o, int *n_chunks);
int slr_text_new(slr_text **out, const slr_text_config *config);
void slr_text_free(slr_text *t);
/* [tokens,width] of a caption.  Lifetime: until the next call for t. */
int slr_text_states(slr_text *t, const char *caption, const slr_cancel_flag *cancel,
                    const float **states);
/* Drops what was kept: the network has changed. */
void slr_text_forget(slr_text *t);
size_t slr_text_floats(const slr_text *t); /* tokens * width */

#endif
