/* SPDX-License-Identifier: MIT */
/* Threads: one pool (OpenMP) per process, a wished-for team size per context, and the small atomics
 * that refcounts and cancel flags need. */
#ifndef SLR_BASE_THREAD_H
#define SLR_BASE_THREAD_H

#include <stdatomic.h>
#include <stdint.h>

/* Calls body over [0,n) in pieces of `grain` with at most `threads` threads.  Pieces are dealt out
 * statically; which thread runs one must not matter.  A nested call runs on the calling thread.
 * Inside a piece, OpenMP-built libraries (OpenBLAS) use one thread. */
void slr_parallel(int threads, int64_t n, int64_t grain,
                  void (*body)(void *arg, int64_t lo, int64_t hi), void *arg);
int slr_threads_default(void); /* cores this process may use */

typedef _Atomic int32_t slr_refs;
void slr_refs_init(slr_refs *r);
void slr_refs_get(slr_refs *r);
int slr_refs_put(slr_refs *r); /* 1 when the last one went */

/* Set by any thread or signal handler, read between kernels and between pieces of them. */
typedef _Atomic int slr_cancel_flag;

/* A job that its flag may end in the middle of slr_parallel().  While a thread is inside, what it
 * hands to slr_parallel() leaves out pieces from the moment at which the flag is seen: then `cut`
 * is set, and what the job was computing is rubbish.  Jobs whose results outlive them (packed
 * weights) must not be watched. */
typedef struct slr_watch {
    const slr_cancel_flag *flag; /* NULL: nothing ends it */
    _Atomic int cut;             /* a piece was left out, or slr_canceled() was answered with 1 */
    struct slr_watch *outer;
} slr_watch;

/* Around the job, on its thread; they nest, and only the inner one counts. */
void slr_watch_enter(slr_watch *w, const slr_cancel_flag *flag);
void slr_watch_leave(slr_watch *w);
/* 1 once the job that this thread works for is to end; also for threads inside its pieces. */
int slr_canceled(void);

#endif
