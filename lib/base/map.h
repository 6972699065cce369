/* SPDX-License-Identifier: MIT */
/* A hash map from text (copied) to a pointer-sized value; seeded, insertion order kept. */
#ifndef SLR_BASE_MAP_H
#define SLR_BASE_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/mem.h"

typedef struct slr_map slr_map;

int slr_map_new(slr_map **out, slr_mem *m);
void slr_map_free(slr_map *map);
/* Sets or replaces. */
int slr_map_set(slr_map *map, const char *key, int64_t value);
bool slr_map_get(const slr_map *map, const char *key, int64_t *value);
bool slr_map_getn(const slr_map *map, const char *key, size_t n, int64_t *value);
void slr_map_clear(slr_map *map); /* drops all pairs */
size_t slr_map_count(const slr_map *map);
/* i-th pair in insertion order; the key is borrowed. */
const char *slr_map_at(const slr_map *map, size_t i, int64_t *value);

uint64_t slr_hash64(const void *bytes, size_t n, uint64_t seed);

#endif
