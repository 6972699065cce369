/* SPDX-License-Identifier: MIT */
/* Memory planning.  Nodes run in the order in which they were built.
 *
 *   1. Live nodes: those behind an output, and those that write their inputs.
 *   2. Aliases: a reshape, a slice that is contiguous, and a column slice that only goes where
 *      strides are honoured are readings of their root's memory and never run.
 *   3. A root lives from the node that makes it to the last node that reads any of its aliases.
 *   4. Buffers: a result takes over the buffer of an input that dies at that node, where the row
 *      allows it; else it gets a new one.
 *   5. Leaves and outputs are kept: they have memory of their own, which callers may replace.  The
 *      other buffers share an arena (pack.c).
 *
 * Two outputs never share a buffer, and no output lies on a leaf: a reshape that would make it so
 * runs, as a copy.  Every operand starts on 64 bytes. */
#include "graph/plan.h"

#include "base/status.h"
#include "graph/pack.h"

typedef struct work {
    const slr_graph *g;
    slr_mem *m;
    slr_layout *out;
    bool strided;
    /* by node */
    bool *live, *alias;
    /* by value */
    bool *output;   /* wanted after a run */
    bool *dense;    /* some reader does not honour strides */
    bool *taken;    /* roots: an output is among the aliases */
    slr_val *root;  /* whose memory it reads; itself when it has its own */
    int32_t *last;  /* roots: last node that reads it */
    uint64_t *base; /* roots: bytes into the buffer */
} work;

static uint64_t bytes_of(const slr_graph *g, slr_val v)
{
    const slr_shape *s = &g->vals[v].shape;
    return (uint64_t)slr_count(s) * slr_dtype_size(s->dtype);
}

static bool is_const(const slr_graph *g, slr_val v)
{
    return g->vals[v].from == SLR_FROM_CONST;
}

/* --- 1. */

static void find_live(work *w)
{
    const slr_graph *g = w->g;
    for (size_t i = 0; i < g->n_outputs; i++) {
        slr_val v = g->outputs[i].val;
        w->output[v] = true;
        w->taken[v] = true;
        if (g->vals[v].node >= 0)
            w->live[g->vals[v].node] = true;
    }
    for (size_t k = g->n_nodes; k-- > 0;) {
        const slr_node *n = &g->nodes[k];
        w->live[k] = w->live[k] || (n->row->flags & SLR_OP_EFFECT);
        for (int i = 0; w->live[k] && i < n->n_in; i++) {
            if (n->in[i] == SLR_NONE)
                continue;
            if (g->vals[n->in[i]].node >= 0)
                w->live[g->vals[n->in[i]].node] = true;
            if (!(n->row->strided >> i & 1))
                w->dense[n->in[i]] = true;
        }
    }
}

/* --- 2. */

/* Where the slice y = x[start : start + length] along `axis` starts, if it is a reading of x. */
static bool slice_reads(const work *w, const slr_node *n, slr_place *to)
{
    const slr_shape *x = &w->g->vals[n->in[0]].shape;
    int64_t axis = n->ints[0], before = 1, inner = 1;
    for (int i = 0; i < x->rank; i++) {
        before *= i < axis ? x->dim[i] : 1;
        inner *= i > axis ? x->dim[i] : 1;
    }
    bool columns = axis == x->rank - 1 && w->strided && !w->dense[n->out] && !w->output[n->out];
    if (is_const(w->g, w->root[n->in[0]]) || (before != 1 && !columns))
        return false;
    to->offset += (uint64_t)(n->ints[1] * inner) * slr_dtype_size(x->dtype);
    to->pitch = before != 1 ? slr_last(x) : 0;
    return to->offset % SLR_BLOCK_ALIGN == 0;
}

/* An output needs a whole buffer that is no leaf's and no other output's. */
static bool may_be_output(const work *w, slr_val y, slr_val root, uint64_t offset)
{
    return w->g->vals[root].node >= 0 && !w->taken[root] && offset == 0 &&
           bytes_of(w->g, root) == bytes_of(w->g, y);
}

static bool try_alias(work *w, const slr_node *n)
{
    if (!(n->row->flags & SLR_OP_ALIAS))
        return false;
    slr_val x = n->in[0], y = n->out, root = w->root[x];
    slr_place to = w->out->place[x];
    if (to.pitch != 0)
        return false;
    if (n->row->op == SDLORA_OP_SLICE && !slice_reads(w, n, &to))
        return false;
    if (w->output[y] && !may_be_output(w, y, root, to.offset))
        return false;
    w->taken[root] = w->taken[root] || w->output[y];
    w->root[y] = root;
    w->out->place[y] = to;
    w->out->n_aliased++;
    return true;
}

/* --- 2. and 3. */

static void find_roots(work *w)
{
    const slr_graph *g = w->g;
    for (size_t v = 0; v < g->n_vals; v++) {
        w->root[v] = (slr_val)v;
        w->last[v] = -1;
        w->out->place[v] =
            (slr_place){.buffer = -1, .constant = is_const(g, (slr_val)v) ? (slr_val)v : SLR_NONE};
    }
    for (size_t k = 0; k < g->n_nodes; k++) {
        const slr_node *n = &g->nodes[k];
        if (!w->live[k])
            continue;
        w->alias[k] = try_alias(w, n);
        if (w->alias[k])
            continue;
        w->out->runs[w->out->n_runs++] = (int32_t)k;
        for (int i = 0; i < n->n_in; i++)
            if (n->in[i] != SLR_NONE)
                w->last[w->root[n->in[i]]] = (int32_t)k;
    }
}

/* --- 4. */

static slr_buffer *buffer_of(const work *w, slr_val v)
{
    int32_t b = w->out->place[w->root[v]].buffer;
    return b < 0 ? NULL : &w->out->buffers[b];
}

static void new_buffer(work *w, slr_val v, int32_t first, bool keep)
{
    uint64_t bytes = bytes_of(w->g, v);
    int32_t last = w->last[v] > first ? w->last[v] : first;
    w->out->place[v].buffer = (int32_t)w->out->n_buffers;
    w->out->buffers[w->out->n_buffers++] =
        (slr_buffer){(bytes + SLR_BLOCK_ALIGN - 1) / SLR_BLOCK_ALIGN * SLR_BLOCK_ALIGN, first, last,
                     keep || w->taken[v], 0};
}

/* Whether element i of v is element i of its whole buffer, whose elements are those of y. */
static bool covers(const work *w, slr_val v, slr_val y)
{
    const slr_place *p = &w->out->place[v];
    const slr_shape *s = &w->g->vals[v].shape, *t = &w->g->vals[y].shape;
    return p->offset == 0 && w->base[w->root[v]] == 0 && p->pitch == 0 && s->dtype == t->dtype &&
           slr_count(s) == slr_count(t) && bytes_of(w->g, w->root[v]) == bytes_of(w->g, y);
}

/* Whether the result of node k may be written over its input i. */
static bool may_overwrite(const work *w, int32_t k, int i)
{
    const slr_node *n = &w->g->nodes[k];
    if (!(n->row->inplace >> i & 1) || n->in[i] == SLR_NONE)
        return false;
    const slr_buffer *b = buffer_of(w, n->in[i]);
    if (!b || b->keep || b->last != k || !covers(w, n->in[i], n->out))
        return false;
    for (int j = 0; j < n->n_in; j++) {
        if (j == i || n->in[j] == SLR_NONE || buffer_of(w, n->in[j]) != b)
            continue;
        if (!(n->row->flags & SLR_OP_POINTWISE) || !covers(w, n->in[j], n->out))
            return false;
    }
    return true;
}

/* Result y of node k goes where the root of x lies. */
static void take_over(work *w, int32_t k, slr_val y, slr_val x)
{
    slr_val root = w->root[x];
    slr_buffer *b = buffer_of(w, x);
    w->out->place[y].buffer = w->out->place[root].buffer;
    w->base[y] = w->base[root] + w->out->place[x].offset; /* aliases count from their root */
    b->last = w->last[y] > k ? w->last[y] : k;
    b->keep = b->keep || w->taken[y];
}

/* By contract, whatever the lifetimes: but then nobody may read the old contents afterwards. */
static int must_overwrite(work *w, int32_t k, int o)
{
    const slr_node *n = &w->g->nodes[k];
    slr_val x = n->in[n->row->over[o] - 1];
    const slr_buffer *b = buffer_of(w, x);
    char label[256], value[384];
    if (b && b->last <= k && w->out->place[x].pitch == 0) {
        take_over(w, k, n->out + o, x);
        return SDLORA_OK;
    }
    return slr_fail(SDLORA_EINVAL, __func__, "%s writes %s, which %s",
                    slr_label(n->name, n->row, label), slr_value_text(w->g, x, value),
                    b ? "is read again later" : "is constant");
}

static int place_results(work *w, int32_t k)
{
    const slr_node *n = &w->g->nodes[k];
    for (int o = 0; o < n->row->n_out; o++) {
        if (n->row->over[o]) {
            SLR_TRY(must_overwrite(w, k, o));
            continue;
        }
        int i = 0;
        while (o == 0 && i < n->n_in && !may_overwrite(w, k, i))
            i++;
        if (o == 0 && i < n->n_in)
            take_over(w, k, n->out, n->in[i]);
        else
            new_buffer(w, n->out + o, k, false);
    }
    return SDLORA_OK;
}

static int make_buffers(work *w)
{
    const slr_graph *g = w->g;
    slr_layout *out = w->out;
    for (size_t v = 0; v < g->n_vals; v++)
        if (g->vals[v].node < 0 && !is_const(g, (slr_val)v))
            new_buffer(w, (slr_val)v, -1, true);
    for (size_t i = 0; i < out->n_runs; i++)
        SLR_TRY(place_results(w, out->runs[i]));
    for (size_t v = 0; v < g->n_vals; v++) { /* aliases follow their roots */
        slr_val root = w->root[v];
        out->place[v].buffer = out->place[root].buffer;
        out->place[v].offset += w->base[root];
    }
    return SDLORA_OK;
}

/* --- 5. */

static int make_arena(work *w)
{
    slr_layout *out = w->out;
    size_t n = 0;
    slr_block *blocks = slr_calloc(w->m, out->n_buffers + 1, sizeof *blocks);
    if (!blocks)
        return SDLORA_ENOMEM;
    for (size_t i = 0; i < out->n_buffers; i++) {
        const slr_buffer *b = &out->buffers[i];
        if (!b->keep)
            blocks[n++] = (slr_block){b->bytes, b->first, b->last, 0};
    }
    int rc = slr_pack(blocks, n, w->m, &out->arena_bytes, &out->bound_bytes);
    for (size_t i = out->n_buffers; i-- > 0 && rc >= 0;)
        if (!out->buffers[i].keep)
            out->buffers[i].offset = blocks[--n].offset;
    slr_free(w->m, blocks);
    return rc;
}

static int work_new(work *w)
{
    size_t nodes = w->g->n_nodes + 1, vals = w->g->n_vals + 1;
    w->live = slr_calloc(w->m, nodes, sizeof *w->live);
    w->alias = slr_calloc(w->m, nodes, sizeof *w->alias);
    w->output = slr_calloc(w->m, vals, sizeof *w->output);
    w->dense = slr_calloc(w->m, vals, sizeof *w->dense);
    w->taken = slr_calloc(w->m, vals, sizeof *w->taken);
    w->root = slr_calloc(w->m, vals, sizeof *w->root);
    w->last = slr_calloc(w->m, vals, sizeof *w->last);
    w->base = slr_calloc(w->m, vals, sizeof *w->base);
    w->out->place = slr_calloc(w->m, vals, sizeof *w->out->place);
    w->out->buffers = slr_calloc(w->m, vals, sizeof *w->out->buffers);
    w->out->runs = slr_calloc(w->m, nodes, sizeof *w->out->runs);
    bool all = w->live && w->alias && w->output && w->dense && w->taken && w->root && w->last &&
               w->base && w->out->place && w->out->buffers && w->out->runs;
    return all ? SDLORA_OK : SDLORA_ENOMEM;
}

static void work_free(work *w)
{
    void *all[] = {w->live, w->alias, w->output, w->dense, w->taken, w->root, w->last, w->base};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        slr_free(w->m, all[i]);
}

int slr_layout_make(slr_layout *out, const slr_graph *g, slr_mem *m, bool strided)
{
    work w = {.g = g, .m = m, .out = out, .strided = strided};
    *out = (slr_layout){0};
    int rc = work_new(&w);
    if (rc >= 0) {
        find_live(&w);
        find_roots(&w);
        rc = make_buffers(&w);
    }
    if (rc >= 0)
        rc = make_arena(&w);
    work_free(&w);
    if (rc < 0)
        slr_layout_free(out, m);
    return rc;
}

void slr_layout_free(slr_layout *l, slr_mem *m)
{
    slr_free(m, l->place);
    slr_free(m, l->buffers);
    slr_free(m, l->runs);
    *l = (slr_layout){0};
}
