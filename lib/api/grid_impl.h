/* SPDX-License-Identifier: MIT */
/* What a grid's handle holds.  For grid.c, which draws, and grid_sheet.c, which shows. */
#ifndef SLR_API_GRID_IMPL_H
#define SLR_API_GRID_IMPL_H

#include <sdlora/grid.h>

#include "api/api.h"
#include "api/grid_axes.h"

enum { SLR_GRID_AXES = 3 };

typedef struct slr_grid_side {
    slr_grid_axis own; /* of an option's name */
    const slr_grid_axis *row;
    slr_grid_values v; /* one empty value for "Nothing" */
    char *typed;       /* the values as written */
    char **label;
} slr_grid_side;

struct sdlora_grid {
    slr_refs refs;
    slr_mem *m;
    sdlora_generator *g;
    sdlora_options *axes, *opts;
    slr_grid_side axis[SLR_GRID_AXES];
    size_t n, done;           /* cells; drawn ones, in the order of drawing */
    int order[SLR_GRID_AXES]; /* axes, the one that changes least often first */
    sdlora_image **cell;
    double *steps, all_steps; /* of the cells: how long one takes */
    sdlora_grid_model_fn models;
    void *models_user;
    sdlora_generator **model; /* by value of the axis that chooses it; NULL: not asked for yet */
    slr_cancel_flag cancel;
    _Atomic(sdlora_generator *) running; /* NULL: none */
    sdlora_progress_fn progress;         /* of a run; NULL: none */
    void *progress_user;
    bool told;                              /* run() is at work: cells tell it of their steps */
    double steps_done, steps_before, start; /* steps_before: drawn when the run began */
};

/* Where a cell of these values stands. */
size_t slr_grid_index(const sdlora_grid *g, const size_t at[SLR_GRID_AXES]);
bool slr_grid_is_nothing(const slr_grid_side *x);
/* Seeds of -1 are to stay so. */
bool slr_grid_keeps_random(const sdlora_grid *g);

#endif
