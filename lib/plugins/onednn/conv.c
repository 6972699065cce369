/* SPDX-License-Identifier: MIT */
/* CONV2D and CONV2D_BX, channels last.  One tap without stride is a product (matmul.c).  The
 * gradient by x at stride 1 is a forward convolution with filters turned round; at other strides it
 * is the library's own.  Work is cut into images, bands of result rows and panels of filters: a
 * band is a convolution of its own, with padding only where it touches the edge.  A panel that is
 * narrower than the result is computed into a dense block and copied.  Refuses to know grouped
 * filters. */
#include <stdatomic.h>
#include <string.h>

#include "common.h"
#include "convert.h"
#include "exec.h"
#include "matmul.h"
#include "pack.h"

enum { IN_X = 0, IN_W = 1, IN_BIAS = 2, IN_ADD = 3 };
enum { PANEL = 64, MAX_PIECES = 32, MAX_BANDS = 64 };

/* As in matmul.c. */
#define PIECE_FLOPS 8e6
#define SMALL_F32   5e5

/* src is what is read under the filters, dst the result: x and y, or dy and dx. */
typedef struct conv_shape {
    int64_t n, h, w, c; /* src */
    int64_t oh, ow, oc; /* dst */
    int64_t r, s, stride_h, stride_w, top, left, bottom, right;
    bool strided_back; /* dst = dx at another stride than 1: pads are those of the forward pass */
    bool turned;       /* filters are turned round */
} conv_shape;

typedef struct band {
    int64_t src0, dst0, rows; /* rows of dst; where reading begins */
    dn_exec *exec[2];         /* [1]: of the last panel */
} band;

typedef struct conv_kernel {
    sdlora_kernel head;
    conv_shape z;
    float alpha;
    uint32_t type, x_type, w_type, add_type, y_type;
    uint32_t out_type; /* of what the library computes: f32 where an addend of f32 goes to bf16 */
    bool tiled;        /* results pass through a block of the slot */
    bool has_bias, has_add, frozen;
    float *bias; /* frozen: its own copy over alpha */
    int64_t tn, panels, th, n_bands;
    band bands[MAX_BANDS];
    dn_relay relay;
    dn_pack *pack;
    dnnl_memory_t *panel; /* by number */
    uint64_t at_flat, at_pack, at_bias, at_slots, slot_bytes, tile_bytes;
} conv_kernel;

typedef struct conv_job {
    const conv_kernel *g;
    const unsigned char *x, *add;
    const float *bias;
    unsigned char *y, *scratch;
    _Atomic int status;
} conv_job;

/* --- launching --- */

static void run_piece(void *arg, int64_t piece, int slot)
{
    conv_job *job = arg;
    const conv_kernel *g = job->g;
    const conv_shape *z = &g->z;
    const int64_t p = piece % g->panels, b = piece / g->panels % g->n_bands;
    const int64_t image = piece / g->panels / g->n_bands, k0 = p * g->tn;
    const band *at_band = &g->bands[b];
    const int64_t pixels = at_band->rows * z->ow, n = dn_min(g->tn, z->oc - k0);
    const int64_t at = (image * z->oh + at_band->dst0) * z->ow * z->oc + k0;
    unsigned char *slot_data = job->scratch + g->at_slots + (uint64_t)slot * g->slot_bytes;
    unsigned char *y = job->y + at * (int64_t)dn_size(g->y_type);
    unsigned char *dst = g->tiled ? slot_data : y;
    const unsigned char *add = job->add ? job->add + at * (int64_t)dn_size(g->add_type) : NULL;
    if (add && dst != add)
        dn_copy_rows(dst, g->out_type, n, add, g->add_type, z->oc, g->tiled ? pixels : 1,
                     g->tiled ? n : pixels * n);
    const dn_operands o = {
        .src = job->x + (image * z->h + at_band->src0) * z->w * z->c * (int64_t)dn_size(g->type),
        .packed = g->panel[p],
        .bias = job->bias ? job->bias + k0 : NULL,
        .dst = dst,
        .scratch = slot_data + g->tile_bytes,
    };
    dnnl_status_t rc = dn_exec_run(at_band->exec[p == g->panels - 1], slot, &o);
    if (rc != dnnl_success)
        atomic_store(&job->status, (int)rc);
    if (g->tiled)
        dn_copy_rows(y, g->y_type, z->oc, dst, g->out_type, n, pixels, n);
}

/* Filters that change between launches are relaid first. */
static int relay_now(const conv_kernel *g, const void *w, unsigned char *scratch)
{
    unsigned char *packed = scratch + g->at_pack;
    DN_TRY(dn_relay_run(g->head.dev, &g->relay, packed, w, scratch + g->at_flat));
    for (int64_t p = 0; p < g->panels; p++) {
        dnnl_status_t rc =
            dn_memory_place(g->panel[p], g->head.dev->stream,
                            packed + dn_layout_offset(&g->relay.to, g->relay.axis, p * g->tn));
        if (rc != dnnl_success)
            return dn_fail_dnnl(g->head.dev, rc, "placing filters");
    }
    return SDLORA_OK;
}

static int conv_launch(sdlora_kernel *head, void *const *ptr, void *scratch)
{
    const conv_kernel *g = (const conv_kernel *)head;
    const conv_shape *z = &g->z;
    conv_job job = {
        .g = g,
        .x = ptr[IN_X],
        .bias = g->bias,
        .add = g->has_add ? ptr[IN_ADD] : NULL,
        .y = ptr[head->n_in],
        .scratch = scratch,
    };
    if (g->x_type != g->type) {
        dn_convert_all(head->dev, scratch, g->type, job.x, g->x_type, z->n * z->h * z->w * z->c);
        job.x = scratch;
    }
    if (!g->frozen)
        DN_TRY(relay_now(g, ptr[IN_W], scratch));
    if (g->has_bias && !g->bias) { /* oneDNN scales it with the product, so divide first */
        float *bias = (float *)(void *)(job.scratch + g->at_bias);
        const float *given = ptr[IN_BIAS];
        for (int64_t i = 0; i < z->oc; i++)
            bias[i] = given[i] / g->alpha;
        job.bias = bias;
    }
    dn_spread(head->dev, z->n * g->n_bands * g->panels, run_piece, &job);
    return job.status ? dn_fail_dnnl(head->dev, (dnnl_status_t)job.status, "running a convolution")
                      : SDLORA_OK;
}

/* --- cutting --- */

static int64_t max64(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static double flops_of(const conv_shape *z)
{
    const int64_t outer = z->strided_back ? z->h * z->w : z->oh * z->ow;
    return 2.0 * (double)(z->n * outer) * (double)(z->oc * z->c) * (double)(z->r * z->s);
}

/* Rows of a band when there are to be `bands` of them. */
static int64_t band_rows(const conv_shape *z, int64_t bands)
{
    const int64_t step = z->strided_back ? z->stride_h : 1;
    return dn_round_up(max64(dn_ceil_div(z->oh, bands), dn_ceil_div(z->oh, MAX_BANDS)), step);
}

/* Seconds that a cut may take on a machine of dn_plan_seconds(). */
static double cost_of(const conv_shape *z, int64_t tn, int64_t th, int64_t wished)
{
    const int64_t panels = dn_ceil_div(z->oc, tn), bands = dn_ceil_div(z->oh, th);
    const double x = (double)(z->n * z->h * z->w * z->c);
    const double y = (double)(z->n * z->oh * z->ow * z->oc);
    const double w = (double)(z->oc * z->c * z->r * z->s);
    const double reread = (double)(th * z->stride_h + z->r - 1) / (double)(th * z->stride_h);
    const double uneven =
        (double)(th * bands) / (double)z->oh * (double)(tn * panels) / (double)z->oc;
    const double copied = panels > 1 ? 4 * y : 0;
    return dn_plan_seconds(flops_of(z) * uneven, dn_min(z->n * bands * panels, wished), x * reread,
                           panels) +
           dn_plan_seconds(0, 1, w, bands * z->n) + dn_plan_seconds(0, 1, copied, 1);
}

/* Enough pieces for many threads, while each is worth a call; of such cuts the cheapest.  A second
 * reading of large filters costs more than a few idle threads.  widest: of a panel. */
static void cut(conv_kernel *g, int64_t widest)
{
    const conv_shape *z = &g->z;
    int64_t wished = (int64_t)(flops_of(z) / PIECE_FLOPS);
    wished = wished < 1 ? 1 : wished > MAX_PIECES ? MAX_PIECES : wished;
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

static dn_spec spec_start(const conv_kernel *g)
{
    const conv_shape *z = &g->z;
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
static bool forward_band(const conv_kernel *g, band *b, dn_spec *s, int64_t n)
{
    const conv_shape *z = &g->z;
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
static bool back_band(const conv_kernel *g, band *b, dn_spec *s)
{
    const conv_shape *z = &g->z;
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

static int make_bands(conv_kernel *g)
{
    const conv_shape *z = &g->z;
    g->tiled = g->panels > 1 || g->out_type != g->y_type;
    g->tile_bytes =
        g->tiled ? (uint64_t)dn_round_up(g->th * z->ow * g->tn * (int64_t)dn_size(g->out_type), 64)
                 : 0;
    g->slot_bytes = g->tile_bytes;
    for (int64_t i = 0; i < g->n_bands; i++) {
        band *b = &g->bands[i];
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

static void put_bands(conv_kernel *g)
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
static int agree(bool *yes, conv_kernel *g)
{
    const int64_t oc = g->z.oc, axis = 0;
    *yes = true;
    g->relay.to = *dn_exec_weights(g->bands[0].exec[1]);
    if (!g->z.strided_back && oc > PANEL && oc % PANEL == 0) {
        band b = g->bands[0];
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
static int choose_pieces(conv_kernel *g)
{
    const int64_t widest[] = {g->z.oc, 2 * PANEL, PANEL};
    bool yes = false;
    for (int i = 0; i < 3 && !yes; i++) {
        if (i && (g->z.oc % PANEL || g->z.strided_back || widest[i] >= g->z.oc))
            continue;
        put_bands(g);
        cut(g, widest[i]);
        DN_TRY(make_bands(g));
        DN_TRY(agree(&yes, g));
    }
    return yes ? SDLORA_OK
               : dn_fail(g->head.dev, SDLORA_ENOTSUP,
                         "the pieces of a convolution want different layouts of its filters");
}

/* --- preparing --- */

static void conv_free(sdlora_kernel *head)
{
    conv_kernel *g = (conv_kernel *)head;
    for (int64_t i = 0; g->panel && i < g->panels; i++)
        if (g->panel[i])
            dnnl_memory_destroy(g->panel[i]);
    put_bands(g);
    dn_pack_put(head->dev, g->pack);
    dn_free(head->dev, g->panel);
    dn_free(head->dev, g->bias);
}

static int64_t int_at(const sdlora_opdesc *op, uint32_t i, int64_t otherwise)
{
    return i < op->n_int ? op->ints[i] : otherwise;
}

/* Reads and checks the forward convolution; x or y may be the result. */
static int read_shape(conv_shape *z, const sdlora_dev *dev, const sdlora_opdesc *op,
                      const sdlora_tdesc *x, const sdlora_tdesc *y)
{
    const sdlora_tdesc *w = &op->in[IN_W];
    if (op->n_int < 2 || x->rank != 4 || y->rank != 4 || w->rank != 4)
        return dn_fail(dev, SDLORA_EINVAL, "conv2d: wants images and filters of rank 4");
    if (int_at(op, 6, 1) != 1)
        return dn_fail(dev, SDLORA_ENOTSUP, "oneDNN's part takes no groups; these are %lld",
                       (long long)int_at(op, 6, 1));
    *z = (conv_shape){
        .n = x->dim[0],
        .h = x->dim[1],
        .w = x->dim[2],
        .c = x->dim[3],
        .oh = y->dim[1],
        .ow = y->dim[2],
        .oc = y->dim[3],
        .r = w->dim[2],
        .s = w->dim[3],
        .stride_h = op->ints[0],
        .stride_w = op->ints[1],
        .top = int_at(op, 2, 0),
        .left = int_at(op, 3, 0),
        .bottom = int_at(op, 4, 0),
        .right = int_at(op, 5, 0),
    };
    const int64_t h = z->h + z->top + z->bottom - z->r, wd = z->w + z->left + z->right - z->s;
    if (z->stride_h < 1 || z->stride_w < 1 || z->top < 0 || z->left < 0 || h < 0 || wd < 0 ||
        w->dim[0] != z->oc || w->dim[1] != z->c || y->dim[0] != z->n ||
        h / z->stride_h + 1 != z->oh || wd / z->stride_w + 1 != z->ow)
        return dn_fail(dev, SDLORA_EINVAL,
                       "conv2d: [%lld,%lld,%lld,%lld] by [%lld,%lld,%lld,%lld] does not give "
                       "[%lld,%lld,%lld,%lld]",
                       (long long)z->n, (long long)z->h, (long long)z->w, (long long)z->c,
                       (long long)w->dim[0], (long long)w->dim[1], (long long)z->r, (long long)z->s,
                       (long long)y->dim[0], (long long)z->oh, (long long)z->ow, (long long)z->oc);
    /* what is left over to the right and below is not read */
    z->right = (z->ow - 1) * z->stride_w + z->s - z->w - z->left;
    z->right = z->right < 0 ? 0 : z->right;
    return SDLORA_OK;
}

/* From the forward convolution to the one that gives dx. */
static int turn_back(conv_shape *z, const sdlora_dev *dev)
{
    const conv_shape f = *z;
    z->h = f.oh;
    z->w = f.ow;
    z->c = f.oc;
    z->oh = f.h;
    z->ow = f.w;
    z->oc = f.c;
    z->strided_back = f.stride_h != 1 || f.stride_w != 1;
    if (z->strided_back)
        return SDLORA_OK;
    z->turned = true;
    z->top = f.r - 1 - f.top;
    z->left = f.s - 1 - f.left;
    z->right = f.s - 1 - f.right;
    if (z->top < 0 || z->left < 0 || z->right < 0)
        return dn_fail(dev, SDLORA_ENOTSUP, "a gradient of a padding wider than its filter");
    return SDLORA_OK;
}

static void set_relay(conv_kernel *g)
{
    const conv_shape *z = &g->z;
    const int64_t taps = z->r * z->s;
    g->relay.from = g->w_type;
    g->relay.count = z->c * z->oc * taps;
    g->relay.taps = z->turned ? taps : 1;
    /* [K,C,R,S] in the file; turned filters give C channels from K */
    const int64_t row = z->strided_back || z->turned ? z->oc : z->c;
    g->relay.strides[0] = z->turned ? taps : row * taps;
    g->relay.strides[1] = z->turned ? row * taps : taps;
    g->relay.strides[2] = z->s;
    g->relay.strides[3] = 1;
    g->relay.axis = 0;
}

static int place_filters(conv_kernel *g, const sdlora_opdesc *op)
{
    sdlora_dev *dev = g->head.dev;
    g->panel = dn_alloc(dev, (size_t)g->panels * sizeof *g->panel);
    if (!g->panel)
        return SDLORA_ENOMEM;
    if (g->frozen)
        DN_TRY(dn_pack_get(&g->pack, dev, &op->consts[IN_W], &g->relay));
    for (int64_t p = 0; p < g->panels; p++) {
        const dn_layout *panel = dn_exec_weights(g->bands[0].exec[p == g->panels - 1]);
        if (g->frozen)
            DN_TRY(dn_pack_panel(&g->panel[p], dev, &g->relay, dn_pack_data(g->pack), panel,
                                 p * g->tn));
        else if (dn_memory_new(&g->panel[p], dev->engine, panel, NULL) != dnnl_success)
            return dn_fail(dev, SDLORA_ENOMEM, "no memory for the panels of filters");
    }
    return SDLORA_OK;
}

static uint64_t reserve(uint64_t *at, uint64_t bytes)
{
    const uint64_t here = *at;
    *at += (bytes + 63) / 64 * 64;
    return here;
}

/* Makes the kernel of a shape; the descriptor was checked. */
static int make(sdlora_kernel **out, uint64_t *scratch, sdlora_dev *dev, const sdlora_opdesc *op,
                const conv_shape *z)
{
    uint32_t type;
    const float alpha = op->n_real ? (float)op->reals[0] : 1.0f;
    DN_TRY(dn_choose_type(&type, dev, op));
    const double flops = flops_of(z);
    if (flops == 0 || alpha == 0 || (type == SDLORA_F32 && flops < SMALL_F32))
        return dn_fail(dev, SDLORA_ENOTSUP, "the core is faster at a convolution of %lld by %lld",
                       (long long)z->h, (long long)z->w);
    conv_kernel *g = dn_kernel_new(dev, sizeof *g, conv_launch, conv_free);
    if (!g)
        return SDLORA_ENOMEM;
    *out = &g->head;
    g->z = *z;
    g->alpha = alpha;
    g->type = type;
    g->x_type = op->in[IN_X].dtype;
    g->w_type = op->in[IN_W].dtype;
    g->y_type = op->out[0].dtype;
    g->frozen = dn_frozen(op, IN_W);
    g->has_bias = dn_given(op, IN_BIAS);
    g->has_add = dn_given(op, IN_ADD);
    g->add_type = g->has_add ? op->in[IN_ADD].dtype : 0;
    g->out_type = g->add_type == SDLORA_F32 ? SDLORA_F32 : g->y_type;
    set_relay(g);
    DN_TRY(dn_bias_get(&g->bias, dev, op, IN_BIAS, 1.0f / alpha));
    DN_TRY(choose_pieces(g));
    DN_TRY(place_filters(g, op));
    const uint64_t size = dn_size(type);
    reserve(scratch, g->x_type == type ? 0 : (uint64_t)(z->n * z->h * z->w * z->c) * size);
    g->at_flat = reserve(scratch, g->frozen ? 0 : dn_relay_flat(&g->relay));
    g->at_pack = reserve(scratch, g->frozen ? 0 : (uint64_t)dn_layout_bytes(&g->relay.to));
    g->at_bias = reserve(scratch, g->has_bias && !g->bias ? (uint64_t)z->oc * 4 : 0);
    g->at_slots = reserve(scratch, g->slot_bytes * (uint64_t)dev->slots);
    return SDLORA_OK;
}

static bool is_product(const conv_shape *z)
{
    return z->r == 1 && z->s == 1 && z->stride_h == 1 && z->stride_w == 1 && z->h == z->oh &&
           z->w == z->ow && z->top == 0 && z->left == 0;
}

static int conv_prepare(sdlora_kernel **out, uint64_t *scratch, sdlora_dev *dev,
                        const sdlora_opdesc *op)
{
    conv_shape z;
    if (op->n_in < 2 || op->n_out != 1)
        return dn_fail(dev, SDLORA_EINVAL, "conv2d: wants an image, filters and one result");
    DN_TRY(read_shape(&z, dev, op, &op->in[IN_X], &op->out[0]));
    if ((dn_given(op, IN_BIAS) && dn_count(&op->in[IN_BIAS]) != z.oc) ||
        (dn_given(op, IN_ADD) && dn_count(&op->in[IN_ADD]) != dn_count(&op->out[0])))
        return dn_fail(dev, SDLORA_EINVAL, "conv2d: bias or addend is of another size");
    if (!is_product(&z))
        return make(out, scratch, dev, op, &z);
    const dn_product p = {.m = z.n * z.h * z.w,
                          .n = z.oc,
                          .k = z.c,
                          .tb = true,
                          .alpha = op->n_real ? (float)op->reals[0] : 1.0f};
    return dn_product_prepare(out, scratch, dev, op, &p);
}

static int conv_bx_prepare(sdlora_kernel **out, uint64_t *scratch, sdlora_dev *dev,
                           const sdlora_opdesc *op)
{
    conv_shape z;
    if (op->n_in != 2 || op->n_out != 1)
        return dn_fail(dev, SDLORA_EINVAL, "conv2d_bx: wants a gradient, filters and one result");
    DN_TRY(read_shape(&z, dev, op, &op->out[0], &op->in[IN_X]));
    const dn_product p = {.m = z.n * z.h * z.w,
                          .n = z.c,
                          .k = z.oc,
                          .alpha = op->n_real ? (float)op->reals[0] : 1.0f};
    if (is_product(&z))
        return dn_product_prepare(out, scratch, dev, op, &p);
    DN_TRY(turn_back(&z, dev));
    return make(out, scratch, dev, op, &z);
}

const dn_row dn_rows_conv[] = {
    {.op = SDLORA_OP_CONV2D, .prepare = conv_prepare},
    {.op = SDLORA_OP_CONV2D_BX, .prepare = conv_bx_prepare},
    {0},
};
