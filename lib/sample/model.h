/* SPDX-License-Identifier: MIT */
/* One checkpoint ready to sample with: its graphs, its texts, its schedule.  A refiner is another
 * one.  One thread at a time. */
#ifndef SLR_SAMPLE_MODEL_H
#define SLR_SAMPLE_MODEL_H

#include "models/schedule.h"
#include "sample/conds.h"
#include "sample/denoiser.h"
#include "sample/settings.h"

typedef struct slr_model {
    slr_mem *m;
    slr_checkpoint *base;
    slr_engine *engine;
    slr_conds *conds;
    slr_denoiser *denoiser;
    slr_schedule schedule; /* as the settings of the run want it */
} slr_model;

int slr_model_new(slr_model **out, slr_mem *m, slr_checkpoint *base, slr_devices *devices,
                  slr_bpe *bpe);
void slr_model_free(slr_model *s); /* NULL: nothing */
/* Gives back graphs, states and networks; they are made again when they are asked for. */
void slr_model_rest(slr_model *s);
/* Precision and noise schedule of the next run. */
void slr_model_set(slr_model *s, const slr_settings *set, slr_policy policy);
/* Whether it predicts v. */
bool slr_model_v(const slr_model *s);
/* Channels beyond the latents': 5 of inpainting models, 0 of others. */
int64_t slr_model_extra(const slr_model *s);

#endif
