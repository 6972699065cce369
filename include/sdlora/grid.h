/* SPDX-License-Identifier: MIT */
/**
 * @file sdlora/grid.h
 * X/Y/Z grids: one picture for each combination of up to three settings, on labelled sheets.
 *
 * Axes have the names, and values the grammar, of AUTOMATIC1111's X/Y/Z script: "Seed", "Steps",
 * "CFG Scale", "Prompt S/R", "Sampler", "Checkpoint name" ...; "a, b" is CSV, and numbers may be
 * ranges: "1-10", "1-10 (+2)", "0-1 [5]"; "*" is every sampler, schedule or other choice of an
 * option, and for VAEs, upscalers and checkpoints the files of the generator's directories too.  An
 * option's own name is an axis as well ("width").  Our own are "Hires checkpoint", and "LoRA", "LoRA
 * weight" and "LoRA epoch", which change name or strength of the prompt's first <lora:name:weight>,
 * or add one; the LoRA "None" is the picture without it.
 * Thread: one thread at a time per grid and its generator.  Return, out and text rules: see
 * sdlora/context.h.
 */
#ifndef SDLORA_GRID_H
#define SDLORA_GRID_H

#include <sdlora/sampler.h>
#include <sdlora/trainer.h>

SDLORA_BEGIN_DECLS

/**
 * Makes a grid; all of its cells are checked now, and nothing is drawn yet.
 * @param axes  kind "grid": x_type, x_values, y_type ...
 * @param opts  Nullable.  Kind "generate": what the cells have in common.  Copied; a random seed is
 * drawn once, for all cells, unless the option no_fixed_seeds says otherwise. Errors:
 * SDLORA_ENOTFOUND for an axis that there is not, SDLORA_EINVAL for a value; both are named.
 */
SDLORA_API int sdlora_grid_new(sdlora_grid **out, sdlora_generator *g, const sdlora_options *axes,
                               const sdlora_options *opts);
SDLORA_API sdlora_grid *sdlora_grid_ref(sdlora_grid *grid);
SDLORA_API void sdlora_grid_unref(sdlora_grid *grid);

/**
 * Gives the generator of a model, for the axis "Checkpoint name": one reference.  Called once for
 * each value, before the first cell is drawn.  `name` is the value, or the path of the file that it
 * names in the directories of models of the grid's generator (sdlora_generator_add_ckpt_dir()).  One of them has its weights packed at a time: drawing
 * with the next lets the last one rest.
 */
typedef int (*sdlora_grid_model_fn)(sdlora_generator **out, const char *name, void *user);
SDLORA_API int sdlora_grid_set_models(sdlora_grid *grid, sdlora_grid_model_fn fn, void *user);

/** How many values an axis has: 0: x, 1: y, 2: z.  1 for "Nothing". */
SDLORA_API size_t sdlora_grid_size(const sdlora_grid *grid, int axis);
/** What stands beside the pictures of its i-th value; "" for "Nothing"; NULL past the last. */
SDLORA_API const char *sdlora_grid_label(const sdlora_grid *grid, int axis, size_t i);

/**
 * Draws the next cell; axes that are dear to change are changed last.  Before the first one, every
 * model, VAE, upscaler, style and network that a cell names is looked for, and an axis whose setting
 * a handle decides (a generator made with a VAE and "VAE") is refused.
 * @return SDLORA_DONE when all are drawn.  After a failure the same cell comes next.
 */
SDLORA_API int sdlora_grid_step(sdlora_grid *grid);
/** Draws all that is left.  @param progress  Nullable: phase "sample", steps of all cells. */
SDLORA_API int sdlora_grid_run(sdlora_grid *grid, sdlora_progress_fn progress, void *user);
/** Asks a running step() or run() to stop between two kernels.  Thread: any, and signal handlers.
 */
SDLORA_API void sdlora_grid_cancel(sdlora_grid *grid);

/** A cell, borrowed; NULL: not drawn yet. */
SDLORA_API sdlora_image *sdlora_grid_cell(const sdlora_grid *grid, size_t x, size_t y, size_t z);
/**
 * The labelled sheet of one value of z, or of all, side by side; cells not drawn yet are white. Its
 * parameters are those of its first cell, and the axes.
 * @param z  -1: all.
 */
SDLORA_API int sdlora_grid_sheet(sdlora_image **out, const sdlora_grid *grid, int64_t z);

/** Names of axes besides those of options, in table order; NULL past the last. */
SDLORA_API const char *sdlora_grid_axis_name(size_t i);

SDLORA_END_DECLS
#endif /* SDLORA_GRID_H */
