/* SPDX-License-Identifier: MIT */
/* Options of kind "generate": each moves a setting and nothing else does, so none is taken and
 * forgotten; the defaults are AUTOMATIC1111's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "base/status.h"
#include "sample/conds.h"
#include "sample/noise.h"
#include "sample/settings.h"

/* What handles take from the options themselves. */
static const char *const elsewhere[] = {"lora_unmatched", "sd_vae", "hr_checkpoint_name",
                                        "refiner_checkpoint", NULL};

static void ok(int rc)
{
    if (rc < 0)
        fail_msg("%s (%s)", sdlora_last_error()->message, sdlora_last_error()->where);
}

static bool is_elsewhere(const char *name)
{
    for (const char *const *at = elsewhere; *at; at++)
        if (!strcmp(*at, name))
            return true;
    return false;
}

/* Another value than the default, within what the row allows. */
static void other_value(const slr_option_row *r, char out[64])
{
    const char *def = r->def ? r->def : "";
    if (r->choices) { /* the last one, or else the first */
        const char *last = strrchr(r->choices, '|') + 1;
        if (strcmp(last, def) != 0)
            snprintf(out, 64, "%s", last);
        else
            snprintf(out, 64, "%.*s", (int)strcspn(r->choices, "|"), r->choices);
    } else if (r->type == SLR_OPT_BOOL) {
        snprintf(out, 64, "%s", strcmp(def, "true") ? "true" : "false");
    } else if (r->type == SLR_OPT_INT) {
        snprintf(out, 64, "%.0f", r->max < 1e6 ? r->max : 4096.0);
    } else if (r->type == SLR_OPT_REAL) {
        snprintf(out, 64, "%g", r->min + (r->max - r->min) * 0.4375);
    } else {
        snprintf(out, 64, "other");
    }
}

/* Texts are borrowed, so another set of options holds its defaults elsewhere: only what differs
 * from a second reading of the same options counts. */
static bool moves(const slr_option_row *r)
{
    sdlora_options *o;
    slr_settings before, after;
    char value[64];
    memset(&before, 0, sizeof before);
    memset(&after, 0, sizeof after);
    other_value(r, value);
    ok(slr_options_new(&o, NULL, "generate"));
    slr_settings_read(&before, (slr_opt){o, "generate"});
    ok(slr_options_set_text(o, r->name, value));
    slr_settings_read(&after, (slr_opt){o, "generate"});
    bool moved = memcmp(&before, &after, sizeof before) != 0;
    slr_options_unref(o);
    return moved;
}

static void each_option_is_a_setting(void **state)
{
    (void)state;
    size_t n, seen = 0;
    const slr_option_row *rows = slr_option_rows(&n);
    for (size_t i = 0; i < n; i++) {
        if (strcmp(rows[i].kind, "generate") != 0)
            continue;
        seen++;
        if (moves(&rows[i]) == is_elsewhere(rows[i].name))
            fail_msg("%s %s", rows[i].name,
                     is_elsewhere(rows[i].name) ? "is a setting" : "sets nothing");
    }
    assert_true(seen > 80);
}

static void the_original_defaults(void **state)
{
    (void)state;
    slr_settings s;
    slr_settings_read(&s, (slr_opt){NULL, "generate"});
    assert_int_equal(s.steps, 20);
    assert_true(s.cfg == 7 && s.width == 512 && s.height == 512 && s.count == 1);
    assert_true(s.emphasis == SLR_EMPHASIS_ORIGINAL && s.backtrack == 20 && s.comments);
    assert_true(s.eta < 0 && s.s_churn == 0 && s.s_tmax == 0 && s.s_noise == 1);
    assert_true(s.beta_alpha == 0.6 && s.beta_beta == 0.6 && s.rho == 0);
    assert_true(s.unipc_order == 3 && s.unipc_lower_final);
    assert_string_equal(s.unipc_variant, "bh1");
    assert_true(s.seed == -1 && s.subseed == -1 && s.subseed_strength == 0 && s.ensd == 0);
    assert_int_equal(s.rng, SLR_NOISE_CPU);
    assert_true(s.aesthetic_high == 6 && s.aesthetic_low == 2.5);
    assert_true(s.hr_scale == 2 && s.hr_refine == SLR_HR_REFINE_SECOND && !s.hr);
    assert_int_equal(s.fill, SLR_FILL_ORIGINAL);
    assert_true(s.mask_weight == 1 && s.noise_multiplier == 1 && s.extra_noise == 0);
}

static void choices_are_numbers_in_their_order(void **state)
{
    (void)state;
    sdlora_options *o;
    slr_settings s;
    ok(slr_options_new(&o, NULL, "generate"));
    ok(slr_options_set_text(o, "emphasis", "No norm"));
    ok(slr_options_set_text(o, "randn_source", "NV"));
    ok(slr_options_set_text(o, "hires_fix_refiner_pass", "both passes"));
    ok(slr_options_set_text(o, "sd_noise_schedule", "Zero Terminal SNR"));
    slr_settings_read(&s, (slr_opt){o, "generate"});
    assert_int_equal(s.emphasis, SLR_EMPHASIS_NO_NORM);
    assert_int_equal(s.rng, SLR_NOISE_NV);
    assert_int_equal(s.hr_refine, SLR_HR_REFINE_BOTH);
    assert_int_equal(s.ztsnr, 1);
    slr_options_unref(o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(each_option_is_a_setting),
                                       cmocka_unit_test(the_original_defaults),
                                       cmocka_unit_test(choices_are_numbers_in_their_order)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
