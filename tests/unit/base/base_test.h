/* SPDX-License-Identifier: MIT */
/* What the tests of base and tensor share: cmocka, and an allocator that fails when told. */
#ifndef BASE_TEST_H
#define BASE_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "base/status.h"

#define assert_ok(expr)      assert_int_equal((expr), SDLORA_OK)
#define assert_message(part) assert_non_null(strstr(sdlora_last_error()->message, part))

/* Hands out blocks at odd multiples of 16 bytes, never twice at the same offset, so that alignment
 * and moving are the library's work; fails from call `fail_at` on (0: never). */
typedef struct picky {
    long calls, fail_at, live;
} picky;

static void *picky_get(picky *p, size_t bytes)
{
    size_t shift = 16 * (size_t)(1 + p->calls % 4);
    char *raw;

    if (++p->calls >= p->fail_at && p->fail_at)
        return NULL;
    raw = malloc(bytes + shift);
    if (!raw)
        return NULL;
    raw[shift - 1] = (char)shift;
    memcpy(raw + shift - 9, &bytes, sizeof bytes);
    p->live++;
    return raw + shift;
}

static void *picky_alloc(void *user, size_t bytes)
{
    return picky_get(user, bytes);
}

static void picky_free(void *user, void *ptr)
{
    char *at = ptr;

    if (at) {
        ((picky *)user)->live--;
        free(at - at[-1]);
    }
}

static void *picky_realloc(void *user, void *ptr, size_t bytes)
{
    void *fresh = picky_get(user, bytes);
    size_t old;

    if (fresh && ptr) {
        memcpy(&old, (char *)ptr - 9, sizeof old);
        memcpy(fresh, ptr, old < bytes ? old : bytes);
        picky_free(user, ptr);
    }
    return fresh;
}

static inline slr_mem *picky_mem(picky *p, uint64_t budget)
{
    slr_mem_hooks hooks = {picky_alloc, picky_realloc, picky_free, p};
    slr_mem *m;

    *p = (picky){0};
    assert_ok(slr_mem_new(&m, &hooks, budget));
    return m;
}

/* Runs `scenario` with allocation 1, 2, 3 ... failing until it passes; nothing may leak. */
static inline void torture(int (*scenario)(slr_mem *m))
{
    for (long fail_at = 1;; fail_at++) {
        picky p;
        slr_mem *m = picky_mem(&p, 0);
        int rc;

        p.fail_at = p.calls + fail_at;
        rc = scenario(m);
        assert_int_equal(slr_mem_used(m), 0);
        slr_mem_unref(m);
        assert_int_equal(p.live, 0);
        if (rc == SDLORA_OK)
            return;
        assert_int_equal(rc, SDLORA_ENOMEM);
        assert_true(fail_at < 10000);
    }
}

#endif
