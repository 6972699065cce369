/* SPDX-License-Identifier: MIT */
/* Statistics of every tensor of a file.  Knows which of a network's tensors are factors of its
 * change (a factor of zeros means that the module does nothing) and how names fall into blocks.
 * Refuses to judge whether numbers are good. */
#include "networks/check.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "base/map.h"
#include "base/status.h"
#include "base/str.h"
#include "base/thread.h"
#include "io/file.h"
#include "io/json.h"
#include "models/modelfile.h"

enum {
    PIECE = 1 << 16, /* elements that one thread sums alone */
    BATCH = 64,      /* pieces at once */
    MAX_NAMED = 256  /* names that are told of a kind */
};

/* ---- sums ---- */

typedef struct sums {
    uint64_t n, nan, inf;         /* n: of all */
    double abs, square, min, max; /* of magnitudes of the finite ones */
} sums;

static const sums NOTHING = {.min = INFINITY};

static void join(sums *to, const sums *from)
{
    to->n += from->n;
    to->nan += from->nan;
    to->inf += from->inf;
    to->abs += from->abs;
    to->square += from->square;
    to->min = from->min < to->min ? from->min : to->min;
    to->max = from->max > to->max ? from->max : to->max;
}

typedef struct batch {
    const slr_dtype_row *type;
    const char *data;
    int64_t n; /* elements */
    sums piece[BATCH];
} batch;

static void sum_pieces(void *arg, int64_t lo, int64_t hi)
{
    enum { STRIP = 1024 };
    batch *b = arg;
    float x[STRIP];
    for (int64_t p = lo; p < hi; p++) {
        int64_t end = (p + 1) * PIECE < b->n ? (p + 1) * PIECE : b->n;
        sums s = NOTHING;
        for (int64_t at = p * PIECE; at < end; at += STRIP) {
            size_t n = end - at < STRIP ? (size_t)(end - at) : STRIP;
            b->type->to_f32(x, b->data + (size_t)at * b->type->size, n);
            for (size_t i = 0; i < n; i++) {
                double v = fabs((double)x[i]);
                bool finite = v <= (double)FLT_MAX;
                s.nan += v != v;
                s.inf += v > (double)FLT_MAX;
                v = finite ? v : 0;
                s.abs += v;
                s.square += v * v;
                s.max = v > s.max ? v : s.max;
                s.min = finite && v < s.min ? v : s.min;
            }
            s.n += n;
        }
        b->piece[p] = s;
    }
}

/* ---- the job ---- */

typedef struct row {
    char *name;
    uint32_t dtype;
    slr_tensor t; /* shape only */
    sums s;
} row;

typedef struct group {
    size_t tensors;
    sums s;
} group;

/* A module's change is a sum of products; a product with a factor of zeros is nothing. */
enum { PRODUCTS = 3 };
typedef struct module {
    bool has[PRODUCTS], zero[PRODUCTS];
} module;

typedef struct checking {
    slr_mem *m;
    int threads;
    const char *path;
    bool each;
    slr_phase_fn phase;
    void *user;
    uint64_t done, total;
    slr_map *blocks, *modules;
    group *group;
    module *module;
    row *row;
    size_t n_groups, cap_groups, n_modules, cap_modules, n_rows, cap_rows;
    batch *b;
    slr_buf bad, zero;
    size_t n_bad, n_zero;
    sums all;
} checking;

static bool is_float(uint32_t dtype)
{
    return dtype == SDLORA_F32 || dtype == SDLORA_F16 || dtype == SDLORA_BF16 ||
           dtype == SDLORA_F64 || dtype == SDLORA_F8_E4M3 || dtype == SDLORA_F8_E5M2;
}

static int sum_tensor(checking *c, const slr_tensor *t, sums *out)
{
    const slr_dtype_row *type = slr_dtype(t->dtype);
    int64_t count = slr_tensor_count(t);
    *out = NOTHING;
    for (int64_t at = 0; at < count; at += (int64_t)PIECE * BATCH) {
        int64_t n = count - at < (int64_t)PIECE * BATCH ? count - at : (int64_t)PIECE * BATCH;
        int64_t pieces = (n + PIECE - 1) / PIECE;
        size_t bytes = (size_t)n * type->size;
        c->b->type = type;
        c->b->data = (const char *)t->data + (size_t)at * type->size;
        c->b->n = n;
        slr_parallel(c->threads, pieces, 1, sum_pieces, c->b);
        for (int64_t p = 0; p < pieces; p++)
            join(out, &c->b->piece[p]);
        if (slr_file_is_map(t->storage))
            slr_file_forget(c->b->data, bytes);
        c->done += bytes;
        if (c->phase && c->phase(c->user, "check", (int64_t)c->done, (int64_t)c->total))
            return slr_fail(SDLORA_ECANCELED, "slr_file_check", "%s: cancelled", c->path);
    }
    return SDLORA_OK;
}

/* ---- blocks ---- */

/* What ends a block's name, with the number behind it if one is there. */
static const char *const BLOCKS[] = {
    "down_blocks",  "up_blocks",  "mid_block",   "input_blocks", "output_blocks", "middle_block",
    "encoder.down", "decoder.up", "encoder.mid", "decoder.mid",  "layers",        "resblocks",
};

/* Bytes of the name that are the block's. */
static size_t block_length(const char *name)
{
    size_t best = 0;
    for (size_t i = 0; i < sizeof BLOCKS / sizeof *BLOCKS && !best; i++) {
        const char *at = strstr(name, BLOCKS[i]), *p;
        if (!at)
            continue;
        p = at + strlen(BLOCKS[i]);
        best = (size_t)(p - name);
        if ((*p == '.' || *p == '_') && p[1] >= '0' && p[1] <= '9')
            best += 1 + strspn(p + 1, "0123456789");
    }
    if (best)
        return best;
    /* "model.diffusion_model.out.0.weight": two components; "lora_unet_conv_in.alpha": one */
    const char *first = strchr(name, '.'), *second = first ? strchr(first + 1, '.') : NULL;
    return second ? (size_t)(second - name) : first ? (size_t)(first - name) : strlen(name);
}

static int add_to_block(checking *c, const char *name, const sums *s)
{
    int64_t at;
    char *block = slr_strndup(c->m, name, block_length(name));
    int rc = block ? SDLORA_OK : SDLORA_ENOMEM;
    if (rc == SDLORA_OK && !slr_map_get(c->blocks, block, &at)) {
        at = (int64_t)c->n_groups;
        rc = slr_grow(c->m, &c->group, &c->cap_groups, c->n_groups + 1, sizeof *c->group);
        if (rc == SDLORA_OK)
            rc = slr_map_set(c->blocks, block, at);
        if (rc == SDLORA_OK)
            c->group[c->n_groups++] = (group){.s = NOTHING};
    }
    slr_free(c->m, block);
    if (rc == SDLORA_OK) {
        c->group[at].tensors++;
        join(&c->group[at].s, s);
    }
    return rc;
}

/* ---- modules of networks ---- */

static const struct {
    const char *leaf;
    int product;
} FACTORS[] = {
    {".lora_up.weight", 0}, {".lora_down.weight", 0}, {".lora_mid.weight", 0},
    {".lora.up.weight", 0}, {".lora.down.weight", 0}, {".lora_A.weight", 0},
    {".lora_B.weight", 0},  {".hada_w1_a", 0},        {".hada_w1_b", 0},
    {".hada_w2_a", 0},      {".hada_w2_b", 0},        {".hada_t1", 0},
    {".hada_t2", 0},        {".lokr_w1", 0},          {".lokr_w1_a", 0},
    {".lokr_w1_b", 0},      {".lokr_w2", 0},          {".lokr_w2_a", 0},
    {".lokr_w2_b", 0},      {".lokr_t2", 0},          {".a1.weight", 0},
    {".a2.weight", 0},      {".b1.weight", 1},        {".b2.weight", 1},
    {".diff", 0},           {".diff_b", 1},           {".oft_blocks", 0},
    {".oft_diag", 0},       {".w_norm", 0},           {".b_norm", 1},
    {".bias_values", 2},    {".set_weight", 0},       {".q_layer.weight", 0},
    {".p_layer.weight", 0}, {".lambda_layer", 1},     {".lora_B.bias", 1},
};

static int see_factor(checking *c, const char *name, size_t stem, int product, const sums *s)
{
    int64_t at;
    char *key = slr_strndup(c->m, name, stem);
    int rc = key ? SDLORA_OK : SDLORA_ENOMEM;
    if (rc == SDLORA_OK && !slr_map_get(c->modules, key, &at)) {
        at = (int64_t)c->n_modules;
        rc = slr_grow(c->m, &c->module, &c->cap_modules, c->n_modules + 1, sizeof *c->module);
        if (rc == SDLORA_OK)
            rc = slr_map_set(c->modules, key, at);
        if (rc == SDLORA_OK)
            c->module[c->n_modules++] = (module){0};
    }
    slr_free(c->m, key);
    if (rc == SDLORA_OK) {
        c->module[at].has[product] = true;
        c->module[at].zero[product] |= s->max == 0 && s->nan == 0 && s->inf == 0;
    }
    return rc;
}

static int add_to_module(checking *c, const char *name, const sums *s)
{
    size_t n = strlen(name);
    for (size_t i = 0; i < sizeof FACTORS / sizeof *FACTORS; i++)
        if (slr_ends(name, FACTORS[i].leaf))
            return see_factor(c, name, n - strlen(FACTORS[i].leaf), FACTORS[i].product, s);
    if (slr_starts(name, "lora_") && slr_ends(name, ".weight")) /* (IA)^3 */
        return see_factor(c, name, n - strlen(".weight"), 0, s);
    return SDLORA_OK;
}

static bool is_dead(const module *m)
{
    bool dead = true;
    for (int i = 0; i < PRODUCTS; i++)
        dead = dead && (!m->has[i] || m->zero[i]);
    return dead;
}

/* ---- one tensor ---- */

static void list_name(slr_buf *b, size_t *n, const char *name, const sums *s)
{
    if ((*n)++ >= MAX_NAMED)
        return;
    slr_buf_puts(b, *n > 1 ? ",\n    " : "\n    ");
    if (!s) {
        slr_json_quote(b, name, strlen(name), false);
        return;
    }
    slr_buf_puts(b, "{\"name\": ");
    slr_json_quote(b, name, strlen(name), false);
    slr_buf_printf(b, ", \"nan\": %llu, \"inf\": %llu}", (unsigned long long)s->nan,
                   (unsigned long long)s->inf);
}

static int see(checking *c, const char *name, const slr_tensor *t)
{
    sums s;
    if (!is_float(t->dtype) || !t->data)
        return SDLORA_OK;
    SLR_TRY(sum_tensor(c, t, &s));
    join(&c->all, &s);
    if (s.nan || s.inf)
        list_name(&c->bad, &c->n_bad, name, &s);
    else if (s.max == 0 && s.n > 0)
        list_name(&c->zero, &c->n_zero, name, NULL);
    SLR_TRY(add_to_block(c, name, &s));
    SLR_TRY(add_to_module(c, name, &s));
    if (!c->each)
        return SDLORA_OK;
    SLR_TRY(slr_grow(c->m, &c->row, &c->cap_rows, c->n_rows + 1, sizeof *c->row));
    char *copy = slr_strdup(c->m, name);
    if (!copy)
        return SDLORA_ENOMEM;
    c->row[c->n_rows++] = (row){.name = copy, .dtype = t->dtype, .t = *t, .s = s};
    return SDLORA_OK;
}

static int see_bag(checking *c, const slr_bag *bag, const char *folder)
{
    slr_buf name;
    slr_buf_init(&name, c->m);
    int rc = SDLORA_OK;
    for (size_t i = 0; i < slr_bag_count(bag) && rc == SDLORA_OK; i++) {
        slr_tensor t;
        const char *own = slr_bag_at(bag, i, &t);
        name.len = 0;
        slr_buf_printf(&name, "%s%s%s", folder, *folder ? "." : "", own);
        rc = slr_buf_ok(&name);
        if (rc == SDLORA_OK)
            rc = see(c, name.data, &t);
    }
    slr_buf_free(&name);
    return rc;
}

static void count_bytes(checking *c, const slr_bag *bag)
{
    for (size_t i = 0; i < slr_bag_count(bag); i++) {
        slr_tensor t;
        slr_bag_at(bag, i, &t);
        if (is_float(t.dtype))
            c->total += slr_tensor_bytes(&t);
    }
}

/* ---- the file or folder ---- */

static const char *const FOLDERS[][2] = {
    {"unet", "diffusion_pytorch_model"},
    {"vae", "diffusion_pytorch_model"},
    {"text_encoder", "model"},
    {"text_encoder_2", "model"},
};

enum { N_FOLDERS = sizeof FOLDERS / sizeof *FOLDERS };

static int open_bags(checking *c, slr_bag *bag[N_FOLDERS])
{
    size_t n = 0;
    if (!slr_dir_exists(c->path)) {
        SLR_TRY(slr_bag_new(&bag[0], c->m));
        return slr_bag_add_file(bag[0], c->path);
    }
    for (size_t i = 0; i < N_FOLDERS; i++) {
        char *folder = slr_path_join(c->m, c->path, FOLDERS[i][0]);
        int rc = folder ? SDLORA_OK : SDLORA_ENOMEM;
        if (rc == SDLORA_OK && slr_dir_exists(folder)) {
            n++;
            rc = slr_bag_new(&bag[i], c->m);
            if (rc == SDLORA_OK)
                rc = slr_bag_add_component(bag[i], folder, FOLDERS[i][1]);
        }
        slr_free(c->m, folder);
        SLR_TRY(rc);
    }
    if (n)
        return SDLORA_OK;
    return slr_fail(SDLORA_EFORMAT, __func__,
                    "%s is a folder without a diffusers model (unet/, vae/, text_encoder/)",
                    c->path);
}

static int see_all(checking *c)
{
    slr_bag *bag[N_FOLDERS] = {0};
    bool folder = slr_dir_exists(c->path);
    int rc = open_bags(c, bag);
    for (size_t i = 0; i < N_FOLDERS && rc == SDLORA_OK; i++)
        if (bag[i])
            count_bytes(c, bag[i]);
    for (size_t i = 0; i < N_FOLDERS && rc == SDLORA_OK; i++)
        if (bag[i])
            rc = see_bag(c, bag[i], folder ? FOLDERS[i][0] : "");
    for (size_t i = 0; i < N_FOLDERS; i++)
        slr_bag_free(bag[i]);
    return rc;
}

/* ---- the report ---- */

static void put_real(slr_buf *b, const char *key, double v)
{
    char text[32];
    slr_real_repr(isfinite(v) ? v : 0, text);
    slr_buf_printf(b, ", \"%s\": %s", key, text);
}

static void put_sums(slr_buf *b, const sums *s)
{
    uint64_t finite = s->n - s->nan - s->inf;
    slr_buf_printf(b, ", \"parameters\": %llu", (unsigned long long)s->n);
    put_real(b, "norm", sqrt(s->square));
    put_real(b, "mean", finite ? s->abs / (double)finite : 0);
    put_real(b, "min", s->min);
    put_real(b, "max", s->max);
    slr_buf_printf(b, ", \"nan\": %llu, \"inf\": %llu}", (unsigned long long)s->nan,
                   (unsigned long long)s->inf);
}

static void put_blocks(checking *c, slr_buf *b)
{
    slr_buf_puts(b, "  \"blocks\": [");
    for (size_t i = 0; i < c->n_groups; i++) {
        int64_t at;
        const char *name = slr_map_at(c->blocks, i, &at);
        slr_buf_puts(b, i ? ",\n    {\"name\": " : "\n    {\"name\": ");
        slr_json_quote(b, name, strlen(name), false);
        slr_buf_printf(b, ", \"tensors\": %zu", c->group[at].tensors);
        put_sums(b, &c->group[at].s);
    }
    slr_buf_puts(b, "\n  ]");
}

static void put_rows(checking *c, slr_buf *b)
{
    slr_buf_puts(b, ",\n  \"each\": [");
    for (size_t i = 0; i < c->n_rows; i++) {
        const row *r = &c->row[i];
        char shape[96];
        slr_buf_puts(b, i ? ",\n    {\"name\": " : "\n    {\"name\": ");
        slr_json_quote(b, r->name, strlen(r->name), false);
        slr_buf_printf(b, ", \"dtype\": \"%s\", \"shape\": %s", slr_dtype(r->dtype)->st_tag,
                       slr_shape_text(r->t.dim, r->t.rank, shape));
        put_sums(b, &r->s);
    }
    slr_buf_puts(b, "\n  ]");
}

static int put_report(char **json, checking *c)
{
    slr_buf b, dead;
    size_t n_dead = 0;
    slr_buf_init(&b, c->m);
    slr_buf_init(&dead, c->m);
    for (size_t i = 0; i < c->n_modules; i++) {
        int64_t at;
        const char *name = slr_map_at(c->modules, i, &at);
        if (is_dead(&c->module[at]))
            list_name(&dead, &n_dead, name, NULL);
    }
    bool ok = !c->n_bad && (!c->n_modules || n_dead < c->n_modules);
    slr_buf_puts(&b, "{\n  \"path\": ");
    slr_json_quote(&b, c->path, strlen(c->path), false);
    slr_buf_printf(&b, ",\n  \"ok\": %s,\n  \"all\": {\"tensors\": ", ok ? "true" : "false");
    size_t tensors = 0;
    for (size_t i = 0; i < c->n_groups; i++)
        tensors += c->group[i].tensors;
    slr_buf_printf(&b, "%zu", tensors);
    put_sums(&b, &c->all);
    slr_buf_printf(&b, ",\n  \"not_finite\": [%s%s],\n  \"zero\": [%s%s],\n",
                   c->n_bad ? c->bad.data : "", c->n_bad ? "\n  " : "",
                   c->n_zero ? c->zero.data : "", c->n_zero ? "\n  " : "");
    slr_buf_printf(&b, "  \"n_not_finite\": %zu,\n  \"n_zero\": %zu,\n", c->n_bad, c->n_zero);
    slr_buf_printf(&b, "  \"modules\": %zu,\n  \"n_dead\": %zu,\n  \"dead\": [%s%s],\n",
                   c->n_modules, n_dead, n_dead ? dead.data : "", n_dead ? "\n  " : "");
    put_blocks(c, &b);
    if (c->each)
        put_rows(c, &b);
    slr_buf_puts(&b, "\n}\n");
    int rc = slr_buf_ok(&b) < 0 ? slr_buf_ok(&b) : slr_buf_ok(&dead);
    if (rc == SDLORA_OK)
        *json = slr_buf_take(&b);
    slr_buf_free(&b);
    slr_buf_free(&dead);
    return rc;
}

int slr_file_check(char **json, slr_mem *m, int threads, const char *path, bool each,
                   slr_phase_fn phase, void *user)
{
    checking c = {.m = m,
                  .threads = threads,
                  .path = path,
                  .each = each,
                  .phase = phase,
                  .user = user,
                  .all = NOTHING};
    *json = NULL;
    slr_buf_init(&c.bad, m);
    slr_buf_init(&c.zero, m);
    c.b = slr_alloc(m, sizeof *c.b);
    int rc = c.b ? slr_map_new(&c.blocks, m) : SDLORA_ENOMEM;
    if (rc == SDLORA_OK)
        rc = slr_map_new(&c.modules, m);
    if (rc == SDLORA_OK)
        rc = see_all(&c);
    if (rc == SDLORA_OK)
        rc = slr_buf_ok(&c.bad) < 0 ? slr_buf_ok(&c.bad) : slr_buf_ok(&c.zero);
    if (rc == SDLORA_OK)
        rc = put_report(json, &c);
    for (size_t i = 0; i < c.n_rows; i++)
        slr_free(m, c.row[i].name);
    slr_free(m, c.row);
    slr_free(m, c.group);
    slr_free(m, c.module);
    slr_free(m, c.b);
    slr_map_free(c.blocks);
    slr_map_free(c.modules);
    slr_buf_free(&c.bad);
    slr_buf_free(&c.zero);
    return rc;
}
