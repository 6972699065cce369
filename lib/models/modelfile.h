/* SPDX-License-Identifier: MIT */
/* All tensors of a model's files in one bag, under the names that the files give them. */
#ifndef SLR_MODELS_MODELFILE_H
#define SLR_MODELS_MODELFILE_H

#include <stdbool.h>

#include "tensor/tensor.h"

typedef struct slr_bag slr_bag;

int slr_bag_new(slr_bag **out, slr_mem *m);
/* Tensors taken out of it stay valid through their storage references. */
void slr_bag_free(slr_bag *b);
/* Adds a safetensors or torch file, told apart by its first bytes. */
int slr_bag_add_file(slr_bag *b, const char *path);
/* Adds <folder>/<base>.safetensors in one of the forms that diffusers writes: plain, .fp16, sharded
 * with an index, torch .bin.  ENOTFOUND when there is none. */
int slr_bag_add_component(slr_bag *b, const char *folder, const char *base);

size_t slr_bag_count(const slr_bag *b);
const char *slr_bag_at(const slr_bag *b, size_t i, slr_tensor *t); /* storage borrowed */
bool slr_bag_find(const slr_bag *b, const char *name, slr_tensor *t);
/* __metadata__ of the first safetensors file; NULL: absent. */
const char *slr_bag_meta(const slr_bag *b, const char *key);
size_t slr_bag_meta_count(const slr_bag *b); /* of the same file */
const char *slr_bag_meta_at(const slr_bag *b, size_t i, const char **value);

#endif
