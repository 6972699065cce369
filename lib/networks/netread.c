/* SPDX-License-Identifier: MIT */
/* Reads network files in every dialect: sorts tensors by the layer that their keys mean and has
 * modules made of them.  A file that fits only in part is refused, or, where the caller says so,
 * taken without the rest.  Refuses to know any algorithm. */
#include "networks/netread.h"

#include <math.h>
#include <string.h>

#include "base/status.h"
#include "base/str.h"
#include "io/file.h"
#include "io/safetensors.h"
#include "io/torchfile.h"
#include "networks/hypernet.h"
#include "networks/embedding.h"

#define MAX_LISTED 3 /* names quoted in a refusal */

/* One file, whatever its container. */
typedef struct source {
    slr_safetensors *st;
    slr_torchfile *torch;
} source;

static int source_open(source *s, slr_mem *m, const char *path)
{
    unsigned char first[16];
    uint64_t size;
    SLR_TRY(slr_file_size(path, &size));
    if (!slr_ends(path, ".safetensors") && size >= sizeof first)
        SLR_TRY(slr_file_read_at(path, 0, first, sizeof first));
    if (!slr_ends(path, ".safetensors") && size >= sizeof first &&
        slr_torchfile_is(first, sizeof first))
        return slr_torchfile_open(&s->torch, m, path);
    return slr_safetensors_open(&s->st, m, path, true);
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

/* --- keys that match nothing --- */

/* Tensors of algorithms that exist and are not read yet, so that the refusal can name them. */
static const struct {
    const char *leaf, *what;
} known_leaves[] = {
    {"reshape_weight", "a base of another shape"},
};

/* What follows a kohya key's first '.' may hold a module path as well. */
static bool is_leaf(const char *rest, const char *leaf)
{
    size_t n = strlen(rest), k = strlen(leaf);
    return n >= k && !strcmp(rest + n - k, leaf) && (n == k || rest[n - k - 1] == '.');
}

int slr_reading_known(const slr_reading *r, const char *key, const char *leaf)
{
    for (size_t i = 0; !r->skip && i < sizeof known_leaves / sizeof *known_leaves; i++)
        if (is_leaf(leaf, known_leaves[i].leaf))
            return slr_fail(SDLORA_ENOTSUP, __func__, "%s: %s (%s) is not supported", r->label, key,
                            known_leaves[i].what);
    return SDLORA_OK;
}

int slr_reading_strange(slr_reading *r, const char *key)
{
    size_t used = strlen(r->strange), room = sizeof r->strange - used, n = strlen(key);
    if (r->n_strange++ < MAX_LISTED && n + 3 < room) {
        memcpy(r->strange + used, used ? ", " : "", used ? 2 : 0);
        memcpy(r->strange + used + (used ? 2 : 0), key, n + 1);
    }
    return r->skip ? slr_network_skip(r->network, key) : SDLORA_OK;
}

int slr_reading_check(const slr_reading *r)
{
    if (r->n_strange && !r->skip)
        return slr_fail(SDLORA_EFORMAT, __func__,
                        "%s: %zu of %zu tensors match no layer of this checkpoint: %s%s", r->label,
                        r->n_strange, r->total, r->strange,
                        r->n_strange > MAX_LISTED ? " ..." : "");
    return SDLORA_OK;
}

/* --- groups --- */

static int group_of(slr_reading *r, const slr_target *target, slr_group **out)
{
    int64_t at;
    if (!slr_map_get(r->by_name, target->name, &at)) {
        SLR_TRY(slr_grow(r->m, &r->at, &r->cap, r->n + 1, sizeof *r->at));
        SLR_TRY(slr_map_set(r->by_name, target->name, (int64_t)r->n));
        at = (int64_t)r->n++;
        r->at[at] = (slr_group){.target = target, .alpha = NAN, .scale = NAN};
    }
    *out = &r->at[at];
    return SDLORA_OK;
}

static int read_number(const slr_reading *r, const char *key, const slr_tensor *t, double *number)
{
    float value;
    if (slr_tensor_count(t) != 1)
        return slr_fail(SDLORA_EFORMAT, __func__, "%s: %s is not a single number", r->label, key);
    SLR_TRY(slr_tensor_to_f32(t, &value));
    if (!isfinite(value))
        return slr_fail(SDLORA_EFORMAT, __func__, "%s: %s is not finite", r->label, key);
    *number = value;
    return SDLORA_OK;
}

static int twice(const slr_reading *r, const char *first, const char *second)
{
    return slr_fail(SDLORA_EFORMAT, __func__, "%s: %s and %s are one tensor in two spellings",
                    r->label, first, second);
}

static int take_number(const slr_reading *r, const char **seen, const char *key,
                       const slr_tensor *t, double *number)
{
    if (*seen)
        return twice(r, *seen, key);
    *seen = key;
    return read_number(r, key, t, number);
}

static int take_leaf(slr_reading *r, slr_group *g, const slr_key *k, const char *key,
                     const slr_tensor *t)
{
    g->peft = g->peft || k->peft;
    if (!strcmp(k->leaf, "alpha"))
        return take_number(r, &g->alpha_key, key, t, &g->alpha);
    if (!strcmp(k->leaf, "scale"))
        return take_number(r, &g->scale_key, key, t, &g->scale);
    for (size_t i = 0; i < g->n; i++)
        if (!strcmp(g->at[i].leaf, k->leaf))
            return twice(r, g->at[i].key, key);
    if (g->n == SLR_GROUP_LEAVES)
        return slr_fail(SDLORA_EFORMAT, __func__, "%s: %s has more than %d tensors", r->label,
                        g->target->name, SLR_GROUP_LEAVES);
    g->at[g->n].leaf = k->leaf;
    g->at[g->n].key = key;
    g->at[g->n].take = k->take;
    g->at[g->n++].tensor = *t;
    return SDLORA_OK;
}

static int take_tensor(slr_reading *r, const char *key, const slr_tensor *t)
{
    slr_key k;
    slr_group *g;
    if (slr_starts(key, "bundle_emb."))
        return SDLORA_OK; /* embeddings that travel along: not a module */
    const char *foreign = slr_key_foreign(key);
    if (foreign && !r->skip)
        return slr_fail(SDLORA_ENOTSUP, __func__,
                        "%s: %s belongs to %s, which is no network of a "
                        "Stable Diffusion model",
                        r->label, key, foreign);
    bool read = slr_key_read(&k, key);
    const slr_target *target = read ? slr_key_target(r->targets, &k) : NULL;
    if (!target) {
        if (read)
            SLR_TRY(slr_reading_known(r, key, k.leaf));
        return slr_reading_strange(r, key);
    }
    SLR_TRY(group_of(r, target, &g));
    return take_leaf(r, g, &k, key, t);
}

static int read_groups(slr_reading *r, const source *s)
{
    r->total = source_count(s);
    for (size_t i = 0; i < source_count(s); i++) {
        slr_tensor t;
        const char *key = source_at(s, i, &t);
        SLR_TRY(take_tensor(r, key, &t));
    }
    if (!r->n)
        SLR_TRY(slr_reading_check(r));
    if (!r->n)
        return slr_fail(SDLORA_EFORMAT, __func__, "%s: holds no network module%s%s", r->label,
                        r->n_strange ? " of this checkpoint, but " : "", r->strange);
    return SDLORA_OK;
}

/* Only files that speak PEFT's language have settings beside them. */
static int read_settings(slr_reading *r, const source *s)
{
    bool any = false;
    for (size_t i = 0; i < r->n; i++)
        any = any || r->at[i].peft;
    if (!any)
        return SDLORA_OK;
    const char *text = s->st ? slr_safetensors_meta(s->st, SLR_PEFT_METADATA) : NULL;
    return slr_peft_open(&r->peft, r->m, r->label, text, true);
}

static int build(slr_reading *r)
{
    for (size_t i = 0; i < r->n; i++)
        SLR_TRY(slr_group_add(r, &r->at[i]));
    SLR_TRY(slr_reading_check(r));
    if (!r->network->n_modules)
        return slr_fail(SDLORA_EFORMAT, __func__, "%s: holds no network module that is known here",
                        r->label);
    SLR_TRY(slr_network_layout(r->network));
    for (size_t i = 0; i < r->n; i++)
        SLR_TRY(slr_group_copy(r, &r->at[i]));
    return SDLORA_OK;
}

/* --- the network --- */

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

/* PEFT's settings are read into alphas, which say it wherever the network goes. */
static int copy_meta(slr_network *n, const source *s)
{
    if (!s->st)
        return SDLORA_OK;
    for (size_t i = 0; i < slr_safetensors_meta_count(s->st); i++) {
        const char *value;
        const char *key = slr_safetensors_meta_at(s->st, i, &value);
        if (strcmp(key, SLR_PEFT_METADATA) != 0)
            SLR_TRY(slr_meta_set(n->meta, key, value));
    }
    return SDLORA_OK;
}

/* Embeddings that came along. */
static int take_bundle(const slr_reading *r, const source *s)
{
    size_t n = 0;
    slr_named *tensor = slr_calloc(r->m, source_count(s) + 1, sizeof *tensor);
    if (!tensor)
        return SDLORA_ENOMEM;
    for (size_t i = 0; i < source_count(s); i++) {
        tensor[n].key = source_at(s, i, &tensor[n].t);
        n += slr_starts(tensor[n].key, "bundle_emb.");
    }
    int rc = slr_network_take_bundle(r->network, r->base, tensor, n, r->label);
    slr_free(r->m, tensor);
    return rc;
}

static int read_network(slr_reading *r, const source *s, const char *path)
{
    SLR_TRY(slr_targets_new(&r->targets, r->m, r->base));
    SLR_TRY(slr_map_new(&r->by_name, r->m));
    SLR_TRY(slr_network_new(&r->network, r->m, r->base));
    SLR_TRY(read_groups(r, s));
    SLR_TRY(read_settings(r, s));
    SLR_TRY(build(r));
    SLR_TRY(take_bundle(r, s));
    SLR_TRY(name_network(r->network, path));
    SLR_TRY(copy_meta(r->network, s));
    return slr_network_begin_again(r->network, r->base);
}

int slr_network_open_with(slr_network **out, slr_mem *m, const slr_checkpoint *base,
                          const char *path, const slr_open_config *config)
{
    int rc = slr_embedding_open(out, m, base, path);
    if (rc == SDLORA_DONE)
        rc = slr_hyper_open(out, m, base, path);
    if (rc != SDLORA_DONE)
        return rc;
    source s = {0};
    slr_reading r = {.m = m, .label = path, .base = base, .skip = config && config->skip};
    rc = source_open(&s, m, path);
    if (rc >= 0)
        rc = read_network(&r, &s, path);
    slr_map_free(r.by_name);
    for (size_t i = 0; i < r.n; i++)
        for (size_t k = 0; k < r.at[i].n; k++)
            slr_free(m, r.at[i].at[k].values);
    slr_free(m, r.at);
    slr_peft_free(r.peft);
    slr_targets_free(r.targets);
    source_close(&s);
    if (rc < 0) {
        slr_network_unref(r.network);
        return rc;
    }
    if (r.n_strange && config->log)
        slr_logf(config->log, SLR_LOG_WARN, "%s: %zu of %zu tensors were skipped: %s%s", path,
                 r.n_strange, r.total, r.strange, r.n_strange > MAX_LISTED ? " ..." : "");
    *out = r.network;
    return SDLORA_OK;
}

int slr_network_open(slr_network **out, slr_mem *m, const slr_checkpoint *base, const char *path)
{
    return slr_network_open_with(out, m, base, path, NULL);
}
