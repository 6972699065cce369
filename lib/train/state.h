/* SPDX-License-Identifier: MIT */
/* The state of a run in one file: everything that a resumed run needs to go on byte for byte, and
 * the facts by which a changed data set or changed options are told. */
#ifndef SLR_TRAIN_STATE_H
#define SLR_TRAIN_STATE_H

#include "data/dataset.h"
#include "networks/network.h"
#include "train/optim.h"

typedef struct slr_run_state {
    int64_t step, epoch, index; /* optimiser steps done; next batch */
    uint64_t session;
    double started;
    double elapsed;
    int64_t n_losses; /* of the recorder below */
    float *losses;    /* moving average over one epoch: batches_per_epoch floats */
    double val_loss;
} slr_run_state;

typedef struct slr_state_parts {
    slr_mem *m;
    slr_network *network;
    slr_optim *optim;
    const slr_dataset *data;
    bool masks;   /* those of the pictures are used */
    slr_opt opts; /* "train" */
    int64_t batches_per_epoch;
    uint64_t model; /* digest of base model, VAE and prediction type */
} slr_state_parts;

#define SLR_STATE_FILE "state.safetensors"

/* dir/state.safetensors, whole or not at all. */
int slr_state_save(const slr_state_parts *p, const slr_run_state *s, const char *dir);
/* How big that file is, within a few bytes. */
int slr_state_size(const slr_state_parts *p, const slr_run_state *s, uint64_t *bytes);
/* EINVAL lists what differs from the run that saved it. */
int slr_state_load(const slr_state_parts *p, slr_run_state *s, const char *dir);

#endif
