/* SPDX-License-Identifier: MIT */
/* The builder: leaves, nodes, names, outputs, the first error.  A call costs the same however big
 * the graph is.  What would do nothing (a slice of everything, a reshape of a reshape) is not
 * built.  Refuses to know what any operation is: all of that hangs off its row. */
#include "graph/graph.h"

#include <stdio.h>
#include <string.h>

#include "base/status.h"
#include "base/str.h"
#include "graph/infer.h"

int slr_graph_new(slr_graph **out, slr_mem *m, slr_policy policy)
{
    *out = NULL;
    slr_graph *g = slr_calloc(m, 1, sizeof *g);
    if (!g)
        return SDLORA_ENOMEM;
    g->m = m ? slr_mem_ref(m) : NULL;
    g->policy = policy;
    if (g->policy.storage == 0)
        g->policy.storage = SDLORA_F32;
    int rc = slr_arena_new(&g->arena, m);
    if (rc >= 0)
        rc = slr_map_new(&g->leaves, m);
    if (rc >= 0)
        rc = slr_map_new(&g->wanted, m);
    if (rc >= 0 && g->policy.storage != SDLORA_F32 && g->policy.storage != SDLORA_BF16)
        rc = slr_fail(SDLORA_ENOTSUP, __func__, "activations can be stored as f32 or bf16 only");
    if (rc < 0) {
        slr_graph_free(g);
        return rc;
    }
    *out = g;
    return SDLORA_OK;
}

void slr_graph_free(slr_graph *g)
{
    if (!g)
        return;
    slr_mem *m = g->m;
    slr_map_free(g->leaves);
    slr_map_free(g->wanted);
    slr_free(m, g->nodes);
    slr_free(m, g->vals);
    slr_free(m, g->outputs);
    slr_free(m, g->marks);
    slr_free(m, (void *)g->stack);
    slr_arena_free(g->arena);
    slr_free(m, g);
    slr_mem_unref(m);
}

uint32_t slr_graph_storage(slr_graph *g, uint32_t storage)
{
    uint32_t was = g->policy.storage;
    g->policy.storage = storage;
    return was;
}

uint32_t slr_graph_stored(const slr_graph *g)
{
    return g->policy.storage;
}

int slr_graph_status(const slr_graph *g)
{
    return g->status;
}

slr_mem *slr_graph_mem(const slr_graph *g)
{
    return g->m;
}

slr_val slr_graph_error(slr_graph *g, int code)
{
    if (g->status >= 0 && code < 0)
        g->status = code;
    return SLR_NONE;
}

/* --- names */

static const char *prefix(const slr_graph *g)
{
    return g->n_stack ? g->stack[g->n_stack - 1] : "";
}

/* "prefix.name" in the arena; NULL: out of memory. */
static char *full_name(slr_graph *g, const char *name)
{
    const char *p = prefix(g);
    size_t n = strlen(p), k = strlen(name), dot = n && k;
    char *text = slr_arena_alloc(g->arena, n + dot + k + 1, 1);
    if (!text)
        return NULL;
    memcpy(text, p, n);
    if (dot)
        text[n] = '.';
    memcpy(text + n + dot, name, k + 1);
    return text;
}

static void push_text(slr_graph *g, const char *text)
{
    int rc = text ? slr_grow(g->m, &g->stack, &g->cap_stack, g->n_stack + 1, sizeof *g->stack)
                  : SDLORA_ENOMEM;
    if (rc < 0)
        slr_graph_error(g, rc);
    else
        g->stack[g->n_stack++] = text;
}

void slr_graph_push(slr_graph *g, const char *name)
{
    if (g->status >= 0)
        push_text(g, full_name(g, name));
}

void slr_graph_push_grad(slr_graph *g, const char *name)
{
    if (g->status < 0)
        return;
    if (name != g->grad_of || !g->grad_name) { /* nodes of one layer follow each other */
        char *text = slr_arena_alloc(g->arena, strlen(name) + 6, 1);
        if (text) {
            memcpy(text, "grad:", 5);
            memcpy(text + 5, name, strlen(name) + 1);
        }
        g->grad_of = name;
        g->grad_name = text;
    }
    push_text(g, g->grad_name);
}

void slr_graph_pop(slr_graph *g)
{
    if (g->n_stack)
        g->n_stack--;
}

const char *slr_label(const char *name, const slr_op_row *row, char out[256])
{
    snprintf(out, 256, "%s%s%s", name, *name ? ": " : "", row->name);
    return out;
}

const char *slr_value_text(const slr_graph *g, slr_val v, char out[384])
{
    static const char *const kinds[] = {
        [SLR_FROM_INPUT] = "input", [SLR_FROM_PARAM] = "parameter", [SLR_FROM_CONST] = "constant"};
    const slr_value *x = &g->vals[v];
    char shape[96], label[256];
    slr_shape_text(x->shape.dim, x->shape.rank, shape);
    if (x->node < 0)
        snprintf(out, 384, "%s %.250s %s", kinds[x->from], x->name, shape);
    else
        snprintf(out, 384, "value %s of %s", shape,
                 slr_label(g->nodes[x->node].name, g->nodes[x->node].row, label));
    return out;
}

/* --- values */

static slr_val add_value(slr_graph *g, slr_value value)
{
    int rc = g->n_vals < INT32_MAX
                 ? slr_grow(g->m, &g->vals, &g->cap_vals, g->n_vals + 1, sizeof *g->vals)
                 : slr_fail(SDLORA_ENOTSUP, __func__, "a graph has too many values");
    if (rc < 0)
        return slr_graph_error(g, rc);
    g->vals[g->n_vals] = value;
    return (slr_val)g->n_vals++;
}

static int check_leaf(const slr_value *leaf)
{
    char text[96];
    int64_t n = 8;
    if (leaf->shape.rank < 0 || leaf->shape.rank > SLR_MAX_RANK)
        return slr_fail(SDLORA_EINVAL, __func__, "%s has %d axes; %d are the most", leaf->name,
                        leaf->shape.rank, SLR_MAX_RANK);
    if (!slr_dtype(leaf->shape.dtype))
        return slr_fail(SDLORA_EINVAL, __func__, "%s has the unknown type %u", leaf->name,
                        leaf->shape.dtype);
    for (int i = 0; i < leaf->shape.rank; i++)
        if (leaf->shape.dim[i] < 1 || __builtin_mul_overflow(n, leaf->shape.dim[i], &n))
            return slr_fail(SDLORA_EINVAL, __func__, "%s cannot be %s", leaf->name,
                            slr_shape_text(leaf->shape.dim, leaf->shape.rank, text));
    return SDLORA_OK;
}

static slr_val add_leaf(slr_graph *g, slr_value leaf)
{
    int rc = check_leaf(&leaf);
    if (rc < 0)
        return slr_graph_error(g, rc);
    leaf.node = -1;
    slr_val v = add_value(g, leaf);
    if (v == SLR_NONE)
        return v;
    rc = slr_map_set(g->leaves, leaf.name, v);
    return rc < 0 ? slr_graph_error(g, rc) : v;
}

static slr_shape shape_of(uint32_t dtype, int rank, const int64_t *dim)
{
    slr_shape s = {.dtype = dtype, .rank = rank};
    for (int i = 0; i < rank && i < SLR_MAX_RANK; i++)
        s.dim[i] = dim[i];
    return s;
}

static slr_val named_leaf(slr_graph *g, const char *name, int from, slr_shape shape)
{
    if (g->status < 0)
        return SLR_NONE;
    /* Parameters are found again by whoever owns their memory: their names do not nest. */
    bool nests = from != SLR_FROM_PARAM;
    const char *full = nests ? full_name(g, name) : slr_arena_strdup(g->arena, name);
    if (!full)
        return slr_graph_error(g, SDLORA_ENOMEM);
    if (slr_graph_find(g, full) != SLR_NONE)
        return slr_graph_error(
            g, slr_fail(SDLORA_EINVAL, __func__, "the graph has two leaves called %s", full));
    return add_leaf(g, (slr_value){.shape = shape, .from = from, .name = full});
}

slr_val slr_input(slr_graph *g, const char *name, uint32_t dtype, int rank, const int64_t *dim)
{
    return named_leaf(g, name, SLR_FROM_INPUT, shape_of(dtype, rank, dim));
}

slr_val slr_param(slr_graph *g, const char *name, int rank, const int64_t *dim)
{
    return named_leaf(g, name, SLR_FROM_PARAM, shape_of(SDLORA_F32, rank, dim));
}

/* The same contents under the same name again are the same value: layers may be built twice. */
slr_val slr_const(slr_graph *g, const char *name, const slr_tensor *t)
{
    if (g->status < 0)
        return SLR_NONE;
    char *full = full_name(g, name);
    slr_tensor *copy = full ? slr_arena_alloc(g->arena, 1, sizeof *copy) : NULL;
    if (!copy)
        return slr_graph_error(g, SDLORA_ENOMEM);
    *copy = *t;
    slr_val old = slr_graph_find(g, full);
    if (old != SLR_NONE) {
        const slr_tensor *had = g->vals[old].tensor;
        if (had && t->id && had->id == t->id)
            return old;
        return slr_graph_error(
            g, slr_fail(SDLORA_EINVAL, __func__, "the graph has two leaves called %s", full));
    }
    if (!copy->data)
        return slr_graph_error(
            g, slr_fail(SDLORA_EINVAL, __func__, "the constant %s has no contents", full));
    if (copy->id == 0)
        copy->id = slr_tensor_next_id();
    return add_leaf(g, (slr_value){.shape = shape_of(t->dtype, t->rank, t->dim),
                                   .from = SLR_FROM_CONST,
                                   .name = full,
                                   .tensor = copy});
}

slr_shape slr_shape_of(const slr_graph *g, slr_val v)
{
    if (v < 0 || (size_t)v >= g->n_vals)
        return (slr_shape){0};
    return g->vals[v].shape;
}

int64_t slr_dim(const slr_graph *g, slr_val v, int axis)
{
    slr_shape s = slr_shape_of(g, v);
    if (axis < 0)
        axis += s.rank;
    return axis >= 0 && axis < s.rank ? s.dim[axis] : 0;
}

slr_val slr_graph_find(const slr_graph *g, const char *name)
{
    int64_t v;
    return slr_map_get(g->leaves, name, &v) ? (slr_val)v : SLR_NONE;
}

/* --- nodes */

/* Copies n items into the arena; NULL with n > 0: out of memory. */
static void *keep(slr_graph *g, const void *items, int n, size_t size)
{
    void *p = n ? slr_arena_alloc(g->arena, (size_t)n, size) : NULL;
    if (p)
        memcpy(p, items, (size_t)n * size);
    return p;
}

/* Makes the node that c describes and the values of its results; returns the first. */
static slr_val append(slr_graph *g, const slr_infer *c)
{
    const slr_op_row *row = c->row;
    /* Inputs at the end that were left out become absent ones. */
    int n_in = row->max_in == SLR_ANY ? c->n_in : row->max_in;
    slr_node n = {
        .row = row, .name = c->name, .n_in = n_in, .n_int = c->n_int, .n_real = c->n_real};
    n.in = n_in ? slr_arena_alloc(g->arena, (size_t)n_in, sizeof *n.in) : NULL;
    n.ints = keep(g, c->ints, c->n_int, sizeof *c->ints);
    n.reals = keep(g, c->reals, c->n_real, sizeof *c->reals);
    if ((n_in && !n.in) || (c->n_int && !n.ints) || (c->n_real && !n.reals) ||
        slr_grow(g->m, &g->nodes, &g->cap_nodes, g->n_nodes + 1, sizeof *g->nodes) < 0)
        return slr_graph_error(g, SDLORA_ENOMEM);
    for (int i = 0; i < n_in; i++)
        n.in[i] = i < c->n_in ? c->in[i] : SLR_NONE;
    n.out = (slr_val)g->n_vals;
    for (int o = 0; o < row->n_out; o++)
        if (add_value(g, (slr_value){.shape = c->out[o], .node = (int32_t)g->n_nodes}) == SLR_NONE)
            return SLR_NONE;
    for (int i = 0; i < n_in; i++)
        if (n.in[i] != SLR_NONE)
            g->vals[n.in[i]].uses++;
    g->nodes[g->n_nodes++] = n;
    return n.out;
}

/* A value that already is what the node would make, or SLR_NONE. */
static slr_val already(const slr_infer *c)
{
    if (c->row->flags & SLR_OP_SAME) {
        const slr_shape *x = slr_infer_in(c, 0);
        if (x->dtype == c->out[0].dtype && slr_same_dims(x, &c->out[0]))
            return c->in[0];
    }
    return c->row->same ? c->row->same(c) : SLR_NONE;
}

slr_val slr_op_typed(slr_graph *g, uint32_t op, uint32_t dtype, int n_in, const slr_val *in,
                     int n_int, const int64_t *ints, int n_real, const double *reals, slr_val *outs)
{
    const slr_op_row *row = slr_op_find(op);
    for (int o = 0; outs && row && o < row->n_out; o++)
        outs[o] = SLR_NONE;
    if (g->status < 0)
        return SLR_NONE;
    if (!row)
        return slr_graph_error(g,
                               slr_fail(SDLORA_EINVAL, __func__, "there is no operation %u", op));
    slr_infer c = {.g = g,
                   .row = row,
                   .name = prefix(g),
                   .n_in = n_in,
                   .n_int = n_int,
                   .n_real = n_real,
                   .in = in,
                   .ints = ints,
                   .reals = reals};
    int rc = slr_infer_run(&c);
    if (rc < 0)
        return slr_graph_error(g, rc);
    if (dtype)
        c.out[0].dtype = dtype;
    slr_val v = already(&c);
    if (v == SLR_NONE) {
        slr_val behind;
        const slr_value *x = n_in ? &g->vals[in[0]] : NULL;
        if ((row->flags & SLR_OP_NESTS) && x->node >= 0 && g->nodes[x->node].row == row) {
            behind = g->nodes[x->node].in[0]; /* op(op(x)) is op(x) */
            if (g->vals[behind].shape.dtype == x->shape.dtype)
                return slr_op_typed(g, op, dtype, 1, &behind, n_int, ints, n_real, reals, outs);
        }
        v = append(g, &c);
    }
    for (int o = 0; outs && v != SLR_NONE && o < row->n_out; o++)
        outs[o] = v + o;
    return v;
}

slr_val slr_op(slr_graph *g, uint32_t op, int n_in, const slr_val *in, int n_int,
               const int64_t *ints, int n_real, const double *reals, slr_val *outs)
{
    return slr_op_typed(g, op, 0, n_in, in, n_int, ints, n_real, reals, outs);
}

slr_val slr_twin(slr_graph *g, slr_val v)
{
    if (g->status < 0 || v == SLR_NONE)
        return SLR_NONE;
    slr_shape s = g->vals[v].shape;
    slr_infer c = {.g = g,
                   .row = slr_op_find(SDLORA_OP_RESHAPE),
                   .name = prefix(g),
                   .n_in = 1,
                   .n_int = s.rank,
                   .in = &v,
                   .ints = s.dim,
                   .out = {s}};
    return append(g, &c);
}

/* --- segments */

void slr_graph_segment(slr_graph *g)
{
    if (g->status < 0)
        return;
    int rc = slr_grow(g->m, &g->marks, &g->cap_marks, g->n_marks + 1, sizeof *g->marks);
    if (rc < 0)
        slr_graph_error(g, rc);
    else
        g->marks[g->n_marks++] = (int32_t)g->n_nodes;
}

void slr_graph_checkpoint(slr_graph *g, double share)
{
    g->spend = share;
}

slr_recompute_cost slr_graph_recomputed(const slr_graph *g)
{
    return g->recomputed;
}

/* --- outputs */

static int add_output(slr_graph *g, slr_val v, const char *name)
{
    const char *full = full_name(g, name);
    int64_t other;
    if (!full)
        return SDLORA_ENOMEM;
    if (v < 0 || (size_t)v >= g->n_vals)
        return slr_fail(SDLORA_EINVAL, __func__, "the output %s has no value", full);
    if (slr_map_get(g->wanted, full, &other))
        return slr_fail(SDLORA_EINVAL, __func__, "the graph has two outputs called %s", full);
    if (slr_map_get(g->leaves, full, &other))
        return slr_fail(SDLORA_EINVAL, __func__, "the output %s is called like a leaf", full);
    /* A leaf has memory of its own already; what is to be written needs another place. */
    if (g->vals[v].node < 0)
        v = slr_twin(g, v);
    SLR_TRY(g->status);
    SLR_TRY(slr_map_set(g->wanted, full, v));
    SLR_TRY(slr_grow(g->m, &g->outputs, &g->cap_outputs, g->n_outputs + 1, sizeof *g->outputs));
    g->outputs[g->n_outputs++] = (slr_named){full, v};
    return SDLORA_OK;
}

void slr_output(slr_graph *g, slr_val v, const char *name)
{
    if (g->status >= 0)
        slr_graph_error(g, add_output(g, v, name));
}
