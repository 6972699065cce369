/* SPDX-License-Identifier: MIT */
/* Monotonic seconds for durations; wall time only for time stamps in metadata. */
#ifndef SLR_BASE_CLOCK_H
#define SLR_BASE_CLOCK_H

double slr_clock(void);
double slr_wall_time(void);                           /* Unix seconds */
void slr_iso_time(double unix_seconds, char out[32]); /* "2026-11-22T21:30:08" (UTC) */

#endif
