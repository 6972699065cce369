/* SPDX-License-Identifier: MIT */
/* slr_parallel: each item once, in the same pieces whatever the team, nested calls inline, one
 * thread for libraries inside a piece, and no further piece of a job that is to end. */
#include "base_test.h"

#include <omp.h>
#include <pthread.h>

#include "base/thread.h"

enum { MOST = 1000 };

typedef struct seen {
    int64_t piece_lo[MOST]; /* per item: the piece it came in */
    _Atomic int count[MOST];
    _Atomic int wrong;
} seen;

static void note(void *arg, int64_t lo, int64_t hi)
{
    seen *s = arg;

    for (int64_t i = lo; i < hi; i++) {
        s->count[i]++;
        s->piece_lo[i] = lo;
    }
    if (omp_get_max_threads() != 1)
        s->wrong++;
}

static void each_item_once(void **state)
{
    static const int64_t grains[] = {-1, 0, 1, 3, 7, 999, 1000, 1001, INT64_MAX};
    static const int64_t lengths[] = {0, 1, 2, 64, 999, 1000};

    for (int threads = 0; threads <= 5; threads++)
        for (size_t g = 0; g < sizeof grains / sizeof *grains; g++)
            for (size_t k = 0; k < sizeof lengths / sizeof *lengths; k++) {
                static seen s;
                int64_t grain = grains[g] < 1 ? 1 : grains[g];

                memset(&s, 0, sizeof s);
                slr_parallel(threads, lengths[k], grains[g], note, &s);
                assert_int_equal(s.wrong, 0);
                for (int64_t i = 0; i < MOST; i++) {
                    assert_int_equal(s.count[i], i < lengths[k]);
                    if (i < lengths[k])
                        assert_int_equal(s.piece_lo[i], i / grain * grain);
                }
            }
    slr_parallel(4, -5, 1, note, NULL);
}

static void library_team_size_is_put_back(void **state)
{
    static seen s;

    omp_set_num_threads(3);
    slr_parallel(1, 10, 1, note, &s);
    assert_int_equal(omp_get_max_threads(), 3);
    slr_parallel(4, 10, 1, note, &s);
    assert_int_equal(omp_get_max_threads(), 3);
    slr_parallel(4, 10, 100, note, &s);
    assert_int_equal(omp_get_max_threads(), 3);
    assert_int_equal(s.wrong, 0);
    omp_set_num_threads(omp_get_num_procs());
}

typedef struct nest {
    pthread_t owner;
    _Atomic int strayed, runs;
} nest;

static void inner(void *arg, int64_t lo, int64_t hi)
{
    nest *n = arg;

    n->runs++;
    if (!pthread_equal(n->owner, pthread_self()) || omp_get_max_threads() != 1)
        n->strayed++;
}

static void outer(void *arg, int64_t lo, int64_t hi)
{
    nest *n = &((nest *)arg)[lo];

    n->owner = pthread_self();
    slr_parallel(4, 50, 1, inner, n);
}

static void nested_calls_stay_on_their_thread(void **state)
{
    for (int threads = 1; threads <= 4; threads++) {
        nest n[8] = {{0}};

        slr_parallel(threads, 8, 1, outer, n);
        for (int i = 0; i < 8; i++) {
            assert_int_equal(n[i].runs, 50);
            assert_int_equal(n[i].strayed, 0);
        }
    }
}

static void *caller(void *arg)
{
    static const int n = 300;
    seen *s = arg;

    for (int i = 0; i < 20; i++)
        slr_parallel(3, n, 7, note, s);
    return NULL;
}

static void two_callers_at_once(void **state)
{
    static seen s[2];
    pthread_t t[2];

    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&t[i], NULL, caller, &s[i]), 0);
    for (int i = 0; i < 2; i++)
        pthread_join(t[i], NULL);
    for (int i = 0; i < 2; i++)
        for (int j = 0; j < 300; j++)
            assert_int_equal(s[i].count[j], 20);
}

typedef struct cut {
    slr_cancel_flag *flag;
    int64_t at; /* this piece sets the flag */
    _Atomic int runs, seen;
} cut;

static void cut_body(void *arg, int64_t lo, int64_t hi)
{
    cut *c = arg;

    c->runs++;
    if (lo == c->at)
        atomic_store(c->flag, 1);
    if (lo > c->at && slr_canceled())
        c->seen++;
}

static void a_flag_ends_a_job_between_pieces(void **state)
{
    enum { PIECES = 100000 };

    for (int threads = 1; threads <= 4; threads++) {
        slr_cancel_flag flag = 0;
        cut c = {.flag = &flag, .at = 10};
        slr_watch watch, inner;

        slr_watch_enter(&watch, &flag);
        slr_parallel(threads, PIECES, 1, cut_body, &c);
        assert_int_equal(watch.cut, 1);
        assert_in_range(c.runs, 11, PIECES - 1);
        if (threads == 1)
            assert_int_equal(c.runs, 11);
        atomic_store(&flag, 0); /* a job that was cut stays so, whoever clears the flag */
        assert_int_equal(slr_canceled(), 1);
        slr_watch_enter(&inner, NULL); /* what must not be cut */
        c.runs = 0;
        c.at = -1;
        slr_parallel(threads, 100, 1, cut_body, &c);
        assert_int_equal(c.runs, 100);
        slr_watch_leave(&inner);
        assert_int_equal(slr_canceled(), 1);
        slr_watch_leave(&watch);
        assert_int_equal(slr_canceled(), 0);
        slr_parallel(threads, 100, 1, cut_body, &c); /* nobody watches */
        assert_int_equal(c.runs, 200);
    }
}

static void a_flag_that_comes_late_cuts_nothing(void **state)
{
    slr_cancel_flag flag = 0;
    cut c = {.flag = &flag, .at = 99};
    slr_watch watch;

    slr_watch_enter(&watch, &flag);
    slr_parallel(1, 100, 1, cut_body, &c);
    assert_int_equal(watch.cut, 0);
    assert_int_equal(c.runs, 100);
    slr_watch_leave(&watch);
}

static void *bystander(void *arg)
{
    cut c = {.flag = arg, .at = -1};

    slr_parallel(2, 1000, 1, cut_body, &c);
    assert_int_equal(slr_canceled(), 0);
    return c.runs == 1000 ? NULL : arg;
}

static void other_threads_jobs_go_on(void **state)
{
    slr_cancel_flag flag = 1;
    slr_watch watch;
    pthread_t t;
    void *failed = &flag;

    slr_watch_enter(&watch, &flag);
    assert_int_equal(pthread_create(&t, NULL, bystander, &flag), 0);
    pthread_join(t, &failed);
    assert_null(failed);
    slr_watch_leave(&watch);
}

static void references(void **state)
{
    slr_refs r;

    slr_refs_init(&r);
    slr_refs_get(&r);
    assert_int_equal(slr_refs_put(&r), 0);
    assert_int_equal(slr_refs_put(&r), 1);
    assert_true(slr_threads_default() >= 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_item_once),
        cmocka_unit_test(library_team_size_is_put_back),
        cmocka_unit_test(nested_calls_stay_on_their_thread),
        cmocka_unit_test(two_callers_at_once),
        cmocka_unit_test(a_flag_ends_a_job_between_pieces),
        cmocka_unit_test(a_flag_that_comes_late_cuts_nothing),
        cmocka_unit_test(other_threads_jobs_go_on),
        cmocka_unit_test(references),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
