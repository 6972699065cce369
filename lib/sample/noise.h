/* SPDX-License-Identifier: MIT */
/* The random numbers of one picture, as AUTOMATIC1111 draws them: first noise with variation seed
 * and seed resize, the noise of later steps behind ENSD, and the Brownian path of SDE samplers.
 * Arrays are [c,h,w], as the numbers fall.  Refuses to know samplers. */
#ifndef SLR_SAMPLE_NOISE_H
#define SLR_SAMPLE_NOISE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/mem.h"

enum { SLR_NOISE_CPU = 0, SLR_NOISE_NV = 1 }; /* torch's CPU generator; CUDA's */

typedef struct slr_noise_config {
    int source; /* SLR_NOISE_* */
    uint64_t seed, subseed;
    double strength;        /* of the variation, 0: none */
    int64_t c, h, w;        /* latents */
    int64_t from_h, from_w; /* seed resize, in latents; 0: none */
    int64_t ensd;           /* eta noise seed delta */
} slr_noise_config;

typedef struct slr_noise slr_noise;
int slr_noise_new(slr_noise **out, slr_mem *m, const slr_noise_config *config);
void slr_noise_free(slr_noise *n); /* NULL: nothing */
/* The first noise; once, before slr_noise_next(). */
int slr_noise_first(slr_noise *n, float *out);
/* The next N(0,1) of the picture. */
int slr_noise_next(slr_noise *n, float *out);
/* The Brownian path over sigmas lo to hi: the least above 0 and the greatest of the whole schedule,
 * also where a tail of it is used (img2img).  Before slr_noise_between(); again: another path. */
int slr_noise_tree(slr_noise *n, double lo, double hi);
/* What an SDE sampler adds between two sigmas: of unit variance. */
int slr_noise_between(slr_noise *n, double from, double to, float *out);

#endif
