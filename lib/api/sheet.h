/* SPDX-License-Identifier: MIT */
/* Pictures in rows and columns on one labelled sheet. */
#ifndef SLR_API_SHEET_H
#define SLR_API_SHEET_H

#include "api/api.h"

typedef struct slr_sheet {
    sdlora_image *const *cells; /* rows * columns, row by row; NULL: the place stays white, but one
                                   picture there is */
    size_t rows, columns;
    const char *const *row_labels, *const *column_labels; /* Nullable, and so is each label */
    int32_t gap; /* white pixels between pictures and around the sheet */
    bool mixed;  /* pictures may differ in size: each place is as big as the biggest, and smaller
                    ones stand in its middle */
    bool pixels; /* small pictures are not enlarged */
} slr_sheet;

enum { SLR_SHEET_GAP = 8 };

/* text (Nullable) is taken over, also on failure: the sheet's parameters. */
int slr_sheet_make(sdlora_image **out, sdlora_context *ctx, const slr_sheet *config, char *text);

#endif
