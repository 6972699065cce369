/* SPDX-License-Identifier: MIT */
/* Another __metadata__ for a safetensors file: the header is written anew, tensors are copied as
 * they lie, whatever their types. */
#ifndef SLR_IO_METAEDIT_H
#define SLR_IO_METAEDIT_H

#include "base/phase.h"
#include "io/safetensors.h"

/* Writes `in` as `out` (which may be the same file) with these changes: value NULL removes a key,
 * another sets it; new ones go to the end.  Where the file has kohya's sshs_legacy_hash and an ss_*
 * pair changes, that hash follows, as kohya would save it; sshs_model_hash is of the tensors and
 * stays.  EINVAL when the header would be larger than a file may have.  Atomic; the data section is
 * streamed.  phase (Nullable): "write", bytes. */
int slr_safetensors_edit(slr_mem *m, const char *in, const char *out, const slr_st_pair *changes,
                         size_t n, slr_phase_fn phase, void *user);

#endif
