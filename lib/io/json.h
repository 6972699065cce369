/* SPDX-License-Identifier: MIT */
/* JSON: a thin face of jansson (duplicates refused, depth capped) and a text writer.  jansson's own
 * type is used by the rooms that read; this header is the only place that includes it. */
#ifndef SLR_IO_JSON_H
#define SLR_IO_JSON_H

#include <jansson.h>

#include "base/mem.h"
#include "base/str.h"

#define SLR_JSON_DEPTH 64 /* brackets inside brackets */

/* Any JSON value, strict UTF-8.  EFORMAT with label, line and column. Caller json_decref()s. */
int slr_json_parse(json_t **out, const char *text, size_t n, const char *label);
int slr_json_read(json_t **out, slr_mem *m, const char *path, uint64_t limit);
/* Appends a JSON string literal; `ascii`: escapes non-ASCII as Python's json.dumps does by default.
 * A byte that is not UTF-8 becomes U+FFFD. */
void slr_json_quote(slr_buf *b, const char *text, size_t n, bool ascii);

#endif
