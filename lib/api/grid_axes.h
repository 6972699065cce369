/* SPDX-License-Identifier: MIT */
/* What an axis of a grid may be: rows under the names of AUTOMATIC1111's X/Y/Z script, and how a
 * value of one changes the options of a picture. */
#ifndef SLR_API_GRID_AXES_H
#define SLR_API_GRID_AXES_H

#include "api/grid_values.h"
#include "base/options.h"

typedef struct slr_grid_axis slr_grid_axis;

/* Directories of the generator. */
enum { SLR_GRID_NO_FILES = 0, SLR_GRID_VAES, SLR_GRID_UPSCALERS, SLR_GRID_CHECKPOINTS };

struct slr_grid_axis {
    const char *label;
    const char *option; /* of kind "generate" that the value goes to; NULL: apply knows */
    int type;           /* SLR_GRID_* */
    bool bare;          /* pictures are labelled by the value alone */
    bool seed;          /* -1 becomes a random one, kept for the whole grid */
    bool path;          /* labels leave folders out */
    bool model;         /* another generator: apply does nothing */
    const char *(*choice)(size_t i); /* Nullable: what "*" stands for besides the choices of the
                                      * option; NULL past the last */
    int files; /* SLR_GRID_*: where files are that "*" stands for as well */
    bool tag;                        /* changes the tag that "LoRA" may take out */
    double cost;                     /* of a change, against others: dear ones are changed seldom */
    /* Nullable: puts value i into o. */
    int (*apply)(const slr_grid_axis *a, slr_mem *m, sdlora_options *o, const slr_grid_values *v,
                 size_t i);
};

/* The row of a label, in any case of letters; an option's own name is a label too, whose row is
 * written to *own.  NULL and ENOTFOUND with the nearest label: there is none. */
const slr_grid_axis *slr_grid_axis_find(const char *label, slr_grid_axis *own);
/* Rows in order; NULL past the last. */
const slr_grid_axis *slr_grid_axis_at(size_t i);

/* Whether value i is a "LoRA" of "None": axes that change its tag have nothing to do then. */
bool slr_grid_axis_is_none(const slr_grid_axis *a, const slr_grid_values *v, size_t i);
int slr_grid_axis_apply(const slr_grid_axis *a, slr_mem *m, sdlora_options *o,
                        const slr_grid_values *v, size_t i);
/* What stands beside the pictures: "CFG Scale: 7.0".  Caller frees; NULL: ENOMEM. */
char *slr_grid_axis_label(const slr_grid_axis *a, slr_mem *m, const slr_grid_value *v);

#endif
