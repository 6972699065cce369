/* SPDX-License-Identifier: MIT */
/* Monotonic seconds for durations; wall time only for time stamps in metadata. */
#ifndef SLR_BASE_CLOCK_H
#define SLR_BASE_CLOCK_H

#include <stdint.h>

double slr_clock(void);
double slr_wall_time(void);    /* Unix seconds */
uint64_t slr_clock_seed(void); /* for what has to differ from run to run; not for secrets */
void slr_iso_time(double unix_seconds, char out[32]); /* "2026-11-22T21:30:08" (UTC) */

#endif
