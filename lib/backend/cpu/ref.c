/* SPDX-License-Identifier: MIT */
/* The reference of the operations that mix channels: products, convolutions, norms, attention.
 * Written for reading, one loop per axis; refuses to know speed, threads and storage types. */
#include "backend/cpu/ref.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

/* --- products */

static void gemm(int64_t m, int64_t n, int64_t k, const double *a, bool ta, const double *b,
                 bool tb, double alpha, double *c)
{
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++) {
            double sum = 0;
            for (int64_t l = 0; l < k; l++)
                sum += (ta ? a[l * m + i] : a[i * k + l]) * (tb ? b[j * k + l] : b[l * n + j]);
            c[i * n + j] = alpha * sum;
        }
}

static void matmul(const slr_ref_call *c)
{
    const sdlora_opdesc *op = c->op;
    bool ta = op->ints[0], tb = op->ints[1];
    int64_t n = slr_ref_last(&op->out[0]), m = slr_ref_count(&op->out[0]) / n;
    int64_t k = slr_ref_count(&op->in[0]) / m;
    double *y = c->out[0];
    gemm(m, n, k, c->in[0], ta, c->in[1], tb, op->reals[0], y);
    for (int64_t i = 0; i < m * n; i++) {
        if (op->n_in > 2 && c->in[2])
            y[i] += c->in[2][i % n];
        if (op->n_in > 3 && c->in[3])
            y[i] += c->in[3][i];
    }
}

static void bmm(const slr_ref_call *c)
{
    const int64_t *y = c->op->out[0].dim;
    int64_t batch = y[0], m = y[1], n = y[2], k = slr_ref_count(&c->op->in[0]) / (batch * m);
    for (int64_t i = 0; i < batch; i++)
        gemm(m, n, k, c->in[0] + i * m * k, c->op->ints[0], c->in[1] + i * k * n, c->op->ints[1],
             c->op->reals[0], c->out[0] + i * m * n);
}

enum { MAX_INVERSE = 1024 };

/* Gauss and Jordan's in place: row k of y is divided by its pivot, whose place takes 1 / pivot, and
 * taken from the other rows.  The largest of a column comes first; the exchanges of rows are
 * exchanges of the inverse's columns, undone in the opposite order. */
static void invert(int64_t n, double *y)
{
    int64_t from[MAX_INVERSE];
    for (int64_t k = 0; k < n; k++) {
        from[k] = k;
        for (int64_t i = k; i < n; i++)
            from[k] = fabs(y[i * n + k]) > fabs(y[from[k] * n + k]) ? i : from[k];
        for (int64_t j = 0; j < n; j++) {
            double keep = y[from[k] * n + j];
            y[from[k] * n + j] = y[k * n + j];
            y[k * n + j] = keep;
        }
        double pivot = y[k * n + k];
        y[k * n + k] = 1;
        for (int64_t j = 0; j < n; j++)
            y[k * n + j] /= pivot;
        for (int64_t i = 0; i < n; i++) {
            double by = y[i * n + k];
            if (i != k)
                y[i * n + k] = 0;
            for (int64_t j = 0; i != k && j < n; j++)
                y[i * n + j] -= by * y[k * n + j];
        }
    }
    for (int64_t k = n; k-- > 0;)
        for (int64_t i = 0; i < n; i++) {
            double keep = y[i * n + from[k]];
            y[i * n + from[k]] = y[i * n + k];
            y[i * n + k] = keep;
        }
}

static void inverse(const slr_ref_call *c)
{
    int64_t n = c->op->in[0].dim[2];
    for (int64_t i = 0; i < c->op->in[0].dim[0]; i++) {
        double *y = c->out[0] + i * n * n;
        for (int64_t k = 0; k < n * n; k++)
            y[k] = n > MAX_INVERSE ? NAN : c->in[0][i * n * n + k];
        if (n <= MAX_INVERSE)
            invert(n, y);
    }
}

/* --- convolution: all three directions visit the same (output, tap) pairs */

typedef struct conv_shape {
    int64_t n, h, w, c, k, r, s, oh, ow, groups, stride_h, stride_w, pad_top, pad_left;
} conv_shape;

static conv_shape conv_of(const int64_t *ints, const int64_t *x, const int64_t *wk,
                          const int64_t *y)
{
    return (conv_shape){.n = x[0],
                        .h = x[1],
                        .w = x[2],
                        .c = x[3],
                        .k = wk[0],
                        .r = wk[2],
                        .s = wk[3],
                        .oh = y[1],
                        .ow = y[2],
                        .groups = ints[6],
                        .stride_h = ints[0],
                        .stride_w = ints[1],
                        .pad_top = ints[2],
                        .pad_left = ints[3]};
}

/* Calls visit for each product x[xi] w[wi] that goes into y[yi]. */
static void conv_visit(const conv_shape *v,
                       void (*visit)(void *arg, int64_t xi, int64_t wi, int64_t yi), void *arg)
{
    int64_t cg = v->c / v->groups, kg = v->k / v->groups;
    for (int64_t o = 0; o < v->n * v->oh * v->ow * v->k; o++) {
        int64_t k = o % v->k, ow = o / v->k % v->ow, oh = o / v->k / v->ow % v->oh;
        int64_t n = o / v->k / v->ow / v->oh;
        for (int64_t c = 0; c < cg; c++)
            for (int64_t r = 0; r < v->r; r++)
                for (int64_t s = 0; s < v->s; s++) {
                    int64_t h = oh * v->stride_h - v->pad_top + r;
                    int64_t w = ow * v->stride_w - v->pad_left + s;
                    if (h < 0 || h >= v->h || w < 0 || w >= v->w)
                        continue;
                    visit(arg, ((n * v->h + h) * v->w + w) * v->c + k / kg * cg + c,
                          ((k * cg + c) * v->r + r) * v->s + s, o);
                }
    }
}

typedef struct conv_data {
    const double *x, *w, *dy;
    double *to;
} conv_data;

static void visit_y(void *arg, int64_t xi, int64_t wi, int64_t yi)
{
    const conv_data *d = arg;
    d->to[yi] += d->x[xi] * d->w[wi];
}

static void visit_dx(void *arg, int64_t xi, int64_t wi, int64_t yi)
{
    const conv_data *d = arg;
    d->to[xi] += d->dy[yi] * d->w[wi];
}

static void visit_dw(void *arg, int64_t xi, int64_t wi, int64_t yi)
{
    const conv_data *d = arg;
    d->to[wi] += d->dy[yi] * d->x[xi];
}

static void conv_run(const slr_ref_call *c, conv_shape v, conv_data d,
                     void (*visit)(void *, int64_t, int64_t, int64_t))
{
    int64_t n = slr_ref_count(&c->op->out[0]);
    memset(d.to, 0, (size_t)n * sizeof *d.to);
    conv_visit(&v, visit, &d);
    for (int64_t i = 0; i < n; i++)
        d.to[i] *= c->op->reals[0];
}

static void conv2d(const slr_ref_call *c)
{
    const sdlora_opdesc *op = c->op;
    conv_shape v = conv_of(op->ints, op->in[0].dim, op->in[1].dim, op->out[0].dim);
    double *y = c->out[0];
    conv_run(c, v, (conv_data){.x = c->in[0], .w = c->in[1], .to = y}, visit_y);
    for (int64_t i = 0; i < slr_ref_count(&op->out[0]); i++) {
        if (op->n_in > 2 && c->in[2])
            y[i] += c->in[2][i % v.k];
        if (op->n_in > 3 && c->in[3])
            y[i] += c->in[3][i];
    }
}

static void conv2d_bx(const slr_ref_call *c)
{
    const sdlora_opdesc *op = c->op;
    conv_shape v = conv_of(op->ints, op->out[0].dim, op->in[1].dim, op->in[0].dim);
    conv_run(c, v, (conv_data){.dy = c->in[0], .w = c->in[1], .to = c->out[0]}, visit_dx);
}

static void conv2d_bw(const slr_ref_call *c)
{
    const sdlora_opdesc *op = c->op;
    conv_shape v = conv_of(op->ints, op->in[1].dim, op->out[0].dim, op->in[0].dim);
    conv_run(c, v, (conv_data){.dy = c->in[0], .x = c->in[1], .to = c->out[0]}, visit_dw);
}

/* --- norms.  A set is the elements that share a mean; `at` gives the index of its i-th element. */

typedef struct norm_shape {
    int64_t n_sets, n, rows, c, groups; /* n elements per set; rows of c channels per image */
} norm_shape;

static norm_shape group_shape(const sdlora_opdesc *op, const sdlora_tdesc *x)
{
    int64_t c = slr_ref_last(x), groups = op->ints[0], rows = slr_ref_count(x) / c / x->dim[0];
    return (norm_shape){x->dim[0] * groups, rows * (c / groups), rows, c, groups};
}

static norm_shape layer_shape(const sdlora_tdesc *x)
{
    int64_t c = slr_ref_last(x);
    return (norm_shape){slr_ref_count(x) / c, c, 1, c, 1};
}

static int64_t norm_at(const norm_shape *s, int64_t set, int64_t i)
{
    int64_t cg = s->c / s->groups, image = set / s->groups, group = set % s->groups;
    return (image * s->rows + i / cg) * s->c + group * cg + i % cg;
}

static void norm_forward(const norm_shape *s, const double *x, const double *g, const double *b,
                         int64_t act, double eps, double *const *out)
{
    for (int64_t set = 0; set < s->n_sets; set++) {
        double mean = 0, var = 0;
        for (int64_t i = 0; i < s->n; i++)
            mean += x[norm_at(s, set, i)] / (double)s->n;
        for (int64_t i = 0; i < s->n; i++)
            var += pow(x[norm_at(s, set, i)] - mean, 2) / (double)s->n;
        double rstd = 1 / sqrt(var + eps);
        for (int64_t i = 0; i < s->n; i++) {
            int64_t at = norm_at(s, set, i), ch = at % s->c;
            double z = (x[at] - mean) * rstd * (g ? g[ch] : 1) + (b ? b[ch] : 0);
            out[0][at] = slr_ref_act(act, z);
        }
        out[1][set] = mean;
        out[2][set] = rstd;
    }
}

/* With u = (x - mean) rstd and du = dL/du: dx = rstd (du - mean(du) - u mean(du u)) + add. */
static void norm_backward(const norm_shape *s, const double *dy, const double *x, const double *g,
                          const double *b, const double *mean, const double *rstd,
                          const double *add, int64_t act, double *dx)
{
    for (int64_t set = 0; set < s->n_sets; set++) {
        double m1 = 0, m2 = 0;
        for (int pass = 0; pass < 2; pass++)
            for (int64_t i = 0; i < s->n; i++) {
                int64_t at = norm_at(s, set, i), ch = at % s->c;
                double u = (x[at] - mean[set]) * rstd[set], gain = g ? g[ch] : 1;
                double z = u * gain + (b ? b[ch] : 0);
                double du = dy[at] * slr_ref_act_slope(act, z) * gain;
                if (pass == 1)
                    dx[at] = rstd[set] * (du - m1 - u * m2) + (add ? add[at] : 0);
                else {
                    m1 += du / (double)s->n;
                    m2 += du * u / (double)s->n;
                }
            }
    }
}

/* dg = sum of dz u, db = sum of dz, with z = u g + b and dz = dL/dz. */
static void norm_params(const norm_shape *s, const double *dy, const double *x, const double *g,
                        const double *b, const double *mean, const double *rstd, int64_t act,
                        double *dg, double *db)
{
    memset(dg, 0, (size_t)s->c * sizeof *dg);
    memset(db, 0, (size_t)s->c * sizeof *db);
    for (int64_t set = 0; set < s->n_sets; set++)
        for (int64_t i = 0; i < s->n; i++) {
            int64_t at = norm_at(s, set, i), ch = at % s->c;
            double u = (x[at] - mean[set]) * rstd[set];
            double z = u * (g ? g[ch] : 1) + (b ? b[ch] : 0);
            double dz = dy[at] * slr_ref_act_slope(act, z);
            dg[ch] += dz * u;
            db[ch] += dz;
        }
}

static void group_norm_bw(const slr_ref_call *c)
{
    norm_shape s = group_shape(c->op, &c->op->in[1]);
    norm_params(&s, c->in[0], c->in[1], c->in[2], c->in[3], c->in[4], c->in[5], c->op->ints[1],
                c->out[0], c->out[1]);
}

static void layer_norm_bw(const slr_ref_call *c)
{
    norm_shape s = layer_shape(&c->op->in[1]);
    norm_params(&s, c->in[0], c->in[1], NULL, NULL, c->in[2], c->in[3], SDLORA_ACT_NONE, c->out[0],
                c->out[1]);
}

static void group_norm(const slr_ref_call *c)
{
    norm_shape s = group_shape(c->op, &c->op->in[0]);
    norm_forward(&s, c->in[0], c->in[1], c->in[2], c->op->ints[1], c->op->reals[0], c->out);
}

static void group_norm_bx(const slr_ref_call *c)
{
    norm_shape s = group_shape(c->op, &c->op->in[1]);
    norm_backward(&s, c->in[0], c->in[1], c->in[2], c->in[3], c->in[4], c->in[5],
                  c->op->n_in > 6 ? c->in[6] : NULL, c->op->ints[1], c->out[0]);
}

static void layer_norm(const slr_ref_call *c)
{
    norm_shape s = layer_shape(&c->op->in[0]);
    norm_forward(&s, c->in[0], c->in[1], c->in[2], SDLORA_ACT_NONE, c->op->reals[0], c->out);
}

static void layer_norm_bx(const slr_ref_call *c)
{
    norm_shape s = layer_shape(&c->op->in[1]);
    norm_backward(&s, c->in[0], c->in[1], c->in[2], NULL, c->in[3], c->in[4],
                  c->op->n_in > 5 ? c->in[5] : NULL, SDLORA_ACT_NONE, c->out[0]);
}

/* --- attention, one (image, head, query) at a time */

typedef struct attn_shape {
    int64_t n, tq, tk, h, d;
    bool causal;
    double scale;
} attn_shape;

static attn_shape attn_of(const sdlora_opdesc *op, const sdlora_tdesc *q, const sdlora_tdesc *k)
{
    int64_t h = op->ints[0];
    return (attn_shape){q->dim[0],     q->dim[1],   k->dim[1],   h,
                        q->dim[2] / h, op->ints[1], op->reals[0]};
}

static int64_t attn_keys(const attn_shape *s, int64_t i)
{
    return s->causal && i + 1 < s->tk ? i + 1 : s->tk;
}

static double dot(const double *a, const double *b, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += a[i] * b[i];
    return sum;
}

static void attention(const slr_ref_call *c)
{
    attn_shape s = attn_of(c->op, &c->op->in[0], &c->op->in[1]);
    int64_t hd = s.h * s.d;
    for (int64_t e = 0; e < s.n * s.h * s.tq; e++) {
        int64_t n = e / s.tq / s.h, h = e / s.tq % s.h, i = e % s.tq, keys = attn_keys(&s, i);
        const double *q = c->in[0] + (n * s.tq + i) * hd + h * s.d;
        const double *k = c->in[1] + n * s.tk * hd + h * s.d;
        const double *v = c->in[2] + n * s.tk * hd + h * s.d;
        double *o = c->out[0] + (n * s.tq + i) * hd + h * s.d;
        double top = -INFINITY, sum = 0;
        for (int64_t j = 0; j < keys; j++)
            top = fmax(top, s.scale * dot(q, k + j * hd, s.d));
        for (int64_t j = 0; j < keys; j++)
            sum += exp(s.scale * dot(q, k + j * hd, s.d) - top);
        double lse = top + log(sum);
        memset(o, 0, (size_t)s.d * sizeof *o);
        for (int64_t j = 0; j < keys; j++) {
            double p = exp(s.scale * dot(q, k + j * hd, s.d) - lse);
            for (int64_t x = 0; x < s.d; x++)
                o[x] += p * v[j * hd + x];
        }
        c->out[1][e] = lse;
    }
}

static void attention_b(const slr_ref_call *c)
{
    const sdlora_opdesc *op = c->op;
    attn_shape s = attn_of(op, &op->in[1], &op->in[2]);
    int64_t hd = s.h * s.d;
    for (int i = 0; i < 3; i++)
        memset(c->out[i], 0, (size_t)slr_ref_count(&op->out[i]) * sizeof(double));
    for (int64_t e = 0; e < s.n * s.h * s.tq; e++) {
        int64_t n = e / s.tq / s.h, h = e / s.tq % s.h, i = e % s.tq;
        int64_t at_q = (n * s.tq + i) * hd + h * s.d, at_k = n * s.tk * hd + h * s.d;
        const double *d_o = c->in[0] + at_q, *q = c->in[1] + at_q;
        double delta = dot(d_o, c->in[4] + at_q, s.d);
        for (int64_t j = 0; j < attn_keys(&s, i); j++) {
            const double *k = c->in[2] + at_k + j * hd, *v = c->in[3] + at_k + j * hd;
            double p = exp(s.scale * dot(q, k, s.d) - c->in[5][e]);
            double ds = s.scale * p * (dot(d_o, v, s.d) - delta);
            for (int64_t x = 0; x < s.d; x++) {
                c->out[0][at_q + x] += ds * k[x];
                c->out[1][at_k + j * hd + x] += ds * q[x];
                c->out[2][at_k + j * hd + x] += p * d_o[x];
            }
        }
    }
}

const slr_ref_row slr_ref_dense[] = {
    {SDLORA_OP_MATMUL, matmul},
    {SDLORA_OP_BMM, bmm},
    {SDLORA_OP_INVERSE, inverse},
    {SDLORA_OP_CONV2D, conv2d},
    {SDLORA_OP_CONV2D_BX, conv2d_bx},
    {SDLORA_OP_CONV2D_BW, conv2d_bw},
    {SDLORA_OP_GROUP_NORM, group_norm},
    {SDLORA_OP_GROUP_NORM_BX, group_norm_bx},
    {SDLORA_OP_LAYER_NORM, layer_norm},
    {SDLORA_OP_LAYER_NORM_BX, layer_norm_bx},
    {SDLORA_OP_GROUP_NORM_BW, group_norm_bw},
    {SDLORA_OP_LAYER_NORM_BW, layer_norm_bw},
    {SDLORA_OP_ATTENTION, attention},
    {SDLORA_OP_ATTENTION_B, attention_b},
    {0},
};

int slr_ref_run(const slr_ref_call *c)
{
    static const slr_ref_row *const tables[] = {slr_ref_dense, slr_ref_ew, slr_ref_move};
    for (size_t t = 0; t < sizeof tables / sizeof *tables; t++)
        for (const slr_ref_row *row = tables[t]; row->op; row++)
            if (row->op == c->op->op) {
                row->run(c);
                return SDLORA_OK;
            }
    return SDLORA_ENOTSUP;
}
