/* SPDX-License-Identifier: MIT */
/* The test programs' shared bits: a check that counts, and an allocator that fails on demand. */
#ifndef CHECK_H
#define CHECK_H

#include <safetensors.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int n_checks, n_failed;

#define CHECK(cond, ...)                                          \
    do {                                                          \
        n_checks++;                                               \
        if (!(cond)) {                                            \
            n_failed++;                                           \
            printf("%s:%d: %s: ", __FILE__, __LINE__, #cond);     \
            printf(__VA_ARGS__);                                  \
            printf("\n");                                         \
        }                                                         \
    } while (0)

static int check_report(void)
{
    printf("%d checks, %d failed\n", n_checks, n_failed);
    return n_failed != 0;
}

/* Fails allocation number `fail_at` (from 1; 0 = none), and knows how many blocks are alive. */
typedef struct check_heap {
    long calls, alive, fail_at;
    void (*before)(void *arg); /* nullable: called at each allocation */
    void *arg;
} check_heap;

static void *check_alloc(void *user, size_t bytes)
{
    check_heap *heap = user;
    void *ptr;
    if (heap->before)
        heap->before(heap->arg);
    if (++heap->calls == heap->fail_at)
        return NULL;
    ptr = malloc(bytes);
    heap->alive += ptr != NULL;
    return ptr;
}

static void *check_realloc(void *user, void *ptr, size_t bytes)
{
    (void)user;
    return realloc(ptr, bytes);
}

static void check_free(void *user, void *ptr)
{
    check_heap *heap = user;
    heap->alive--;
    free(ptr);
}

static inline st_alloc check_hooks(check_heap *heap)
{
    st_alloc hooks = {check_alloc, check_realloc, check_free, heap};
    return hooks;
}

/* A copy that ends where its block ends, so that sanitizers see each byte read too far. */
static inline void *check_copy(const void *bytes, size_t n)
{
    void *copy = malloc(n ? n : 1);
    if (copy && n)
        memcpy(copy, bytes, n);
    return copy;
}

static inline int check_zeroed(const void *bytes, size_t n)
{
    const unsigned char *p = bytes;
    size_t i;
    for (i = 0; i < n; i++)
        if (p[i])
            return 0;
    return 1;
}

/* A whole small file of the data folder. */
static inline unsigned char *check_slurp(const char *dir, const char *name, size_t *size)
{
    static unsigned char buf[1 << 16];
    char path[4096];
    FILE *f;
    snprintf(path, sizeof path, "%s/%s", dir, name);
    f = fopen(path, "rb");
    CHECK(f, "cannot open %s", path);
    *size = f ? fread(buf, 1, sizeof buf, f) : 0;
    if (f)
        fclose(f);
    return check_copy(buf, *size);
}

#endif
