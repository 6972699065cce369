/* SPDX-License-Identifier: MIT */
/* Torch files (.ckpt, .pt, .bin): zip and legacy containers through a restricted pickle machine
 * that builds values and never runs code.  Gives the tensors of the state dict by name. */
#ifndef SLR_IO_TORCHFILE_H
#define SLR_IO_TORCHFILE_H

#include <stdbool.h>

#include "tensor/tensor.h"

typedef struct slr_torchfile slr_torchfile;
int slr_torchfile_open(slr_torchfile **out, slr_mem *m, const char *path);
/* The same from bytes that the caller keeps until close; `label` stands in messages. */
int slr_torchfile_parse(slr_torchfile **out, slr_mem *m, const void *bytes, size_t n,
                        const char *label);
void slr_torchfile_close(slr_torchfile *f);
/* Tensors below the root (or its `state_dict`), nested dict keys joined with '.'; views into the
 * mapping when dense, gathered copies otherwise (so slr_file_forget() is only for those whose
 * storage is slr_torchfile_map()).  Storage borrowed until close: take a reference to keep it. */
size_t slr_torchfile_count(const slr_torchfile *f);
const char *slr_torchfile_at(const slr_torchfile *f, size_t i, slr_tensor *t);
slr_storage *slr_torchfile_map(const slr_torchfile *f); /* borrowed; NULL after parse */

/* Whether the first bytes of a file (8 or more) are those of a torch file. */
bool slr_torchfile_is(const void *first, size_t n);

#endif
