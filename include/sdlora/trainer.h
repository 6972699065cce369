/* SPDX-License-Identifier: MIT */
/**
 * @file sdlora/trainer.h
 * Trains a network against a frozen checkpoint, one optimiser step at a time.
 *
 *     while ((rc = sdlora_trainer_step(t, &now)) == SDLORA_OK)
 *         draw(&now);
 *
 * Files appear in output_dir as the options ask: <output_name>.safetensors at the end and every n
 * epochs, metrics.jsonl, states, samples.  Same seed, files and options give the same weights to
 * the byte, whatever the thread count; metadata also carries the date.
 * Thread: one thread at a time per trainer; two trainers may share every handle that they were made
 * from, except the network.  Return, out and text rules: see sdlora/context.h.
 */
#ifndef SDLORA_TRAINER_H
#define SDLORA_TRAINER_H

#include <sdlora/types.h>

SDLORA_BEGIN_DECLS

/** One look at a running job.  Filled by the library. */
typedef struct sdlora_progress {
    size_t struct_size;  /**< set by the caller */
    int64_t step;        /**< optimiser steps done */
    int64_t total;       /**< steps planned */
    int64_t epoch;       /**< 1-based epoch of this step */
    int64_t epochs;      /**< epochs planned */
    double loss;         /**< of the last step */
    double average_loss; /**< moving average over one epoch, as kohya's */
    double unet_lr;      /**< learning rates used by the last step */
    double text_encoder_lr;
    double grad_norm; /**< before clipping */
    double val_loss;  /**< last held-out loss; NaN: none yet */
    double elapsed;   /**< seconds in steps */
    double eta;       /**< seconds to go; NaN: not known yet */
    /** "latents" (encoding pictures), "train", "save", "validate" or "sample"; static text */
    const char *phase;
    int64_t phase_done, phase_total; /**< in it: pictures, steps, files, pictures, sampling steps */
    double text_encoder_2_lr;        /**< of SDXL's second text encoder, the refiner's only one */
} sdlora_progress;

/** Called on the thread that runs the job.  @return 0 to go on; anything else cancels. */
typedef int (*sdlora_progress_fn)(const sdlora_progress *now, void *user);

/**
 * Makes a trainer and encodes the pictures (or finds them in the cache).
 * @param vae         Nullable: the one inside the checkpoint.
 * @param net         trained in place.
 * @param validation  Nullable: the folder of the option validation_data_dir, if that is set.
 * @param opts        Nullable: defaults.  Kind "train".  Copied.
 * @param progress    Nullable.  Called while pictures are encoded; by step() while files are saved,
 * the held-out loss is measured and samples are drawn; by validate(); and by run() after each step.
 * A cancel in "save" takes effect when all files of the step are there.
 * Errors: SDLORA_EINVAL for options that do not fit together, SDLORA_ENOTSUP for known flags that
 * this version cannot do.
 */
SDLORA_API int sdlora_trainer_new(sdlora_trainer **out, sdlora_checkpoint *ckpt, sdlora_vae *vae,
                                  sdlora_network *net, sdlora_dataset *data,
                                  sdlora_dataset *validation, const sdlora_options *opts,
                                  sdlora_progress_fn progress, void *user);
SDLORA_API sdlora_trainer *sdlora_trainer_ref(sdlora_trainer *t);
SDLORA_API void sdlora_trainer_unref(sdlora_trainer *t);

/**
 * Runs one optimiser step, and what falls due after it (saving, validation, samples).
 * @param now  Nullable.  Filled on success; with SDLORA_DONE it tells of the last step.
 * @return SDLORA_DONE (1) when the planned steps are over and the final file is written.
 * Errors: SDLORA_ENAN when loss or gradient is not finite: the step was not applied.
 *         SDLORA_ECANCELED: the trainer can go on or be saved.
 * A failure or cancel in what falls due leaves its step applied; the next call does that first.
 */
SDLORA_API int sdlora_trainer_step(sdlora_trainer *t, sdlora_progress *now);

/** step() until done, failure or cancel, with progress after each. */
SDLORA_API int sdlora_trainer_run(sdlora_trainer *t);

/** Asks a running step or run() to stop between two kernels; between steps, the next one ends at
 * once. Thread: any, and signal handlers. */
SDLORA_API void sdlora_trainer_cancel(sdlora_trainer *t);

/** Saves the network with full metadata.  @param path  Nullable:
 * output_dir/output_name.safetensors. */
SDLORA_API int sdlora_trainer_save(sdlora_trainer *t, const char *path);
/** Saves everything that resume needs.  @param path  Nullable: output_dir/<output_name>-state. */
SDLORA_API int sdlora_trainer_save_state(sdlora_trainer *t, const char *path);
/** Goes on from a state: the run ends with the same weights as if it had never stopped.
 *  Errors: SDLORA_EINVAL lists what changed in the data set or options since. */
SDLORA_API int sdlora_trainer_resume(sdlora_trainer *t, const char *path);

/** The held-out loss now.  Errors: SDLORA_EINVAL without a validation set. */
SDLORA_API int sdlora_trainer_validate(sdlora_trainer *t, double *loss);

/** The network being trained.  Lifetime: borrowed, as long as `t`. */
SDLORA_API sdlora_network *sdlora_trainer_network(const sdlora_trainer *t);

/**
 * What a run will take, before it is run, as JSON text (give it back with sdlora_text_free
 * of the checkpoint's context).  Takes
 * the arguments of sdlora_trainer_new(), encodes a few pictures and times steps on random latents.
 * The network keeps its parameters, and nothing is written; nobody else may use the network
 * meanwhile.  The option resume is not looked at.
 *
 * - "run": steps, epochs, batches_per_epoch, batches, encoded_pictures, encoded_captions,
 *   validations, samples; "precision": "no" or "bf16".
 * - "shapes": for each size of pictures and batch: width, height, pictures, batches per epoch,
 *   gflop and seconds of a batch, and whether that was measured or scaled from another shape.
 * - "memory", in bytes: "peak" is the resident memory of a process that opened these handles, at
 *   its highest.  It is process (code, libraries, stacks, file pages that stay) + handles (with
 *   network, the parameters) and then, while pictures are encoded, encoder and latents, and while
 *   steps are run, packed (weights as kernels want them), graphs, workspace (activations),
 * optimizer (gradients and moments), text, latents, validation and samples.  "mapped" is the size
 * of the model's tensors in the file, which are read once and let go.
 * - "seconds": load (weights packed, graphs planned), encode, text, steps, optimizer, validation,
 *   samples, save, their total; "step" is one optimiser step.  Opening files is not counted.
 * - "disk": bytes of all files that are there at the end; "files": kind, how many are written and
 *   kept, bytes of each.
 * @param progress  Nullable.  Phase "plan".
 * Errors: those of sdlora_trainer_new(); SDLORA_ECANCELED when progress asked for it.
 */
SDLORA_API int sdlora_plan(sdlora_checkpoint *ckpt, sdlora_vae *vae, sdlora_network *net,
                           sdlora_dataset *data, sdlora_dataset *validation,
                           const sdlora_options *opts, sdlora_progress_fn progress, void *user,
                           char **json);

/**
 * The held-out loss of a checkpoint with networks at strengths, without training: mean squared
 * error of the predicted noise over the pictures at t = 50, 150 ... 950, with noise fixed by the
 * seed.
 * @param nets  n networks; te and unet: their strengths.  Nullable when n is 0.  Embeddings among
 * them are used where captions name them.
 * @param opts      Nullable.  Kind "eval": seed, clip_skip, max_token_length.
 * @param progress  Nullable.  Phases "latents" and "validate", before the first picture and after
 * each; elapsed and eta (of the phase) are filled.
 * Errors: SDLORA_ECANCELED when progress asked for it; *loss is NaN.
 */
SDLORA_API int sdlora_evaluate(sdlora_checkpoint *ckpt, sdlora_vae *vae, sdlora_dataset *data,
                               sdlora_network *const *nets, const double *te, const double *unet,
                               size_t n, const sdlora_options *opts, sdlora_progress_fn progress,
                               void *user, double *loss);

SDLORA_END_DECLS
#endif /* SDLORA_TRAINER_H */
