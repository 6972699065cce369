/* SPDX-License-Identifier: MIT */
/* Noise schedules of k-diffusion samplers, one row each (inference.md §4.2). */
#include <ctype.h>
#include <math.h>
#include <string.h>
#include <strings.h>

#include "base/status.h"
#include "sample/solver.h"

#define KARRAS_RHO 7.0

static int check_room(int steps, int cap)
{
    return steps >= 1 && steps + 1 <= cap
               ? SDLORA_OK
               : slr_fail(SDLORA_EINVAL, __func__, "%d steps are not between 1 and %d", steps,
                          cap - 1);
}

/* i-th of n values from a to b; a alone when n is 1. */
static double line(double a, double b, int i, int n)
{
    return n > 1 ? a + (b - a) * i / (n - 1) : a;
}

static int uniform(const slr_schedule *s, int steps, double lo, double hi, double *out, int cap,
                   int *count)
{
    (void)lo;
    (void)hi;
    SLR_TRY(check_room(steps, cap));
    for (int i = 0; i < steps; i++)
        out[i] = slr_schedule_sigma(s, line(SLR_TIMESTEPS - 1, 0, i, steps));
    out[steps] = 0;
    *count = steps + 1;
    return SDLORA_OK;
}

static int karras(const slr_schedule *s, int steps, double lo, double hi, double *out, int cap,
                  int *count)
{
    (void)s;
    SLR_TRY(check_room(steps, cap));
    double a = pow(hi, 1 / KARRAS_RHO), b = pow(lo, 1 / KARRAS_RHO);
    for (int i = 0; i < steps; i++)
        out[i] = pow(line(a, b, i, steps), KARRAS_RHO);
    out[steps] = 0;
    *count = steps + 1;
    return SDLORA_OK;
}

static const slr_scheduler_row rows[] = {
    {"Uniform", uniform},
    {"Karras", karras},
};

const slr_scheduler_row *slr_schedulers(size_t *n)
{
    *n = sizeof rows / sizeof *rows;
    return rows;
}

const slr_scheduler_row *slr_scheduler_find(const char *name)
{
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (!strcasecmp(rows[i].name, name))
            return &rows[i];
    return NULL;
}
