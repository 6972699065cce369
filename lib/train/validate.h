/* SPDX-License-Identifier: MIT */
/* Held-out loss: mean squared error over pictures at t = 50, 150 ... 950 (of a model that works at
 * early timesteps alone, as many of those: 10, 30 ... 190) with noise and masks fixed by a seed.
 * Deterministic, and the same for every run of the same model and pictures. */
#ifndef SLR_TRAIN_VALIDATE_H
#define SLR_TRAIN_VALIDATE_H

#include "data/loader.h"
#include "train/captions.h"
#include "train/inversion.h"
#include "train/noise.h"
#include "train/trainer.h"

typedef struct slr_validator slr_validator;

typedef struct slr_validator_config {
    slr_mem *mem;
    slr_checkpoint *base;
    slr_network *network; /* at full strength; Nullable */
    slr_stack *stack;     /* instead of network; Nullable */
    slr_devices *devices;
    slr_policy policy;  /* zeros: f32 */
    slr_phase_fn phase; /* Nullable: "validate", pictures */
    void *phase_user;
    slr_loader *loader;             /* over the held-out pictures; borrowed */
    slr_dataset *data;              /* those pictures; borrowed */
    slr_captions *text;             /* borrowed */
    const slr_inversion *inversion; /* Nullable, borrowed */
    const slr_noise *noise;
    uint64_t seed;
    float score; /* that a refiner is told */
    int n_chunks;
    int64_t max_pictures; /* 0: all */
} slr_validator_config;

int slr_validator_new(slr_validator **out, const slr_validator_config *config);
void slr_validator_free(slr_validator *v);
/* Mean over the timesteps for one picture; latents [h,w,4], item: its number in the set; extra:
 * [h,w,1+4] for an inpainting model. */
int slr_validator_picture(slr_validator *v, size_t item, const char *caption, const float *latents,
                          const float *extra, int64_t h, int64_t w, const slr_cancel_flag *cancel,
                          double *loss);
int slr_validator_run(slr_validator *v, const slr_cancel_flag *cancel, double *loss);

#endif
