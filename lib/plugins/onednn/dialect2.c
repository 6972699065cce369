/* SPDX-License-Identifier: MIT */
/* oneDNN 2: layouts are public structs, and operations have descriptors of their own. */
#include <string.h>

#include <sdlora/ops.h>

#include "dialect.h"

static dnnl_data_type_t type_of(const dn_layout *l)
{
    return l->type == SDLORA_BF16 ? dnnl_bf16 : l->type == SDLORA_U8 ? dnnl_u8 : dnnl_f32;
}

/* Rank 0 becomes the empty descriptor, which stands for an absent operand. */
static dnnl_memory_desc_t describe(const dn_layout *l)
{
    dnnl_memory_desc_t md;
    memset(&md, 0, sizeof md);
    if (!l->rank)
        return md;
    md.ndims = l->rank;
    md.data_type = type_of(l);
    md.format_kind = l->open ? dnnl_format_kind_any : dnnl_blocked;
    for (int i = 0; i < l->rank; i++) {
        md.dims[i] = l->dim[i];
        md.padded_dims[i] = l->padded[i];
        md.format_desc.blocking.strides[i] = l->stride[i];
    }
    md.format_desc.blocking.inner_nblks = l->cuts;
    for (int i = 0; i < l->cuts; i++) {
        md.format_desc.blocking.inner_blks[i] = l->block[i];
        md.format_desc.blocking.inner_idxs[i] = l->axis[i];
    }
    return md;
}

dnnl_status_t dn_say_weights(dn_layout *out, const_dnnl_primitive_desc_t pd)
{
    const dnnl_memory_desc_t *md = dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 0);
    const dnnl_blocking_desc_t *b = &md->format_desc.blocking;
    if (md->format_kind != dnnl_blocked || b->inner_nblks > DN_CUTS || md->offset0 != 0)
        return dnnl_unimplemented;
    *out = (dn_layout){.type = md->data_type == dnnl_bf16 ? SDLORA_BF16 : SDLORA_F32,
                       .rank = md->ndims,
                       .cuts = b->inner_nblks};
    for (int i = 0; i < md->ndims; i++) {
        out->dim[i] = md->dims[i];
        out->padded[i] = md->padded_dims[i];
        out->stride[i] = b->strides[i];
    }
    for (int i = 0; i < b->inner_nblks; i++) {
        out->block[i] = b->inner_blks[i];
        out->axis[i] = (int)b->inner_idxs[i];
    }
    return dnnl_success;
}

dnnl_status_t dn_say_memory(dnnl_memory_t *out, dnnl_engine_t engine, const dn_layout *l, int axis,
                            int64_t n0, int64_t n, void *data)
{
    const dn_layout part = dn_layout_panel(l, axis, n);
    const dnnl_memory_desc_t md = describe(&part);
    const int64_t offset = dn_layout_offset(l, axis, n0);
    if (offset < 0)
        return dnnl_unimplemented;
    return dnnl_memory_create(out, &md, engine,
                              data == DNNL_MEMORY_NONE ? data : (char *)data + offset);
}

dnnl_status_t dn_say_place(dnnl_memory_t memory, dnnl_stream_t stream, void *data)
{
    return dnnl_memory_set_data_handle_v2(memory, data, stream);
}

dnnl_status_t dn_say_ops(dnnl_post_ops_t ops, const dn_want *want)
{
    const dnnl_memory_desc_t add = describe(&want->add);
    if (want->alpha != 1.0f)
        DN_ASK(dnnl_post_ops_append_eltwise(ops, 1.0f, dnnl_eltwise_linear, want->alpha, 0.0f));
    if (want->sum)
        DN_ASK(dnnl_post_ops_append_sum(ops, 1.0f));
    return want->add.rank ? dnnl_post_ops_append_binary(ops, dnnl_binary_add, &add) : dnnl_success;
}

dnnl_status_t dn_say_product(dnnl_primitive_desc_t *out, dnnl_engine_t engine,
                             const_dnnl_primitive_attr_t attr, const dn_want *want)
{
    const dnnl_memory_desc_t a = describe(&want->src), b = describe(&want->weights);
    const dnnl_memory_desc_t bias = describe(&want->bias), c = describe(&want->dst);
    dnnl_matmul_desc_t d;
    DN_ASK(dnnl_matmul_desc_init(&d, &a, &b, &bias, &c));
    return dnnl_primitive_desc_create(out, &d, attr, engine, NULL);
}

dnnl_status_t dn_say_conv(dnnl_primitive_desc_t *out, dnnl_engine_t engine,
                          const_dnnl_primitive_attr_t attr, const dn_want *want)
{
    const dnnl_memory_desc_t x = describe(&want->src), w = describe(&want->weights);
    const dnnl_memory_desc_t bias = describe(&want->bias), y = describe(&want->dst);
    dnnl_convolution_desc_t d;
    if (want->kind == DN_CONV_BX)
        DN_ASK(dnnl_convolution_backward_data_desc_init(&d, dnnl_convolution_direct, &y, &w, &x,
                                                        want->stride, want->before, want->after));
    else
        DN_ASK(dnnl_convolution_forward_desc_init(&d, dnnl_forward_inference,
                                                  dnnl_convolution_direct, &x, &w, &bias, &y,
                                                  want->stride, want->before, want->after));
    return dnnl_primitive_desc_create(out, &d, attr, engine, NULL);
}

dnnl_status_t dn_say_reorder(dnnl_primitive_desc_t *out, dnnl_engine_t engine, dnnl_memory_t from,
                             dnnl_memory_t to)
{
    const dnnl_memory_desc_t *a, *b;
    DN_ASK(dnnl_memory_get_memory_desc(from, &a));
    DN_ASK(dnnl_memory_get_memory_desc(to, &b));
    return dnnl_reorder_primitive_desc_create(out, a, engine, b, engine, NULL);
}
