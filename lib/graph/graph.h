/* SPDX-License-Identifier: MIT */
/* A graph of operations at fixed shapes: builder, names, gradient.  Knows operations (ops.def) and
 * shapes; refuses to know Stable Diffusion, devices and memory.
 *
 * Values are small integers.  The builder keeps its first error: after it, every call returns
 * SLR_NONE and does nothing, and slr_graph_status() gives the code, so model code needs no checks.
 * Passing SLR_NONE for an optional input means "absent". */
#ifndef SLR_GRAPH_GRAPH_H
#define SLR_GRAPH_GRAPH_H

#include <stdbool.h>
#include <stdint.h>

#include <sdlora/backend.h>
#include "base/mem.h"
#include "tensor/tensor.h"

typedef struct slr_graph slr_graph;
typedef int32_t slr_val;
#define SLR_NONE ((slr_val)-1)

/* Precision policy: what activations are stored in and what arithmetic may do. */
typedef struct slr_policy {
    uint32_t storage; /* SDLORA_F32 (default) or SDLORA_BF16 */
    uint32_t math;    /* SDLORA_MATH_* */
} slr_policy;

int slr_graph_new(slr_graph **out, slr_mem *m, slr_policy policy);
void slr_graph_free(slr_graph *g);
/* Stores results of the nodes that follow as `storage` (SDLORA_F32 or SDLORA_BF16); returns what was
 * in force.  For the few layers that need more digits than the rest. */
uint32_t slr_graph_storage(slr_graph *g, uint32_t storage);
uint32_t slr_graph_stored(const slr_graph *g); /* what is in force */
int slr_graph_status(const slr_graph *g); /* 0, or the first error (its text is in the slot) */
slr_mem *slr_graph_mem(const slr_graph *g);
/* Records an error found by a builder above (text via slr_fail first). Returns SLR_NONE. */
slr_val slr_graph_error(slr_graph *g, int code);

/* Names nest: push("down_blocks.0") makes later names "down_blocks.0.<name>"; for messages,
 * profiles. */
void slr_graph_push(slr_graph *g, const char *name);
void slr_graph_pop(slr_graph *g);

/* Leaves. */
slr_val slr_input(slr_graph *g, const char *name, uint32_t dtype, int rank, const int64_t *dim);
/* Frozen contents; `t` is copied (a view): its bytes must outlive every plan of this graph. */
slr_val slr_const(slr_graph *g, const char *name, const slr_tensor *t);
/* Trainable or changeable between runs, f32; bound to memory like an input, but differentiable.
 * The name does not nest: it is the key under which the owner of the memory finds it. */
slr_val slr_param(slr_graph *g, const char *name, int rank, const int64_t *dim);

/* Looks at a value. */
typedef struct slr_shape {
    uint32_t dtype;
    int32_t rank;
    int64_t dim[SLR_MAX_RANK];
} slr_shape;
slr_shape slr_shape_of(const slr_graph *g, slr_val v);    /* zeros for SLR_NONE */
int64_t slr_dim(const slr_graph *g, slr_val v, int axis); /* negative axis counts from the end */
slr_val slr_graph_find(const slr_graph *g, const char *name); /* a leaf by full name, or SLR_NONE */

/* The general builder: outs receives all outputs of the row (may be NULL if one output). Returns
 * outs[0]. */
slr_val slr_op(slr_graph *g, uint32_t op, int n_in, const slr_val *in, int n_int,
               const int64_t *ints, int n_real, const double *reals, slr_val *outs);

/* Convenience faces; see sdlora/ops.h for contracts. */
slr_val slr_matmul(slr_graph *g, slr_val a, slr_val b, slr_val bias, slr_val add, bool ta, bool tb,
                   double alpha);
/* x[...,K], w[N,K] as files have it: x w^T + bias + add */
slr_val slr_linear(slr_graph *g, slr_val x, slr_val w, slr_val bias, slr_val add);
slr_val slr_bmm(slr_graph *g, slr_val a, slr_val b, bool ta, bool tb, double alpha);
slr_val slr_inverse(slr_graph *g, slr_val x);
typedef struct slr_conv {
    int stride, pad_top, pad_left, pad_bottom, pad_right; /* stride: both axes; groups is 1 */
} slr_conv;
slr_val slr_conv2d(slr_graph *g, slr_val x, slr_val w, slr_val bias, slr_val add, slr_conv c,
                   double alpha);
slr_val slr_group_norm(slr_graph *g, slr_val x, slr_val gamma, slr_val beta, int groups, int act,
                       double eps);
slr_val slr_layer_norm(slr_graph *g, slr_val x, slr_val gamma, slr_val beta, double eps);
slr_val slr_attention(slr_graph *g, slr_val q, slr_val k, slr_val v, int heads, bool causal,
                      double scale);
slr_val slr_add(slr_graph *g, slr_val a, slr_val b);
slr_val slr_sub(slr_graph *g, slr_val a, slr_val b);
slr_val slr_mul(slr_graph *g, slr_val a, slr_val b);
slr_val slr_affine(slr_graph *g, slr_val x, double scale, double shift);
slr_val slr_act(slr_graph *g, slr_val x, int kind);
slr_val slr_pow(slr_graph *g, slr_val x, double p);
slr_val slr_geglu(slr_graph *g, slr_val x);
slr_val slr_dropout(slr_graph *g, slr_val x, slr_val seed, double p, int64_t stream, int64_t group);
slr_val slr_reshape(slr_graph *g, slr_val x, int rank, const int64_t *dim);
slr_val slr_slice(slr_graph *g, slr_val x, int axis, int64_t start, int64_t length);
slr_val slr_concat(slr_graph *g, const slr_val *x, int n, int axis);
slr_val slr_permute(slr_graph *g, slr_val x, const int64_t *order);
slr_val slr_cast(slr_graph *g, slr_val x, uint32_t dtype);
slr_val slr_fill(slr_graph *g, int rank, const int64_t *dim, double value);
slr_val slr_upsample2(slr_graph *g, slr_val x);
slr_val slr_sum_to(slr_graph *g, slr_val x, int rank, const int64_t *dim);
slr_val slr_embed(slr_graph *g, slr_val ids, slr_val table);
slr_val slr_embed_bw(slr_graph *g, slr_val ids, slr_val dy, int64_t rows);
slr_val slr_time_embed(slr_graph *g, slr_val t, int64_t c);
slr_val slr_match(slr_graph *g, slr_val scores, int64_t h, int64_t w, int64_t r);
slr_val slr_loss(slr_graph *g, slr_val pred, slr_val target, slr_val weight, slr_val delta,
                 int kind);

/* Marks a value as wanted after a run, by name. */
void slr_output(slr_graph *g, slr_val v, const char *name);

/* Appends the backward graph: d(sum of `root`)/d(each of wrt).  Branches that lead to no wrt are
 * not built.  grads[i] is SLR_NONE when root does not depend on wrt[i].  ENOTSUP names the
 * operation and value whose row has no backward rule. */
int slr_graph_grad(slr_graph *g, slr_val root, const slr_val *wrt, size_t n, slr_val *grads);

/* Gradient checkpointing.  Model code marks where segments begin (a block each); the nodes from a
 * mark to the next one are a segment.  When `share` is above 0, later gradients read forward
 * results of all segments but the last from copies that are made again just before, and spend at
 * most that share of the graph's arithmetic on it: what is cheapest per byte is made again.  The
 * gradients are the same to the last bit. */
void slr_graph_segment(slr_graph *g);
void slr_graph_checkpoint(slr_graph *g, double share);
typedef struct slr_recompute_cost {
    double flops, flops_again; /* of forward and backward pass; done again on top */
    uint64_t bytes_without, bytes_with; /* forward results that live on into the backward pass */
} slr_recompute_cost;
/* Of the last slr_graph_grad; zeros when there was no checkpointing. */
slr_recompute_cost slr_graph_recomputed(const slr_graph *g);

/* Counted work: floating-point operations of matmul, conv and attention nodes (2 per multiply-add).
 */
double slr_graph_flops(const slr_graph *g);
/* Text dump for tests and debugging: one line per node. Caller frees with slr_free(m). */
char *slr_graph_dump(const slr_graph *g);

#endif
