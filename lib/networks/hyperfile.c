/* SPDX-License-Identifier: MIT */
/* Files of hypernetworks as AUTOMATIC1111 writes and reads them: a dict with an int key for each
 * width, under it a pair of state dicts (for keys and for values), and the structure by name beside
 * them.  What a file leaves out has the default that AUTOMATIC1111 takes for it.  Refuses to know
 * the formula. */
#include <stdio.h>
#include <string.h>

#include "base/status.h"
#include "base/str.h"
#include "io/file.h"
#include "io/torchfile.h"
#include "io/torchwrite.h"
#include "networks/hypernet.h"
#include "networks/kind.h"

enum { LEAVES = 4 };

/* ---- reading: structure ------------------------------------------------------------------ */

int64_t slr_hyper_key_width(const char *name)
{
    char digits[8];
    size_t n = strspn(name, "0123456789");
    int64_t width;
    if (n < 1 || n >= sizeof digits || name[0] == '0' || name[n] != '.' ||
        (name[n + 1] != '0' && name[n + 1] != '1') || !slr_starts(name + n + 2, ".linear"))
        return 0;
    memcpy(digits, name, n);
    digits[n] = '\0';
    return slr_parse_i64(digits, &width) && width <= SLR_HYPER_WIDEST ? width : 0;
}

static int add_width(slr_hyper *h, int64_t width, const char *label)
{
    for (int i = 0; i < h->widths; i++)
        if (h->width[i] == width)
            return SDLORA_OK;
    if (h->widths == SLR_HYPER_WIDTHS)
        return slr_fail(SDLORA_EFORMAT, __func__, "%s: has MLPs for more than %d widths", label,
                        SLR_HYPER_WIDTHS);
    h->width[h->widths++] = width;
    return SDLORA_OK;
}

/* Of an optimiser, that some tools leave in the file. */
static bool is_optimizer(const char *name)
{
    return slr_starts(name, "optimizer_state_dict.") || slr_starts(name, "optimizer.");
}

static int read_widths(slr_hyper *h, const slr_torchfile *f, const char *label)
{
    const char *strange = NULL;
    for (size_t i = 0; i < slr_torchfile_count(f); i++) {
        const char *name = slr_torchfile_at(f, i, NULL);
        int64_t width = slr_hyper_key_width(name);
        if (width)
            SLR_TRY(add_width(h, width, label));
        else if (!is_optimizer(name) && !strange)
            strange = name;
    }
    if (!h->widths)
        return SDLORA_DONE;
    if (strange)
        return slr_fail(SDLORA_EFORMAT, __func__, "%s: %s is no part of a hypernetwork", label,
                        strange);
    return SDLORA_OK;
}

/* Python's truth of what a file says; `otherwise` where it says nothing. */
static bool read_flag(const slr_torchfile *f, const char *name, bool otherwise)
{
    const slr_torch_value *v = slr_torchfile_value(f, name);
    if (!v)
        return otherwise;
    return v->type == SLR_TORCH_TEXT ? v->text[0] != '\0' : v->f != 0;
}

static const char *read_text(const slr_torchfile *f, const char *name)
{
    const slr_torch_value *v = slr_torchfile_value(f, name);
    return v && v->type == SLR_TORCH_TEXT ? v->text : NULL;
}

/* A list of numbers; *n is 0 when there is none. */
static int read_list(const slr_torchfile *f, const char *name, double *to, int *n,
                     const char *label)
{
    for (*n = 0;; ++*n) {
        char key[64];
        snprintf(key, sizeof key, "%s.%d", name, *n);
        const slr_torch_value *v = slr_torchfile_value(f, key);
        if (!v)
            return SDLORA_OK;
        if (*n > SLR_HYPER_LAYERS)
            return slr_fail(SDLORA_EFORMAT, __func__, "%s: %s has more than %d numbers", label,
                            name, SLR_HYPER_LAYERS + 1);
        if (v->type != SLR_TORCH_INT && v->type != SLR_TORCH_REAL && v->type != SLR_TORCH_BOOL)
            return slr_fail(SDLORA_EFORMAT, __func__, "%s: %s is not a number", label, key);
        to[*n] = v->f;
    }
}

static int read_dropout(slr_hyper *h, const slr_torchfile *f, const char *label)
{
    int n;
    SLR_TRY(read_list(f, "dropout_structure", h->dropout, &n, label));
    if (!n)
        slr_hyper_derive_dropout(h);
    else if (n < h->layers + 1)
        return slr_fail(SDLORA_EFORMAT, __func__,
                        "%s: dropout_structure has %d numbers, layer_structure %d", label, n,
                        h->layers + 1);
    for (int i = 0; i <= h->layers; i++)
        h->use_dropout = h->use_dropout || h->dropout[i] != 0;
    return SDLORA_OK;
}

static int read_structure(slr_hyper *h, const slr_torchfile *f, const char *label)
{
    static const double usual[] = {1, 2, 1};
    int n;
    SLR_TRY(read_list(f, "layer_structure", h->structure, &n, label));
    if (!n) {
        memcpy(h->structure, usual, sizeof usual);
        n = 3;
    }
    h->layers = n - 1;
    h->activation = read_text(f, "activation_func");
    h->is_layer_norm = read_flag(f, "is_layer_norm", false);
    h->activate_output = read_flag(f, "activate_output", true);
    h->use_dropout = read_flag(f, "use_dropout", false);
    h->last_layer_dropout = read_flag(f, "last_layer_dropout", false);
    h->weight_initialization = read_text(f, "weight_initialization");
    h->sd_checkpoint = read_text(f, "sd_checkpoint");
    h->sd_checkpoint_name = read_text(f, "sd_checkpoint_name");
    const slr_torch_value *step = slr_torchfile_value(f, "step");
    h->step = step && step->type == SLR_TORCH_INT ? step->i : 0;
    SLR_TRY(read_dropout(h, f, label));
    return slr_hyper_check(h, label);
}

/* ---- reading: weights -------------------------------------------------------------------- */

typedef struct reading {
    const slr_torchfile *file;
    const slr_hyper *h;
    const char *label;
    slr_network *n; /* NULL: only checked */
    size_t used;
} reading;

static bool find(const reading *r, const char *key, slr_tensor *t)
{
    for (size_t i = 0; i < slr_torchfile_count(r->file); i++)
        if (!strcmp(slr_torchfile_at(r->file, i, t), key))
            return true;
    return false;
}

/* The first files named two layers "linear1" and "linear2". */
static bool find_old(const reading *r, int width, bool value, int i, int leaf, slr_tensor *t)
{
    char key[96];
    snprintf(key, sizeof key, "%lld.%d.linear%d.%s", (long long)r->h->width[width], (int)value,
             i + 1, leaf == SLR_HYPER_WEIGHT ? "weight" : "bias");
    return leaf < SLR_HYPER_NORM_WEIGHT && i < 2 && find(r, key, t);
}

static bool is_real(uint32_t dtype)
{
    return dtype == SDLORA_F32 || dtype == SDLORA_F16 || dtype == SDLORA_BF16 ||
           dtype == SDLORA_F64;
}

/* One leaf: is it there, and of that shape?  Then, if there is a network, its values. */
static int read_leaf(reading *r, int width, bool value, int i, int leaf)
{
    const slr_hyper *h = r->h;
    int64_t in = slr_hyper_width(h, h->width[width], i);
    int64_t out = slr_hyper_width(h, h->width[width], i + 1);
    char key[96], shape[96];
    slr_tensor t;
    slr_hyper_key(h, width, value, i, leaf, key);
    if (!find(r, key, &t) && !find_old(r, width, value, i, leaf, &t))
        return slr_fail(SDLORA_EFORMAT, __func__, "%s: %s is missing", r->label, key);
    bool matrix = leaf == SLR_HYPER_WEIGHT;
    if (t.rank != (matrix ? 2 : 1) || t.dim[0] != out || (matrix && t.dim[1] != in))
        return slr_fail(SDLORA_EFORMAT, __func__, "%s: %s is %s, wanted [%lld%s%.0lld]", r->label,
                        key, slr_shape_text(t.dim, t.rank, shape), (long long)out,
                        matrix ? "," : "", matrix ? (long long)in : 0LL);
    if (!is_real(t.dtype))
        return slr_fail(SDLORA_EFORMAT, __func__, "%s: %s is not of a floating-point type",
                        r->label, key);
    r->used++;
    if (!r->n)
        return SDLORA_OK;
    const slr_module *mod = &r->n->module[slr_hyper_module(h, width, value, i)];
    const slr_network_slot *slot = slr_module_slot(mod, &r->n->slot[mod->slot], leaf);
    return slr_tensor_to_f32(&t, r->n->params + slot->offset);
}

static int read_all(reading *r)
{
    int leaves = r->h->is_layer_norm ? LEAVES : SLR_HYPER_NORM_WEIGHT;
    r->used = 0;
    for (int w = 0; w < r->h->widths; w++)
        for (int v = 0; v < 2; v++)
            for (int i = 0; i < r->h->layers; i++)
                for (int leaf = 0; leaf < leaves; leaf++)
                    SLR_TRY(read_leaf(r, w, v, i, leaf));
    return SDLORA_OK;
}

/* Weights that layer_structure has no place for would be lost. */
static int check_all_used(const reading *r)
{
    size_t weights = 0;
    for (size_t i = 0; i < slr_torchfile_count(r->file); i++)
        weights += slr_hyper_key_width(slr_torchfile_at(r->file, i, NULL)) != 0;
    if (weights == r->used)
        return SDLORA_OK;
    return slr_fail(SDLORA_EFORMAT, __func__,
                    "%s: holds %zu weights, of which layer_structure and the other settings "
                    "explain %zu",
                    r->label, weights, r->used);
}

static int name_network(slr_network *n, const char *path)
{
    const char *base = slr_path_base(path);
    char *stem = slr_strndup(n->m, base, slr_path_stem(base));
    const char *name = stem ? slr_arena_strdup(n->texts, stem) : NULL;
    slr_free(n->m, stem);
    n->path = slr_arena_strdup(n->texts, path);
    if (!name || !n->path)
        return SDLORA_ENOMEM;
    n->name = name;
    return SDLORA_OK;
}

static int list_meta(slr_network *n, const char *key, const double *v, int count)
{
    slr_buf b;
    slr_buf_init(&b, n->m);
    for (int i = 0; i < count; i++)
        slr_buf_printf(&b, "%s%g", i ? ", " : "[", v[i]);
    slr_buf_puts(&b, "]");
    int rc = slr_buf_ok(&b);
    if (rc >= 0)
        rc = slr_meta_set(n->meta, key, b.data);
    slr_buf_free(&b);
    return rc;
}

/* The settings under the names that the file has. */
static int fill_meta(slr_network *n)
{
    const slr_hyper *h = n->hyper;
    const struct {
        const char *key, *value;
    } texts[] = {
        {"activation_func", h->activation},
        {"weight_initialization", h->weight_initialization},
        {"is_layer_norm", h->is_layer_norm ? "True" : "False"},
        {"activate_output", h->activate_output ? "True" : "False"},
        {"use_dropout", h->use_dropout ? "True" : "False"},
        {"last_layer_dropout", h->last_layer_dropout ? "True" : "False"},
        {"sd_checkpoint", h->sd_checkpoint},
        {"sd_checkpoint_name", h->sd_checkpoint_name},
    };
    SLR_TRY(slr_meta_set(n->meta, "ss_network_module", "hypernetwork"));
    SLR_TRY(slr_meta_setf(n->meta, "step", "%lld", (long long)h->step));
    SLR_TRY(list_meta(n, "layer_structure", h->structure, h->layers + 1));
    SLR_TRY(list_meta(n, "dropout_structure", h->dropout, h->layers + 1));
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        if (texts[i].value)
            SLR_TRY(slr_meta_set(n->meta, texts[i].key, texts[i].value));
    return SDLORA_OK;
}

static int open_file(slr_network **out, slr_mem *m, const slr_checkpoint *base,
                     const slr_torchfile *f, const char *path)
{
    slr_hyper h = {0};
    reading r = {.file = f, .h = &h, .label = path};
    slr_network *n = NULL;
    int rc = read_widths(&h, f, path);
    if (rc != SDLORA_OK)
        return rc;
    SLR_TRY(read_structure(&h, f, path));
    SLR_TRY(read_all(&r)); /* before anything as large as the file claims is made */
    SLR_TRY(check_all_used(&r));
    SLR_TRY(slr_hyper_new(&n, m, base, &h, path));
    r.n = n;
    rc = read_all(&r);
    if (rc >= 0)
        rc = name_network(n, path);
    if (rc >= 0)
        rc = fill_meta(n);
    if (rc < 0) {
        slr_network_unref(n);
        return rc;
    }
    *out = n;
    return SDLORA_OK;
}

int slr_hyper_open(slr_network **out, slr_mem *m, const slr_checkpoint *base, const char *path)
{
    slr_torchfile *f;
    *out = NULL;
    if (!slr_ends(path, ".pt") && !slr_ends(path, ".ckpt") && !slr_ends(path, ".bin"))
        return SDLORA_DONE;
    SLR_TRY(slr_torchfile_open(&f, m, path));
    int rc = open_file(out, m, base, f, path);
    slr_torchfile_close(f);
    return rc;
}

/* ---- writing ----------------------------------------------------------------------------- */

static void write_mlp(slr_torchwrite *w, const slr_network *n, int width, bool value,
                      uint32_t dtype)
{
    const slr_hyper *h = n->hyper;
    int leaves = h->is_layer_norm ? LEAVES : SLR_HYPER_NORM_WEIGHT;
    slr_torchwrite_ordered_dict(w);
    for (int i = 0; i < h->layers; i++)
        for (int leaf = 0; leaf < leaves; leaf++) {
            const slr_module *mod = &n->module[slr_hyper_module(h, width, value, i)];
            const slr_network_slot *slot = slr_module_slot(mod, &n->slot[mod->slot], leaf);
            slr_tensor t = {
                .dtype = SDLORA_F32, .rank = slot->rank, .data = n->params + slot->offset};
            char key[96];
            memcpy(t.dim, slot->dim, sizeof t.dim);
            slr_hyper_key(h, width, value, i, leaf, key);
            slr_torchwrite_text(w, strchr(key, 'l')); /* behind "768.1." */
            slr_torchwrite_tensor(w, &t, dtype);
        }
    slr_torchwrite_end(w);
}

static void write_list(slr_torchwrite *w, const char *key, const double *v, int n)
{
    slr_torchwrite_text(w, key);
    slr_torchwrite_list(w);
    for (int i = 0; i < n; i++)
        if (v[i] == (double)(int64_t)v[i])
            slr_torchwrite_int(w, (int64_t)v[i]);
        else
            slr_torchwrite_real(w, v[i]);
    slr_torchwrite_end(w);
}

static void write_flag(slr_torchwrite *w, const char *key, bool value)
{
    slr_torchwrite_text(w, key);
    slr_torchwrite_bool(w, value);
}

static void write_text(slr_torchwrite *w, const char *key, const char *value)
{
    slr_torchwrite_text(w, key);
    if (value)
        slr_torchwrite_text(w, value);
    else
        slr_torchwrite_none(w);
}

/* What the run says of itself, over what the network came with. */
typedef struct run_facts {
    int64_t step;
    char hash[16]; /* of the checkpoint: the first 10 digits of its SHA-256 */
    char stem[256];
    const char *checkpoint, *hashed;
} run_facts;

static void read_facts(run_facts *f, const slr_hyper *h, const slr_meta *meta)
{
    const char *step = meta ? slr_meta_get(meta, "ss_steps") : NULL;
    const char *hash = meta ? slr_meta_get(meta, "ss_new_sd_model_hash") : NULL;
    const char *name = meta ? slr_meta_get(meta, "ss_sd_model_name") : NULL;
    int64_t number;
    *f = (run_facts){.step = h->step, .checkpoint = h->sd_checkpoint_name};
    f->hashed = h->sd_checkpoint;
    if (step && slr_parse_i64(step, &number))
        f->step = number;
    if (name) {
        snprintf(f->stem, sizeof f->stem, "%.*s", (int)slr_path_stem(name), name);
        f->checkpoint = f->stem;
    }
    if (hash) {
        snprintf(f->hash, sizeof f->hash, "%.10s", hash);
        f->hashed = f->hash;
    }
}

static int tell(slr_torchwrite *w, const slr_network *n, const char *name, uint32_t dtype,
                const slr_meta *meta)
{
    const slr_hyper *h = n->hyper;
    const char *init = h->weight_initialization;
    run_facts facts;
    read_facts(&facts, h, meta);
    slr_torchwrite_dict(w);
    for (int i = 0; i < h->widths; i++) {
        slr_torchwrite_int(w, h->width[i]);
        slr_torchwrite_tuple(w);
        write_mlp(w, n, i, false, dtype);
        write_mlp(w, n, i, true, dtype);
        slr_torchwrite_end(w);
    }
    slr_torchwrite_text(w, "step");
    slr_torchwrite_int(w, facts.step);
    write_text(w, "name", name);
    write_list(w, "layer_structure", h->structure, h->layers + 1);
    write_text(w, "activation_func", h->activation);
    write_flag(w, "is_layer_norm", h->is_layer_norm);
    write_text(w, "weight_initialization", init ? init : "Normal");
    write_text(w, "sd_checkpoint", facts.hashed);
    write_text(w, "sd_checkpoint_name", facts.checkpoint);
    write_flag(w, "activate_output", h->activate_output);
    write_flag(w, "use_dropout", h->use_dropout);
    write_list(w, "dropout_structure", h->dropout, h->layers + 1);
    write_flag(w, "last_layer_dropout", h->layers > 1 && h->dropout[h->layers - 1] > 0);
    write_text(w, "optional_info", NULL);
    slr_torchwrite_end(w);
    return SDLORA_OK;
}

int slr_hyper_save(const slr_network *n, const char *path, uint32_t save_dtype,
                   const slr_meta *meta)
{
    slr_torchwrite *w;
    const char *base = slr_path_base(path);
    if (!slr_ends(path, ".pt"))
        return slr_fail(SDLORA_EINVAL, __func__, "%s: hypernetworks are saved as .pt files", path);
    SLR_TRY(slr_torchwrite_new(&w, n->m));
    char *name = slr_strndup(n->m, base, slr_path_stem(base));
    int rc = name ? tell(w, n, name, save_dtype, meta) : SDLORA_ENOMEM;
    if (rc >= 0)
        rc = slr_torchwrite_save(w, path);
    slr_free(n->m, name);
    slr_torchwrite_free(w);
    return rc;
}

uint64_t slr_hyper_size(const slr_network *n, uint32_t save_dtype)
{
    uint64_t bytes = 2048, each = 512; /* headers twice, alignment, and how a tensor is called */
    for (size_t i = 0; i < n->n_slots; i++)
        bytes += n->slot[i].count * slr_dtype_size(save_dtype) + each;
    return bytes;
}
