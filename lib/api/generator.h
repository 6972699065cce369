/* SPDX-License-Identifier: MIT */
/* What the handle of a generator holds; for the files of this room that extend it. */
#ifndef SLR_API_GENERATOR_H
#define SLR_API_GENERATOR_H

#include "api/api.h"
#include "api/finder.h"
#include "api/start.h"
#include "sample/generator.h"

/* Who looks on. */
typedef struct slr_api_draw_watch {
    sdlora_progress_fn fn; /* Nullable */
    void *user;
    const slr_run_progress *now; /* during fn, else NULL */
    bool started;
    double start, last;         /* clock at the run's first report, and at the last one */
    double seconds[3];          /* spent by phase */
    int phase, steps, pictures; /* where it is; steps made and pictures decoded so far */
    int done, total;            /* steps of the picture at hand; total 0: not known yet */
} slr_api_draw_watch;

struct sdlora_generator {
    slr_refs refs;
    sdlora_checkpoint *ckpt;
    sdlora_vae *vae; /* Nullable */
    slr_generator *gen;
    slr_finder *finder;
    slr_stack_item *items; /* set by the caller, applied to every picture */
    sdlora_network **nets; /* their handles, in the same order */
    size_t n, items_cap, nets_cap;
    sdlora_sample_fn progress;
    void *user;
    slr_api_draw_watch watch;
    slr_api_start start;
    slr_cancel_flag cancel;
};

/* A request of the options, the handle's networks, progress and cancel flag. */
int slr_api_request(slr_request *out, sdlora_generator *g, const sdlora_options *opts);

/* Who looks on at a run: before it, and at each of its reports (non-zero: it is to end). */
void slr_api_watch_begin(sdlora_generator *g);
int slr_api_watch_tell(sdlora_generator *g, const slr_run_progress *p);

#endif
