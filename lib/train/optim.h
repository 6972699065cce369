/* SPDX-License-Identifier: MIT */
/* The optimiser over a network's flat block: gradient norm and update as graphs, by ranges of slots
 * with one learning rate (that of the part, times the slot's lr_scale).  Keeps the moments; refuses
 * to know losses and schedules. */
#ifndef SLR_TRAIN_OPTIM_H
#define SLR_TRAIN_OPTIM_H

#include "base/options.h"
#include "graph/exec.h"
#include "networks/network.h"

typedef struct slr_optim slr_optim;

/* Options: optimizer_type (AdamW), optimizer_args ("weight_decay=0.01", "betas=0.9,0.999",
 * "eps=1e-8"). part_mask: bits 1 << SLR_PART_*.  live: which slots can have gradients
 * (slr_step_live()); torch leaves the others alone, decay included.  NULL: all. */
int slr_optim_new(slr_optim **out, slr_mem *m, slr_network *network, slr_devices *devices,
                  slr_opt o, unsigned part_mask, const bool *live);
void slr_optim_free(slr_optim *o);

/* Gradients are summed here between updates: as many floats as the network's block. */
float *slr_optim_grad(slr_optim *o);
/* DyLoRA: one byte per drawn rank, not 0 where there is a gradient.  Others are not updated, and
 * keep their moments.  NULL: the network has no such ranks. */
uint8_t *slr_optim_ranks(slr_optim *o);
/* L2 norm over all trained parts. */
int slr_optim_norm(slr_optim *o, double *norm);
/* Update number `step` (from 1) with a learning rate per part; gradients are multiplied by scale
 * first. */
int slr_optim_apply(slr_optim *o, int64_t step, const double lr[SLR_PART_COUNT], double scale);

/* First and second moments, laid out like the network's block: for saving and resuming. */
float *slr_optim_moments(slr_optim *o, int which);
/* "torch.optim.adamw.AdamW(weight_decay=0.01)": ss_optimizer. */
const char *slr_optim_text(const slr_optim *o);

#endif
