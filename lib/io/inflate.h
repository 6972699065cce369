/* SPDX-License-Identifier: MIT */
/* zlib streams with a limit on what they may become. */
#ifndef SLR_IO_INFLATE_H
#define SLR_IO_INFLATE_H

#include "base/str.h"

/* Appends what a zlib stream holds to `to`; bytes behind its end are left alone.  SDLORA_EFORMAT
 * with *why set to a sentence's end ("does not inflate"), and no error recorded; or ENOMEM. */
int slr_inflate(const void *bytes, size_t n, size_t limit, slr_buf *to, const char **why);

#endif
