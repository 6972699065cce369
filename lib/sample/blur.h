/* SPDX-License-Identifier: MIT */
/* Gaussian blurs of 8-bit pictures, with the bytes of the two programs that masks and fills come
 * from. */
#ifndef SLR_SAMPLE_BLUR_H
#define SLR_SAMPLE_BLUR_H

#include <stdbool.h>

#include "io/image.h"

/* One axis of a grey picture, in place, as OpenCV blurs 8-bit ones: weights in 256ths, mirrored
 * edges without the edge pixel twice.  The kernel is 2 int(2.5 sigma + 0.5) + 1 wide.  sigma > 0.
 */
int slr_blur_axis(slr_pixels *grey, slr_mem *m, double sigma, bool along_x);

/* Both axes, any channels, in place, as Pillow does it: three box blurs each way.  radius 0:
 * nothing. */
int slr_blur_boxes(slr_pixels *p, slr_mem *m, float radius);

#endif
