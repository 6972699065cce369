/* SPDX-License-Identifier: MIT */
/* Which texts guide which evaluation of a pass: states of a schedule's texts, sizes, and when the
 * negative prompt is left out.  Refuses to know samplers. */
#ifndef SLR_SAMPLE_GUIDE_H
#define SLR_SAMPLE_GUIDE_H

#include "sample/pass.h"

typedef struct slr_guide {
    slr_mem *m;
    slr_pass *p;
    slr_model *model;
    slr_cond **part; /* states of each part's texts */
    slr_cond *negative, empty;
    slr_cond *now; /* of one evaluation, a part each */
    double *weight;
    float *sizes[2]; /* prompt's, negative prompt's */
    int n_sizes;
} slr_guide;

/* How texts are read for a model. */
slr_cond_config slr_guide_config(const slr_settings *set, const slr_model *model, bool negative);

/* Encodes all texts of the pass for a model. */
int slr_guide_new(slr_guide *out, slr_mem *m, slr_pass *p, slr_model *model);
void slr_guide_free(slr_guide *g);
/* The guidance of an evaluation (counted from 0) of `total`.  level: sigma, or the timestep of
 * timestep samplers.  factor: of cfg. */
void slr_guide_at(slr_guide *g, int evaluation, int total, double level, double factor,
                  slr_guidance *out);

#endif
