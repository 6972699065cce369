/* SPDX-License-Identifier: MIT */
/* The model side of sampling: text states by string, UNet graphs by shape, guidance.  One stack of
 * networks at a time. */
#ifndef SLR_SAMPLE_DENOISER_H
#define SLR_SAMPLE_DENOISER_H

#include "sample/engine.h"
#include "sample/prompt.h"

typedef struct slr_denoiser slr_denoiser;

int slr_denoiser_new(slr_denoiser **out, slr_mem *m, slr_checkpoint *base, slr_devices *devices,
                     slr_bpe *bpe);
void slr_denoiser_free(slr_denoiser *d);
/* Gives back graphs, states and networks; they are made again when they are asked for. */
void slr_denoiser_rest(slr_denoiser *d);

/* Another precision than f32 from now on. */
void slr_denoiser_set_policy(slr_denoiser *d, slr_policy policy);

/* Networks to apply from now on; the same networks at other strengths keep all graphs. */
int slr_denoiser_set_networks(slr_denoiser *d, const slr_stack_item *items, size_t n);

/* Embeddings whose names prompts may use from now on; of two with one name the later one. */
int slr_denoiser_set_embeddings(slr_denoiser *d, slr_network *const *embeddings, size_t n);
/* Which of them a prompt uses, by number, in the order of first use; costs nothing after
 * slr_denoiser_text().  Lifetime: as that of the states. */
int slr_denoiser_text_uses(slr_denoiser *d, const char *prompt, int clip_skip, const size_t **list,
                           size_t *n);

/* Emphasised states [n_chunks*77,width] of a prompt.  Lifetime: until other networks or
 * embeddings are set. */
int slr_denoiser_text(slr_denoiser *d, const char *prompt, int clip_skip,
                      const slr_cancel_flag *cancel, const float **states, int64_t *tokens);

/* Prediction with guidance for one latent [h,w,c] at timestep t: u + cfg (c - u). */
typedef struct slr_guidance {
    const float *cond, *uncond; /* text states */
    int64_t cond_tokens, uncond_tokens;
    double cfg;
    int64_t h, w;
} slr_guidance;
int slr_denoiser_predict(slr_denoiser *d, const slr_guidance *g, const float *x, double t,
                         float *out, const slr_cancel_flag *cancel);
int64_t slr_denoiser_channels(const slr_denoiser *d);

#endif
