/* SPDX-License-Identifier: MIT */
/* Looking at a grid: labels, cells, and sheets with the axes in their parameters.  Refuses to know
 * how cells are drawn, and where on a sheet a picture stands (sheet.c). */
#include "api/generator.h"
#include "api/grid_impl.h"
#include "api/grid_text.h"
#include "api/sheet.h"
#include "base/status.h"

size_t sdlora_grid_size(const sdlora_grid *grid, int which)
{
    return grid && which >= 0 && which < SLR_GRID_AXES ? grid->axis[which].v.n : 0;
}

const char *sdlora_grid_label(const sdlora_grid *grid, int which, size_t i)
{
    return i < sdlora_grid_size(grid, which) ? grid->axis[which].label[i] : NULL;
}

sdlora_image *sdlora_grid_cell(const sdlora_grid *grid, size_t x, size_t y, size_t z)
{
    const size_t at[SLR_GRID_AXES] = {x, y, z};

    for (int a = 0; a < SLR_GRID_AXES; a++)
        if (at[a] >= sdlora_grid_size(grid, a))
            return NULL;
    return grid->cell[slr_grid_index(grid, at)];
}

const char *sdlora_grid_axis_name(size_t i)
{
    const slr_grid_axis *row = slr_grid_axis_at(i);

    return row ? row->label : NULL;
}

/* Cells are rows of x, so each value of z has its own stretch. */
static sdlora_image *const *cells_of(const sdlora_grid *g, size_t z)
{
    return g->cell + z * g->axis[0].v.n * g->axis[1].v.n;
}

static bool is_drawn(const sdlora_grid *g, size_t z)
{
    for (size_t i = 0; i < g->axis[0].v.n * g->axis[1].v.n; i++)
        if (cells_of(g, z)[i])
            return true;
    return false;
}

/* The first cell's parameters with the axes up to `last`; NULL where there are none. */
static int sheet_text(char **out, const sdlora_grid *g, size_t z, int last)
{
    const sdlora_image *first = *cells_of(g, z);
    const char *text = sdlora_image_text(first);
    slr_grid_words words[SLR_GRID_AXES];
    size_t n = 0;

    *out = NULL;
    if (!*text)
        return SDLORA_OK;
    for (int a = 0; a <= last; a++) {
        const slr_grid_side *x = &g->axis[a];

        if (!slr_grid_is_nothing(x))
            words[n++] =
                (slr_grid_words){.letter = (char)('X' + a),
                                 .type = x->row->label,
                                 .values = x->typed,
                                 .fixed = x->row->seed && !slr_grid_keeps_random(g) ? &x->v : NULL};
    }
    return slr_grid_text(out, g->m, text, words, n);
}

static const char *const *labels_of(const sdlora_grid *g, int a)
{
    bool legend = slr_opt_bool((slr_opt){g->axes, "grid"}, "draw_legend");

    return legend && !slr_grid_is_nothing(&g->axis[a]) ? (const char *const *)g->axis[a].label
                                                       : NULL;
}

static int one_sheet(sdlora_image **out, const sdlora_grid *g, size_t z, int last)
{
    char *text;
    slr_sheet config = {.cells = cells_of(g, z),
                        .rows = g->axis[1].v.n,
                        .columns = g->axis[0].v.n,
                        .row_labels = labels_of(g, 1),
                        .column_labels = labels_of(g, 0),
                        .gap = (int32_t)slr_opt_int((slr_opt){g->axes, "grid"}, "margin_size"),
                        .mixed = true};

    SLR_TRY(sheet_text(&text, g, z, last));
    return slr_sheet_make(out, g->g->ckpt->ctx, &config, text);
}

/* Sheets side by side. */
static int all_sheets(sdlora_image **out, const sdlora_grid *g)
{
    size_t n = g->axis[2].v.n;
    char *text = NULL;
    sdlora_image **sheet = slr_calloc(g->m, n, sizeof(sdlora_image *));
    slr_sheet config = {.cells = sheet,
                        .rows = 1,
                        .columns = n,
                        .column_labels = labels_of(g, 2),
                        .gap = (int32_t)slr_opt_int((slr_opt){g->axes, "grid"}, "margin_size"),
                        .mixed = true,
                        .pixels = true};
    int rc = sheet ? SDLORA_OK : SDLORA_ENOMEM;

    for (size_t z = 0; rc >= 0 && z < n; z++)
        if (is_drawn(g, z))
            rc = one_sheet(&sheet[z], g, z, 1);
    if (rc >= 0)
        rc = sheet_text(&text, g, 0, 2);
    if (rc >= 0)
        rc = slr_sheet_make(out, g->g->ckpt->ctx, &config, text);
    for (size_t z = 0; sheet && z < n; z++)
        sdlora_image_unref(sheet[z]);
    slr_free(g->m, sheet);
    return rc;
}

int sdlora_grid_sheet(sdlora_image **out, const sdlora_grid *grid, int64_t z)
{
    slr_clear();
    SLR_TRY(slr_api_given(out, "out", __func__));
    *out = NULL;
    SLR_TRY(slr_api_given(grid, "grid", __func__));
    size_t n = grid->axis[2].v.n;
    if (z < -1 || z >= (int64_t)n)
        return slr_fail(SDLORA_EINVAL, __func__, "z is %lld; there are %zu values", (long long)z,
                        n);
    for (size_t i = 0; i < n; i++)
        if ((z < 0 || (size_t)z == i) && is_drawn(grid, i))
            return z >= 0   ? one_sheet(out, grid, (size_t)z, 1)
                   : n == 1 ? one_sheet(out, grid, 0, 2)
                            : all_sheets(out, grid);
    return slr_fail(SDLORA_EINVAL, __func__, "nothing is drawn yet");
}
