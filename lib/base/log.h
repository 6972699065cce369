/* SPDX-License-Identifier: MIT */
/* Log lines to the context's callback; silent without one. */
#ifndef SLR_BASE_LOG_H
#define SLR_BASE_LOG_H

enum { SLR_LOG_ERROR = 1, SLR_LOG_WARN = 2, SLR_LOG_INFO = 3, SLR_LOG_DEBUG = 4 };

typedef struct slr_log {
    void (*fn)(int level, const char *text, void *user); /* NULL: silent */
    void *user;
    int level; /* lines above this are dropped */
} slr_log;

void slr_logf(const slr_log *log, int level, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

#endif
