/* SPDX-License-Identifier: MIT */
/* What a run will take, before it is run: memory by part, seconds by part, files.  A few pictures
 * are encoded and one step is timed to know; the network stays as it is and nothing is written. */
#ifndef SLR_TRAIN_FORECAST_H
#define SLR_TRAIN_FORECAST_H

#include "base/str.h"
#include "train/trainer.h"

/* Batches of one shape. */
typedef struct slr_forecast_shape {
    int64_t width, height; /* pixels */
    int64_t n;             /* pictures in a batch */
    int64_t batches;       /* per epoch */
    double flops;          /* of one batch, counted; 0: it was not planned */
    double seconds;        /* of one batch */
    bool measured;         /* else scaled by flops, or by pixels */
} slr_forecast_shape;

/* Bytes.  What the library takes is what sdlora_context_memory_used counts. */
typedef struct slr_forecast_memory {
    uint64_t process; /* what is not the library's own: code, stacks, BLAS, pages of mapped files */
    uint64_t handles; /* before the run: data set, network, weights that lie in no mapped file */
    uint64_t packed;  /* weights as the devices' kernels want them */
    uint64_t graphs;  /* lists and inputs of all step graphs */
    uint64_t workspace;  /* activations: the biggest graph's, shared by all */
    uint64_t optimizer;  /* gradients and moments */
    uint64_t text;       /* the text encoder's graph and the states that it keeps */
    uint64_t latents;    /* of all pictures */
    uint64_t encoder;    /* autoencoder with its workspace: before the first step only, unless
                          * crops are random */
    uint64_t validation; /* graph, states and latents of the held-out loss */
    uint64_t samples;    /* pictures drawn between steps */
    uint64_t peak;       /* resident bytes of the process at their highest */
    uint64_t network;    /* parameters; part of handles */
    uint64_t mapped;     /* the model's tensors: read once for packing, then let go */
} slr_forecast_memory;

typedef struct slr_forecast_seconds {
    double load; /* weights packed, graphs planned */
    double encode, text, steps, optimizer, validation, samples, save;
    double total;
    double step; /* mean of one optimiser step with its update */
} slr_forecast_seconds;

enum {
    SLR_FORECAST_NETWORK,
    SLR_FORECAST_STATE,
    SLR_FORECAST_METRICS,
    SLR_FORECAST_CACHE,
    SLR_FORECAST_SAMPLE,
    SLR_FORECAST_FILES
};

/* Files of one sort. */
typedef struct slr_forecast_file {
    int64_t written, kept;
    uint64_t bytes; /* of each */
} slr_forecast_file;

typedef struct slr_forecast {
    int64_t steps, epochs, batches_per_epoch;
    int64_t batches;  /* of the whole run */
    int64_t encoded;  /* pictures */
    int64_t captions; /* encoded, again and again where they change */
    int64_t validations, samples;
    const char *precision;
    slr_forecast_shape *shapes;
    size_t n_shapes;
    slr_forecast_memory memory;
    slr_forecast_seconds seconds;
    slr_forecast_file file[SLR_FORECAST_FILES];
    uint64_t disk; /* of all that is kept */
} slr_forecast;

/* A picture that is drawn at each sampling point. */
typedef struct slr_forecast_picture {
    int64_t width, height, steps;
    bool guided; /* two predictions a step */
} slr_forecast_picture;

/* The same configuration as for slr_trainer_new(); phase is told of "plan".  The option resume is
 * not looked at: the run is taken from its first step.  Caller gives it to slr_forecast_clear(),
 * also after a failure. */
int slr_forecast_make(slr_forecast *out, const slr_trainer_config *config,
                      const slr_forecast_picture *pictures, size_t n_pictures);
void slr_forecast_clear(slr_forecast *f, slr_mem *m);
/* As a JSON object (forecast_json.c). */
void slr_forecast_json(slr_buf *out, const slr_forecast *f);

#endif
