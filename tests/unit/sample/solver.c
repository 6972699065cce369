/* SPDX-License-Identifier: MIT */
/* Samplers by themselves: Gaussian data of deviation S has the denoiser D = x S^2 / (S^2 +
 * sigma^2), for which every step can be followed in doubles from the published formulas.  Without
 * noise they must also come near the exact solution. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <float.h>
#include <math.h>
#include <string.h>

#include "base/status.h"
#include "sample/solver.h"

#define S 0.5 /* deviation of the data */
/* f32 state through up to 50 steps, each rounding about five times by 6e-8, relative to the largest
 * value of the end; and what the start's rounding leaves where most of it cancels. */
#define TOL       2e-5
#define TOL_START FLT_EPSILON

enum { N = 64 };

static slr_schedule table;

/* The model, the noise, and what was asked of them. */
typedef struct bench {
    int evaluations, draws, steps, total, stop_at;
    bool timesteps, kindly;
} bench;

static double alpha_bar(double t)
{
    return table.alpha_bar[(int)t];
}

/* D of x at sigma. */
static double gauss(double x, double sigma)
{
    return x * S * S / (S * S + sigma * sigma);
}

/* eps of x at t: x = sqrt(a) x0 + sqrt(1-a) eps, whose best guess is linear in x. */
static double gauss_eps(double x, double t)
{
    double a = alpha_bar(t);
    return x * sqrt(1 - a) / (a * S * S + 1 - a);
}

static double draw(int call, size_t k)
{
    return sin(1.0 + 3.7 * call + 0.61 * (double)k);
}

static int denoise(void *user, const float *x, double at, float *out)
{
    bench *b = user;
    b->evaluations++;
    for (int k = 0; k < N; k++)
        out[k] = (float)(b->timesteps ? gauss_eps(x[k], at) : gauss(x[k], at));
    return SDLORA_OK;
}

static int noise(void *user, float *out)
{
    bench *b = user;
    for (size_t k = 0; k < N; k++)
        out[k] = (float)draw(b->draws, k);
    b->draws++;
    return SDLORA_OK;
}

static int between(void *user, double from, double to, float *out)
{
    assert_true(from > to && to > 0);
    return noise(user, out);
}

static int step(void *user, int index, int total, const float *denoised)
{
    bench *b = user;
    assert_non_null(denoised);
    assert_int_equal(index, b->steps++);
    b->total = total;
    if (!b->stop_at || b->steps < b->stop_at)
        return 0;
    return b->kindly ? 7 : slr_fail(SDLORA_ECANCELED, __func__, "stop");
}

typedef struct job {
    slr_sampling s;
    float x[N];
    double sigmas[SLR_MAX_SIGMAS], start[N];
    int timesteps[SLR_TIMESTEPS];
    bench b;
} job;

static void prepare(job *j, const slr_sampler_row *row, const char *schedule, int steps, double eta)
{
    memset(j, 0, sizeof *j);
    j->s = (slr_sampling){.n = N,
                          .x = j->x,
                          .steps = steps,
                          .schedule = &table,
                          .eta = eta,
                          .s_noise = 1,
                          .user = &j->b,
                          .denoise = denoise,
                          .noise = noise,
                          .between = between,
                          .step = step};
    j->b.timesteps = row->timesteps;
    const slr_sigma_config c = {.steps = steps};
    if (row->timesteps)
        assert_int_equal(slr_timesteps(row, steps, false, j->timesteps, &j->s.n_timesteps), 0);
    else
        assert_int_equal(
            slr_sigmas(row, slr_scheduler_find(schedule), &table, &c, j->sigmas, &j->s.n_sigmas),
            0);
    j->s.timesteps = j->timesteps;
    j->s.sigmas = j->sigmas;
    for (size_t k = 0; k < N; k++) {
        j->x[k] = (float)(draw(-1, k) * (row->timesteps ? 1 : j->sigmas[0]));
        j->start[k] = j->x[k];
    }
}

static double largest(const double *x)
{
    double peak = 0;
    for (int k = 0; k < N; k++)
        peak = fmax(peak, fabs(x[k]));
    assert_true(peak > 0);
    return peak;
}

static double difference(const job *j, const double *want)
{
    double worst = 0;
    for (int k = 0; k < N; k++) {
        assert_true(isfinite(j->x[k]));
        worst = fmax(worst, fabs(j->x[k] - want[k]));
    }
    return worst / largest(want);
}

/* --- the formulas, one number at a time --- */

/* Euler's step towards `down`, then new noise of deviation `up`. */
static double follow_euler(const job *j, size_t k, bool new_noise)
{
    double x = j->start[k];
    for (int i = 0; i + 1 < j->s.n_sigmas; i++) {
        double from = j->sigmas[i], to = j->sigmas[i + 1], down = to, up = 0;
        if (new_noise) {
            up = j->s.eta * sqrt(to * to / (from * from) * (from * from - to * to));
            up = up < to ? up : to;
            down = sqrt(to * to - up * up);
        }
        x += (x - gauss(x, from)) / from * (down - from);
        x += to > 0 ? draw(i, k) * up : 0;
    }
    return x;
}

static double follow_2m(const job *j, size_t k)
{
    double x = j->start[k], last = 0;
    for (int i = 0; i + 1 < j->s.n_sigmas; i++) {
        double from = j->sigmas[i], to = j->sigmas[i + 1], d = gauss(x, from), mixed = d;
        if (i && to > 0) {
            double r = log(j->sigmas[i - 1] / from) / log(from / to);
            mixed = d + (d - last) / (2 * r);
        }
        x = to / from * x + (1 - to / from) * mixed;
        last = d;
    }
    return x;
}

static double follow_ddim(const job *j, size_t k)
{
    double x = j->start[k];
    for (int i = j->s.n_timesteps - 1, call = 0; i > 0; i--, call++) {
        double a = alpha_bar(j->timesteps[i]), p = alpha_bar(j->timesteps[i - 1]);
        double e = gauss_eps(x, j->timesteps[i]), x0 = (x - sqrt(1 - a) * e) / sqrt(a);
        double sd = j->s.eta * sqrt((1 - p) / (1 - a)) * sqrt(1 - a / p);
        x = sqrt(p) * x0 + sqrt(1 - p - sd * sd) * e + sd * draw(call, k);
    }
    return x;
}

static void follow(const char *name, const char *schedule, int steps, double eta)
{
    static job j;
    double want[N];
    const slr_sampler_row *row = slr_sampler_find(name);
    assert_non_null(row);
    prepare(&j, row, schedule, steps, eta);
    assert_int_equal(slr_sampler_run(row, &j.s), SDLORA_OK);
    for (size_t k = 0; k < N; k++)
        want[k] = !strcmp(name, "DDIM")       ? follow_ddim(&j, k)
                  : !strcmp(name, "DPM++ 2M") ? follow_2m(&j, k)
                                              : follow_euler(&j, k, !strcmp(name, "Euler a"));
    double e = difference(&j, want);
    int evaluations = row->timesteps ? j.s.n_timesteps - 1 : steps;
    print_message("%-9s %-8s %2d steps, eta %.1f: %2d evaluations, error %.2g\n", name,
                  row->timesteps ? "" : schedule, steps, eta, j.b.evaluations, e);
    assert_true(e <= TOL + TOL_START * largest(j.start) / largest(want));
    assert_int_equal(j.b.evaluations, evaluations);
    assert_int_equal(j.b.steps, evaluations);
    assert_int_equal(j.b.total, evaluations);
}

static void trajectories(void **state)
{
    (void)state;
    static const int lengths[] = {1, 2, 10, 20, 50};
    static const char *const names[] = {"Euler", "Euler a", "DPM++ 2M"};
    for (int i = 0; i < 5; i++) {
        for (int n = 0; n < 3; n++)
            for (int k = 0; k < 2; k++) {
                follow(names[n], "Karras", lengths[i], k);
                follow(names[n], "Uniform", lengths[i], k);
            }
        if (lengths[i] > 1) { /* a grid of one has nothing to go from */
            follow("DDIM", NULL, lengths[i], 0);
            follow("DDIM", NULL, lengths[i], 1);
        }
    }
}

/* Without noise the exact way from sigma_0 to 0 is x S / sqrt(S^2 + sigma_0^2); more steps come
 * nearer, and the second-order sampler much nearer. */
static void towards_the_exact_solution(void **state)
{
    (void)state;
    double error[2][2];
    static const char *const names[] = {"Euler", "DPM++ 2M"};
    for (int n = 0; n < 2; n++)
        for (int i = 0; i < 2; i++) {
            static job j;
            double want[N];
            const slr_sampler_row *row = slr_sampler_find(names[n]);
            prepare(&j, row, "Karras", i ? 50 : 25, 0);
            assert_int_equal(slr_sampler_run(row, &j.s), SDLORA_OK);
            for (int k = 0; k < N; k++)
                want[k] = j.start[k] * S / sqrt(S * S + j.sigmas[0] * j.sigmas[0]);
            error[n][i] = difference(&j, want);
            print_message("%-9s %d steps: %.3g from exact\n", names[n], i ? 50 : 25, error[n][i]);
        }
    assert_true(error[0][1] < 0.7 * error[0][0]); /* first order: half */
    assert_true(error[1][1] < 0.4 * error[1][0]); /* second order: a quarter */
    assert_true(error[1][1] < 0.2 * error[0][1]);
}

/* Evaluations for 20 steps; DPM adaptive takes as many as it likes. */
static void evaluations(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        int n, steps;
    } want[] = {
        {"DPM++ 2M", 20, 20},
        {"DPM++ SDE", 39, 20},
        {"DPM++ 2M SDE", 20, 20},
        {"DPM++ 2S a", 39, 20},
        {"DPM++ 2M SDE Heun", 20, 20},
        {"DPM++ 3M SDE", 20, 20},
        {"Euler a", 20, 20},
        {"Euler", 20, 20},
        {"LMS", 20, 20},
        {"Heun", 39, 20},
        {"DPM2", 39, 20},
        {"DPM2 a", 39, 20},
        {"DPM fast", 20, 7},
        {"Restart", 39, 20},
        {"DDIM", 19, 19},
        {"DDIM CFG++", 19, 19},
        {"PLMS", 20, 19},
        {"UniPC", 20, 20},
        {"LCM", 20, 20},
    };
    size_t n;
    slr_samplers(&n);
    assert_int_equal(n, 20);
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        static job j;
        const slr_sampler_row *row = slr_sampler_find(want[i].name);
        assert_non_null(row);
        prepare(&j, row, row->scheduler ? row->scheduler : "", 20, 1);
        assert_int_equal(slr_sampler_run(row, &j.s), SDLORA_OK);
        if (j.b.evaluations != want[i].n || j.b.steps != want[i].steps)
            fail_msg("%s: %d evaluations in %d steps", row->name, j.b.evaluations, j.b.steps);
        assert_int_equal(j.b.total, want[i].steps);
    }
}

/* With an error, or kindly: then x is what the picture was thought to become. */
static void a_step_can_end_the_run(void **state)
{
    (void)state;
    size_t n;
    const slr_sampler_row *rows = slr_samplers(&n);
    for (size_t i = 0; i < 2 * n; i++) {
        static job j;
        const slr_sampler_row *row = &rows[i / 2];
        prepare(&j, row, "Uniform", 10, 1);
        j.b.stop_at = 3;
        j.b.kindly = i % 2;
        assert_int_equal(slr_sampler_run(row, &j.s), j.b.kindly ? 1 : SDLORA_ECANCELED);
        assert_int_equal(j.b.steps, 3);
        if (j.b.kindly) /* a denoised picture: as wide as the data, whatever the noise was */
            for (int k = 0; k < N; k++)
                assert_true(fabs(j.x[k]) < 3 * S);
    }
}

/* A NaN of the model must not make the adaptive sampler try for ever. */
static int broken(void *user, const float *x, double at, float *out)
{
    (void)at;
    ((bench *)user)->evaluations++;
    for (int k = 0; k < N; k++)
        out[k] = x[k] * NAN;
    return SDLORA_OK;
}

static void what_is_not_finite_ends(void **state)
{
    (void)state;
    size_t n;
    const slr_sampler_row *rows = slr_samplers(&n);
    for (size_t i = 0; i < n; i++) {
        static job j;
        prepare(&j, &rows[i], "Karras", 10, 1);
        j.s.denoise = broken;
        int rc = slr_sampler_run(&rows[i], &j.s);
        assert_true(rc == SDLORA_OK || rc == SDLORA_EINVAL);
        assert_true(j.b.evaluations < 100);
    }
}

/* What a perfect model says of x = x0 + sigma e leads back to x0, whether it says eps or v; LCM's
 * wrapper keeps a little of x. */
static void wrappers(void **state)
{
    (void)state;
    const double x0 = 0.7, e = -1.3;
    for (int lcm = 0; lcm < 2; lcm++)
        for (int i = 19; i < SLR_TIMESTEPS; i += 140) { /* levels that LCM knows, too */
            const slr_sampler_row *row = slr_sampler_find(lcm ? "LCM" : "Euler");
            double sigma = table.sigma[i], x = x0 + sigma * e, a = 1 / (1 + sigma * sigma),
                   tau = 10.0 * i, keep = lcm ? 0.25 / (tau * tau + 0.25) : 0,
                   scale = lcm ? tau / sqrt(tau * tau + 0.25) : 1;
            for (int v = 0; v < 2; v++) {
                slr_wrap_factors f = slr_sampler_wrap(row, &table, v, sigma);
                double says = v ? sqrt(a) * e - sqrt(1 - a) * x0 : e;
                assert_true(fabs(f.in * x - (sqrt(a) * x0 + sqrt(1 - a) * e)) < 1e-9);
                assert_true(fabs(f.t - i) < 1e-3);
                assert_true(fabs(f.skip * x + f.out * says - (scale * x0 + keep * x)) < 1e-9);
            }
        }
}

/* --- names --- */

static void names(void **state)
{
    (void)state;
    size_t n;
    const slr_sampler_row *rows = slr_samplers(&n);
    for (size_t i = 0; i < n; i++) {
        assert_ptr_equal(slr_sampler_find(rows[i].name), &rows[i]);
        for (const char *const *alias = rows[i].aliases; *alias; alias++)
            assert_ptr_equal(slr_sampler_find(*alias), &rows[i]);
        assert_true(rows[i].timesteps || slr_scheduler_find(rows[i].scheduler));
    }
    assert_string_equal(slr_sampler_find("EULER A")->name, "Euler a");
    assert_null(slr_sampler_find("Euler b"));
    assert_null(slr_scheduler_find(""));
    assert_string_equal(slr_scheduler_find("sgm_uniform")->name, "SGM Uniform");
    assert_string_equal(slr_scheduler_find("SGMUniform")->name, "SGM Uniform");
}

static void old_names(void **state)
{
    (void)state;
    static const struct {
        const char *sampler, *schedule, *row, *want; /* want NULL: none */
        bool automatic;
    } at[] = {
        {"DPM++ 2M Karras", NULL, "DPM++ 2M", "Karras", false},
        {"dpm++ 2m karras", "Automatic", "DPM++ 2M", "Karras", false},
        {"DPM++ 2M SDE Heun Karras", "Exponential", "DPM++ 2M SDE Heun", "Karras", false},
        {"DPM++ 2M SDE Exponential", "", "DPM++ 2M SDE", "Exponential", false},
        {"DPM2 a Karras", NULL, "DPM2 a", "Karras", false},
        {"k_lms_ka", NULL, "LMS", "Karras", false},
        {"Euler a Align Your Steps", NULL, "Euler a", "Align Your Steps", false},
        {"Euler SGM Uniform", NULL, "Euler", "SGM Uniform", false},
        {"Euler Automatic", NULL, "Euler", "Uniform", true},
        {"DPM++ 2M", NULL, "DPM++ 2M", "Karras", true},
        {"DPM++ 2M", "kl_optimal", "DPM++ 2M", "KL Optimal", false},
        {"DDIM", NULL, "DDIM", NULL, true},
        {"DDIM", "Karras", "DDIM", NULL, false},
        {"LCM", "SGM Uniform", "LCM", "SGM Uniform", false},
    };
    const slr_sampler_row *row;
    const slr_scheduler_row *schedule;
    bool automatic;
    for (size_t i = 0; i < sizeof at / sizeof *at; i++) {
        assert_int_equal(
            slr_sampler_choose(at[i].sampler, at[i].schedule, &row, &schedule, &automatic),
            SDLORA_OK);
        assert_string_equal(row->name, at[i].row);
        assert_int_equal(automatic, at[i].automatic);
        assert_int_equal(!schedule, !at[i].want);
        if (schedule)
            assert_string_equal(schedule->name, at[i].want);
    }
    assert_int_equal(slr_sampler_choose("Karras", NULL, &row, &schedule, &automatic),
                     SDLORA_ENOTSUP);
    assert_int_equal(slr_sampler_choose("Euler", "Karass", &row, &schedule, &automatic),
                     SDLORA_ENOTSUP);
}

static void what_cannot_be(void **state)
{
    (void)state;
    static double sigma[SLR_MAX_SIGMAS];
    int steps[SLR_TIMESTEPS], n;
    const slr_sampler_row *euler = slr_sampler_find("Euler"), *ddim = slr_sampler_find("DDIM");
    const slr_scheduler_row *karras = slr_scheduler_find("Karras");
    slr_sigma_config c = {.steps = SLR_MAX_STEPS, .discard = true};
    assert_int_equal(slr_sigmas(euler, karras, &table, &c, sigma, &n), SDLORA_OK);
    assert_int_equal(n, SLR_MAX_STEPS + 1);
    c.steps++;
    assert_int_equal(slr_sigmas(euler, karras, &table, &c, sigma, &n), SDLORA_EINVAL);
    c.steps = 0;
    assert_int_equal(slr_sigmas(euler, karras, &table, &c, sigma, &n), SDLORA_EINVAL);
    c = (slr_sigma_config){.steps = 5, .sigma_min = 2, .sigma_max = 1};
    assert_int_equal(slr_sigmas(euler, karras, &table, &c, sigma, &n), SDLORA_EINVAL);
    c = (slr_sigma_config){.steps = 5, .sigma_min = -1};
    assert_int_equal(slr_sigmas(euler, karras, &table, &c, sigma, &n), SDLORA_EINVAL);
    c = (slr_sigma_config){.steps = 5, .rho = NAN};
    assert_int_equal(slr_sigmas(euler, karras, &table, &c, sigma, &n), SDLORA_EINVAL);
    assert_int_equal(slr_timesteps(ddim, 0, false, steps, &n), SDLORA_EINVAL);
    assert_int_equal(slr_timesteps(ddim, 1001, false, steps, &n), SDLORA_EINVAL);
    assert_int_equal(slr_timesteps(ddim, 1000, false, steps, &n), SDLORA_OK);
    assert_int_equal(n, 1000);
}

static int setup(void **state)
{
    (void)state;
    slr_schedule_init(&table);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(trajectories),
        cmocka_unit_test(towards_the_exact_solution),
        cmocka_unit_test(a_step_can_end_the_run),
        cmocka_unit_test(evaluations),
        cmocka_unit_test(wrappers),
        cmocka_unit_test(what_is_not_finite_ends),
        cmocka_unit_test(names),
        cmocka_unit_test(old_names),
        cmocka_unit_test(what_cannot_be),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
