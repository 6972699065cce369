/* SPDX-License-Identifier: MIT */
/* What the core knows about an operation: one row of ops.def.  Everything that differs between
 * operations hangs off the row; no file of this room switches over operation numbers. */
#ifndef SLR_GRAPH_OP_H
#define SLR_GRAPH_OP_H

#include <stdbool.h>
#include <stdint.h>

#include "graph/graph.h"

#define SLR_MAX_OUT 3
#define SLR_ANY     (-1) /* a count that the row leaves open */

typedef struct slr_infer slr_infer; /* infer.h */
typedef struct slr_grad slr_grad;   /* autodiff.h */
typedef struct slr_node slr_node;   /* node.h */

enum {
    SLR_OP_EFFECT = 1 << 0,     /* writes its inputs: runs even when nobody reads the outputs */
    SLR_OP_SHAPE_INTS = 1 << 1, /* the ints only say the result's shape or type, which a kernel
                                   sees in out[0]; they are not handed on */
    SLR_OP_ANY_TYPE = 1 << 2,   /* moves elements without looking at them */
    SLR_OP_SAME = 1 << 3,       /* is its first input when the result has that shape and type */
    SLR_OP_NESTS = 1 << 4,      /* op(op(x)) is op(x) */
    SLR_OP_ALIAS = 1 << 5,      /* never a kernel unless the planner must copy */
    SLR_OP_POINTWISE = 1 << 6   /* element i of the result needs element i of the inputs only */
};

typedef struct slr_op_row {
    uint32_t op;
    const char *name;
    int8_t min_in, max_in; /* max_in SLR_ANY: open; nodes always have max_in inputs */
    int8_t n_out, n_int, n_real;
    uint8_t flags;
    uint16_t ids;     /* bit i: input i is i32 */
    uint16_t inplace; /* bit i: the result may lie on input i, given the same shape and type */
    uint16_t strided; /* bit i: the stride of axis 1 of input i is honoured */
    int8_t add;       /* input add - 1 is added to the result: sums of gradients; 0: none */
    int8_t over[SLR_MAX_OUT]; /* output o must share the memory of input over[o] - 1; 0: none */
    int (*infer)(slr_infer *c);
    int (*grad)(slr_grad *c);            /* NULL: no backward rule */
    slr_val (*same)(const slr_infer *c); /* a value that already is the result, or SLR_NONE */
    double (*flops)(const slr_graph *g, const slr_node *n); /* NULL: not counted */
    const char *contract; /* operands in order: "x[N,H,W,C] w[K,C/g,R,S] ... -> y" */
} slr_op_row;

const slr_op_row *slr_op_find(uint32_t op); /* NULL: unknown */
/* The i-th known row in the order of numbers, or NULL after the last. */
const slr_op_row *slr_op_at(size_t i);
/* Whether input i may be absent: the contract marks it with `?`. */
bool slr_op_optional(const slr_op_row *row, int i);
/* Name of input i as the contract has it: "w".  Returns out. */
const char *slr_op_operand(const slr_op_row *row, int i, char out[16]);

#endif
