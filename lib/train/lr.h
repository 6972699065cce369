/* SPDX-License-Identifier: MIT */
/* Learning-rate schedules as rows: the factor of a step. */
#ifndef SLR_TRAIN_LR_H
#define SLR_TRAIN_LR_H

#include <stdint.h>

typedef struct slr_lr_plan {
    int64_t warmup, total; /* optimiser steps */
    double cycles, power;  /* lr_scheduler_num_cycles, lr_scheduler_power */
    double lr0;            /* the base rate, which polynomial needs */
} slr_lr_plan;

typedef struct slr_lr_row {
    const char *name; /* kohya's lr_scheduler */
    double (*factor)(const slr_lr_plan *p, int64_t step);
} slr_lr_row;

/* ENOTSUP lists the names there are. */
int slr_lr_find(const char *name, const slr_lr_row **out);
/* Factor of optimiser step `step` (0-based), warm-up included. */
double slr_lr_factor(const slr_lr_row *row, const slr_lr_plan *p, int64_t step);

#endif
