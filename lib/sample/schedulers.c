/* SPDX-License-Identifier: MIT */
/* Noise schedules of k-diffusion samplers, one row each, and what stands around them: names,
 * defaults, the sigma that some samplers drop.  Refuses to know samplers but for their rows. */
#include <float.h>
#include <math.h>
#include <string.h>
#include <strings.h>

#include "base/status.h"
#include "sample/ladder.h"
#include "sample/solver.h"

/* Puts the 0 behind n sigmas. */
static int with_zero(float *out, int n)
{
    out[n] = 0;
    return n + 1;
}

static int uniform(const slr_ladder *l, const slr_sigma_config *c, float *out, int cap)
{
    (void)cap;
    float top = (float)(l->first + (l->n - 1) * l->skip);
    for (int i = 0; i < c->steps; i++)
        out[i] = slr_ladder_sigma(l, slr_f32_line(top, (float)l->first, i, c->steps));
    return with_zero(out, c->steps);
}

static int karras(const slr_ladder *l, const slr_sigma_config *c, float *out, int cap)
{
    (void)l;
    (void)cap;
    slr_ladder_karras(out, c->steps, c->sigma_min, c->sigma_max, c->rho);
    return with_zero(out, c->steps);
}

static int exponential(const slr_ladder *l, const slr_sigma_config *c, float *out, int cap)
{
    (void)l;
    (void)cap;
    float a = (float)log(c->sigma_max), b = (float)log(c->sigma_min);
    for (int i = 0; i < c->steps; i++)
        out[i] = slr_f32_exp(slr_f32_line(a, b, i, c->steps));
    return with_zero(out, c->steps);
}

static int polyexponential(const slr_ladder *l, const slr_sigma_config *c, float *out, int cap)
{
    (void)l;
    (void)cap;
    double a = log(c->sigma_max), b = log(c->sigma_min);
    for (int i = 0; i < c->steps; i++) {
        float ramp = slr_f32_pow(slr_f32_line(1, 0, i, c->steps), c->rho);
        out[i] = slr_f32_exp(ramp * (float)(a - b) + (float)b);
    }
    return with_zero(out, c->steps);
}

/* n of `points` timesteps from sigma_max to sigma_min. */
static int by_timestep(const slr_ladder *l, const slr_sigma_config *c, int points, float *out)
{
    float from = slr_ladder_t(l, (float)c->sigma_max), to = slr_ladder_t(l, (float)c->sigma_min);
    for (int i = 0; i < c->steps; i++)
        out[i] = slr_ladder_sigma(l, slr_f32_line(from, to, i, points));
    return with_zero(out, c->steps);
}

static int sgm_uniform(const slr_ladder *l, const slr_sigma_config *c, float *out, int cap)
{
    (void)cap;
    return by_timestep(l, c, c->steps + 1, out);
}

static int normal(const slr_ladder *l, const slr_sigma_config *c, float *out, int cap)
{
    (void)cap;
    return by_timestep(l, c, c->steps, out);
}

/* Ends at sigma_min: there is no 0 behind it. */
static int kl_optimal(const slr_ladder *l, const slr_sigma_config *c, float *out, int cap)
{
    (void)l;
    (void)cap;
    float lo = (float)atan((float)c->sigma_min), hi = (float)atan((float)c->sigma_max);
    for (int i = 0; i <= c->steps; i++) {
        float w = (float)i / (float)c->steps;
        out[i] = (float)tan((double)(w * lo + (1.0f - w) * hi));
    }
    return c->steps + 1;
}

/* NVIDIA's tables of ten steps, which have 11 sigmas; other numbers are interpolated in log sigma.
 */
static int align_your_steps(const slr_ladder *l, const slr_sigma_config *c, float *out, int cap)
{
    enum { POINTS = 11 };
    static const double sd1[POINTS] = {14.615, 6.475, 3.861, 2.697, 1.886, 1.396,
                                       0.963,  0.652, 0.399, 0.152, 0.029};
    static const double sdxl[POINTS] = {14.615, 6.315, 3.771, 2.181, 1.342, 0.862,
                                        0.555,  0.380, 0.234, 0.113, 0.029};
    const double *table = c->xl ? sdxl : sd1;
    (void)l;
    (void)cap;
    for (int i = 0; i < c->steps; i++) {
        /* from the small end, where the only value of one step stands */
        double at = c->steps > 1 ? (double)(c->steps - 1 - i) / (c->steps - 1) * (POINTS - 1) : 0;
        int low = (int)fmin(at, POINTS - 2);
        double a = log(table[POINTS - 1 - low]), b = log(table[POINTS - 2 - low]);
        out[i] = c->steps == POINTS ? (float)table[i] : (float)exp(a + (b - a) * (at - low));
    }
    return with_zero(out, c->steps);
}

static int simple(const slr_ladder *l, const slr_sigma_config *c, float *out, int cap)
{
    (void)cap;
    double stride = (double)l->n / c->steps;
    for (int i = 0; i < c->steps; i++)
        out[i] = l->sigma[l->n - 1 - (int)(i * stride)];
    return with_zero(out, c->steps);
}

/* May have more than `steps` sigmas. */
static int ddim(const slr_ladder *l, const slr_sigma_config *c, float *out, int cap)
{
    int stride = l->n / c->steps > 1 ? l->n / c->steps : 1, n = (l->n - 2) / stride + 1;
    if (n + 1 > cap)
        return slr_fail(SDLORA_EINVAL, __func__, "%d sigmas are more than %d", n + 1, cap);
    for (int i = 0; i < n; i++)
        out[i] = l->sigma[1 + (n - 1 - i) * stride];
    return with_zero(out, n);
}

/* --- quantiles of the beta distribution --- */

/* The continued fraction of the incomplete beta function (Abramowitz and Stegun 26.5.8), from the
 * front by Lentz' rule. */
static double beta_fraction(double x, double a, double b)
{
    enum { TERMS = 300 };
    const double tiny = 1e-300;
    double c = 1, d = 1 - (a + b) * x / (a + 1), f;
    d = 1 / (fabs(d) < tiny ? tiny : d);
    f = d;
    for (int m = 1; m <= TERMS; m++)
        for (int odd = 0; odd < 2; odd++) {
            double num = odd ? -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
                             : m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m));
            d = 1 + num * d;
            c = 1 + num / c;
            d = 1 / (fabs(d) < tiny ? tiny : d);
            c = fabs(c) < tiny ? tiny : c;
            f *= c * d;
            if (odd && fabs(c * d - 1) < 1e-16)
                return f;
        }
    return f;
}

/* Probability that a beta variable is less than x. */
static double beta_cdf(double x, double a, double b)
{
    if (x <= 0 || x >= 1)
        return x >= 1;
    double front = tgamma(a + b) / (tgamma(a) * tgamma(b)) * pow(x, a) * pow(1 - x, b);
    return x < (a + 1) / (a + b + 2) ? front * beta_fraction(x, a, b) / a
                                     : 1 - front * beta_fraction(1 - x, b, a) / b;
}

/* By halving; near 0 more of it is needed than a double has bits. */
static double beta_quantile(double p, double a, double b)
{
    double lo = 0, hi = 1;
    if (p <= 0 || p >= 1)
        return p >= 1;
    for (int i = 0; i < 1100 && hi - lo > 1e-15 * hi; i++) {
        double mid = lo + (hi - lo) / 2;
        if (mid <= lo || mid >= hi)
            break;
        if (beta_cdf(mid, a, b) < p)
            lo = mid;
        else
            hi = mid;
    }
    return lo + (hi - lo) / 2;
}

static int beta(const slr_ladder *l, const slr_sigma_config *c, float *out, int cap)
{
    (void)l;
    (void)cap;
    for (int i = 0; i < c->steps; i++) {
        double p = c->steps > 1 ? 1 - (double)i / (c->steps - 1) : 1;
        double x = beta_quantile(p, c->beta_alpha, c->beta_beta);
        out[i] = (float)(c->sigma_min + x * (c->sigma_max - c->sigma_min));
    }
    return with_zero(out, c->steps);
}

/* --- rows --- */

static const slr_scheduler_row rows[] = {
    {"Uniform", "uniform", 0, uniform},
    {"Karras", "karras", 7, karras},
    {"Exponential", "exponential", 0, exponential},
    {"Polyexponential", "polyexponential", 1, polyexponential},
    {"SGM Uniform", "sgm_uniform", 0, sgm_uniform},
    {"KL Optimal", "kl_optimal", 0, kl_optimal},
    {"Align Your Steps", "align_your_steps", 0, align_your_steps},
    {"Simple", "simple", 0, simple},
    {"Normal", "normal", 0, normal},
    {"DDIM", "ddim", 0, ddim},
    {"Beta", "beta", 0, beta},
};

const slr_scheduler_row *slr_schedulers(size_t *n)
{
    *n = sizeof rows / sizeof *rows;
    return rows;
}

const slr_scheduler_row *slr_scheduler_find(const char *name)
{
    if (!strcasecmp(name, "SGMUniform")) /* as it was called for a while */
        name = "sgm_uniform";
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (!strcasecmp(rows[i].name, name) || !strcasecmp(rows[i].key, name))
            return &rows[i];
    return NULL;
}

/* --- sigmas and timesteps of a sampler --- */

static int check_steps(int steps)
{
    if (steps >= 1 && steps <= SLR_MAX_STEPS)
        return SDLORA_OK;
    return slr_fail(SDLORA_EINVAL, __func__, "%d steps are not between 1 and %d", steps,
                    SLR_MAX_STEPS);
}

static int check_ends(const slr_sigma_config *c)
{
    if (c->sigma_min > 0 && c->sigma_max >= c->sigma_min && c->sigma_max <= FLT_MAX / 2 &&
        c->rho > -100 && c->rho < 100 && c->beta_alpha > 0 && c->beta_alpha <= 50 &&
        c->beta_beta > 0 && c->beta_beta <= 50)
        return SDLORA_OK;
    return slr_fail(SDLORA_EINVAL, __func__,
                    "a schedule from sigma %g to %g with rho %g, alpha %g and beta %g makes no "
                    "sense",
                    c->sigma_max, c->sigma_min, c->rho, c->beta_alpha, c->beta_beta);
}

static double given(double value, double otherwise)
{
    return value != 0 ? value : otherwise;
}

int slr_sigmas(const slr_sampler_row *row, const slr_scheduler_row *schedule,
               const slr_schedule *model, const slr_sigma_config *c, double *out, int *count)
{
    slr_ladder l;
    float sigma[SLR_MAX_SIGMAS];
    slr_sigma_config full = *c;
    bool drop = row->discard || c->discard;
    SLR_TRY(check_steps(c->steps));
    if (row->lcm)
        slr_ladder_init_lcm(&l, model);
    else
        slr_ladder_init(&l, model);
    if (!schedule)
        schedule = slr_scheduler_find(row->scheduler ? row->scheduler : "Uniform");
    full.steps += drop;
    full.sigma_min = given(c->sigma_min, c->old_karras ? 0.1 : (double)l.sigma[0]);
    full.sigma_max = given(c->sigma_max, c->old_karras ? 10.0 : (double)l.sigma[l.n - 1]);
    full.rho = given(schedule->rho != 0 ? c->rho : 0, schedule->rho);
    full.beta_alpha = given(c->beta_alpha, 0.6);
    full.beta_beta = given(c->beta_beta, 0.6);
    SLR_TRY(check_ends(&full));
    int n = schedule->sigmas(&l, &full, sigma, SLR_MAX_SIGMAS);
    SLR_TRY(n);
    if (drop) {
        sigma[n - 2] = sigma[n - 1];
        n--;
    }
    for (int i = 0; i < n; i++)
        out[i] = sigma[i];
    *count = n;
    return SDLORA_OK;
}

int slr_timesteps(const slr_sampler_row *row, int steps, bool discard, int *out, int *count)
{
    int n = steps + (discard || row->discard), stride = n > 0 ? SLR_TIMESTEPS / n : 0;
    if (steps < 1 || stride < 1)
        return slr_fail(SDLORA_EINVAL, __func__, "%s has between 1 and %d steps, not %d", row->name,
                        SLR_TIMESTEPS, steps);
    *count = 0;
    for (int t = 0; t < SLR_TIMESTEPS; t += stride)
        out[(*count)++] = t + 1 < SLR_TIMESTEPS ? t + 1 : SLR_TIMESTEPS - 1;
    return SDLORA_OK;
}
