/* SPDX-License-Identifier: MIT */
/**
 * @file sdlora/checkpoint.h
 * Model files: checkpoints and VAEs, opened for use; and a quick look at any file.
 *
 * Formats: single LDM `.safetensors`; torch-zip and legacy `.ckpt`/`.pt` (read by a machine that
 * never runs code); diffusers folders.  Weights stay in the mapped file until a kernel packs them:
 * a file that another process truncates meanwhile ends the process (SIGBUS), as with any mapping.
 * Return, out, text and thread rules: see sdlora/context.h.
 */
#ifndef SDLORA_CHECKPOINT_H
#define SDLORA_CHECKPOINT_H

#include <sdlora/types.h>

SDLORA_BEGIN_DECLS

/**
 * Opens a model.
 * @param path  a file, or a diffusers folder.  "synthetic:sd15" makes random weights of SD1.5's
 * shape (for benchmarks; no file is read); so do sd21 and sdxl, and in small tiny, tiny-sd2,
 * tiny-sdxl, tiny-refiner and tiny-inpaint.
 * @param opts  Nullable.  Kind "checkpoint": use_ema, prediction_type, ztsnr.
 * A file that is open already in this context, unchanged and with the same options, is not read
 * again: the new handle shares its weights and what kernels have packed of them.
 * Errors: SDLORA_EFORMAT names file and tensor; SDLORA_ENOTSUP for a family not supported.
 */
SDLORA_API int sdlora_checkpoint_open(sdlora_checkpoint **out, sdlora_context *ctx,
                                      const char *path, const sdlora_options *opts);
SDLORA_API sdlora_checkpoint *sdlora_checkpoint_ref(sdlora_checkpoint *ckpt);
SDLORA_API void sdlora_checkpoint_unref(sdlora_checkpoint *ckpt);

/** "sd1", "sd2", "sdxl", "sdxl-refiner". */
SDLORA_API const char *sdlora_checkpoint_family(const sdlora_checkpoint *ckpt);
/** "ldm", "diffusers" ...: how the file was laid out. */
SDLORA_API const char *sdlora_checkpoint_layout(const sdlora_checkpoint *ckpt);
SDLORA_API const char *sdlora_checkpoint_path(const sdlora_checkpoint *ckpt);

/** Opens a separate VAE file, to be used in place of the checkpoint's own. */
SDLORA_API int sdlora_vae_open(sdlora_vae **out, sdlora_context *ctx, const char *path);
SDLORA_API sdlora_vae *sdlora_vae_ref(sdlora_vae *vae);
SDLORA_API void sdlora_vae_unref(sdlora_vae *vae);

/**
 * The token ids of a text, without begin, end and padding.
 * @param ids  receives at most `cap` ids.  Nullable when cap is 0.
 * @param n    receives how many there are in all.
 */
SDLORA_API int sdlora_tokenize(sdlora_context *ctx, const char *text, int32_t *ids, size_t cap,
                               size_t *n);

/**
 * What a file is, as JSON text, read from its header alone: kind, family, tensors by dtype,
 * parameter counts, metadata, and for networks rank, alpha, modules and trigger words.
 * @param hashes  non-zero: also sha256, AutoV2, legacy and tensor-data hashes (reads all of the
 * file).
 * @param json    receives text to be given back with sdlora_text_free().
 */
SDLORA_API int sdlora_file_info(sdlora_context *ctx, const char *path, int hashes, char **json);
SDLORA_API void sdlora_text_free(sdlora_context *ctx, char *text);

SDLORA_END_DECLS
#endif /* SDLORA_CHECKPOINT_H */
