/* SPDX-License-Identifier: MIT */
/* Option rows and sets of values.  One row per option (options.def); everything else - setters,
 * getters, messages, CLI flags, docs - reads the row. */
#ifndef SLR_BASE_OPTIONS_H
#define SLR_BASE_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <sdlora/types.h>
#include "base/mem.h"

enum { SLR_OPT_INT = 1, SLR_OPT_REAL = 2, SLR_OPT_TEXT = 3, SLR_OPT_BOOL = 4, SLR_OPT_LIST = 5 };

/* LIST is text with one item per line ("\n" between).  An unset value without default is "none". */
typedef struct slr_option_row {
    const char *kind; /* "train", "dataset", "network", "generate", "checkpoint", "context", ... */
    const char *name; /* kohya's spelling where kohya has one */
    int type;         /* SLR_OPT_* */
    double min, max;  /* for INT and REAL; inclusive */
    const char *choices; /* "a|b|c" for TEXT, or NULL */
    const char *def;     /* text, or NULL = none */
    const char *help;    /* one line */
} slr_option_row;

const slr_option_row *slr_option_rows(size_t *count);
const slr_option_row *slr_option_find(const char *kind, const char *name);

int slr_options_new(sdlora_options **out, slr_mem *m, const char *kind);
/* src NULL: *out is NULL, which readers take for "all defaults". */
int slr_options_copy(sdlora_options **out, const sdlora_options *src);
sdlora_options *slr_options_ref(sdlora_options *o);
void slr_options_unref(sdlora_options *o);
const char *slr_options_kind(const sdlora_options *o);

/* Unknown name: ENOTFOUND with the nearest name.  Bad value: EINVAL with range or choices. */
int slr_options_set_int(sdlora_options *o, const char *name, int64_t v);
int slr_options_set_real(sdlora_options *o, const char *name, double v);
int slr_options_set_text(sdlora_options *o, const char *name,
                         const char *v); /* parses for any type */

/* Readers of known names (a wrong name is a bug caught by tests).  o NULL: defaults of `kind`. */
typedef struct slr_opt {
    const sdlora_options *o;
    const char *kind;
} slr_opt;
bool slr_opt_given(slr_opt o, const char *name);  /* set by the caller */
bool slr_opt_has(slr_opt o, const char *name);    /* set, or has a default */
int64_t slr_opt_int(slr_opt o, const char *name); /* 0 when none */
double slr_opt_real(slr_opt o, const char *name);
bool slr_opt_bool(slr_opt o, const char *name);
/* Works for every type: "8", "0.0001", "true". */
const char *slr_opt_text(slr_opt o, const char *name); /* NULL when none; borrowed */

/* ENOTSUP naming the first option that was set to another value than its default although its help
 * ends in "(not supported yet)". */
int slr_opt_check_supported(slr_opt o);

#endif
