/* SPDX-License-Identifier: MIT */
/* What the handle of a generator holds; for the files of this room that extend it. */
#ifndef SLR_API_GENERATOR_H
#define SLR_API_GENERATOR_H

#include "api/api.h"
#include "api/finder.h"
#include "sample/generator.h"

struct sdlora_generator {
    slr_refs refs;
    sdlora_checkpoint *ckpt;
    sdlora_vae *vae;            /* Nullable */
    sdlora_checkpoint *refiner; /* Nullable */
    slr_generator *gen;
    slr_finder *finder;
    slr_stack_item *items; /* set by the caller, applied to every picture */
    sdlora_network **nets; /* their handles, in the same order */
    size_t n, items_cap, nets_cap;
    sdlora_sample_fn progress;
    void *user;
    slr_cancel_flag cancel;
};

/* A request of the options, the handle's networks, progress and cancel flag. */
int slr_api_request(slr_request *out, sdlora_generator *g, const sdlora_options *opts);

#endif
