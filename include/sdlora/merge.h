/* SPDX-License-Identifier: MIT */
/**
 * @file sdlora/merge.h
 * Networks made of networks and of checkpoints: resize, merge, extract; and networks put into a
 * checkpoint's file for good.
 *
 * What comes out is an ordinary network, with the metadata that sd-scripts' tools write; save it
 * with sdlora_network_save().
 * progress is Nullable and called between layers with phase "resize", "merge", "compare" or
 * "extract"; SDLORA_ECANCELED when it asked for it.
 * The same bytes come out whatever the number of threads.
 * Return, out, text and thread rules: see sdlora/context.h.
 */
#ifndef SDLORA_MERGE_H
#define SDLORA_MERGE_H

#include <sdlora/trainer.h>
#include <sdlora/types.h>

SDLORA_BEGIN_DECLS

/**
 * A checkpoint without weights for a network file: it has the layers of the architecture that the
 * file was made for.  Enough to open networks, resize, merge and save them; not to run a model, nor
 * for networks whose change depends on weights (DoRA, OFT, (IA)^3 ...).
 * Errors: SDLORA_EFORMAT when the file fits none of the architectures that are known by name.
 */
SDLORA_API int sdlora_checkpoint_for_network(sdlora_checkpoint **out, sdlora_context *ctx,
                                             const char *network);

/**
 * The same network with fewer ranks: each layer's best approximation.  LoHa, LoKr and other kinds
 * become LoRA; whole layers and norms stay as they are.
 * @param opts  Nullable.  Kind "resize": new_rank, new_conv_rank, dynamic_method, dynamic_param,
 * verbose (a log line for each layer).
 * Errors: SDLORA_ENOTSUP for DoRA.
 */
SDLORA_API int sdlora_network_resize(sdlora_network **out, sdlora_network *net,
                                     const sdlora_options *opts, sdlora_progress_fn progress,
                                     void *user);

/**
 * Many networks as one.  All were opened with checkpoints of one family; the first one's counts.
 * @param te, unet  one strength per network for the text encoder and the UNet.
 * @param opts  Nullable.  Kind "merge": method, new_rank, new_conv_rank, lbws ...  By default the
 * result does exactly what the networks do together.
 * Errors: SDLORA_EINVAL names the file and layer of a network that the method cannot take.
 */
SDLORA_API int sdlora_network_merge(sdlora_network **out, sdlora_network *const *nets,
                                    const double *te, const double *unet, size_t n,
                                    const sdlora_options *opts, sdlora_progress_fn progress,
                                    void *user);

/**
 * What training changed between two checkpoints, as a network for `base`.
 * @param opts  Nullable.  Kind "extract": mode, dim, conv_dim, min_diff ...
 * Errors: SDLORA_EINVAL when the checkpoints differ in architecture.
 */
SDLORA_API int sdlora_network_extract(sdlora_network **out, sdlora_checkpoint *tuned,
                                      sdlora_checkpoint *base, const sdlora_options *opts,
                                      sdlora_progress_fn progress, void *user);

/**
 * Writes a checkpoint's file once more with networks in it for good, as sdlora_checkpoint_merge()
 * has it in memory: sums in f32, rounded once.  Read and written piece by piece, so memory does not
 * grow with the file; the result appears whole or not at all.
 * @param ckpt  opened from one file; a folder has to be converted first.
 * @param vae   Nullable: takes the place of the checkpoint's own.
 * @param path  a .safetensors file; names and layout are those of the checkpoint's file.
 * @param opts  Nullable.  Kind "merge": save_precision, metadata_title, no_metadata.
 * @param progress  Nullable.  Phase "write", between tensors.
 */
SDLORA_API int sdlora_checkpoint_merge_file(sdlora_checkpoint *ckpt, sdlora_vae *vae,
                                            sdlora_network *const *nets, const double *te,
                                            const double *unet, size_t n, const char *path,
                                            const sdlora_options *opts, sdlora_progress_fn progress,
                                            void *user);

SDLORA_END_DECLS
#endif /* SDLORA_MERGE_H */
