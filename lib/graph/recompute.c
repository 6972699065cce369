/* SPDX-License-Identifier: MIT */
/* Gradient checkpointing, as a rewrite of a finished backward graph.
 *
 * The backward nodes read results of the forward pass, which are alive from there to here.  A
 * result that is made again just before its first reader needs no memory in between.  Dropout
 * draws by counter, so what is made again is the same to the last bit.
 *
 *   1. Forward nodes belong to segments (slr_graph_segment).  What another segment reads is held,
 *      and so is the last segment, whose gradient follows at once.
 *   2. Walk a segment backwards: a result that is read is either kept, or made again from its
 *      inputs, which are then read as well.  It is kept when its arithmetic per byte is above a
 *      threshold: attention over many tokens costs much and is small, norms are the reverse.
 *   3. The threshold is the highest whose sum of arithmetic stays within what the graph may spend.
 *   4. Copies of the forward nodes are put before their first reader, which reads them instead.
 *
 * Refuses to know operations: costs and aliases come from rows. */
#include "graph/autodiff.h"

#include <string.h>

#include "base/status.h"
#include "graph/flops.h"

/* What moving a byte costs next to an operation on f32 numbers: about 90 GFLOP/s and 11 GB/s. */
#define FLOPS_PER_BYTE 8.0
#define MOST_COST      1e12 /* above what any operation does per byte of result */
#define HALVINGS       60   /* of that, to find the threshold */

enum { OUTSIDE = -1 };

typedef struct work {
    slr_graph *g;
    size_t forward; /* nodes before this one are the forward pass */
    /* by node */
    int32_t *segment;
    double *cost;
    bool *live;  /* backward nodes that lead to a wanted gradient */
    bool *again; /* forward nodes that are made again */
    bool *want;  /* those whose copies come next */
    slr_node *nodes;
    size_t n_nodes;
    /* by value */
    bool *held;     /* read from another segment, or an output */
    bool *read;     /* read by live backward nodes */
    bool *need;     /* read by those or by what is made again */
    slr_val *clone; /* SLR_NONE: not made again yet */
    double spent;
} work;

static double bytes_of(const slr_graph *g, slr_val v)
{
    const slr_shape *s = &g->vals[v].shape;
    return (double)slr_count(s) * (double)slr_dtype_size(s->dtype);
}

static bool is_alias(const slr_node *n)
{
    return n->row->flags & SLR_OP_ALIAS;
}

/* --- 1. */

static void find_segments(work *w)
{
    const slr_graph *g = w->g;
    for (size_t k = 0; k < w->forward; k++)
        w->segment[k] = OUTSIDE;
    for (size_t s = 0; s + 1 < g->n_marks; s++)
        for (int32_t k = g->marks[s]; k < g->marks[s + 1] && (size_t)k < w->forward; k++)
            w->segment[k] = (int32_t)s;
}

static void find_costs(work *w)
{
    const slr_graph *g = w->g;
    for (size_t k = 0; k < w->forward; k++) {
        const slr_node *n = &g->nodes[k];
        double moved = 0;
        for (int i = 0; i < n->n_in; i++)
            moved += n->in[i] == SLR_NONE ? 0 : bytes_of(g, n->in[i]);
        for (int o = 0; o < n->row->n_out; o++)
            moved += bytes_of(g, n->out + o);
        w->cost[k] = slr_node_flops(g, n) + FLOPS_PER_BYTE * moved;
    }
}

static void find_held(work *w)
{
    const slr_graph *g = w->g;
    for (size_t i = 0; i < g->n_outputs; i++)
        w->held[g->outputs[i].val] = true;
    for (size_t k = w->forward; k-- > 0;) {
        const slr_node *n = &g->nodes[k];
        for (int i = 0; i < n->n_in; i++) {
            int32_t maker = n->in[i] == SLR_NONE ? -1 : g->vals[n->in[i]].node;
            if (maker >= 0 &&
                (w->segment[maker] != w->segment[k] || (n->row->flags & SLR_OP_EFFECT)))
                w->held[n->in[i]] = true;
        }
        if (is_alias(n) && w->held[n->out]) /* its memory is its source's */
            w->held[n->in[0]] = true;
    }
}

static void find_live(work *w, const slr_val *grads, size_t n)
{
    const slr_graph *g = w->g;
    for (size_t i = 0; i < n; i++)
        if (grads[i] != SLR_NONE && g->vals[grads[i]].node >= 0)
            w->live[g->vals[grads[i]].node] = true;
    for (size_t k = g->n_nodes; k-- > w->forward;) {
        const slr_node *node = &g->nodes[k];
        for (int i = 0; w->live[k] && i < node->n_in; i++) {
            slr_val v = node->in[i];
            if (v == SLR_NONE || g->vals[v].node < 0)
                continue;
            w->live[g->vals[v].node] = true;
            w->read[v] = (size_t)g->vals[v].node < w->forward;
        }
    }
}

/* --- 2. */

static void need_inputs(work *w, const slr_node *n)
{
    for (int i = 0; i < n->n_in; i++)
        if (n->in[i] != SLR_NONE)
            w->need[n->in[i]] = true;
}

/* Decides on all forward nodes; `spent` is the arithmetic of what is made again. */
static void decide(work *w, double threshold)
{
    const slr_graph *g = w->g;
    memcpy(w->need, w->read, g->n_vals * sizeof *w->need);
    memset(w->again, 0, w->forward * sizeof *w->again);
    w->spent = 0;
    for (size_t k = w->forward; k-- > 0;) {
        const slr_node *n = &g->nodes[k];
        double bytes = 0;
        bool held = w->segment[k] == OUTSIDE || (n->row->flags & SLR_OP_EFFECT);
        for (int o = 0; o < n->row->n_out; o++) {
            bytes += w->need[n->out + o] ? bytes_of(g, n->out + o) : 0;
            held = held || w->held[n->out + o];
        }
        if (bytes == 0)
            continue;
        bool alias = is_alias(n);
        w->again[k] = !alias && !held && w->cost[k] <= threshold * bytes;
        if (w->again[k])
            w->spent += slr_node_flops(g, n);
        if (w->again[k] || alias)
            need_inputs(w, n);
    }
    /* An alias follows its source. */
    for (size_t k = 0; k < w->forward; k++) {
        const slr_node *n = &g->nodes[k];
        int32_t source = is_alias(n) ? g->vals[n->in[0]].node : -1;
        if (source >= 0 && w->need[n->out])
            w->again[k] = w->again[source];
    }
}

/* --- 3. */

static void search(work *w, double budget)
{
    double low = 0, high = MOST_COST;
    decide(w, high);
    for (int i = 0; i < HALVINGS && w->spent > budget; i++) {
        double middle = (low + high) / 2;
        decide(w, middle);
        if (w->spent <= budget)
            low = middle;
        else
            high = middle;
        w->spent = budget + 1;
    }
    decide(w, w->spent > budget ? low : high);
}

/* Bytes of forward results that live on into the backward pass: those in `which`. */
static uint64_t kept_bytes(const work *w, const bool *which, bool *seen)
{
    const slr_graph *g = w->g;
    uint64_t sum = 0;
    memset(seen, 0, g->n_vals * sizeof *seen);
    for (size_t v = 0; v < g->n_vals; v++) {
        slr_val root = (slr_val)v;
        if (!which[v] || g->vals[v].node < 0 || (size_t)g->vals[v].node >= w->forward)
            continue;
        while (g->vals[root].node >= 0 && is_alias(&g->nodes[g->vals[root].node]))
            root = g->nodes[g->vals[root].node].in[0];
        if (seen[root] || g->vals[root].node < 0 || w->again[g->vals[root].node])
            continue;
        seen[root] = true;
        sum += (uint64_t)bytes_of(g, root);
    }
    return sum;
}

/* --- 4. */

static const char *again_name(slr_graph *g, const char *name)
{
    size_t n = strlen(name);
    char *text = slr_arena_alloc(g->arena, n + sizeof "again:", 1);
    if (text) {
        memcpy(text, "again:", 6);
        memcpy(text + 6, name, n + 1);
    }
    return text;
}

static void put_node(work *w, slr_node n)
{
    for (int o = 0; o < n.row->n_out; o++)
        w->g->vals[n.out + o].node = (int32_t)w->n_nodes;
    w->nodes[w->n_nodes++] = n;
}

/* Reads clones where there are some. */
static void redirect(work *w, slr_node *n)
{
    for (int i = 0; i < n->n_in; i++) {
        slr_val v = n->in[i], c = v == SLR_NONE ? SLR_NONE : w->clone[v];
        if (c == SLR_NONE)
            continue;
        w->g->vals[v].uses--;
        w->g->vals[c].uses++;
        n->in[i] = c;
    }
}

static int put_clone(work *w, size_t k)
{
    slr_graph *g = w->g;
    slr_node n = g->nodes[k];
    slr_val *in = slr_arena_alloc(g->arena, (size_t)n.n_in + 1, sizeof *in);
    const char *name = again_name(g, n.name);
    SLR_TRY(
        slr_grow(g->m, &g->vals, &g->cap_vals, g->n_vals + (size_t)n.row->n_out, sizeof *g->vals));
    if (!in || !name)
        return SDLORA_ENOMEM;
    memcpy(in, n.in, (size_t)n.n_in * sizeof *in);
    for (int i = 0; i < n.n_in; i++)
        if (in[i] != SLR_NONE)
            g->vals[in[i]].uses++;
    for (int o = 0; o < n.row->n_out; o++) {
        g->vals[g->n_vals + (size_t)o] = (slr_value){.shape = g->vals[n.out + o].shape};
        w->clone[n.out + o] = (slr_val)g->n_vals + o;
    }
    n.in = in;
    n.name = name;
    n.out = (slr_val)g->n_vals;
    g->n_vals += (size_t)n.row->n_out;
    redirect(w, &n);
    put_node(w, n);
    return SDLORA_OK;
}

/* Whether v is to be read from a copy that is not there yet. */
static bool wants_clone(const work *w, slr_val v)
{
    int32_t maker = v == SLR_NONE ? -1 : w->g->vals[v].node;
    return maker >= 0 && (size_t)maker < w->forward && w->again[maker] && w->clone[v] == SLR_NONE;
}

/* Puts all that v's copy needs, in the order of the forward pass; it ends in v's own segment. */
static int put_clones(work *w, slr_val v)
{
    size_t last = (size_t)w->g->vals[v].node, first = last;
    w->want[last] = true;
    for (size_t k = last + 1; k-- > 0 && w->segment[k] == w->segment[last];) {
        const slr_node *n = &w->g->nodes[k];
        first = k;
        for (int i = 0; w->want[k] && i < n->n_in; i++)
            if (wants_clone(w, n->in[i]))
                w->want[w->g->vals[n->in[i]].node] = true;
    }
    for (size_t k = first; k <= last; k++) {
        if (w->want[k])
            SLR_TRY(put_clone(w, k));
        w->want[k] = false;
    }
    return SDLORA_OK;
}

static int put_all(work *w)
{
    slr_graph *g = w->g;
    for (size_t k = 0; k < g->n_nodes; k++) {
        slr_node n = g->nodes[k];
        for (int i = 0; k >= w->forward && w->live[k] && i < n.n_in; i++)
            if (wants_clone(w, n.in[i]))
                SLR_TRY(put_clones(w, n.in[i]));
        if (k >= w->forward && w->live[k])
            redirect(w, &n);
        put_node(w, n);
    }
    return SDLORA_OK;
}

/* --- */

static int work_new(work *w)
{
    size_t nodes = w->g->n_nodes + 1, vals = w->g->n_vals + 1;
    slr_mem *m = w->g->m;
    w->segment = slr_calloc(m, nodes, sizeof *w->segment);
    w->cost = slr_calloc(m, nodes, sizeof *w->cost);
    w->live = slr_calloc(m, nodes, sizeof *w->live);
    w->again = slr_calloc(m, nodes, sizeof *w->again);
    w->want = slr_calloc(m, nodes, sizeof *w->want);
    w->held = slr_calloc(m, vals, sizeof *w->held);
    w->read = slr_calloc(m, vals, sizeof *w->read);
    w->need = slr_calloc(m, vals, sizeof *w->need);
    w->clone = slr_calloc(m, vals, sizeof *w->clone);
    w->nodes = slr_calloc(m, nodes + w->forward, sizeof *w->nodes);
    if (!w->segment || !w->cost || !w->live || !w->again || !w->want || !w->held || !w->read ||
        !w->need || !w->clone || !w->nodes)
        return SDLORA_ENOMEM;
    memset(w->clone, 0xff, vals * sizeof *w->clone); /* SLR_NONE */
    return SDLORA_OK;
}

static void work_free(work *w)
{
    void *all[] = {w->segment, w->cost, w->live, w->again, w->want,
                   w->held,    w->read, w->need, w->clone, w->nodes};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        slr_free(w->g->m, all[i]);
}

/* Puts the new order of nodes into the graph. */
static void take_nodes(work *w)
{
    slr_graph *g = w->g;
    slr_node *old = g->nodes;
    g->cap_nodes = g->n_nodes + 1 + w->forward;
    g->nodes = w->nodes;
    g->n_nodes = w->n_nodes;
    w->nodes = old;
}

static int rewrite(work *w, const slr_val *grads, size_t n)
{
    slr_graph *g = w->g;
    slr_recompute_cost *cost = &g->recomputed;
    find_segments(w);
    find_costs(w);
    find_held(w);
    find_live(w, grads, n);
    *cost = (slr_recompute_cost){.flops = 0};
    for (size_t k = 0; k < g->n_nodes; k++)
        cost->flops += k < w->forward || w->live[k] ? slr_node_flops(g, &g->nodes[k]) : 0;
    cost->bytes_without = kept_bytes(w, w->read, w->need);
    search(w, g->spend * cost->flops);
    cost->flops_again = w->spent;
    bool *seen = slr_calloc(g->m, g->n_vals + 1, sizeof *seen);
    if (!seen)
        return SDLORA_ENOMEM;
    cost->bytes_with = kept_bytes(w, w->need, seen);
    slr_free(g->m, seen);
    int rc = put_all(w);
    take_nodes(w);
    return rc;
}

int slr_recompute(slr_graph *g, size_t n_forward, const slr_val *grads, size_t n)
{
    work w = {.g = g, .forward = n_forward};
    if (g->spend <= 0 || g->n_marks == 0)
        return SDLORA_OK;
    int rc = work_new(&w);
    if (rc >= 0)
        rc = rewrite(&w, grads, n);
    work_free(&w);
    return rc;
}
