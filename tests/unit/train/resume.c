/* SPDX-License-Identifier: MIT */
/* A run is one sequence of bytes: stopped and resumed anywhere, cancelled anywhere, on any number
 * of threads. */
#include <math.h>
#include <pthread.h>

#include "trainer_test.h"

/* Everything that draws: dropout, shuffling, flipping, noise options. */
static const char *const drawing_network[] = {"network_dropout", "0.1", NULL};
static const char *const drawing_data[] = {"shuffle_caption", "true", "flip_aug", "true", NULL};
static const job_spec drawing = {.network = drawing_network, .data = drawing_data};

static const char *state_dir(int64_t step)
{
    char name[64];
    snprintf(name, sizeof name, "state-%d", (int)step);
    return in_scratch(name);
}

static void goes_on_from(int64_t stop, const digest *want, double average)
{
    job once = job_open(&drawing);
    int64_t second = stop + (12 - stop) / 2;
    const char *dir = in_scratch("second");
    assert_ok(slr_trainer_resume(once.t, state_dir(stop)));
    assert_int_equal(once.t->run.step, stop);
    job_run(&once, second);
    assert_ok(slr_trainer_save_state(once.t, dir));
    slr_progress end = job_run(&once, 12);
    assert_string_equal(job_digest(&once).text, want->text);
    assert_true(end.average_loss == average);
    job_close(&once);

    job twice = job_open(&drawing);
    assert_ok(slr_trainer_resume(twice.t, dir));
    job_run(&twice, 12);
    assert_string_equal(job_digest(&twice).text, want->text);
    assert_int_equal(slr_trainer_step(twice.t, NULL), SDLORA_DONE);
    job_close(&twice);
}

static void resumed_anywhere_gives_the_same_bytes(void **state)
{
    (void)state;
    job whole = job_open(&drawing);
    for (int64_t step = 1; step < 12; step++) {
        job_run(&whole, step);
        assert_ok(slr_trainer_save_state(whole.t, state_dir(step)));
    }
    double average = job_run(&whole, 12).average_loss;
    digest want = job_digest(&whole);
    job_close(&whole);
    for (int64_t stop = 1; stop < 12; stop++)
        goes_on_from(stop, &want, average);
}

static void threads_do_not_matter(void **state)
{
    (void)state;
    digest first = {""};
    for (int threads = 1; threads <= 3; threads++) {
        slr_devices *d = open_devices(threads);
        assert_int_equal(slr_devices_threads(d), threads);
        job_spec s = drawing;
        s.devices = d;
        job j = job_open(&s);
        job_run(&j, 4);
        digest got = job_digest(&j);
        if (threads == 1)
            first = got;
        assert_string_equal(got.text, first.text);
        job_close(&j);
        slr_devices_unref(d);
    }
}

/* --- cancelling --- */

static _Atomic int stop_pestering;

static void *pester(void *trainer)
{
    while (!stop_pestering) {
        usleep(20000);
        slr_trainer_cancel(trainer);
    }
    return NULL;
}

static void cancelled_steps_leave_nothing(void **state)
{
    (void)state;
    job calm = job_open(&drawing), j = job_open(&drawing);
    job_run(&calm, 4);
    digest want = job_digest(&calm);
    job_close(&calm);

    pthread_t other;
    int cancelled = 0;
    size_t bytes = slr_network_param_count(j.net) * sizeof(float);
    stop_pestering = 0;
    assert_int_equal(pthread_create(&other, NULL, pester, j.t), 0);
    while (j.t->run.step < 4) {
        float *before = params_copy(&j);
        int64_t step = j.t->run.step;
        int rc = slr_trainer_step(j.t, NULL);
        if (rc == SDLORA_ECANCELED) {
            assert_int_equal(j.t->run.step, step);
            assert_memory_equal(slr_network_params(j.net), before, bytes);
            if (++cancelled == 5)
                stop_pestering = 1;
        } else {
            assert_ok(rc);
        }
        free(before);
    }
    stop_pestering = 1;
    pthread_join(other, NULL);
    assert_true(cancelled > 0);
    assert_string_equal(job_digest(&j).text, want.text);
    job_close(&j);
}

static void a_flag_set_before_cancels_one_step(void **state)
{
    (void)state;
    job j = job_open(&drawing);
    slr_trainer_cancel(j.t);
    assert_int_equal(slr_trainer_step(j.t, NULL), SDLORA_ECANCELED);
    assert_says("before step 1");
    assert_ok(slr_trainer_step(j.t, NULL));
    assert_int_equal(j.t->run.step, 1);
    job_close(&j);
}

static int cancel_at_first(void *trainer, int64_t epoch, int64_t step)
{
    (void)epoch;
    assert_int_equal(step, 0);
    slr_trainer_cancel(trainer);
    return SDLORA_OK;
}

/* The first samples are drawn when step() has looked at the flag already: what they set strikes
 * between two kernels of the step.  One cancel ends one step and leaves no flag behind. */
static void a_step_cancelled_midway_is_done_again(void **state)
{
    (void)state;
    static const char *const first[] = {"sample_at_first", "true", NULL};
    job calm = job_open(&drawing);
    job_run(&calm, 12);
    digest want = job_digest(&calm);
    job_close(&calm);

    job_spec spec = drawing;
    spec.train = first;
    job j = job_open(&spec);
    slr_trainer_set_sample_hook(j.t, cancel_at_first, j.t);
    assert_int_equal(slr_trainer_step(j.t, NULL), SDLORA_ECANCELED);
    assert_null(strstr(sdlora_last_error()->message, "before step"));
    assert_int_equal(j.t->run.step, 0);
    job_run(&j, 12);
    assert_string_equal(job_digest(&j).text, want.text);
    assert_int_equal(slr_trainer_step(j.t, NULL), SDLORA_DONE);
    job_close(&j);
}

static int refuse(void *user, const char *phase, int64_t done, int64_t total)
{
    (void)user;
    assert_string_equal(phase, "latents");
    (void)total;
    return done > 1;
}

static void the_cache_can_be_cancelled(void **state)
{
    (void)state;
    job j;
    job_spec s = {.phase = refuse};
    assert_int_equal(job_try(&j, &s), SDLORA_ECANCELED);
    assert_null(j.t);
    job_close(&j);
}

/* --- faults --- */

static void a_bad_weight_stops_before_it_spreads(void **state)
{
    (void)state;
    job j = job_open(&drawing);
    size_t n = slr_network_param_count(j.net), bytes = n * sizeof(float);
    job_run(&j, 1);
    float *good = params_copy(&j), *m = malloc(bytes);
    memcpy(m, slr_optim_moments(j.t->optim, 0), bytes);
    slr_network_params(j.net)[slr_network_slot_at(j.net, 0)->offset] = NAN;
    assert_int_equal(slr_trainer_step(j.t, NULL), SDLORA_ENAN);
    assert_says("not finite");
    assert_says(".png"); /* which pictures the batch held */
    assert_int_equal(j.t->run.step, 1);
    assert_memory_equal(slr_optim_moments(j.t->optim, 0), m, bytes);

    /* no file has it */
    const char *file = in_scratch("bad.safetensors");
    assert_int_equal(slr_trainer_save(j.t, file), SDLORA_ENAN);
    assert_false(slr_file_exists(file));

    /* and put right, the run goes on to the bytes of one that never had it */
    memcpy(slr_network_params(j.net), good, bytes);
    job_run(&j, 3);
    job calm = job_open(&drawing);
    job_run(&calm, 3);
    assert_string_equal(job_digest(&j).text, job_digest(&calm).text);
    free(good);
    free(m);
    job_close(&j);
    job_close(&calm);
}

/* --- another run's state --- */

typedef struct changed_row {
    const char *what;
    const char *const *train, *const *network, *const *data;
    const char *says;
} changed_row;

static void another_run_is_refused_by_name(void **state)
{
    (void)state;
    const changed_row rows[] = {
        {"value", LIST("min_snr_gamma", "3"), NULL, NULL, "min_snr_gamma was 5"},
        {"removed", NULL, NULL, NULL, "min_snr_gamma was 5"},
        {"added", LIST("min_snr_gamma", "5", "noise_offset", "0.1"), NULL, NULL, "noise_offset"},
        {"seed", LIST("min_snr_gamma", "5", "seed", "4"), NULL, NULL, "seed was 3 and is 4"},
        {"rank", LIST("min_snr_gamma", "5"), LIST("network_dim", "3"), NULL, "network_dim"},
        {"data", LIST("min_snr_gamma", "5"), NULL, LIST("flip_aug", "true"), "data set settings"},
    };
    char dir[512]; /* in_scratch() lends eight names only */
    snprintf(dir, sizeof dir, "%s", in_scratch("changed"));
    job first = job_open(&(job_spec){.train = LIST("min_snr_gamma", "5")});
    job_run(&first, 1);
    assert_ok(slr_trainer_save_state(first.t, dir));
    job_close(&first);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        job j = job_open(
            &(job_spec){.train = rows[i].train, .network = rows[i].network, .data = rows[i].data});
        float *before = params_copy(&j);
        if (slr_trainer_resume(j.t, dir) != SDLORA_EINVAL)
            fail_msg("%s: not refused", rows[i].what);
        assert_says(rows[i].says);
        assert_int_equal(j.t->run.step, 0);
        assert_memory_equal(slr_network_params(j.net), before,
                            slr_network_param_count(j.net) * sizeof(float));
        free(before);
        job_close(&j);
    }
    /* what may change: length, files */
    job longer = job_open(&(job_spec){.train = LIST("min_snr_gamma", "5", "max_train_steps", "20",
                                                    "save_every_n_steps", "7", "output_dir",
                                                    in_scratch("elsewhere"))});
    assert_ok(slr_trainer_resume(longer.t, dir));
    job_close(&longer);
}

static void another_picture_is_refused(void **state)
{
    (void)state;
    const char *dir = in_scratch("picture");
    job first = job_open(&drawing);
    job_run(&first, 1);
    assert_ok(slr_trainer_save_state(first.t, dir));
    job_close(&first);

    void *old;
    size_t n;
    const char *path = in_scratch("cats/1_cat/cat_face.png");
    assert_ok(slr_file_read(NULL, path, 1 << 24, &old, &n));
    put_picture(path, 128, 128, 9);
    job j = job_open(&drawing);
    assert_int_equal(slr_trainer_resume(j.t, dir), SDLORA_EINVAL);
    assert_says("pictures");
    job_close(&j);
    put_file(path, old, n);
    slr_free(NULL, old);
    j = job_open(&drawing);
    assert_ok(slr_trainer_resume(j.t, dir));
    job_close(&j);
}

static void a_torn_state_is_refused(void **state)
{
    (void)state;
    void *bytes;
    size_t n;
    const char *file = in_scratch("torn/state.safetensors");
    job j = job_open(&drawing);
    assert_ok(slr_trainer_save_state(j.t, in_scratch("torn")));
    assert_ok(slr_file_read(NULL, file, 1 << 28, &bytes, &n));
    put_file(file, bytes, n - 100);
    slr_free(NULL, bytes);
    assert_int_equal(slr_trainer_resume(j.t, in_scratch("torn")), SDLORA_EFORMAT);
    assert_int_equal(slr_trainer_resume(j.t, in_scratch("nowhere")), SDLORA_ENOTFOUND);
    slr_error_copy dropped;
    slr_error_take(&dropped);
    job_close(&j);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(resumed_anywhere_gives_the_same_bytes),
        cmocka_unit_test(threads_do_not_matter),
        cmocka_unit_test(cancelled_steps_leave_nothing),
        cmocka_unit_test(a_flag_set_before_cancels_one_step),
        cmocka_unit_test(a_step_cancelled_midway_is_done_again),
        cmocka_unit_test(the_cache_can_be_cancelled),
        cmocka_unit_test(a_bad_weight_stops_before_it_spreads),
        cmocka_unit_test(another_run_is_refused_by_name),
        cmocka_unit_test(another_picture_is_refused),
        cmocka_unit_test(a_torn_state_is_refused),
    };
    return cmocka_run_group_tests(tests, trainer_setup, trainer_teardown);
}
