/* SPDX-License-Identifier: MIT */
/* What CLIP's tokenizer does to text before it looks for tokens. */
#ifndef SLR_MODELS_TEXTCLEAN_H
#define SLR_MODELS_TEXTCLEAN_H

#include "base/str.h"

/* Appends the cleaned, white-space-collapsed, lower-cased form of valid UTF-8 text to out. */
int slr_text_clean(slr_mem *m, const char *text, size_t n, slr_buf *out);

/* Unicode's White_Space property. */
int slr_is_space(int32_t cp);

#endif
