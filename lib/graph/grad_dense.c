/* SPDX-License-Identifier: MIT */
/* Backward rules of the operations that mix channels: products, convolutions, norms, attention.
 * g is the gradient of the first result throughout. */
#include "graph/autodiff.h"

#include "base/status.h"

/* The two factors of y = alpha op(a) op(b), op(m) being m or its transpose:
 *   d op(a) = alpha g op(b)^T     d op(b) = alpha op(a)^T g
 * A factor that is stored transposed gets the transposed product, so that nothing is ever moved. */
typedef struct factors {
    uint32_t op;  /* MATMUL or BMM */
    slr_val a, b; /* as the products read them */
    bool ta, tb;
    double alpha;
} factors;

static slr_val product(slr_grad *c, int i, const factors *f, slr_val x, slr_val y, bool tx, bool ty)
{
    slr_val in[2] = {x, y};
    int64_t ints[2] = {tx, ty};
    return slr_grad_op(c, i, f->op, 2, in, 2, ints, 1, &f->alpha);
}

static slr_val grad_a(slr_grad *c, const factors *f, slr_val g, slr_val g2)
{
    return f->ta ? product(c, 0, f, f->b, g2, f->tb, true)
                 : product(c, 0, f, g, f->b, false, !f->tb);
}

static slr_val grad_b(slr_grad *c, const factors *f, slr_val g, slr_val g2)
{
    return f->tb ? product(c, 1, f, g2, f->a, true, f->ta)
                 : product(c, 1, f, f->a, g2, !f->ta, false);
}

/* bias[N]: the sum over all rows. */
static void give_bias(slr_grad *c, slr_val g)
{
    if (slr_grad_wants(c, 2))
        slr_grad_give(c, 2, slr_grad_sum(c, 2, slr_grad_rows(c, g)));
}

int slr_grad_matmul(slr_grad *c)
{
    slr_val g = c->dy[0];
    factors f = {SDLORA_OP_MATMUL, c->node.in[0],   c->node.in[1],
                 c->node.ints[0],  c->node.ints[1], c->node.reals[0]};
    slr_val g2 = slr_grad_rows(c, g); /* [...,N] -> [M,N] */
    f.a = slr_grad_rows(c, f.a);
    if (slr_grad_wants(c, 3))
        slr_grad_give(c, 3, g);
    if (slr_grad_wants(c, 0))
        slr_grad_give(c, 0, grad_a(c, &f, g, g2));
    if (slr_grad_wants(c, 1))
        slr_grad_give(c, 1, grad_b(c, &f, g, g2));
    give_bias(c, g);
    return SDLORA_OK;
}

int slr_grad_bmm(slr_grad *c)
{
    slr_val g = c->dy[0];
    factors f = {SDLORA_OP_BMM,   c->node.in[0],   c->node.in[1],
                 c->node.ints[0], c->node.ints[1], c->node.reals[0]};
    if (slr_grad_wants(c, 0))
        slr_grad_give(c, 0, grad_a(c, &f, g, g));
    if (slr_grad_wants(c, 1))
        slr_grad_give(c, 1, grad_b(c, &f, g, g));
    return SDLORA_OK;
}

/* dx = -y^T g y^T */
int slr_grad_inverse(slr_grad *c)
{
    factors f = {.op = SDLORA_OP_BMM, .alpha = -1.0};
    slr_val y = c->node.out, left = product(c, 0, &f, y, c->dy[0], true, false);
    f.alpha = 1.0;
    slr_grad_give(c, 0, product(c, 0, &f, left, y, false, true));
    return SDLORA_OK;
}

/* The convolution's ints, then the two lengths that the gradient by input i cannot see. */
static slr_val conv_grad(slr_grad *c, int i, uint32_t op, slr_val other, int64_t h, int64_t w)
{
    slr_val in[2] = {c->dy[0], other};
    int64_t ints[9];
    for (int k = 0; k < 7; k++)
        ints[k] = c->node.ints[k];
    ints[7] = h;
    ints[8] = w;
    return slr_grad_op(c, i, op, 2, in, 9, ints, 1, c->node.reals);
}

int slr_grad_conv2d(slr_grad *c)
{
    slr_val x = c->node.in[0], w = c->node.in[1];
    const int64_t *xd = slr_grad_shape(c, 0)->dim, *wd = slr_grad_shape(c, 1)->dim;
    int64_t h = xd[1], width = xd[2], r = wd[2], s = wd[3]; /* values move as nodes are added */
    if (slr_grad_wants(c, 3))
        slr_grad_give(c, 3, c->dy[0]);
    if (slr_grad_wants(c, 0))
        slr_grad_give(c, 0, conv_grad(c, 0, SDLORA_OP_CONV2D_BX, w, h, width));
    if (slr_grad_wants(c, 1))
        slr_grad_give(c, 1, conv_grad(c, 1, SDLORA_OP_CONV2D_BW, x, r, s));
    give_bias(c, c->dy[0]);
    return SDLORA_OK;
}

/* What the norms' rules do not take: gradients through the statistics. */
static int norm_limits(const slr_grad *c)
{
    SLR_TRY(slr_grad_unread(c, 1));
    return slr_grad_unread(c, 2);
}

/* Gradients by gain and shift, which are inputs 1 and 2. */
static void give_affine(slr_grad *c, uint32_t op, int n_in, const slr_val *in)
{
    slr_val d[SLR_MAX_OUT];
    if (!slr_grad_wants(c, 1) && !slr_grad_wants(c, 2))
        return;
    slr_op(c->g, op, n_in, in, c->node.n_int, c->node.ints, 0, NULL, d);
    for (int i = 1; i <= 2; i++)
        if (slr_grad_wants(c, i))
            slr_grad_give(c, i, d[i - 1]);
}

int slr_grad_group_norm(slr_grad *c)
{
    SLR_TRY(norm_limits(c));
    slr_val in[6] = {c->dy[0],      c->node.in[0],   c->node.in[1],
                     c->node.in[2], c->node.out + 1, c->node.out + 2};
    give_affine(c, SDLORA_OP_GROUP_NORM_BW, 6, in);
    if (slr_grad_wants(c, 0))
        slr_grad_give(
            c, 0,
            slr_grad_op(c, 0, SDLORA_OP_GROUP_NORM_BX, 6, in, 2, c->node.ints, 1, c->node.reals));
    return SDLORA_OK;
}

int slr_grad_layer_norm(slr_grad *c)
{
    SLR_TRY(norm_limits(c));
    slr_val in[5] = {c->dy[0], c->node.in[0], c->node.in[1], c->node.out + 1, c->node.out + 2};
    slr_val bare[4] = {c->dy[0], c->node.in[0], c->node.out + 1, c->node.out + 2};
    give_affine(c, SDLORA_OP_LAYER_NORM_BW, 4, bare);
    if (slr_grad_wants(c, 0))
        slr_grad_give(c, 0, slr_grad_op(c, 0, SDLORA_OP_LAYER_NORM_BX, 5, in, 0, NULL, 0, NULL));
    return SDLORA_OK;
}

int slr_grad_attention(slr_grad *c)
{
    SLR_TRY(slr_grad_unread(c, 1));
    slr_val in[6] = {c->dy[0],      c->node.in[0], c->node.in[1],
                     c->node.in[2], c->node.out,   c->node.out + 1};
    slr_val d[SLR_MAX_OUT];
    slr_op(c->g, SDLORA_OP_ATTENTION_B, 6, in, 2, c->node.ints, 1, c->node.reals, d);
    for (int i = 0; i < 3; i++)
        if (slr_grad_wants(c, i))
            slr_grad_give(c, i, d[i]);
    return SDLORA_OK;
}
