/* SPDX-License-Identifier: MIT */
/* Embeddings (textual inversion): rows that stand in a text encoder's input where a name stands in
 * a text.  An embedding is a network of one module, so that trainer, optimiser and state files need
 * not know of it; it is used by name (words.h) and not as a layer of a stack. */
#ifndef SLR_NETWORKS_EMBEDDING_H
#define SLR_NETWORKS_EMBEDDING_H

#include "base/str.h"
#include "networks/netfile.h"
#include "networks/network.h"

#define SLR_EMBEDDING_PATH "token_embedding" /* of its module */

enum { SLR_EMBEDDING_MOST = 75 }; /* vectors: the tokens of a chunk */

/* A module for each text encoder that it has rows for: one, or SDXL's two. */
bool slr_network_is_embedding(const slr_network *n);
/* [vectors,width] of its first encoder; NULL when it is none. */
const float *slr_embedding_rows(const slr_network *n, int64_t *vectors, int64_t *width);
/* The same for an encoder, SLR_PART_TE or SLR_PART_TE2; NULL: it has none for it. */
const float *slr_embedding_rows_of(const slr_network *n, int part, int64_t *vectors,
                                   int64_t *width);

/* A file: torch, safetensors, or a picture that carries one.  SDLORA_DONE when it is something
 * else; EFORMAT or EINVAL names what does not fit. */
int slr_embedding_open(slr_network **out, slr_mem *m, const slr_checkpoint *base, const char *path);
/* Pictures that may carry an embedding, by their ending; previews do not. */
bool slr_embedding_is_card(const char *path);

/* Whether the "network" options ask for a new embedding (token_string, or network_module
 * textual_inversion). */
bool slr_embedding_wanted(slr_opt o);
/* A new one, named by token_string, of init_word's rows again and again, or random; with rows for
 * each text encoder. */
int slr_embedding_make(slr_network **out, const slr_checkpoint *base, const sdlora_options *opts,
                       uint64_t seed);

/* emb_params in safetensors, or clip_l and clip_g of a pair; when path ends in ".pt" or ".bin" what
 * AUTOMATIC1111 writes, or of a pair what kohya's script does. */
int slr_embedding_save(const slr_network *n, const char *path, uint32_t save_dtype,
                       const slr_meta *meta);

/* --- embeddings that travel in a LoRA's file ("bundle_emb.<name>.<tensor>") --- */
size_t slr_network_bundled(const slr_network *n);
slr_network *slr_network_bundle_at(const slr_network *n, size_t i); /* borrowed */

/* --- inside the room --- */

/* One tensor of a file. */
typedef struct slr_named {
    const char *key;
    slr_tensor t;
} slr_named;

/* An embedding of a file's tensors; SDLORA_DONE when they are none.  path Nullable. */
int slr_embedding_of(slr_network **out, slr_mem *m, const slr_checkpoint *base,
                     const slr_named *tensor, size_t n, const char *label, slr_str name,
                     const char *path);
/* A picture; SDLORA_DONE when it carries none. */
int slr_embedding_card(slr_network **out, slr_mem *m, const slr_checkpoint *base, const char *path);
/* Adds the bundled embeddings of a file's tensors to n. */
int slr_network_take_bundle(slr_network *n, const slr_checkpoint *base, const slr_named *tensor,
                            size_t count, const char *label);

#endif
