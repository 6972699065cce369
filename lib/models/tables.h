/* SPDX-License-Identifier: MIT */
/* Data files that the build turns into arrays (tools/embed.py); tools/make_bpe.py says what is in
 * them. */
#ifndef SLR_MODELS_TABLES_H
#define SLR_MODELS_TABLES_H

#include <stddef.h>

extern const unsigned char slr_clip_merges[]; /* little-endian u16 pairs in order of rank */
extern const size_t slr_clip_merges_size;
extern const unsigned char slr_html_entities[]; /* "name<TAB>text<NEWLINE>" sorted by bytes */
extern const size_t slr_html_entities_size;

#endif
