/* SPDX-License-Identifier: MIT */
/**
 * @file sdlora/tools.h
 * Tools on whole files: convert, prune, hash, check, metadata.
 *
 * Files are read and written piece by piece, so memory does not grow with them.  What is written
 * appears whole or not at all, and may take the place of the file that is read.  A full disk is
 * SDLORA_EIO before the work where the file system can tell, and the old file stays.
 * JSON text is to be given back with sdlora_text_free().
 * progress is Nullable and called with phase "write", "verify", "hash" or "check", phase_done and
 * phase_total in bytes; SDLORA_ECANCELED when it asked for it, and nothing was changed.
 * Return, out and text rules: see sdlora/context.h.
 */
#ifndef SDLORA_TOOLS_H
#define SDLORA_TOOLS_H

#include <sdlora/trainer.h>
#include <sdlora/types.h>

SDLORA_BEGIN_DECLS

/**
 * Writes a model or a network as another file: container (`.ckpt`, `.pt`, `.bin` to `.safetensors`), layout,
 * type of numbers, averaged weights in place of the plain ones, another autoencoder.
 * @param in    a file of any format, or a diffusers folder.
 * @param out   a .safetensors file; with layout=diffusers a folder that does not exist yet.
 * @param opts  Nullable.  Kind "convert": layout, save_precision, vae_precision, ema, extras, vae,
 * verify; with dialect the file is a network and gets the names of that dialect (see
 * sdlora_network_save_as(); lora_unmatched, base_model), and json has "dialect", "modules",
 * "skipped".
 * @param json  Nullable.  "bytes_in", "bytes_out", "tensors", "layout", "family"; "dropped": what
 * was left out, by kind, with the first names; "averages_used"; "overflows": values that the
 * smaller type can't hold; "verified". Errors: SDLORA_ENOTFOUND with ema=use when the file has no
 * averages; SDLORA_ENOTSUP for another layout of a file that is no Stable Diffusion model.
 */
SDLORA_API int sdlora_file_convert(sdlora_context *ctx, const char *in, const char *out,
                                   const sdlora_options *opts, sdlora_progress_fn progress,
                                   void *user, char **json);

/**
 * The same with the defaults of a smaller file: averaged weights, noise schedules and states of
 * training go; text encoder, autoencoder, UNet, their buffers and the markers of v-prediction stay.
 * @param opts  Nullable.  Kind "prune": as "convert" without layout.
 */
SDLORA_API int sdlora_file_prune(sdlora_context *ctx, const char *in, const char *out,
                                 const sdlora_options *opts, sdlora_progress_fn progress,
                                 void *user, char **json);

/**
 * The digests that sites and programs know a file by, as JSON: "sha256", "autov2" (its first 10
 * digits), "legacy" (8 digits of 64 KiB at 1 MiB); of safetensors files "tensors" and "autov3" (12
 * digits of it); of networks kohya's "sshs_model_hash" and "sshs_legacy_hash", computed anew.
 */
SDLORA_API int sdlora_file_hash(sdlora_context *ctx, const char *path, sdlora_progress_fn progress,
                                void *user, char **json);

/**
 * Looks at every value.  JSON: "ok"; "all", and each of "blocks": tensors, parameters, norm, mean,
 * min and max of magnitudes, nan, inf; "not_finite" and "zero": tensors; "modules", "n_dead" and
 * "dead": modules of a network that change nothing, since a factor of theirs is all zero.  ok is
 * false when a value is not finite or every module is dead.
 * @param each  non-zero: a row for every tensor too.
 */
SDLORA_API int sdlora_file_check(sdlora_context *ctx, const char *path, int each,
                                 sdlora_progress_fn progress, void *user, char **json);

/**
 * The metadata of a safetensors file.
 * @param key   Nullable: JSON of all of it: "metadata"; "training": settings under readable names;
 * "folders"; "tags": counts over all folders, most first.  Else the value of that key as it stands.
 * Errors: SDLORA_ENOTFOUND for a key that is not there.
 */
SDLORA_API int sdlora_metadata_get(sdlora_context *ctx, const char *path, const char *key,
                                   char **text);

/**
 * Sets or removes metadata; tensors are copied as they lie, and keys not named stay.
 * @param out     Nullable: `path` itself.
 * @param values  of the n keys; NULL removes one.
 * Where the file has sshs_legacy_hash and an ss_* key changes, that hash follows as kohya computes
 * it. Errors: SDLORA_EINVAL when the header would pass the format's 100 MB, or a text is not UTF-8.
 */
SDLORA_API int sdlora_metadata_set(sdlora_context *ctx, const char *path, const char *out,
                                   const char *const *keys, const char *const *values, size_t n,
                                   sdlora_progress_fn progress, void *user);

/**
 * Copies metadata from one file to another; keys that only the other has stay, and so do the hashes
 * of its tensors (sshs_*).
 * @param prefix  Nullable: all keys.  Else those that begin so.
 * @param out     Nullable: `path` itself.
 */
SDLORA_API int sdlora_metadata_copy(sdlora_context *ctx, const char *from, const char *path,
                                    const char *out, const char *prefix,
                                    sdlora_progress_fn progress, void *user);

SDLORA_END_DECLS
#endif /* SDLORA_TOOLS_H */
