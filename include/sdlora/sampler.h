/* SPDX-License-Identifier: MIT */
/**
 * @file sdlora/sampler.h
 * Pictures from prompts.  A generator keeps text states by string and graphs by shape, so
 * the next picture pays only for its steps.
 *
 * Thread: one thread at a time per generator; generators may share a checkpoint.
 * Return, out and text rules: see sdlora/context.h.
 */
#ifndef SDLORA_SAMPLER_H
#define SDLORA_SAMPLER_H

#include <sdlora/image.h>
#include <sdlora/trainer.h>
#include <sdlora/types.h>

SDLORA_BEGIN_DECLS

/** @param vae  Nullable: the one inside the checkpoint. */
SDLORA_API int sdlora_generator_new(sdlora_generator **out, sdlora_checkpoint *ckpt,
                                    sdlora_vae *vae);
SDLORA_API sdlora_generator *sdlora_generator_ref(sdlora_generator *g);
SDLORA_API void sdlora_generator_unref(sdlora_generator *g);

/**
 * Adds a directory, with those below it, that <lora:name> and <hypernet:name> tags are looked up
 * in: by file stem, then by ss_output_name (a hypernetwork by "name(hash)"), in the order in which
 * directories were added.  What was found stays open.
 */
SDLORA_API int sdlora_generator_add_lora_dir(sdlora_generator *g, const char *dir);

/**
 * Adds an embedding file (textual inversion: .safetensors, .pt, .bin, or a .png or .webp card), or
 * all of a directory and those below it.  Prompts and negative prompts use them by name, which is
 * the file's stem or, of a card, the name inside; "embedding:name" is read too.  The files are read
 * now; of two with one name the later one counts.
 * Errors: SDLORA_EINVAL or SDLORA_EFORMAT when a file does not fit; one in a directory is skipped
 * with a warning in the log.
 */
SDLORA_API int sdlora_generator_add_embeddings(sdlora_generator *g, const char *path);

/** Applies a network to every picture from now on, besides those of the prompt's tags.  Same
 * network again: other strengths; both 0 removes it.  An embedding is used where its name stands,
 * whatever the strengths. */
SDLORA_API int sdlora_generator_set_network(sdlora_generator *g, sdlora_network *net, double te,
                                            double unet);

/**
 * Lets another checkpoint finish pictures: it takes over at `refiner_switch_at`, with texts of its
 * own; networks go along where they fit it.  What it finishes its VAE decodes.  The model's own
 * file, taken for the same prediction, never takes over.  The option `refiner_checkpoint` has no
 * say then.
 * @param refiner  Nullable: none, or what that option names.  Errors: SDLORA_EINVAL when its
 * latents differ.
 */
SDLORA_API int sdlora_generator_set_refiner(sdlora_generator *g, sdlora_checkpoint *refiner);

/**
 * Lets another checkpoint make the second pass of hires fix, with texts and a VAE of its own;
 * networks go along where they fit it.  The option `hr_checkpoint_name` has no say then.
 * @param ckpt  Nullable: the same as the first pass, or what that option names.
 * Errors: SDLORA_EINVAL when its latents differ.
 */
SDLORA_API int sdlora_generator_set_hr_checkpoint(sdlora_generator *g, sdlora_checkpoint *ckpt);
/** Adds a directory, with those below it, in which the options `refiner_checkpoint` and
 * `hr_checkpoint_name` and sdlora_generator_match() find models. */
SDLORA_API int sdlora_generator_add_ckpt_dir(sdlora_generator *g, const char *dir);

/**
 * The picture that runs start from (img2img), until another one is set; a copy is kept.  A camera's
 * orientation mark is applied, and transparency shows `img2img_background_color`.  Pictures of
 * another size are fitted by `resize_mode`.
 * @param image  Nullable: runs start from noise.
 */
SDLORA_API int sdlora_generator_set_init_image(sdlora_generator *g, const sdlora_image *image);
/**
 * What of that picture changes (inpainting): where the mask is white, or not transparent when it has
 * transparency.  Of the same size as the picture.
 * @param mask  Nullable: everything changes.
 */
SDLORA_API int sdlora_generator_set_mask(sdlora_generator *g, const sdlora_image *mask);
/** Adds a directory, with those below it, in which the option sd_vae finds VAE files.  A VAE that
 * the generator was made with is used whatever the option says. */
SDLORA_API int sdlora_generator_add_vae_dir(sdlora_generator *g, const char *dir);
/** Adds a directory, with those below it, in which the option hr_upscaler finds files of ESRGAN
 * networks, by name or stem. */
SDLORA_API int sdlora_generator_add_upscaler_dir(sdlora_generator *g, const char *dir);

/** Called after each sampling step.  @return 0 to go on; anything else cancels. */
typedef int (*sdlora_sample_fn)(int64_t step, int64_t total, void *user);
SDLORA_API int sdlora_generator_set_progress(sdlora_generator *g, sdlora_sample_fn fn, void *user);

/**
 * Called as a run goes on: phase "prepare" (packing weights, reading texts), "sample" after each
 * step, "decode"; step and total count sampling steps over all pictures, phase_done and phase_total
 * those of the picture (0 before its first step), eta is for the whole run.  Non-zero cancels.
 * @param fn  NULL ends it.
 */
SDLORA_API int sdlora_generator_set_watch(sdlora_generator *g, sdlora_progress_fn fn, void *user);
/**
 * What the picture is becoming, one pixel for each latent (8 x 8 pixels of the picture), by a
 * linear map of the latents.  Inside the function of sdlora_generator_set_watch() only, from the
 * first step on.
 */
SDLORA_API int sdlora_generator_preview(sdlora_image **out, sdlora_generator *g);

/**
 * Makes `count` pictures; picture k uses seed + k.
 * @param opts    kind "generate"; NULL: all defaults.
 * @param images  receives `count` images, each one reference.  cap: how many fit; EINVAL when too
 * few.
 */
SDLORA_API int sdlora_generator_run(sdlora_generator *g, const sdlora_options *opts,
                                    sdlora_image **images, size_t cap);

/**
 * Compares what a picture's generation parameters name with what this generator has, by hashes:
 * model and VAE, the networks of <lora:name:...> tags in the option `prompt`, embeddings.  A tag
 * whose file goes by another name in the directories is renamed.  A refiner and a checkpoint of the
 * second pass are looked up in the directories of models, by name and then by hash, and the options
 * that name them are set, unless the caller gave some.  Of a picture that was made of another one
 * the notes say so.  Hashing reads whole files; their hashes are kept with the generator.  Of
 * networks at most 100 hashes are looked at.
 * @param o      kind "generate", of sdlora_options_from_infotext() with the same text.
 * @param notes  Nullable: receives a line for each difference and each new name; to be given back
 *               with sdlora_text_free().
 */
SDLORA_API int sdlora_generator_match(sdlora_generator *g, sdlora_options *o, const char *text,
                                      char **notes);

/** Asks a running run() to stop between two kernels, and a match() to stop hashing.  Thread: any,
 * and signal handlers. */
SDLORA_API void sdlora_generator_cancel(sdlora_generator *g);

/** Names of samplers and schedules, in table order; NULL past the last. */
SDLORA_API const char *sdlora_sampler_name(size_t i);
SDLORA_API const char *sdlora_scheduler_name(size_t i);

SDLORA_END_DECLS
#endif /* SDLORA_SAMPLER_H */
