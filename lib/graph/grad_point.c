/* SPDX-License-Identifier: MIT */
/* Backward rules of the operations that do not mix channels: elementwise, shape and memory, loss.
 * g is the gradient of the result throughout. */
#include "graph/autodiff.h"

#include "base/status.h"

static slr_val op1(slr_grad *c, uint32_t op, int n_int, const int64_t *ints)
{
    return slr_op(c->g, op, 1, &c->dy[0], n_int, ints, 0, NULL, NULL);
}

/* --- elementwise */

int slr_grad_add_op(slr_grad *c)
{
    if (slr_grad_wants(c, 0))
        slr_grad_give(c, 0, c->dy[0]);
    if (slr_grad_wants(c, 1))
        slr_grad_give(c, 1, slr_grad_sum(c, 1, c->dy[0]));
    return SDLORA_OK;
}

int slr_grad_sub(slr_grad *c)
{
    if (slr_grad_wants(c, 0))
        slr_grad_give(c, 0, c->dy[0]);
    if (slr_grad_wants(c, 1))
        slr_grad_give(c, 1, slr_affine(c->g, slr_grad_sum(c, 1, c->dy[0]), -1.0, 0.0));
    return SDLORA_OK;
}

int slr_grad_mul(slr_grad *c)
{
    slr_val g = c->dy[0], a = c->node.in[0], b = c->node.in[1];
    if (slr_grad_wants(c, 0)) {
        slr_val in[2] = {g, b};
        slr_grad_give(c, 0, slr_op(c->g, SDLORA_OP_MUL, 2, in, 0, NULL, 0, NULL, NULL));
    }
    if (slr_grad_wants(c, 1)) {
        slr_val in[2] = {g, a};
        slr_val ga = slr_op(c->g, SDLORA_OP_MUL, 2, in, 0, NULL, 0, NULL, NULL);
        slr_grad_give(c, 1, slr_grad_sum(c, 1, ga));
    }
    return SDLORA_OK;
}

int slr_grad_affine(slr_grad *c)
{
    slr_grad_give(c, 0, slr_affine(c->g, c->dy[0], c->node.reals[0], 0.0));
    return SDLORA_OK;
}

/* dx = g p x^(p-1) */
int slr_grad_pow(slr_grad *c)
{
    double p = c->node.reals[0];
    slr_val slope = slr_affine(c->g, slr_pow(c->g, c->node.in[0], p - 1.0), p, 0.0);
    slr_grad_give(c, 0, slr_mul(c->g, c->dy[0], slope));
    return SDLORA_OK;
}

/* dx = OP_BX(g, x) */
static int from_input(slr_grad *c, uint32_t op)
{
    slr_val in[2] = {c->dy[0], c->node.in[0]};
    slr_grad_give(c, 0, slr_op(c->g, op, 2, in, c->node.n_int, c->node.ints, 0, NULL, NULL));
    return SDLORA_OK;
}

int slr_grad_act(slr_grad *c)
{
    return from_input(c, SDLORA_OP_ACT_BX);
}

int slr_grad_geglu(slr_grad *c)
{
    return from_input(c, SDLORA_OP_GEGLU_BX);
}

/* The same draw on g. */
int slr_grad_dropout(slr_grad *c)
{
    slr_grad_give(c, 0,
                  slr_dropout(c->g, c->dy[0], c->node.in[1], c->node.reals[0], c->node.ints[0],
                              c->node.ints[1]));
    return SDLORA_OK;
}

/* --- shape and memory */

int slr_grad_reshape(slr_grad *c)
{
    slr_grad_give(c, 0, c->dy[0]); /* give() has the axes put right */
    return SDLORA_OK;
}

int slr_grad_slice(slr_grad *c)
{
    const int64_t *p = c->node.ints;
    int64_t ints[3] = {p[0], p[1], slr_grad_shape(c, 0)->dim[p[0]]};
    slr_grad_give(c, 0, op1(c, SDLORA_OP_SLICE_BX, 3, ints));
    return SDLORA_OK;
}

int slr_grad_concat(slr_grad *c)
{
    int64_t axis = c->node.ints[0], start = 0;
    for (int i = 0; i < c->node.n_in; i++) {
        int64_t length = slr_grad_shape(c, i)->dim[axis];
        if (slr_grad_wants(c, i))
            slr_grad_give(c, i, slr_slice(c->g, c->dy[0], (int)axis, start, length));
        start += length;
    }
    return SDLORA_OK;
}

int slr_grad_permute(slr_grad *c)
{
    int64_t back[SLR_MAX_RANK] = {0};
    for (int i = 0; i < c->node.n_int; i++)
        back[c->node.ints[i]] = i;
    slr_grad_give(c, 0, op1(c, SDLORA_OP_PERMUTE, c->node.n_int, back));
    return SDLORA_OK;
}

int slr_grad_cast(slr_grad *c)
{
    slr_grad_give(c, 0, c->dy[0]); /* give() casts to the input's type */
    return SDLORA_OK;
}

int slr_grad_upsample2(slr_grad *c)
{
    slr_grad_give(c, 0, op1(c, SDLORA_OP_UPSAMPLE2_BX, 0, NULL));
    return SDLORA_OK;
}

/* g repeats along the axes that were summed. */
int slr_grad_sum_to(slr_grad *c)
{
    slr_shape s = *slr_grad_shape(c, 0);
    double zero = 0.0;
    slr_val zeros = slr_grad_op(c, 0, SDLORA_OP_FILL, 0, NULL, s.rank, s.dim, 1, &zero);
    slr_val in[2] = {zeros, c->dy[0]};
    slr_grad_give(c, 0, slr_op(c->g, SDLORA_OP_ADD, 2, in, 0, NULL, 0, NULL, NULL));
    return SDLORA_OK;
}

int slr_grad_embed(slr_grad *c)
{
    if (!slr_grad_wants(c, 1))
        return SDLORA_OK;
    slr_val in[2] = {c->node.in[0], c->dy[0]};
    int64_t rows = slr_grad_shape(c, 1)->dim[0];
    slr_grad_give(c, 1, slr_grad_op(c, 1, SDLORA_OP_EMBED_BW, 2, in, 1, &rows, 0, NULL));
    return SDLORA_OK;
}

/* --- loss: every kind is an even function of pred - target */

int slr_grad_loss(slr_grad *c)
{
    const slr_val *x = c->node.in;
    slr_val in[5] = {c->dy[0], x[0], x[1], x[2], x[3]};
    SLR_TRY(slr_grad_refuse(c, 2));
    SLR_TRY(slr_grad_refuse(c, 3));
    slr_val d = slr_grad_op(c, slr_grad_wants(c, 0) ? 0 : 1, SDLORA_OP_LOSS_BX, 5, in, 1,
                            c->node.ints, 0, NULL);
    if (slr_grad_wants(c, 0))
        slr_grad_give(c, 0, d);
    if (slr_grad_wants(c, 1))
        slr_grad_give(c, 1, slr_affine(c->g, d, -1.0, 0.0));
    return SDLORA_OK;
}

int slr_grad_sumsq(slr_grad *c)
{
    slr_val twice = slr_affine(c->g, c->node.in[0], 2.0, 0.0);
    slr_grad_give(c, 0, slr_mul(c->g, twice, c->dy[0]));
    return SDLORA_OK;
}
