/* SPDX-License-Identifier: MIT */
/* Time: seconds that only go forward for durations, and the calendar for metadata.
 *
 * Knows POSIX clocks and UTC.  Refuses to know time zones. */
#include "base/clock.h"

#include <math.h>
#include <string.h>
#include <time.h>

static double seconds(clockid_t id)
{
    struct timespec t = {0};

    clock_gettime(id, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

double slr_clock(void)
{
    return seconds(CLOCK_MONOTONIC);
}

double slr_wall_time(void)
{
    return seconds(CLOCK_REALTIME);
}

uint64_t slr_clock_seed(void)
{
    return (uint64_t)(slr_wall_time() * 1e6) ^ (uint64_t)(slr_clock() * 1e9);
}

void slr_iso_time(double unix_seconds, char out[32])
{
    /* Years 0..9999, so that the text keeps its width; anything else is shown as the epoch. */
    int known = unix_seconds >= -62167219200.0 && unix_seconds < 253402300800.0;
    time_t whole = known ? (time_t)floor(unix_seconds) : 0;
    struct tm tm;

    memset(&tm, 0, sizeof tm);
    if (!gmtime_r(&whole, &tm) || !strftime(out, 32, "%Y-%m-%dT%H:%M:%S", &tm))
        out[0] = '\0';
}
