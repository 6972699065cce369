/* SPDX-License-Identifier: MIT */
/* The UNet side of sampling: graphs by shape, and guidance. Refuses to know prompts and samplers.
 */
#ifndef SLR_SAMPLE_DENOISER_H
#define SLR_SAMPLE_DENOISER_H

#include "models/unet.h"
#include "sample/conds.h"
#include "sample/engine.h"

typedef struct slr_denoiser slr_denoiser;

/* engine is borrowed. */
int slr_denoiser_new(slr_denoiser **out, slr_mem *m, slr_engine *engine);
void slr_denoiser_free(slr_denoiser *d); /* NULL: nothing */
void slr_denoiser_rest(slr_denoiser *d); /* gives back what it keeps besides graphs */
const slr_unet_shape *slr_denoiser_shape(const slr_denoiser *d);

/* What makes texts of unequal length equal. */
enum {
    SLR_PAD_NONE = 0, /* nothing: each length is evaluated by itself */
    SLR_PAD_EMPTY,    /* states of the empty prompt, behind the shorter one */
    SLR_PAD_REPEAT    /* the negative prompt's last token again; or it is cut */
};

/* One guided prediction: u + cfg * sum of weight * (c - u).  Prompts of an AND are as long as the
 * longest of them: their last token is repeated. */
typedef struct slr_guidance {
    const slr_cond *cond;
    const double *weight;
    size_t n; /* conds: more than one with AND */
    slr_cond uncond;
    double cfg, rescale;               /* rescale: phi of CFG rescale, 0: off */
    bool skip_uncond;                  /* the first cond stands in for it, at cfg 1 */
    int pad;                           /* SLR_PAD_* */
    const slr_cond *empty;             /* one chunk, for SLR_PAD_EMPTY */
    const float *sizes, *uncond_sizes; /* slr_text_sizes() of n_sizes numbers; NULL: none */
    int n_sizes;
    const float *extra; /* [h,w,n_extra] beside the latents, or NULL */
    int64_t n_extra;
    bool edit;       /* extra is a picture to edit, with a guidance of its own: one cond */
    double edit_cfg; /* that guidance */
    double merge; /* part of the tokens that self-attention at full size merges into others */
    int64_t h, w;
} slr_guidance;

/* Whether `pad` does anything. */
bool slr_guidance_pads(const slr_guidance *g);
/* x [h,w,out channels] at timestep t -> the model's own kind of prediction (eps or v).  uncond
 * (Nullable) receives that without the prompt.  Errors: EINVAL where a model wants extra channels
 * or sizes and gets none, and for an AND with a picture to edit. */
int slr_denoiser_predict(slr_denoiser *d, const slr_guidance *g, const float *x, double t,
                         float *out, float *uncond, const slr_cancel_flag *cancel);

#endif
