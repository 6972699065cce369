/* SPDX-License-Identifier: MIT */
/* Threads over OpenMP: one team at a time, pieces dealt out by number.
 *
 * Knows that OpenBLAS and oneDNN live in the same OpenMP pool and must not open teams of their own
 * inside a piece.  Refuses to know what a piece does.  The only state is two marks on threads: that
 * they are inside a piece, and which job they work for; both are put back before slr_parallel or
 * the job returns. */
#include "base/thread.h"

#include <omp.h>
#include <stddef.h>

static _Thread_local int inside;         /* > 0 while this thread runs a piece */
static _Thread_local slr_watch *watched; /* the job that it works for; NULL: nothing can end it */

void slr_watch_enter(slr_watch *w, const slr_cancel_flag *flag)
{
    w->flag = flag;
    w->outer = watched;
    atomic_init(&w->cut, 0);
    watched = flag ? w : NULL;
}

void slr_watch_leave(slr_watch *w)
{
    watched = w->outer;
}

int slr_canceled(void)
{
    slr_watch *w = watched;

    if (!w)
        return 0;
    if (!atomic_load_explicit(&w->cut, memory_order_relaxed) &&
        atomic_load_explicit(w->flag, memory_order_relaxed))
        atomic_store_explicit(&w->cut, 1, memory_order_relaxed);
    return atomic_load_explicit(&w->cut, memory_order_relaxed);
}

/* Runs pieces [first,last) on this thread with the OpenMP team size that libraries see set to 1. */
static void run_pieces(int64_t first, int64_t last, int64_t n, int64_t grain,
                       void (*body)(void *arg, int64_t lo, int64_t hi), void *arg)
{
    int wished = inside ? 1 : omp_get_max_threads();

    if (wished > 1)
        omp_set_num_threads(1); /* this thread's own setting: other threads keep theirs */
    inside++;
    for (int64_t i = first; i < last && !slr_canceled(); i++) {
        int64_t lo = i * grain;

        body(arg, lo, n - lo < grain ? n : lo + grain);
    }
    inside--;
    if (wished > 1)
        omp_set_num_threads(wished);
}

void slr_parallel(int threads, int64_t n, int64_t grain,
                  void (*body)(void *arg, int64_t lo, int64_t hi), void *arg)
{
    int64_t pieces;

    if (n <= 0)
        return;
    if (grain < 1)
        grain = 1;
    pieces = n / grain + (n % grain != 0);
    if (threads > pieces)
        threads = (int)pieces;
    if (threads <= 1 || inside || omp_in_parallel()) {
        run_pieces(0, pieces, n, grain, body, arg);
        return;
    }
    slr_watch *job = watched;
#pragma omp parallel num_threads(threads) default(none) shared(pieces, n, grain, body, arg, job)
    {
        slr_watch *mine = watched;

        /* The runtime may have granted fewer threads: deal to those that came. */
        int64_t me = omp_get_thread_num(), team = omp_get_num_threads();
        int64_t share = pieces / team, rest = pieces % team;
        int64_t first = me * share + (me < rest ? me : rest);

        watched = job;
        run_pieces(first, first + share + (me < rest), n, grain, body, arg);
        watched = mine;
    }
}

int slr_threads_default(void)
{
    return omp_get_num_procs();
}

void slr_refs_init(slr_refs *r)
{
    atomic_init(r, 1);
}

void slr_refs_get(slr_refs *r)
{
    atomic_fetch_add_explicit(r, 1, memory_order_relaxed);
}

int slr_refs_put(slr_refs *r)
{
    /* Release what this holder wrote; the last one sees all of it before it frees. */
    return atomic_fetch_sub_explicit(r, 1, memory_order_acq_rel) == 1;
}
