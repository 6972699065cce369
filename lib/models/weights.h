/* SPDX-License-Identifier: MIT */
/* Frozen weights by name: canonical name -> tensor view.  Canonical names are those of diffusers
 * for the UNet and VAE ("down_blocks.0.resnets.0.conv1.weight") and of Hugging Face CLIP for text
 * encoders
 * ("text_model.encoder.layers.0.mlp.fc1.weight"), without any prefix, one set per part.  Immutable
 * after it is filled; atomically refcounted; holds references to the storages under its tensors. */
#ifndef SLR_MODELS_WEIGHTS_H
#define SLR_MODELS_WEIGHTS_H

#include <stdbool.h>

#include "tensor/tensor.h"

typedef struct slr_weights slr_weights;

int slr_weights_new(slr_weights **out, slr_mem *m,
                    const char *label); /* label: file name for messages */
slr_weights *slr_weights_ref(slr_weights *w);
void slr_weights_unref(slr_weights *w);
/* Takes a reference to t->storage; gives the tensor an id if it has none.  Replaces an equal name.
 */
int slr_weights_put(slr_weights *w, const char *name, const slr_tensor *t);
const slr_tensor *slr_weights_find(const slr_weights *w,
                                   const char *name); /* NULL: absent (no error set) */
/* ENOTFOUND: "model.safetensors: unet has no tensor down_blocks.0..." */
int slr_weights_get(const slr_weights *w, const char *name, const slr_tensor **out);
size_t slr_weights_count(const slr_weights *w);
const char *slr_weights_at(const slr_weights *w, size_t i, const slr_tensor **t);
const char *slr_weights_label(const slr_weights *w);
slr_mem *slr_weights_mem(const slr_weights *w); /* that it was made with */
/* Whether any name starts with prefix. */
bool slr_weights_any(const slr_weights *w, const char *prefix);

#endif
