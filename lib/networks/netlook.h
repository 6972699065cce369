/* SPDX-License-Identifier: MIT */
/* What the names and shapes of a network file tell without a checkpoint: who wrote it, which
 * algorithms adapt how many modules of which part, ranks and alphas, and the family of the model.
 * Reads no weights but alphas. */
#ifndef SLR_NETWORKS_NETLOOK_H
#define SLR_NETWORKS_NETLOOK_H

#include "base/str.h"
#include "tensor/tensor.h"

typedef struct slr_netlook slr_netlook;

int slr_netlook_new(slr_netlook **out, slr_mem *m);
void slr_netlook_free(slr_netlook *l);
/* Shows it a tensor of the file, whatever that is; data NULL: no alpha is read. */
int slr_netlook_tensor(slr_netlook *l, const char *name, const slr_tensor *t);
/* Modules that were seen; 0: the file is no network. */
size_t slr_netlook_modules(const slr_netlook *l);
/* "sd1", "sd2", "sdxl", or NULL where shapes do not tell. */
const char *slr_netlook_family(const slr_netlook *l);
/* `"algorithm": ..., "modules": n, "algorithms": {...}, ...`, without a comma at the end. */
void slr_netlook_put(const slr_netlook *l, slr_buf *b);

#endif
