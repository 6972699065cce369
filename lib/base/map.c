/* SPDX-License-Identifier: MIT */
/* A hash map from text to a number, in insertion order.
 *
 * Knows that keys come from files of strangers: each map hashes with a seed of its own, so that a
 * file cannot be made whose names all collide.  Refuses to know removal: nobody needs it. */
#include "base/map.h"

#include <string.h>

#include "base/clock.h"
#include "base/status.h"

typedef struct entry {
    const char *key; /* in the arena */
    size_t len;
    uint64_t hash;
    int64_t value;
} entry;

struct slr_map {
    slr_mem *m;
    slr_arena *keys;
    entry *entries; /* in the order of insertion */
    size_t count, cap;
    uint32_t *slots; /* index + 1 into entries; 0: empty.  n_slots is a power of two */
    size_t n_slots;
    uint64_t seed;
};

__extension__ typedef unsigned __int128 u128;

static uint64_t fold(uint64_t a, uint64_t b)
{
    u128 p = (u128)a * b;

    return (uint64_t)p ^ (uint64_t)(p >> 64);
}

uint64_t slr_hash64(const void *bytes, size_t n, uint64_t seed)
{
    /* Odd words of irrational numbers; each 8 bytes are folded in by a 64x64->128 product. */
    const uint64_t k0 = UINT64_C(0x9E3779B97F4A7C15), k1 = UINT64_C(0xBF58476D1CE4E5B9);
    const unsigned char *p = bytes;
    uint64_t h = seed ^ fold(k0 ^ n, k1);
    size_t left = n;

    for (; left >= 8; left -= 8, p += 8) {
        uint64_t w = 0;

        for (int i = 0; i < 8; i++)
            w |= (uint64_t)p[i] << (8 * i);
        h = fold(h ^ w ^ k0, k1 ^ seed);
    }
    if (left) {
        uint64_t w = 0;

        for (size_t i = 0; i < left; i++)
            w |= (uint64_t)p[i] << (8 * i);
        h = fold(h ^ w ^ k1, k0 ^ seed);
    }
    h ^= h >> 32;
    h *= k1;
    return h ^ h >> 29;
}

int slr_map_new(slr_map **out, slr_mem *m)
{
    slr_map *map = slr_calloc(m, 1, sizeof *map);

    *out = NULL;
    if (!map)
        return SDLORA_ENOMEM;
    if (slr_arena_new(&map->keys, m) < 0) {
        slr_free(m, map);
        return SDLORA_ENOMEM;
    }
    map->m = slr_mem_ref(m);
    map->seed = (uint64_t)(uintptr_t)map ^ slr_clock_seed() << 20;
    *out = map;
    return SDLORA_OK;
}

void slr_map_free(slr_map *map)
{
    slr_mem *m;

    if (!map)
        return;
    m = map->m;
    slr_arena_free(map->keys);
    slr_free(m, map->entries);
    slr_free(m, map->slots);
    slr_free(m, map);
    slr_mem_unref(m);
}

void slr_map_clear(slr_map *map)
{
    slr_arena_clear(map->keys);
    map->count = 0;
    if (map->n_slots)
        memset(map->slots, 0, map->n_slots * sizeof *map->slots);
}

/* The slot that holds the key, or the empty one where it would go. */
static size_t probe(const slr_map *map, const char *key, size_t n, uint64_t hash)
{
    size_t mask = map->n_slots - 1, at = (size_t)hash & mask;

    for (; map->slots[at]; at = (at + 1) & mask) {
        const entry *e = &map->entries[map->slots[at] - 1];

        if (e->hash == hash && e->len == n && !memcmp(e->key, key, n))
            break;
    }
    return at;
}

static int widen(slr_map *map)
{
    size_t n = map->n_slots ? map->n_slots * 2 : 16;
    uint32_t *slots;

    if (map->count >= UINT32_MAX / 2)
        return slr_nomem("slr_map_set", SIZE_MAX);
    slots = slr_calloc(map->m, n, sizeof *slots);
    if (!slots)
        return SDLORA_ENOMEM;
    slr_free(map->m, map->slots);
    map->slots = slots;
    map->n_slots = n;
    for (size_t i = 0; i < map->count; i++) {
        size_t at = (size_t)map->entries[i].hash & (n - 1);

        while (slots[at])
            at = (at + 1) & (n - 1);
        slots[at] = (uint32_t)i + 1;
    }
    return SDLORA_OK;
}

int slr_map_set(slr_map *map, const char *key, int64_t value)
{
    size_t n = strlen(key), at;
    uint64_t hash = slr_hash64(key, n, map->seed);
    char *copy;

    if (map->n_slots) {
        at = probe(map, key, n, hash);
        if (map->slots[at]) {
            map->entries[map->slots[at] - 1].value = value;
            return SDLORA_OK;
        }
    }
    if (map->count >= map->n_slots / 2) /* at most half full: short chains */
        SLR_TRY(widen(map));
    SLR_TRY(slr_grow(map->m, &map->entries, &map->cap, map->count + 1, sizeof(entry)));
    copy = slr_arena_strdup(map->keys, key);
    if (!copy)
        return SDLORA_ENOMEM;
    at = probe(map, key, n, hash);
    map->entries[map->count] = (entry){copy, n, hash, value};
    map->slots[at] = (uint32_t)++map->count;
    return SDLORA_OK;
}

bool slr_map_getn(const slr_map *map, const char *key, size_t n, int64_t *value)
{
    size_t at;

    if (!map->count)
        return false;
    at = probe(map, key, n, slr_hash64(key, n, map->seed));
    if (!map->slots[at])
        return false;
    if (value)
        *value = map->entries[map->slots[at] - 1].value;
    return true;
}

bool slr_map_get(const slr_map *map, const char *key, int64_t *value)
{
    return slr_map_getn(map, key, strlen(key), value);
}

size_t slr_map_count(const slr_map *map)
{
    return map->count;
}

const char *slr_map_at(const slr_map *map, size_t i, int64_t *value)
{
    if (i >= map->count)
        return NULL;
    if (value)
        *value = map->entries[i].value;
    return map->entries[i].key;
}
