/* SPDX-License-Identifier: MIT */
/* NumPy's SeedSequence: seeds that are spread from one seed and a path of numbers.
 *
 * Knows its pool of 24 words, the size that Brownian trees use.  (O'Neill, "Developing a seed_seq
 * alternative", 2015; NumPy's constants.)  Refuses to know what the seeds are for. */
#include "base/rng.h"

enum { POOL = 24, WORDS_MAX = POOL + 4 };

/* Scrambles words, one after the other. */
static uint32_t hash(uint32_t value, uint32_t *state, uint32_t factor)
{
    value ^= *state;
    *state *= factor;
    value *= *state;
    return value ^ value >> 16;
}

static uint32_t mix(uint32_t x, uint32_t y)
{
    uint32_t v = 0xca01f9ddu * x - 0x4973f715u * y;
    return v ^ v >> 16;
}

/* As many words as a number needs, and one for 0. */
static int split(uint64_t number, uint32_t *out)
{
    out[0] = (uint32_t)number;
    out[1] = (uint32_t)(number >> 32);
    return out[1] ? 2 : 1;
}

void slr_seed_sequence(uint64_t entropy, const uint64_t *path, size_t n_path, uint32_t *out,
                       size_t n)
{
    uint32_t word[WORDS_MAX] = {0}, pool[POOL], state = 0x43b0d7e5u;
    int count = split(entropy, word);

    if (n_path) /* what is spawned begins behind a full pool */
        count = POOL;
    for (size_t i = 0; i < n_path && i < 2; i++)
        count += split(path[i], word + count);
    for (int i = 0; i < POOL; i++)
        pool[i] = hash(word[i], &state, 0x931e8875u);
    for (int from = 0; from < POOL; from++)
        for (int to = 0; to < POOL; to++)
            if (from != to)
                pool[to] = mix(pool[to], hash(pool[from], &state, 0x931e8875u));
    for (int from = POOL; from < count; from++)
        for (int to = 0; to < POOL; to++)
            pool[to] = mix(pool[to], hash(word[from], &state, 0x931e8875u));
    state = 0x8b51f9ddu;
    for (size_t i = 0; i < n; i++)
        out[i] = hash(pool[i % POOL], &state, 0x58f38dedu);
}
