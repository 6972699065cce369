/* SPDX-License-Identifier: MIT */
/* The ss_* and modelspec.* metadata of a trained network, spelled as kohya's trainer spells it. */
#ifndef SLR_TRAIN_METADATA_H
#define SLR_TRAIN_METADATA_H

#include "data/dataset.h"
#include "models/checkpoint.h"
#include "networks/netfile.h"

/* What only the loop knows. */
typedef struct slr_run_facts {
    slr_opt opts; /* "train" */
    const slr_network *network;
    const slr_dataset *data;
    slr_checkpoint *base;
    const char *vae_path;  /* Nullable */
    const char *optimizer; /* slr_optim_text */
    uint64_t session;
    double started, now; /* Unix seconds */
    int64_t steps, epoch, epochs, max_steps, batches_per_epoch, validation_images, seed;
    bool v_prediction;
} slr_run_facts;

/* Rows of keys that are one option's value: false past the last. */
bool slr_metadata_row(size_t i, const char **key, const char **kind, const char **option);
/* Fills an empty meta.  Model hashes are computed once and kept in *hashes (a cache the caller
 * owns). */
int slr_metadata_fill(slr_meta *meta, slr_mem *m, const slr_run_facts *f, slr_meta *hashes);

#endif
