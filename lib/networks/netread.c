/* SPDX-License-Identifier: MIT */
/* Reads network files: groups tensors by module, finds each module's kind, and checks all of it
 * against the checkpoint's layers before anything is made (training.md §1.1, §2.14). */
#include "networks/netfile.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/status.h"
#include "base/str.h"
#include "io/file.h"
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

enum { MAX_LEAVES = 16 };

/* The tensors of one module, as the file has them. */
typedef struct group {
    const slr_target *target;
    const char *leaf[MAX_LEAVES]; /* borrowed from the source */
    slr_tensor tensor[MAX_LEAVES];
    size_t n;
    double alpha; /* NAN: not in the file */
} group;

typedef struct reading {
    slr_mem *m;
    const char *label;
    slr_targets *targets;
    group *at;
    size_t n, cap;
    slr_map *by_name;
    size_t total;     /* tensors of the file */
    size_t n_strange; /* keys that match nothing */
    char strange[256];
} reading;

/* Tensors of algorithms that exist and are not read yet, so that the refusal can name them. */
static const struct {
    const char *leaf, *what;
} known_leaves[] = {
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

static int check_strange(const reading *r)
{
    if (r->n_strange)
        return slr_fail(SDLORA_EFORMAT, __func__,
                        "%s: %zu of %zu tensors match no layer of this checkpoint: %s%s", r->label,
                        r->n_strange, r->total, r->strange,
                        r->n_strange > MAX_LISTED ? " ..." : "");
    return SDLORA_OK;
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

static int read_number(const reading *r, const char *key, const slr_tensor *t, double *number)
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
        return read_number(r, key, t, &g->alpha);
    if (g->n == MAX_LEAVES)
        return slr_fail(SDLORA_EFORMAT, __func__, "%s: %s has more than %d tensors", r->label,
                        target->name, MAX_LEAVES);
    g->leaf[g->n] = dot + 1;
    g->tensor[g->n++] = *t;
    return SDLORA_OK;
}

/* The leaf's number in a kind; -1: it has no such. */
static int leaf_index(const slr_kind *kind, const char *leaf)
{
    for (int i = 0; i < SLR_KIND_LEAVES; i++) {
        const char *name = i == SLR_LEAF_SCALAR ? NULL : slr_kind_leaf(kind, i);
        if (name && !strcmp(name, leaf))
            return i;
    }
    return -1;
}

static bool proves(const slr_kind *kind, const group *g)
{
    for (size_t i = 0; i < g->n; i++) {
        int leaf = leaf_index(kind, g->leaf[i]);
        if (leaf >= 0 && leaf < SLR_KIND_OWN && kind->proof >> leaf & 1u &&
            (!kind->mine || kind->mine(&g->tensor[i])))
            return true;
    }
    return false;
}

static const slr_kind *kind_of(const group *g)
{
    const slr_kind *kind;
    for (size_t i = 0; (kind = slr_kind_at(i)); i++)
        if (proves(kind, g))
            return kind;
    return NULL;
}

static int read_marker(const reading *r, const group *g, size_t i, bool *marked)
{
    const slr_tensor *t = &g->tensor[i];
    if (slr_tensor_count(t) != 1 || slr_dtype_size(t->dtype) != 1)
        return slr_fail(SDLORA_EFORMAT, __func__, "%s: %s.%s is not a single bool", r->label,
                        g->target->name, g->leaf[i]);
    *marked = *(const uint8_t *)t->data != 0;
    return SDLORA_OK;
}

/* The module's tensors by leaf number; all of them must be the kind's. */
static int sort_leaves(reading *r, const group *g, const slr_kind *kind, slr_form *form,
                       slr_tensor tensor[SLR_KIND_LEAVES])
{
    for (size_t i = 0; i < g->n; i++) {
        char key[SLR_LAYER_KEY + 64];
        int leaf = leaf_index(kind, g->leaf[i]);
        snprintf(key, sizeof key, "%s.%s", g->target->name, g->leaf[i]);
        if (kind->marker && !strcmp(g->leaf[i], kind->marker)) {
            SLR_TRY(read_marker(r, g, i, &form->marked));
        } else if (!strcmp(g->leaf[i], "scale")) {
            SLR_TRY(read_number(r, key, &g->tensor[i], &form->scale));
        } else if (leaf < 0) {
            SLR_TRY(refuse_known(r, key, g->leaf[i]));
            note_strange(r, key);
        } else if (!is_real(g->tensor[i].dtype)) {
            return slr_fail(SDLORA_EFORMAT, __func__, "%s: %s is not of a floating-point type",
                            r->label, key);
        } else {
            form->have |= 1u << leaf;
            tensor[leaf] = g->tensor[i];
        }
    }
    return SDLORA_OK;
}

/* [out,1(,1,1)], [out] (PEFT) or [1,in(,1,1)]. */
static int read_dora(const reading *r, const slr_target *t, const slr_tensor *have, slr_form *form)
{
    int64_t count = slr_tensor_count(have);
    bool rows = have->rank >= 1 && have->dim[0] == t->out && count == t->out;
    bool columns = have->rank >= 2 && have->dim[0] == 1 && have->dim[1] == t->in && count == t->in;
    if ((!rows && !columns) || t->norm)
        return slr_form_refuse(r->label, t, "dora_scale", have,
                               "one number for each output or input");
    slr_form_add(form, SLR_LEAF_DORA, t->conv ? 4 : 2,
                 (int64_t[]){rows ? t->out : 1, rows ? 1 : t->in, 1, 1});
    return SDLORA_OK;
}

/* What was read must be as large as what was promised. */
static int check_counts(const reading *r, const group *g, const slr_kind *kind,
                        const slr_form *form, const slr_tensor *tensor)
{
    if (form->rank > MAX_RANK)
        return slr_fail(SDLORA_EFORMAT, __func__, "%s: %s has rank %lld, more than %d", r->label,
                        g->target->name, (long long)form->rank, MAX_RANK);
    for (int i = 0; i < SLR_KIND_LEAVES; i++) {
        char wanted[96];
        slr_tensor shape = {.rank = form->leaf[i].rank};
        if (!(form->have >> i & 1u))
            continue;
        memcpy(shape.dim, form->leaf[i].dim, sizeof shape.dim);
        if (slr_tensor_count(&shape) < 1 ||
            slr_tensor_count(&shape) != slr_tensor_count(&tensor[i]))
            return slr_form_refuse(r->label, g->target, slr_kind_leaf(kind, i), &tensor[i],
                                   slr_shape_text(shape.dim, shape.rank, wanted));
    }
    return SDLORA_OK;
}

static int missing(const reading *r, const group *g, const slr_kind *kind)
{
    for (int i = 0; kind && i < SLR_KIND_OWN; i++) {
        bool have = false;
        for (size_t k = 0; k < g->n; k++)
            have = have || leaf_index(kind, g->leaf[k]) == i;
        if (kind->needs >> i & 1u && !have)
            return slr_fail(SDLORA_EFORMAT, __func__, "%s: %s.%s is missing", r->label,
                            g->target->name, kind->leaf[i]);
    }
    return SDLORA_OK;
}

/* A module is whole, and fits its layer. */
static int check_group(reading *r, const group *g, const slr_kind *kind, slr_form *form,
                       slr_tensor tensor[SLR_KIND_LEAVES])
{
    *form = (slr_form){.alpha = g->alpha, .scale = NAN};
    SLR_TRY(sort_leaves(r, g, kind, form, tensor));
    SLR_TRY(check_strange(r)); /* a mistyped key explains a missing one */
    SLR_TRY(missing(r, g, kind));
    if (kind->takes ? !kind->takes(g->target) : g->target->norm)
        return slr_fail(SDLORA_EFORMAT, __func__, "%s: %s is not a layer that %s can adapt",
                        r->label, g->target->name, kind->name);
    SLR_TRY(kind->read(g->target, tensor, r->label, form));
    if (form->have >> SLR_LEAF_DORA & 1u)
        SLR_TRY(read_dora(r, g->target, &tensor[SLR_LEAF_DORA], form));
    if (isnan(form->alpha) && form->rank > 0 && !kind->no_alpha)
        form->alpha = (double)form->rank;
    if (isnan(form->scale))
        form->scale = slr_form_scale(form);
    return check_counts(r, g, kind, form, tensor);
}

static int add_group(slr_network *n, reading *r, const group *g)
{
    slr_form form;
    slr_tensor tensor[SLR_KIND_LEAVES];
    const slr_kind *kind = kind_of(g);
    if (kind) {
        SLR_TRY(check_group(r, g, kind, &form, tensor));
        return slr_network_add(n, kind, g->target, &form, NULL);
    }
    for (size_t i = 0; i < g->n; i++) {
        char key[SLR_LAYER_KEY + 64];
        snprintf(key, sizeof key, "%s.%s", g->target->name, g->leaf[i]);
        SLR_TRY(refuse_known(r, key, g->leaf[i]));
        note_strange(r, key);
    }
    if (g->n)
        return SDLORA_OK;
    return slr_fail(SDLORA_EFORMAT, __func__, "%s: %s has an alpha and no weights", r->label,
                    g->target->name);
}

/* Copies weights of module i, which came from group i. */
static int copy_group(slr_network *n, const slr_module *mod, const group *g)
{
    for (size_t i = 0; i < g->n; i++) {
        int leaf = leaf_index(mod->kind, g->leaf[i]);
        if (leaf >= 0)
            SLR_TRY(slr_tensor_to_f32(&g->tensor[i],
                                      n->params +
                                          slr_module_slot(mod, &n->slot[mod->slot], leaf)->offset));
    }
    return SDLORA_OK;
}

static int build(slr_network *n, reading *r)
{
    for (size_t i = 0; i < r->n; i++)
        SLR_TRY(add_group(n, r, &r->at[i]));
    SLR_TRY(check_strange(r));
    SLR_TRY(slr_network_layout(n));
    for (size_t i = 0; i < r->n; i++)
        SLR_TRY(copy_group(n, &n->module[i], &r->at[i]));
    return SDLORA_OK;
}

static int read_groups(reading *r, const source *s)
{
    r->total = source_count(s);
    for (size_t i = 0; i < source_count(s); i++) {
        slr_tensor t;
        const char *key = source_at(s, i, &t);
        SLR_TRY(take_tensor(r, key, &t));
    }
    if (!r->n)
        SLR_TRY(check_strange(r));
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
