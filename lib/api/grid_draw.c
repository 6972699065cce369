/* SPDX-License-Identifier: MIT */
/* Draws the cells of a grid, one after the other, each with its generator and its options. */
#include "api/grid_impl.h"

#include <math.h>
#include <string.h>

#include "api/generator.h"
#include "base/clock.h"
#include "base/status.h"

enum { AXES = SLR_GRID_AXES };

/* The file that a name means in the directories of models; *path NULL: none, or it is a path. */
static int find_model(const sdlora_grid *g, const char *name, char **path)
{
    *path = NULL;
    if (!g->g->start.ckpts.dirs.n || slr_file_exists(name) || slr_dir_exists(name))
        return SDLORA_OK;
    int rc = slr_api_other_named(g->g, slr_api_title_of(name).name, path);
    return rc == SDLORA_ENOTFOUND ? SDLORA_OK : rc;
}

/* The caller's function may fail without a text. */
static int ask_for_model(const sdlora_grid *g, const char *name, sdlora_generator **model)
{
    slr_error_copy e;
    char *path;

    SLR_TRY(find_model(g, name, &path));
    slr_clear();
    int rc = g->models(model, path ? path : name, g->models_user);
    slr_error_take(&e);
    slr_free(g->m, path);
    if (rc < 0 && e.code != rc)
        return slr_fail(rc, __func__, "there is no generator of the model '%.200s'", name);
    return rc;
}

/* The generator of a cell, borrowed. */
static int generator_of(sdlora_grid *g, const size_t at[AXES], sdlora_generator **out)
{
    *out = g->g;
    for (int a = 0; a < AXES; a++) {
        const slr_grid_side *x = &g->axis[a];

        if (!x->row->model)
            continue;
        if (!g->models)
            return slr_fail(SDLORA_EINVAL, __func__,
                            "'%s': nobody gives generators of other models; see "
                            "sdlora_grid_set_models()",
                            x->row->label);
        sdlora_generator *made = NULL;
        if (!g->model[at[a]]) {
            SLR_TRY(ask_for_model(g, x->v.at[at[a]].text, &made));
            g->model[at[a]] = made;
        }
        *out = g->model[at[a]];
    }
    return slr_api_given(*out, "out of the function of sdlora_grid_set_models()", __func__);
}

/* Packed weights are many times a picture: one model has them at a time.  Cells of a model follow
 * one another (grid_axes.c), so that none is packed twice. */
static void change_model(sdlora_grid *g, sdlora_generator *gen)
{
    if (g->drew && g->drew != gen)
        slr_generator_rest(g->drew->gen);
    g->drew = gen;
}

static int cell_progress(const sdlora_progress *cell, void *user)
{
    sdlora_grid *g = user;
    double steps = g->steps[g->done], share = 0, now = slr_clock();

    if (atomic_load(&g->cancel))
        return 1;
    if (!g->progress)
        return 0;
    if (cell->phase_total > 0)
        share = (double)cell->phase_done / (double)cell->phase_total;
    double done = g->steps_done + steps * share;
    const sdlora_progress p = {
        .struct_size = sizeof p,
        .step = (int64_t)g->done,
        .total = (int64_t)g->n,
        .val_loss = NAN,
        .elapsed = now - g->start,
        .eta = done > g->steps_before
                   ? (now - g->start) / (done - g->steps_before) * (g->all_steps - done)
                   : NAN,
        .phase = "sample",
        .phase_done = (int64_t)done,
        .phase_total = (int64_t)g->all_steps,
    };
    return g->progress(&p, g->progress_user);
}

/* Runs a cell with the grid's progress in place of the generator's own. */
static int run_told(sdlora_grid *g, sdlora_generator *gen, const sdlora_options *o,
                    sdlora_image **out)
{
    sdlora_progress_fn fn = gen->watch.fn;
    void *user = gen->watch.user;

    gen->watch.fn = cell_progress;
    gen->watch.user = g;
    int rc = sdlora_generator_run(gen, o, out, 1);
    gen->watch.fn = fn;
    gen->watch.user = user;
    return rc;
}

static int canceled(void)
{
    return slr_fail(SDLORA_ECANCELED, "sdlora_grid_step", "canceled");
}

static int draw_cell(sdlora_grid *g, const size_t at[AXES])
{
    sdlora_generator *gen;
    sdlora_options *o;

    SLR_TRY(generator_of(g, at, &gen));
    SLR_TRY(slr_grid_cell_options(&o, g, at));
    change_model(g, gen);
    atomic_store(&g->running, gen);
    sdlora_image **cell = &g->cell[slr_grid_index(g, at)];
    int rc = atomic_load(&g->cancel) ? canceled()
             : g->told               ? run_told(g, gen, o, cell)
                                     : sdlora_generator_run(gen, o, cell, 1);
    atomic_store(&g->running, NULL);
    slr_error_copy e; /* options may free what the text was made of, and clear nothing */
    slr_error_take(&e);
    slr_options_unref(o);
    return rc < 0 ? slr_error_put(&e) : rc;
}

/* An axis whose option has no say in this generator. */
static int check_axes(const sdlora_grid *g, const sdlora_generator *gen)
{
    const struct {
        const char *option;
        bool idle;
        const char *why;
    } idle[] = {
        {"sd_vae", gen->vae != NULL, "the generator was made with a VAE"},
        {slr_api_other_option(SLR_ROLE_REFINER), gen->start.other[SLR_ROLE_REFINER].given != NULL,
         "the generator was given a refiner"},
        {slr_api_other_option(SLR_ROLE_SECOND), gen->start.other[SLR_ROLE_SECOND].given != NULL,
         "the generator was given a model for second passes"},
    };

    for (int a = 0; a < AXES; a++)
        for (size_t i = 0; i < sizeof idle / sizeof *idle; i++)
            if (idle[i].idle && g->axis[a].row->option &&
                !strcmp(g->axis[a].row->option, idle[i].option))
                return slr_fail(SDLORA_EINVAL, __func__, "'%s' would change nothing: %s",
                                g->axis[a].row->label, idle[i].why);
    return SDLORA_OK;
}

/* Models, VAEs, upscalers, styles and networks that a cell names. */
static int look_up_cell(sdlora_grid *g, const size_t at[AXES])
{
    sdlora_generator *gen;
    sdlora_options *o;
    slr_request r;

    if (atomic_load(&g->cancel))
        return canceled();
    SLR_TRY(generator_of(g, at, &gen));
    SLR_TRY(check_axes(g, gen));
    SLR_TRY(slr_grid_cell_options(&o, g, at));
    int rc = slr_api_request(&r, gen, o);
    if (rc >= 0)
        rc = slr_generator_check(gen->gen, &r);
    slr_error_copy e;
    slr_error_take(&e);
    slr_options_unref(o);
    return rc < 0 ? slr_error_put(&e) : SDLORA_OK;
}

/* In the order of drawing, so that each model and VAE is opened once. */
static int look_up(sdlora_grid *g)
{
    for (size_t k = 0; k < g->n; k++) {
        size_t at[AXES];

        slr_grid_place(g, k, at);
        SLR_TRY(look_up_cell(g, at));
    }
    g->looked = true;
    return SDLORA_OK;
}

static int step(sdlora_grid *g)
{
    size_t at[AXES];

    if (g->done == g->n)
        return SDLORA_DONE;
    if (!g->looked)
        SLR_TRY(look_up(g));
    slr_grid_place(g, g->done, at);
    SLR_TRY(draw_cell(g, at));
    g->steps_done += g->steps[g->done++];
    return SDLORA_OK;
}

int sdlora_grid_step(sdlora_grid *grid)
{
    slr_clear();
    SLR_TRY(slr_api_given(grid, "grid", __func__));
    atomic_store(&grid->cancel, 0);
    return step(grid);
}

int sdlora_grid_run(sdlora_grid *grid, sdlora_progress_fn progress, void *user)
{
    int rc = SDLORA_OK;

    slr_clear();
    SLR_TRY(slr_api_given(grid, "grid", __func__));
    atomic_store(&grid->cancel, 0);
    grid->progress = progress;
    grid->progress_user = user;
    grid->start = slr_clock();
    grid->steps_before = grid->steps_done;
    grid->told = true;
    while (rc == SDLORA_OK)
        rc = step(grid);
    grid->told = false;
    return rc < 0 ? rc : SDLORA_OK;
}

void sdlora_grid_cancel(sdlora_grid *grid)
{
    if (!grid)
        return;
    atomic_store(&grid->cancel, 1);
    sdlora_generator_cancel(atomic_load(&grid->running)); /* kept alive by the grid */
}
