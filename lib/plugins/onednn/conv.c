/* SPDX-License-Identifier: MIT */
/* CONV2D and CONV2D_BX, channels last.  One tap without stride is a product (matmul.c).  The
 * gradient by x at stride 1 is a forward convolution with filters turned round; at other strides it
 * is the library's own.  A panel that is narrower than the result is computed into a dense block
 * and copied.  Refuses to know grouped filters and how work is cut (conv_cut.c). */
#include "conv.h"

#include <stdatomic.h>
#include <string.h>

#include "convert.h"
#include "matmul.h"

typedef struct conv_job {
    const dn_conv *g;
    const unsigned char *x, *add;
    const float *bias;
    unsigned char *y, *scratch;
    _Atomic int status;
} conv_job;

/* --- launching --- */

static void run_piece(void *arg, int64_t piece, int slot)
{
    conv_job *job = arg;
    const dn_conv *g = job->g;
    const dn_conv_shape *z = &g->z;
    const int64_t p = piece % g->panels, b = piece / g->panels % g->n_bands;
    const int64_t image = piece / g->panels / g->n_bands, k0 = p * g->tn;
    const dn_band *at_band = &g->bands[b];
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
static int relay_now(const dn_conv *g, const void *w, unsigned char *scratch)
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
    const dn_conv *g = (const dn_conv *)head;
    const dn_conv_shape *z = &g->z;
    conv_job job = {
        .g = g,
        .x = ptr[IN_A],
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
        DN_TRY(relay_now(g, ptr[IN_B], scratch));
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

/* --- preparing --- */

static void conv_free(sdlora_kernel *head)
{
    dn_conv *g = (dn_conv *)head;
    for (int64_t i = 0; g->panel && i < g->panels; i++)
        if (g->panel[i])
            dnnl_memory_destroy(g->panel[i]);
    dn_conv_put_bands(g);
    dn_pack_put(head->dev, g->pack);
    dn_free(head->dev, g->panel);
    dn_free(head->dev, g->bias);
}

static int64_t int_at(const sdlora_opdesc *op, uint32_t i, int64_t otherwise)
{
    return i < op->n_int ? op->ints[i] : otherwise;
}

/* Reads and checks the forward convolution; x or y may be the result. */
static int read_shape(dn_conv_shape *z, const sdlora_dev *dev, const sdlora_opdesc *op,
                      const sdlora_tdesc *x, const sdlora_tdesc *y)
{
    const sdlora_tdesc *w = &op->in[IN_B];
    if (op->n_int < 2 || x->rank != 4 || y->rank != 4 || w->rank != 4)
        return dn_fail(dev, SDLORA_EINVAL, "conv2d: wants images and filters of rank 4");
    if (int_at(op, 6, 1) != 1)
        return dn_fail(dev, SDLORA_ENOTSUP, "oneDNN's part takes no groups; these are %lld",
                       (long long)int_at(op, 6, 1));
    *z = (dn_conv_shape){
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
static int turn_back(dn_conv_shape *z, const sdlora_dev *dev)
{
    const dn_conv_shape f = *z;
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

static void set_relay(dn_conv *g)
{
    const dn_conv_shape *z = &g->z;
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

static int place_filters(dn_conv *g, const sdlora_opdesc *op)
{
    sdlora_dev *dev = g->head.dev;
    g->panel = dn_alloc(dev, (size_t)g->panels * sizeof *g->panel);
    if (!g->panel)
        return SDLORA_ENOMEM;
    if (g->frozen)
        DN_TRY(dn_pack_get(&g->pack, dev, &op->consts[IN_B], &g->relay));
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

/* Makes the kernel of a shape; the descriptor was checked. */
static int make(sdlora_kernel **out, uint64_t *scratch, sdlora_dev *dev, const sdlora_opdesc *op,
                const dn_conv_shape *z)
{
    uint32_t type;
    const float alpha = op->n_real ? (float)op->reals[0] : 1.0f;
    DN_TRY(dn_choose_type(&type, dev, op));
    const double flops = dn_conv_flops(z);
    if (flops == 0 || alpha == 0 || (type == SDLORA_F32 && flops < DN_SMALL_F32))
        return dn_fail(dev, SDLORA_ENOTSUP, "the core is faster at a convolution of %lld by %lld",
                       (long long)z->h, (long long)z->w);
    dn_conv *g = dn_kernel_new(dev, sizeof *g, conv_launch, conv_free);
    if (!g)
        return SDLORA_ENOMEM;
    *out = &g->head;
    g->z = *z;
    g->alpha = alpha;
    g->type = type;
    g->x_type = op->in[IN_A].dtype;
    g->w_type = op->in[IN_B].dtype;
    g->y_type = op->out[0].dtype;
    g->frozen = dn_frozen(op, IN_B);
    g->has_bias = dn_given(op, IN_BIAS);
    g->has_add = dn_given(op, IN_ADD);
    g->add_type = g->has_add ? op->in[IN_ADD].dtype : 0;
    g->out_type = g->add_type == SDLORA_F32 ? SDLORA_F32 : g->y_type;
    set_relay(g);
    DN_TRY(dn_bias_get(&g->bias, dev, op, IN_BIAS, 1.0f / alpha));
    DN_TRY(dn_conv_cut(g));
    DN_TRY(place_filters(g, op));
    const int64_t size = (int64_t)dn_size(type);
    dn_reserve(scratch, g->x_type == type ? 0 : z->n * z->h * z->w * z->c * size);
    g->at_flat = dn_reserve(scratch, g->frozen ? 0 : (int64_t)dn_relay_flat(&g->relay));
    g->at_pack = dn_reserve(scratch, g->frozen ? 0 : dn_layout_bytes(&g->relay.to));
    g->at_bias = dn_reserve(scratch, g->has_bias && !g->bias ? z->oc * 4 : 0);
    g->at_slots = dn_reserve(scratch, (int64_t)g->slot_bytes * dev->slots);
    return SDLORA_OK;
}

static bool is_product(const dn_conv_shape *z)
{
    return z->r == 1 && z->s == 1 && z->stride_h == 1 && z->stride_w == 1 && z->h == z->oh &&
           z->w == z->ow && z->top == 0 && z->left == 0;
}

static int conv_prepare(sdlora_kernel **out, uint64_t *scratch, sdlora_dev *dev,
                        const sdlora_opdesc *op)
{
    dn_conv_shape z;
    if (op->n_in < 2 || op->n_out != 1)
        return dn_fail(dev, SDLORA_EINVAL, "conv2d: wants an image, filters and one result");
    DN_TRY(read_shape(&z, dev, op, &op->in[IN_A], &op->out[0]));
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
    dn_conv_shape z;
    if (op->n_in != 2 || op->n_out != 1)
        return dn_fail(dev, SDLORA_EINVAL, "conv2d_bx: wants a gradient, filters and one result");
    DN_TRY(read_shape(&z, dev, op, &op->out[0], &op->in[IN_A]));
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
