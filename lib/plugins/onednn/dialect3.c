/* SPDX-License-Identifier: MIT */
/* oneDNN 3: layouts are objects that can be asked, and are made from strides or from a tag, the
 * name of a way of blocking. */
#include <sdlora/ops.h>

#include "dialect.h"

static dnnl_data_type_t type_of(const dn_layout *l)
{
    return l->type == SDLORA_BF16 ? dnnl_bf16 : l->type == SDLORA_U8 ? dnnl_u8 : dnnl_f32;
}

/* *out stays NULL for an absent operand. */
static dnnl_status_t describe(dnnl_memory_desc_t *out, const dn_layout *l)
{
    *out = NULL;
    if (!l->rank)
        return dnnl_success;
    if (l->open || l->cuts)
        return dnnl_memory_desc_create_with_tag(out, l->rank, l->dim, type_of(l),
                                                l->open ? dnnl_format_tag_any
                                                        : (dnnl_format_tag_t)l->tag);
    return dnnl_memory_desc_create_with_strides(out, l->rank, l->dim, type_of(l), l->stride);
}

/* A layout can not be made from its blocks, so the tag is found by trying. */
static int tag_of(const_dnnl_memory_desc_t md, const dn_layout *l)
{
    for (int tag = dnnl_format_tag_any + 1; tag < dnnl_format_tag_last; tag++) {
        dnnl_memory_desc_t other = NULL;
        if (dnnl_memory_desc_create_with_tag(&other, l->rank, l->dim, type_of(l),
                                             (dnnl_format_tag_t)tag) != dnnl_success)
            continue;
        const bool same = dnnl_memory_desc_equal(md, other);
        dnnl_memory_desc_destroy(other);
        if (same)
            return tag;
    }
    return 0;
}

typedef struct facts {
    int rank, cuts;
    dnnl_data_type_t type;
    dnnl_format_kind_t kind;
    dnnl_dim_t offset;
    const dnnl_dims_t *dim, *padded, *stride, *block, *axis;
} facts;

static dnnl_status_t ask(facts *f, const_dnnl_memory_desc_t md)
{
    DN_ASK(dnnl_memory_desc_query(md, dnnl_query_format_kind, &f->kind));
    if (f->kind != dnnl_blocked)
        return dnnl_unimplemented;
    DN_ASK(dnnl_memory_desc_query(md, dnnl_query_ndims_s32, &f->rank));
    DN_ASK(dnnl_memory_desc_query(md, dnnl_query_data_type, &f->type));
    DN_ASK(dnnl_memory_desc_query(md, dnnl_query_submemory_offset_s64, &f->offset));
    DN_ASK(dnnl_memory_desc_query(md, dnnl_query_dims, (void *)&f->dim));
    DN_ASK(dnnl_memory_desc_query(md, dnnl_query_padded_dims, (void *)&f->padded));
    DN_ASK(dnnl_memory_desc_query(md, dnnl_query_strides, (void *)&f->stride));
    DN_ASK(dnnl_memory_desc_query(md, dnnl_query_inner_nblks_s32, &f->cuts));
    DN_ASK(dnnl_memory_desc_query(md, dnnl_query_inner_blks, (void *)&f->block));
    return dnnl_memory_desc_query(md, dnnl_query_inner_idxs, (void *)&f->axis);
}

dnnl_status_t dn_say_weights(dn_layout *out, const_dnnl_primitive_desc_t pd)
{
    const_dnnl_memory_desc_t md = dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 0);
    facts f;
    DN_ASK(ask(&f, md));
    if (f.cuts > DN_CUTS || f.offset != 0)
        return dnnl_unimplemented;
    *out = (dn_layout){
        .type = f.type == dnnl_bf16 ? SDLORA_BF16 : SDLORA_F32, .rank = f.rank, .cuts = f.cuts};
    for (int i = 0; i < f.rank; i++) {
        out->dim[i] = (*f.dim)[i];
        out->padded[i] = (*f.padded)[i];
        out->stride[i] = (*f.stride)[i];
    }
    for (int i = 0; i < f.cuts; i++) {
        out->block[i] = (*f.block)[i];
        out->axis[i] = (int)(*f.axis)[i];
    }
    out->tag = f.cuts ? tag_of(md, out) : 0;
    return f.cuts && !out->tag ? dnnl_unimplemented : dnnl_success;
}

dnnl_status_t dn_say_memory(dnnl_memory_t *out, dnnl_engine_t engine, const dn_layout *l, int axis,
                            int64_t n0, int64_t n, void *data)
{
    dnnl_dims_t size = {0}, from = {0};
    dnnl_memory_desc_t all = NULL, part = NULL;
    for (int i = 0; i < l->rank; i++)
        size[i] = l->dim[i];
    size[axis] = n;
    from[axis] = n0;
    dnnl_status_t rc = describe(&all, l);
    if (rc == dnnl_success && n != l->dim[axis])
        rc = dnnl_memory_desc_create_submemory(&part, all, size, from);
    if (rc == dnnl_success)
        rc = dnnl_memory_create(out, part ? part : all, engine, data);
    dnnl_memory_desc_destroy(part);
    dnnl_memory_desc_destroy(all);
    return rc;
}

dnnl_status_t dn_say_place(dnnl_memory_t memory, dnnl_stream_t stream, void *data)
{
    (void)stream;
    return dnnl_memory_set_data_handle(memory, data);
}

dnnl_status_t dn_say_ops(dnnl_post_ops_t ops, const dn_want *want)
{
    dnnl_memory_desc_t add = NULL;
    if (want->alpha != 1.0f)
        DN_ASK(dnnl_post_ops_append_eltwise(ops, dnnl_eltwise_linear, want->alpha, 0.0f));
    if (want->sum)
        DN_ASK(dnnl_post_ops_append_sum(ops, 1.0f, 0, dnnl_data_type_undef));
    if (!want->add.rank)
        return dnnl_success;
    DN_ASK(describe(&add, &want->add));
    dnnl_status_t rc = dnnl_post_ops_append_binary(ops, dnnl_binary_add, add);
    dnnl_memory_desc_destroy(add);
    return rc;
}

enum { SRC, WEIGHTS, BIAS, DST, N_OPERANDS };

static void forget(dnnl_memory_desc_t *md)
{
    for (int i = 0; i < N_OPERANDS; i++)
        dnnl_memory_desc_destroy(md[i]);
}

/* The caller forgets them, also after a failure. */
static dnnl_status_t describe_all(dnnl_memory_desc_t *md, const dn_want *want)
{
    const dn_layout *const l[N_OPERANDS] = {&want->src, &want->weights, &want->bias, &want->dst};
    for (int i = 0; i < N_OPERANDS; i++)
        DN_ASK(describe(&md[i], l[i]));
    return dnnl_success;
}

dnnl_status_t dn_say_product(dnnl_primitive_desc_t *out, dnnl_engine_t engine,
                             const_dnnl_primitive_attr_t attr, const dn_want *want)
{
    dnnl_memory_desc_t md[N_OPERANDS] = {0};
    dnnl_status_t rc = describe_all(md, want);
    if (rc == dnnl_success)
        rc = dnnl_matmul_primitive_desc_create(out, engine, md[SRC], md[WEIGHTS], md[BIAS], md[DST],
                                               attr);
    forget(md);
    return rc;
}

dnnl_status_t dn_say_conv(dnnl_primitive_desc_t *out, dnnl_engine_t engine,
                          const_dnnl_primitive_attr_t attr, const dn_want *want)
{
    const dnnl_dims_t apart = {0};
    dnnl_memory_desc_t md[N_OPERANDS] = {0};
    dnnl_status_t rc = describe_all(md, want);
    if (rc == dnnl_success && want->kind == DN_CONV_BX)
        rc = dnnl_convolution_backward_data_primitive_desc_create(
            out, engine, dnnl_convolution_direct, md[DST], md[WEIGHTS], md[SRC], want->stride,
            apart, want->before, want->after, NULL, attr);
    else if (rc == dnnl_success)
        rc = dnnl_convolution_forward_primitive_desc_create(
            out, engine, dnnl_forward_inference, dnnl_convolution_direct, md[SRC], md[WEIGHTS],
            md[BIAS], md[DST], want->stride, apart, want->before, want->after, attr);
    forget(md);
    return rc;
}

dnnl_status_t dn_say_reorder(dnnl_primitive_desc_t *out, dnnl_engine_t engine, dnnl_memory_t from,
                             dnnl_memory_t to)
{
    const_dnnl_memory_desc_t a, b;
    DN_ASK(dnnl_memory_get_memory_desc(from, &a));
    DN_ASK(dnnl_memory_get_memory_desc(to, &b));
    return dnnl_reorder_primitive_desc_create(out, a, engine, b, engine, NULL);
}
