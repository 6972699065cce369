/* SPDX-License-Identifier: MIT */
/* The insides of a graph, for the files of this room (and its tests): values and nodes in the order
 * in which they were built, which is a topological order. */
#ifndef SLR_GRAPH_NODE_H
#define SLR_GRAPH_NODE_H

#include "base/map.h"
#include "graph/op.h"

enum { SLR_FROM_NODE = 0, SLR_FROM_INPUT, SLR_FROM_PARAM, SLR_FROM_CONST };

typedef struct slr_value {
    slr_shape shape;
    int32_t from;             /* SLR_FROM_* */
    int32_t node;             /* the node that makes it; -1: a leaf */
    int32_t uses;             /* how many node inputs read it */
    const char *name;         /* leaves: the full name; else NULL */
    const slr_tensor *tensor; /* SLR_FROM_CONST */
} slr_value;

struct slr_node {
    const slr_op_row *row;
    const char *name; /* names pushed when it was built; "" at the top */
    int32_t n_in, n_int, n_real;
    slr_val out; /* first of row->n_out consecutive values */
    slr_val *in;
    const int64_t *ints;
    const double *reals;
};

typedef struct slr_named {
    const char *name;
    slr_val val;
} slr_named;

struct slr_graph {
    slr_mem *m;
    slr_arena *arena; /* names, tensors, and the arrays of nodes */
    slr_policy policy;
    int status;
    slr_node *nodes;
    slr_value *vals;
    slr_named *outputs;
    const char **stack;              /* full prefixes; the last one is in force */
    const char *grad_of, *grad_name; /* the last name given to slr_graph_push_grad, and its twin */
    size_t n_nodes, n_vals, n_outputs, n_stack;
    size_t cap_nodes, cap_vals, cap_outputs, cap_stack;
    slr_map *leaves, *wanted; /* full name -> value: of leaves, of outputs */
    int32_t *marks;           /* nodes at which segments begin */
    size_t n_marks, cap_marks;
    double spend; /* share of the arithmetic that may be done again; 0: no checkpointing */
    slr_recompute_cost recomputed;
};

/* slr_op with a wish for the type of the first result; 0: as the row's rule has it. */
slr_val slr_op_typed(slr_graph *g, uint32_t op, uint32_t dtype, int n_in, const slr_val *in,
                     int n_int, const int64_t *ints, int n_real, const double *reals,
                     slr_val *outs);
/* A value of its own with the contents of v. */
slr_val slr_twin(slr_graph *g, slr_val v);
/* Pushes "grad:name" as it is, without what was pushed before; undone by slr_graph_pop. */
void slr_graph_push_grad(slr_graph *g, const char *name);
/* "unet.conv_in: CONV2D", or "CONV2D" without a name.  Returns out. */
const char *slr_label(const char *name, const slr_op_row *row, char out[256]);
/* "input x [1,2]", "value [1,2] of unet.conv_in: CONV2D": for messages.  Returns out. */
const char *slr_value_text(const slr_graph *g, slr_val v, char out[384]);

static inline int64_t slr_count(const slr_shape *s)
{
    int64_t n = 1;
    for (int i = 0; i < s->rank; i++)
        n *= s->dim[i];
    return n;
}

static inline int64_t slr_last(const slr_shape *s)
{
    return s->rank ? s->dim[s->rank - 1] : 1;
}

static inline bool slr_same_dims(const slr_shape *a, const slr_shape *b)
{
    if (a->rank != b->rank)
        return false;
    for (int i = 0; i < a->rank; i++)
        if (a->dim[i] != b->dim[i])
            return false;
    return true;
}

#endif
