/* SPDX-License-Identifier: MIT */
/* The geometry of a convolution and of its gradient by x: which source pixel lies under which tap
 * of the filter for which pixel of the result.  Refuses to know arithmetic and types beyond whether
 * operands are dense. */
#ifndef SLR_BACKEND_CPU_CONV_H
#define SLR_BACKEND_CPU_CONV_H

#include "backend/cpu/cpu.h"

/* One side of the sum: an image that is read under the taps. */
typedef struct slr_conv_image {
    int64_t n, h, w, c; /* c: all channels */
} slr_conv_image;

typedef struct slr_conv_shape {
    slr_conv_image x, y; /* y.c is K */
    int64_t r, s, stride_h, stride_w, pad_top, pad_left, groups;
    int64_t cg, kg; /* channels and filters of one group */
} slr_conv_shape;

/* Taps that reach output pixels of one residue class.  Forward there is one class with all taps. */
typedef struct slr_conv_phase {
    int64_t y0, x0, step_h, step_w; /* pixels y0 + i step_h, x0 + j step_w of the result */
    int64_t rows, cols;             /* how many: i < rows, j < cols */
    int64_t tap0, n_taps;           /* its part of the tap list */
    int64_t tile0;                  /* number of the phase's first tile: the kernel's */
} slr_conv_phase;

/* For tap t, result pixel (i, j) of the phase reads source pixel (i * mul + dy, j * mul + dx). */
typedef struct slr_conv_tap {
    int64_t dy, dx, index; /* index: r * S + s, where its weights lie */
} slr_conv_tap;

typedef struct slr_conv_walk {
    slr_conv_phase *phases;
    slr_conv_tap *taps;
    int64_t n_phases;
    int64_t mul_h, mul_w; /* source pixels per result pixel of a phase */
} slr_conv_walk;

/* Reads and checks what the three operations share; w gives K, Cg, R, S, and x or y may be
 * computed. */
int slr_conv_read(slr_conv_shape *s, const sdlora_opdesc *op, const sdlora_tdesc *x,
                  const sdlora_tdesc *y, const int64_t w[4]);
/* `strict`: bits of the operands, inputs first, that are f32 in any case. */
int slr_conv_check_types(const sdlora_opdesc *op, unsigned strict);

/* back: the gradient by x.  After ENOMEM, too, the walk has to be freed. */
int slr_conv_walk_new(slr_conv_walk *w, const slr_cpu_env *env, const slr_conv_shape *s, bool back);
void slr_conv_walk_free(slr_conv_walk *w, const slr_cpu_env *env);

#endif
