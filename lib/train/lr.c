/* SPDX-License-Identifier: MIT */
/* Learning-rate factors by name.  Pure functions of the step, so a resumed run needs no scheduler
 * state. */
#include "train/lr.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

#include "base/status.h"

#define PI 3.14159265358979323846

/* Share of the way from the end of the warm-up to the end. */
static double progress(const slr_lr_plan *p, int64_t step)
{
    int64_t span = p->total - p->warmup;
    return (double)(step - p->warmup) / (double)(span > 1 ? span : 1);
}

static double constant(const slr_lr_plan *p, int64_t step)
{
    (void)p;
    (void)step;
    return 1.0;
}

static double linear(const slr_lr_plan *p, int64_t step)
{
    return fmax(0.0, 1.0 - progress(p, step));
}

static double cosine(const slr_lr_plan *p, int64_t step)
{
    return fmax(0.0, 0.5 * (1.0 + cos(PI * progress(p, step))));
}

static double cosine_with_restarts(const slr_lr_plan *p, int64_t step)
{
    double at = progress(p, step);
    return at >= 1.0 ? 0.0 : fmax(0.0, 0.5 * (1.0 + cos(PI * fmod(p->cycles * at, 1.0))));
}

#define POLYNOMIAL_END 1e-7

static double polynomial(const slr_lr_plan *p, int64_t step)
{
    if (step > p->total)
        return POLYNOMIAL_END / p->lr0;
    double left = 1.0 - progress(p, step);
    return ((p->lr0 - POLYNOMIAL_END) * pow(left, p->power) + POLYNOMIAL_END) / p->lr0;
}

static const slr_lr_row rows[] = {
    {"constant", constant},
    {"constant_with_warmup", constant},
    {"linear", linear},
    {"cosine", cosine},
    {"cosine_with_restarts", cosine_with_restarts},
    {"polynomial", polynomial},
};

int slr_lr_find(const char *name, const slr_lr_row **out)
{
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (!strcmp(rows[i].name, name)) {
            *out = &rows[i];
            return SDLORA_OK;
        }
    return slr_fail(
        SDLORA_ENOTSUP, __func__,
        "lr_scheduler %s is not supported: there are constant, constant_with_warmup, linear, "
        "cosine, cosine_with_restarts, polynomial",
        name);
}

double slr_lr_factor(const slr_lr_row *row, const slr_lr_plan *p, int64_t step)
{
    if (step < p->warmup)
        return (double)step / (double)p->warmup;
    return row->factor(p, step);
}
