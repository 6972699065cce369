/* SPDX-License-Identifier: MIT */
/* Writes network files: kohya's layout, folded scalars, metadata and hashes (training.md §1.1,
 * §3.3).
 */
#include <math.h>
#include <string.h>

#include "base/status.h"
#include "base/str.h"
#include "io/hash.h"
#include "io/safetensors.h"
#include "networks/kind.h"

typedef struct writing {
    slr_mem *m;
    slr_arena *texts;
    slr_st_entry *entry;
    size_t n;
    slr_st_pair *pair;
} writing;

/* The smallest magnitude that rounds to infinity. */
static float first_infinite(uint32_t dtype)
{
    return dtype == SDLORA_F16 ? 65520.0f : dtype == SDLORA_BF16 ? 0x1.ffp127f : INFINITY;
}

static int convert(writing *w, slr_st_entry *e, uint32_t dtype, const float *src, size_t count)
{
    const slr_dtype_row *type = slr_dtype(dtype);
    void *bytes = slr_arena_alloc(w->texts, count, type->size);
    if (!bytes)
        return SDLORA_ENOMEM;
    float limit = first_infinite(dtype);
    for (size_t i = 0; i < count; i++)
        if (!(fabsf(src[i]) < limit))
            return slr_fail(SDLORA_ENAN, __func__,
                            "%s holds a value that is not finite as %s: nothing was written",
                            e->name, type->name);
    type->from_f32(bytes, src, count);
    e->t.dtype = dtype;
    e->t.data = bytes;
    return SDLORA_OK;
}

/* A name in the arena: "<module>.<leaf>". */
static slr_st_entry *add_entry(writing *w, const slr_module *mod, const char *leaf)
{
    slr_buf b;
    slr_buf_init(&b, w->m);
    slr_buf_printf(&b, "%s.%s", mod->target.name, leaf);
    slr_st_entry *e = &w->entry[w->n];
    *e = (slr_st_entry){.name = slr_buf_ok(&b) >= 0 ? slr_arena_strdup(w->texts, b.data) : NULL};
    slr_buf_free(&b);
    if (!e->name)
        return NULL;
    w->n++;
    return e;
}

/* A slot; the leaf that takes the module's scalar is written multiplied by it. */
static int add_slot(writing *w, const slr_network *n, const slr_network_slot *s, uint32_t dtype)
{
    const slr_module *mod = &n->module[s->module];
    const float *src = n->params + s->offset;
    const slr_network_slot *scalar = slr_module_slot(mod, &n->slot[mod->slot], SLR_LEAF_SCALAR);
    slr_st_entry *e = &w->entry[w->n++];
    *e = (slr_st_entry){.name = s->key, .t = {.rank = s->rank}};
    memcpy(e->t.dim, s->dim, sizeof e->t.dim);
    if (!scalar || !(mod->kind->scalar_into >> s->leaf & 1u))
        return convert(w, e, dtype, src, s->count);

    float *folded = slr_alloc(w->m, s->count * sizeof *folded);
    if (!folded)
        return SDLORA_ENOMEM;
    for (size_t i = 0; i < s->count; i++)
        folded[i] = src[i] * n->params[scalar->offset];
    int rc = convert(w, e, dtype, folded, s->count);
    slr_free(w->m, folded);
    return rc;
}

static int add_numbers(writing *w, const slr_module *mod, uint32_t dtype)
{
    static const uint8_t truth[2] = {0, 1};
    float alpha = (float)mod->alpha;
    slr_st_entry *e;
    if (!mod->kind->no_alpha && !isnan(mod->alpha)) {
        if (!(e = add_entry(w, mod, "alpha")))
            return SDLORA_ENOMEM;
        SLR_TRY(convert(w, e, dtype, &alpha, 1));
    }
    if (mod->kind->marker) {
        if (!(e = add_entry(w, mod, mod->kind->marker)))
            return SDLORA_ENOMEM;
        e->t = (slr_tensor){.dtype = SDLORA_BOOL, .data = &truth[mod->marked]};
    }
    return SDLORA_OK;
}

static int collect(writing *w, const slr_network *n, uint32_t dtype)
{
    w->entry = slr_calloc(w->m, n->n_slots + 2 * n->n_modules + 1, sizeof *w->entry);
    if (!w->entry)
        return SDLORA_ENOMEM;
    for (size_t i = 0; i < n->n_slots; i++)
        if (n->slot[i].leaf != SLR_LEAF_SCALAR)
            SLR_TRY(add_slot(w, n, &n->slot[i], dtype));
    for (size_t i = 0; i < n->n_modules; i++)
        SLR_TRY(add_numbers(w, &n->module[i], dtype));
    return SDLORA_OK;
}

/* The pairs whose key starts with prefix ("": all). */
static size_t pairs(writing *w, const slr_meta *meta, const char *prefix)
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
static int add_hashes(writing *w, slr_meta *meta)
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

static int write_all(writing *w, const slr_network *n, const char *path, uint32_t dtype,
                     slr_meta *meta)
{
    SLR_TRY(slr_arena_new(&w->texts, w->m));
    SLR_TRY(collect(w, n, dtype));
    w->pair = slr_calloc(w->m, slr_meta_count(meta) + 2, sizeof *w->pair);
    if (!w->pair)
        return SDLORA_ENOMEM;
    SLR_TRY(add_hashes(w, meta));
    return slr_safetensors_write(w->m, path, w->entry, w->n, w->pair, pairs(w, meta, ""));
}

int slr_netfile_save(const slr_network *n, const char *path, uint32_t save_dtype, slr_meta *meta)
{
    writing w = {.m = n->m};
    int rc = write_all(&w, n, path, save_dtype, meta);
    slr_free(w.m, w.pair);
    slr_free(w.m, w.entry);
    slr_arena_free(w.texts);
    return rc;
}

uint64_t slr_netfile_size(const slr_network *n, uint32_t save_dtype, const slr_meta *meta)
{
    uint64_t bytes = meta ? slr_meta_text_bytes(meta) : 0;
    for (size_t i = 0; i < slr_network_slots(n); i++) {
        const slr_network_slot *slot = slr_network_slot_at(n, i);
        bytes += slot->count * slr_dtype_size(save_dtype) + SLR_NETFILE_ENTRY + strlen(slot->key);
    }
    for (size_t i = 0; i < slr_network_modules(n); i++) /* "<name>.alpha" */
        bytes += slr_dtype_size(save_dtype) + SLR_NETFILE_ENTRY +
                 strlen(slr_network_target(n, i)->name) + 6;
    return bytes;
}
