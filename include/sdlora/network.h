/* SPDX-License-Identifier: MIT */
/**
 * @file sdlora/network.h
 * Networks that adapt a frozen checkpoint: made for training, or opened from a file.
 *
 * Files of every dialect are read: kohya's (`lora_unet_...lora_down.weight`), LyCORIS', diffusers' of
 * all ages, PEFT's adapters, OneTrainer's, ComfyUI's. Thread: one thread at a time while a network is trained; otherwise it does not change.
 * Return, out and text rules: see sdlora/context.h.
 */
#ifndef SDLORA_NETWORK_H
#define SDLORA_NETWORK_H

#include <sdlora/types.h>

SDLORA_BEGIN_DECLS

/**
 * A new network for a checkpoint; a no-op until it is trained (lora_up is zero).
 * @param opts  Nullable.  Kind "network": network_dim, network_alpha, conv_dim, conv_alpha ...
 * @param seed  of the initial weights.
 */
SDLORA_API int sdlora_network_new(sdlora_network **out, sdlora_checkpoint *ckpt,
                                  const sdlora_options *opts, uint64_t seed);

/**
 * Opens a network file for a checkpoint.  Every module is checked before anything else happens.
 * An embedding (textual inversion) is a network too: generators and sdlora_evaluate() use it where
 * its name stands in a text.
 * Errors: SDLORA_EFORMAT or SDLORA_EINVAL names the file and the first key that does not fit.
 */
SDLORA_API int sdlora_network_open(sdlora_network **out, sdlora_checkpoint *ckpt, const char *path);
/**
 * The same with a say on keys that match no layer of the checkpoint or belong to no known kind.
 * @param opts  Nullable.  Kind "network": lora_unmatched is "refuse" (default) or "skip", which
 *              loads the rest as long as there is any; what is broken is refused either way.
 */
SDLORA_API int sdlora_network_open_with(sdlora_network **out, sdlora_checkpoint *ckpt,
                                        const char *path, const sdlora_options *opts);
/** How many keys of the file were skipped, and the i-th of them, or NULL.  Lifetime: the network's.
 */
SDLORA_API size_t sdlora_network_skipped(const sdlora_network *net);
SDLORA_API const char *sdlora_network_skipped_key(const sdlora_network *net, size_t i);
SDLORA_API sdlora_network *sdlora_network_ref(sdlora_network *net);
SDLORA_API void sdlora_network_unref(sdlora_network *net);

/** The file's stem, or "" for a network made here. */
SDLORA_API const char *sdlora_network_name(const sdlora_network *net);
SDLORA_API size_t sdlora_network_modules(const sdlora_network *net);
/** A metadata value ("ss_network_dim"), or NULL. */
SDLORA_API const char *sdlora_network_metadata(const sdlora_network *net, const char *key);

/**
 * Saves the network under `path`, whole or not at all.
 * @param precision  Nullable: "float" (default), "fp16" or "bf16".
 * Errors: SDLORA_ENAN when a weight is not finite: nothing is written.
 */
SDLORA_API int sdlora_network_save(sdlora_network *net, const char *path, const char *precision);

/**
 * The same as other programs name their tensors; metadata is kept.
 * @param dialect  Nullable: "kohya".  One of sdlora_dialect_name(): "diffusers" has alphas in its
 *                 metadata (diffusers 0.34 and later read them), "diffusers-folded" in the weights;
 *                 "peft" writes FOLDER/adapter_model.safetensors with its adapter_config.json.
 * Errors: SDLORA_ENOTSUP names the first module that the dialect can't hold.
 */
SDLORA_API int sdlora_network_save_as(sdlora_network *net, const char *path, const char *precision,
                                      const char *dialect);
/** The i-th dialect that can be written, or NULL. */
SDLORA_API const char *sdlora_dialect_name(size_t i);

/**
 * Merges networks into a checkpoint's weights in memory; the original is untouched, so dropping
 * `out` removes them exactly.
 * @param te, unet  one strength per network for the text encoder and the UNet.
 */
SDLORA_API int sdlora_checkpoint_merge(sdlora_checkpoint **out, sdlora_checkpoint *ckpt,
                                       sdlora_network *const *nets, const double *te,
                                       const double *unet, size_t n);

SDLORA_END_DECLS
#endif /* SDLORA_NETWORK_H */
