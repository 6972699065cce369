/* SPDX-License-Identifier: MIT */
/* Types, biases, and the model of a machine by which cuts are compared. */
#include "operands.h"

#include "convert.h"
#include "matmul.h"

/* Handing out a piece and calling the library for it takes about a microsecond.  So a few threads
 * are worth pieces of 5 us, while more than that want pieces as large as they can be. */
enum { FEW_PIECES = 4, MAX_PIECES = 32 };
#define FEW_FLOPS 1e6

/* Where the core is faster in bf16: rows, or elements of a b that changes. */
enum { FEW_ROWS = 64, MANY_WEIGHTS = 4096 };

static bool is_float(uint32_t dtype)
{
    return dtype == SDLORA_F32 || dtype == SDLORA_BF16;
}

int dn_choose_type(uint32_t *type, const sdlora_dev *dev, const sdlora_opdesc *op)
{
    const uint32_t n = op->n_in + op->n_out;
    bool half = op->math == SDLORA_MATH_BF16;
    for (uint32_t i = 0; i < n; i++) {
        const sdlora_tdesc *t = i < op->n_in ? &op->in[i] : &op->out[i - op->n_in];
        const bool frozen = dn_frozen(op, i);
        if (!t->dtype)
            continue;
        if ((frozen && i == 0) || !dn_dense(t) ||
            (frozen ? !dn_size(t->dtype) : !is_float(t->dtype)) ||
            (i == IN_ADD && i < op->n_in && frozen) ||
            (i == IN_BIAS && i < op->n_in && !frozen && t->dtype != SDLORA_F32))
            return dn_fail(
                dev, SDLORA_ENOTSUP,
                "oneDNN takes dense f32 and bf16; operand %u is of type %u, %s or has gaps",
                (unsigned)i, (unsigned)t->dtype, frozen ? "frozen" : "not frozen");
        if (t->dtype == SDLORA_BF16 && (i >= op->n_in || i == 0 || (i == 1 && !frozen)))
            half = true;
    }
    if (half && !dev->bf16)
        return dn_fail(dev, SDLORA_ENOTSUP, "this processor multiplies no bf16");
    *type = half ? SDLORA_BF16 : SDLORA_F32;
    return SDLORA_OK;
}

int dn_bias_get(float **out, sdlora_dev *dev, const sdlora_opdesc *op, uint32_t i, float scale)
{
    *out = NULL;
    if (!dn_given(op, i) || !dn_frozen(op, i))
        return SDLORA_OK;
    const int64_t n = dn_count(&op->in[i]);
    float *bias = dn_alloc(dev, (size_t)n * sizeof *bias);
    if (!bias)
        return SDLORA_ENOMEM;
    dn_convert(bias, SDLORA_F32, op->consts[i].data, op->in[i].dtype, n);
    for (int64_t x = 0; x < n; x++)
        bias[x] *= scale;
    *out = bias;
    return SDLORA_OK;
}

bool dn_product_small(const dn_product *p, uint32_t type, bool frozen)
{
    const double flops = 2.0 * (double)p->m * (double)p->n * (double)p->k;
    if (type == SDLORA_F32)
        return flops < DN_SMALL_F32;
    return !frozen && !p->ta && flops < DN_PIECE_FLOPS &&
           (p->m <= FEW_ROWS || p->k * p->n >= MANY_WEIGHTS);
}

int64_t dn_wished_pieces(double flops)
{
    const int64_t most = (int64_t)(flops / FEW_FLOPS), large = (int64_t)(flops / DN_PIECE_FLOPS);
    const int64_t wished = large > FEW_PIECES ? large : dn_min(most, FEW_PIECES);
    return wished < 1 ? 1 : dn_min(wished, MAX_PIECES);
}

double dn_plan_seconds(double flops, int64_t pieces, double elements, int64_t times)
{
    const double rate = 2e11, bandwidth = 2e10;           /* of one core; of memory, in bytes */
    const double cached = elements > 1 << 18 ? 1.0 : 0.2; /* half a megabyte stays near the core */
    const int64_t threads = 16;
    return flops / (rate * (double)dn_min(pieces, threads)) +
           cached * 2 * elements * (double)times / bandwidth;
}
