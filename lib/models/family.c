/* SPDX-License-Identifier: MIT */
/* The table of model families: what tensor shapes cannot tell.  A new family is a new row here plus
 * whatever conditioning its UNet needs; refuses to know files, names and graphs. */
#include "models/family.h"

#include <string.h>

#include <sdlora/ops.h>

static const slr_family FAMILIES[] = {
    {
        .id = SLR_FAMILY_SD1,
        .name = "sd1",
        .title = "Stable Diffusion 1.x",
        .base_version = "sd_v1",
        .architecture = "stable-diffusion-v1",
        .heads = 8,
        .te_head_dim = 64,
        .te_act = SDLORA_ACT_QUICK_GELU,
        .te_final_norm = true,
        .predict = SLR_PREDICT_EPS,
        .vae_scale = 0.18215,
        .bos = 49406,
        .eos = 49407,
        .pad = 49407,
        .native_size = 512,
        .supported = true,
    },
    {
        .id = SLR_FAMILY_SD2,
        .name = "sd2",
        .title = "Stable Diffusion 2.x",
        .base_version = "sd_v2",
        .architecture = "stable-diffusion-v2-512",
        .head_dim = 64,
        .te_head_dim = 64,
        .te_act = SDLORA_ACT_GELU,
        .te_final_norm = true, /* on the penultimate layer, which is the last that is kept */
        .predict = SLR_PREDICT_V,
        .vae_scale = 0.18215,
        .bos = 49406,
        .eos = 49407,
        .pad = 0,
        .native_size = 768,
        .supported = false,
    },
    {
        .id = SLR_FAMILY_SDXL,
        .name = "sdxl",
        .title = "Stable Diffusion XL",
        .base_version = "sdxl_base_v1-0",
        .architecture = "stable-diffusion-xl-v1-base",
        .head_dim = 64,
        .te_head_dim = 64,
        .te_act = SDLORA_ACT_QUICK_GELU, /* of the first encoder */
        .te_final_norm = false,
        .predict = SLR_PREDICT_EPS,
        .vae_scale = 0.13025,
        .bos = 49406,
        .eos = 49407,
        .pad = 49407,
        .native_size = 1024,
        .supported = false,
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
