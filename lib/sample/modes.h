/* SPDX-License-Identifier: MIT */
/* What a run does besides one pass from noise: img2img, inpainting, hires fix.
 * For lib/sample only. */
#ifndef SLR_SAMPLE_MODES_H
#define SLR_SAMPLE_MODES_H

#include "sample/canvas.h"
#include "sample/generator_impl.h"
#include "sample/hires.h"
#include "sample/img2img.h"
#include "sample/latents.h"
#include "sample/upscaler.h"

/* Made once for all pictures of a run. */
struct slr_modes {
    bool from_picture;
    slr_canvas canvas;
    slr_start start;
    bool hires;
    slr_hires_size size;          /* of the second pass */
    const slr_latent_row *latent; /* what enlarges latents; NULL: pictures are enlarged */
    slr_settings set;             /* of the second pass */
    slr_wording words;
    float *plain; /* [h,w,1+c] that inpainting models are given without a picture;
                     NULL */
};

/* Reads the request; the run's settings and wording stand.  evaluations: of the
 * first pass. */
int slr_modes_begin(slr_run *s, int evaluations);
void slr_modes_end(slr_run *s); /* NULL-safe */
/* What encodes pictures for a model. */
int slr_modes_encoder(const slr_run *s, slr_model *model, slr_encoder *out);

#endif
