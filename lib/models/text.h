/* SPDX-License-Identifier: MIT */
/* What conditions a family's UNet besides the timestep: the states of one or two text encoders side
 * by side, a pooled state, and numbers that say sizes.  Rows of family.c and the weights tell
 * which; callers loop over encoders and never ask for a family by name. */
#ifndef SLR_MODELS_TEXT_H
#define SLR_MODELS_TEXT_H

#include "models/checkpoint.h"
#include "models/clip.h"

enum { SLR_SIZE_NUMBERS = 6, SLR_SIZE_WIDTH = 256 };

typedef struct slr_text_shape {
    int n;                       /* encoders: 1 or 2 */
    int part[SLR_TEXT_ENCODERS]; /* SLR_PART_TE or _TE2, in the order of their states */
    slr_clip_shape clip[SLR_TEXT_ENCODERS];
    int64_t at[SLR_TEXT_ENCODERS]; /* column of each encoder's states in a token's row */
    int64_t width;                 /* of a row: 768, 1024, 2048, 1280 */
    int64_t pooled;                /* width of the pooled state, 0: none (SD 1, SD 2) */
    int n_sizes;                   /* numbers beside it: 6 (SDXL), 5 (refiner), 0 */
    int64_t vector;                /* pooled + n_sizes * 256: what the UNet takes; 0: none */
} slr_text_shape;

/* Errors: ENOTFOUND names the encoder or the projection that a checkpoint lacks; EFORMAT where the
 * UNet's widths and the encoders' do not fit. */
int slr_text_read(slr_text_shape *out, const slr_checkpoint *base);

/* States of encoder e, nn->part and nn->w being its own: ids [B,77] -> [B,77,clip[e].width]. pooled
 * (Nullable, and SLR_NONE for encoders that give none) receives [B,pooled] f32 of the place that
 * `end` [B,1,77] f32 marks with a 1 (slr_text_ends()).  clip_skip as users give it: families whose
 * states are those of a fixed layer ignore it; -n moves these too (A1111's sdxl_clip_l_skip,
 * kohya's clip_skip of SD 2), save those of an encoder that gives a pooled state. */
slr_val slr_text_build(slr_nn *nn, const slr_family *family, const slr_text_shape *s, int e,
                       slr_val ids, int clip_skip, slr_val end, slr_val *pooled);
/* Marks where a text ends in each row of 77 ids: the first place of the largest id that a tokenizer
 * gives. */
void slr_text_ends(const int32_t *ids, size_t rows, float *end);
/* Encoder e's own ids of rows as encoder 0 has them: what stands behind the first end token becomes
 * its padding.  May be called on a copy only. */
void slr_text_pad(const slr_family *family, int part, int32_t *ids, size_t rows);

/* Size numbers in the order that the UNet takes them: original h, w, crop top, left, then target h,
 * w (base) or the aesthetic score (refiner). out: n * 256 floats, cosines before sines. */
void slr_text_sizes(const float *numbers, int n, float *out);

#endif
