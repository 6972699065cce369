/* SPDX-License-Identifier: MIT */
/* The reference of the operations that treat each element alone, of losses and of the optimiser,
 * with libm in double precision. */
#include "backend/cpu/ref.h"

#include <math.h>

#include "base/rng.h"

#define SQRT_HALF    0.70710678118654752440
#define INV_SQRT_2PI 0.39894228040143267794
#define QUICK_GELU_K 1.702

/* --- activations */

static double sigmoid(double x)
{
    return 1 / (1 + exp(-x));
}

static double gauss_cdf(double x)
{
    return 0.5 * erfc(-x * SQRT_HALF);
}

/* What torch's modules of these names do with their defaults. */
#define LEAK       0.01
#define SELU_SCALE 1.0507009873554804934193349852946
#define SELU_ALPHA 1.6732632423543772848170429916717
#define SHRINK     0.5

static double clamp(double lo, double x, double hi)
{
    return x < lo ? lo : x > hi ? hi : x;
}

static double softplus(double x)
{
    return x > 0 ? x + log1p(exp(-x)) : log1p(exp(x));
}

double slr_ref_act(int64_t kind, double x)
{
    switch (kind) {
    case SDLORA_ACT_SIGMOID:
        return sigmoid(x);
    case SDLORA_ACT_LEAKY_RELU:
        return x > 0 ? x : LEAK * x;
    case SDLORA_ACT_ELU:
        return x > 0 ? x : expm1(x);
    case SDLORA_ACT_SELU:
        return SELU_SCALE * (x > 0 ? x : SELU_ALPHA * expm1(x));
    case SDLORA_ACT_SOFTPLUS:
        return softplus(x);
    case SDLORA_ACT_LOG_SIGMOID:
        return -softplus(-x);
    case SDLORA_ACT_MISH:
        return x * tanh(softplus(x));
    case SDLORA_ACT_HARDSWISH:
        return x * clamp(0, x + 3, 6) / 6;
    case SDLORA_ACT_HARDSIGMOID:
        return clamp(0, x + 3, 6) / 6;
    case SDLORA_ACT_HARDTANH:
        return clamp(-1, x, 1);
    case SDLORA_ACT_RELU6:
        return clamp(0, x, 6);
    case SDLORA_ACT_SOFTSIGN:
        return x / (1 + fabs(x));
    case SDLORA_ACT_TANHSHRINK:
        return x - tanh(x);
    case SDLORA_ACT_HARDSHRINK:
        return fabs(x) > SHRINK ? x : 0;
    case SDLORA_ACT_SOFTSHRINK:
        return x - clamp(-SHRINK, x, SHRINK);
    case SDLORA_ACT_SILU:
        return x * sigmoid(x);
    case SDLORA_ACT_GELU:
        return x * gauss_cdf(x);
    case SDLORA_ACT_QUICK_GELU:
        return x * sigmoid(QUICK_GELU_K * x);
    case SDLORA_ACT_RELU:
        return x > 0 ? x : 0;
    case SDLORA_ACT_TANH:
        return tanh(x);
    default:
        return x;
    }
}

double slr_ref_act_slope(int64_t kind, double x)
{
    double s, t;
    switch (kind) {
    case SDLORA_ACT_SIGMOID:
        return sigmoid(x) * sigmoid(-x);
    case SDLORA_ACT_LEAKY_RELU:
        return x > 0 ? 1 : LEAK;
    case SDLORA_ACT_ELU:
        return x > 0 ? 1 : exp(x);
    case SDLORA_ACT_SELU:
        return SELU_SCALE * (x > 0 ? 1 : SELU_ALPHA * exp(x));
    case SDLORA_ACT_SOFTPLUS:
        return sigmoid(x);
    case SDLORA_ACT_LOG_SIGMOID:
        return sigmoid(-x);
    case SDLORA_ACT_MISH:
        t = tanh(softplus(x));
        return t + x * (1 - t * t) * sigmoid(x);
    case SDLORA_ACT_HARDSWISH:
        return x <= -3 ? 0 : x >= 3 ? 1 : x / 3 + 0.5;
    case SDLORA_ACT_HARDSIGMOID:
        return fabs(x) < 3 ? 1.0 / 6 : 0;
    case SDLORA_ACT_HARDTANH:
        return fabs(x) < 1;
    case SDLORA_ACT_RELU6:
        return x > 0 && x < 6;
    case SDLORA_ACT_SOFTSIGN:
        return 1 / ((1 + fabs(x)) * (1 + fabs(x)));
    case SDLORA_ACT_TANHSHRINK:
        return tanh(x) * tanh(x);
    case SDLORA_ACT_HARDSHRINK:
    case SDLORA_ACT_SOFTSHRINK:
        return fabs(x) > SHRINK;
    case SDLORA_ACT_SILU:
        s = sigmoid(x);
        return s * (1 + x * (1 - s));
    case SDLORA_ACT_GELU:
        return gauss_cdf(x) + x * INV_SQRT_2PI * exp(-x * x / 2);
    case SDLORA_ACT_QUICK_GELU:
        s = sigmoid(QUICK_GELU_K * x);
        return s * (1 + QUICK_GELU_K * x * (1 - s));
    case SDLORA_ACT_RELU:
        return x > 0;
    case SDLORA_ACT_TANH:
        return 1 - tanh(x) * tanh(x);
    default:
        return 1;
    }
}

static void act(const slr_ref_call *c)
{
    for (int64_t i = 0; i < slr_ref_count(&c->op->out[0]); i++)
        c->out[0][i] = slr_ref_act(c->op->ints[0], c->in[0][i]);
}

static void act_bx(const slr_ref_call *c)
{
    for (int64_t i = 0; i < slr_ref_count(&c->op->out[0]); i++)
        c->out[0][i] = c->in[0][i] * slr_ref_act_slope(c->op->ints[0], c->in[1][i]);
}

static void geglu(const slr_ref_call *c)
{
    int64_t n = slr_ref_last(&c->op->out[0]);
    for (int64_t i = 0; i < slr_ref_count(&c->op->out[0]); i++) {
        const double *x = c->in[0] + i / n * 2 * n + i % n;
        c->out[0][i] = x[0] * slr_ref_act(SDLORA_ACT_GELU, x[n]);
    }
}

static void geglu_bx(const slr_ref_call *c)
{
    int64_t n = slr_ref_last(&c->op->in[0]);
    for (int64_t i = 0; i < slr_ref_count(&c->op->in[0]); i++) {
        int64_t at = i / n * 2 * n + i % n;
        const double *x = c->in[1] + at;
        c->out[0][at] = c->in[0][i] * slr_ref_act(SDLORA_ACT_GELU, x[n]);
        c->out[0][at + n] = c->in[0][i] * x[0] * slr_ref_act_slope(SDLORA_ACT_GELU, x[n]);
    }
}

/* --- two operands; an axis of b that is 1 repeats */

static int64_t repeat_index(const sdlora_tdesc *a, const sdlora_tdesc *b, int64_t i)
{
    int64_t at = 0, step = 1;
    for (uint32_t x = a->rank; x-- > 0; i /= a->dim[x]) {
        at += b->dim[x] == 1 ? 0 : i % a->dim[x] * step;
        step *= b->dim[x];
    }
    return at;
}

static void binary(const slr_ref_call *c)
{
    const sdlora_opdesc *op = c->op;
    for (int64_t i = 0; i < slr_ref_count(&op->out[0]); i++) {
        double a = c->in[0][i], b = c->in[1][repeat_index(&op->in[0], &op->in[1], i)];
        c->out[0][i] = op->op == SDLORA_OP_ADD ? a + b : op->op == SDLORA_OP_SUB ? a - b : a * b;
    }
}

static void affine(const slr_ref_call *c)
{
    for (int64_t i = 0; i < slr_ref_count(&c->op->out[0]); i++)
        c->out[0][i] = c->op->reals[0] * c->in[0][i] + c->op->reals[1];
}

static void dropout(const slr_ref_call *c)
{
    double p = c->op->reals[0];
    uint64_t stream = (uint64_t)c->op->ints[0];
    int64_t group = c->op->n_int > 1 && c->op->ints[1] > 0 ? c->op->ints[1] : 1;
    uint32_t key[2] = {(uint32_t)(int32_t)c->in[1][0], (uint32_t)(int32_t)c->in[1][1]};
    for (int64_t i = 0; i < slr_ref_count(&c->op->out[0]); i++) {
        uint64_t draw = (uint64_t)(i / group), at = draw / 4;
        uint32_t counter[4] = {(uint32_t)at, (uint32_t)(at >> 32), (uint32_t)stream,
                               (uint32_t)(stream >> 32)};
        uint32_t word[4];
        slr_philox(counter, key, word);
        double u = word[draw % 4] / 4294967296.0;
        c->out[0][i] = u >= p ? c->in[0][i] / (1 - p) : 0;
    }
}

/* --- losses: input 3, when there, is delta[N] */

static double loss_value(int64_t kind, double d, double delta)
{
    double root = sqrt(d * d + delta * delta) - delta;
    return kind == SDLORA_LOSS_L2      ? d * d
           : kind == SDLORA_LOSS_L1    ? fabs(d)
           : kind == SDLORA_LOSS_HUBER ? 2 * delta * root
                                       : 2 * root;
}

static double loss_slope(int64_t kind, double d, double delta)
{
    double root = d / sqrt(d * d + delta * delta);
    return kind == SDLORA_LOSS_L2      ? 2 * d
           : kind == SDLORA_LOSS_L1    ? (d > 0) - (d < 0)
           : kind == SDLORA_LOSS_HUBER ? 2 * delta * root
                                       : 2 * root;
}

static const double *delta_of(const slr_ref_call *c, uint32_t i)
{
    return i < c->op->n_in ? c->in[i] : NULL;
}

static void loss(const slr_ref_call *c)
{
    int64_t n = c->op->in[0].dim[0], len = slr_ref_count(&c->op->in[0]) / n;
    const double *delta = delta_of(c, 3);
    for (int64_t i = 0; i < n; i++) {
        double sum = 0;
        for (int64_t j = i * len; j < (i + 1) * len; j++)
            sum += loss_value(c->op->ints[0], c->in[0][j] - c->in[1][j], delta ? delta[i] : 0);
        c->out[0][i] = c->in[2][i] * sum / (double)len;
    }
}

static void loss_bx(const slr_ref_call *c)
{
    int64_t n = c->op->in[1].dim[0], len = slr_ref_count(&c->op->in[1]) / n;
    const double *delta = delta_of(c, 4);
    for (int64_t j = 0; j < n * len; j++) {
        double slope =
            loss_slope(c->op->ints[0], c->in[1][j] - c->in[2][j], delta ? delta[j / len] : 0);
        c->out[0][j] = c->in[0][j / len] * c->in[3][j / len] * slope / (double)len;
    }
}

static void sumsq(const slr_ref_call *c)
{
    c->out[0][0] = 0;
    for (int64_t i = 0; i < slr_ref_count(&c->op->in[0]); i++)
        c->out[0][0] += c->in[0][i] * c->in[0][i];
}

static void power(const slr_ref_call *c)
{
    for (int64_t i = 0; i < slr_ref_count(&c->op->out[0]); i++)
        c->out[0][i] = pow(c->in[0][i], c->op->reals[0]);
}

/* Decoupled weight decay (Loshchilov and Hutter 2019, algorithm 2). */
static void adamw(const slr_ref_call *c)
{
    const double *hyper = c->in[4];
    double lr = hyper[0], beta1 = hyper[1], beta2 = hyper[2], eps = hyper[3], decay = hyper[4];
    for (int64_t i = 0; i < slr_ref_count(&c->op->in[0]); i++) {
        double g = c->in[1][i] * hyper[7];
        double m = beta1 * c->in[2][i] + (1 - beta1) * g;
        double v = beta2 * c->in[3][i] + (1 - beta2) * g * g;
        double step = m / hyper[5] / (sqrt(v / hyper[6]) + eps);
        c->out[0][i] = c->in[0][i] * (1 - lr * decay) - lr * step;
        c->out[1][i] = m;
        c->out[2][i] = v;
    }
}

const slr_ref_row slr_ref_ew[] = {
    {SDLORA_OP_ADD, binary},    {SDLORA_OP_SUB, binary},        {SDLORA_OP_MUL, binary},
    {SDLORA_OP_AFFINE, affine}, {SDLORA_OP_ACT, act},           {SDLORA_OP_ACT_BX, act_bx},
    {SDLORA_OP_GEGLU, geglu},   {SDLORA_OP_GEGLU_BX, geglu_bx}, {SDLORA_OP_DROPOUT, dropout},
    {SDLORA_OP_LOSS, loss},     {SDLORA_OP_LOSS_BX, loss_bx},   {SDLORA_OP_SUMSQ, sumsq},
    {SDLORA_OP_ADAMW, adamw},   {SDLORA_OP_POW, power},         {0},
};
