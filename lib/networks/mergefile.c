/* SPDX-License-Identifier: MIT */
/* Networks put into a checkpoint's file for good: the file is copied tensor by tensor, and those
 * that a layer reads are computed on the way, in f32, and rounded once.  A tensor of the file is
 * known by where its bytes lie, so names and layouts do not matter, nor that some files keep three
 * layers in one tensor.  Memory is a few copies of the largest tensor. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "base/str.h"
#include "io/file.h"
#include "io/safetensors.h"
#include "networks/tools.h"

/* A canonical tensor of a part, by its place in the file. */
typedef struct place {
    const char *from, *to; /* its bytes */
    int part;
    const char *name;
    const slr_tensor *t;
} place;

typedef struct writing {
    const slr_tool *t;
    const slr_stack_item *items;
    size_t n_items;
    slr_weights *vae;
    const slr_bag *bag;
    uint32_t dtype; /* 0: each tensor's own */
    place *place;   /* sorted by `from` */
    size_t n_places, cap;
    slr_st_entry *entry;
    size_t n, done; /* entries in all, and written */
    size_t at;      /* the entry in `bytes`; SIZE_MAX: none */
    unsigned char *bytes;
    float *wide;
    size_t found; /* adapted layers that were met */
} writing;

/* --- where layers lie --- */

static int by_address(const void *a, const void *b)
{
    const place *x = a, *y = b;
    return (x->from > y->from) - (x->from < y->from);
}

static int find_places(writing *w)
{
    for (int part = 0; part < SLR_PART_COUNT; part++) {
        slr_weights *p = slr_checkpoint_part(w->t->base, part);
        for (size_t i = 0; p && i < slr_weights_count(p); i++) {
            const slr_tensor *t;
            const char *name = slr_weights_at(p, i, &t);
            SLR_TRY(slr_grow(w->t->m, &w->place, &w->cap, w->n_places + 1, sizeof *w->place));
            w->place[w->n_places++] =
                (place){t->data, (const char *)t->data + slr_tensor_bytes(t), part, name, t};
        }
    }
    qsort(w->place, w->n_places, sizeof *w->place, by_address);
    return SDLORA_OK;
}

/* The first place that begins in [from, ...). */
static size_t first_place(const writing *w, const char *from)
{
    size_t lo = 0, hi = w->n_places;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (w->place[mid].from < from)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

/* "path.weight" -> path and leaf. */
static bool split_name(const char *name, char path[SLR_LAYER_KEY], int *leaf)
{
    const char *dot = strrchr(name, '.');
    if (!dot || (size_t)(dot - name) >= SLR_LAYER_KEY)
        return false;
    *leaf = !strcmp(dot, ".weight") ? SLR_LEAF_WEIGHT : SLR_LEAF_BIAS;
    memcpy(path, name, (size_t)(dot - name));
    path[dot - name] = '\0';
    return *leaf == SLR_LEAF_WEIGHT || !strcmp(dot, ".bias");
}

/* Whether a network does something to the layer. */
static bool adapted(const writing *w, int part, const char *path)
{
    for (size_t i = 0; i < w->n_items; i++)
        if (slr_item_strength_at(&w->items[i], part, path) != 0 &&
            slr_network_find(w->items[i].network, part, path))
            return true;
    return false;
}

/* --- values --- */

static uint32_t out_type(const writing *w, const slr_tensor *t)
{
    static const uint32_t reals[] = {SDLORA_F32, SDLORA_F16, SDLORA_BF16, SDLORA_F64};
    for (size_t i = 0; w->dtype && i < sizeof reals / sizeof *reals; i++)
        if (t->dtype == reals[i])
            return w->dtype;
    return t->dtype;
}

static void put_values(writing *w, uint32_t dtype, int64_t first, const float *src, int64_t count)
{
    const slr_dtype_row *type = slr_dtype(dtype);
    type->from_f32(w->bytes + (size_t)first * type->size, src, (size_t)count);
}

/* A layer's weight or bias with the networks in it. */
static int put_layer(writing *w, const place *p, uint32_t dtype, int64_t first)
{
    char path[SLR_LAYER_KEY];
    int leaf;
    slr_weights *one;
    const slr_tensor *t;
    if (!split_name(p->name, path, &leaf) || !adapted(w, p->part, path))
        return SDLORA_OK;
    SLR_TRY(slr_merge_leaf(&one, w->t->m, w->t->devices, slr_checkpoint_part(w->t->base, p->part),
                           p->part, w->items, w->n_items, path, leaf));
    w->found += leaf == SLR_LEAF_WEIGHT;
    if (slr_weights_count(one)) {
        slr_weights_at(one, 0, &t);
        put_values(w, dtype, first, t->data, slr_tensor_count(t));
    }
    slr_weights_unref(one);
    return SDLORA_OK;
}

/* The other autoencoder's tensor of that name. */
static int put_vae(writing *w, const place *p, uint32_t dtype, int64_t first)
{
    const slr_tensor *t;
    SLR_TRY(slr_weights_get(w->vae, p->name, &t));
    if (slr_tensor_count(t) != slr_tensor_count(p->t))
        return slr_fail(SDLORA_EINVAL, __func__, "%s: %s has another size than in %s",
                        slr_weights_label(w->vae), p->name, slr_checkpoint_path(w->t->base));
    SLR_TRY(slr_tensor_to_f32(t, w->wide));
    put_values(w, dtype, first, w->wide, slr_tensor_count(t));
    return SDLORA_OK;
}

/* All values of an entry. */
static int compute(writing *w, size_t i)
{
    slr_tensor t;
    uint32_t dtype = w->entry[i].t.dtype;
    slr_bag_at(w->bag, i, &t);
    if (dtype == t.dtype) {
        memcpy(w->bytes, t.data, slr_tensor_bytes(&t));
    } else {
        SLR_TRY(slr_tensor_to_f32(&t, w->wide));
        put_values(w, dtype, 0, w->wide, slr_tensor_count(&t));
    }
    const char *from = t.data, *to = from + slr_tensor_bytes(&t);
    for (size_t k = first_place(w, from); k < w->n_places && w->place[k].from < to; k++) {
        const place *p = &w->place[k];
        int64_t first = (p->from - from) / (int64_t)slr_dtype_size(t.dtype);
        if (p->to > to || p->t->dtype != t.dtype)
            continue;
        if (p->part == SLR_PART_VAE && w->vae)
            SLR_TRY(put_vae(w, p, dtype, first));
        else if (p->part != SLR_PART_VAE)
            SLR_TRY(put_layer(w, p, dtype, first));
    }
    if (slr_file_is_map(t.storage))
        slr_file_forget(t.data, slr_tensor_bytes(&t));
    return SDLORA_OK;
}

static int read_piece(void *user, size_t i, uint64_t at, void *to, size_t n)
{
    writing *w = user;
    if (w->at != i) {
        if (w->t->tell && w->t->tell(w->t->user, "write", (int64_t)w->done, (int64_t)w->n))
            return slr_fail(SDLORA_ECANCELED, __func__, "write was cancelled");
        SLR_TRY(compute(w, i));
        w->at = i;
        w->done++;
    }
    memcpy(to, w->bytes + at, n);
    return SDLORA_OK;
}

/* --- the file --- */

static int make_entries(writing *w)
{
    int64_t most = 1;
    w->n = slr_bag_count(w->bag);
    w->entry = slr_calloc(w->t->m, w->n + 1, sizeof *w->entry);
    if (!w->entry)
        return SDLORA_ENOMEM;
    for (size_t i = 0; i < w->n; i++) {
        slr_st_entry *e = &w->entry[i];
        e->name = slr_bag_at(w->bag, i, &e->t);
        int64_t count = slr_tensor_count(&e->t);
        most = count > most ? count : most;
        if (!e->t.dtype)
            return slr_fail(SDLORA_ENOTSUP, __func__, "%s: %s is of a type that is not written",
                            slr_checkpoint_path(w->t->base), e->name);
        e->t.dtype = out_type(w, &e->t);
        e->t.data = NULL;
        e->t.storage = NULL;
    }
    w->wide = slr_alloc(w->t->m, (size_t)most * sizeof *w->wide);
    w->bytes = slr_alloc(w->t->m, (size_t)most * sizeof(double));
    return w->wide && w->bytes ? SDLORA_OK : SDLORA_ENOMEM;
}

/* Every layer that a network adapts has to lie in the file as it is. */
static int check_layers(const writing *w)
{
    for (size_t i = 0; i < w->n_items; i++)
        for (size_t k = 0; k < w->items[i].network->n_modules; k++) {
            const slr_module *mod = &w->items[i].network->module[k];
            char name[SLR_LAYER_KEY];
            if (!mod->kind->delta)
                return slr_fail(SDLORA_ENOTSUP, __func__, "%s is %s, which changes no weights",
                                mod->target.name, mod->kind->name);
            slr_nn_path(name, "%s.weight", mod->target.path);
            const slr_weights *part = slr_checkpoint_part(w->t->base, mod->target.part);
            const slr_tensor *t = part ? slr_weights_find(part, name) : NULL;
            size_t at = t ? first_place(w, t->data) : w->n_places;
            if (at == w->n_places || w->place[at].from != (const char *)t->data)
                return slr_fail(SDLORA_EINVAL, __func__, "%s has no layer %s",
                                slr_checkpoint_path(w->t->base), mod->target.name);
            slr_nn_path(name, "%s.bias", mod->target.path);
            if (slr_module_has(mod, slr_kind_bias(mod->kind)) && !slr_weights_find(part, name))
                return slr_fail(SDLORA_EINVAL, __func__,
                                "%s: %s has no bias that a network could change",
                                slr_checkpoint_path(w->t->base), mod->target.name);
        }
    return SDLORA_OK;
}

static int title_of(slr_buf *b, const slr_network *n, const char *path)
{
    const char *title = n ? slr_meta_get(n->meta, "modelspec.title") : NULL;
    if (title)
        slr_buf_puts(b, title);
    else if (n)
        slr_buf_puts(b, n->name);
    else
        slr_buf_add(b, slr_path_base(path), slr_path_stem(slr_path_base(path)));
    return slr_buf_ok(b);
}

/* The base's own metadata, and what it was merged from over it. */
static int describe(const writing *w, slr_meta *meta, slr_opt o)
{
    const char *base = slr_bag_meta(w->bag, "modelspec.title");
    for (size_t i = 0; i < slr_bag_meta_count(w->bag); i++) {
        const char *value, *key = slr_bag_meta_at(w->bag, i, &value);
        SLR_TRY(slr_meta_set(meta, key, value));
    }
    if (slr_opt_bool(o, "no_metadata"))
        return SDLORA_OK;
    slr_buf b;
    slr_buf_init(&b, w->t->m);
    int rc = SDLORA_OK;
    if (base)
        slr_buf_puts(&b, base);
    else
        rc = title_of(&b, NULL, slr_checkpoint_path(w->t->base));
    for (size_t i = 0; rc >= 0 && i < w->n_items; i++) {
        slr_buf_puts(&b, ", ");
        rc = title_of(&b, w->items[i].network, NULL);
    }
    if (rc >= 0)
        rc = slr_buf_ok(&b);
    if (rc >= 0)
        rc = slr_tool_modelspec(meta, w->t->base, false, slr_opt_text(o, "metadata_title"), b.data);
    slr_buf_free(&b);
    return rc;
}

static int stream(writing *w, const char *path, slr_opt o)
{
    slr_meta *meta;
    SLR_TRY(slr_meta_new(&meta, w->t->m));
    slr_st_pair *pair = NULL;
    int rc = describe(w, meta, o);
    size_t n = slr_meta_count(meta);
    if (rc >= 0) {
        pair = slr_calloc(w->t->m, n + 1, sizeof *pair);
        rc = pair ? SDLORA_OK : SDLORA_ENOMEM;
    }
    for (size_t i = 0; rc >= 0 && i < n; i++)
        pair[i].key = slr_meta_at(meta, i, &pair[i].value);
    if (rc >= 0)
        rc = slr_safetensors_stream(w->t->m, path, w->entry, w->n, n ? pair : NULL, n, read_piece,
                                    w, false);
    slr_free(w->t->m, pair);
    slr_meta_free(meta);
    return rc;
}

static int run(writing *w, const char *path, slr_opt o)
{
    const slr_dtype_row *type = slr_dtype_by_precision(slr_opt_text(o, "save_precision"));
    w->dtype = type ? type->dtype : 0; /* "keep" */
    w->bag = slr_checkpoint_bag(w->t->base);
    if (!w->bag || !slr_bag_count(w->bag))
        return slr_fail(SDLORA_ENOTSUP, __func__,
                        "%s is not one file: convert it to layout ldm first",
                        slr_checkpoint_path(w->t->base));
    if (!slr_ends(path, ".safetensors"))
        return slr_fail(SDLORA_EINVAL, __func__, "%s: checkpoints are written as .safetensors",
                        path);
    if (w->vae && !slr_checkpoint_part(w->t->base, SLR_PART_VAE))
        return slr_fail(SDLORA_EINVAL, __func__, "%s has no autoencoder that could be replaced",
                        slr_checkpoint_path(w->t->base));
    SLR_TRY(find_places(w));
    SLR_TRY(check_layers(w));
    SLR_TRY(make_entries(w));
    SLR_TRY(stream(w, path, o));
    if (w->t->tell)
        w->t->tell(w->t->user, "write", (int64_t)w->n, (int64_t)w->n);
    return SDLORA_OK;
}

int slr_merge_file(const slr_tool *t, const slr_stack_item *items, size_t n, slr_weights *vae,
                   const char *path, slr_opt o)
{
    writing w = {.t = t, .items = items, .n_items = n, .vae = vae, .at = SIZE_MAX};
    int rc = run(&w, path, o);
    slr_free(t->m, w.place);
    slr_free(t->m, w.entry);
    slr_free(t->m, w.bytes);
    slr_free(t->m, w.wide);
    return rc;
}
