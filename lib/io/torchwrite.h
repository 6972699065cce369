/* SPDX-License-Identifier: MIT */
/* Writes .pt files as torch.save does: a zip of one pickle (protocol 2) and one stored entry for
 * each tensor.  Values are told in the order of the file; nothing is written before save, which is
 * atomic.  Calls after a failure do nothing, and save returns the first one. */
#ifndef SLR_IO_TORCHWRITE_H
#define SLR_IO_TORCHWRITE_H

#include <stdbool.h>

#include "tensor/tensor.h"

typedef struct slr_torchwrite slr_torchwrite;
int slr_torchwrite_new(slr_torchwrite **out, slr_mem *m);
void slr_torchwrite_free(slr_torchwrite *w); /* NULL does nothing */

/* Containers take every value up to their end; those of dicts are key, value, key, value ... */
void slr_torchwrite_dict(slr_torchwrite *w);
void slr_torchwrite_ordered_dict(slr_torchwrite *w); /* collections.OrderedDict: a state dict */
void slr_torchwrite_list(slr_torchwrite *w);
void slr_torchwrite_tuple(slr_torchwrite *w);
void slr_torchwrite_end(slr_torchwrite *w);

void slr_torchwrite_none(slr_torchwrite *w);
void slr_torchwrite_bool(slr_torchwrite *w, bool value);
void slr_torchwrite_int(slr_torchwrite *w, int64_t value);
void slr_torchwrite_real(slr_torchwrite *w, double value);
void slr_torchwrite_text(slr_torchwrite *w, const char *value); /* UTF-8 */
/* A tensor of its own storage, written as `dtype`: its own, or F32, F16, BF16 of a tensor that has
 * a rule for f32.  The data is read at save and stays the caller's until then.  ENAN at save when
 * an element is not finite as dtype. */
void slr_torchwrite_tensor(slr_torchwrite *w, const slr_tensor *t, uint32_t dtype);

/* One value must have been told, whole.  The file is the old one or all of the new one. */
int slr_torchwrite_save(slr_torchwrite *w, const char *path);

#endif
