/* SPDX-License-Identifier: MIT */
/* From a dn_spec to a primitive with its memory objects.  A memory object has one address at a
 * time, so there is a set per slot; launches of one device take turns.  Refuses to know how work is
 * cut and where weights come from. */
#include "exec.h"

#include <pthread.h>
#include <string.h>

enum { SRC, DST, WEIGHTS, BIAS, ADD, SCRATCH, N_ROLES };

struct dn_exec {
    dn_exec *next;
    dn_spec spec;
    int refs;
    dnnl_primitive_t primitive;
    dnnl_memory_desc_t md[N_ROLES];
    int id[N_ROLES]; /* DNNL_ARG_*; 0: absent, or not the slots' own */
    size_t scratch;
    dnnl_stream_t stream;
    dnnl_memory_t *mem; /* [slots][N_ROLES] */
};

dnnl_data_type_t dn_type(uint32_t dtype)
{
    return dtype == SDLORA_BF16 ? dnnl_bf16 : dnnl_f32;
}

/* --- layouts --- */

static int64_t block_of(const dnnl_memory_desc_t *md, int axis)
{
    int64_t block = 1;
    for (int i = 0; i < md->format_desc.blocking.inner_nblks; i++)
        if (md->format_desc.blocking.inner_idxs[i] == axis)
            block *= md->format_desc.blocking.inner_blks[i];
    return block;
}

bool dn_md_widen(dnnl_memory_desc_t *out, const dnnl_memory_desc_t *panel, int axis, int64_t n)
{
    *out = *panel;
    if (panel->format_kind != dnnl_blocked)
        return false;
    if (panel->dims[axis] == n)
        return true;
    const dnnl_blocking_desc_t *b = &panel->format_desc.blocking;
    const int64_t block = block_of(panel, axis);
    for (int i = 0; i < panel->ndims; i++)
        if (i != axis && panel->dims[i] > 1 && b->strides[i] > b->strides[axis])
            return false;
    if (panel->dims[axis] % block || block == 1)
        return false;
    out->dims[axis] = n;
    out->padded_dims[axis] = dn_round_up(n, block);
    return true;
}

void dn_md_panel(dnnl_memory_desc_t *out, const dnnl_memory_desc_t *wide, int axis, int64_t n)
{
    *out = *wide;
    out->dims[axis] = n;
    out->padded_dims[axis] = dn_round_up(n, block_of(wide, axis));
}

int64_t dn_md_offset(const dnnl_memory_desc_t *md, int axis, int64_t n0)
{
    const int64_t block = block_of(md, axis);
    if (n0 % block)
        return -1;
    return n0 / block * md->format_desc.blocking.strides[axis] *
           (md->data_type == dnnl_bf16 ? 2 : 4);
}

/* --- descriptors --- */

static dnnl_status_t matrix(dnnl_memory_desc_t *md, int64_t rows, int64_t cols, uint32_t dtype,
                            int64_t row_step, int64_t col_step)
{
    const dnnl_dims_t dims = {rows, cols}, strides = {row_step, col_step};
    return dnnl_memory_desc_init_by_strides(md, 2, dims, dn_type(dtype), strides);
}

static dnnl_status_t image(dnnl_memory_desc_t *md, int64_t c, int64_t h, int64_t w, uint32_t dtype)
{
    const dnnl_dims_t dims = {1, c, h, w};
    return dnnl_memory_desc_init_by_tag(md, 4, dims, dn_type(dtype), dnnl_nhwc);
}

#define TRY(expr)                                                                                  \
    do {                                                                                           \
        dnnl_status_t try_rc_ = (expr);                                                            \
        if (try_rc_ != dnnl_success)                                                               \
            return try_rc_;                                                                        \
    } while (0)

static dnnl_status_t describe_matmul(dnnl_primitive_desc_t *out, dn_exec *e,
                                     const_dnnl_primitive_attr_t attr, dnnl_engine_t engine)
{
    const dn_spec *s = &e->spec;
    const dnnl_dims_t b = {s->k, s->n};
    const bool trans = s->b == DN_B_TRANS;
    dnnl_matmul_desc_t d;
    TRY(matrix(&e->md[SRC], s->m, s->k, s->type, s->ta ? 1 : s->lda, s->ta ? s->lda : 1));
    if (s->b == DN_B_PACKED)
        TRY(dnnl_memory_desc_init_by_tag(&e->md[WEIGHTS], 2, b, dn_type(s->type),
                                         dnnl_format_tag_any));
    else
        TRY(matrix(&e->md[WEIGHTS], s->k, s->n, s->type, trans ? 1 : s->ldb, trans ? s->ldb : 1));
    TRY(matrix(&e->md[DST], s->m, s->n, s->out, s->ldc, 1));
    TRY(matrix(&e->md[BIAS], 1, s->n, SDLORA_F32, s->n, 1));
    TRY(dnnl_matmul_desc_init(&d, &e->md[SRC], &e->md[WEIGHTS], s->bias ? &e->md[BIAS] : NULL,
                              &e->md[DST]));
    e->id[SRC] = DNNL_ARG_SRC;
    e->id[DST] = DNNL_ARG_DST;
    return dnnl_primitive_desc_create(out, &d, attr, engine, NULL);
}

/* The filters of DN_CONV_BX are those of the forward pass: [filters, c, r, s]. */
static dnnl_status_t describe_conv(dnnl_primitive_desc_t *out, dn_exec *e,
                                   const_dnnl_primitive_attr_t attr, dnnl_engine_t engine)
{
    const dn_spec *s = &e->spec;
    const bool back = s->kind == DN_CONV_BX;
    const dnnl_dims_t w = {s->filters, s->c, s->r, s->s}, bias = {s->filters};
    const dnnl_dims_t strides = {s->stride_h, s->stride_w};
    const dnnl_dims_t before = {s->top, s->left}, after = {s->bottom, s->right};
    const int x = back ? DST : SRC, y = back ? SRC : DST;
    dnnl_convolution_desc_t d;
    TRY(image(&e->md[x], s->c, s->h, s->w, back ? s->out : s->type));
    TRY(image(&e->md[y], s->filters, s->oh, s->ow, back ? s->type : s->out));
    TRY(dnnl_memory_desc_init_by_tag(&e->md[WEIGHTS], 4, w, dn_type(s->type), dnnl_format_tag_any));
    TRY(dnnl_memory_desc_init_by_tag(&e->md[BIAS], 1, bias, dnnl_f32, dnnl_a));
    if (back)
        TRY(dnnl_convolution_backward_data_desc_init(&d, dnnl_convolution_direct, &e->md[x],
                                                     &e->md[WEIGHTS], &e->md[y], strides, before,
                                                     after));
    else
        TRY(dnnl_convolution_forward_desc_init(
            &d, dnnl_forward_inference, dnnl_convolution_direct, &e->md[x], &e->md[WEIGHTS],
            s->bias ? &e->md[BIAS] : NULL, &e->md[y], strides, before, after));
    e->id[x] = back ? DNNL_ARG_DIFF_SRC : DNNL_ARG_SRC;
    e->id[y] = back ? DNNL_ARG_DIFF_DST : DNNL_ARG_DST;
    return dnnl_primitive_desc_create(out, &d, attr, engine, NULL);
}

/* Scale first, then the addend. */
static dnnl_status_t attributes(dnnl_primitive_attr_t attr, dnnl_post_ops_t ops, dn_exec *e)
{
    const dn_spec *s = &e->spec;
    TRY(dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user));
    if (s->alpha != 1.0f && s->kind == DN_MATMUL)
        TRY(dnnl_primitive_attr_set_output_scales(attr, 1, 0, &s->alpha));
    if (s->alpha != 1.0f && s->kind != DN_MATMUL) /* fast convolutions know no scale of floats */
        TRY(dnnl_post_ops_append_eltwise(ops, 1.0f, dnnl_eltwise_linear, s->alpha, 0.0f));
    if (s->add == DN_ADD_IN_PLACE)
        TRY(dnnl_post_ops_append_sum(ops, 1.0f));
    if (s->add == DN_ADD_ELSEWHERE) {
        TRY(matrix(&e->md[ADD], s->m, s->n, s->add_type, s->ldc, 1));
        TRY(dnnl_post_ops_append_binary(ops, dnnl_binary_add, &e->md[ADD]));
    }
    return dnnl_primitive_attr_set_post_ops(attr, ops);
}

/* The reference loops of the library are slower than anything of the core. */
static bool is_fast(const_dnnl_primitive_desc_t pd)
{
    const char *name = NULL;
    dnnl_status_t rc = dnnl_primitive_desc_query(pd, dnnl_query_impl_info_str, 0, (void *)&name);
    return rc == dnnl_success && (!strncmp(name, "brg", 3) || !strncmp(name, "jit", 3));
}

static dnnl_status_t make_primitive(dn_exec *e, dnnl_engine_t engine,
                                    const_dnnl_primitive_attr_t attr)
{
    dnnl_primitive_desc_t pd = NULL;
    TRY(e->spec.kind == DN_MATMUL ? describe_matmul(&pd, e, attr, engine)
                                  : describe_conv(&pd, e, attr, engine));
    dnnl_status_t rc = is_fast(pd) ? dnnl_success : dnnl_unimplemented;
    if (rc == dnnl_success) {
        e->md[WEIGHTS] = *dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 0);
        e->md[SCRATCH] = *dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0);
        rc = dnnl_primitive_create(&e->primitive, pd);
    }
    dnnl_primitive_desc_destroy(pd);
    return rc;
}

static dnnl_status_t make(dn_exec *e, const sdlora_dev *dev)
{
    dnnl_primitive_attr_t attr = NULL;
    dnnl_post_ops_t ops = NULL;
    dnnl_status_t rc = dnnl_primitive_attr_create(&attr);
    if (rc == dnnl_success)
        rc = dnnl_post_ops_create(&ops);
    if (rc == dnnl_success)
        rc = attributes(attr, ops, e);
    if (rc == dnnl_success)
        rc = make_primitive(e, dev->engine, attr);
    dnnl_post_ops_destroy(ops);
    dnnl_primitive_attr_destroy(attr);
    return rc;
}

/* The roles whose addresses come with a run. */
static dnnl_status_t make_memory(dn_exec *e, const sdlora_dev *dev)
{
    e->id[WEIGHTS] = e->spec.b == DN_B_PACKED ? 0 : DNNL_ARG_WEIGHTS;
    e->id[BIAS] = e->spec.bias ? DNNL_ARG_BIAS : 0;
    e->id[ADD] =
        e->spec.add == DN_ADD_ELSEWHERE ? DNNL_ARG_ATTR_MULTIPLE_POST_OP(0) | DNNL_ARG_SRC_1 : 0;
    e->scratch = dnnl_memory_desc_get_size(&e->md[SCRATCH]);
    e->id[SCRATCH] = e->scratch ? DNNL_ARG_SCRATCHPAD : 0;
    for (int i = 0; i < dev->slots * N_ROLES; i++)
        if (e->id[i % N_ROLES])
            TRY(dnnl_memory_create(&e->mem[i], &e->md[i % N_ROLES], dev->engine, DNNL_MEMORY_NONE));
    return dnnl_success;
}

/* --- sharing */

static void destroy(sdlora_dev *dev, dn_exec *e)
{
    for (int i = 0; e->mem && i < dev->slots * N_ROLES; i++)
        if (e->mem[i])
            dnnl_memory_destroy(e->mem[i]);
    if (e->primitive)
        dnnl_primitive_destroy(e->primitive);
    dn_free(dev, e->mem);
    dn_free(dev, e);
}

static int create(dn_exec **out, sdlora_dev *dev, const dn_spec *spec)
{
    dn_exec *e = dn_alloc(dev, sizeof *e);
    if (!e)
        return SDLORA_ENOMEM;
    memcpy(&e->spec, spec, sizeof *spec);
    e->stream = dev->stream;
    e->refs = 1;
    e->mem = dn_alloc(dev, (size_t)dev->slots * N_ROLES * sizeof *e->mem);
    if (!e->mem) {
        destroy(dev, e);
        return SDLORA_ENOMEM;
    }
    dnnl_status_t rc = make(e, dev);
    if (rc == dnnl_success)
        rc = make_memory(e, dev);
    if (rc != dnnl_success) {
        destroy(dev, e);
        return dn_fail_dnnl(dev, rc, spec->kind == DN_MATMUL ? "a product" : "a convolution");
    }
    *out = e;
    return SDLORA_OK;
}

int dn_exec_get(dn_exec **out, sdlora_dev *dev, const dn_spec *spec)
{
    int rc = SDLORA_OK;
    *out = NULL;
    pthread_mutex_lock(&dev->lock);
    for (dn_exec *e = dev->execs; e && !*out; e = e->next)
        if (!memcmp(&e->spec, spec, sizeof *spec)) {
            e->refs++;
            *out = e;
        }
    if (!*out) {
        rc = create(out, dev, spec);
        if (rc >= 0) {
            (*out)->next = dev->execs;
            dev->execs = *out;
        }
    }
    pthread_mutex_unlock(&dev->lock);
    return rc;
}

void dn_exec_put(sdlora_dev *dev, dn_exec *e)
{
    if (!e)
        return;
    pthread_mutex_lock(&dev->lock);
    const bool last = --e->refs == 0;
    if (last) {
        dn_exec **at = &dev->execs;
        while (*at != e)
            at = &(*at)->next;
        *at = e->next;
    }
    pthread_mutex_unlock(&dev->lock);
    if (last)
        destroy(dev, e);
}

/* --- running */

size_t dn_exec_scratch(const dn_exec *e)
{
    return (e->scratch + 63) / 64 * 64;
}

const dnnl_memory_desc_t *dn_exec_weights(const dn_exec *e)
{
    return &e->md[WEIGHTS];
}

dnnl_status_t dn_exec_run(const dn_exec *e, int slot, const dn_operands *o)
{
    /* addresses of inputs are not written through: the library takes one type for all */
    void *const at[N_ROLES] = {(void *)(uintptr_t)o->src,   o->dst,
                               (void *)(uintptr_t)o->plain, (void *)(uintptr_t)o->bias,
                               (void *)(uintptr_t)o->add,   o->scratch};
    dnnl_memory_t *mem = e->mem + slot * N_ROLES;
    dnnl_exec_arg_t args[N_ROLES];
    int n = 0;
    for (int i = 0; i < N_ROLES; i++) {
        if (!e->id[i])
            continue;
        TRY(dnnl_memory_set_data_handle_v2(mem[i], at[i], e->stream));
        args[n++] = (dnnl_exec_arg_t){e->id[i], mem[i]};
    }
    if (o->packed)
        args[n++] = (dnnl_exec_arg_t){DNNL_ARG_WEIGHTS, o->packed};
    return dnnl_primitive_execute(e->primitive, e->stream, n, args);
}
