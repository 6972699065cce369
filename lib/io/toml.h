/* SPDX-License-Identifier: MIT */
/* TOML 1.0 as the same tree that JSON gives, so that a setting may stand in either: tables are
 * objects, dates and times are text as RFC 3339 spells them. */
#ifndef SLR_IO_TOML_H
#define SLR_IO_TOML_H

#include "io/json.h"

/* One document.  EFORMAT with label, line and column; inf, nan and NUL characters have no place in
 * a tree and are refused.  Caller json_decref()s. */
int slr_toml_parse(json_t **out, const char *text, size_t n, const char *label);
int slr_toml_read(json_t **out, slr_mem *m, const char *path, uint64_t limit);

#endif
