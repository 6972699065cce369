/* SPDX-License-Identifier: MIT */
/* Learning rates against transformers' schedules (tests/golden/lr.json); names, pruning and
 * metrics.jsonl of a run against sums done by hand (kohya's rules). */
#include "train/outputs.h"

#include <fcntl.h>
#include <math.h>
#include <sys/stat.h>

#include "train/lr.h"
#include "unit/data/data_test.h"

/* --- learning rate --- */

/* Python and C both compute in f64; cos and pow may differ in the last bits. */
#define TOL_LR 1e-12

static void factors_are_those_of_transformers(void **state)
{
    (void)state;
    json_t *file = golden_json("lr.json"), *one;
    int64_t steps = json_integer_value(json_object_get(file, "steps"));
    size_t at, supported = 0;
    json_array_foreach(json_object_get(file, "cases"), at, one)
    {
        const char *name = json_string_value(json_object_get(one, "name"));
        const slr_lr_row *row;
        if (slr_lr_find(name, &row) == SDLORA_ENOTSUP) {
            assert_says(name);
            continue;
        }
        json_t *cycles = json_object_get(one, "lr_scheduler_num_cycles");
        json_t *power = json_object_get(one, "lr_scheduler_power");
        const slr_lr_plan plan = {
            .warmup = json_integer_value(json_object_get(one, "warmup")),
            .total = steps,
            .cycles = cycles ? json_number_value(cycles) : 1,
            .power = power ? json_number_value(power) : 1,
            .lr0 = json_number_value(json_object_get(one, "base_lr")),
        };
        json_t *want = json_object_get(one, "factor");
        assert_int_equal(json_array_size(want), steps);
        for (int64_t i = 0; i < steps; i++) {
            double w = json_number_value(json_array_get(want, (size_t)i));
            double got = slr_lr_factor(row, &plan, i);
            if (!(fabs(got - w) <= TOL_LR))
                fail_msg("%s, warm-up %d, step %d: %.17g, not %.17g", name, (int)plan.warmup,
                         (int)i, got, w);
        }
        supported++;
    }
    assert_int_equal(supported, 15);
    json_decref(file);
}

/* A run that goes on past its plan must not rise again. */
static void factors_stay_low_after_the_end(void **state)
{
    (void)state;
    static const char *const names[] = {"linear", "cosine_with_restarts", "polynomial"};
    const slr_lr_plan plan = {.warmup = 2, .total = 10, .cycles = 3, .power = 1, .lr0 = 1e-3};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const slr_lr_row *row;
        assert_ok(slr_lr_find(names[i], &row));
        for (int64_t step = 11; step < 40; step++)
            assert_true(slr_lr_factor(row, &plan, step) <= 1.0001e-4);
    }
}

/* --- names and pruning --- */

static slr_outputs outputs_of(const char *const *pairs, int64_t epochs)
{
    sdlora_options *o;
    slr_outputs out;
    assert_ok(slr_options_new(&o, NULL, "train"));
    for (; pairs[0]; pairs += 2)
        assert_ok(slr_options_set_text(o, pairs[0], pairs[1]));
    assert_ok(slr_outputs_init(&out, NULL, (slr_opt){o, "train"}, epochs));
    assert_ok(slr_outputs_begin(&out));
    slr_options_unref(o);
    return out;
}

static void expect_path(const slr_outputs *o, int what, int64_t number, bool as_state,
                        const char *want)
{
    char *got = slr_outputs_path(o, what, number, as_state);
    assert_non_null(got);
    assert_non_null(strrchr(got, '/'));
    assert_string_equal(strrchr(got, '/') + 1, want);
    slr_free(NULL, got);
}

static void names_are_those_of_kohya(void **state)
{
    (void)state;
    slr_outputs o = outputs_of(
        (const char *const[]){"output_dir", in_scratch("a/b/c"), "output_name", "cat", NULL}, 9);
    assert_true(slr_dir_exists(in_scratch("a/b/c"))); /* made with its parents */
    expect_path(&o, SLR_SAVE_FINAL, 0, false, "cat.safetensors");
    expect_path(&o, SLR_SAVE_FINAL, 0, true, "cat-state");
    expect_path(&o, SLR_SAVE_EPOCH, 3, false, "cat-000003.safetensors");
    expect_path(&o, SLR_SAVE_EPOCH, 1234567, true, "cat-1234567-state");
    expect_path(&o, SLR_SAVE_STEP, 42, false, "cat-step00000042.safetensors");
    expect_path(&o, SLR_SAVE_STEP, 42, true, "cat-step00000042-state");
    slr_outputs_free(&o);
    o = outputs_of((const char *const[]){"output_dir", scratch_dir, NULL}, 9);
    expect_path(&o, SLR_SAVE_FINAL, 0, false, "last.safetensors");
    slr_outputs_free(&o);
}

/* What a killed run was writing goes when the next one begins; what a living one writes stays. */
static void leftovers_go(void **state)
{
    (void)state;
    char dir[128], dead[192], alive[192];
    snprintf(dir, sizeof dir, "%s", in_scratch("left"));
    snprintf(dead, sizeof dead, "%s/.last.safetensors.tmp.2147483647.1f", dir);
    snprintf(alive, sizeof alive, "%s/.last.safetensors.tmp.%ld.1f", dir, (long)getpid());
    assert_int_equal(slr_dir_make(dir), 0);
    put_text(dead, "half");
    put_text(alive, "half");
    const struct timespec old[2] = {{1, 0}, {1, 0}};
    slr_outputs o = outputs_of((const char *const[]){"output_dir", dir, NULL}, 9);
    assert_true(slr_file_exists(dead)); /* another machine may be writing it */
    slr_outputs_free(&o);
    assert_int_equal(utimensat(AT_FDCWD, dead, old, 0), 0);
    assert_int_equal(utimensat(AT_FDCWD, alive, old, 0), 0);
    o = outputs_of((const char *const[]){"output_dir", dir, NULL}, 9);
    assert_false(slr_file_exists(dead));
    assert_true(slr_file_exists(alive));
    slr_outputs_free(&o);
}

static void epochs_are_pruned_by_count(void **state)
{
    (void)state;
    slr_outputs o = outputs_of(
        (const char *const[]){"save_every_n_epochs", "2", "save_last_n_epochs", "3", NULL}, 20);
    assert_int_equal(slr_outputs_outdated(&o, SLR_SAVE_EPOCH, 8, false), 2);
    assert_int_equal(slr_outputs_outdated(&o, SLR_SAVE_EPOCH, 6, false), 0);
    assert_int_equal(slr_outputs_outdated(&o, SLR_SAVE_EPOCH, 8, true), 2); /* as the networks */
    slr_outputs_free(&o);
    o = outputs_of((const char *const[]){"save_every_n_epochs", "2", "save_last_n_epochs", "3",
                                         "save_last_n_epochs_state", "1", NULL},
                   20);
    assert_int_equal(slr_outputs_outdated(&o, SLR_SAVE_EPOCH, 8, true), 6);
    slr_outputs_free(&o);
    o = outputs_of((const char *const[]){"save_every_n_epochs", "2", NULL}, 20);
    assert_int_equal(slr_outputs_outdated(&o, SLR_SAVE_EPOCH, 8, false), 0);
    slr_outputs_free(&o);
}

/* floor((step - k - 1) / every) * every: k counts steps, not files. */
static void steps_are_pruned_by_steps(void **state)
{
    (void)state;
    slr_outputs o = outputs_of(
        (const char *const[]){"save_every_n_steps", "10", "save_last_n_steps", "30", NULL}, 20);
    assert_int_equal(slr_outputs_outdated(&o, SLR_SAVE_STEP, 100, false), 60);
    assert_int_equal(slr_outputs_outdated(&o, SLR_SAVE_STEP, 50, false), 10);
    assert_int_equal(slr_outputs_outdated(&o, SLR_SAVE_STEP, 40, false), 0);
    assert_int_equal(slr_outputs_outdated(&o, SLR_SAVE_STEP, 30, false), 0);
    slr_outputs_free(&o);
    o = outputs_of((const char *const[]){"save_every_n_steps", "10", "save_last_n_steps", "25",
                                         "save_last_n_steps_state", "5", NULL},
                   20);
    assert_int_equal(slr_outputs_outdated(&o, SLR_SAVE_STEP, 100, false), 70);
    assert_int_equal(slr_outputs_outdated(&o, SLR_SAVE_STEP, 100, true), 90);
    slr_outputs_free(&o);
}

/* max(1, epochs // ratio), which overrides save_every_n_epochs. */
static void ratio_spreads_saves_over_the_epochs(void **state)
{
    (void)state;
    static const struct {
        const char *ratio;
        int64_t epochs, every;
    } rows[] = {{"3", 10, 3}, {"4", 10, 2}, {"5", 3, 1}, {"1", 7, 7}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        slr_outputs o = outputs_of((const char *const[]){"save_n_epoch_ratio", rows[i].ratio,
                                                         "save_every_n_epochs", "99", NULL},
                                   rows[i].epochs);
        assert_int_equal(o.every_epochs, rows[i].every);
        slr_outputs_free(&o);
    }
}

static void removing_takes_file_and_state(void **state)
{
    (void)state;
    slr_outputs o = outputs_of((const char *const[]){"output_dir", in_scratch("gone/x"), NULL}, 9);
    const char *file = in_scratch("gone/x/last-000001.safetensors");
    const char *in_state = in_scratch("gone/x/last-000001-state/state.safetensors");
    put_text(file, "x");
    put_text(in_state, "x");
    assert_ok(slr_outputs_remove(&o, SLR_SAVE_EPOCH, 1, false));
    assert_ok(slr_outputs_remove(&o, SLR_SAVE_EPOCH, 1, true));
    assert_false(slr_file_exists(file));
    assert_false(slr_dir_exists(in_scratch("gone/x/last-000001-state")));
    assert_ok(slr_outputs_remove(&o, SLR_SAVE_EPOCH, 1, false)); /* twice is no failure */
    slr_outputs_free(&o);
}

/* --- metrics.jsonl --- */

static char *metrics(const slr_outputs *o)
{
    void *text;
    size_t n;
    char *path = slr_path_join(NULL, o->dir, "metrics.jsonl");
    assert_ok(slr_file_read(NULL, path, 1 << 20, &text, &n));
    slr_free(NULL, path);
    return text;
}

static void add_steps(const slr_outputs *o, int64_t first, int64_t last)
{
    for (int64_t i = first; i <= last; i++) {
        const slr_progress now = {.step = i,
                                  .epoch = 1,
                                  .loss = 0.25 * (double)i,
                                  .val_loss = NAN,
                                  .grad_norm = INFINITY};
        assert_ok(slr_metrics_add(o, &now));
    }
}

static void metrics_are_lines_of_json(void **state)
{
    (void)state;
    slr_outputs o = outputs_of((const char *const[]){"output_dir", in_scratch("m/x"), NULL}, 9);
    assert_ok(slr_metrics_begin(&o, 0));
    add_steps(&o, 1, 1);
    char *text = metrics(&o);
    json_t *line;
    assert_ok(slr_json_parse(&line, text, strlen(text), "line"));
    assert_int_equal(json_integer_value(json_object_get(line, "step")), 1);
    assert_true(json_real_value(json_object_get(line, "loss")) == 0.25);
    /* JSON has no NaN */
    assert_true(json_is_null(json_object_get(line, "val_loss")));
    assert_true(json_is_null(json_object_get(line, "grad_norm")));
    json_decref(line);
    slr_free(NULL, text);
    slr_outputs_free(&o);
}

/* A resumed run goes on after the step it resumes from; a new run starts a new file. */
static void metrics_are_cut_on_resume(void **state)
{
    (void)state;
    slr_outputs o = outputs_of((const char *const[]){"output_dir", in_scratch("cut/x"), NULL}, 9);
    assert_ok(slr_metrics_begin(&o, 0));
    add_steps(&o, 1, 12);
    char *whole = metrics(&o);
    put_text(in_scratch("cut/x/metrics.jsonl"), whole);
    assert_ok(slr_metrics_begin(&o, 9));
    add_steps(&o, 10, 12);
    char *again = metrics(&o);
    assert_string_equal(again, whole);
    slr_free(NULL, again);

    /* a line that was torn by a crash goes too */
    whole[strlen(whole) - 8] = '\0';
    put_text(in_scratch("cut/x/metrics.jsonl"), whole);
    assert_ok(slr_metrics_begin(&o, 12));
    again = metrics(&o);
    assert_non_null(strstr(again, "{\"step\": 11,"));
    assert_null(strstr(again, "{\"step\": 12,"));
    assert_int_equal(again[strlen(again) - 1], '\n');
    slr_free(NULL, again);
    slr_free(NULL, whole);

    assert_ok(slr_metrics_begin(&o, 0));
    again = metrics(&o);
    assert_string_equal(again, "");
    slr_free(NULL, again);
    slr_outputs_free(&o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(factors_are_those_of_transformers),
        cmocka_unit_test(factors_stay_low_after_the_end),
        cmocka_unit_test(names_are_those_of_kohya),
        cmocka_unit_test(leftovers_go),
        cmocka_unit_test(epochs_are_pruned_by_count),
        cmocka_unit_test(steps_are_pruned_by_steps),
        cmocka_unit_test(ratio_spreads_saves_over_the_epochs),
        cmocka_unit_test(removing_takes_file_and_state),
        cmocka_unit_test(metrics_are_lines_of_json),
        cmocka_unit_test(metrics_are_cut_on_resume),
    };
    return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
