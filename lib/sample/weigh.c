/* SPDX-License-Identifier: MIT */
/* Weights on text states, as AUTOMATIC1111 applies them after the text encoder.  Refuses to know
 * where weights come from. */
#include "sample/weigh.h"

#include <math.h>

#include "sample/prompt.h"

enum { ROW = 77 };

/* Of all values, each text as often as it stands in the batch; in double, in one order. */
static double mean(const slr_weighed *list, size_t n, int64_t width, int64_t stride)
{
    double all = 0;
    int64_t count = 0;
    for (size_t i = 0; i < n; i++) {
        double sum = 0;
        for (int64_t r = 0; r < ROW; r++)
            for (int64_t k = 0; k < width; k++)
                sum += list[i].states[r * stride + k];
        all += sum * (double)list[i].count;
        count += list[i].count;
    }
    return all / (double)(count * ROW * width);
}

/* Rows times their weights, or all of them times `factor`. */
static void scale(const slr_weighed *w, const float *factor, int64_t width, int64_t stride)
{
    for (int64_t r = 0; r < ROW; r++)
        for (int64_t k = 0; k < width; k++)
            w->states[r * stride + k] *= factor ? *factor : w->weights[r];
}

void slr_weigh(int emphasis, const slr_weighed *list, size_t n, int64_t width, int64_t stride)
{
    if (emphasis == SLR_EMPHASIS_IGNORE || emphasis == SLR_EMPHASIS_NONE)
        return;
    double before = mean(list, n, width, stride);
    for (size_t i = 0; i < n; i++)
        scale(&list[i], NULL, width, stride);
    if (emphasis != SLR_EMPHASIS_ORIGINAL)
        return;
    float restore = (float)(before / mean(list, n, width, stride));
    for (size_t i = 0; isfinite(restore) && i < n; i++)
        scale(&list[i], &restore, width, stride);
}
