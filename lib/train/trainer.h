/* SPDX-License-Identifier: MIT */
/* The training loop: epochs, steps, accumulation, optimiser, schedules, validation, saving, state.
 * The caller drives it by step(). */
#ifndef SLR_TRAIN_TRAINER_H
#define SLR_TRAIN_TRAINER_H

#include "base/phase.h"
#include "data/loader.h"
#include "models/bpe.h"
#include "networks/netfile.h"
#include "train/step.h"

typedef struct slr_trainer slr_trainer;

typedef struct slr_trainer_config {
    slr_mem *mem;
    slr_log log;
    slr_devices *devices;
    slr_checkpoint *base;
    slr_weights *vae;               /* Nullable: the checkpoint's own */
    const char *vae_path;           /* Nullable: for metadata */
    slr_network *network;           /* trained in place */
    slr_dataset *data, *validation; /* validation Nullable */
    slr_bpe *bpe;                   /* Nullable */
    const sdlora_options *opts;     /* kind "train"; Nullable. Copied */
    /* Nullable.  "latents" (pictures encoded), "validate" (pictures looked at), "save" (files). */
    slr_phase_fn phase;
    void *phase_user;
} slr_trainer_config;

typedef struct slr_progress {
    int64_t step, total, epoch, epochs;
    double loss, average_loss, unet_lr, text_encoder_lr, text_encoder_2_lr, grad_norm, elapsed, eta,
        val_loss;
} slr_progress;

int slr_trainer_new(slr_trainer **out, const slr_trainer_config *config);
void slr_trainer_free(slr_trainer *t);
/* One optimiser step.  SDLORA_DONE, with *now of the last one, when the planned steps are over.
 * Saves, samples and logs as the options ask. */
int slr_trainer_step(slr_trainer *t, slr_progress *now);
void slr_trainer_cancel(slr_trainer *t); /* any thread, signal-safe */
int slr_trainer_save(
    slr_trainer *t,
    const char *path); /* NULL: output_dir/output_name.safetensors with full metadata */
int slr_trainer_save_state(slr_trainer *t,
                           const char *path); /* NULL: <output_name>-state in output_dir */
int slr_trainer_resume(slr_trainer *t, const char *path);
/* The held-out loss: mean error on a dataset at the ten timesteps of validate.h, with noise and
 * masks that are the same in all runs. */
int slr_trainer_validate(slr_trainer *t, double *loss);
/* The run as it is now; loss, rates and norm are those of the last step that was applied. */
void slr_trainer_now(const slr_trainer *t, slr_progress *now);
/* Called after a save point asks for samples: the owner (api) generates them. */
typedef int (*slr_sample_hook_fn)(void *user, int64_t epoch, int64_t step);
void slr_trainer_set_sample_hook(slr_trainer *t, slr_sample_hook_fn fn, void *user);

/* The `eval` verb: held-out loss of a base with networks at strengths, no training. */
int slr_eval_loss(double *loss, const slr_trainer_config *config, const slr_stack_item *items,
                  size_t n, uint64_t seed);

#endif
