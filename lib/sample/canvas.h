/* SPDX-License-Identifier: MIT */
/* The picture that img2img starts from and its mask, made ready for the model, and what becomes of
 * the model's picture afterwards.  Pixels only. */
#ifndef SLR_SAMPLE_CANVAS_H
#define SLR_SAMPLE_CANVAS_H

#include "sample/fit.h"
#include "sample/mask.h"

/* What stands under the mask before sampling: AUTOMATIC1111's "Masked content" by its numbers. */
enum {
    SLR_CONTENT_FILL = 0,
    SLR_CONTENT_ORIGINAL = 1,
    SLR_CONTENT_NOISE = 2,
    SLR_CONTENT_NOTHING = 3
};

typedef struct slr_canvas_config {
    int32_t width, height; /* that the model works at */
    int resize_mode;       /* SLR_FIT_* */
    uint8_t background[3]; /* under transparent pictures */
    slr_enlarge enlarge;   /* zeros: Lanczos */
    int blur_x, blur_y;    /* standard deviations, 0: none */
    bool sharp;            /* the mask is all or nothing where latents see it */
    bool invert;           /* "Inpaint not masked" */
    int content;           /* SLR_CONTENT_* */
    bool only_masked;      /* works on the masked part alone, enlarged */
    int32_t padding;       /* around it, pixels */
    bool correct;          /* the result takes the colours of the start */
} slr_canvas_config;

typedef struct slr_canvas {
    slr_mem *m;
    slr_pixels image;   /* RGB, width x height; of its own size with SLR_FIT_LATENT */
    slr_pixels mask;    /* [height,width]; data NULL: everything changes */
    slr_pixels overlay; /* RGBA over the result; data NULL: none */
    slr_box paste;      /* where in the overlay the result stands; w 0: it has its size */
    bool blank;         /* there was a mask to cut by, and it was black */
    bool correct;
} slr_canvas;

/* image: RGB or RGBA; mask Nullable.  After a failure too: slr_canvas_free. */
int slr_canvas_open(slr_canvas *out, slr_mem *m, const slr_canvas_config *config,
                    const slr_pixels *image, const slr_pixels *mask);
void slr_canvas_free(slr_canvas *c);
/* The model's picture put where it belongs: colours, place, what was not masked.  p->data is
 * replaced where its size changes. */
int slr_canvas_finish(const slr_canvas *c, slr_pixels *p);

#endif
