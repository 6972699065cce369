/* SPDX-License-Identifier: MIT */
/* Memory: the caller's allocator hooks behind one handle, a byte budget, overflow-safe arrays and
 * an arena.  All memory of the library comes from here; every block is aligned to 64 bytes.  A
 * failure sets the error slot (SDLORA_ENOMEM) and returns NULL.  `m` NULL means the plain C
 * allocator. */
#ifndef SLR_BASE_MEM_H
#define SLR_BASE_MEM_H

#include <stddef.h>
#include <stdint.h>

typedef struct slr_mem slr_mem; /* atomically refcounted; usable from all threads */

/* Same meaning as the public sdlora_allocator; all or none. */
typedef struct slr_mem_hooks {
    void *(*alloc)(void *user, size_t bytes);
    void *(*realloc)(void *user, void *ptr, size_t bytes);
    void (*free)(void *user, void *ptr);
    void *user;
} slr_mem_hooks;

/* hooks NULL: malloc.  budget 0: none. */
int slr_mem_new(slr_mem **out, const slr_mem_hooks *hooks, uint64_t budget);
slr_mem *slr_mem_ref(slr_mem *m);
void slr_mem_unref(slr_mem *m);
uint64_t slr_mem_used(const slr_mem *m); /* bytes handed out now */
uint64_t slr_mem_peak(const slr_mem *m);

void *slr_alloc(slr_mem *m, size_t bytes);           /* not cleared; 0 bytes gives a block */
void *slr_calloc(slr_mem *m, size_t n, size_t size); /* cleared, overflow checked */
void *slr_realloc(slr_mem *m, void *ptr, size_t n,
                  size_t size);       /* overflow checked; old stays on failure */
void slr_free(slr_mem *m, void *ptr); /* NULL does nothing */
char *slr_strdup(slr_mem *m, const char *text);
char *slr_strndup(slr_mem *m, const char *text, size_t n);

/* Grows *array (of `size`-byte items) so that it holds at least `want`; doubles. */
int slr_grow(slr_mem *m, void *array_ptr, size_t *cap, size_t want, size_t size);

/* An arena: many small blocks freed together. */
typedef struct slr_arena slr_arena;
int slr_arena_new(slr_arena **out, slr_mem *m);
void slr_arena_free(slr_arena *a);
void slr_arena_clear(slr_arena *a); /* gives all blocks back; the arena stays */
void *slr_arena_alloc(slr_arena *a, size_t n, size_t size); /* cleared, 16-byte aligned */
char *slr_arena_strdup(slr_arena *a, const char *text);

/* Checked arithmetic: false on overflow. */
int slr_mul_ok(size_t a, size_t b, size_t *out);
int slr_add_ok(size_t a, size_t b, size_t *out);

#endif
