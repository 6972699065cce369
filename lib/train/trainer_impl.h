/* SPDX-License-Identifier: MIT */
/* Inside the room: what a trainer holds, and the parts of trainer_*.c that call each other. */
#ifndef SLR_TRAIN_TRAINER_IMPL_H
#define SLR_TRAIN_TRAINER_IMPL_H

#include "graph/policy.h"
#include "models/vae.h"
#include "train/captions.h"
#include "train/inversion.h"
#include "train/lr.h"
#include "train/noise.h"
#include "train/optim.h"
#include "train/outputs.h"
#include "train/state.h"
#include "train/trainer.h"
#include "train/validate.h"

#define SLR_MAX_ACCUMULATION 4096
/* Planned graphs kept, one per bucket and batch size.  One of SD 1.5 holds 2.3 MB beside the
 * workspace that all share, and takes 0.1 s to make again. */
#define SLR_MAX_GRAPHS 32

/* A planned step graph and when it was last used. */
typedef struct slr_step_slot {
    slr_step *step;
    int64_t n, h, w;
    uint64_t used;
} slr_step_slot;

/* What a set of pictures needs to become latents. */
typedef struct slr_feed {
    slr_vae_runner *vae;
    slr_loader *loader;
    slr_cancel_flag *cancel;
    slr_phase_fn phase; /* Nullable */
    void *phase_user;
} slr_feed;

/* How a set of pictures is used. */
typedef struct slr_feed_use {
    slr_policy precision; /* of the autoencoder */
    uint64_t seed;
    int64_t max_steps, max_epochs; /* of the whole run; 0: not known */
    int64_t masks;                 /* as slr_loader_config has them; for inpainting models */
    uint64_t mask_seed;
    slr_cancel_flag *cancel;
} slr_feed_use;

struct slr_trainer {
    slr_mem *m;
    slr_trainer_config c; /* handles are references */
    sdlora_options *opts;
    slr_opt o;
    slr_cancel_flag cancel;
    slr_bpe *bpe;

    /* settings */
    uint64_t seed;
    int n_chunks, clip_skip, accumulation;
    float score; /* that a refiner is told */
    int64_t batch_size, n_batches, total, epochs;
    double max_grad_norm, base_lr[SLR_PART_COUNT];
    unsigned part_mask;
    bool cache_text, cache_on_disk; /* captions are encoded before the first step */
    slr_precision precision;
    slr_noise noise;
    const slr_lr_row *lr;
    slr_lr_plan lr_plan;

    /* parts */
    slr_feed feed, val_feed;
    slr_loader *loader; /* == feed.loader */
    slr_captions *text; /* NULL while a text encoder is trained */
    slr_inversion inversion;
    slr_optim *optim;
    slr_validator *validator;
    slr_captions *val_text;
    slr_step_slot graph[SLR_MAX_GRAPHS];
    uint64_t clock;
    slr_outputs out;
    slr_meta *hashes;

    /* the run */
    slr_run_state run;
    bool begun;
    bool due; /* a step is applied whose saving, validation or line of metrics is not done */
    slr_progress last;  /* of that step */
    uint64_t model;     /* digest: slr_state_parts */
    float *grad;        /* all step graphs put their gradients here */
    int64_t first_step; /* of this process, for the ETA */
    double first_elapsed;
    slr_sample_hook_fn sample;
    void *sample_user;
};

/* trainer_new.c */
/* Settings and parts by the same arguments as slr_trainer_new(), but no pictures and no folder: it
 * can be asked for everything but steps. */
int slr_trainer_make(slr_trainer **out, const slr_trainer_config *config);
/* Validator and its text states; loader NULL: for slr_validator_picture() only. */
int slr_trainer_validator(slr_trainer *t, slr_loader *loader);

/* trainer_feed.c */
slr_weights *slr_trainer_vae(const slr_trainer_config *c); /* NULL: there is none */
/* Of all names and the first bytes of each tensor; w NULL: seed. */
uint64_t slr_trainer_digest(const slr_weights *w, uint64_t seed);
/* How a trainer's pictures are used, and those held out: each with one mask that is the same in
 * all runs. */
slr_feed_use slr_trainer_use(slr_trainer *t);
slr_feed_use slr_trainer_held_out_use(slr_trainer *t);
/* Pictures as latents.  Once all are encoded the autoencoder goes, unless batches need it. */
int slr_feed_open(slr_feed *feed, const slr_trainer_config *c, slr_dataset *data,
                  const slr_feed_use *use);
/* slr_loader_look() with the autoencoder that slr_feed_open() would take; it stays until the feed
 * is closed. */
int slr_feed_look(slr_feed *feed, const slr_trainer_config *c, slr_dataset *data,
                  const slr_feed_use *use, slr_loader_needs *needs);
void slr_feed_close(slr_feed *feed);

/* trainer_graph.c */
/* What the step graph of a shape is made from. */
slr_step_config slr_trainer_step_config(const slr_trainer *t, int64_t n, int64_t h, int64_t w);
/* The planned graph for a shape, made when it is not kept. */
int slr_trainer_graph(slr_trainer *t, int64_t n, int64_t h, int64_t w, slr_step **out);

/* trainer_text.c */
/* The learning rate of each text encoder; the option gets one spelling. */
int slr_trainer_text_rates(slr_trainer *t, double rate[SLR_PART_COUNT]);
/* Settings of the text side; part_mask is there. */
int slr_trainer_read_text(slr_trainer *t);
int slr_trainer_open_text(slr_trainer *t);
int slr_trainer_open_held_out_text(slr_trainer *t);
slr_captions *slr_trainer_held_out_text(const slr_trainer *t);
/* With cache_text_encoder_outputs: encodes all captions and gives the encoders back. */
int slr_trainer_keep_captions(slr_trainer *t);
/* What captions depend on that a state may have otherwise: the network's text encoder modules. */
uint64_t slr_trainer_text_digest(const slr_trainer *t);
/* It is another one now.  After an error captions are encoded when they are asked for. */
int slr_trainer_renew_captions(slr_trainer *t);

/* trainer.c: adds the gradient of one batch to the optimiser's sum. */
int slr_trainer_batch(slr_trainer *t, const slr_batch *b, double *loss);

/* trainer_due.c: saving, validation, samples */
int slr_trainer_due(slr_trainer *t);
int slr_trainer_save_final(slr_trainer *t); /* the last network file alone */
slr_state_parts slr_trainer_state_parts(slr_trainer *t);
int slr_trainer_metadata(slr_trainer *t, slr_meta *meta);
/* scale_weight_norms: kohya's max-norm of every module's update. */
int slr_trainer_scale_norms(slr_trainer *t);

#endif
