/* SPDX-License-Identifier: MIT */
/* What a batch is trained on: timesteps, noise with its modifications, noisy latents, targets, and
 * the weights that min-SNR and its kin give each sample. */
#ifndef SLR_TRAIN_NOISE_H
#define SLR_TRAIN_NOISE_H

#include "base/options.h"
#include "models/schedule.h"
#include "train/step.h"

typedef struct slr_noise {
    slr_schedule schedule;     /* rescaled when zero_terminal_snr */
    double snr[SLR_TIMESTEPS]; /* of the ordinary schedule, as kohya's */
    bool v_prediction;
    int64_t min_t, max_t;
    double offset, adaptive, ip_gamma, multires_discount;
    bool offset_random, ip_random;
    int multires;
    double min_snr; /* 0: off */
    bool debiased, scale_v;
    double v_like;
    int loss_type;
    int huber_schedule; /* row of the table in noise.c */
    double huber_c, huber_scale;
} slr_noise;

/* Reads the "train" options.  predict: SLR_PREDICT_* of the checkpoint. */
int slr_noise_init(slr_noise *n, slr_opt o, int predict);

/* Fills x, target, t, weight and delta of a step for n samples of [h,w,c] latents.  first: number
 * of the first sample in the run, which with the seed fixes all draws.  base_weight: n per-sample
 * weights (prior_loss_weight). */
int slr_noise_fill(const slr_noise *n, slr_mem *m, const slr_step_io *io, const float *latents,
                   int64_t count, int64_t h, int64_t w, uint64_t seed, uint64_t first,
                   const float *base_weight);

/* Noisy latents and target at a fixed timestep with given noise, weight 1: validation. */
void slr_noise_fixed(const slr_noise *n, const float *latents, const float *noise, int64_t floats,
                     int t, float *x, float *target);
/* What min-SNR and its kin make of a sample's loss at a timestep. */
double slr_noise_weight(const slr_noise *n, int t);
/* Huber's delta at a timestep. */
float slr_noise_delta(const slr_noise *n, int t);

#endif
