/* SPDX-License-Identifier: MIT */
/* ESRGAN's network (RRDBNet), which enlarges pictures: files by three conventions of names, and a
 * graph. */
#ifndef SLR_SAMPLE_RRDB_H
#define SLR_SAMPLE_RRDB_H

#include "backend/registry.h"
#include "base/thread.h"
#include "io/image.h"

typedef struct slr_rrdb slr_rrdb;

/* A safetensors or torch file with the names of ESRGAN, of its first release or of Real-ESRGAN.
 * ENOTSUP names a tensor of a network that is another one. */
int slr_rrdb_open(slr_rrdb **out, slr_mem *m, slr_devices *devices, const char *path);
void slr_rrdb_free(slr_rrdb *r);       /* NULL: nothing */
int slr_rrdb_scale(const slr_rrdb *r); /* 1, 2, 4, 8, ... */
/* RGB to RGB of scale times the size.  Graphs are planned once per size. */
int slr_rrdb_run(slr_rrdb *r, const slr_pixels *p, const slr_cancel_flag *cancel, slr_pixels *out);

#endif
