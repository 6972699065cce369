/* SPDX-License-Identifier: MIT */
/* Products of tiles through oneDNN's matmul, which picks the widest instructions there are, tiles
 * of AMX included.  Everything a call needs (memory objects, one set per slot) is made beforehand.
 * Takes only primitives whose packed layout it can write itself, and refuses the slow ones. */
#include "tilemm.h"

#include <string.h>

struct dn_tilemm_slot {
    dnnl_memory_t a, b, c, work;
};

/* --- making --- */

/* The layouts that are known: panels of `cols` columns, k ascending inside a panel, and for bf16
 * two values of k side by side. */
static bool read_layout(dn_tile_layout *b, const dnnl_memory_desc_t *md, uint32_t type)
{
    const dnnl_blocking_desc_t *d = &md->format_desc.blocking;
    const int pair = type == SDLORA_BF16 ? 2 : 1;
    if (md->format_kind != dnnl_blocked || d->inner_nblks != pair + 1 || d->inner_idxs[0] != 0 ||
        d->inner_idxs[1] != 1 || d->inner_blks[1] % 16 != 0 ||
        (pair == 2 && (d->inner_idxs[2] != 0 || d->inner_blks[2] != 2)))
        return false;
    b->cols = d->inner_blks[1];
    b->pair = pair;
    b->col_step = d->strides[1];
    b->depth = md->padded_dims[0];
    b->bytes = (int64_t)dnnl_memory_desc_get_size(md);
    return d->strides[0] == d->inner_blks[0] * b->cols * pair && md->offset0 == 0;
}

static dnnl_status_t dense(dnnl_memory_desc_t *md, int64_t rows, int64_t cols,
                           dnnl_data_type_t type)
{
    const dnnl_dims_t dims = {rows, cols};
    return dnnl_memory_desc_init_by_tag(md, 2, dims, type, dnnl_ab);
}

/* The attributes: scratch is ours, and a sum where C is added to. */
static dnnl_status_t attributes(dnnl_primitive_attr_t *out, bool add)
{
    dnnl_post_ops_t sum = NULL;
    dnnl_status_t s = dnnl_primitive_attr_create(out);
    if (s == dnnl_success)
        s = dnnl_primitive_attr_set_scratchpad_mode(*out, dnnl_scratchpad_mode_user);
    if (s == dnnl_success && add)
        s = dnnl_post_ops_create(&sum);
    if (s == dnnl_success && add)
        s = dnnl_post_ops_append_sum(sum, 1.0f);
    if (s == dnnl_success && add)
        s = dnnl_primitive_attr_set_post_ops(*out, sum);
    dnnl_post_ops_destroy(sum);
    return s;
}

static dnnl_status_t describe(dnnl_primitive_desc_t *out, const sdlora_dev *dev, const dn_tilemm *t,
                              dnnl_data_type_t type, bool add)
{
    dnnl_memory_desc_t a, b, c;
    dnnl_matmul_desc_t product;
    dnnl_primitive_attr_t attr = NULL;
    const dnnl_dims_t dims = {t->k, t->n};
    dnnl_status_t s = dense(&a, t->m, t->k, type);
    if (s == dnnl_success)
        s = dnnl_memory_desc_init_by_tag(&b, 2, dims, type, dnnl_format_tag_any);
    if (s == dnnl_success)
        s = dense(&c, t->m, t->n, dnnl_f32);
    if (s == dnnl_success)
        s = dnnl_matmul_desc_init(&product, &a, &b, NULL, &c);
    if (s == dnnl_success)
        s = attributes(&attr, add);
    if (s == dnnl_success)
        s = dnnl_primitive_desc_create(out, &product, attr, dev->engine, NULL);
    dnnl_primitive_attr_destroy(attr);
    return s;
}

static dnnl_status_t make_slots(dn_tilemm *t, const sdlora_dev *dev, const_dnnl_primitive_desc_t pd)
{
    const dnnl_query_t what[4] = {dnnl_query_src_md, dnnl_query_weights_md, dnnl_query_dst_md,
                                  dnnl_query_scratchpad_md};
    for (int i = 0; i < t->n_slots; i++) {
        dnnl_memory_t *const to[4] = {&t->slots[i].a, &t->slots[i].b, &t->slots[i].c,
                                      &t->slots[i].work};
        for (int j = 0; j < 4; j++) {
            dnnl_status_t s = dnnl_memory_create(
                to[j], dnnl_primitive_desc_query_md(pd, what[j], 0), dev->engine, DNNL_MEMORY_NONE);
            if (s != dnnl_success)
                return s;
        }
    }
    return dnnl_success;
}

int dn_tilemm_init(dn_tilemm *t, const sdlora_dev *dev, uint32_t type, int64_t m, int64_t n,
                   int64_t k, bool add)
{
    const dnnl_data_type_t to = type == SDLORA_BF16 ? dnnl_bf16 : dnnl_f32;
    dnnl_primitive_desc_t pd = NULL;
    const char *name = "";
    int rc = SDLORA_OK;
    *t = (dn_tilemm){.m = m, .n = n, .k = k, .n_slots = dev->slots};
    t->slots = dn_alloc(dev, (size_t)dev->slots * sizeof *t->slots);
    if (!t->slots)
        return SDLORA_ENOMEM;
    dnnl_status_t s = describe(&pd, dev, t, to, add);
    if (s == dnnl_success)
        s = dnnl_primitive_desc_query(pd, dnnl_query_impl_info_str, 0, &name);
    if (s != dnnl_success) {
        rc = dn_fail_dnnl(dev, s, "a product of tiles");
        goto done;
    }
    if (strncmp(name, "brg", 3) != 0 ||
        !read_layout(&t->b, dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 0), type)) {
        rc = dn_fail(dev, SDLORA_ENOTSUP, "tiles of [%lld,%lld,%lld] would run through oneDNN's %s",
                     (long long)m, (long long)n, (long long)k, name);
        goto done;
    }
    t->work_bytes = dn_round_up((int64_t)dnnl_memory_desc_get_size(
                                    dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0)),
                                64);
    s = dnnl_primitive_create(&t->prim, pd);
    if (s == dnnl_success)
        s = make_slots(t, dev, pd);
    if (s != dnnl_success)
        rc = dn_fail_dnnl(dev, s, "a product of tiles");
done:
    dnnl_primitive_desc_destroy(pd);
    return rc;
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
    /* the library's interface has no const; it only reads A and B */
    dnnl_status_t s = dnnl_memory_set_data_handle(o->a, (void *)(uintptr_t)a);
    if (s == dnnl_success)
        s = dnnl_memory_set_data_handle(o->b, (void *)(uintptr_t)b);
    if (s == dnnl_success)
        s = dnnl_memory_set_data_handle(o->c, c);
    if (s == dnnl_success)
        s = dnnl_memory_set_data_handle(o->work, work);
    if (s == dnnl_success)
        s = dnnl_primitive_execute(t->prim, dev->stream, 4, args);
    return s == dnnl_success ? SDLORA_OK : dn_fail_dnnl(dev, s, "a product of tiles");
}
