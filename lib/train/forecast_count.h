/* SPDX-License-Identifier: MIT */
/* The counting half of a forecast: what follows from options and data set alone. */
#ifndef SLR_TRAIN_FORECAST_COUNT_H
#define SLR_TRAIN_FORECAST_COUNT_H

#include "train/forecast.h"
#include "train/trainer_impl.h"

/* Steps, epochs, batches, shapes.  t: of slr_trainer_make(). */
int slr_forecast_lengths(slr_forecast *f, const slr_trainer *t);
/* How often the held-out loss is measured and samples are drawn; n: pictures at each point. */
void slr_forecast_events(slr_forecast *f, const slr_trainer *t, size_t n_pictures);
/* Files that the options ask for.  sample_bytes: of the pictures of one sampling point. */
int slr_forecast_disk(slr_forecast *f, slr_trainer *t, const slr_loader_needs *needs,
                      uint64_t sample_bytes);
/* How many texts are encoded and how many bytes of states are kept, for texts used `uses` times in
 * all and `each` times an epoch. */
void slr_forecast_texts(const slr_loader_needs *needs, int64_t uses, int64_t each,
                        uint64_t text_bytes, int64_t *encoded, uint64_t *kept);

#endif
