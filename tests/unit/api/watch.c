/* SPDX-License-Identifier: MIT */
/* Looking at a run: phases in order, steps that count up over all pictures, time that is left, what
 * the picture is becoming, and a look that ends the run. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include <sdlora/sdlora.h>

#define MODEL TEST_ROOT "/../examples/data/tinysd/tinysd.safetensors"

enum { STEPS = 4, COUNT = 2, SIDE = 64 };

static void ok(int rc)
{
    if (rc < 0)
        fail_msg("%s (%s)", sdlora_last_error()->message, sdlora_last_error()->where);
}

typedef struct seen {
    sdlora_generator *g;
    char phases[64]; /* first letters, in order */
    size_t n;
    int64_t step, total;
    bool eta;
    sdlora_image *early, *late; /* previews of the first picture's first and last step */
    int stop_at;                /* this call answers 1 */
} seen;

static int look(const sdlora_progress *now, void *user)
{
    seen *s = user;

    assert_int_equal(now->struct_size, sizeof *now);
    assert_true(s->n + 1 < sizeof s->phases);
    s->phases[s->n++] = now->phase[0];
    assert_true(now->step >= s->step);
    s->step = now->step;
    s->total = now->total;
    assert_true(now->phase_done <= now->phase_total);
    if (now->step > 1) { /* the first step also packs weights, and tells of no pace */
        s->eta = isfinite(now->eta);
        assert_true(now->eta >= 0);
    }
    if (now->phase[0] == 's' && now->step == 1)
        ok(sdlora_generator_preview(&s->early, s->g));
    if (now->phase[0] == 's' && now->step == STEPS)
        ok(sdlora_generator_preview(&s->late, s->g));
    return (int)s->n == s->stop_at;
}

static sdlora_generator *open_generator(sdlora_context **ctx, sdlora_options **o)
{
    sdlora_checkpoint *ckpt;
    sdlora_generator *g;
    sdlora_options *one;

    ok(sdlora_options_new(&one, "context"));
    ok(sdlora_options_set_int(one, "threads", 2));
    ok(sdlora_context_new(ctx, one, NULL));
    sdlora_options_unref(one);
    ok(sdlora_checkpoint_open(&ckpt, *ctx, MODEL, NULL));
    ok(sdlora_generator_new(&g, ckpt, NULL));
    sdlora_checkpoint_unref(ckpt);
    ok(sdlora_options_new(o, "generate"));
    ok(sdlora_options_set_text(*o, "prompt", "red apple, fruit"));
    ok(sdlora_options_set_int(*o, "width", SIDE));
    ok(sdlora_options_set_int(*o, "height", SIDE));
    ok(sdlora_options_set_int(*o, "steps", STEPS));
    ok(sdlora_options_set_int(*o, "count", COUNT));
    ok(sdlora_options_set_int(*o, "seed", 1));
    return g;
}

static void a_run_is_told_from_start_to_end(void **state)
{
    sdlora_context *ctx;
    sdlora_options *o;
    sdlora_generator *g = open_generator(&ctx, &o);
    sdlora_image *made[COUNT], *no;
    seen s = {.g = g};

    (void)state;
    ok(sdlora_generator_set_watch(g, look, &s));
    ok(sdlora_generator_run(g, o, made, COUNT));
    assert_string_equal(s.phases, "pssssdpssssd");
    assert_int_equal(s.step, STEPS * COUNT);
    assert_int_equal(s.total, STEPS * COUNT);
    assert_true(s.eta);
    assert_int_equal(sdlora_image_width(s.early), SIDE / 8);
    assert_int_equal(sdlora_image_height(s.late), SIDE / 8);
    assert_memory_not_equal(sdlora_image_data(s.early), sdlora_image_data(s.late),
                            SIDE * SIDE / 64 * 3);
    assert_int_equal(sdlora_generator_preview(&no, g), SDLORA_EINVAL);
    assert_null(no);
    for (int i = 0; i < COUNT; i++)
        sdlora_image_unref(made[i]);
    sdlora_image_unref(s.early);
    sdlora_image_unref(s.late);
    sdlora_options_unref(o);
    sdlora_generator_unref(g);
    sdlora_context_unref(ctx);
}

static void a_look_may_end_it(void **state)
{
    sdlora_context *ctx;
    sdlora_options *o;
    sdlora_generator *g = open_generator(&ctx, &o);
    sdlora_image *made[COUNT];

    (void)state;
    for (int at = 1; at <= 7; at++) {
        seen s = {.g = g, .stop_at = at};

        ok(sdlora_generator_set_watch(g, look, &s));
        assert_int_equal(sdlora_generator_run(g, o, made, COUNT), SDLORA_ECANCELED);
        assert_int_equal(s.n, at);
        assert_null(made[0]);
        sdlora_image_unref(s.early);
        sdlora_image_unref(s.late);
    }
    ok(sdlora_generator_set_watch(g, NULL, NULL));
    ok(sdlora_generator_run(g, o, made, COUNT));
    for (int i = 0; i < COUNT; i++)
        sdlora_image_unref(made[i]);
    sdlora_options_unref(o);
    sdlora_generator_unref(g);
    sdlora_context_unref(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_run_is_told_from_start_to_end),
        cmocka_unit_test(a_look_may_end_it),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
