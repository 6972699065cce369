/* SPDX-License-Identifier: MIT */
/* A safetensors file to be: names, and for each where its values come from.  Values are views that
 * someone else keeps; they are read, converted and let go piece by piece when the file is written,
 * so its size does not matter.  Knows nothing of names. */
#ifndef SLR_MODELS_OUTFILE_H
#define SLR_MODELS_OUTFILE_H

#include <stdbool.h>

#include "base/phase.h"
#include "tensor/tensor.h"

typedef struct slr_outfile slr_outfile;

int slr_outfile_new(slr_outfile **out, slr_mem *m);
void slr_outfile_free(slr_outfile *f); /* NULL: nothing */

/* How an entry's values are made; a zero is the tensor as it is. */
typedef struct slr_out_how {
    uint32_t dtype; /* 0: the source's */
    int rank;       /* with dim: another shape of as many elements; 0: the source's */
    int64_t dim[SLR_MAX_RANK];
    bool turned; /* the transpose of a source with two axes */
    int joined;  /* that many sources, one after another along the first axis; 0: one */
} slr_out_how;

/* EINVAL for a name that is there already; ENOTSUP for a type that has no name in the format. */
int slr_outfile_add(slr_outfile *f, const char *name, const slr_tensor *source,
                    const slr_out_how *how); /* how Nullable */
/* Small values of the library's own; copied. */
int slr_outfile_add_i64(slr_outfile *f, const char *name, int rank, const int64_t *dim,
                        const int64_t *values);
size_t slr_outfile_count(const slr_outfile *f);
uint64_t slr_outfile_bytes(const slr_outfile *f); /* of the values to be */
/* Metadata: sets or replaces; value NULL: removes. */
int slr_outfile_meta(slr_outfile *f, const char *key, const char *value);

/* How a written file came out. */
typedef struct slr_out_report {
    uint64_t overflows; /* finite values that became infinite in the smaller type */
    char first[192];    /* the tensor that had the first of them; "" */
} slr_out_report;

/* Progress of several files as one: bytes. */
typedef struct slr_out_progress {
    slr_phase_fn fn; /* Nullable */
    void *user;
    uint64_t done, total;
} slr_out_progress;

/* Atomic.  verify: compares what lies on the disk with a second reading of the sources before the
 * file takes its name, which progress counts as as much again.  ECANCELED when it says so. */
int slr_outfile_write(slr_outfile *f, const char *path, bool verify, slr_out_progress *progress,
                      slr_out_report *report);

#endif
