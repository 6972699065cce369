/* SPDX-License-Identifier: MIT */
/* An allocator that refuses the n-th allocation and counts the blocks that are out. */
#ifndef FAILING_H
#define FAILING_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

typedef struct failing {
    _Atomic int64_t left; /* allocations until the one that fails */
    _Atomic int64_t held; /* blocks out */
} failing;

static inline void *fail_alloc(void *user, size_t bytes)
{
    failing *f = user;
    void *p = f->left-- == 0 ? NULL : malloc(bytes);
    f->held += p != NULL;
    return p;
}

static inline void *fail_realloc(void *user, void *ptr, size_t bytes)
{
    failing *f = user;
    if (f->left-- == 0)
        return NULL;
    f->held += ptr == NULL;
    return realloc(ptr, bytes);
}

static inline void fail_free(void *user, void *ptr)
{
    ((failing *)user)->held -= ptr != NULL;
    free(ptr);
}

#endif
