/* SPDX-License-Identifier: MIT */
/* Counted work of single nodes: floating-point operations of products, convolutions and attention,
 * two per multiply-add.  All other operations are bound by memory and count nothing. */
#ifndef SLR_GRAPH_FLOPS_H
#define SLR_GRAPH_FLOPS_H

#include "graph/node.h"

double slr_node_flops(const slr_graph *g, const slr_node *n);

double slr_flops_matmul(const slr_graph *g, const slr_node *n);
double slr_flops_bmm(const slr_graph *g, const slr_node *n);
double slr_flops_conv2d(const slr_graph *g, const slr_node *n);
double slr_flops_conv2d_bx(const slr_graph *g, const slr_node *n);
double slr_flops_conv2d_bw(const slr_graph *g, const slr_node *n);
double slr_flops_attention(const slr_graph *g, const slr_node *n);
double slr_flops_attention_b(const slr_graph *g, const slr_node *n);

#endif
