/* SPDX-License-Identifier: MIT */
/* Grids: three axes over the options of a generator, cell by cell.  Knows the order of cells and
 * which options each is drawn with; refuses to know what an axis does to options (grid_axes.c) and
 * how the whole is shown (grid_sheet.c). */
#include "api/grid_impl.h"

#include <math.h>
#include <string.h>

#include "api/generator.h"
#include "base/clock.h"
#include "base/rng.h"
#include "base/status.h"
#include "base/str.h"

enum { AXES = SLR_GRID_AXES, MOST_CELLS = 16384 };

static const char letters[AXES] = {'x', 'y', 'z'};

/* --- making --- */

static int64_t random_seed(void)
{
    slr_rng rng;

    slr_rng_init(&rng, slr_clock_seed(), SLR_STREAM_EVAL, 0);
    return (int64_t)slr_rng_below(&rng, 4294967294u);
}

bool slr_grid_keeps_random(const sdlora_grid *g)
{
    return slr_opt_bool((slr_opt){g->axes, "grid"}, "no_fixed_seeds");
}

static const char *option_of(const sdlora_grid *g, int a, const char *what)
{
    char name[16] = {letters[a], '_'};

    memcpy(name + 2, what, strlen(what) + 1);
    const char *text = slr_opt_text((slr_opt){g->axes, "grid"}, name);
    return text ? text : "";
}

static int fix_seeds(slr_mem *m, slr_grid_side *x)
{
    for (size_t i = 0; i < x->v.n; i++) {
        slr_grid_value *v = &x->v.at[i];
        slr_buf b;

        if (v->i != -1)
            continue;
        v->i = random_seed();
        slr_free(m, v->text);
        slr_buf_init(&b, m);
        slr_buf_printf(&b, "%lld", (long long)v->i);
        v->text = slr_buf_take(&b);
        if (!v->text)
            return SDLORA_ENOMEM;
    }
    return SDLORA_OK;
}

static int make_labels(slr_mem *m, slr_grid_side *x)
{
    x->label = slr_calloc(m, x->v.n, sizeof *x->label);
    if (!x->label)
        return SDLORA_ENOMEM;
    for (size_t i = 0; i < x->v.n; i++)
        if (!(x->label[i] = slr_grid_axis_label(x->row, m, &x->v.at[i])))
            return SDLORA_ENOMEM;
    return SDLORA_OK;
}

bool slr_grid_is_nothing(const slr_grid_side *x)
{
    return x->row == slr_grid_axis_at(0);
}

/* The values as written; "*" is all that there is to choose from. */
static char *typed_values(const sdlora_grid *g, int a)
{
    const slr_grid_side *x = &g->axis[a];
    const char *text = slr_grid_is_nothing(x) ? "" : option_of(g, a, "values"), *one;
    slr_buf b;

    if (!x->row->choice || strcmp(text, "*") != 0)
        return slr_strdup(g->m, text);
    slr_buf_init(&b, g->m);
    for (size_t i = 0; (one = x->row->choice(i)) != NULL; i++)
        slr_buf_printf(&b, "%s%s", i ? "," : "", one);
    return slr_buf_take(&b);
}

static int make_axis(sdlora_grid *g, int a)
{
    slr_grid_side *x = &g->axis[a];
    bool lines = slr_opt_bool((slr_opt){g->axes, "grid"}, "raw_mode");

    x->row = slr_grid_axis_find(option_of(g, a, "type"), &x->own);
    if (!x->row)
        return slr_wrap("%c_type", letters[a]);
    x->typed = typed_values(g, a);
    if (!x->typed)
        return SDLORA_ENOMEM;
    if (x->row->option && !slr_option_find("generate", x->row->option))
        return slr_fail(SDLORA_ENOTSUP, __func__, "%c_type: '%s' is not supported yet", letters[a],
                        x->row->label);
    int rc = slr_grid_values_read(&x->v, g->m, x->row->type,
                                  slr_grid_is_nothing(x) ? "\"\"" : x->typed, lines);
    if (rc >= 0 && !x->v.n)
        rc = slr_fail(SDLORA_EINVAL, __func__, "there is no value");
    if (rc < 0)
        return slr_wrap("%c_values of '%s'", letters[a], x->row->label);
    if (x->row->seed && !slr_grid_keeps_random(g))
        SLR_TRY(fix_seeds(g->m, x));
    return make_labels(g->m, x);
}

/* Dear axes first; of equal ones z before y before x. */
static void order_axes(sdlora_grid *g)
{
    for (int i = 0; i < AXES; i++) {
        int a = AXES - 1 - i, at = i;

        for (; at > 0 && g->axis[g->order[at - 1]].row->cost < g->axis[a].row->cost; at--)
            g->order[at] = g->order[at - 1];
        g->order[at] = a;
    }
}

/* Values of the k-th cell to be drawn. */
static void place_of(const sdlora_grid *g, size_t k, size_t at[AXES])
{
    for (int i = AXES; i-- > 0;) {
        const slr_grid_side *x = &g->axis[g->order[i]];

        at[g->order[i]] = k % x->v.n;
        k /= x->v.n;
    }
}

size_t slr_grid_index(const sdlora_grid *g, const size_t at[AXES])
{
    return at[0] + g->axis[0].v.n * (at[1] + g->axis[1].v.n * at[2]);
}

/* Other seeds along axes that are to have them, counting up through the cells. */
static int vary_seed(const sdlora_grid *g, sdlora_options *o, const size_t at[AXES])
{
    int64_t seed = slr_opt_int((slr_opt){o, "generate"}, "seed"), step = 1;
    bool any = false;

    for (int a = 0; a < AXES; a++) {
        char name[] = "vary_seeds_x";

        name[sizeof name - 2] = letters[a];
        if (!slr_opt_bool((slr_opt){g->axes, "grid"}, name))
            continue;
        any = true;
        if (seed >= 0 && seed > INT64_MAX - (int64_t)at[a] * step)
            return slr_fail(SDLORA_EINVAL, __func__, "the seed %lld is too large to count up from",
                            (long long)seed);
        seed += seed >= 0 ? (int64_t)at[a] * step : 0;
        step *= (int64_t)g->axis[a].v.n;
    }
    return any ? slr_options_set_int(o, "seed", seed) : SDLORA_OK;
}

/* The options of a cell, one reference. */
static int cell_options(sdlora_options **out, const sdlora_grid *g, const size_t at[AXES])
{
    SLR_TRY(slr_options_copy(out, g->opts));
    int rc = SDLORA_OK;
    bool without = false;

    for (int a = 0; a < AXES; a++)
        without = without || slr_grid_axis_is_none(g->axis[a].row, &g->axis[a].v, at[a]);

    for (int a = 0; rc >= 0 && a < AXES; a++)
        if (!without || !g->axis[a].row->tag)
            rc = slr_grid_axis_apply(g->axis[a].row, g->m, *out, &g->axis[a].v, at[a]);
    if (rc >= 0)
        rc = vary_seed(g, *out, at);
    if (rc < 0) {
        slr_options_unref(*out);
        *out = NULL;
    }
    return rc;
}

static const char *text_or(slr_opt o, const char *name, const char *otherwise)
{
    const char *text = slr_opt_text(o, name);

    return text && *text ? text : otherwise;
}

/* What would fail after hours otherwise: sizes and names that nobody knows, cells of several
 * pictures.  Files by name may still appear. */
static int check_cell(const sdlora_options *opts)
{
    slr_opt o = {opts, "generate"};
    const char *sampler = slr_opt_text(o, "sampler"), *scheduler = slr_opt_text(o, "scheduler");
    const slr_sampler_row *row;
    const slr_scheduler_row *schedule;
    slr_settings set;
    bool automatic;

    if (slr_opt_int(o, "count") != 1)
        return slr_fail(SDLORA_EINVAL, "sdlora_grid_new",
                        "count is %lld, but a cell has one picture",
                        (long long)slr_opt_int(o, "count"));
    slr_settings_read(&set, o);
    SLR_TRY(slr_settings_check(&set));
    SLR_TRY(slr_sampler_choose(sampler, scheduler, &row, &schedule, &automatic));
    if (!slr_opt_bool(o, "enable_hr"))
        return SDLORA_OK;
    return slr_sampler_choose(text_or(o, "hr_sampler_name", sampler),
                              text_or(o, "hr_scheduler", scheduler), &row, &schedule, &automatic);
}

static int check_cells(sdlora_grid *g)
{
    for (size_t k = 0; k < g->n; k++) {
        size_t at[AXES];
        sdlora_options *o;

        place_of(g, k, at);
        SLR_TRY(cell_options(&o, g, at));
        int rc = check_cell(o);
        g->steps[k] = (double)slr_opt_int((slr_opt){o, "generate"}, "steps");
        g->all_steps += g->steps[k];
        slr_options_unref(o);
        SLR_TRY(rc);
    }
    return SDLORA_OK;
}

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
        SLR_TRY(make_axis(g, a));
        models += g->axis[a].row->model;
    }
    if (models > 1)
        return slr_fail(SDLORA_EINVAL, "sdlora_grid_new", "only one axis can choose the model");
    order_axes(g);
    SLR_TRY(count_cells(g));
    g->cell = slr_calloc(g->m, g->n, sizeof(sdlora_image *));
    g->steps = slr_calloc(g->m, g->n, sizeof *g->steps);
    g->model = slr_calloc(g->m, SLR_GRID_MOST, sizeof(sdlora_generator *));
    if (!g->cell || !g->steps || !g->model)
        return SDLORA_ENOMEM;
    SLR_TRY(slr_options_set_int(g->opts, "count", 1));
    if (!slr_grid_keeps_random(g) && slr_opt_int((slr_opt){g->opts, "generate"}, "seed") < 0)
        SLR_TRY(slr_options_set_int(g->opts, "seed", random_seed()));
    return check_cells(g);
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

/* --- drawing --- */

/* The caller's function may fail without a text. */
static int ask_for_model(const sdlora_grid *g, const char *name, sdlora_generator **model)
{
    slr_error_copy e;

    slr_clear();
    int rc = g->models(model, name, g->models_user);
    slr_error_take(&e);
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
    SLR_TRY(cell_options(&o, g, at));
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

static int step(sdlora_grid *g)
{
    size_t at[AXES];

    if (g->done == g->n)
        return SDLORA_DONE;
    place_of(g, g->done, at);
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
