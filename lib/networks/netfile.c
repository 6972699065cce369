/* SPDX-License-Identifier: MIT */
/* kohya's network files: grouping tensors by module, checking them against the checkpoint's layers
 * before anything is made, and writing the canonical layout with hashes (training.md §1.1, §3.3).
 */
#include "networks/netfile.h"

#include <math.h>
#include <string.h>

#include "base/status.h"
#include "base/str.h"
#include "io/file.h"
#include "io/hash.h"
#include "io/safetensors.h"
#include "io/torchfile.h"
#include "networks/kind.h"

#define MAX_RANK   32768 /* far above any file in the wild; keeps products small */
#define MAX_LISTED 3     /* names quoted in a refusal */

/* One file, whatever its container. */
typedef struct source {
    const char *path;
    slr_safetensors *st;
    slr_torchfile *torch;
} source;

static int source_open(source *s, slr_mem *m, const char *path)
{
    *s = (source){.path = path};
    if (slr_ends(path, ".safetensors"))
        return slr_safetensors_open(&s->st, m, path, true);
    return slr_torchfile_open(&s->torch, m, path);
}

static void source_close(source *s)
{
    slr_safetensors_close(s->st);
    slr_torchfile_close(s->torch);
}

static size_t source_count(const source *s)
{
    return s->st ? slr_safetensors_count(s->st) : slr_torchfile_count(s->torch);
}

static const char *source_at(const source *s, size_t i, slr_tensor *t)
{
    return s->st ? slr_safetensors_at(s->st, i, t) : slr_torchfile_at(s->torch, i, t);
}

/* The tensors of one module. */
typedef struct group {
    const slr_target *target;
    const slr_kind *kind;
    slr_tensor leaf[SLR_KIND_SLOTS];
    bool have[SLR_KIND_SLOTS];
    double alpha; /* NAN: not in the file */
} group;

typedef struct reading {
    slr_mem *m;
    const char *label;
    slr_targets *targets;
    group *at;
    size_t n, cap;
    slr_map *by_name;
    size_t n_strange; /* keys that match nothing */
    char strange[256];
} reading;

/* Tensors of algorithms that exist and are not read yet, so that the refusal can name them. */
static const struct {
    const char *leaf, *what;
} known_leaves[] = {
    {"lora_mid.weight", "a tucker convolution"},
    {"dora_scale", "DoRA"},
    {"hada_w1_a", "LoHa"},
    {"lokr_w1", "LoKr"},
    {"lokr_w1_a", "LoKr"},
    {"lokr_w2", "LoKr"},
    {"on_input", "(IA)^3"},
    {"oft_blocks", "OFT"},
    {"oft_diag", "OFT"},
    {"diff", "full weights"},
    {"diff_b", "full biases"},
    {"w_norm", "norms"},
    {"a1.weight", "GLoRA"},
    {"lora_A.weight", "PEFT names"},
    {"lora_B.weight", "PEFT names"},
};

/* `rest` is what follows a key's first '.', where PEFT has the module path as well. */
static bool is_leaf(const char *rest, const char *leaf)
{
    size_t n = strlen(rest), k = strlen(leaf);
    return n >= k && !strcmp(rest + n - k, leaf) && (n == k || rest[n - k - 1] == '.');
}

static int refuse_known(const reading *r, const char *key, const char *leaf)
{
    for (size_t i = 0; i < sizeof known_leaves / sizeof *known_leaves; i++)
        if (is_leaf(leaf, known_leaves[i].leaf))
            return slr_fail(SDLORA_ENOTSUP, __func__, "%s: %s (%s) is not supported yet", r->label,
                            key, known_leaves[i].what);
    return SDLORA_OK;
}

static void note_strange(reading *r, const char *key)
{
    if (r->n_strange++ >= MAX_LISTED)
        return;
    size_t used = strlen(r->strange), room = sizeof r->strange - used;
    size_t n = strlen(key);
    if (n + 3 < room) {
        memcpy(r->strange + used, used ? ", " : "", used ? 2 : 0);
        memcpy(r->strange + used + (used ? 2 : 0), key, n + 1);
    }
}

static int group_of(reading *r, const slr_target *target, group **out)
{
    int64_t at;
    if (!slr_map_get(r->by_name, target->name, &at)) {
        SLR_TRY(slr_grow(r->m, &r->at, &r->cap, r->n + 1, sizeof *r->at));
        SLR_TRY(slr_map_set(r->by_name, target->name, (int64_t)r->n));
        at = (int64_t)r->n++;
        r->at[at] = (group){.target = target, .alpha = NAN};
    }
    *out = &r->at[at];
    return SDLORA_OK;
}

static int read_alpha(const reading *r, const char *key, const slr_tensor *t, double *alpha)
{
    float value;
    if (slr_tensor_count(t) != 1)
        return slr_fail(SDLORA_EFORMAT, __func__, "%s: %s is not a single number", r->label, key);
    SLR_TRY(slr_tensor_to_f32(t, &value));
    if (!isfinite(value))
        return slr_fail(SDLORA_EFORMAT, __func__, "%s: %s is not finite", r->label, key);
    *alpha = value;
    return SDLORA_OK;
}

static bool is_real(uint32_t dtype)
{
    static const uint32_t types[] = {SDLORA_F32, SDLORA_F16,     SDLORA_BF16,
                                     SDLORA_F64, SDLORA_F8_E4M3, SDLORA_F8_E5M2};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (types[i] == dtype)
            return true;
    return false;
}

static int take_tensor(reading *r, const char *key, const slr_tensor *t)
{
    const char *dot = strchr(key, '.');
    if (slr_starts(key, "bundle_emb."))
        return SDLORA_OK; /* embeddings that travel along: not a module */
    const slr_target *target = dot ? slr_targets_find(r->targets, key, (size_t)(dot - key)) : NULL;
    if (!target) {
        if (dot)
            SLR_TRY(refuse_known(r, key, dot + 1));
        note_strange(r, key);
        return SDLORA_OK;
    }

    group *g;
    SLR_TRY(group_of(r, target, &g));
    if (!strcmp(dot + 1, "alpha"))
        return read_alpha(r, key, t, &g->alpha);
    int slot;
    const slr_kind *kind = slr_kind_by_leaf(dot + 1, &slot);
    if (!kind) {
        SLR_TRY(refuse_known(r, key, dot + 1));
        note_strange(r, key);
        return SDLORA_OK;
    }
    if (g->kind && g->kind != kind)
        return slr_fail(SDLORA_EFORMAT, __func__, "%s: %s mixes %s and %s", r->label, target->name,
                        g->kind->name, kind->name);
    if (!is_real(t->dtype))
        return slr_fail(SDLORA_EFORMAT, __func__, "%s: %s is not of a floating-point type",
                        r->label, key);
    g->kind = kind;
    g->leaf[slot] = *t;
    g->have[slot] = true;
    return SDLORA_OK;
}

/* A module is whole, and fits its layer. */
static int check_group(const reading *r, const group *g, int64_t *rank)
{
    if (!g->kind)
        return slr_fail(SDLORA_EFORMAT, __func__, "%s: %s has an alpha and no weights", r->label,
                        g->target->name);
    for (int i = 0; i < g->kind->n_slots; i++)
        if (!g->have[i])
            return slr_fail(SDLORA_EFORMAT, __func__, "%s: %s.%s is missing", r->label,
                            g->target->name, g->kind->leaf[i]);
    SLR_TRY(g->kind->rank(g->target, g->leaf, r->label, rank));
    if (*rank > MAX_RANK)
        return slr_fail(SDLORA_EFORMAT, __func__, "%s: %s has rank %lld, more than %d", r->label,
                        g->target->name, (long long)*rank, MAX_RANK);
    return SDLORA_OK;
}

static int build(slr_network *n, const reading *r)
{
    for (size_t i = 0; i < r->n; i++) {
        const group *g = &r->at[i];
        int64_t rank;
        SLR_TRY(check_group(r, g, &rank));
        double alpha = isnan(g->alpha) ? (double)rank : g->alpha;
        SLR_TRY(slr_network_add(n, g->kind, g->target, rank, alpha));
    }
    SLR_TRY(slr_network_layout(n));
    for (size_t i = 0; i < r->n; i++) {
        const slr_module *mod = &n->module[i];
        for (int k = 0; k < mod->kind->n_slots; k++)
            SLR_TRY(slr_tensor_to_f32(&r->at[i].leaf[k],
                                      n->params + n->slot[mod->slot + (size_t)k].offset));
    }
    return SDLORA_OK;
}

static int read_groups(reading *r, const source *s)
{
    for (size_t i = 0; i < source_count(s); i++) {
        slr_tensor t;
        const char *key = source_at(s, i, &t);
        SLR_TRY(take_tensor(r, key, &t));
    }
    if (r->n_strange)
        return slr_fail(SDLORA_EFORMAT, __func__,
                        "%s: %zu of %zu tensors match no layer of this checkpoint: %s%s", r->label,
                        r->n_strange, source_count(s), r->strange,
                        r->n_strange > MAX_LISTED ? " ..." : "");
    if (!r->n)
        return slr_fail(SDLORA_EFORMAT, __func__, "%s: holds no network module", r->label);
    return SDLORA_OK;
}

static int name_network(slr_network *n, const char *path)
{
    const char *base = slr_path_base(path);
    char *stem = slr_strndup(n->m, base, slr_path_stem(base));
    n->name = stem ? slr_arena_strdup(n->texts, stem) : NULL;
    n->path = slr_arena_strdup(n->texts, path);
    slr_free(n->m, stem);
    if (n->name && n->path)
        return SDLORA_OK;
    n->name = "";
    return SDLORA_ENOMEM;
}

static int copy_meta(slr_network *n, const source *s)
{
    if (!s->st)
        return SDLORA_OK;
    for (size_t i = 0; i < slr_safetensors_meta_count(s->st); i++) {
        const char *value;
        const char *key = slr_safetensors_meta_at(s->st, i, &value);
        SLR_TRY(slr_meta_set(n->meta, key, value));
    }
    return SDLORA_OK;
}

int slr_network_open(slr_network **out, slr_mem *m, const slr_checkpoint *base, const char *path)
{
    *out = NULL;
    source s = {0};
    reading r = {.m = m, .label = path};
    slr_network *n = NULL;
    int rc = source_open(&s, m, path);
    if (rc >= 0)
        rc = slr_targets_new(&r.targets, m, base);
    if (rc >= 0)
        rc = slr_map_new(&r.by_name, m);
    if (rc >= 0)
        rc = read_groups(&r, &s);
    if (rc >= 0)
        rc = slr_network_new(&n, m, base);
    if (rc >= 0)
        rc = build(n, &r);
    if (rc >= 0)
        rc = name_network(n, path);
    if (rc >= 0)
        rc = copy_meta(n, &s);
    slr_map_free(r.by_name);
    slr_free(m, r.at);
    slr_targets_free(r.targets);
    source_close(&s);
    if (rc < 0) {
        slr_network_unref(n);
        return rc;
    }
    *out = n;
    return SDLORA_OK;
}

/* --- writing --- */

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

static int collect(writing *w, const slr_network *n, uint32_t dtype)
{
    w->entry = slr_calloc(w->m, n->n_slots + n->n_modules + 1, sizeof *w->entry);
    if (!w->entry)
        return SDLORA_ENOMEM;
    for (size_t i = 0; i < n->n_slots; i++) {
        const slr_network_slot *s = &n->slot[i];
        slr_st_entry *e = &w->entry[w->n++];
        *e = (slr_st_entry){.name = s->key, .t = {.rank = s->rank}};
        memcpy(e->t.dim, s->dim, sizeof e->t.dim);
        SLR_TRY(convert(w, e, dtype, n->params + s->offset, s->count));
    }
    for (size_t i = 0; i < n->n_modules; i++) {
        slr_buf b;
        slr_buf_init(&b, w->m);
        slr_buf_printf(&b, "%s.alpha", n->module[i].target.name);
        slr_st_entry *e = &w->entry[w->n++];
        *e = (slr_st_entry){.name = b.data ? slr_arena_strdup(w->texts, b.data) : NULL};
        slr_buf_free(&b);
        float alpha = (float)n->module[i].alpha;
        if (!e->name)
            return SDLORA_ENOMEM;
        SLR_TRY(convert(w, e, dtype, &alpha, 1));
    }
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
