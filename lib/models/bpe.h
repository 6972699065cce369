/* SPDX-License-Identifier: MIT */
/* CLIP's byte-pair tokenizer: clean, split, merge.  The table is built in.  Immutable and shared
 * once made. */
#ifndef SLR_MODELS_BPE_H
#define SLR_MODELS_BPE_H

#include <stdbool.h>

#include "base/mem.h"

typedef struct slr_bpe slr_bpe;

int slr_bpe_new(slr_bpe **out, slr_mem *m);
slr_bpe *slr_bpe_ref(slr_bpe *b);
void slr_bpe_unref(slr_bpe *b);
/* Ids of UTF-8 text without BOS, EOS and padding.  *ids is the caller's (slr_free with m). */
int slr_bpe_encode(const slr_bpe *b, slr_mem *m, const char *text, size_t n_bytes, int32_t **ids,
                   size_t *n_ids);
/* "red</w>" of an id, or NULL. Borrowed. */
const char *slr_bpe_token(const slr_bpe *b, int32_t id);
/* The two tokens that merge `rank` joins, both borrowed; false: past the last. */
bool slr_bpe_merge_at(const slr_bpe *b, size_t rank, const char **left, const char **right);

#endif
