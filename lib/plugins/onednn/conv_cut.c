/* SPDX-License-Identifier: MIT */
/* Cuts convolutions by their shape alone: into images, bands of result rows and panels of filters.
 * A band is a convolution of its own, with padding only where it touches the edge. */
#include <string.h>

#include "conv.h"
#include "convert.h"

enum { PANEL = 64 };

static int64_t max64(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

double dn_conv_flops(const dn_conv_shape *z)
{
    const int64_t outer = z->strided_back ? z->h * z->w : z->oh * z->ow;
    return 2.0 * (double)(z->n * outer) * (double)(z->oc * z->c) * (double)(z->r * z->s);
}

/* Rows of a band when there are to be `bands` of them. */
static int64_t band_rows(const dn_conv_shape *z, int64_t bands)
{
    const int64_t step = z->strided_back ? z->stride_h : 1;
    return dn_round_up(max64(dn_ceil_div(z->oh, bands), dn_ceil_div(z->oh, DN_MAX_BANDS)), step);
}

/* Seconds that a cut may take on a machine of dn_plan_seconds(). */
static double cost_of(const dn_conv_shape *z, int64_t tn, int64_t th, int64_t wished)
{
    const int64_t panels = dn_ceil_div(z->oc, tn), bands = dn_ceil_div(z->oh, th);
    const double x = (double)(z->n * z->h * z->w * z->c);
    const double y = (double)(z->n * z->oh * z->ow * z->oc);
    const double w = (double)(z->oc * z->c * z->r * z->s);
    const double reread = (double)(th * z->stride_h + z->r - 1) / (double)(th * z->stride_h);
    const double uneven =
        (double)(th * bands) / (double)z->oh * (double)(tn * panels) / (double)z->oc;
    const double copied = panels > 1 ? 4 * y : 0;
    return dn_plan_seconds(dn_conv_flops(z) * uneven, dn_min(z->n * bands * panels, wished),
                           x * reread, panels) +
           dn_plan_seconds(0, 1, w, bands * z->n) + dn_plan_seconds(0, 1, copied, 1);
}

/* Enough pieces for many threads, while each is worth a call; of such cuts the cheapest.  A second
 * reading of large filters costs more than a few idle threads.  widest: of a panel. */
static void cut(dn_conv *g, int64_t widest)
{
    const dn_conv_shape *z = &g->z;
    const int64_t wished = dn_wished_pieces(dn_conv_flops(z));
    double best = 0;
    for (int64_t tn = dn_min(widest, z->oc); tn > 0; tn -= PANEL) {
        if (tn != z->oc && (z->oc % PANEL || z->strided_back || tn % PANEL))
            break;
        const int64_t panels = dn_ceil_div(z->oc, tn);
        for (int64_t bands = 1; bands <= max64(1, dn_ceil_div(wished, panels * z->n)); bands++) {
            const int64_t th = band_rows(z, bands);
            const double cost = cost_of(z, tn, th, wished);
            if (best != 0 && cost >= best)
                continue;
            best = cost;
            g->tn = tn;
            g->panels = panels;
            g->th = th;
            g->n_bands = dn_ceil_div(z->oh, th);
        }
    }
}

static dn_spec spec_start(const dn_conv *g)
{
    const dn_conv_shape *z = &g->z;
    dn_spec s;
    memset(&s, 0, sizeof s);
    s.kind = z->strided_back ? DN_CONV_BX : DN_CONV;
    s.type = g->type;
    s.out = g->out_type;
    s.alpha = g->alpha;
    s.bias = g->has_bias;
    s.add = g->has_add ? DN_ADD_IN_PLACE : DN_ADD_NONE;
    s.r = z->r;
    s.s = z->s;
    s.stride_h = z->stride_h;
    s.stride_w = z->stride_w;
    s.left = z->left;
    s.right = z->right;
    return s;
}

/* The convolution that gives rows [first, first + rows) of y for n filters. */
static bool forward_band(const dn_conv *g, dn_band *b, dn_spec *s, int64_t n)
{
    const dn_conv_shape *z = &g->z;
    const int64_t from = b->dst0 * z->stride_h - z->top;
    const int64_t to = (b->dst0 + b->rows - 1) * z->stride_h - z->top + z->r;
    *s = spec_start(g);
    s->top = max64(0, -from);
    s->bottom = max64(0, to - z->h);
    b->src0 = max64(0, from);
    s->h = dn_min(to, z->h) - b->src0;
    s->w = z->w;
    s->c = z->c;
    s->oh = b->rows;
    s->ow = z->ow;
    s->filters = n;
    return s->h > 0;
}

/* The same for rows of dx at a stride: all rows of dy whose windows touch them. */
static bool back_band(const dn_conv *g, dn_band *b, dn_spec *s)
{
    const dn_conv_shape *z = &g->z;
    const int64_t lo = b->dst0 + z->top - z->r + 1, hi = b->dst0 + b->rows - 1 + z->top;
    const int64_t from = lo > 0 ? dn_ceil_div(lo, z->stride_h) : 0;
    const int64_t to = dn_min(hi / z->stride_h, z->h - 1);
    *s = spec_start(g);
    s->top = b->dst0 - (from * z->stride_h - z->top);
    s->bottom = max64(0, to * z->stride_h - z->top + z->r - (b->dst0 + b->rows));
    b->src0 = from;
    s->h = b->rows;
    s->w = z->ow;
    s->c = z->oc;
    s->oh = to - from + 1;
    s->ow = z->w;
    s->filters = z->c;
    return s->oh > 0 && s->top >= 0 && s->top < z->r &&
           (s->h - z->r + s->top + s->bottom) / z->stride_h + 1 == s->oh;
}

static int make_bands(dn_conv *g)
{
    const dn_conv_shape *z = &g->z;
    g->tiled = g->panels > 1 || g->out_type != g->y_type;
    g->tile_bytes =
        g->tiled ? (uint64_t)dn_round_up(g->th * z->ow * g->tn * (int64_t)dn_size(g->out_type), 64)
                 : 0;
    g->slot_bytes = g->tile_bytes;
    for (int64_t i = 0; i < g->n_bands; i++) {
        dn_band *b = &g->bands[i];
        b->dst0 = i * g->th;
        b->rows = dn_min(g->th, z->oh - b->dst0);
        for (int last = 0; last < 2; last++) {
            dn_spec s;
            if (!last && g->panels == 1)
                continue;
            const int64_t n = last ? z->oc - (g->panels - 1) * g->tn : g->tn;
            if (!(z->strided_back ? back_band(g, b, &s) : forward_band(g, b, &s, n)))
                return dn_fail(g->head.dev, SDLORA_ENOTSUP,
                               "a convolution with rows that no pixel reaches");
            DN_TRY(dn_exec_get(&b->exec[last], g->head.dev, &s));
            const uint64_t bytes = g->tile_bytes + dn_exec_scratch(b->exec[last]);
            g->slot_bytes = bytes > g->slot_bytes ? bytes : g->slot_bytes;
        }
    }
    return SDLORA_OK;
}

void dn_conv_put_bands(dn_conv *g)
{
    for (int64_t i = 0; i < g->n_bands; i++)
        for (int last = 0; last < 2; last++) {
            dn_exec_put(g->head.dev, g->bands[i].exec[last]);
            g->bands[i].exec[last] = NULL;
        }
}

/* True when all bands and panels want slices of one layout, which goes to relay.md.  The layout is
 * that of panels of 64 where filters are a whole number of them, so that all shapes share a pack.
 */
static int agree(bool *yes, dn_conv *g)
{
    const int64_t oc = g->z.oc, axis = 0;
    *yes = true;
    g->relay.to = *dn_exec_weights(g->bands[0].exec[1]);
    if (!g->z.strided_back && oc > PANEL && oc % PANEL == 0) {
        dn_band b = g->bands[0];
        dn_spec s;
        dn_exec *narrow;
        forward_band(g, &b, &s, PANEL);
        DN_TRY(dn_exec_get(&narrow, g->head.dev, &s));
        *yes = dn_layout_widen(&g->relay.to, dn_exec_weights(narrow), (int)axis, oc);
        dn_exec_put(g->head.dev, narrow);
    }
    for (int64_t i = 0; *yes && i < 2 * g->n_bands; i++) {
        const dn_exec *e = g->bands[i / 2].exec[i % 2];
        if (!e)
            continue;
        const dn_layout slice =
            dn_layout_panel(&g->relay.to, (int)axis, dn_exec_weights(e)->dim[axis]);
        *yes = dn_layout_same(&slice, dn_exec_weights(e));
    }
    return SDLORA_OK;
}

/* Wide panels first; the library may lay out narrower ones as it should. */
int dn_conv_cut(dn_conv *g)
{
    const int64_t widest[] = {g->z.oc, 2 * PANEL, PANEL};
    bool yes = false;
    for (int i = 0; i < 3 && !yes; i++) {
        if (i && (g->z.oc % PANEL || g->z.strided_back || widest[i] >= g->z.oc))
            continue;
        dn_conv_put_bands(g);
        cut(g, widest[i]);
        DN_TRY(make_bands(g));
        DN_TRY(agree(&yes, g));
    }
    return yes ? SDLORA_OK
               : dn_fail(g->head.dev, SDLORA_ENOTSUP,
                         "the pieces of a convolution want different layouts of its filters");
}
