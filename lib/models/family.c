/* SPDX-License-Identifier: MIT */
/* The table of model families: what tensor shapes cannot tell.  A new family is a new row here plus
 * whatever conditioning its UNet needs; refuses to know files, names and graphs. */
#include "models/family.h"

#include <string.h>

#include <sdlora/ops.h>

#include "models/nn.h"

/* CLIP ViT-L, whose states are those of its last layer or of the one that clip skip says. */
#define CLIP_L                                                                                     \
    {                                                                                              \
        .part = SLR_PART_TE, .act = SDLORA_ACT_QUICK_GELU, .final_norm = true, .clip_skip = true,  \
        .pad = 49407                                                                               \
    }
/* OpenCLIP ViT-H as it is kept: without its last layer (checkpoint.c). */
#define OPEN_H                                                                                     \
    {                                                                                              \
        .part = SLR_PART_TE, .act = SDLORA_ACT_GELU, .final_norm = true, .pad = 0                  \
    }
/* In SDXL both encoders give the states before their last layer, without a norm. */
#define CLIP_L_XL                                                                                  \
    {                                                                                              \
        .part = SLR_PART_TE, .act = SDLORA_ACT_QUICK_GELU, .behind = 1, .pad = 49407               \
    }
#define OPEN_G                                                                                     \
    {                                                                                              \
        .part = SLR_PART_TE2, .act = SDLORA_ACT_GELU, .behind = 1, .pooled = true, .pad = 0        \
    }

static const slr_family FAMILIES[] = {
    {
        .id = SLR_FAMILY_SD1,
        .name = "sd1",
        .title = "Stable Diffusion 1.x",
        .base_version = "sd_v1",
        .architecture = "stable-diffusion-v1",
        .inpainting = "stable-diffusion-v1-inpainting",
        .heads = 8,
        .te_head_dim = 64,
        .n_text = 1,
        .text = {CLIP_L},
        .predict = SLR_PREDICT_EPS,
        .vae_scale = 0.18215,
        .bos = 49406,
        .eos = 49407,
        .pad = 49407,
        .native_size = 512,
        .timesteps = 1000,
    },
    {
        .id = SLR_FAMILY_SD2,
        .name = "sd2",
        .title = "Stable Diffusion 2.x",
        .base_version = "sd_v2",
        .architecture = "stable-diffusion-v2-512",
        .inpainting = "stable-diffusion-v2-inpainting",
        .head_dim = 64,
        .te_head_dim = 64,
        .n_text = 1,
        .text = {OPEN_H},
        .predict = SLR_PREDICT_V,
        .vae_scale = 0.18215,
        .bos = 49406,
        .eos = 49407,
        .pad = 0,
        .native_size = 768,
        .timesteps = 1000,
    },
    {
        .id = SLR_FAMILY_SDXL,
        .name = "sdxl",
        .title = "Stable Diffusion XL",
        .base_version = "sdxl_base_v1-0",
        .architecture = "stable-diffusion-xl-v1-base",
        .inpainting = "stable-diffusion-xl-v1-base-inpainting",
        .head_dim = 64,
        .te_head_dim = 64,
        .n_text = 2,
        .text = {CLIP_L_XL, OPEN_G},
        .n_sizes = 6,
        .zero_negative = true,
        .predict = SLR_PREDICT_EPS,
        .vae_scale = 0.13025,
        .bos = 49406,
        .eos = 49407,
        .pad = 49407,
        .native_size = 1024,
        .timesteps = 1000,
    },
    {
        .id = SLR_FAMILY_REFINER,
        .name = "sdxl-refiner",
        .title = "Stable Diffusion XL refiner",
        .base_version = "sdxl_refiner_v1-0",
        .architecture = "stable-diffusion-xl-v1-refiner",
        .head_dim = 64,
        .te_head_dim = 64,
        .n_text = 1,
        .text = {OPEN_G},
        .n_sizes = 5,
        .zero_negative = true,
        .predict = SLR_PREDICT_EPS,
        .vae_scale = 0.13025,
        .bos = 49406,
        .eos = 49407,
        .pad = 0,
        .native_size = 1024,
        .timesteps = 200,
    },
};

#define N_FAMILIES (sizeof FAMILIES / sizeof *FAMILIES)

const slr_family *slr_family_by_id(int id)
{
    for (size_t i = 0; i < N_FAMILIES; i++)
        if (FAMILIES[i].id == id)
            return &FAMILIES[i];
    return NULL;
}

const slr_family *slr_family_by_name(const char *name)
{
    for (size_t i = 0; i < N_FAMILIES; i++)
        if (strcmp(FAMILIES[i].name, name) == 0)
            return &FAMILIES[i];
    return NULL;
}

const char *slr_family_architecture(const slr_family *family, bool v, bool inpaint)
{
    if (inpaint && family->inpainting)
        return family->inpainting;
    return family->id == SLR_FAMILY_SD2 && v ? "stable-diffusion-v2-768-v" : family->architecture;
}

const slr_family_text *slr_family_text_of(const slr_family *family, int part)
{
    for (int i = 0; i < family->n_text; i++)
        if (family->text[i].part == part)
            return &family->text[i];
    return NULL;
}
