/* SPDX-License-Identifier: MIT */
/* What axes of a grid do to prompts.  Each has the shape of slr_grid_axis.apply. */
#ifndef SLR_API_GRID_PROMPT_H
#define SLR_API_GRID_PROMPT_H

#include "api/grid_axes.h"

/* The first value, wherever it stands, by the i-th. */
int slr_grid_replace(const slr_grid_axis *a, slr_mem *m, sdlora_options *o,
                     const slr_grid_values *v, size_t i);
/* The texts of the axis in their i-th order. */
int slr_grid_reorder(const slr_grid_axis *a, slr_mem *m, sdlora_options *o,
                     const slr_grid_values *v, size_t i);

/* The first <lora:name:weight>: another name, or a tag at the end of a prompt that has none;
 * "None" takes it out: the picture without. */
int slr_grid_lora(const slr_grid_axis *a, slr_mem *m, sdlora_options *o, const slr_grid_values *v,
                  size_t i);
bool slr_grid_names_none(const char *name);
/* Another weight.  Weights by position are replaced; those by name would win over them and go. */
int slr_grid_lora_weight(const slr_grid_axis *a, slr_mem *m, sdlora_options *o,
                         const slr_grid_values *v, size_t i);
/* "run", "run-000004" -> "run-000002": how epochs of a run are saved. */
int slr_grid_lora_epoch(const slr_grid_axis *a, slr_mem *m, sdlora_options *o,
                        const slr_grid_values *v, size_t i);

/* More styles behind those that are there: "a, b" is two. */
int slr_grid_add_styles(const slr_grid_axis *a, slr_mem *m, sdlora_options *o,
                        const slr_grid_values *v, size_t i);

#endif
