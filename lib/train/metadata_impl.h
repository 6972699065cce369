/* SPDX-License-Identifier: MIT */
/* Inside the metadata of a run: what metadata.c and metadata_card.c share. */
#ifndef SLR_TRAIN_METADATA_IMPL_H
#define SLR_TRAIN_METADATA_IMPL_H

#include "train/metadata.h"

/* A key from an option's value, in kohya's spelling. */
int slr_metadata_option(slr_meta *meta, const char *key, slr_opt o, const char *option);
/* "512" or "512,768" as width and height. */
void slr_metadata_resolution(const slr_run_facts *f, long long *w, long long *h);
/* metadata_card.c */
int slr_metadata_modelspec(slr_meta *meta, const slr_run_facts *f);

#endif
