/* SPDX-License-Identifier: MIT */
/* Random numbers.  Philox4x32-10 addressed by (key, counter): the same numbers on all machines and
 * thread counts; and what users' shared seeds mean in other programs, to the bit: torch's CPU
 * generator (MT19937), CUDA's (Philox again), NumPy's seeds from seeds. */
#ifndef SLR_BASE_RNG_H
#define SLR_BASE_RNG_H

#include <stddef.h>
#include <stdint.h>

void slr_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);

/* A stream of draws: key = seed, counter = (position, stream, item).  Copying copies the state. */
typedef struct slr_rng {
    uint64_t seed, position;
    uint32_t stream, item;
    uint32_t cache[4];
    int left; /* words of cache still unused */
} slr_rng;

/* `stream` names the use (SLR_STREAM_*), `item` the sample, so that independent uses never meet. */
void slr_rng_init(slr_rng *r, uint64_t seed, uint32_t stream, uint32_t item);
uint32_t slr_rng_u32(slr_rng *r);
uint64_t slr_rng_below(slr_rng *r, uint64_t n); /* unbiased, n > 0 */
double slr_rng_real(slr_rng *r);                /* [0,1), 53 bits */
void slr_rng_normal(slr_rng *r, float *out, size_t n);
void slr_rng_shuffle(slr_rng *r, void *base, size_t n, size_t size);

enum {
    SLR_STREAM_INIT = 1,    /* network weights; item = module index */
    SLR_STREAM_ORDER = 2,   /* batch order; item = epoch */
    SLR_STREAM_CAPTION = 3, /* caption shuffling and dropping */
    SLR_STREAM_AUGMENT = 4, /* flip, crop */
    SLR_STREAM_NOISE = 5,   /* training noise; */
    SLR_STREAM_TIME = 6,    /* timesteps */
    SLR_STREAM_DROPOUT = 7,
    SLR_STREAM_SPLIT = 8,
    SLR_STREAM_EVAL = 9,
    SLR_STREAM_STRENGTH = 10, /* strengths drawn once a batch */
    SLR_STREAM_TEMPLATE = 11, /* captions of textual inversion */
    SLR_STREAM_RANKS = 12,    /* of DyLoRA */
    SLR_STREAM_MASK = 13      /* masks of inpainting */
};

/* torch.Generator("cpu").manual_seed(seed) and torch.randn. */
typedef struct slr_torch_rng {
    uint32_t state[624];
    int at;
    int has_next;
    double next;
} slr_torch_rng;
void slr_torch_seed(slr_torch_rng *r, uint64_t seed);
uint32_t slr_torch_u32(slr_torch_rng *r);
void slr_torch_randn(slr_torch_rng *r, float *out, size_t n);

/* The normals of torch.Generator("cuda") as AUTOMATIC1111's "NV" has them: number i of draw `draw`
 * is Philox at (draw, i). */
typedef struct slr_nv_rng {
    uint64_t seed;
    uint32_t draw;
} slr_nv_rng;
void slr_nv_seed(slr_nv_rng *r, uint64_t seed);
void slr_nv_randn(slr_nv_rng *r, float *out, size_t n);

/* numpy.random.SeedSequence(entropy, spawn_key=path, pool_size=24).generate_state(n); path has two
 * numbers or none. */
void slr_seed_sequence(uint64_t entropy, const uint64_t *path, size_t n_path, uint32_t *out,
                       size_t n);

#endif
