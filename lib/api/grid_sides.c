/* SPDX-License-Identifier: MIT */
/* One axis of a grid as its options ask for it: the row, the values and the labels. */
#include "api/grid_impl.h"

#include <string.h>

#include "base/clock.h"
#include "base/rng.h"
#include "base/status.h"
#include "base/str.h"

int64_t slr_grid_random_seed(void)
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
    char name[16] = {slr_grid_letter(a), '_'};

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
        v->i = slr_grid_random_seed();
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
static int type_values(sdlora_grid *g, int a)
{
    slr_grid_side *x = &g->axis[a];
    const char *text = slr_grid_is_nothing(x) ? "" : option_of(g, a, "values");

    if (!strcmp(text, "*"))
        SLR_TRY(slr_grid_star(g, x->row, &x->typed));
    if (!x->typed && !(x->typed = slr_strdup(g->m, text)))
        return SDLORA_ENOMEM;
    return SDLORA_OK;
}

int slr_grid_make_side(sdlora_grid *g, int a)
{
    slr_grid_side *x = &g->axis[a];
    bool lines = slr_opt_bool((slr_opt){g->axes, "grid"}, "raw_mode");

    x->row = slr_grid_axis_find(option_of(g, a, "type"), &x->own);
    if (!x->row)
        return slr_wrap("%c_type", slr_grid_letter(a));
    SLR_TRY(type_values(g, a));
    int rc = slr_grid_values_read(&x->v, g->m, x->row->type,
                                  slr_grid_is_nothing(x) ? "\"\"" : x->typed, lines);
    if (rc >= 0 && !x->v.n)
        rc = slr_fail(SDLORA_EINVAL, __func__, "there is no value");
    if (rc < 0)
        return slr_wrap("%c_values of '%s'", slr_grid_letter(a), x->row->label);
    if (x->row->seed && !slr_grid_keeps_random(g))
        SLR_TRY(fix_seeds(g->m, x));
    return make_labels(g->m, x);
}
