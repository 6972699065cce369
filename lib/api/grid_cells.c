/* SPDX-License-Identifier: MIT */
/* The cells of a grid: their order, and the options that each is drawn with. */
#include "api/grid_impl.h"

#include "api/generator.h"
#include "base/status.h"

enum { AXES = SLR_GRID_AXES };

/* Dear axes first; of equal ones z before y before x. */
void slr_grid_order_axes(sdlora_grid *g)
{
    for (int i = 0; i < AXES; i++) {
        int a = AXES - 1 - i, at = i;

        for (; at > 0 && g->axis[g->order[at - 1]].row->cost < g->axis[a].row->cost; at--)
            g->order[at] = g->order[at - 1];
        g->order[at] = a;
    }
}

void slr_grid_place(const sdlora_grid *g, size_t k, size_t at[AXES])
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

        name[sizeof name - 2] = slr_grid_letter(a);
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

int slr_grid_cell_options(sdlora_options **out, const sdlora_grid *g, const size_t at[AXES])
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
 * pictures.  Files are looked for when the first cell is drawn. */
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

int slr_grid_check_cells(sdlora_grid *g)
{
    for (size_t k = 0; k < g->n; k++) {
        size_t at[AXES];
        sdlora_options *o;

        slr_grid_place(g, k, at);
        SLR_TRY(slr_grid_cell_options(&o, g, at));
        int rc = check_cell(o);
        g->steps[k] = (double)slr_opt_int((slr_opt){o, "generate"}, "steps");
        g->all_steps += g->steps[k];
        slr_options_unref(o);
        SLR_TRY(rc);
    }
    return SDLORA_OK;
}
