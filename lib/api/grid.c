/* SPDX-License-Identifier: MIT */
/* Grids: three axes over the options of a generator, cell by cell.  The handle; its axes are
 * grid_sides.c's, its cells grid_cells.c's, what draws them grid_draw.c, and how the whole is shown
 * grid_sheet.c. */
#include "api/grid_impl.h"

#include "api/generator.h"
#include "base/status.h"

enum { AXES = SLR_GRID_AXES, MOST_CELLS = 16384 };

static int count_cells(sdlora_grid *g)
{
    slr_opt o = {g->opts, "generate"};
    size_t n = g->axis[0].v.n * g->axis[1].v.n * g->axis[2].v.n; /* each at most 4096 */

    if (n > MOST_CELLS ||
        (double)n * (double)slr_opt_int(o, "width") * (double)slr_opt_int(o, "height") >
            (double)SLR_IMAGE_MAX_PIXELS)
        return slr_fail(SDLORA_EINVAL, "sdlora_grid_new",
                        "a sheet of %zu pictures would be too large: at most %d, and %.0f million "
                        "pixels in all",
                        n, MOST_CELLS, (double)SLR_IMAGE_MAX_PIXELS * 1e-6);
    g->n = n;
    return SDLORA_OK;
}

static int make(sdlora_grid *g)
{
    int models = 0;

    for (int a = 0; a < AXES; a++) {
        SLR_TRY(slr_grid_make_side(g, a));
        models += g->axis[a].row->model;
    }
    if (models > 1)
        return slr_fail(SDLORA_EINVAL, "sdlora_grid_new", "only one axis can choose the model");
    slr_grid_order_axes(g);
    SLR_TRY(count_cells(g));
    g->cell = slr_calloc(g->m, g->n, sizeof(sdlora_image *));
    g->steps = slr_calloc(g->m, g->n, sizeof *g->steps);
    g->model = slr_calloc(g->m, SLR_GRID_MOST, sizeof(sdlora_generator *));
    if (!g->cell || !g->steps || !g->model)
        return SDLORA_ENOMEM;
    SLR_TRY(slr_options_set_int(g->opts, "count", 1));
    if (!slr_grid_keeps_random(g) && slr_opt_int((slr_opt){g->opts, "generate"}, "seed") < 0)
        SLR_TRY(slr_options_set_int(g->opts, "seed", slr_grid_random_seed()));
    return slr_grid_check_cells(g);
}

int sdlora_grid_new(sdlora_grid **out, sdlora_generator *g, const sdlora_options *axes,
                    const sdlora_options *opts)
{
    slr_clear();
    SLR_TRY(slr_api_given(out, "out", __func__));
    *out = NULL;
    SLR_TRY(slr_api_given(g, "g", __func__));
    SLR_TRY(slr_api_given(axes, "axes", __func__));
    SLR_TRY(slr_api_kind(axes, "grid", __func__));
    SLR_TRY(slr_api_kind(opts, "generate", __func__));
    slr_mem *m = g->ckpt->ctx->mem;
    sdlora_grid *grid = slr_calloc(m, 1, sizeof *grid);
    if (!grid)
        return SDLORA_ENOMEM;
    slr_refs_init(&grid->refs);
    grid->m = m;
    grid->g = sdlora_generator_ref(g);
    int rc = slr_options_copy(&grid->axes, axes);
    if (rc >= 0)
        rc = opts ? slr_options_copy(&grid->opts, opts)
                  : slr_options_new(&grid->opts, m, "generate");
    if (rc >= 0)
        rc = make(grid);
    if (rc < 0) {
        slr_error_copy e;

        slr_error_take(&e);
        sdlora_grid_unref(grid);
        return slr_error_put(&e);
    }
    *out = grid;
    return SDLORA_OK;
}

sdlora_grid *sdlora_grid_ref(sdlora_grid *grid)
{
    if (grid)
        slr_refs_get(&grid->refs);
    return grid;
}

void sdlora_grid_unref(sdlora_grid *grid)
{
    if (!grid || !slr_refs_put(&grid->refs))
        return;
    slr_mem *m = grid->m;
    sdlora_generator *g = grid->g;
    for (size_t i = 0; grid->cell && i < grid->n; i++)
        sdlora_image_unref(grid->cell[i]);
    for (size_t i = 0; grid->model && i < SLR_GRID_MOST; i++)
        sdlora_generator_unref(grid->model[i]);
    for (int a = 0; a < AXES; a++) {
        slr_grid_side *x = &grid->axis[a];

        for (size_t i = 0; x->label && i < x->v.n; i++)
            slr_free(m, x->label[i]);
        slr_free(m, x->label);
        slr_free(m, x->typed);
        slr_grid_values_free(&x->v);
    }
    slr_options_unref(grid->axes);
    slr_options_unref(grid->opts);
    slr_free(m, grid->cell);
    slr_free(m, grid->steps);
    slr_free(m, grid->model);
    slr_free(m, grid);
    sdlora_generator_unref(g); /* last: it keeps the context, whose memory this was */
}

int sdlora_grid_set_models(sdlora_grid *grid, sdlora_grid_model_fn fn, void *user)
{
    slr_clear();
    SLR_TRY(slr_api_given(grid, "grid", __func__));
    grid->models = fn;
    grid->models_user = user;
    return SDLORA_OK;
}
