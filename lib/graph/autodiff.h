/* SPDX-License-Identifier: MIT */
/* What a backward rule is given: its node, the gradients of the node's results, and a hand to pass
 * gradients on to the node's inputs. */
#ifndef SLR_GRAPH_AUTODIFF_H
#define SLR_GRAPH_AUTODIFF_H

#include "graph/node.h"

struct slr_grad {
    slr_graph *g;
    slr_node node;           /* a copy: rules add nodes */
    slr_val dy[SLR_MAX_OUT]; /* gradient of each result; SLR_NONE: nothing depends on it */
    bool *need;              /* by value: some wrt lies behind it */
    slr_val *grad;           /* by value: its gradient so far */
    size_t n_known;          /* values and nodes that stood before the backward graph */
    size_t fresh;            /* nodes from here on were made by the rule that runs now */
};

/* --- for rules --- */
/* Whether the gradient by input i is wanted. */
bool slr_grad_wants(const slr_grad *c, int i);
/* Adds dx to the gradient of input i.  dx may have other axes than the input, not other elements.
 */
void slr_grad_give(slr_grad *c, int i, slr_val dx);
/* ENOTSUP, "NAME: OP has no gradient by w [4,4]", when input i is wanted; else 0. */
int slr_grad_refuse(const slr_grad *c, int i);
/* ENOTSUP when result o has a gradient that the rule does not take; else 0. */
int slr_grad_unread(const slr_grad *c, int o);
static inline const slr_shape *slr_grad_shape(const slr_grad *c, int i)
{
    return &c->g->vals[c->node.in[i]].shape;
}
/* An operation whose first result is stored in input i's own type: gradients are. */
slr_val slr_grad_op(slr_grad *c, int i, uint32_t op, int n_in, const slr_val *in, int n_int,
                    const int64_t *ints, int n_real, const double *reals);
/* x with all axes but the last folded into rows. */
slr_val slr_grad_rows(slr_grad *c, slr_val x);
/* x summed to the shape of input i, which repeats; ranks may differ by leading ones. */
slr_val slr_grad_sum(slr_grad *c, int i, slr_val x);

/* --- recompute.c */
/* Rewrites the backward nodes (from n_forward on) that lead to grads[n], as the graph's
 * checkpointing has it. */
int slr_recompute(slr_graph *g, size_t n_forward, const slr_val *grads, size_t n);

int slr_grad_matmul(slr_grad *c);
int slr_grad_bmm(slr_grad *c);
int slr_grad_inverse(slr_grad *c);
int slr_grad_conv2d(slr_grad *c);
int slr_grad_group_norm(slr_grad *c);
int slr_grad_layer_norm(slr_grad *c);
int slr_grad_attention(slr_grad *c);
int slr_grad_add_op(slr_grad *c);
int slr_grad_sub(slr_grad *c);
int slr_grad_mul(slr_grad *c);
int slr_grad_affine(slr_grad *c);
int slr_grad_pow(slr_grad *c);
int slr_grad_act(slr_grad *c);
int slr_grad_geglu(slr_grad *c);
int slr_grad_dropout(slr_grad *c);
int slr_grad_reshape(slr_grad *c);
int slr_grad_slice(slr_grad *c);
int slr_grad_concat(slr_grad *c);
int slr_grad_permute(slr_grad *c);
int slr_grad_cast(slr_grad *c);
int slr_grad_upsample2(slr_grad *c);
int slr_grad_sum_to(slr_grad *c);
int slr_grad_embed(slr_grad *c);
int slr_grad_loss(slr_grad *c);
int slr_grad_sumsq(slr_grad *c);

#endif
