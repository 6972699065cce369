/* SPDX-License-Identifier: MIT */
/* Latents, masks and conditions that come from pictures: what a pass starts from besides noise. */
#ifndef SLR_SAMPLE_IMG2IMG_H
#define SLR_SAMPLE_IMG2IMG_H

#include <stdbool.h>

#include "models/vae.h"
#include "sample/canvas.h"

/* What encodes pictures, and into what. */
typedef struct slr_encoder {
    slr_mem *m;
    slr_vae_runner *vae;
    int factor; /* log2 of pixels by latents */
    int64_t c;  /* channels of latents */
    double scale; /* what encoding multiplies latents by */
    const slr_cancel_flag *cancel;
} slr_encoder;

/* RGB to *latents [*h,*w,c] (slr_free): the distribution's mean, scaled.  What is over a multiple
 * of the factor to the right and below is left out. */
int slr_encode_picture(const slr_encoder *e, const slr_pixels *rgb, float **latents, int64_t *h,
                       int64_t *w);

typedef struct slr_start {
    slr_mem *m;
    int64_t h, w, c;
    float *init;    /* [h,w,c]: what is under the noise, and under the mask's black */
    float *repaint; /* [h,w], 1: changes; NULL: everything does */
    float *extra;   /* [h,w,n_extra], what the model is told beside the latents; NULL: nothing */
    int64_t n_extra;
    int content;    /* SLR_CONTENT_* */
} slr_start;

enum {
    SLR_EXTRA_NONE = 0,
    SLR_EXTRA_INPAINT, /* the mask, and the latents of what it leaves: 1 + c */
    SLR_EXTRA_EDIT     /* the latents of the picture, not scaled: c */
};

typedef struct slr_start_config {
    int64_t h, w;       /* of the pass */
    int content;        /* SLR_CONTENT_* */
    bool sharp;         /* the mask is all or nothing */
    int extra;          /* SLR_EXTRA_* */
    double mask_weight; /* of the mask in inpainting channels */
} slr_start_config;

/* After a failure too: slr_start_free. */
int slr_start_new(slr_start *out, const slr_encoder *e, const slr_canvas *canvas,
                  const slr_start_config *config);
void slr_start_free(slr_start *s);
/* init of one picture; noise [c,h,w]: its seed's first, for SLR_CONTENT_NOISE. */
void slr_start_picture(const slr_start *s, const float *noise, float *init);

/* extra [h,w,1+c]: the mask, 1 where it changes, and the latents of image [H,W,3] in [-1,1]
 * darkened to grey under it by weight.  mask Nullable: everything changes. */
int slr_inpaint_extra(const slr_encoder *e, const float *image, int64_t image_h, int64_t image_w,
                      const slr_pixels *mask, bool sharp, double weight, float *extra);
/* extra [h,w,c] of a picture that is edited: its latents, not scaled. */
int slr_edit_extra(const slr_encoder *e, const float *image, int64_t image_h, int64_t image_w,
                   float *extra);
/* The channels of inpainting models for a pass from noise: all changes, over grey. */
int slr_plain_extra(const slr_encoder *e, int64_t h, int64_t w, float *extra);

#endif
