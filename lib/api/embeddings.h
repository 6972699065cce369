/* SPDX-License-Identifier: MIT */
/* Embeddings for a generator, from a file or from all files of a folder. */
#ifndef SLR_API_EMBEDDINGS_H
#define SLR_API_EMBEDDINGS_H

#include "base/log.h"
#include "models/checkpoint.h"
#include "sample/generator.h"

/* A file that does not fit is an error; one in a folder is skipped with a warning. */
int slr_embeddings_load(slr_generator *g, slr_mem *m, const slr_log *log,
                        const slr_checkpoint *base, const char *path);

#endif
