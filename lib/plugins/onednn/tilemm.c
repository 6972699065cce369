/* SPDX-License-Identifier: MIT */
/* Products of tiles through oneDNN's matmul, which picks the widest instructions there are, tiles
 * of AMX included.  Everything a call needs (memory objects, one set per slot) is made beforehand.
 * Takes only primitives whose packed layout it can write itself, and refuses the slow ones. */
#include "tilemm.h"

#include "library.h"

struct dn_tilemm_slot {
    dnnl_memory_t a, b, c, work;
};

/* --- making --- */

/* The layouts that are known: panels of `cols` columns, k ascending inside a panel, and for bf16
 * two values of k side by side. */
static bool read_layout(dn_tile_layout *b, const dn_layout *l)
{
    const int pair = l->type == SDLORA_BF16 ? 2 : 1;
    if (l->cuts != pair + 1 || l->axis[0] != 0 || l->axis[1] != 1 || l->block[1] % 16 != 0 ||
        (pair == 2 && (l->axis[2] != 0 || l->block[2] != 2)))
        return false;
    b->cols = l->block[1];
    b->pair = pair;
    b->col_step = l->stride[1];
    b->depth = l->padded[0];
    b->bytes = dn_layout_bytes(l);
    return l->stride[0] == l->block[0] * b->cols * pair;
}

static dnnl_status_t make_slots(dn_tilemm *t, const sdlora_dev *dev, const dn_want *want,
                                const dn_made *made)
{
    const dn_layout *const layout[4] = {&want->src, &made->weights, &want->dst, &made->scratch};
    for (int i = 0; i < t->n_slots; i++) {
        dnnl_memory_t *const to[4] = {&t->slots[i].a, &t->slots[i].b, &t->slots[i].c,
                                      &t->slots[i].work};
        for (int j = 0; j < (t->work_bytes ? 4 : 3); j++)
            DN_ASK(dn_memory_new(to[j], dev->engine, layout[j], NULL));
    }
    return dnnl_success;
}

int dn_tilemm_init(dn_tilemm *t, const sdlora_dev *dev, uint32_t type, int64_t m, int64_t n,
                   int64_t k, bool add)
{
    const dn_want want = {.kind = DN_MATMUL,
                          .src = dn_layout_dense(type, 2, (int64_t[]){m, k}),
                          .weights = dn_layout_open(type, 2, (int64_t[]){k, n}),
                          .dst = dn_layout_dense(SDLORA_F32, 2, (int64_t[]){m, n}),
                          .sum = add,
                          .alpha = 1.0f};
    dn_made made;
    *t = (dn_tilemm){.m = m, .n = n, .k = k, .n_slots = dev->slots};
    t->slots = dn_alloc(dev, (size_t)dev->slots * sizeof *t->slots);
    if (!t->slots)
        return SDLORA_ENOMEM;
    dnnl_status_t s = dn_library_make(&made, dev->engine, &want);
    if (s == dnnl_success) {
        t->prim = made.primitive;
        t->work_bytes = dn_round_up(made.scratch.dim[0], 64);
        s = read_layout(&t->b, &made.weights) ? make_slots(t, dev, &want, &made)
                                              : dnnl_unimplemented;
    }
    return s == dnnl_success ? SDLORA_OK : dn_fail_dnnl(dev, s, "a product of tiles");
}

void dn_tilemm_free(const sdlora_dev *dev, dn_tilemm *t)
{
    for (int i = 0; t->slots && i < t->n_slots; i++) {
        dnnl_memory_destroy(t->slots[i].a);
        dnnl_memory_destroy(t->slots[i].b);
        dnnl_memory_destroy(t->slots[i].c);
        dnnl_memory_destroy(t->slots[i].work);
    }
    dn_free(dev, t->slots);
    dnnl_primitive_destroy(t->prim);
    *t = (dn_tilemm){0};
}

/* --- running --- */

int dn_tilemm_run(const dn_tilemm *t, const sdlora_dev *dev, int slot, const void *a, const void *b,
                  float *c, void *work)
{
    const struct dn_tilemm_slot *o = &t->slots[slot];
    const dnnl_exec_arg_t args[] = {{DNNL_ARG_SRC, o->a},
                                    {DNNL_ARG_WEIGHTS, o->b},
                                    {DNNL_ARG_DST, o->c},
                                    {DNNL_ARG_SCRATCHPAD, o->work}};
    dnnl_status_t s = dn_memory_place(o->a, dev->stream, a);
    if (s == dnnl_success)
        s = dn_memory_place(o->b, dev->stream, b);
    if (s == dnnl_success)
        s = dn_memory_place(o->c, dev->stream, c);
    if (s == dnnl_success && o->work)
        s = dn_memory_place(o->work, dev->stream, work);
    if (s == dnnl_success)
        s = dnnl_primitive_execute(t->prim, dev->stream, o->work ? 4 : 3, args);
    return s == dnnl_success ? SDLORA_OK : dn_fail_dnnl(dev, s, "a product of tiles");
}
