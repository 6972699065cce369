/* SPDX-License-Identifier: MIT */
/* UniPC (Zhao et al., 2023): a multistep predictor of the picture and a corrector that uses the
 * evaluation at the predicted point, in log SNR over continuous time.  Numbers that nearly cancel
 * (variances near t = 0, the phi functions of short steps) are f32 as in the original, for they
 * carry its rounding into the picture. */
#include <math.h>
#include <strings.h>

#include "base/status.h"
#include "sample/ladder.h"
#include "sample/solvers.h"

enum { ORDER_MAX = 8, DEFAULT_ORDER = 3, KEPT = ORDER_MAX + 1 };

/* --- continuous time: timestep i is t = (i + 1) / 1000 --- */

typedef struct moment {
    float t, alpha, sigma, lambda; /* lambda: log(alpha / sigma) */
} moment;

typedef struct clock_face {
    float t[SLR_TIMESTEPS], log_alpha[SLR_TIMESTEPS]; /* ascending, descending */
} clock_face;

static void face_init(clock_face *f, const slr_schedule *s)
{
    for (int i = 0; i < SLR_TIMESTEPS; i++) {
        f->t[i] = slr_f32_line(0, 1, i + 1, SLR_TIMESTEPS + 1);
        f->log_alpha[i] = 0.5f * slr_f32_log(s->alpha_bar[i]);
    }
}

/* y at x through points whose x rise (sign 1) or fall (-1), extended beyond both ends. */
static float interpolate(const float *xp, const float *yp, float sign, float x)
{
    int low = 0, high = SLR_TIMESTEPS - 1;
    while (high - low > 1) {
        int mid = low + (high - low) / 2;
        if (sign * xp[mid] < sign * x)
            low = mid;
        else
            high = mid;
    }
    return yp[low] + (x - xp[low]) * (yp[high] - yp[low]) / (xp[high] - xp[low]);
}

static moment moment_at(const clock_face *f, float t)
{
    float log_alpha = interpolate(f->t, f->log_alpha, 1, t);
    float variance = 1.0f - slr_f32_exp(2.0f * log_alpha);
    return (moment){.t = t,
                    .alpha = slr_f32_exp(log_alpha),
                    .sigma = sqrtf(variance),
                    .lambda = log_alpha - 0.5f * slr_f32_log(variance)};
}

static float time_of(const clock_face *f, float lambda)
{
    float log_alpha = (float)(-0.5 * log1p(exp(-2.0 * (double)lambda)));
    return interpolate(f->log_alpha, f->t, -1, log_alpha);
}

/* n + 1 moments from t_start down to the first timestep. */
static int make_moments(const slr_sampling *s, float t_start, int n, moment *out)
{
    const char *skip = s->unipc_skip ? s->unipc_skip : "time_uniform";
    const float t_end = 1.0f / SLR_TIMESTEPS;
    bool uniform = !strcasecmp(skip, "time_uniform"),
         quadratic = !strcasecmp(skip, "time_quadratic");
    clock_face f;
    if (!uniform && !quadratic && strcasecmp(skip, "logSNR") != 0)
        return slr_fail(SDLORA_EINVAL, __func__,
                        "UniPC's skip type is time_uniform, time_quadratic or logSNR, not '%s'",
                        skip);
    face_init(&f, s->schedule);
    float from = moment_at(&f, t_start).lambda, to = moment_at(&f, t_end).lambda;
    for (int i = 0; i <= n; i++) {
        float t = slr_f32_line(t_start, t_end, i, n + 1);
        if (quadratic) {
            float root = slr_f32_line(sqrtf(t_start), sqrtf(t_end), i, n + 1);
            t = root * root;
        } else if (!uniform)
            t = time_of(&f, slr_f32_line(from, to, i, n + 1));
        out[i] = moment_at(&f, t);
    }
    return SDLORA_OK;
}

/* --- small systems --- */

typedef double matrix[ORDER_MAX][ORDER_MAX];

/* b = A^-1 b for n unknowns; A is used up.  Moments are distinct, so that A has an inverse. */
static void solve(matrix a, double *b, int n)
{
    for (int k = 0; k < n; k++) {
        int best = k;
        for (int i = k + 1; i < n; i++)
            best = fabs(a[i][k]) > fabs(a[best][k]) ? i : best;
        for (int j = 0; j < n; j++) {
            double swap = a[k][j];
            a[k][j] = a[best][j];
            a[best][j] = swap;
        }
        double swap = b[k];
        b[k] = b[best];
        b[best] = swap;
        for (int i = 0; i < n; i++) {
            double w = i != k ? a[i][k] / a[k][k] : 0;
            for (int j = k; j < n && i != k; j++)
                a[i][j] -= w * a[k][j];
            b[i] -= w * b[k];
        }
    }
    for (int k = 0; k < n; k++)
        b[k] /= a[k][k];
}

/* --- one update --- */

/* Steps between moments: h in lambda, and where earlier moments lie, in units of h from the last
 * one; the moment that is stepped to is the last of `rk`, at 1. */
typedef struct update {
    int order; /* of the step: `order` pictures are known, newest first */
    double rk[ORDER_MAX];
    float h_phi[ORDER_MAX + 2]; /* h_phi[k]: phi_k of -h as the original counts them, from 1 */
    float hh;                   /* -h */
    double weight[ORDER_MAX];   /* of the differences of pictures, to be filled in */
} update;

static void update_init(update *u, int order, const moment *at, int step)
{
    float h = at[step].lambda - at[step - 1].lambda, factorial = 1;
    u->order = order;
    u->hh = -h;
    for (int i = 1; i < order; i++)
        u->rk[i - 1] = (at[step - 1 - i].lambda - at[step - 1].lambda) / h;
    u->rk[order - 1] = 1;
    u->h_phi[1] = (float)expm1((double)u->hh);
    for (int k = 1; k <= order; k++) {
        u->h_phi[k + 1] = u->h_phi[k] / u->hh - 1.0f / factorial;
        factorial *= (float)(k + 1);
    }
}

/* Weights of the first n differences by matching powers, in units of B(h), which is h or phi_1. */
static void weigh_bh(update *u, int n, bool bh2)
{
    matrix r;
    double b = bh2 ? u->h_phi[1] : u->hh, factorial = 1;
    for (int k = 0; k < n; k++) {
        for (int i = 0; i < n; i++)
            r[k][i] = pow(u->rk[i], k);
        u->weight[k] = u->h_phi[k + 2] * factorial / b;
        factorial *= k + 2;
    }
    if (n == 1) /* what the system would give is near it */
        u->weight[0] = 0.5;
    else
        solve(r, u->weight, n);
    for (int k = 0; k < n; k++)
        u->weight[k] *= b;
}

/* The same with coefficients that vary with the steps. */
static void weigh_vary(update *u, int n)
{
    double sum[ORDER_MAX] = {0};
    bool corrector = n == u->order;
    int rows = corrector ? n - 1 : n; /* of the inverse: that many powers are matched */
    double end = 0;
    for (int k = 0; k < (rows > 0 ? rows : 1); k++) {
        matrix c; /* transposed, so that its solution is row k of the inverse */
        double row[ORDER_MAX] = {0};
        for (int i = 0; i < n; i++) {
            double power = 1;
            for (int j = 0; j < n; j++, power *= u->rk[i] / (j + 1))
                c[j][i] = power;
        }
        row[k] = 1;
        solve(c, row, n);
        for (int i = 0; i < n && k < rows; i++)
            sum[i] += u->h_phi[k + 2] * row[i];
        end = row[n - 1];
    }
    if (corrector) /* the new difference has the last phi, and the last of those rows */
        sum[n - 1] = u->h_phi[n + 1] * end;
    for (int i = 0; i < n; i++)
        u->weight[i] = sum[i];
}

/* x at `to` from x at `from`, with the weights of n differences; pictures newest first, `next`
 * being that at `to` (the corrector's). */
static void move(const slr_sampling *s, const update *u, int n, const moment *from,
                 const moment *to, float *const m[KEPT], const float *next, float *out)
{
    slr_term terms[ORDER_MAX + 3] = {{(double)to->sigma / from->sigma, s->x}};
    double newest = -(double)to->alpha * u->h_phi[1];
    int count = 1;
    for (int i = 0; i < n; i++) {
        bool ahead = i == u->order - 1;
        double c = -(double)to->alpha * u->weight[i] / u->rk[i];
        terms[count++] = (slr_term){c, ahead ? next : m[i + 1]};
        newest -= c;
    }
    terms[count++] = (slr_term){newest, m[0]};
    slr_mix(out, s->n, terms, count);
}

/* The picture at a moment, into m. */
static int picture(slr_sampling *s, const float *x, const moment *at, float *m)
{
    float t = (at->t - 1.0f / SLR_TIMESTEPS) * 1000.0f;
    SLR_TRY(s->denoise(s->user, x, t, m));
    SLR_MIX(s, m, {1 / (double)at->alpha, x}, {-(double)at->sigma / at->alpha, m});
    return SDLORA_OK;
}

/* --- the run --- */

typedef struct variant {
    bool vary, bh2;
} variant;

static int read_variant(const slr_sampling *s, variant *v)
{
    const char *name = s->unipc_variant ? s->unipc_variant : "bh1";
    v->vary = !strcasecmp(name, "vary_coeff");
    v->bh2 = !strcasecmp(name, "bh2");
    if (v->vary || v->bh2 || !strcasecmp(name, "bh1"))
        return SDLORA_OK;
    return slr_fail(SDLORA_EINVAL, __func__, "UniPC's variant is bh1, bh2 or vary_coeff, not '%s'",
                    name);
}

static void weigh(update *u, int n, variant v)
{
    if (v.vary)
        weigh_vary(u, n);
    else
        weigh_bh(u, n, v.bh2);
}

/* Step number `step`; the last one is not corrected, so that it needs no evaluation. */
static int advance(slr_sampling *s, variant v, const moment *at, int step, int order, bool correct)
{
    float *m[KEPT], *ahead = s->work[KEPT];
    update u;
    for (int i = 0; i < KEPT; i++)
        m[i] = s->work[(step - 1 - i + KEPT) % KEPT];
    update_init(&u, order, at, step);
    if (order > 1)
        weigh(&u, order - 1, v);
    if (!correct) {
        move(s, &u, order - 1, &at[step - 1], &at[step], m, NULL, s->x);
        return SDLORA_OK;
    }
    float *next = s->work[step % KEPT];
    move(s, &u, order - 1, &at[step - 1], &at[step], m, NULL, ahead);
    SLR_TRY(picture(s, ahead, &at[step], next));
    weigh(&u, order, v);
    move(s, &u, order, &at[step - 1], &at[step], m, next, s->x);
    return SDLORA_OK;
}

static int run(slr_sampling *s, const moment *at, int n)
{
    variant v;
    int order = s->unipc_order > 0 ? s->unipc_order : DEFAULT_ORDER;
    SLR_TRY(read_variant(s, &v));
    if (order > ORDER_MAX)
        return slr_fail(SDLORA_EINVAL, __func__, "UniPC's order %d is more than %d", order,
                        ORDER_MAX);
    order = order < n ? order : n;
    SLR_TRY(picture(s, s->x, &at[0], s->work[0]));
    for (int step = 1; step <= n; step++) {
        int now = step < order ? step : order;
        if (step >= order && !s->unipc_no_lower && n + 1 - step < now)
            now = n + 1 - step;
        SLR_TRY(advance(s, v, at, step, now, step < n));
        int rc = slr_solver_step(s, step - 1, n, s->work[(step < n ? step : step - 1) % KEPT]);
        if (rc)
            return rc;
    }
    return SDLORA_OK;
}

int slr_solve_unipc(slr_sampling *s)
{
    int n = s->n_timesteps;
    if (n < 1)
        return SDLORA_OK;
    moment *at = slr_calloc(s->m, (size_t)n + 1, sizeof *at);
    if (!at)
        return SDLORA_ENOMEM;
    /* A part starts one timestep above its last one. */
    float t_start = s->part ? (float)s->timesteps[n - 1] / 1000.0f + 1.0f / SLR_TIMESTEPS : 1.0f;
    int rc = make_moments(s, t_start, n, at);
    if (rc >= 0)
        rc = run(s, at, n);
    slr_free(s->m, at);
    return rc;
}
