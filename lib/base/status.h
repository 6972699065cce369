/* SPDX-License-Identifier: MIT */
/* The error slot of a thread: a code and one sentence.  Knows nothing else. */
#ifndef SLR_BASE_STATUS_H
#define SLR_BASE_STATUS_H

#include <stdarg.h>

#include <sdlora/types.h>

/* Records code and text for this thread and returns code. */
int slr_fail(int code, const char *where, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
int slr_vfail(int code, const char *where, const char *fmt, va_list ap);

/* Puts "prefix: " before the text that is already there; returns the code that is there. */
int slr_wrap(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Every public entry calls this first. */
void slr_clear(void);

enum { SLR_ERROR_WHERE = 64, SLR_ERROR_TEXT = 1024 }; /* bytes, with the NUL; longer is cut */

/* Carries a failure from a worker thread to the thread that waits for it. */
typedef struct slr_error_copy {
    int code;
    char where[SLR_ERROR_WHERE];
    char text[SLR_ERROR_TEXT];
} slr_error_copy;
void slr_error_take(slr_error_copy *out);       /* copies this thread's slot */
int slr_error_put(const slr_error_copy *error); /* sets it here, returns code */

/* "out of memory (N bytes)" */
int slr_nomem(const char *where, size_t bytes);

/* Returns on a negative value. */
#define SLR_TRY(expr)                                                                              \
    do {                                                                                           \
        int rc_ = (expr);                                                                          \
        if (rc_ < 0)                                                                               \
            return rc_;                                                                            \
    } while (0)

/* An argument check: EINVAL with the failed condition as text. */
#define slr_require(cond)                                                                          \
    do {                                                                                           \
        if (!(cond))                                                                               \
            return slr_fail(SDLORA_EINVAL, __func__, "argument check failed: %s", #cond);          \
    } while (0)

#endif
