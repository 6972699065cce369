/* SPDX-License-Identifier: MIT */
/* The values of a grid's axis, as AUTOMATIC1111's X/Y/Z script reads them: a row of CSV whose
 * numbers may be ranges.  Refuses to know what the values are for. */
#ifndef SLR_API_GRID_VALUES_H
#define SLR_API_GRID_VALUES_H

#include <stdbool.h>
#include <stdint.h>

#include "base/mem.h"

enum {
    SLR_GRID_TEXT = 1,
    SLR_GRID_INT,   /* "1-10", "1-10 (+2)", "1-10 [5]" */
    SLR_GRID_REAL,  /* the same */
    SLR_GRID_ORDER, /* every order of the texts */
    SLR_GRID_MOST = 4096
};

typedef struct slr_grid_value {
    char *text;  /* as written; of a range the number itself; of an order its texts with ", " */
    int64_t i;   /* INT */
    double real; /* REAL */
} slr_grid_value;

typedef struct slr_grid_values {
    slr_mem *m;
    slr_grid_value *at;
    size_t n, cap;
    char **part; /* ORDER: the texts as written, n_parts of them */
    size_t n_parts, parts_cap;
} slr_grid_values;

/* lines: each line of a text of several is one value, commas and all.  Errors: EINVAL names the
 * value; also when there are more than SLR_GRID_MOST. */
int slr_grid_values_read(slr_grid_values *out, slr_mem *m, int type, const char *text, bool lines);
void slr_grid_values_free(slr_grid_values *v);
/* The k-th order of n things, those that leave the first ones in place first. */
void slr_grid_order(size_t k, size_t n, size_t *order);

#endif
