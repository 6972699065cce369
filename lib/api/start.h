/* SPDX-License-Identifier: MIT */
/* What a generator draws from besides words: a picture and its mask, VAEs and
 * upscalers by name. */
#ifndef SLR_API_START_H
#define SLR_API_START_H

#include "api/folders.h"
#include "base/options.h"
#include "sample/generator.h"

typedef struct slr_api_start {
    slr_pixels init, mask; /* upright, RGB or RGBA; data NULL: none */
    slr_folders vaes, upscalers;
    char *vae_path;      /* in force; NULL: the one that the generator was made with */
    char *upscaler_path; /* of the last run; NULL: none */
} slr_api_start;

void slr_api_start_init(slr_api_start *s, slr_mem *m);
void slr_api_start_free(slr_api_start *s, slr_mem *m);
/* Fills the request's pictures and upscaler, and lets the generator use the VAE
 * that the option sd_vae asks for. */
int slr_api_start_request(slr_request *r, sdlora_generator *g, slr_opt o);

#endif
