/* SPDX-License-Identifier: MIT */
/* Log lines: formatted here, spoken by the caller's function.
 *
 * Knows levels.  Refuses to know a terminal, a file or a clock: without a callback nothing happens.
 */
#include "base/log.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

void slr_logf(const slr_log *log, int level, const char *fmt, ...)
{
    char text[2048]; /* longer lines are cut */
    va_list ap;

    if (!log || !log->fn || level > log->level)
        return;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    log->fn(level, text, log->user);
}
