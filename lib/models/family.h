/* SPDX-License-Identifier: MIT */
/* One row per model family: what tensor shapes cannot tell. */
#ifndef SLR_MODELS_FAMILY_H
#define SLR_MODELS_FAMILY_H

#include <stdbool.h>
#include <stdint.h>

enum { SLR_FAMILY_SD1 = 1, SLR_FAMILY_SD2 = 2, SLR_FAMILY_SDXL = 3 };
enum { SLR_PREDICT_EPS = 0, SLR_PREDICT_V = 1 };

typedef struct slr_family {
    int id;
    const char *name;         /* "sd1" */
    const char *title;        /* "Stable Diffusion 1.x" */
    const char *base_version; /* ss_base_model_version: "sd_v1" */
    const char *architecture; /* modelspec: "stable-diffusion-v1" */
    int heads;                /* > 0: fixed count of heads; 0: head_dim rules */
    int head_dim;
    int te_head_dim;       /* 64 */
    int te_act;            /* SDLORA_ACT_* */
    bool te_final_norm;    /* final layer norm on the states that condition the UNet */
    int predict;           /* default SLR_PREDICT_* */
    double vae_scale;      /* 0.18215 */
    int32_t bos, eos, pad; /* token ids */
    int native_size;       /* 512 */
    bool supported;        /* false: recognised and refused with a sentence */
} slr_family;

const slr_family *slr_family_by_id(int id);
const slr_family *slr_family_by_name(const char *name);

#endif
