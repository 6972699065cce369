/* SPDX-License-Identifier: MIT */
/* Every sampler and every schedule against AUTOMATIC1111 over k-diffusion on a model that is a
 * formula (tests/golden/solvers.safetensors, make_solvers.py has the same formula), from the
 * picture's noise to the last latents. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "golden_test.h"
#include "io/json.h"
#include "sample/noise.h"
#include "sample/solver.h"

#define SOLVERS TEST_ROOT "/golden/solvers.safetensors"

/* f32 through up to 100 evaluations of a model with two attractors, against torch's f32, which
 * rounds elsewhere. */
#define TOL_LATENTS 1e-4
/* The step sizes of this one hang on the differences of two orders. */
#define TOL_ADAPTIVE 3e-4
/* Tables are the same bits where the C library's doubles are; another one may round otherwise. */
#define TOL_SIGMA 5e-7

enum { C = 4, H = 4, W = 8, N = C * H * W, SEED = 7 };
static const double MEAN = 0.8, EMPTY = 0.5, S = 0.3, CFG = 3;

static golden g;
static slr_schedule table;

static void ok(int rc)
{
    if (rc < 0)
        fail_msg("%s (%s)", sdlora_last_error()->message, sdlora_last_error()->where);
}

static int setup(void **state)
{
    (void)state;
    slr_schedule_init(&table);
    g = golden_open(SOLVERS);
    return g.file ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    golden_close(&g);
    return 0;
}

/* --- the model --- */

typedef struct bench {
    const slr_sampler_row *row;
    slr_noise *noise;
    float x[N], sigma0;
    float uncond[N]; /* eps of the last evaluation without the prompt */
    int evaluations, steps, total;
} bench;

/* Its eps for VP input x at t, for data around +-mean. */
static float model(double x, double t, double mean)
{
    int low = (int)fmin(t, SLR_TIMESTEPS - 2);
    double w = t - low, a = table.alpha_bar[low], b = table.alpha_bar[low + 1];
    double sigma = exp((1 - w) * log(sqrt((1 - a) / a)) + w * log(sqrt((1 - b) / b)));
    double y = x * sqrt(sigma * sigma + 1), var = S * S + sigma * sigma;
    double d = (y * S * S + sigma * sigma * mean * tanh(mean * y / var)) / var;
    return (float)((y - d) / sigma);
}

static int denoise(void *user, const float *x, double at, float *out)
{
    bench *b = user;
    slr_wrap_factors f = {.t = at, .in = 1, .skip = 0, .out = 1}; /* eps itself */
    double cfg = b->row->cfgpp ? CFG / 12.5 : CFG;
    if (!b->row->timesteps)
        f = slr_sampler_wrap(b->row, &table, false, at);
    b->evaluations++;
    for (int k = 0; k < N; k++) {
        double u = model((float)(x[k] * f.in), f.t, EMPTY),
               c = model((float)(x[k] * f.in), f.t, MEAN);
        b->uncond[k] = (float)u;
        out[k] = (float)(f.skip * x[k] + f.out * (u + cfg * (c - u)));
    }
    return SDLORA_OK;
}

static int noise(void *user, float *out)
{
    return slr_noise_next(((bench *)user)->noise, out);
}

static int between(void *user, double from, double to, float *out)
{
    return slr_noise_between(((bench *)user)->noise, from, to, out);
}

static int step(void *user, int index, int total, const float *denoised)
{
    bench *b = user;
    assert_non_null(denoised);
    assert_int_equal(index, b->steps++);
    b->total = total;
    return 0;
}

/* --- a case as A1111 runs it --- */

static double number(const json_t *how, const char *name, double otherwise)
{
    const json_t *v = json_object_get(how, name);
    return json_is_true(v) ? 1 : json_is_false(v) ? 0 : v ? json_number_value(v) : otherwise;
}

typedef struct plan {
    double all[SLR_MAX_SIGMAS];
    int n_all, timesteps[SLR_TIMESTEPS], n_timesteps, from; /* from: first sigma of a part */
    double init[N];
} plan;

static void make_plan(plan *p, const bench *b, const json_t *how, const slr_scheduler_row *schedule)
{
    int steps = (int)number(how, "steps", 20);
    bool discard = number(how, "always_discard_next_to_last_sigma", 0) != 0;
    const slr_sigma_config c = {
        .steps = steps,
        .sigma_min = number(how, "sigma_min", 0),
        .sigma_max = number(how, "sigma_max", 0),
        .rho = number(how, "rho", 0),
        .beta_alpha = number(how, "beta_dist_alpha", 0),
        .beta_beta = number(how, "beta_dist_beta", 0),
        .discard = discard,
        .old_karras = number(how, "use_old_karras_scheduler_sigmas", 0) != 0,
    };
    if (b->row->timesteps)
        ok(slr_timesteps(b->row, steps, discard, p->timesteps, &p->n_timesteps));
    else
        ok(slr_sigmas(b->row, schedule, &table, &c, p->all, &p->n_all));
}

/* Where img2img begins, and x there. */
static void begin(plan *p, bench *b, const json_t *how)
{
    double strength = number(how, "strength", -1);
    int steps = (int)number(how, "steps", 20), tail = (int)(fmin(strength, 0.999) * steps);
    double keep = 0, scale = b->row->timesteps ? 1 : p->all[0];
    if (strength >= 0) {
        p->from = steps - tail - 1;
        keep = 1;
        scale = b->row->timesteps ? 0 : p->all[p->from];
        if (b->row->timesteps) {
            double a = table.alpha_bar[p->timesteps[tail]];
            keep = sqrt(a);
            scale = sqrt(1 - a);
            p->n_timesteps = tail;
        }
    }
    for (int k = 0; k < N; k++)
        b->x[k] = (float)(keep * (-1 + 2.0 * k / (N - 1)) + scale * b->x[k]);
}

static void lowest_and_highest(const plan *p, double *lo, double *hi)
{
    *lo = INFINITY;
    *hi = 0;
    for (int i = 0; i < p->n_all; i++) {
        *lo = p->all[i] > 0 ? fmin(*lo, p->all[i]) : *lo;
        *hi = fmax(*hi, p->all[i]);
    }
}

static double run_case(const json_t *how, const float *want)
{
    static plan p;
    static bench b;
    const slr_scheduler_row *schedule;
    const slr_noise_config config = {.seed = SEED, .c = C, .h = H, .w = W};
    bool automatic;
    double lo, hi;
    memset(&p, 0, sizeof p);
    memset(&b, 0, sizeof b);
    ok(slr_sampler_choose(json_string_value(json_object_get(how, "sampler")),
                          json_string_value(json_object_get(how, "schedule")), &b.row, &schedule,
                          &automatic));
    ok(slr_noise_new(&b.noise, NULL, &config));
    ok(slr_noise_first(b.noise, b.x));
    make_plan(&p, &b, how, automatic ? NULL : schedule);
    begin(&p, &b, how);
    lowest_and_highest(&p, &lo, &hi);
    if (b.row->brownian)
        ok(slr_noise_tree(b.noise, lo, hi));
    slr_sampling s = {
        .n = N,
        .x = b.x,
        .sigmas = p.all + p.from,
        .n_sigmas = p.n_all - p.from,
        .timesteps = p.timesteps,
        .n_timesteps = p.n_timesteps,
        .steps = (int)number(how, "steps", 20),
        .part = json_object_get(how, "strength") != NULL,
        .schedule = &table,
        .eta = number(how, "eta", b.row->timesteps ? 0 : 1),
        .s_churn = number(how, "s_churn", 0),
        .s_tmin = number(how, "s_tmin", 0),
        .s_tmax = number(how, "s_tmax", 0),
        .s_noise = number(how, "s_noise", 1),
        .unipc_variant = json_string_value(json_object_get(how, "uni_pc_variant")),
        .unipc_skip = json_string_value(json_object_get(how, "uni_pc_skip_type")),
        .unipc_order = (int)number(how, "uni_pc_order", 0),
        .unipc_no_lower = number(how, "uni_pc_lower_order_final", 1) == 0,
        .uncond = b.uncond,
        .user = &b,
        .denoise = denoise,
        .noise = noise,
        .between = between,
        .step = step,
    };
    ok(slr_sampler_run(b.row, &s));
    assert_true(b.total == 0 || b.steps == b.total);
    slr_noise_free(b.noise);
    return golden_compare(b.x, want, N).l2;
}

static void every_case(void **state)
{
    (void)state;
    json_t *cases;
    double worst = 0;
    int bad = 0;
    const char *text = slr_safetensors_meta(g.file, "cases");
    ok(slr_json_parse(&cases, text, strlen(text), SOLVERS));
    for (size_t i = 0; i < json_array_size(cases); i++) {
        char name[32];
        json_t *how = json_array_get(cases, i);
        snprintf(name, sizeof name, "run.%zu", i);
        float *want = golden_f32(&g, name, NULL);
        double e = run_case(how, want);
        double tol = strcmp(json_string_value(json_object_get(how, "sampler")), "DPM adaptive")
                         ? TOL_LATENTS
                         : TOL_ADAPTIVE;
        worst = fmax(worst, e);
        if (!(e <= tol)) {
            char *line = json_dumps(how, JSON_COMPACT);
            print_message("%.2g  %s\n", e, line);
            free(line);
            bad++;
        }
        slr_free(NULL, want);
    }
    print_message("%zu cases, worst %.2g\n", json_array_size(cases), worst);
    assert_true(json_array_size(cases) >= 450);
    assert_int_equal(bad, 0);
    json_decref(cases);
}

/* --- tables --- */

/* "[xl.|lcm.|zero.]sched.<name>.<n>" */
static bool split_key(const char *key, const char **at, char schedule[40], int *steps)
{
    *at = strstr(key, "sched.");
    return *at && sscanf(*at, "sched.%39[^.].%d", schedule, steps) == 2;
}

static void every_schedule(void **state)
{
    (void)state;
    int seen = 0, off = 0, values = 0;
    slr_schedule zero = table;
    slr_tensor t;
    float *alphas = golden_f32(&g, "zero.alphas", &t);
    slr_schedule_rescale(&zero, SLR_ZTSNR_LAST);
    memcpy(zero.alpha_bar, alphas, sizeof zero.alpha_bar);
    slr_free(NULL, alphas);
    for (size_t i = 0; i < slr_safetensors_count(g.file); i++) {
        const char *key = slr_safetensors_at(g.file, i, &t), *at;
        static double sigma[SLR_MAX_SIGMAS];
        char schedule[40];
        int count;
        slr_sigma_config c = {0};
        if (!split_key(key, &at, schedule, &c.steps))
            continue;
        c.xl = !strncmp(key, "xl.", 3);
        float *want = golden_f32(&g, key, &t);
        ok(slr_sigmas(slr_sampler_find(!strncmp(key, "lcm.", 4) ? "LCM" : "Euler"),
                      slr_scheduler_find(schedule), !strncmp(key, "zero.", 5) ? &zero : &table, &c,
                      sigma, &count));
        assert_int_equal(count, t.dim[0]);
        for (int k = 0; k < count; k++) {
            double e = fabs(sigma[k] - want[k]);
            off += e > 0;
            values++;
            if (!(e <= TOL_SIGMA * fabs(want[k])))
                print_message("%s[%d]: %.9g, wanted %.9g\n", key, k, sigma[k], want[k]);
            assert_true(e <= TOL_SIGMA * fabs(want[k]));
        }
        slr_free(NULL, want);
        seen++;
    }
    print_message("%d tables, %d of %d values differ in the last bits\n", seen, off, values);
    assert_true(seen >= 160);
    assert_true(off * 1000 <= values); /* none was seen */
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_schedule),
                                       cmocka_unit_test(every_case)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
