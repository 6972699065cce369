/* SPDX-License-Identifier: MIT */
/* Text states of captions when no text encoder is trained: one graph, results kept by string, on
 * request in files beside the pictures. */
#ifndef SLR_TRAIN_CAPTIONS_H
#define SLR_TRAIN_CAPTIONS_H

#include "backend/registry.h"
#include "base/options.h"
#include "base/thread.h"
#include "data/dataset.h"
#include "models/text.h"
#include "networks/network.h"
#include "networks/words.h"
#include "train/step.h"

/* States kept before all are dropped: shuffled captions are new each time. */
#define SLR_CAPTIONS_KEPT_BYTES ((size_t)256 << 20)

typedef struct slr_captions slr_captions;

typedef struct slr_captions_config {
    slr_mem *mem;
    slr_log log;
    slr_checkpoint *base;
    slr_network *network;   /* at full strength; Nullable */
    slr_stack *stack;       /* instead of network; Nullable */
    const slr_words *words; /* embeddings that captions may name, the network's too; Nullable */
    slr_devices *devices;
    slr_policy policy; /* zeros: f32 */
    const slr_bpe *bpe;
    int n_chunks, clip_skip;
    bool later; /* the encoders are made ready when the first caption comes, not before */
} slr_captions_config;

/* States of one caption. */
typedef struct slr_caption_states {
    const float *states; /* [tokens,width] */
    const float *pooled; /* [pooled]; NULL: the family has none */
} slr_caption_states;

/* The option max_token_length, 75 when it is not set, as chunks of 75 tokens. */
int slr_captions_chunks(slr_opt o, int *n_chunks);
int slr_captions_new(slr_captions **out, const slr_captions_config *config);
void slr_captions_free(slr_captions *t);
/* Lifetime: until the next call for t. */
int slr_captions_get(slr_captions *t, const char *caption, const slr_cancel_flag *cancel,
                     slr_caption_states *out);
/* The same into row i of a step whose states are inputs. */
int slr_captions_put(slr_captions *t, const char *caption, const slr_cancel_flag *cancel,
                     const slr_step_io *io, int64_t i);
/* Keeps the states of a caption whatever room they take.  item: the picture beside which a file is
 * looked for and made; NULL: memory alone. */
int slr_captions_keep(slr_captions *t, const char *caption, const slr_item *item,
                      const slr_cancel_flag *cancel);
/* All captions are kept: the encoders are given back, and others are refused from now on. */
void slr_captions_close(slr_captions *t);
/* Drops what was kept: the network has changed.  Nothing after slr_captions_close(). */
void slr_captions_forget(slr_captions *t);
/* The same, and captions are encoded again even after slr_captions_close(): whether it was called.
 */
bool slr_captions_reopen(slr_captions *t);
/* Of one caption: tokens * width + pooled. */
size_t slr_captions_floats(const slr_captions *t);

#endif
