/* SPDX-License-Identifier: MIT */
/* Shape rules: from the inputs and attributes of a node-to-be to the shapes and types of its
 * results, or a sentence that names node, operation and shapes. */
#ifndef SLR_GRAPH_INFER_H
#define SLR_GRAPH_INFER_H

#include "graph/node.h"

struct slr_infer {
    const slr_graph *g;
    const slr_op_row *row;
    const char *name; /* of the node */
    int n_in, n_int, n_real;
    const slr_val *in;
    const int64_t *ints;
    const double *reals;
    slr_shape out[SLR_MAX_OUT];
};

/* Checks the counts, the presence and the types that the row asks for, then its shape rule. */
int slr_infer_run(slr_infer *c);

/* --- for rules --- */
/* Shape of input i; dtype 0 when it is absent. */
const slr_shape *slr_infer_in(const slr_infer *c, int i);
bool slr_infer_has(const slr_infer *c, int i);
/* "NAME: OP x [1,2] does not fit w [3,4]"; EINVAL. */
int slr_infer_misfit(const slr_infer *c, int i, int j);
/* "NAME: OP x [1,2] <text>"; EINVAL. */
int slr_infer_bad(const slr_infer *c, int i, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
int slr_infer_rank(const slr_infer *c, int i, int rank);
/* Input i (absent is fine) must be a vector of n elements that goes with input j. */
int slr_infer_vector(const slr_infer *c, int i, int64_t n, int j);
/* Storage type of the result of an operation on input i: its own when that is an activation's. */
uint32_t slr_infer_keep(const slr_infer *c, int i);
void slr_infer_out(slr_infer *c, int o, uint32_t dtype, int rank, const int64_t *dim);

int slr_infer_matmul(slr_infer *c);
int slr_infer_bmm(slr_infer *c);
int slr_infer_inverse(slr_infer *c);
int slr_infer_conv2d(slr_infer *c);
int slr_infer_conv2d_bx(slr_infer *c);
int slr_infer_conv2d_bw(slr_infer *c);
int slr_infer_group_norm(slr_infer *c);
int slr_infer_group_norm_bx(slr_infer *c);
int slr_infer_group_norm_bw(slr_infer *c);
int slr_infer_layer_norm(slr_infer *c);
int slr_infer_layer_norm_bx(slr_infer *c);
int slr_infer_layer_norm_bw(slr_infer *c);
int slr_infer_attention(slr_infer *c);
int slr_infer_attention_b(slr_infer *c);
int slr_infer_binary(slr_infer *c);
int slr_infer_unary(slr_infer *c);
int slr_infer_act(slr_infer *c);
int slr_infer_act_bx(slr_infer *c);
int slr_infer_geglu(slr_infer *c);
int slr_infer_geglu_bx(slr_infer *c);
int slr_infer_dropout(slr_infer *c);
int slr_infer_reshape(slr_infer *c);
int slr_infer_slice(slr_infer *c);
int slr_infer_slice_bx(slr_infer *c);
int slr_infer_concat(slr_infer *c);
int slr_infer_permute(slr_infer *c);
int slr_infer_cast(slr_infer *c);
int slr_infer_fill(slr_infer *c);
int slr_infer_upsample2(slr_infer *c);
int slr_infer_upsample2_bx(slr_infer *c);
int slr_infer_sum_to(slr_infer *c);
int slr_infer_embed(slr_infer *c);
int slr_infer_embed_bw(slr_infer *c);
int slr_infer_time_embed(slr_infer *c);
int slr_infer_match(slr_infer *c);
int slr_infer_loss(slr_infer *c);
int slr_infer_loss_bx(slr_infer *c);
int slr_infer_sumsq(slr_infer *c);
int slr_infer_adamw(slr_infer *c);

int slr_infer_pow(slr_infer *c);
slr_val slr_same_affine(const slr_infer *c);
slr_val slr_same_act(const slr_infer *c);
slr_val slr_same_dropout(const slr_infer *c);
slr_val slr_same_permute(const slr_infer *c);

#endif
