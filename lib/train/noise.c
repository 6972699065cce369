/* SPDX-License-Identifier: MIT */
/* Noise, targets and loss weights of training batches.  Every draw is addressed by (seed, sample
 * number), so results do not depend on threads, batch splits or resuming.  Refuses to know graphs
 * and optimisers. */
#include "train/noise.h"

#include <math.h>
#include <string.h>

#include "base/rng.h"
#include "base/status.h"
#include "models/family.h"

#define SNR_CAP 1000.0 /* kohya caps the ratio in debiased and v-scaled losses */

/* --- huber's delta by schedule --- */

static double delta_constant(const slr_noise *n, int t)
{
    (void)t;
    return n->huber_c * n->huber_scale;
}

static double delta_exponential(const slr_noise *n, int t)
{
    return n->huber_scale * exp(log(n->huber_c) * t / SLR_TIMESTEPS);
}

static double delta_snr(const slr_noise *n, int t)
{
    double sigma = n->schedule.sigma[t];
    return (1.0 - n->huber_c) / ((1.0 + sigma) * (1.0 + sigma)) + n->huber_c;
}

static const struct {
    const char *name;
    double (*delta)(const slr_noise *n, int t);
} huber_rows[] = {
    {"constant", delta_constant},
    {"exponential", delta_exponential},
    {"snr", delta_snr},
};

float slr_noise_delta(const slr_noise *n, int t)
{
    return (float)huber_rows[n->huber_schedule].delta(n, t);
}

/* --- options --- */

static const struct {
    const char *name;
    int loss;
} loss_rows[] = {
    {"l2", SDLORA_LOSS_L2},
    {"l1", SDLORA_LOSS_L1},
    {"huber", SDLORA_LOSS_HUBER},
    {"smooth_l1", SDLORA_LOSS_SMOOTH_L1},
};

static int read_loss(slr_noise *n, slr_opt o)
{
    size_t i = 0, k = 0;
    const char *loss = slr_opt_text(o, "loss_type"), *huber = slr_opt_text(o, "huber_schedule");
    while (i < sizeof loss_rows / sizeof *loss_rows && strcmp(loss_rows[i].name, loss))
        i++;
    while (k < sizeof huber_rows / sizeof *huber_rows && strcmp(huber_rows[k].name, huber))
        k++;
    if (i == sizeof loss_rows / sizeof *loss_rows)
        return slr_fail(SDLORA_ENOTSUP, __func__, "loss_type %s is not supported", loss);
    if (k == sizeof huber_rows / sizeof *huber_rows)
        return slr_fail(SDLORA_ENOTSUP, __func__, "huber_schedule %s is not supported", huber);
    n->loss_type = loss_rows[i].loss;
    n->huber_schedule = (int)k;
    n->huber_c = slr_opt_real(o, "huber_c");
    if (n->huber_c <= 0)
        return slr_fail(SDLORA_EINVAL, __func__, "huber_c has to be above 0");
    n->huber_scale = slr_opt_real(o, "huber_scale");
    return SDLORA_OK;
}

/* sqrt(alpha_bar) shifted and rescaled so that the last is 0 and the first stays
 * (zero_terminal_snr). */
static void rescale(slr_schedule *s)
{
    double first = sqrt(s->alpha_bar[0]), last = sqrt(s->alpha_bar[SLR_TIMESTEPS - 1]);
    for (int t = 0; t < SLR_TIMESTEPS; t++) {
        double root = (sqrt(s->alpha_bar[t]) - last) * first / (first - last);
        s->alpha_bar[t] = (float)(root * root);
        s->sigma[t] = (float)sqrt((1.0 - root * root) / (root * root));
        s->log_sigma[t] = logf(s->sigma[t]);
    }
}

static int read_times(slr_noise *n, slr_opt o)
{
    n->min_t = slr_opt_has(o, "min_timestep") ? slr_opt_int(o, "min_timestep") : 0;
    n->max_t = slr_opt_has(o, "max_timestep") ? slr_opt_int(o, "max_timestep") : SLR_TIMESTEPS;
    if (n->min_t < 0 || n->max_t > SLR_TIMESTEPS || n->min_t > n->max_t)
        return slr_fail(SDLORA_EINVAL, __func__,
                        "min_timestep %lld and max_timestep %lld: 0 <= min <= max <= %d",
                        (long long)n->min_t, (long long)n->max_t, SLR_TIMESTEPS);
    return SDLORA_OK;
}

int slr_noise_init(slr_noise *n, slr_opt o, int predict)
{
    if (predict == SLR_PREDICT_V && slr_opt_given(o, "v_parameterization") &&
        !slr_opt_bool(o, "v_parameterization"))
        return slr_fail(SDLORA_EINVAL, __func__,
                        "the model predicts v, so v_parameterization has to be true; a model of "
                        "which this is not so is opened with prediction_type epsilon");
    *n = (slr_noise){
        .v_prediction = predict == SLR_PREDICT_V || slr_opt_bool(o, "v_parameterization"),
        .offset = slr_opt_real(o, "noise_offset"),
        .offset_random = slr_opt_bool(o, "noise_offset_random_strength"),
        .adaptive = slr_opt_real(o, "adaptive_noise_scale"),
        .multires = (int)slr_opt_int(o, "multires_noise_iterations"),
        .multires_discount = slr_opt_real(o, "multires_noise_discount"),
        .ip_gamma = slr_opt_real(o, "ip_noise_gamma"),
        .ip_random = slr_opt_bool(o, "ip_noise_gamma_random_strength"),
        .min_snr = slr_opt_real(o, "min_snr_gamma"),
        .debiased = slr_opt_bool(o, "debiased_estimation_loss"),
        .scale_v = slr_opt_bool(o, "scale_v_pred_loss_like_noise_pred"),
        .v_like = slr_opt_real(o, "v_pred_like_loss"),
    };
    slr_schedule_init(&n->schedule);
    for (int t = 0; t < SLR_TIMESTEPS; t++)
        n->snr[t] = n->schedule.alpha_bar[t] / (1.0 - n->schedule.alpha_bar[t]);
    if (slr_opt_bool(o, "zero_terminal_snr")) {
        if (!n->v_prediction)
            return slr_fail(SDLORA_EINVAL, __func__,
                            "zero_terminal_snr needs v_parameterization: at the last step noise "
                            "carries no signal");
        rescale(&n->schedule);
    }
    if (n->scale_v && !n->v_prediction)
        return slr_fail(SDLORA_EINVAL, __func__,
                        "scale_v_pred_loss_like_noise_pred is for v_parameterization only");
    if (n->v_like != 0 && n->v_prediction)
        return slr_fail(SDLORA_EINVAL, __func__,
                        "v_pred_like_loss is not for v_parameterization: the loss is v's already");
    SLR_TRY(read_times(n, o));
    return read_loss(n, o);
}

/* --- one batch --- */

typedef struct batch {
    const slr_noise *n;
    slr_mem *m;
    int64_t count, h, w, c;
    uint64_t seed, first;
    float *noise; /* [count,h,w,c] */
} batch;

enum { ITEM_BATCH = 1 << 30 }; /* draws that belong to the batch, not to a sample */

static slr_rng sample_rng(const batch *b, uint32_t stream, int64_t i)
{
    slr_rng rng;
    uint64_t number = b->first + (uint64_t)i;
    slr_rng_init(&rng, b->seed + (number >> 30), stream, (uint32_t)(number & (ITEM_BATCH - 1)));
    return rng;
}

static double batch_real(const batch *b, uint32_t stream)
{
    slr_rng rng;
    slr_rng_init(&rng, b->seed + (b->first >> 30), stream,
                 (uint32_t)(b->first & (ITEM_BATCH - 1)) | (uint32_t)ITEM_BATCH);
    return slr_rng_real(&rng);
}

static double channel_mean(const float *latents, int64_t pixels, int64_t c, int64_t at)
{
    double sum = 0;
    for (int64_t i = 0; i < pixels; i++)
        sum += latents[i * c + at];
    return sum / (double)pixels;
}

/* noise += o * N(0,1) per sample and channel; adaptive_noise_scale raises o by the latent's mean.
 */
static void add_offset(const batch *b, const float *latents, slr_rng *rng, double strength,
                       float *noise)
{
    int64_t pixels = b->h * b->w;
    for (int64_t ch = 0; ch < b->c; ch++) {
        float draw;
        slr_rng_normal(rng, &draw, 1);
        double o = strength;
        if (b->n->adaptive != 0)
            o = fmax(0.0, o + b->n->adaptive * fabs(channel_mean(latents, pixels, b->c, ch)));
        for (int64_t i = 0; i < pixels; i++)
            noise[i * b->c + ch] += (float)o * draw;
    }
}

/* Bilinear enlargement of [sh,sw,c] with half-pixel centres, added with a factor. */
static void add_enlarged(float *dst, int64_t h, int64_t w, int64_t c, const float *src, int64_t sh,
                         int64_t sw, double factor)
{
    for (int64_t y = 0; y < h; y++) {
        double fy = fmax(0.0, ((double)y + 0.5) * (double)sh / (double)h - 0.5);
        int64_t y0 = (int64_t)fy, y1 = y0 + 1 < sh ? y0 + 1 : y0;
        for (int64_t x = 0; x < w; x++) {
            double fx = fmax(0.0, ((double)x + 0.5) * (double)sw / (double)w - 0.5);
            int64_t x0 = (int64_t)fx, x1 = x0 + 1 < sw ? x0 + 1 : x0;
            double ty = fy - (double)y0, tx = fx - (double)x0;
            for (int64_t k = 0; k < c; k++) {
                double top =
                    src[(y0 * sw + x0) * c + k] * (1 - tx) + src[(y0 * sw + x1) * c + k] * tx;
                double low =
                    src[(y1 * sw + x0) * c + k] * (1 - tx) + src[(y1 * sw + x1) * c + k] * tx;
                dst[(y * w + x) * c + k] += (float)(factor * (top * (1 - ty) + low * ty));
            }
        }
    }
}

/* Pyramid noise: coarser and coarser normals, then unit variance over the whole batch. */
static int add_pyramid(const batch *b)
{
    int64_t size = b->h * b->w * b->c;
    float *coarse = slr_alloc(b->m, (size_t)size * sizeof *coarse);
    if (!coarse)
        return SDLORA_ENOMEM;
    slr_rng shape;
    slr_rng_init(&shape, b->seed + (b->first >> 30), SLR_STREAM_NOISE,
                 (uint32_t)(b->first & (ITEM_BATCH - 1)) | (uint32_t)ITEM_BATCH);
    for (int i = 0; i < b->n->multires; i++) {
        double ratio = pow(2.0 + 2.0 * slr_rng_real(&shape), i);
        int64_t sh = (int64_t)fmax(1.0, floor((double)b->h / ratio));
        int64_t sw = (int64_t)fmax(1.0, floor((double)b->w / ratio));
        for (int64_t s = 0; s < b->count; s++) {
            slr_rng rng = sample_rng(b, SLR_STREAM_NOISE, s);
            rng.position += (uint64_t)(i + 1) << 32;
            rng.left = 0;
            slr_rng_normal(&rng, coarse, (size_t)(sh * sw * b->c));
            add_enlarged(b->noise + s * size, b->h, b->w, b->c, coarse, sh, sw,
                         pow(b->n->multires_discount, i));
        }
        if (sh == 1 || sw == 1)
            break;
    }
    slr_free(b->m, coarse);

    double sum = 0, square = 0, total = (double)(size * b->count);
    for (int64_t i = 0; i < size * b->count; i++)
        sum += b->noise[i];
    for (int64_t i = 0; i < size * b->count; i++)
        square += (b->noise[i] - sum / total) * (b->noise[i] - sum / total);
    float scale = (float)(1.0 / sqrt(square / (total - 1)));
    for (int64_t i = 0; i < size * b->count; i++)
        b->noise[i] *= scale;
    return SDLORA_OK;
}

static int draw_noise(const batch *b, const float *latents)
{
    const slr_noise *n = b->n;
    int64_t size = b->h * b->w * b->c;
    double offset = n->offset;
    if (offset != 0 && n->offset_random)
        offset *= batch_real(b, SLR_STREAM_TIME);
    for (int64_t i = 0; i < b->count; i++) {
        slr_rng rng = sample_rng(b, SLR_STREAM_NOISE, i);
        slr_rng_normal(&rng, b->noise + i * size, (size_t)size);
        if (n->offset != 0)
            add_offset(b, latents + i * size, &rng, offset, b->noise + i * size);
    }
    return n->multires > 0 ? add_pyramid(b) : SDLORA_OK;
}

void slr_noise_fixed(const slr_noise *n, const float *latents, const float *noise, int64_t floats,
                     int t, float *x, float *target)
{
    float a = sqrtf(n->schedule.alpha_bar[t]), s = sqrtf(1.0f - n->schedule.alpha_bar[t]);
    for (int64_t i = 0; i < floats; i++) {
        x[i] = a * latents[i] + s * noise[i];
        target[i] = n->v_prediction ? a * noise[i] - s * latents[i] : noise[i];
    }
}

/* ip_noise_gamma: the input gets more noise than the target says. */
static void perturb(const batch *b, int64_t i, int t, double gamma, float *x)
{
    float s = sqrtf(1.0f - b->n->schedule.alpha_bar[t]);
    slr_rng rng = sample_rng(b, SLR_STREAM_NOISE, i);
    rng.position += (uint64_t)1 << 48;
    rng.left = 0;
    for (int64_t k = 0; k < b->h * b->w * b->c; k++) {
        float draw;
        slr_rng_normal(&rng, &draw, 1);
        x[k] += s * (float)gamma * draw;
    }
}

double slr_noise_weight(const slr_noise *n, int t)
{
    double snr = n->snr[t], capped = fmin(snr, SNR_CAP), weight = 1.0;
    if (n->min_snr > 0)
        weight *= fmin(snr, n->min_snr) / (n->v_prediction ? snr + 1.0 : snr);
    if (n->scale_v && n->v_prediction)
        weight *= capped / (capped + 1.0);
    if (n->v_like != 0)
        weight *= 1.0 + n->v_like * (capped + 1.0) / capped;
    if (n->debiased)
        weight *= n->v_prediction ? 1.0 / (capped + 1.0) : 1.0 / sqrt(capped);
    return weight;
}

static int draw_time(const batch *b, int64_t i)
{
    const slr_noise *n = b->n;
    if (n->min_t == n->max_t)
        return (int)(n->min_t < SLR_TIMESTEPS ? n->min_t : SLR_TIMESTEPS - 1);
    slr_rng rng = sample_rng(b, SLR_STREAM_TIME, i);
    return (int)(n->min_t + (int64_t)slr_rng_below(&rng, (uint64_t)(n->max_t - n->min_t)));
}

int slr_noise_fill(const slr_noise *n, slr_mem *m, const slr_step_io *io, const float *latents,
                   int64_t count, int64_t h, int64_t w, uint64_t seed, uint64_t first,
                   const float *base_weight)
{
    int64_t size = h * w * io->channels;
    batch b = {.n = n,
               .m = m,
               .count = count,
               .h = h,
               .w = w,
               .c = io->channels,
               .seed = seed,
               .first = first};
    b.noise = slr_alloc(m, (size_t)(size * count) * sizeof(float));
    if (!b.noise)
        return SDLORA_ENOMEM;
    int rc = draw_noise(&b, latents);
    double gamma = n->ip_random ? n->ip_gamma * batch_real(&b, SLR_STREAM_STRENGTH) : n->ip_gamma;
    for (int64_t i = 0; rc >= 0 && i < count; i++) {
        int t = draw_time(&b, i);
        slr_noise_fixed(n, latents + i * size, b.noise + i * size, size, t, io->x + i * size,
                        io->target + i * size);
        if (gamma != 0)
            perturb(&b, i, t, gamma, io->x + i * size);
        io->t[i] = (float)t;
        io->weight[i] = (float)(base_weight[i] * slr_noise_weight(n, t));
        if (io->delta)
            io->delta[i] = slr_noise_delta(n, t);
    }
    slr_free(m, b.noise);
    return rc;
}
