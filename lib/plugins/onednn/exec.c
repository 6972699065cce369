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
    dn_layout weights;
    int id[N_ROLES]; /* DNNL_ARG_*; 0: absent, or not the slots' own */
    size_t scratch;
    dnnl_stream_t stream;
    dnnl_memory_t *mem; /* [slots][N_ROLES] */
};

/* --- descriptions --- */

static dn_layout matrix(int64_t rows, int64_t cols, uint32_t type, int64_t row, int64_t col)
{
    return dn_layout_strided(type, 2, (int64_t[]){rows, cols}, (int64_t[]){row, col});
}

static void want_product(dn_want *want, const dn_spec *s)
{
    const bool trans = s->b == DN_B_TRANS;
    want->src = matrix(s->m, s->k, s->type, s->ta ? 1 : s->lda, s->ta ? s->lda : 1);
    want->weights = s->b == DN_B_PACKED
                        ? dn_layout_open(s->type, 2, (int64_t[]){s->k, s->n})
                        : matrix(s->k, s->n, s->type, trans ? 1 : s->ldb, trans ? s->ldb : 1);
    want->dst = matrix(s->m, s->n, s->out, s->ldc, 1);
    if (s->bias)
        want->bias = matrix(1, s->n, SDLORA_F32, s->n, 1);
    if (s->add == DN_ADD_ELSEWHERE)
        want->add = matrix(s->m, s->n, s->add_type, s->ldc, 1);
}

/* One picture, channels last. */
static dn_layout image(int64_t c, int64_t h, int64_t w, uint32_t type)
{
    return dn_layout_strided(type, 4, (int64_t[]){1, c, h, w}, (int64_t[]){h * w * c, 1, w * c, c});
}

static void want_conv(dn_want *want, const dn_spec *s)
{
    const bool back = s->kind == DN_CONV_BX;
    const dn_layout x = image(s->c, s->h, s->w, back ? s->out : s->type);
    const dn_layout y = image(s->filters, s->oh, s->ow, back ? s->type : s->out);
    want->src = back ? y : x;
    want->dst = back ? x : y;
    want->weights = dn_layout_open(s->type, 4, (int64_t[]){s->filters, s->c, s->r, s->s});
    if (s->bias)
        want->bias = dn_layout_dense(SDLORA_F32, 1, &s->filters);
    want->stride[0] = s->stride_h;
    want->stride[1] = s->stride_w;
    want->before[0] = s->top;
    want->before[1] = s->left;
    want->after[0] = s->bottom;
    want->after[1] = s->right;
}

/* --- making --- */

/* A set of memory objects per slot, of the roles whose addresses come with a run. */
static dnnl_status_t make_memory(dn_exec *e, const sdlora_dev *dev, const dn_want *want,
                                 const dn_made *made)
{
    const dn_layout *const layout[N_ROLES] = {&want->src,  &want->dst, &made->weights,
                                              &want->bias, &want->add, &made->scratch};
    const int id[N_ROLES] = {made->src,     made->dst, DNNL_ARG_WEIGHTS,
                             DNNL_ARG_BIAS, made->add, DNNL_ARG_SCRATCHPAD};
    for (int i = 0; i < N_ROLES; i++)
        e->id[i] = layout[i]->rank && layout[i]->dim[0] ? id[i] : 0;
    if (e->spec.b == DN_B_PACKED)
        e->id[WEIGHTS] = 0;
    for (int i = 0; i < dev->slots * N_ROLES; i++)
        if (e->id[i % N_ROLES])
            DN_ASK(dn_memory_new(&e->mem[i], dev->engine, layout[i % N_ROLES], NULL));
    return dnnl_success;
}

static dnnl_status_t make(dn_exec *e, const sdlora_dev *dev)
{
    dn_want want = {
        .kind = e->spec.kind, .alpha = e->spec.alpha, .sum = e->spec.add == DN_ADD_IN_PLACE};
    dn_made made;
    (e->spec.kind == DN_MATMUL ? want_product : want_conv)(&want, &e->spec);
    DN_ASK(dn_library_make(&made, dev->engine, &want));
    e->primitive = made.primitive;
    e->weights = made.weights;
    e->scratch = (size_t)made.scratch.dim[0];
    return make_memory(e, dev, &want, &made);
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
    const dnnl_status_t rc = make(e, dev);
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

const dn_layout *dn_exec_weights(const dn_exec *e)
{
    return &e->weights;
}

dnnl_status_t dn_exec_run(const dn_exec *e, int slot, const dn_operands *o)
{
    const void *const at[N_ROLES] = {o->src, o->dst, o->plain, o->bias, o->add, o->scratch};
    dnnl_memory_t *mem = e->mem + slot * N_ROLES;
    dnnl_exec_arg_t args[N_ROLES];
    int n = 0;
    for (int i = 0; i < N_ROLES; i++) {
        if (!e->id[i])
            continue;
        DN_ASK(dn_memory_place(mem[i], e->stream, at[i]));
        args[n++] = (dnnl_exec_arg_t){e->id[i], mem[i]};
    }
    if (o->packed)
        args[n++] = (dnnl_exec_arg_t){DNNL_ARG_WEIGHTS, o->packed};
    return dnnl_primitive_execute(e->primitive, e->stream, n, args);
}
