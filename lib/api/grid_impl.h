/* SPDX-License-Identifier: MIT */
/* What a grid's handle holds, and what the files of grid_*.c ask of each other. */
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
    bool looked;              /* all that cells name is there */
    sdlora_grid_model_fn models;
    void *models_user;
    sdlora_generator **model; /* by value of the axis that chooses it; NULL: not asked for yet */
    sdlora_generator *drew;   /* the last cell, borrowed; NULL: none is drawn yet */
    slr_cancel_flag cancel;
    _Atomic(sdlora_generator *) running; /* NULL: none */
    sdlora_progress_fn progress;         /* of a run; NULL: none */
    void *progress_user;
    bool told;                              /* run() is at work: cells tell it of their steps */
    double steps_done, steps_before, start; /* steps_before: drawn when the run began */
};

/* As in the names of options. */
static inline char slr_grid_letter(int axis)
{
    return "xyz"[axis];
}

/* --- grid_sides.c --- */

/* Reads type and values of an axis. */
int slr_grid_make_side(sdlora_grid *g, int axis);
bool slr_grid_is_nothing(const slr_grid_side *x);
/* Seeds of -1 are to stay so. */
bool slr_grid_keeps_random(const sdlora_grid *g);
int64_t slr_grid_random_seed(void);

/* --- grid_star.c --- */

/* The values that "*" stands for, as CSV; *out NULL: for itself.  The caller frees it. */
int slr_grid_star(const sdlora_grid *g, const slr_grid_axis *row, char **out);

/* --- grid_cells.c --- */

void slr_grid_order_axes(sdlora_grid *g);
/* Values of the k-th cell to be drawn. */
void slr_grid_place(const sdlora_grid *g, size_t k, size_t at[SLR_GRID_AXES]);
/* Where a cell of these values stands. */
size_t slr_grid_index(const sdlora_grid *g, const size_t at[SLR_GRID_AXES]);
/* The options of a cell, one reference. */
int slr_grid_cell_options(sdlora_options **out, const sdlora_grid *g,
                          const size_t at[SLR_GRID_AXES]);
/* What would fail after hours otherwise, as far as options tell; counts the steps of all cells. */
int slr_grid_check_cells(sdlora_grid *g);

#endif
