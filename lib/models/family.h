/* SPDX-License-Identifier: MIT */
/* One row per model family: what tensor shapes cannot tell. */
#ifndef SLR_MODELS_FAMILY_H
#define SLR_MODELS_FAMILY_H

#include <stdbool.h>
#include <stdint.h>

enum { SLR_FAMILY_SD1 = 1, SLR_FAMILY_SD2 = 2, SLR_FAMILY_SDXL = 3, SLR_FAMILY_REFINER = 4 };
enum { SLR_PREDICT_EPS = 0, SLR_PREDICT_V = 1 };
enum { SLR_TEXT_ENCODERS = 2 };

/* One of a family's text encoders. */
typedef struct slr_family_text {
    int part;        /* SLR_PART_TE or SLR_PART_TE2 */
    int act;         /* SDLORA_ACT_* */
    int behind;      /* layers behind the one whose output conditions the UNet: 0 or 1 */
    bool final_norm; /* the final layer norm is on that output */
    bool clip_skip;  /* the user's clip skip moves it */
    bool pooled;     /* gives the pooled state, by its text_projection */
    int32_t pad;     /* token id behind a text's end */
} slr_family_text;

typedef struct slr_family {
    int id;
    const char *name;         /* "sd1" */
    const char *title;        /* "Stable Diffusion 1.x" */
    const char *base_version; /* ss_base_model_version: "sd_v1" */
    const char *architecture; /* modelspec: "stable-diffusion-v1" */
    const char *inpainting;   /* the same of models that take a mask; NULL: there are none */
    int heads;                /* > 0: fixed count of heads; 0: head_dim rules */
    int head_dim;
    int te_head_dim; /* 64 */
    int n_text;
    slr_family_text text[SLR_TEXT_ENCODERS]; /* in the order of their states in a token's row */
    int n_sizes;                             /* numbers beside the pooled state: 6, 5 or 0 */
    bool zero_negative;    /* A1111 conditions an empty negative prompt on zeros */
    int predict;           /* default SLR_PREDICT_* */
    double vae_scale;      /* 0.18215 */
    int32_t bos, eos, pad; /* token ids; pad: of the first encoder */
    int native_size;       /* 512 */
    int timesteps;         /* it works at those below this one, 1000 but for the refiner */
} slr_family;

const slr_family *slr_family_by_id(int id);
const slr_family *slr_family_by_name(const char *name);
/* What modelspec calls a checkpoint of it that predicts v, or takes a mask (OneTrainer's names). */
const char *slr_family_architecture(const slr_family *family, bool v, bool inpaint);
/* Its row of a text encoder by SLR_PART_*; NULL: it has none. */
const slr_family_text *slr_family_text_of(const slr_family *family, int part);

#endif
