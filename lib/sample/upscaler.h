/* SPDX-License-Identifier: MIT */
/* Enlarging pictures by name, as AUTOMATIC1111's upscalers do: "None" and "Lanczos", "Nearest", and
 * files of ESRGAN networks. */
#ifndef SLR_SAMPLE_UPSCALER_H
#define SLR_SAMPLE_UPSCALER_H

#include "sample/fit.h"
#include "sample/rrdb.h"

typedef struct slr_upscaler slr_upscaler;

/* path: a network's file for any other name; NULL where the name is one of the three.  ENOTFOUND:
 * no such name. */
int slr_upscaler_new(slr_upscaler **out, slr_mem *m, slr_devices *devices, const char *name,
                     const char *path);
void slr_upscaler_free(slr_upscaler *u); /* NULL: nothing */
/* RGB to w x h; cancel: for the calls that follow. */
int slr_upscaler_run(slr_upscaler *u, const slr_pixels *p, int32_t w, int32_t h,
                     const slr_cancel_flag *cancel, slr_pixels *out);
bool slr_upscaler_is_plain(const char *name); /* whether it needs no file */
const char *slr_upscaler_plain_name(size_t i);   /* those in order; NULL past the last */

#endif
