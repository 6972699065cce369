/* SPDX-License-Identifier: MIT */
/* How a long job tells how far it is, and learns that it shall end. */
#ifndef SLR_BASE_PHASE_H
#define SLR_BASE_PHASE_H

#include <stdint.h>

/* phase: static text; done runs from 0 to total.  Called on the thread that runs the job.  Non-zero
 * cancels. */
typedef int (*slr_phase_fn)(void *user, const char *phase, int64_t done, int64_t total);

#endif
