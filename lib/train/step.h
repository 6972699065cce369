/* SPDX-License-Identifier: MIT */
/* One training step's graph for one shape: text encoder (when trained), UNet, loss, gradients by
 * every trained slot. Takes explicit tensors, so tests drive it with an oracle's inputs. */
#ifndef SLR_TRAIN_STEP_H
#define SLR_TRAIN_STEP_H

#include "graph/exec.h"
#include "networks/network.h"
#include "train/textgraph.h"

typedef struct slr_step slr_step;
typedef struct slr_step_config {
    slr_mem *mem;
    slr_checkpoint *base;
    slr_network *network; /* trained, or at full strength; Nullable */
    slr_stack *stack;     /* instead of network: fixed networks at strengths; Nullable */
    slr_devices *devices;
    slr_policy policy; /* zeros: f32 */
    int64_t n, h, w;   /* samples, latent size */
    int n_chunks;      /* text: [n * n_chunks, 77] ids */
    int clip_skip, loss_type;
    unsigned
        part_mask;    /* bits 1 << SLR_PART_*: which parts are trained; 0: loss only (validation) */
    float *grad;      /* where gradients land: as many floats as the network's block, zeroed.
                       * Nullable: memory of the step's own */
    bool text_states; /* true: no text encoder is in the graph; states are an input */
    bool recompute;   /* make cheap activations again in the backward pass to keep fewer */
} slr_step_config;

int slr_step_new(slr_step **out, const slr_step_config *config);
/* Whether there can be steps on a model: what slr_step_new() would say of its shapes. */
int slr_step_check(slr_checkpoint *base);
/* Which slots of config->network a step reads, whatever its size: not those of layers behind the
 * one that a text encoder's states are taken from.  live: one for each slot. */
int slr_step_live(const slr_step_config *config, bool *live);
void slr_step_free(slr_step *s);

/* Inputs; all filled by the caller before run. */
typedef struct slr_step_io {
    float *x;         /* [n,h,w,4] noisy latents */
    float *extra;     /* [n,h,w,1+4] mask and latents of the masked picture; NULL where the UNet
                       * takes none */
    float *target;    /* [n,h,w,4] */
    float *t;         /* [n] */
    float *weight;    /* [n] */
    float *delta;     /* [n] huber delta; NULL for l2, l1 */
    slr_text_io text; /* all NULL when text_states */
    float *states;    /* [n,tokens,width]; NULL unless text_states */
    float *pooled;    /* [n,text.pooled]; NULL unless text_states, and where there is none */
    float *sizes;     /* [n,n_sizes*256] slr_text_sizes(); NULL where the UNet takes none */
    int32_t *seed;    /* [2]; NULL without dropout */
    float *ranks;     /* as slr_network_draw_ranks() fills it; NULL where none are drawn */
    float *masks;     /* [n,slr_network_mask_width()], as slr_network_timestep_mask() fills rows;
                       * NULL where there are none */
    int64_t channels; /* of x and target; 4 for all families so far */
    int64_t tokens;   /* of states: 77 or 75*n_chunks+2 */
    slr_text_shape shape; /* of the text side */
    const float *loss;    /* [n], after run: per-sample weighted loss */
    const float *pred;    /* [n,h,w,4], after run */
    const float *grad;    /* flat, laid out as the network's parameter block; zeros where untrained;
                             gradient of mean(loss) */
} slr_step_io;
const slr_step_io *slr_step_io_of(slr_step *s);
int slr_step_run(slr_step *s, const slr_cancel_flag *cancel);
slr_plan *slr_step_plan(slr_step *s);
/* What config.recompute costs and saves; zeros without. */
slr_recompute_cost slr_step_recomputed(const slr_step *s);
/* Ids of the first encoder stand in io->text.ids[0]: the text side's other inputs. */
void slr_step_fill_text(const slr_step *s, const slr_words *words);
/* One sample's numbers, SLR_SAMPLE_SIZES of them, into row i of io->sizes; nothing where the UNet
 * takes none.  score: what a refiner is told in place of the bucket's sizes. */
void slr_step_fill_sizes(const slr_step *s, const float *numbers, float score, int64_t i);
/* A sample's mask and masked latents into row i of io->extra; nothing where the UNet takes none. */
void slr_step_fill_extra(const slr_step *s, const float *extra, int64_t i);

#endif
