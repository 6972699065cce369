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

/* What is no tensor, below the same root: its own values ("step") and those of the containers in it
 * ("layer_structure.0", "string_to_token.*"), not what is deeper.  Texts are valid UTF-8 without a
 * NUL: others, and what comes after the first thousand, are left out. */
enum { SLR_TORCH_NONE, SLR_TORCH_BOOL, SLR_TORCH_INT, SLR_TORCH_REAL, SLR_TORCH_TEXT };
typedef struct slr_torch_value {
    char *name;
    int type;
    int64_t i;  /* of BOOL and INT */
    double f;   /* of BOOL, INT and REAL */
    char *text; /* NULL but for TEXT */
} slr_torch_value;
size_t slr_torchfile_values(const slr_torchfile *f);
const slr_torch_value *slr_torchfile_value_at(const slr_torchfile *f, size_t i);
const slr_torch_value *slr_torchfile_value(const slr_torchfile *f, const char *name); /* or NULL */

slr_storage *slr_torchfile_map(const slr_torchfile *f); /* borrowed; NULL after parse */

/* Whether the first bytes of a file (9 or more, to be sure) are those of a torch file. */
bool slr_torchfile_is(const void *first, size_t n);

#endif
