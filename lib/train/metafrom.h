/* SPDX-License-Identifier: MIT */
/* The way back from a network file's metadata to the options that it was trained with. */
#ifndef SLR_TRAIN_METAFROM_H
#define SLR_TRAIN_METAFROM_H

#include "base/options.h"

/* Sets every option of o's kind ("train", "network" or "dataset") that the file tells of and that
 * is not set yet.  *notes: a line for each setting that cannot be taken over, and with "train" for
 * each unknown ss_ key; the caller's (slr_free with m); Nullable. */
int slr_options_from_metadata(sdlora_options *o, slr_mem *m, const char *path, char **notes);

#endif
