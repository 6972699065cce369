/* SPDX-License-Identifier: MIT */
/* Arithmetic of layouts, and what it takes to make a primitive and to relay, in the words that
 * both versions of oneDNN share. */
#include "library.h"

#include <string.h>

#include <sdlora/ops.h>

#include "dialect.h"

/* --- layouts --- */

dn_layout dn_layout_open(uint32_t type, int rank, const int64_t *dim)
{
    dn_layout l = {.type = type, .open = true, .rank = rank};
    for (int i = 0; i < rank; i++)
        l.dim[i] = l.padded[i] = dim[i];
    return l;
}

dn_layout dn_layout_strided(uint32_t type, int rank, const int64_t *dim, const int64_t *stride)
{
    dn_layout l = dn_layout_open(type, rank, dim);
    l.open = false;
    for (int i = 0; i < rank; i++)
        l.stride[i] = stride[i];
    return l;
}

dn_layout dn_layout_dense(uint32_t type, int rank, const int64_t *dim)
{
    dnnl_dims_t stride;
    int64_t step = 1;
    for (int i = rank; i-- > 0; step *= dim[i])
        stride[i] = step;
    return dn_layout_strided(type, rank, dim, stride);
}

bool dn_layout_same(const dn_layout *a, const dn_layout *b)
{
    const size_t n = (size_t)a->rank * sizeof *a->dim;
    return a->type == b->type && a->open == b->open && a->rank == b->rank && a->cuts == b->cuts &&
           !memcmp(a->dim, b->dim, n) && !memcmp(a->padded, b->padded, n) &&
           !memcmp(a->stride, b->stride, n) &&
           !memcmp(a->block, b->block, (size_t)a->cuts * sizeof *a->block) &&
           !memcmp(a->axis, b->axis, (size_t)a->cuts * sizeof *a->axis);
}

static int64_t block_of(const dn_layout *l, int axis)
{
    int64_t block = 1;
    for (int i = 0; i < l->cuts; i++)
        if (l->axis[i] == axis)
            block *= l->block[i];
    return block;
}

static int64_t size_of(uint32_t type)
{
    return type == SDLORA_U8 ? 1 : type == SDLORA_BF16 ? 2 : 4;
}

int64_t dn_layout_bytes(const dn_layout *l)
{
    int64_t last = 0, block = 1;
    for (int i = 0; i < l->rank; i++) {
        if (l->dim[i] == 0)
            return 0;
        last += (l->padded[i] / block_of(l, i) - 1) * l->stride[i];
    }
    for (int i = 0; i < l->cuts; i++)
        block *= l->block[i];
    return (last + block) * size_of(l->type);
}

dn_layout dn_layout_panel(const dn_layout *wide, int axis, int64_t n)
{
    const int64_t block = block_of(wide, axis);
    dn_layout l = *wide;
    l.dim[axis] = n;
    l.padded[axis] = (n + block - 1) / block * block;
    return l;
}

bool dn_layout_widen(dn_layout *out, const dn_layout *panel, int axis, int64_t n)
{
    const int64_t block = block_of(panel, axis);
    *out = *panel;
    if (panel->dim[axis] == n)
        return true;
    for (int i = 0; i < panel->rank; i++)
        if (i != axis && panel->dim[i] > 1 && panel->stride[i] > panel->stride[axis])
            return false;
    if (panel->dim[axis] % block || block == 1)
        return false;
    *out = dn_layout_panel(panel, axis, n);
    return true;
}

int64_t dn_layout_offset(const dn_layout *l, int axis, int64_t n0)
{
    const int64_t block = block_of(l, axis);
    return n0 % block ? -1 : n0 / block * l->stride[axis] * size_of(l->type);
}

/* --- primitives --- */

/* The reference loops of the library are slower than anything of the core. */
static bool is_fast(const_dnnl_primitive_desc_t pd)
{
    const char *name = NULL;
    dnnl_status_t rc = dnnl_primitive_desc_query(pd, dnnl_query_impl_info_str, 0, (void *)&name);
    return rc == dnnl_success && (!strncmp(name, "brg", 3) || !strncmp(name, "jit", 3));
}

static dnnl_status_t take(dn_made *out, const_dnnl_primitive_desc_t pd, const dn_want *want)
{
    const int64_t bytes = (int64_t)dnnl_memory_desc_get_size(
        dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0));
    const bool back = want->kind == DN_CONV_BX;
    if (!is_fast(pd))
        return dnnl_unimplemented;
    *out = (dn_made){
        .scratch = dn_layout_dense(SDLORA_U8, 1, &bytes),
        .src = back ? DNNL_ARG_DIFF_DST : DNNL_ARG_SRC,
        .dst = back ? DNNL_ARG_DIFF_SRC : DNNL_ARG_DST,
        .add = DNNL_ARG_ATTR_MULTIPLE_POST_OP(want->alpha != 1.0f) | DNNL_ARG_SRC_1,
    };
    DN_ASK(dn_say_weights(&out->weights, pd));
    return dnnl_primitive_create(&out->primitive, pd);
}

static dnnl_status_t make_with(dn_made *out, dnnl_engine_t engine, const dn_want *want,
                               dnnl_primitive_attr_t attr, dnnl_post_ops_t ops)
{
    dnnl_primitive_desc_t pd = NULL;
    DN_ASK(dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user));
    DN_ASK(dn_say_ops(ops, want));
    DN_ASK(dnnl_primitive_attr_set_post_ops(attr, ops));
    DN_ASK((want->kind == DN_MATMUL ? dn_say_product : dn_say_conv)(&pd, engine, attr, want));
    dnnl_status_t rc = take(out, pd, want);
    dnnl_primitive_desc_destroy(pd);
    return rc;
}

dnnl_status_t dn_library_make(dn_made *out, dnnl_engine_t engine, const dn_want *want)
{
    dnnl_primitive_attr_t attr = NULL;
    dnnl_post_ops_t ops = NULL;
    dnnl_status_t rc = dnnl_primitive_attr_create(&attr);
    if (rc == dnnl_success)
        rc = dnnl_post_ops_create(&ops);
    if (rc == dnnl_success)
        rc = make_with(out, engine, want, attr, ops);
    dnnl_post_ops_destroy(ops);
    dnnl_primitive_attr_destroy(attr);
    return rc;
}

/* --- memory --- */

dnnl_status_t dn_memory_new(dnnl_memory_t *out, dnnl_engine_t engine, const dn_layout *l,
                            void *data)
{
    return dn_say_memory(out, engine, l, 0, 0, l->dim[0], data ? data : DNNL_MEMORY_NONE);
}

dnnl_status_t dn_memory_place(dnnl_memory_t memory, dnnl_stream_t stream, const void *data)
{
    /* the library takes one type of address for what it reads and what it writes */
    return dn_say_place(memory, stream, (void *)(uintptr_t)data);
}

static dnnl_status_t reorder(dnnl_engine_t engine, dnnl_stream_t stream, dnnl_memory_t from,
                             dnnl_memory_t to)
{
    const dnnl_exec_arg_t args[2] = {{DNNL_ARG_FROM, from}, {DNNL_ARG_TO, to}};
    dnnl_primitive_desc_t pd = NULL;
    dnnl_primitive_t p = NULL;
    DN_ASK(dn_say_reorder(&pd, engine, from, to));
    dnnl_status_t rc = dnnl_primitive_create(&p, pd);
    if (rc == dnnl_success)
        rc = dnnl_primitive_execute(p, stream, 2, args);
    dnnl_primitive_destroy(p);
    dnnl_primitive_desc_destroy(pd);
    return rc;
}

dnnl_status_t dn_library_relay(dnnl_engine_t engine, dnnl_stream_t stream, const dn_layout *from,
                               const void *src, const dn_layout *to, int axis, int64_t n0,
                               void *dst)
{
    dnnl_memory_t a = NULL, b = NULL;
    dnnl_status_t rc = dn_memory_new(&a, engine, from, (void *)(uintptr_t)src);
    if (rc == dnnl_success)
        rc = dn_say_memory(&b, engine, to, axis, n0, from->dim[axis], dst);
    if (rc == dnnl_success)
        rc = reorder(engine, stream, a, b);
    dnnl_memory_destroy(b);
    dnnl_memory_destroy(a);
    return rc;
}
