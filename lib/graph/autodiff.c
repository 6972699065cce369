/* SPDX-License-Identifier: MIT */
/* Reverse-mode differentiation, from graph to graph.
 *
 *   1. Walk the nodes forwards: a value is needed when it is in wrt, or made from a needed one.
 *   2. The gradient of root is a FILL of ones, so what is differentiated is the sum of root.
 *   3. Walk the nodes backwards from root.  All readers of a value come after its maker, so when
 *      a node's turn comes, the gradients of its results are complete.
 *   4. If a result has a gradient and an input is needed, the row's rule appends nodes that make
 *      the inputs' gradients, and gives each to its input.
 *   5. A second gift to the same value is added to the first: by its own `add` input if the
 *      gift is a product or a norm's gradient made a moment ago that nobody reads yet, else by an
 * ADD node.
 *
 * What is not needed is not visited: frozen weights and what lies before the first parameter cost
 * nothing.  A gradient has the shape and the type of its value.  Rules are in grad_*.c. */
#include "graph/autodiff.h"

#include <string.h>

#include "base/status.h"

/* --- the hand that rules are lent */

bool slr_grad_wants(const slr_grad *c, int i)
{
    return i < c->node.n_in && c->node.in[i] != SLR_NONE && c->need[c->node.in[i]];
}

int slr_grad_refuse(const slr_grad *c, int i)
{
    char label[256], what[16], shape[96], value[384];
    if (!slr_grad_wants(c, i))
        return SDLORA_OK;
    const slr_shape *s = slr_grad_shape(c, i);
    return slr_fail(SDLORA_ENOTSUP, __func__, "%s has no gradient by its %s %s (%s)",
                    slr_label(c->node.name, c->node.row, label),
                    slr_op_operand(c->node.row, i, what), slr_shape_text(s->dim, s->rank, shape),
                    slr_value_text(c->g, c->node.in[i], value));
}

int slr_grad_unread(const slr_grad *c, int o)
{
    char label[256], shape[96];
    if (c->dy[o] == SLR_NONE)
        return SDLORA_OK;
    const slr_shape *s = &c->g->vals[c->node.out + o].shape;
    return slr_fail(SDLORA_ENOTSUP, __func__, "%s has no gradient through its result number %d, %s",
                    slr_label(c->node.name, c->node.row, label), o + 1,
                    slr_shape_text(s->dim, s->rank, shape));
}

slr_val slr_grad_op(slr_grad *c, int i, uint32_t op, int n_in, const slr_val *in, int n_int,
                    const int64_t *ints, int n_real, const double *reals)
{
    return slr_op_typed(c->g, op, slr_grad_shape(c, i)->dtype, n_in, in, n_int, ints, n_real, reals,
                        NULL);
}

slr_val slr_grad_rows(slr_grad *c, slr_val x)
{
    slr_shape s = slr_shape_of(c->g, x);
    int64_t dim[2] = {slr_count(&s) / slr_last(&s), slr_last(&s)};
    return slr_reshape(c->g, x, 2, dim);
}

slr_val slr_grad_sum(slr_grad *c, int i, slr_val x)
{
    slr_shape from = slr_shape_of(c->g, x), to = *slr_grad_shape(c, i);
    int64_t dim[SLR_MAX_RANK];
    int lead = from.rank - to.rank;
    for (int a = 0; a < from.rank; a++)
        dim[a] = a < lead ? 1 : to.dim[a - lead];
    return slr_grad_op(c, i, SDLORA_OP_SUM_TO, 1, &x, from.rank, dim, 0, NULL);
}

/* --- gifts */

/* The node that makes v, if it has an `add` input that is free and nobody but v's owner can see it.
 */
static slr_node *open_sum(slr_grad *c, slr_val v)
{
    slr_graph *g = c->g;
    int32_t fresh = (int32_t)c->fresh, readers = 0;
    if (g->vals[v].node >= fresh && g->vals[v].uses == 0 &&
        g->nodes[g->vals[v].node].row->op == SDLORA_OP_RESHAPE) {
        v = g->nodes[g->vals[v].node].in[0];
        readers = 1;
    }
    if (g->vals[v].node < fresh || g->vals[v].uses != readers)
        return NULL;
    slr_node *n = &g->nodes[g->vals[v].node];
    return n->row->add && n->in[n->row->add - 1] == SLR_NONE ? n : NULL;
}

/* have + dx.  A node may read `have` when that stood before the node was appended. */
static slr_val add_up(slr_grad *c, slr_val have, slr_val dx)
{
    slr_graph *g = c->g;
    slr_node *sum = open_sum(c, dx);
    if (!sum || g->vals[have].node >= (int32_t)c->fresh ||
        slr_last(&g->vals[have].shape) != slr_last(&g->vals[sum->out].shape))
        return slr_add(g, have, dx);
    sum->in[sum->row->add - 1] = have;
    g->vals[have].uses++;
    return dx;
}

void slr_grad_give(slr_grad *c, int i, slr_val dx)
{
    slr_graph *g = c->g;
    if (dx == SLR_NONE || g->status < 0)
        return;
    slr_val v = c->node.in[i];
    slr_shape s = g->vals[v].shape;
    dx = slr_reshape(g, dx, s.rank, s.dim);
    dx = slr_cast(g, dx, s.dtype);
    if (c->grad[v] != SLR_NONE && dx != SLR_NONE)
        dx = add_up(c, c->grad[v], dx);
    c->grad[v] = dx;
}

/* --- the walks */

static void mark_needed(slr_grad *c, const slr_val *wrt, size_t n)
{
    const slr_graph *g = c->g;
    for (size_t i = 0; i < n; i++)
        c->need[wrt[i]] = true;
    for (size_t k = 0; k < g->n_nodes; k++) {
        const slr_node *node = &g->nodes[k];
        bool need = false;
        for (int i = 0; i < node->n_in; i++)
            need = need || (node->in[i] != SLR_NONE && c->need[node->in[i]]);
        for (int o = 0; o < node->row->n_out; o++)
            c->need[node->out + o] = c->need[node->out + o] || need;
    }
}

/* Whether node k has both a gradient to pass on and somewhere to pass it. */
static bool takes_part(slr_grad *c, size_t k)
{
    bool given = false, wanted = false;
    c->node = c->g->nodes[k];
    for (int o = 0; o < c->node.row->n_out; o++) {
        c->dy[o] = c->grad[c->node.out + o];
        given = given || c->dy[o] != SLR_NONE;
    }
    for (int i = 0; i < c->node.n_in; i++)
        wanted = wanted || slr_grad_wants(c, i);
    return given && wanted;
}

static int walk_back(slr_grad *c, slr_val root)
{
    slr_graph *g = c->g;
    char label[256], value[384];
    for (size_t k = (size_t)(g->vals[root].node + 1); k-- > 0;) {
        if (!takes_part(c, k))
            continue;
        if (!c->node.row->grad)
            return slr_fail(SDLORA_ENOTSUP, __func__, "%s has no backward rule, wanted for %s",
                            slr_label(c->node.name, c->node.row, label),
                            slr_value_text(g, c->node.out, value));
        c->fresh = g->n_nodes;
        slr_graph_push_grad(g, c->node.name);
        SLR_TRY(c->node.row->grad(c));
        slr_graph_pop(g);
        SLR_TRY(g->status);
    }
    return SDLORA_OK;
}

static int check_arguments(const slr_graph *g, slr_val root, const slr_val *wrt, size_t n)
{
    bool fits = root >= 0 && (size_t)root < g->n_vals;
    for (size_t i = 0; i < n; i++)
        fits = fits && wrt[i] >= 0 && (size_t)wrt[i] < g->n_vals;
    return fits ? SDLORA_OK
                : slr_fail(SDLORA_EINVAL, __func__,
                           "a gradient was asked of or by what is not a value of the graph");
}

static int differentiate(slr_grad *c, slr_val root, const slr_val *wrt, size_t n, slr_val *grads)
{
    slr_graph *g = c->g;
    slr_shape s = g->vals[root].shape;
    double one = 1.0;
    size_t n_forward = g->n_nodes;
    mark_needed(c, wrt, n);
    if (!c->need[root])
        return SDLORA_OK;
    slr_graph_push_grad(g, "");
    c->grad[root] = slr_op_typed(g, SDLORA_OP_FILL, s.dtype, 0, NULL, s.rank, s.dim, 1, &one, NULL);
    SLR_TRY(g->status);
    SLR_TRY(walk_back(c, root));
    for (size_t i = 0; i < n; i++)
        grads[i] = c->grad[wrt[i]];
    /* Each its own value, so that each can be bound to its own memory. */
    for (size_t i = 0; i < n; i++)
        if (grads[i] != SLR_NONE && g->vals[grads[i]].uses++ > 0)
            grads[i] = slr_twin(g, grads[i]);
    SLR_TRY(g->status);
    return slr_recompute(g, n_forward, grads, n);
}

int slr_graph_grad(slr_graph *g, slr_val root, const slr_val *wrt, size_t n, slr_val *grads)
{
    for (size_t i = 0; i < n; i++)
        grads[i] = SLR_NONE;
    SLR_TRY(g->status);
    int rc = check_arguments(g, root, wrt, n);
    if (rc < 0) {
        slr_graph_error(g, rc);
        return rc;
    }
    slr_grad c = {.g = g, .n_known = g->n_vals};
    size_t depth = g->n_stack;
    c.need = slr_calloc(g->m, c.n_known, sizeof *c.need);
    c.grad = slr_calloc(g->m, c.n_known, sizeof *c.grad);
    if (c.need && c.grad)
        memset(c.grad, 0xff, c.n_known * sizeof *c.grad); /* SLR_NONE */
    rc = c.need && c.grad ? differentiate(&c, root, wrt, n, grads) : SDLORA_ENOMEM;
    slr_free(g->m, c.need);
    slr_free(g->m, c.grad);
    g->n_stack = depth;
    if (rc < 0) {
        slr_graph_error(g, rc);
        for (size_t i = 0; i < n; i++)
            grads[i] = SLR_NONE;
    }
    return rc;
}
