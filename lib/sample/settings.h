/* SPDX-License-Identifier: MIT */
/* What a picture is made with, as numbers and texts: the options of kind "generate" read once.
 * Names and defaults are AUTOMATIC1111's.  Refuses to know models. */
#ifndef SLR_SAMPLE_SETTINGS_H
#define SLR_SAMPLE_SETTINGS_H

#include "base/options.h"

enum { SLR_HR_REFINE_SECOND = 0, SLR_HR_REFINE_FIRST, SLR_HR_REFINE_BOTH };
enum { SLR_FILL_BLUR = 0, SLR_FILL_ORIGINAL, SLR_FILL_NOISE, SLR_FILL_NOTHING };
enum { SLR_RESIZE_PLAIN = 0, SLR_RESIZE_CROP, SLR_RESIZE_FILL, SLR_RESIZE_LATENT };

/* Texts are borrowed from the options.  NULL: none. */
typedef struct slr_settings {
    /* words */
    const char *prompt, *negative;
    const char *styles, *styles_file; /* names; files that have them: one a line */
    int emphasis;                     /* SLR_EMPHASIS_* */
    int clip_skip, backtrack;
    bool comments, old_scheduling, clip_l_skip;
    /* sampler and schedule */
    const char *sampler, *scheduler; /* NULL: "Euler a", "Automatic" */
    int steps;
    double eta; /* below 0: the sampler's default */
    double s_churn, s_tmin, s_tmax, s_noise;
    double sigma_min, sigma_max, rho; /* 0: the model's, the schedule's */
    double beta_alpha, beta_beta;
    bool discard, sgm_noise, old_karras, quantize, downcast;
    int ztsnr; /* 1: whatever the model says */
    const char *unipc_variant, *unipc_skip;
    int unipc_order;
    bool unipc_lower_final;
    /* guidance */
    double cfg, cfg_rescale;
    double image_cfg; /* of models that edit pictures */
    double s_min_uncond, skip_early;
    bool s_min_uncond_all, pad, pad_v0;
    /* numbers of the picture */
    int width, height, count;
    int64_t seed, subseed, ensd; /* below 0: random */
    double subseed_strength;
    int seed_from_w, seed_from_h;
    int rng; /* SLR_NOISE_* */
    int crop_top, crop_left;
    double aesthetic_high, aesthetic_low;
    /* from a picture */
    double denoising_strength;
    int resize_mode; /* SLR_RESIZE_* */
    bool fix_steps, color_correction;
    double noise_multiplier, extra_noise;
    const char *background; /* "#ffffff" */
    int mask_blur, fill;    /* SLR_FILL_* */
    bool mask_invert, mask_round, full_res;
    int full_res_padding;
    double mask_weight;
    /* second pass */
    bool hr;
    double hr_scale;
    int hr_steps, hr_width, hr_height; /* 0: as the first pass; by scale */
    const char *hr_upscaler, *hr_sampler, *hr_scheduler, *hr_prompt, *hr_negative;
    /* refiner */
    double refiner_at; /* part of the noise that is gone when it takes over */
    bool refiner_by_steps;
    int hr_refine; /* SLR_HR_REFINE_* */
    /* token merging: part of the tokens that goes, 0: none */
    double merge, merge_picture, merge_second;
    /* the parameters text */
    const char *extra;     /* items to be added, one a line */
    const char *precision; /* mixed_precision as it was asked for */
    bool full_vae, vae_tiling;
} slr_settings;

/* o.o NULL: all defaults. */
void slr_settings_read(slr_settings *out, slr_opt o);
/* A text, or the other one when it is NULL or empty. */
const char *slr_settings_either(const char *text, const char *other);
/* The part of tokens that merging takes away: of a run from a picture, of a second pass, or of
 * neither. */
double slr_settings_merge(const slr_settings *set, bool picture, bool second);
/* What no model can draw: EINVAL. */
int slr_settings_check(const slr_settings *set);

#endif
