/* SPDX-License-Identifier: MIT */
/* Inside the room: what toml.c asks of the one C++ file.  Plain enough for both languages. */
#ifndef SLR_IO_TOMLTREE_H
#define SLR_IO_TOMLTREE_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

struct json_t;

enum { SLR_TOML_DEPTH = 64 }; /* arrays in arrays; parts of a key */

/* Why there is no tree, for the caller's sentence. */
typedef struct slr_toml_error {
    unsigned line, column; /* from 1; 0: no place */
    char text[160];        /* empty: out of memory */
} slr_toml_error;

/* NULL after a failure.  Throws nothing. */
struct json_t *slr_toml_tree(const char *text, size_t n, slr_toml_error *error);

#ifdef __cplusplus
}
#endif

#endif
