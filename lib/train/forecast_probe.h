/* SPDX-License-Identifier: MIT */
/* Inside a forecast: what is measured of a run, and the parts of forecast*.c that measure it.  All
 * of them add to the forecast and may be cancelled; slr_probe_shapes() comes before those of what
 * happens between steps. */
#ifndef SLR_TRAIN_FORECAST_PROBE_H
#define SLR_TRAIN_FORECAST_PROBE_H

#include "train/forecast.h"
#include "train/trainer_impl.h"

typedef struct slr_probe {
    slr_forecast *f;
    const slr_trainer_config *c;
    slr_trainer *t;
    slr_loader_needs needs, val_needs;
    int64_t done, total;
    uint64_t made;        /* bytes after which the trainer was there */
    double spent;         /* seconds for shapes but the first */
    double text_seconds;  /* of one caption */
    char *caption;        /* the one that is kept, with cache_text_encoder_outputs; else NULL */
    uint64_t encoders;    /* bytes of the text encoders that are given back before steps begin */
    double update;        /* seconds of one */
    double hash;          /* seconds per byte */
    uint64_t sample_file; /* bytes of the average one */
} slr_probe;

static inline uint64_t slr_probe_used(const slr_probe *p)
{
    return slr_mem_used(p->c->mem);
}

/* forecast.c: the next part begins.  ECANCELED: the caller's function wants no more. */
int slr_probe_tell(slr_probe *p);

/* forecast_steps.c */
/* Encodes a few pictures of each set. */
int slr_probe_pictures(slr_probe *p);
/* Batches of each shape, the text encoder and the update. */
int slr_probe_shapes(slr_probe *p);

/* forecast_between.c: the held-out loss, samples; nothing where a run has none. */
int slr_probe_validation(slr_probe *p);
int slr_probe_samples(slr_probe *p, const slr_forecast_picture *s, size_t n);

#endif
