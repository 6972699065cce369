/* SPDX-License-Identifier: MIT */
/* What an embedding is: a module of one tensor for each encoder, made for training, or of a file's.
 * Refuses to know containers (embedding_file.c), pictures and prompts. */
#include "networks/embedding.h"

#include <math.h>
#include <string.h>

#include "base/status.h"
#include "models/bpe.h"
#include "models/clip.h"
#include "networks/kind.h"

#define NEW_STD 0.02 /* CLIP's token embeddings start with it */

enum { ROWS = 0 };

static const char *const table_name = "text_model.embeddings.token_embedding.weight";

static bool takes(const slr_target *t)
{
    return !strcmp(t->path, SLR_EMBEDDING_PATH);
}

const slr_kind slr_kind_embedding = {
    .name = "textual_inversion",
    .leaf = {[ROWS] = "emb_params"},
    .proof = 1u << ROWS,
    .needs = 1u << ROWS,
    .no_alpha = true,
    .takes = takes,
};

bool slr_network_is_embedding(const slr_network *n)
{
    return n->n_modules > 0 && n->module[0].kind == &slr_kind_embedding;
}

static const float *rows_at(const slr_network *n, size_t module, int64_t *vectors, int64_t *width)
{
    const slr_network_slot *s =
        slr_module_slot(&n->module[module], n->slot + n->module[module].slot, ROWS);
    *vectors = s->dim[0];
    *width = s->dim[1];
    return n->params + s->offset;
}

const float *slr_embedding_rows(const slr_network *n, int64_t *vectors, int64_t *width)
{
    return slr_network_is_embedding(n) ? rows_at(n, 0, vectors, width) : NULL;
}

const float *slr_embedding_rows_of(const slr_network *n, int part, int64_t *vectors, int64_t *width)
{
    for (size_t i = 0; slr_network_is_embedding(n) && i < n->n_modules; i++)
        if (n->module[i].target.part == part)
            return rows_at(n, i, vectors, width);
    return NULL;
}

/* The rows of one encoder. */
typedef struct rows {
    int part;           /* SLR_PART_TE or SLR_PART_TE2 */
    const slr_named *t; /* NULL: new ones */
    int64_t vectors, width;
} rows;

/* Names tell the two tensors of a pair apart. */
static int add_rows(slr_network *n, const rows *r, size_t index)
{
    static const char *const names[] = {SLR_EMBEDDING_PATH, SLR_EMBEDDING_PATH "_2"};
    slr_target target = {.part = r->part,
                         .name = names[index],
                         .path = SLR_EMBEDDING_PATH,
                         .out = r->vectors,
                         .in = r->width,
                         .kh = 1,
                         .kw = 1};
    slr_form form = {.alpha = NAN, .scale = 1.0};
    slr_form_add(&form, ROWS, 2, (int64_t[]){r->vectors, r->width});
    return slr_network_add(n, &slr_kind_embedding, &target, &form, NULL);
}

/* A network of a module for each encoder; their rows are zero. */
static int new_embedding(slr_network **out, slr_mem *m, const slr_checkpoint *base,
                         const rows *list, size_t count, slr_str name)
{
    slr_network *n;
    SLR_TRY(slr_network_new(&n, m, base));
    int rc = SDLORA_OK;
    for (size_t i = 0; rc >= 0 && i < count; i++)
        rc = add_rows(n, &list[i], i);
    if (rc >= 0)
        rc = slr_network_layout(n);
    char *text = rc >= 0 ? slr_arena_alloc(n->texts, name.n + 1, 1) : NULL;
    if (text) {
        memcpy(text, name.p, name.n);
        n->name = text;
    } else if (rc >= 0) {
        rc = SDLORA_ENOMEM;
    }
    if (rc < 0) {
        slr_network_unref(n);
        return rc;
    }
    *out = n;
    return SDLORA_OK;
}

static int width_of(const slr_checkpoint *base, int part, int64_t *width)
{
    slr_weights *te = slr_checkpoint_part(base, part);
    slr_clip_shape shape;
    if (!te)
        return slr_fail(SDLORA_EINVAL, __func__, "%s has no %s for embeddings",
                        slr_checkpoint_path(base), slr_part_name(part));
    SLR_TRY(slr_clip_read(&shape, slr_checkpoint_family(base), te));
    *width = shape.width;
    return SDLORA_OK;
}

/* --- of a file's tensors --- */

static bool is_real(uint32_t dtype)
{
    static const uint32_t types[] = {SDLORA_F32, SDLORA_F16,     SDLORA_BF16,
                                     SDLORA_F64, SDLORA_F8_E4M3, SDLORA_F8_E5M2};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (types[i] == dtype)
            return true;
    return false;
}

static const slr_named *find(const slr_named *tensor, size_t n, const char *key)
{
    for (size_t i = 0; i < n; i++)
        if (!strcmp(tensor[i].key, key))
            return &tensor[i];
    return NULL;
}

/* The only tensor of a file has any name, but for paths and what networks begin with. */
static bool may_be_rows(const slr_named *t)
{
    static const char *const others[] = {"lora_", "lycoris_", "oft_"};
    bool name = t->key[0] == '<' || (*t->key && !strchr(t->key, '.'));
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        name = name && !slr_starts(t->key, others[i]);
    return name && (t->t.rank == 1 || t->t.rank == 2);
}

/* SDXL's two encoders in one file, whoever wrote it. */
static bool find_pair(const slr_named *tensor, size_t n, const slr_named *pair[2])
{
    static const char *const pairs[][2] = {{"clip_l", "clip_g"},
                                           {"text_encoders_0", "text_encoders_1"}};
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        pair[0] = find(tensor, n, pairs[i][0]);
        pair[1] = find(tensor, n, pairs[i][1]);
        if (pair[0] && pair[1])
            return true;
    }
    return false;
}

/* A pair for the encoders that the model has. */
static int take_pair(const slr_named *const pair[2], const slr_checkpoint *base, const char *label,
                     rows list[2], size_t *count)
{
    const slr_family *family = slr_checkpoint_family(base);
    char first[96], second[96];
    int64_t width = 0;
    for (int e = 0; e < family->n_text; e++) {
        int part = family->text[e].part;
        if (family->n_text == 2 || part == SLR_PART_TE2)
            list[(*count)++] = (rows){.part = part, .t = pair[part == SLR_PART_TE2]};
    }
    if (*count)
        return SDLORA_OK;
    SLR_TRY(width_of(base, family->text[0].part, &width));
    return slr_fail(SDLORA_ENOTSUP, __func__,
                    "%s: %s %s and %s %s are an embedding for the two text encoders of SDXL; "
                    "%s has one of width %lld",
                    label, pair[0]->key, slr_shape_text(pair[0]->t.dim, pair[0]->t.rank, first),
                    pair[1]->key, slr_shape_text(pair[1]->t.dim, pair[1]->t.rank, second),
                    slr_checkpoint_path(base), (long long)width);
}

/* The only embedding of a file that is none of a pair; NULL: the file is something else. */
static int find_single(const slr_named *tensor, size_t n, const char *label, const slr_named **out)
{
    size_t params = 0;
    *out = NULL;
    for (size_t i = 0; i < n; i++)
        if (slr_starts(tensor[i].key, "string_to_param.")) {
            *out = &tensor[i];
            params++;
        }
    if (params > 1)
        return slr_fail(SDLORA_EFORMAT, __func__,
                        "%s: string_to_param holds %zu embeddings, wanted one", label, params);
    if (!*out)
        *out = find(tensor, n, "emb_params");
    if (*out && find(tensor, n, "emb_params_out"))
        return slr_fail(SDLORA_ENOTSUP, __func__,
                        "%s: emb_params_out, which changes the text encoder's output, is not "
                        "supported",
                        label);
    if (!*out && n == 1 && may_be_rows(tensor))
        *out = tensor;
    return SDLORA_OK;
}

/* The tensors that hold rows; *count 0: the file is something else. */
static int find_rows(const slr_named *tensor, size_t n, const slr_checkpoint *base,
                     const char *label, rows list[2], size_t *count)
{
    const slr_family *family = slr_checkpoint_family(base);
    const slr_named *pair[2], *single;
    char shape[96];
    *count = 0;
    if (find_pair(tensor, n, pair))
        return take_pair(pair, base, label, list, count);
    SLR_TRY(find_single(tensor, n, label, &single));
    if (!single)
        return SDLORA_OK;
    if (family->n_text > 1)
        return slr_fail(SDLORA_EINVAL, __func__,
                        "%s: %s is %s, an embedding for one text encoder; %s takes clip_l and "
                        "clip_g, rows for each of its two",
                        label, single->key, slr_shape_text(single->t.dim, single->t.rank, shape),
                        slr_checkpoint_path(base));
    list[(*count)++] = (rows){.part = family->text[0].part, .t = single};
    return SDLORA_OK;
}

/* Whose vectors are this wide. */
static const char *owner(int64_t width)
{
    static const struct {
        int64_t width;
        const char *of;
    } table[] = {{768, " (SD 1)"},
                 {1024, " (SD 2)"},
                 {1280, " (SDXL's second text encoder)"},
                 {2048, " (SDXL's two text encoders together)"}};
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (table[i].width == width)
            return table[i].of;
    return "";
}

static int check_rows(rows *r, const slr_checkpoint *base, const char *label)
{
    const slr_named *t = r->t;
    char shape[96];
    int64_t want = 0;
    slr_shape_text(t->t.dim, t->t.rank, shape);
    SLR_TRY(width_of(base, r->part, &want));
    if (!is_real(t->t.dtype))
        return slr_fail(SDLORA_EFORMAT, __func__, "%s: %s is not of a floating-point type", label,
                        t->key);
    if (t->t.rank != 1 && t->t.rank != 2)
        return slr_fail(SDLORA_EFORMAT, __func__, "%s: %s is %s, wanted [vectors,%lld]", label,
                        t->key, shape, (long long)want);
    r->vectors = t->t.rank == 1 ? 1 : t->t.dim[0];
    r->width = t->t.dim[t->t.rank - 1];
    if (r->width != want)
        return slr_fail(SDLORA_EINVAL, __func__,
                        "%s: %s is %s: vectors of width %lld%s, but %s takes %lld%s", label, t->key,
                        shape, (long long)r->width, owner(r->width), slr_checkpoint_path(base),
                        (long long)want, owner(want));
    if (r->vectors < 1 || r->vectors > SLR_EMBEDDING_MOST)
        return slr_fail(SDLORA_EFORMAT, __func__,
                        "%s: %s is %s: %lld vectors, but a chunk of a prompt has 1 to %d places",
                        label, t->key, shape, (long long)r->vectors, SLR_EMBEDDING_MOST);
    return SDLORA_OK;
}

static int check_all(rows list[2], size_t count, const slr_checkpoint *base, const char *label)
{
    for (size_t i = 0; i < count; i++)
        SLR_TRY(check_rows(&list[i], base, label));
    if (count == 2 && list[0].vectors != list[1].vectors)
        return slr_fail(SDLORA_EFORMAT, __func__, "%s: %s has %lld vectors and %s %lld", label,
                        list[0].t->key, (long long)list[0].vectors, list[1].t->key,
                        (long long)list[1].vectors);
    return SDLORA_OK;
}

/* Module i is made of list[i]. */
static int fill(slr_network *n, const rows *list, const char *label, const char *path)
{
    for (size_t i = 0; i < n->n_modules; i++) {
        const slr_network_slot *s = &n->slot[n->module[i].slot];
        float *to = n->params + s->offset;
        SLR_TRY(slr_tensor_to_f32(&list[i].t->t, to));
        for (size_t k = 0; k < s->count; k++)
            if (!isfinite(to[k]))
                return slr_fail(SDLORA_EFORMAT, __func__, "%s: %s holds a value that is not finite",
                                label, list[i].t->key);
    }
    n->path = path ? slr_arena_strdup(n->texts, path) : NULL;
    return path && !n->path ? SDLORA_ENOMEM : SDLORA_OK;
}

int slr_embedding_of(slr_network **out, slr_mem *m, const slr_checkpoint *base,
                     const slr_named *tensor, size_t n, const char *label, slr_str name,
                     const char *path)
{
    rows list[2];
    size_t count;
    slr_network *made;
    *out = NULL;
    SLR_TRY(find_rows(tensor, n, base, label, list, &count));
    if (!count)
        return SDLORA_DONE;
    SLR_TRY(check_all(list, count, base, label));
    SLR_TRY(new_embedding(&made, m, base, list, count, name));
    int rc = fill(made, list, label, path);
    if (rc < 0) {
        slr_network_unref(made);
        return rc;
    }
    *out = made;
    return SDLORA_OK;
}

/* --- new ones --- */

bool slr_embedding_wanted(slr_opt o)
{
    const char *module = slr_opt_text(o, "network_module");
    return slr_opt_has(o, "token_string") || (module && !strcmp(module, slr_kind_embedding.name));
}

static int check_options(slr_opt o)
{
    const char *module = slr_opt_text(o, "network_module"),
               *token = slr_opt_text(o, "token_string");
    if (slr_opt_given(o, "network_module") && strcmp(module, slr_kind_embedding.name) != 0)
        return slr_fail(SDLORA_EINVAL, __func__,
                        "token_string is for network_module=%s, not for %s",
                        slr_kind_embedding.name, module);
    if (!token || !*token)
        return slr_fail(SDLORA_EINVAL, __func__, "network_module=%s needs a token_string",
                        slr_kind_embedding.name);
    if (slr_opt_bool(o, "network_train_unet_only"))
        return slr_fail(SDLORA_EINVAL, __func__,
                        "network_train_unet_only leaves no embedding to train");
    return SDLORA_OK;
}

/* Row i is the token embedding of init_word's token i % n, of each encoder its own. */
static int copy_rows(slr_network *n, size_t module, const slr_checkpoint *base, const int32_t *ids,
                     size_t n_ids)
{
    const slr_network_slot *s = &n->slot[n->module[module].slot];
    const slr_tensor *table;
    int64_t vectors = s->dim[0], width = s->dim[1];
    SLR_TRY(slr_weights_get(slr_checkpoint_part(base, s->part), table_name, &table));
    for (int64_t i = 0; i < vectors; i++) {
        int64_t id = ids[(size_t)i % n_ids];
        slr_tensor row = {.dtype = table->dtype, .rank = 1, .dim = {width}};
        if (id >= table->dim[0])
            return slr_fail(SDLORA_EINVAL, __func__, "%s has no token embedding %lld",
                            slr_checkpoint_path(base), (long long)id);
        row.data = (const char *)table->data + (size_t)(id * width) * slr_dtype_size(table->dtype);
        SLR_TRY(slr_tensor_to_f32(&row, n->params + s->offset + i * width));
    }
    return SDLORA_OK;
}

static int init_rows(slr_network *n, const slr_checkpoint *base, slr_opt o, uint64_t seed)
{
    const char *word = slr_opt_text(o, "init_word");
    slr_rng rng;
    slr_bpe *bpe;
    int32_t *ids = NULL;
    size_t n_ids = 0;
    slr_rng_init(&rng, seed, SLR_STREAM_INIT, 0);
    for (size_t i = 0; i < n->n_modules; i++) {
        const slr_network_slot *s = &n->slot[n->module[i].slot];
        slr_init_normal(n->params + s->offset, s->count, NEW_STD, &rng);
    }
    if (!word)
        return SDLORA_OK;
    SLR_TRY(slr_bpe_new(&bpe, n->m));
    int rc = slr_bpe_encode(bpe, n->m, word, strlen(word), &ids, &n_ids);
    if (rc >= 0 && !n_ids)
        rc = slr_fail(SDLORA_EINVAL, __func__, "init_word '%s' has no token", word);
    for (size_t i = 0; rc >= 0 && i < n->n_modules; i++)
        rc = copy_rows(n, i, base, ids, n_ids);
    slr_free(n->m, ids);
    slr_bpe_unref(bpe);
    return rc;
}

int slr_embedding_make(slr_network **out, const slr_checkpoint *base, const sdlora_options *opts,
                       uint64_t seed)
{
    slr_opt o = {opts, "network"};
    const slr_family *family = slr_checkpoint_family(base);
    slr_network *n;
    rows new[2];
    *out = NULL;
    SLR_TRY(check_options(o));
    for (int e = 0; e < family->n_text; e++) {
        new[e] = (rows){.part = family->text[e].part,
                        .vectors = slr_opt_int(o, "num_vectors_per_token")};
        SLR_TRY(width_of(base, new[e].part, &new[e].width));
    }
    SLR_TRY(new_embedding(&n, slr_checkpoint_mem(base), base, new, (size_t)family->n_text,
                          slr_str_of(slr_opt_text(o, "token_string"))));
    int rc = slr_options_copy(&n->opts, opts);
    if (rc >= 0)
        rc = init_rows(n, base, (slr_opt){n->opts, "network"}, seed);
    if (rc < 0) {
        slr_network_unref(n);
        return rc;
    }
    *out = n;
    return SDLORA_OK;
}

/* --- in a LoRA's file --- */

size_t slr_network_bundled(const slr_network *n)
{
    return n->n_bundle;
}

slr_network *slr_network_bundle_at(const slr_network *n, size_t i)
{
    return n->bundle[i];
}

/* "bundle_emb.<name>.<tensor>": name and tensor; false for any other key. */
static bool bundle_key(const char *key, slr_str *name, const char **tensor)
{
    static const char prefix[] = "bundle_emb.";
    if (!slr_starts(key, prefix))
        return false;
    key += sizeof prefix - 1;
    const char *dot = strchr(key, '.');
    *name = (slr_str){key, dot ? (size_t)(dot - key) : strlen(key)};
    *tensor = dot ? dot + 1 : "";
    return true;
}

static bool has_bundle(const slr_network *n, slr_str name)
{
    for (size_t i = 0; i < n->n_bundle; i++)
        if (slr_str_eq(name, slr_network_name(n->bundle[i])))
            return true;
    return false;
}

/* All tensors of one name, as a file of their own. */
static int take_one(slr_network *n, const slr_checkpoint *base, const slr_named *tensor,
                    size_t count, slr_str name, slr_named *mine, const char *label)
{
    size_t n_mine = 0;
    slr_network *made;
    for (size_t i = 0; i < count; i++) {
        slr_str other;
        const char *rest;
        if (bundle_key(tensor[i].key, &other, &rest) && other.n == name.n &&
            !memcmp(other.p, name.p, name.n))
            mine[n_mine++] = (slr_named){rest, tensor[i].t};
    }
    SLR_TRY(slr_grow(n->m, &n->bundle, &n->bundle_cap, n->n_bundle + 1, sizeof *n->bundle));
    int rc = slr_embedding_of(&made, n->m, base, mine, n_mine, label, name, NULL);
    if (rc == SDLORA_ENOTSUP) { /* it came along with what was asked for */
        slr_clear();
        return SDLORA_OK;
    }
    if (rc < 0)
        return slr_wrap("bundle_emb.%.*s", (int)name.n, name.p);
    if (rc == SDLORA_DONE)
        return slr_fail(SDLORA_EFORMAT, __func__, "%s: bundle_emb.%.*s is no embedding", label,
                        (int)name.n, name.p);
    n->bundle[n->n_bundle++] = made;
    return SDLORA_OK;
}

int slr_network_take_bundle(slr_network *n, const slr_checkpoint *base, const slr_named *tensor,
                            size_t count, const char *label)
{
    slr_named *mine = slr_calloc(n->m, count + 1, sizeof *mine);
    int rc = mine ? SDLORA_OK : SDLORA_ENOMEM;
    for (size_t i = 0; rc >= 0 && i < count; i++) {
        slr_str name;
        const char *rest;
        if (bundle_key(tensor[i].key, &name, &rest) && !has_bundle(n, name))
            rc = take_one(n, base, tensor, count, name, mine, label);
    }
    slr_free(n->m, mine);
    return rc;
}
