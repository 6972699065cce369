/* SPDX-License-Identifier: MIT */
/* What a request would be refused for, found without a model at work: settings, styles that there
 * are not, tags whose networks nobody finds. */
#include "sample/generator_impl.h"

#include "base/status.h"

/* Steps do not matter here: they only say when texts change. */
static int check_words(slr_run *s, const char *prompt, const char *negative)
{
    int steps = s->set.steps;
    int rc = slr_wording_new(&s->words, s, prompt, negative, steps, steps);

    slr_wording_free(&s->words, s->g->m);
    return rc;
}

static int check(slr_run *s)
{
    const slr_settings *set = &s->set;

    SLR_TRY(slr_settings_check(set));
    if (set->styles && *set->styles)
        SLR_TRY(slr_run_read_styles(s));
    SLR_TRY(check_words(s, set->prompt, set->negative));
    if (!set->hr)
        return SDLORA_OK;
    return check_words(s, slr_settings_either(set->hr_prompt, set->prompt),
                       slr_settings_either(set->hr_negative, set->negative));
}

int slr_generator_check(slr_generator *g, const slr_request *r)
{
    slr_run s = {.g = g, .r = r, .set = r->set, .words = {.known = {.m = g->m}}};
    int rc = check(&s);

    slr_styles_free(&s.styles);
    return rc;
}
