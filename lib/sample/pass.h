/* SPDX-License-Identifier: MIT */
/* One pass of one picture: from noise, or from latents and a strength, to latents.  txt2img is one
 * pass, img2img one with `init`, hires fix two.  Latents are [h,w,4], scaled. */
#ifndef SLR_SAMPLE_PASS_H
#define SLR_SAMPLE_PASS_H

#include "base/thread.h"
#include "sample/model.h"
#include "sample/noise.h"
#include "sample/script.h"

/* Called after each step.  x0: the estimate of the result, or NULL.  Non-zero ends the pass. */
typedef int (*slr_step_fn)(void *user, int step, int steps, const float *x0);

/* What became of passes, for the parameters text. */
typedef struct slr_became {
    bool padded, padded_v0, refined, skipped, skipped_early;
} slr_became;

typedef struct slr_pass {
    const slr_settings *set; /* sampler, schedule, steps, cfg, ... of this pass */
    slr_model *model;
    slr_model *refiner;                    /* NULL: none in this pass */
    const slr_script *positive, *negative; /* for this pass's evaluations */
    int64_t h, w;
    int width, height;     /* pixels that the model is told of; 0: of the latents */
    slr_noise *noise;      /* of the picture, and of this pass's size */
    const float *noise_in; /* [4,h,w]: first noise instead; NULL (tests) */
    const float *init;     /* latents to start from; NULL: noise alone */
    double strength;       /* with init: denoising strength */
    bool exact_steps;      /* with init: set->steps are made whatever the strength */
    double noise_scale;    /* with init: factor of the first noise */
    const float *repaint;  /* [h,w]: 1 where the picture changes, 0 where init stays; NULL: all */
    const float *extra;    /* [h,w,n_extra] beside the latents; NULL: none */
    int64_t n_extra;
    double merge; /* token merging: part of the tokens that goes; 0: none */
    bool edit;    /* extra is a picture to edit, with a guidance of its own */
    slr_step_fn step;      /* Nullable */
    void *user;
    const slr_cancel_flag *cancel;
    float *x; /* receives [h,w,4] */
    slr_became became;
} slr_pass;

int slr_pass_run(slr_pass *p, slr_mem *m);

#endif
