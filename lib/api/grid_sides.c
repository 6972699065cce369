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

/* What "*" stands for; false: for itself. */
static bool put_choices(slr_buf *b, const slr_grid_axis *row)
{
    const slr_option_row *o = row->option ? slr_option_find("generate", row->option) : NULL;
    slr_str rest = slr_str_of(o && o->choices ? o->choices : ""), word;
    const char *one;

    if (row->choice)
        for (size_t i = 0; (one = row->choice(i)) != NULL; i++)
            slr_buf_printf(b, "%s%s", i ? "," : "", one);
    else if (o && o->type == SLR_OPT_BOOL)
        slr_buf_puts(b, "False,True");
    else
        while (slr_str_next(&rest, '|', &word))
            slr_buf_printf(b, "%s%.*s", b->len ? "," : "", (int)word.n, word.p);
    return b->len > 0;
}

/* The values as written; "*" is all that there is to choose from. */
static char *typed_values(const sdlora_grid *g, int a)
{
    const slr_grid_side *x = &g->axis[a];
    const char *text = slr_grid_is_nothing(x) ? "" : option_of(g, a, "values");
    slr_buf b;

    slr_buf_init(&b, g->m);
    if (strcmp(text, "*") != 0 || !put_choices(&b, x->row))
        slr_buf_puts(&b, text);
    return slr_buf_take(&b);
}

int slr_grid_make_side(sdlora_grid *g, int a)
{
    slr_grid_side *x = &g->axis[a];
    bool lines = slr_opt_bool((slr_opt){g->axes, "grid"}, "raw_mode");

    x->row = slr_grid_axis_find(option_of(g, a, "type"), &x->own);
    if (!x->row)
        return slr_wrap("%c_type", slr_grid_letter(a));
    x->typed = typed_values(g, a);
    if (!x->typed)
        return SDLORA_ENOMEM;
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
