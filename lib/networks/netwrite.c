/* SPDX-License-Identifier: MIT */
/* Writes network files: kohya's tensors under any name, folded scalars, metadata and hashes.
 * Tensors that other dialects shape in another way are netspell.c's. */
#include "networks/netwrite.h"

#include <math.h>
#include <string.h>

#include "base/status.h"
#include "base/str.h"
#include "io/hash.h"
#include "io/safetensors.h"
#include "networks/embedding.h"
#include "networks/hypernet.h"

/* The smallest magnitude that rounds to infinity. */
static float first_infinite(uint32_t dtype)
{
    return dtype == SDLORA_F16 ? 65520.0f : dtype == SDLORA_BF16 ? 0x1.ffp127f : INFINITY;
}

static int convert(slr_writing *w, slr_st_entry *e, const float *src, size_t count)
{
    const slr_dtype_row *type = slr_dtype(w->dtype);
    void *bytes = slr_arena_alloc(w->texts, count, type->size);
    if (!bytes)
        return SDLORA_ENOMEM;
    float limit = first_infinite(w->dtype);
    for (size_t i = 0; i < count; i++)
        if (!(fabsf(src[i]) < limit))
            return slr_fail(SDLORA_ENAN, __func__,
                            "%s holds a value that is not finite as %s: nothing was written",
                            e->name, type->name);
    type->from_f32(bytes, src, count);
    e->t.dtype = w->dtype;
    e->t.data = bytes;
    return SDLORA_OK;
}

/* A name in the arena: "<module>.<leaf>". */
static slr_st_entry *add_entry(slr_writing *w, const slr_module *mod, const char *leaf)
{
    slr_buf b;
    if (slr_grow(w->m, &w->entry, &w->cap, w->n + 1, sizeof *w->entry) < 0)
        return NULL;
    slr_buf_init(&b, w->m);
    slr_spelling_key(&b, w->spelling, w->network, mod, leaf);
    slr_st_entry *e = &w->entry[w->n];
    *e = (slr_st_entry){.name = slr_buf_ok(&b) >= 0 ? slr_arena_strdup(w->texts, b.data) : NULL};
    slr_buf_free(&b);
    if (!e->name)
        return NULL;
    w->n++;
    return e;
}

int slr_writing_add(slr_writing *w, const slr_module *mod, const char *leaf, int rank,
                    const int64_t *dim, const float *src)
{
    slr_st_entry *e = add_entry(w, mod, leaf);
    if (!e)
        return SDLORA_ENOMEM;
    e->t.rank = rank;
    memcpy(e->t.dim, dim, (size_t)rank * sizeof *dim);
    return convert(w, e, src, (size_t)slr_tensor_count(&e->t));
}

/* The module's scalar, and the scale where there is no rank for an alpha to say it. */
static int folded(const slr_writing *w, const slr_module *mod, double *factor)
{
    const slr_network *n = w->network;
    const slr_network_slot *scalar = slr_module_slot(mod, &n->slot[mod->slot], SLR_LEAF_SCALAR);
    bool alone = mod->rank == 0 && mod->scale != 1.0;
    *factor = (scalar ? (double)n->params[scalar->offset] : 1.0) * (alone ? mod->scale : 1.0);
    if (alone && !mod->kind->scalar_into)
        return slr_fail(SDLORA_ENOTSUP, __func__,
                        "%s has the scale %g, which files of %s can't hold", mod->target.name,
                        mod->scale, mod->kind->name);
    return SDLORA_OK;
}

int slr_writing_slot(slr_writing *w, const slr_network_slot *s)
{
    const slr_network *n = w->network;
    const slr_module *mod = &n->module[s->module];
    const float *src = n->params + s->offset;
    const char *leaf = slr_spelling_leaf(w->spelling, s->part, slr_kind_leaf(mod->kind, s->leaf));
    double factor;
    SLR_TRY(folded(w, mod, &factor));
    if (factor == 1.0 || s->leaf >= SLR_KIND_OWN || !(mod->kind->scalar_into >> s->leaf & 1u))
        return slr_writing_add(w, mod, leaf, s->rank, s->dim, src);

    float *values = slr_alloc(w->m, s->count * sizeof *values);
    if (!values)
        return SDLORA_ENOMEM;
    for (size_t i = 0; i < s->count; i++)
        values[i] = src[i] * (float)factor;
    int rc = slr_writing_add(w, mod, leaf, s->rank, s->dim, values);
    slr_free(w->m, values);
    return rc;
}

/* LyCORIS: an i64, which becomes a number of the save type where that is not f32. */
static int add_marker(slr_writing *w, const slr_module *mod)
{
    static const int64_t truth[2] = {0, 1};
    float value = mod->marked ? 1.0f : 0.0f;
    slr_st_entry *e = add_entry(w, mod, mod->kind->marker);
    if (!e)
        return SDLORA_ENOMEM;
    if (w->dtype != SDLORA_F32)
        return convert(w, e, &value, 1);
    e->t = (slr_tensor){.dtype = SDLORA_I64, .data = &truth[mod->marked]};
    return SDLORA_OK;
}

/* LyCORIS: i16, in which the columns of a wide convolution have no room. */
static int add_places(slr_writing *w, const slr_network_slot *s)
{
    const slr_module *mod = &w->network->module[s->module];
    int64_t width = slr_target_fan_in(&mod->target);
    const float size[2] = {(float)mod->target.out, (float)width};
    const struct {
        const char *leaf;
        int rank;
        const int64_t *dim;
        const float *values;
        size_t count;
    } rows[] = {
        {slr_kind_leaf(mod->kind, s->leaf), s->rank, s->dim, w->network->params + s->offset,
         s->count},
        {SLR_RESIDUAL_SIZE, 1, (const int64_t[]){2}, size, 2},
    };
    bool wide = width > INT16_MAX || mod->target.out > INT16_MAX;
    const slr_dtype_row *type = slr_dtype(wide ? SDLORA_I32 : SDLORA_I16);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        void *bytes = slr_arena_alloc(w->texts, rows[i].count, type->size);
        slr_st_entry *e = bytes ? add_entry(w, mod, rows[i].leaf) : NULL;
        if (!e)
            return SDLORA_ENOMEM;
        type->from_f32(bytes, rows[i].values, rows[i].count);
        e->t = (slr_tensor){.dtype = type->dtype, .rank = rows[i].rank, .data = bytes};
        memcpy(e->t.dim, rows[i].dim, (size_t)rows[i].rank * sizeof *rows[i].dim);
    }
    return SDLORA_OK;
}

static int add_numbers(slr_writing *w, const slr_module *mod)
{
    float alpha = (float)mod->alpha;
    slr_st_entry *e;
    if (!mod->kind->no_alpha && !isnan(mod->alpha)) {
        if (!(e = add_entry(w, mod, "alpha")))
            return SDLORA_ENOMEM;
        SLR_TRY(convert(w, e, &alpha, 1));
    }
    if (mod->kind->marker && (mod->marked || !mod->kind->marker_if_set))
        return add_marker(w, mod);
    return SDLORA_OK;
}

static int collect(slr_writing *w)
{
    const slr_network *n = w->network;
    for (size_t i = 0; i < n->n_slots; i++)
        if (n->slot[i].leaf == SLR_LEAF_PLACES)
            SLR_TRY(add_places(w, &n->slot[i]));
        else if (slr_module_filed(&n->module[n->slot[i].module], n->slot[i].leaf))
            SLR_TRY(slr_writing_slot(w, &n->slot[i]));
    for (size_t i = 0; i < n->n_modules; i++)
        SLR_TRY(add_numbers(w, &n->module[i]));
    return SDLORA_OK;
}

/* The pairs whose key starts with prefix ("": all). */
static size_t pairs(slr_writing *w, const slr_meta *meta, const char *prefix)
{
    size_t n = 0;
    for (size_t i = 0; i < slr_meta_count(meta); i++) {
        const char *value, *key = slr_meta_at(meta, i, &value);
        if (slr_starts(key, prefix))
            w->pair[n++] = (slr_st_pair){key, value};
    }
    return n;
}

/* sshs_model_hash: of the data section.  sshs_legacy_hash: of 64 KiB at 1 MiB of the file as it
 * would be with the ss_* pairs alone. */
static int add_hashes(slr_writing *w, slr_meta *meta)
{
    void *bytes;
    size_t size;
    uint64_t start;
    char model[65], legacy[65];
    SLR_TRY(slr_safetensors_encode(w->m, w->entry, w->n, w->pair, pairs(w, meta, "ss_"), &bytes,
                                   &size, &start));
    int rc = slr_hash_bytes((char *)bytes + start, size - (size_t)start, model);
    size_t lo = size < 0x100000 ? size : 0x100000, hi = size < 0x110000 ? size : 0x110000;
    if (rc >= 0)
        rc = slr_hash_bytes((char *)bytes + lo, hi - lo, legacy);
    slr_free(w->m, bytes);
    SLR_TRY(rc);
    legacy[8] = '\0';
    SLR_TRY(slr_meta_set(meta, "sshs_model_hash", model));
    return slr_meta_set(meta, "sshs_legacy_hash", legacy);
}

static int write_all(slr_writing *w, const char *path, slr_meta *meta)
{
    SLR_TRY(slr_arena_new(&w->texts, w->m));
    SLR_TRY(w->spelling->dots ? slr_spell_collect(w, path, meta) : collect(w));
    w->pair = slr_calloc(w->m, slr_meta_count(meta) + 2, sizeof *w->pair);
    if (!w->pair)
        return SDLORA_ENOMEM;
    SLR_TRY(add_hashes(w, meta));
    return slr_safetensors_write(w->m, path, w->entry, w->n, w->pair, pairs(w, meta, ""));
}

int slr_netfile_save_as(const slr_network *n, const char *path, uint32_t save_dtype, slr_meta *meta,
                        const slr_spelling *spelling)
{
    bool other = slr_network_is_embedding(n) || slr_network_is_hyper(n);
    if (other && spelling != slr_spelling_at(0))
        return slr_fail(SDLORA_ENOTSUP, __func__,
                        "%s: an embedding or a hypernetwork is not written as '%s'", path,
                        spelling->name);
    if (slr_network_is_embedding(n))
        return slr_embedding_save(n, path, save_dtype, meta);
    if (slr_network_is_hyper(n))
        return slr_hyper_save(n, path, save_dtype, meta);
    if (slr_ends(path, ".pt"))
        return slr_fail(SDLORA_ENOTSUP, __func__,
                        "%s: only embeddings and hypernetworks are written as .pt", path);
    slr_writing w = {.m = n->m, .network = n, .spelling = spelling, .dtype = save_dtype};
    int rc = write_all(&w, path, meta);
    slr_free(w.m, w.pair);
    slr_free(w.m, w.entry);
    slr_arena_free(w.texts);
    return rc;
}

int slr_netfile_save(const slr_network *n, const char *path, uint32_t save_dtype, slr_meta *meta)
{
    return slr_netfile_save_as(n, path, save_dtype, meta, slr_spelling_at(0));
}

int slr_network_save_as(const slr_network *n, const char *path, uint32_t save_dtype,
                        const slr_spelling *spelling)
{
    slr_meta *copy; /* the hashes that saving adds belong to the file, not to the network */
    SLR_TRY(slr_meta_new(&copy, n->m));
    const slr_meta *meta = slr_network_meta(n);
    int rc = SDLORA_OK;
    for (size_t i = 0; rc >= 0 && meta && i < slr_meta_count(meta); i++) {
        const char *value, *key = slr_meta_at(meta, i, &value);
        rc = slr_meta_set(copy, key, value);
    }
    if (rc >= 0)
        rc = slr_netfile_save_as(n, path, save_dtype, copy, spelling);
    slr_meta_free(copy);
    return rc;
}

uint64_t slr_netfile_size(const slr_network *n, uint32_t save_dtype, const slr_meta *meta)
{
    if (slr_network_is_hyper(n))
        return slr_hyper_size(n, save_dtype);
    uint64_t bytes = meta ? slr_meta_text_bytes(meta) : 0;
    for (size_t i = 0; i < slr_network_slots(n); i++) {
        const slr_network_slot *slot = slr_network_slot_at(n, i);
        if (!slr_module_filed(&n->module[slot->module], slot->leaf))
            continue;
        bytes += slot->count * slr_dtype_size(save_dtype) + SLR_NETFILE_ENTRY + strlen(slot->key);
    }
    for (size_t i = 0; i < slr_network_modules(n); i++) /* "<name>.alpha" */
        bytes += slr_dtype_size(save_dtype) + SLR_NETFILE_ENTRY +
                 strlen(slr_network_target(n, i)->name) + 6;
    return bytes;
}
