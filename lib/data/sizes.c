/* SPDX-License-Identifier: MIT */
/* The sizes that condition SDXL, with the numbers of sd-scripts' BucketManager.get_crop_ltrb and of
 * its data set, which mirrors them.  Refuses to know how a picture is really cropped. */
#include <math.h>

#include "data/dataset.h"

void slr_sample_sizes(int64_t w, int64_t h, const slr_bucket *b, bool flip,
                      float out[SLR_SAMPLE_SIZES])
{
    double aspect = (double)w / (double)h, wide = b->width, high = b->height;
    if (wide / high > aspect)
        wide = high * aspect;
    else
        high = wide / aspect;
    double left = floor((b->width - wide) / 2), top = floor((b->height - high) / 2);
    if (flip)
        left = trunc(b->width - (left + wide)); /* the right margin, which comes to the left */
    const double sizes[SLR_SAMPLE_SIZES] = {(double)h, (double)w, top, left, b->height, b->width};
    for (int i = 0; i < SLR_SAMPLE_SIZES; i++)
        out[i] = (float)sizes[i];
}
