/* SPDX-License-Identifier: MIT */
/* From a node and the places of its operands to a descriptor, and from descriptors to kernels.  Two
 * nodes share a kernel when operation, shapes, strides, attributes and frozen inputs are equal.
 * Refuses to know where in memory operands lie. */
#include "graph/kernels.h"

#include <string.h>

#include "base/map.h"
#include "base/status.h"

void slr_kernels_init(slr_kernels *ks, slr_mem *m, slr_devices *devices)
{
    *ks = (slr_kernels){.m = m, .devices = devices};
    slr_buf_init(&ks->keys, m);
}

void slr_kernels_free(slr_kernels *ks)
{
    for (size_t i = ks->n; i-- > 0;)
        ks->items[i].backend->kernel_free(ks->items[i].kernel);
    slr_free(ks->m, ks->items);
    slr_free(ks->m, ks->slots);
    slr_free(ks->m, ks->tdesc);
    slr_free(ks->m, ks->consts);
    slr_buf_free(&ks->keys);
    *ks = (slr_kernels){0};
}

/* --- descriptors */

static sdlora_tdesc tdesc_of(const slr_shape *s, int64_t pitch)
{
    sdlora_tdesc t = {.dtype = s->dtype, .rank = (uint32_t)s->rank};
    int64_t stride = 1;
    for (int i = s->rank; i-- > 0;) {
        t.dim[i] = s->dim[i];
        t.stride[i] = stride;
        stride = i == s->rank - 1 && pitch ? pitch : stride * s->dim[i];
    }
    return t;
}

/* A reshape that must run copies: SLICE of everything. */
typedef struct copy_form {
    int64_t ints[3];
    slr_shape flat;
} copy_form;

/* Fills *d for node n.  Its arrays live in ks (and *copy) until the next call. */
static int describe(slr_kernels *ks, const slr_graph *g, const slr_layout *l, const slr_node *n,
                    copy_form *copy, sdlora_opdesc *d)
{
    size_t n_in = (size_t)n->n_in, n_out = (size_t)n->row->n_out;
    SLR_TRY(slr_grow(ks->m, &ks->tdesc, &ks->cap_tdesc, n_in + n_out, sizeof *ks->tdesc));
    SLR_TRY(slr_grow(ks->m, &ks->consts, &ks->cap_consts, n_in + 1, sizeof *ks->consts));
    bool as_copy = n->row->op == SDLORA_OP_RESHAPE, frozen = false;
    const slr_shape *y = &g->vals[n->out].shape;
    *copy = (copy_form){{0, 0, slr_count(y)}, {y->dtype, 1, {slr_count(y)}}};
    ks->pitched = false;
    for (size_t i = 0; i < n_in; i++) {
        ks->tdesc[i] = (sdlora_tdesc){0};
        ks->consts[i] = (sdlora_const){0};
        if (n->in[i] == SLR_NONE)
            continue;
        const slr_place *p = &l->place[n->in[i]];
        ks->tdesc[i] = tdesc_of(as_copy ? &copy->flat : &g->vals[n->in[i]].shape, p->pitch);
        ks->pitched = ks->pitched || p->pitch;
        if (p->constant != SLR_NONE) {
            const slr_tensor *t = g->vals[p->constant].tensor;
            ks->consts[i] = (sdlora_const){t->data, t->id};
            frozen = true;
        }
    }
    for (size_t o = 0; o < n_out; o++)
        ks->tdesc[n_in + o] =
            tdesc_of(as_copy ? &copy->flat : &g->vals[n->out + (slr_val)o].shape, 0);
    bool hide = (n->row->flags & SLR_OP_SHAPE_INTS) && !as_copy;
    *d = (sdlora_opdesc){.struct_size = sizeof *d,
                         .op = as_copy ? SDLORA_OP_SLICE : n->row->op,
                         .math = g->policy.math,
                         .flags = SDLORA_OPF_DETERMINISTIC,
                         .n_in = (uint32_t)n_in,
                         .n_out = (uint32_t)n_out,
                         .n_int = as_copy ? 3
                                  : hide  ? 0
                                          : (uint32_t)n->n_int,
                         .n_real = (uint32_t)n->n_real,
                         .in = ks->tdesc,
                         .out = ks->tdesc + n_in,
                         .ints = as_copy ? copy->ints
                                 : hide  ? NULL
                                         : n->ints,
                         .reals = n->reals,
                         .consts = frozen ? ks->consts : NULL};
    return SDLORA_OK;
}

/* --- sharing */

static void put_tdesc(slr_buf *b, const sdlora_tdesc *t)
{
    slr_buf_add(b, &t->dtype, sizeof t->dtype);
    slr_buf_add(b, &t->rank, sizeof t->rank);
    slr_buf_add(b, t->dim, t->rank * sizeof *t->dim);
    slr_buf_add(b, t->stride, t->rank * sizeof *t->stride);
}

/* Appends all that a kernel depends on. */
static void put_key(slr_buf *b, const sdlora_opdesc *d)
{
    uint32_t head[] = {d->op, d->math, d->n_in, d->n_out, d->n_int, d->n_real, d->consts != NULL};
    slr_buf_add(b, head, sizeof head);
    for (uint32_t i = 0; i < d->n_in; i++) {
        put_tdesc(b, &d->in[i]);
        if (d->consts)
            slr_buf_add(b, &d->consts[i].id, sizeof d->consts[i].id);
    }
    for (uint32_t i = 0; i < d->n_out; i++)
        put_tdesc(b, &d->out[i]);
    if (d->n_int)
        slr_buf_add(b, d->ints, d->n_int * sizeof *d->ints);
    if (d->n_real)
        slr_buf_add(b, d->reals, d->n_real * sizeof *d->reals);
}

/* Doubles the table when it is half full. */
static int make_room(slr_kernels *ks)
{
    if (ks->n_slots > 2 * (ks->n + 1))
        return SDLORA_OK;
    size_t n_slots = ks->n_slots ? 2 * ks->n_slots : 256;
    uint32_t *slots = slr_calloc(ks->m, n_slots, sizeof *slots);
    if (!slots)
        return SDLORA_ENOMEM;
    for (size_t i = 0; i < ks->n; i++) {
        size_t at = ks->items[i].hash & (n_slots - 1);
        while (slots[at])
            at = (at + 1) & (n_slots - 1);
        slots[at] = (uint32_t)i + 1;
    }
    slr_free(ks->m, ks->slots);
    ks->slots = slots;
    ks->n_slots = n_slots;
    return SDLORA_OK;
}

/* Where the kernel with this key is, or where it would go. */
static uint32_t *find_slot(slr_kernels *ks, uint64_t hash, const char *key, size_t bytes)
{
    for (size_t at = hash & (ks->n_slots - 1);; at = (at + 1) & (ks->n_slots - 1)) {
        if (!ks->slots[at])
            return &ks->slots[at];
        const slr_kernel *k = &ks->items[ks->slots[at] - 1];
        if (k->hash == hash && k->key_bytes == bytes && !memcmp(ks->keys.data + k->key, key, bytes))
            return &ks->slots[at];
    }
}

static int prepare(slr_kernels *ks, const sdlora_opdesc *d, slr_kernel k, uint32_t *slot)
{
    size_t which = 0;
    SLR_TRY(slr_grow(ks->m, &ks->items, &ks->cap, ks->n + 1, sizeof *ks->items));
    SLR_TRY(slr_devices_prepare(ks->devices, d, &which, &k.kernel, &k.scratch));
    k.backend = slr_devices_backend(ks->devices, which);
    k.queue = slr_devices_queue(ks->devices, which);
    ks->items[ks->n++] = k;
    *slot = (uint32_t)ks->n;
    return SDLORA_OK;
}

static int get(slr_kernels *ks, const sdlora_opdesc *d, uint32_t *out)
{
    size_t start = ks->keys.len;
    put_key(&ks->keys, d);
    SLR_TRY(slr_buf_ok(&ks->keys));
    SLR_TRY(make_room(ks));
    size_t bytes = ks->keys.len - start;
    uint64_t hash = slr_hash64(ks->keys.data + start, bytes, 0);
    uint32_t *slot = find_slot(ks, hash, ks->keys.data + start, bytes);
    if (*slot)
        ks->keys.len = start; /* known: the key is not kept twice */
    else
        SLR_TRY(prepare(ks, d, (slr_kernel){.key = start, .key_bytes = bytes, .hash = hash}, slot));
    *out = *slot - 1;
    return SDLORA_OK;
}

int slr_kernels_get(slr_kernels *ks, const slr_graph *g, const slr_layout *l, int32_t k,
                    uint32_t *out)
{
    const slr_node *n = &g->nodes[k];
    copy_form copy;
    sdlora_opdesc d;
    char label[256];
    SLR_TRY(describe(ks, g, l, n, &copy, &d));
    int rc = get(ks, &d, out);
    if (rc < 0 && rc != SDLORA_ENOMEM)
        slr_wrap("%s", slr_label(n->name, n->row, label));
    return rc;
}
