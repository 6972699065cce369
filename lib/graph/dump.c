/* SPDX-License-Identifier: MIT */
/* Looks at a graph from outside: counted work and a text dump, one line per leaf, node and output.
 * Refuses to change anything. */
#include "graph/flops.h"

#include "base/str.h"

static const slr_shape *in(const slr_graph *g, const slr_node *n, int i)
{
    return &g->vals[n->in[i]].shape;
}

double slr_flops_matmul(const slr_graph *g, const slr_node *n)
{
    const slr_shape *b = in(g, n, 1);
    double mk = (double)slr_count(in(g, n, 0)), cols = (double)b->dim[n->ints[1] ? 0 : 1];
    return 2 * mk * cols;
}

double slr_flops_bmm(const slr_graph *g, const slr_node *n)
{
    double mk = (double)slr_count(in(g, n, 0));
    return 2 * mk * (double)in(g, n, 1)->dim[n->ints[1] ? 1 : 2];
}

/* Every direction visits the same (output, tap) pairs. */
static double conv_flops(const slr_shape *y, double taps)
{
    return 2 * (double)slr_count(y) * taps;
}

static double taps_of(const slr_shape *w)
{
    return (double)(w->dim[1] * w->dim[2] * w->dim[3]);
}

double slr_flops_conv2d(const slr_graph *g, const slr_node *n)
{
    return conv_flops(&g->vals[n->out].shape, taps_of(in(g, n, 1)));
}

double slr_flops_conv2d_bx(const slr_graph *g, const slr_node *n)
{
    return conv_flops(in(g, n, 0), taps_of(in(g, n, 1)));
}

double slr_flops_conv2d_bw(const slr_graph *g, const slr_node *n)
{
    return conv_flops(in(g, n, 0), taps_of(&g->vals[n->out].shape));
}

/* q k^T and p v. */
double slr_flops_attention(const slr_graph *g, const slr_node *n)
{
    return 4 * (double)slr_count(in(g, n, 0)) * (double)in(g, n, 1)->dim[1];
}

/* q k^T again, dv, dp, dq, dk. */
double slr_flops_attention_b(const slr_graph *g, const slr_node *n)
{
    return 10 * (double)slr_count(in(g, n, 0)) * (double)in(g, n, 2)->dim[1];
}

double slr_node_flops(const slr_graph *g, const slr_node *n)
{
    return n->row->flops ? n->row->flops(g, n) : 0;
}

double slr_graph_flops(const slr_graph *g)
{
    double sum = 0;
    for (size_t i = 0; i < g->n_nodes; i++)
        sum += slr_node_flops(g, &g->nodes[i]);
    return sum;
}

/* "%12 f32[1,77,768]" */
static void put_value(slr_buf *b, const slr_graph *g, slr_val v)
{
    const slr_shape *s = &g->vals[v].shape;
    const slr_dtype_row *type = slr_dtype(s->dtype);
    char shape[96];
    slr_buf_printf(b, "%%%d %s%s", (int)v, type ? type->name : "?",
                   slr_shape_text(s->dim, s->rank, shape));
}

static void put_node(slr_buf *b, const slr_graph *g, const slr_node *n)
{
    for (int o = 0; o < n->row->n_out; o++) {
        if (o)
            slr_buf_puts(b, ", ");
        put_value(b, g, n->out + o);
    }
    slr_buf_printf(b, " = %s", n->row->name);
    for (int i = 0; i < n->n_in; i++) {
        if (n->in[i] == SLR_NONE)
            slr_buf_puts(b, " -");
        else
            slr_buf_printf(b, " %%%d", (int)n->in[i]);
    }
    for (int i = 0; i < n->n_int; i++)
        slr_buf_printf(b, "%s%lld", i ? "," : " {", (long long)n->ints[i]);
    if (n->n_int)
        slr_buf_putc(b, '}');
    for (int i = 0; i < n->n_real; i++) {
        char real[32];
        slr_real_repr(n->reals[i], real);
        slr_buf_printf(b, " %s", real);
    }
    slr_buf_printf(b, "  # %s\n", n->name);
}

char *slr_graph_dump(const slr_graph *g)
{
    static const char *const kinds[] = {
        [SLR_FROM_INPUT] = "input", [SLR_FROM_PARAM] = "param", [SLR_FROM_CONST] = "const"};
    slr_buf b;
    slr_buf_init(&b, g->m);
    slr_buf_puts(&b, ""); /* an empty graph is an empty text, not NULL */
    for (size_t v = 0; v < g->n_vals; v++) {
        if (g->vals[v].node >= 0)
            continue;
        put_value(&b, g, (slr_val)v);
        slr_buf_printf(&b, " = %s %s\n", kinds[g->vals[v].from], g->vals[v].name);
    }
    for (size_t i = 0; i < g->n_nodes; i++)
        put_node(&b, g, &g->nodes[i]);
    for (size_t i = 0; i < g->n_outputs; i++)
        slr_buf_printf(&b, "output %s = %%%d\n", g->outputs[i].name, (int)g->outputs[i].val);
    if (slr_buf_ok(&b) < 0) {
        slr_buf_free(&b);
        return NULL;
    }
    return slr_buf_take(&b);
}
