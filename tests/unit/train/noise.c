/* SPDX-License-Identifier: MIT */
/* What a batch is trained on: draws, targets and weights against formulas in f64 that share no code
 * with the library. */
#include "train/noise.h"

#include <math.h>

#include "models/family.h"
#include "unit/data/data_test.h"

enum { C = 4 };

/* One filled batch. */
typedef struct drawn {
    int64_t n, h, w;
    slr_step_io io;
} drawn;

static slr_noise noise_of(const char *const *pairs, int predict)
{
    sdlora_options *o;
    slr_noise n;
    assert_ok(slr_options_new(&o, NULL, "train"));
    for (; pairs[0]; pairs += 2)
        assert_ok(slr_options_set_text(o, pairs[0], pairs[1]));
    assert_ok(slr_noise_init(&n, (slr_opt){o, "train"}, predict));
    slr_options_unref(o);
    return n;
}

#define NOISE(...) noise_of((const char *const[]){__VA_ARGS__, NULL}, SLR_PREDICT_EPS)

static drawn drawn_new(int64_t n, int64_t h, int64_t w)
{
    size_t floats = (size_t)(n * h * w * C), count = (size_t)n;
    return (drawn){n,
                   h,
                   w,
                   {.x = calloc(floats, sizeof(float)),
                    .target = calloc(floats, sizeof(float)),
                    .t = calloc(count, sizeof(float)),
                    .weight = calloc(count, sizeof(float)),
                    .delta = calloc(count, sizeof(float)),
                    .channels = C}};
}

static void drawn_free(drawn *d)
{
    free(d->io.x);
    free(d->io.target);
    free(d->io.t);
    free(d->io.weight);
    free(d->io.delta);
}

/* Latents of sample i are the same whatever the batch. */
static float latent(int64_t sample, int64_t at)
{
    return (float)sin(0.37 * (double)at + (double)sample) + 0.2f * (float)(at % C);
}

static drawn draw(const slr_noise *noise, int64_t n, int64_t side, uint64_t seed, uint64_t first)
{
    drawn d = drawn_new(n, side, side);
    int64_t size = side * side * C;
    float *latents = malloc((size_t)(n * size) * sizeof *latents);
    float *base = malloc((size_t)n * sizeof *base);
    for (int64_t i = 0; i < n * size; i++)
        latents[i] = latent((int64_t)first + i / size, i % size);
    for (int64_t i = 0; i < n; i++)
        base[i] = 1.0f;
    assert_ok(slr_noise_fill(noise, NULL, &d.io, latents, n, side, side, seed, first, base));
    free(latents);
    free(base);
    return d;
}

/* alpha_bar of scaled-linear betas in f64. */
static double alpha_bar(int t)
{
    double product = 1, lo = sqrt(0.00085), hi = sqrt(0.012);
    for (int i = 0; i <= t; i++) {
        double root = lo + (hi - lo) * i / 999.0;
        product *= 1 - root * root;
    }
    return product;
}

typedef struct moments {
    double mean, sd, kurtosis;
} moments;

static moments moments_of(const float *x, int64_t n)
{
    double mean = 0, square = 0, fourth = 0;
    for (int64_t i = 0; i < n; i++)
        mean += x[i] / (double)n;
    for (int64_t i = 0; i < n; i++)
        square += pow(x[i] - mean, 2) / (double)n;
    for (int64_t i = 0; i < n; i++)
        fourth += pow(x[i] - mean, 4) / (double)n;
    return (moments){mean, sqrt(square), fourth / (square * square)};
}

/* --- draws --- */

static void noise_is_standard_normal(void **state)
{
    (void)state;
    slr_noise n = NOISE("min_timestep", "0");
    drawn d = draw(&n, 64, 16, 7, 0); /* 65536 numbers: errors of 1/256 (mean), 1/362 (sd) */
    moments m = moments_of(d.io.target, 64 * 16 * 16 * C);
    assert_true(fabs(m.mean) < 0.02);
    assert_true(fabs(m.sd - 1) < 0.014);
    assert_true(fabs(m.kurtosis - 3) < 0.1);
    drawn_free(&d);
}

static void draws_are_fixed_by_seed_and_number(void **state)
{
    (void)state;
    slr_noise n = NOISE("noise_offset", "0.1", "ip_noise_gamma", "0.1");
    const size_t bytes = 4 * 8 * 8 * C * sizeof(float);
    drawn a = draw(&n, 4, 8, 7, 100), b = draw(&n, 4, 8, 7, 100);
    assert_memory_equal(a.io.x, b.io.x, bytes);
    assert_memory_equal(a.io.target, b.io.target, bytes);
    assert_memory_equal(a.io.t, b.io.t, 4 * sizeof(float));
    drawn other_seed = draw(&n, 4, 8, 8, 100), later = draw(&n, 4, 8, 7, 104);
    for (int i = 0; i < 4 * 8 * 8 * C; i++) {
        assert_true(a.io.target[i] != other_seed.io.target[i]);
        assert_true(a.io.target[i] != later.io.target[i]);
    }
    drawn_free(&a);
    drawn_free(&b);
    drawn_free(&other_seed);
    drawn_free(&later);
}

/* Sample 102 gets the same draws as third of a batch of four and alone. */
static void draws_do_not_depend_on_the_batch(void **state)
{
    (void)state;
    slr_noise n = NOISE("noise_offset", "0.1", "ip_noise_gamma", "0.1", "min_snr_gamma", "5");
    const int size = 8 * 8 * C;
    drawn four = draw(&n, 4, 8, 7, 100);
    for (int i = 0; i < 4; i++) {
        drawn one = draw(&n, 1, 8, 7, 100 + (uint64_t)i);
        assert_memory_equal(four.io.x + i * size, one.io.x, size * sizeof(float));
        assert_memory_equal(four.io.target + i * size, one.io.target, size * sizeof(float));
        assert_true(four.io.t[i] == one.io.t[0]);
        assert_true(four.io.weight[i] == one.io.weight[0]);
        drawn_free(&one);
    }
    drawn_free(&four);
}

static void timesteps_fill_their_range(void **state)
{
    (void)state;
    slr_noise n = NOISE("min_timestep", "200", "max_timestep", "210");
    int seen[10] = {0};
    drawn d = draw(&n, 2000, 1, 3, 0);
    for (int i = 0; i < 2000; i++) {
        int at = (int)d.io.t[i] - 200;
        assert_true(at >= 0 && at < 10); /* the upper end is not drawn */
        seen[at]++;
    }
    for (int i = 0; i < 10; i++) /* 200 each, sd 13.4: five of them */
        assert_true(abs(seen[i] - 200) < 67);
    drawn_free(&d);

    n = NOISE("min_timestep", "999", "max_timestep", "999");
    d = draw(&n, 20, 1, 3, 0);
    for (int i = 0; i < 20; i++)
        assert_true(d.io.t[i] == 999);
    drawn_free(&d);

    n = NOISE("min_snr_gamma", "5");
    d = draw(&n, 4000, 1, 3, 0);
    double mean = 0;
    for (int i = 0; i < 4000; i++)
        mean += d.io.t[i] / 4000;
    assert_true(fabs(mean - 499.5) < 23); /* sd of the mean 4.6: five of them */
    drawn_free(&d);
}

static void bad_ranges_are_refused(void **state)
{
    (void)state;
    sdlora_options *o;
    slr_noise n;
    assert_ok(slr_options_new(&o, NULL, "train"));
    assert_ok(slr_options_set_int(o, "min_timestep", 500));
    assert_ok(slr_options_set_int(o, "max_timestep", 400));
    assert_int_equal(slr_noise_init(&n, (slr_opt){o, "train"}, SLR_PREDICT_EPS), SDLORA_EINVAL);
    assert_says("min_timestep 500");
    slr_options_unref(o);
    assert_ok(slr_options_new(&o, NULL, "train"));
    assert_ok(slr_options_set_text(o, "zero_terminal_snr", "true"));
    assert_int_equal(slr_noise_init(&n, (slr_opt){o, "train"}, SLR_PREDICT_EPS), SDLORA_EINVAL);
    assert_says("v_parameterization");
    slr_options_unref(o);
}

/* --- inputs and targets --- */

/* f32 products of numbers near 4; the reference is f64. */
#define TOL_X 2e-6

static void input_and_target_follow_the_formulas(void **state)
{
    (void)state;
    slr_noise eps = NOISE("min_timestep", "0");
    slr_noise v = noise_of((const char *const[]){NULL}, SLR_PREDICT_V);
    drawn a = draw(&eps, 6, 8, 5, 0), b = draw(&v, 6, 8, 5, 0);
    const int size = 8 * 8 * C;
    for (int i = 0; i < 6 * size; i++) {
        double bar = alpha_bar((int)a.io.t[i / size]), x = latent(i / size, i % size);
        double e = a.io.target[i]; /* the same noise in both */
        assert_true(fabs(a.io.x[i] - (sqrt(bar) * x + sqrt(1 - bar) * e)) < TOL_X);
        assert_true(a.io.x[i] == b.io.x[i]);
        assert_true(fabs(b.io.target[i] - (sqrt(bar) * e - sqrt(1 - bar) * x)) < TOL_X);
    }
    drawn_free(&a);
    drawn_free(&b);
}

/* Terminal SNR 0: the last input is the noise itself, the v target the latent. */
static void zero_terminal_snr_ends_in_noise(void **state)
{
    (void)state;
    slr_noise n = NOISE("v_parameterization", "true", "zero_terminal_snr", "true", "min_timestep",
                        "999", "max_timestep", "999");
    drawn d = draw(&n, 2, 8, 5, 0);
    for (int i = 0; i < 2 * 8 * 8 * C; i++)
        assert_true(fabs(d.io.target[i] + latent(i / 256, i % 256)) < 1e-6);
    assert_true(n.schedule.alpha_bar[999] == 0);
    assert_true(fabs(n.schedule.alpha_bar[0] - alpha_bar(0)) < 1e-6);
    /* the weights' table is the ordinary schedule's */
    assert_true(fabs(n.snr[999] / (alpha_bar(999) / (1 - alpha_bar(999))) - 1) < 1e-5);
    drawn_free(&d);
}

static void offset_is_one_number_a_channel(void **state)
{
    (void)state;
    slr_noise plain = NOISE("min_timestep", "0"), with = NOISE("noise_offset", "0.5");
    drawn a = draw(&plain, 200, 4, 5, 0), b = draw(&with, 200, 4, 5, 0);
    float offset[200 * C];
    for (int i = 0; i < 200 * 16; i++)
        for (int c = 0; c < C; c++) {
            float d = b.io.target[i * C + c] - a.io.target[i * C + c];
            if (i % 16 == 0)
                offset[i / 16 * C + c] = d;
            assert_true(fabsf(d - offset[i / 16 * C + c]) < 1e-6f); /* of sums near 4 */
        }
    moments m = moments_of(offset, 200 * C); /* 800 numbers: errors .018 and .0125 */
    assert_true(fabs(m.mean) < 0.09);
    assert_true(fabs(m.sd - 0.5) < 0.063);
    drawn_free(&a);
    drawn_free(&b);
}

/* o = max(0, o + k |mean of the channel|), per sample and channel. */
static void adaptive_offset_follows_the_latent(void **state)
{
    (void)state;
    slr_noise plain = NOISE("min_timestep", "0"), one = NOISE("noise_offset", "0.1");
    slr_noise with = NOISE("noise_offset", "0.1", "adaptive_noise_scale", "0.5");
    drawn a = draw(&plain, 3, 4, 5, 0), b = draw(&one, 3, 4, 5, 0), c = draw(&with, 3, 4, 5, 0);
    for (int64_t i = 0; i < 3; i++)
        for (int64_t ch = 0; ch < C; ch++) {
            double mean = 0, unit, got;
            for (int64_t k = 0; k < 16; k++)
                mean += latent(i, k * C + ch) / 16.0;
            unit = (b.io.target[i * 64 + ch] - a.io.target[i * 64 + ch]) / 0.1;
            got = c.io.target[i * 64 + ch] - a.io.target[i * 64 + ch];
            /* a difference of f32 numbers near 3, times ten */
            assert_true(fabs(got - (0.1 + 0.5 * fabs(mean)) * unit) < 2e-5);
        }
    drawn_free(&a);
    drawn_free(&b);
    drawn_free(&c);
}

static void pyramid_has_unit_deviation_and_is_smoother(void **state)
{
    (void)state;
    slr_noise plain = NOISE("min_timestep", "0");
    slr_noise with = NOISE("multires_noise_iterations", "6", "multires_noise_discount", "0.8");
    drawn a = draw(&plain, 4, 16, 5, 0), b = draw(&with, 4, 16, 5, 0);
    double neighbours[2] = {0, 0};
    const float *x[2] = {a.io.target, b.io.target};
    int64_t n = 4 * 16 * 16 * C;
    double mean = 0, square = 0;
    for (int64_t i = 0; i < n; i++)
        mean += x[1][i] / (double)n;
    for (int64_t i = 0; i < n; i++)
        square += pow(x[1][i] - mean, 2);
    /* torch's std, n - 1 below; the result is rounded to f32 */
    assert_true(fabs(sqrt(square / (double)(n - 1)) - 1) < 1e-6);
    for (int k = 0; k < 2; k++)
        for (int64_t i = 0; i + C < n; i++)
            if (i / C % 16 != 15)
                neighbours[k] += (double)x[k][i] * x[k][i + C] / (double)(n * 15 / 16);
    assert_true(fabs(neighbours[0]) < 0.08); /* 3840 products: sd 0.016 */
    assert_true(neighbours[1] > 0.2);
    drawn_free(&a);
    drawn_free(&b);
}

/* The first level has the full size and strength discount^0: half of the result is the noise that
 * would have been without it, whatever the discount. */
static void the_first_level_of_a_pyramid_is_whole(void **state)
{
    (void)state;
    slr_noise plain = NOISE("min_timestep", "0");
    slr_noise with = NOISE("multires_noise_iterations", "1", "multires_noise_discount", "0.1");
    drawn a = draw(&plain, 16, 16, 5, 0), b = draw(&with, 16, 16, 5, 0);
    double sum = 0;
    int64_t n = 16 * 16 * 16 * C;
    for (int64_t i = 0; i < n; i++)
        sum += (double)a.io.target[i] * b.io.target[i] / (double)n;
    assert_true(fabs(sum - sqrt(0.5)) < 0.05); /* 16384 products: sd 0.01 */
    drawn_free(&a);
    drawn_free(&b);
}

static void ip_noise_leaves_the_target(void **state)
{
    (void)state;
    slr_noise plain = NOISE("min_timestep", "700"), with = NOISE("ip_noise_gamma", "0.1");
    with.min_t = plain.min_t;
    drawn a = draw(&plain, 32, 8, 5, 0), b = draw(&with, 32, 8, 5, 0);
    const int size = 8 * 8 * C;
    float *extra = malloc(32 * size * sizeof *extra);
    assert_memory_equal(a.io.target, b.io.target, 32 * size * sizeof(float));
    for (int i = 0; i < 32 * size; i++)
        extra[i] = (b.io.x[i] - a.io.x[i]) / (float)sqrt(1 - alpha_bar((int)a.io.t[i / size]));
    moments m = moments_of(extra, 32 * size); /* 8192 numbers: relative error of the sd 1/128 */
    assert_true(fabs(m.sd - 0.1) < 0.004);
    assert_true(fabs(m.mean) < 0.006);
    free(extra);
    drawn_free(&a);
    drawn_free(&b);
}

/* --- weights --- */

typedef struct weight_row {
    const char *pairs[5];
    int predict;
    double (*want)(double snr);
} weight_row;

static double none(double snr)
{
    (void)snr;
    return 1;
}

static double min_snr_eps(double snr)
{
    return fmin(snr, 5) / snr;
}

static double min_snr_v(double snr)
{
    return fmin(snr, 5) / (snr + 1);
}

static double debiased_eps(double snr)
{
    return 1 / sqrt(fmin(snr, 1000));
}

static double debiased_v(double snr)
{
    return 1 / (fmin(snr, 1000) + 1);
}

static double scaled_v(double snr)
{
    return fmin(snr, 1000) / (fmin(snr, 1000) + 1);
}

static double v_like(double snr)
{
    return 1 + 0.5 * (fmin(snr, 1000) + 1) / fmin(snr, 1000);
}

static double both(double snr)
{
    return min_snr_eps(snr) * debiased_eps(snr);
}

static const weight_row weights[] = {
    {{NULL}, SLR_PREDICT_EPS, none},
    {{"min_snr_gamma", "5", NULL}, SLR_PREDICT_EPS, min_snr_eps},
    {{"min_snr_gamma", "5", NULL}, SLR_PREDICT_V, min_snr_v},
    {{"debiased_estimation_loss", "true", NULL}, SLR_PREDICT_EPS, debiased_eps},
    {{"debiased_estimation_loss", "true", NULL}, SLR_PREDICT_V, debiased_v},
    {{"scale_v_pred_loss_like_noise_pred", "true", NULL}, SLR_PREDICT_V, scaled_v},
    {{"v_pred_like_loss", "0.5", NULL}, SLR_PREDICT_EPS, v_like},
    {{"min_snr_gamma", "5", "debiased_estimation_loss", "true", NULL}, SLR_PREDICT_EPS, both},
};

static void weights_follow_the_formulas(void **state)
{
    (void)state;
    for (size_t r = 0; r < sizeof weights / sizeof *weights; r++) {
        slr_noise n = noise_of(weights[r].pairs, weights[r].predict);
        drawn d = drawn_new(1, 1, 1);
        for (int t = 0; t < 1000; t += t < 10 ? 1 : 37) {
            const float latents[C] = {0}, base = 0.25f;
            n.min_t = n.max_t = t;
            assert_ok(slr_noise_fill(&n, NULL, &d.io, latents, 1, 1, 1, 1, 0, &base));
            double bar = alpha_bar(t), want = 0.25 * weights[r].want(bar / (1 - bar));
            /* 1 - alpha_bar at t = 0 is 1e-3 of f32's alpha_bar: relative 6e-8 / 8.5e-4 */
            if (!(fabs(d.io.weight[0] / want - 1) < 1e-4))
                fail_msg("row %zu, t %d: %g, not %g", r, t, d.io.weight[0], want);
        }
        drawn_free(&d);
    }
}

static void huber_follows_its_schedules(void **state)
{
    (void)state;
    slr_noise constant = NOISE("loss_type", "huber", "huber_schedule", "constant", "huber_c", "0.2",
                               "huber_scale", "3");
    slr_noise exponential = NOISE("loss_type", "smooth_l1", "huber_schedule", "exponential",
                                  "huber_c", "0.2", "huber_scale", "3");
    slr_noise snr = NOISE("loss_type", "huber", "huber_c", "0.2", "huber_scale", "3");
    for (int t = 0; t < 1000; t += 111) {
        double bar = alpha_bar(t), sigma = sqrt((1 - bar) / bar);
        double want = (1 - 0.2) / pow(1 + sigma, 2) + 0.2; /* huber_scale has no say here */
        assert_true(fabs(slr_noise_delta(&constant, t) - 0.6) < 1e-6);
        assert_true(fabs(slr_noise_delta(&exponential, t) - 3 * pow(0.2, t / 1000.0)) < 1e-6);
        assert_true(fabs(slr_noise_delta(&snr, t) - want) < 1e-5);
    }
    drawn d = draw(&snr, 3, 1, 1, 0);
    for (int i = 0; i < 3; i++)
        assert_true(d.io.delta[i] == slr_noise_delta(&snr, (int)d.io.t[i]));
    drawn_free(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(noise_is_standard_normal),
        cmocka_unit_test(draws_are_fixed_by_seed_and_number),
        cmocka_unit_test(draws_do_not_depend_on_the_batch),
        cmocka_unit_test(timesteps_fill_their_range),
        cmocka_unit_test(bad_ranges_are_refused),
        cmocka_unit_test(input_and_target_follow_the_formulas),
        cmocka_unit_test(zero_terminal_snr_ends_in_noise),
        cmocka_unit_test(offset_is_one_number_a_channel),
        cmocka_unit_test(adaptive_offset_follows_the_latent),
        cmocka_unit_test(pyramid_has_unit_deviation_and_is_smoother),
        cmocka_unit_test(the_first_level_of_a_pyramid_is_whole),
        cmocka_unit_test(ip_noise_leaves_the_target),
        cmocka_unit_test(weights_follow_the_formulas),
        cmocka_unit_test(huber_follows_its_schedules),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
