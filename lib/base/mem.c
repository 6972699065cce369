/* SPDX-License-Identifier: MIT */
/* Memory behind the caller's hooks, with a byte budget.
 *
 * Knows how to align a block to 64 bytes over an allocator that promises less, and how to count:
 * a small header before each block holds its size and where the allocator's own block began.
 * Refuses to know what the memory is for.  Counters are atomics; no lock is ever taken. */
#include "base/mem.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "base/thread.h"

enum { ALIGN = 64, ARENA_FIRST = 4096, ARENA_LARGEST = 1 << 20 };

struct slr_mem {
    slr_refs refs;
    slr_mem_hooks hooks;
    uint64_t budget; /* 0: none */
    _Atomic uint64_t used, peak;
};

typedef struct header {
    void *raw;    /* what the hooks gave */
    size_t bytes; /* what the caller asked for */
} header;

static void *plain_alloc(void *user, size_t bytes)
{
    (void)user;
    return malloc(bytes);
}

static void *plain_realloc(void *user, void *ptr, size_t bytes)
{
    (void)user;
    return realloc(ptr, bytes);
}

static void plain_free(void *user, void *ptr)
{
    (void)user;
    free(ptr);
}

static const slr_mem_hooks plain = {plain_alloc, plain_realloc, plain_free, NULL};

static const slr_mem_hooks *hooks_of(const slr_mem *m)
{
    return m ? &m->hooks : &plain;
}

int slr_mul_ok(size_t a, size_t b, size_t *out)
{
    return !__builtin_mul_overflow(a, b, out);
}

int slr_add_ok(size_t a, size_t b, size_t *out)
{
    return !__builtin_add_overflow(a, b, out);
}

int slr_mem_new(slr_mem **out, const slr_mem_hooks *hooks, uint64_t budget)
{
    slr_mem *m;

    *out = NULL;
    if (hooks && (!hooks->alloc || !hooks->realloc || !hooks->free))
        return slr_fail(SDLORA_EINVAL, __func__,
                        "an allocator needs all three of alloc, realloc and free");
    if (!hooks)
        hooks = &plain;
    m = hooks->alloc(hooks->user, sizeof *m);
    if (!m)
        return slr_nomem(__func__, sizeof *m);
    memset(m, 0, sizeof *m);
    slr_refs_init(&m->refs);
    m->hooks = *hooks;
    m->budget = budget;
    atomic_init(&m->used, 0);
    atomic_init(&m->peak, 0);
    *out = m;
    return SDLORA_OK;
}

slr_mem *slr_mem_ref(slr_mem *m)
{
    if (m)
        slr_refs_get(&m->refs);
    return m;
}

void slr_mem_unref(slr_mem *m)
{
    if (m && slr_refs_put(&m->refs)) {
        slr_mem_hooks hooks = m->hooks;

        hooks.free(hooks.user, m);
    }
}

uint64_t slr_mem_used(const slr_mem *m)
{
    return m ? atomic_load(&m->used) : 0;
}

uint64_t slr_mem_peak(const slr_mem *m)
{
    return m ? atomic_load(&m->peak) : 0;
}

/* Books `bytes` more against the budget; says no before anything is allocated. */
static int reserve(slr_mem *m, size_t bytes, const char *where)
{
    uint64_t used, want, peak;

    if (!m)
        return SDLORA_OK;
    used = atomic_load(&m->used);
    do {
        want = used + bytes;
        if (want < used || (m->budget && want > m->budget))
            return slr_fail(
                SDLORA_ENOMEM, where,
                "out of memory (%zu bytes): %llu of the budget of %llu bytes are in use", bytes,
                (unsigned long long)used, (unsigned long long)m->budget);
    } while (!atomic_compare_exchange_weak(&m->used, &used, want));
    peak = atomic_load(&m->peak);
    while (peak < want && !atomic_compare_exchange_weak(&m->peak, &peak, want))
        ;
    return SDLORA_OK;
}

static void release(slr_mem *m, size_t bytes)
{
    if (m)
        atomic_fetch_sub(&m->used, bytes);
}

static header *header_of(void *ptr)
{
    return (header *)ptr - 1;
}

/* First aligned address inside `raw` with room for a header before it. */
static char *place(void *raw)
{
    uintptr_t at = (uintptr_t)raw + sizeof(header);

    return (char *)((at + ALIGN - 1) & ~(uintptr_t)(ALIGN - 1));
}

/* What to ask of the hooks for `bytes`; 0 when no address space could hold it. */
static size_t padded(size_t bytes)
{
    size_t total;

    if (!slr_add_ok(bytes, sizeof(header) + ALIGN - 1, &total) || total > PTRDIFF_MAX)
        return 0;
    return total;
}

static void *alloc_at(slr_mem *m, size_t bytes, const char *where)
{
    const slr_mem_hooks *h = hooks_of(m);
    size_t total = padded(bytes);
    void *raw;
    char *p;

    if (!total) {
        slr_nomem(where, bytes);
        return NULL;
    }
    if (reserve(m, bytes, where) < 0)
        return NULL;
    raw = h->alloc(h->user, total);
    if (!raw) {
        release(m, bytes);
        slr_nomem(where, bytes);
        return NULL;
    }
    p = place(raw);
    *header_of(p) = (header){raw, bytes};
    return p;
}

void *slr_alloc(slr_mem *m, size_t bytes)
{
    return alloc_at(m, bytes, __func__);
}

void *slr_calloc(slr_mem *m, size_t n, size_t size)
{
    size_t bytes;
    void *p;

    if (!slr_mul_ok(n, size, &bytes)) {
        slr_nomem(__func__, SIZE_MAX);
        return NULL;
    }
    p = alloc_at(m, bytes, __func__);
    if (p)
        memset(p, 0, bytes);
    return p;
}

void *slr_realloc(slr_mem *m, void *ptr, size_t n, size_t size)
{
    const slr_mem_hooks *h = hooks_of(m);
    size_t bytes, total, offset;
    header old;
    void *raw;
    char *p;

    if (!slr_mul_ok(n, size, &bytes) || !(total = padded(bytes))) {
        slr_nomem(__func__, SIZE_MAX);
        return NULL;
    }
    if (!ptr)
        return alloc_at(m, bytes, __func__);
    old = *header_of(ptr);
    if (bytes > old.bytes && reserve(m, bytes - old.bytes, __func__) < 0)
        return NULL;
    offset = (size_t)((char *)ptr - (char *)old.raw);
    raw = h->realloc(h->user, old.raw, total);
    if (!raw) {
        if (bytes > old.bytes)
            release(m, bytes - old.bytes);
        slr_nomem(__func__, bytes);
        return NULL;
    }
    p = place(raw); /* the new block may sit differently against the 64-byte grid */
    if (p != (char *)raw + offset)
        memmove(p, (char *)raw + offset, bytes < old.bytes ? bytes : old.bytes);
    *header_of(p) = (header){raw, bytes};
    if (bytes < old.bytes)
        release(m, old.bytes - bytes);
    return p;
}

void slr_free(slr_mem *m, void *ptr)
{
    const slr_mem_hooks *h = hooks_of(m);
    header old;

    if (!ptr)
        return;
    old = *header_of(ptr);
    h->free(h->user, old.raw);
    release(m, old.bytes);
}

char *slr_strndup(slr_mem *m, const char *text, size_t n)
{
    char *p;
    size_t bytes;

    n = strnlen(text, n);
    if (!slr_add_ok(n, 1, &bytes)) {
        slr_nomem(__func__, n);
        return NULL;
    }
    p = alloc_at(m, bytes, __func__);
    if (p) {
        memcpy(p, text, n);
        p[n] = '\0';
    }
    return p;
}

char *slr_strdup(slr_mem *m, const char *text)
{
    return slr_strndup(m, text, SIZE_MAX);
}

int slr_grow(slr_mem *m, void *array_ptr, size_t *cap, size_t want, size_t size)
{
    size_t n = *cap;
    void *old, *p;

    if (want <= n)
        return SDLORA_OK;
    n = n < SIZE_MAX / 2 && n * 2 > want ? n * 2 : want;
    if (n < 8)
        n = 8;
    memcpy(&old, array_ptr, sizeof old); /* array_ptr is a T **, whatever T is */
    p = slr_realloc(m, old, n, size);
    if (!p)
        return SDLORA_ENOMEM;
    memcpy(array_ptr, &p, sizeof p);
    *cap = n;
    return SDLORA_OK;
}

typedef struct chunk {
    struct chunk *next;
    size_t used, size; /* bytes of `data` */
    _Alignas(16) char data[];
} chunk;

struct slr_arena {
    slr_mem *m;
    chunk *top;
};

int slr_arena_new(slr_arena **out, slr_mem *m)
{
    slr_arena *a = slr_calloc(m, 1, sizeof *a);

    *out = a;
    if (!a)
        return SDLORA_ENOMEM;
    a->m = slr_mem_ref(m);
    return SDLORA_OK;
}

void slr_arena_clear(slr_arena *a)
{
    chunk *next;

    for (chunk *c = a->top; c; c = next) {
        next = c->next;
        slr_free(a->m, c);
    }
    a->top = NULL;
}

void slr_arena_free(slr_arena *a)
{
    slr_mem *m;

    if (!a)
        return;
    m = a->m;
    slr_arena_clear(a);
    slr_free(m, a);
    slr_mem_unref(m);
}

/* A new chunk with room for `bytes`.  A block too large to share a chunk gets its own below the
 * top, so that the room left in the top stays in use. */
static chunk *add_chunk(slr_arena *a, size_t bytes)
{
    size_t size = a->top ? a->top->size : ARENA_FIRST / 2, total;
    chunk *c;

    size = size < ARENA_LARGEST / 2 ? size * 2 : ARENA_LARGEST;
    if (size < bytes)
        size = bytes;
    if (!slr_add_ok(size, sizeof *c, &total)) {
        slr_nomem("slr_arena_alloc", size);
        return NULL;
    }
    c = slr_alloc(a->m, total);
    if (!c)
        return NULL;
    c->used = 0;
    c->size = size;
    if (a->top && bytes > ARENA_LARGEST / 4) {
        c->next = a->top->next;
        a->top->next = c;
    } else {
        c->next = a->top;
        a->top = c;
    }
    return c;
}

void *slr_arena_alloc(slr_arena *a, size_t n, size_t size)
{
    size_t bytes, room;
    chunk *c = a->top;
    void *p;

    if (!slr_mul_ok(n, size, &bytes) || !slr_add_ok(bytes, 15, &room)) {
        slr_nomem(__func__, SIZE_MAX);
        return NULL;
    }
    room &= ~(size_t)15;
    if (!c || c->size - c->used < room)
        c = add_chunk(a, room);
    if (!c)
        return NULL;
    p = c->data + c->used;
    c->used += room;
    memset(p, 0, bytes);
    return p;
}

char *slr_arena_strdup(slr_arena *a, const char *text)
{
    size_t n = strlen(text) + 1;
    char *p = slr_arena_alloc(a, n, 1);

    if (p)
        memcpy(p, text, n);
    return p;
}
