/* SPDX-License-Identifier: MIT */
/* The tables of prefixes, leaves and spellings, and the few lines that read them.  A key is cut at
 * its leaf first, since '.' is also inside module paths and '_' inside module names; which layer a
 * path means is looked up, never parsed. */
#include "networks/dialect.h"

#include <string.h>

#include "base/status.h"

static const char *const names[SLR_DIALECT_COUNT] = {
    [SLR_DIALECT_KOHYA] = "kohya",
    [SLR_DIALECT_LYCORIS] = "lycoris",
    [SLR_DIALECT_PROCESSOR] = "diffusers-processor",
    [SLR_DIALECT_OLD] = "diffusers-old",
    [SLR_DIALECT_DIFFUSERS] = "diffusers",
    [SLR_DIALECT_PEFT] = "peft",
    [SLR_DIALECT_NATIVE] = "native",
};

const char *slr_dialect_name(int dialect)
{
    return names[dialect];
}

/* --- prefixes --- */

#define UNET 1u << SLR_PART_UNET
#define TE   1u << SLR_PART_TE
#define TE2  1u << SLR_PART_TE2
#define ANY  (UNET | TE | TE2)

/* The first that fits is taken: longer ones stand before those that they start with.  te1 is
 * SDXL's, but diffusers calls the only text encoder of SD 1 so as well. */
static const struct {
    const char *text;
    int dialect;
    uint32_t parts;
} prefixes[] = {
    {"lora_unet_", SLR_DIALECT_KOHYA, UNET},
    {"lora_te1_", SLR_DIALECT_KOHYA, TE},
    {"lora_te2_", SLR_DIALECT_KOHYA, TE2},
    {"lora_te_", SLR_DIALECT_KOHYA, TE},
    {"oft_unet_", SLR_DIALECT_KOHYA, UNET},
    {"lycoris_unet_", SLR_DIALECT_LYCORIS, UNET},
    {"lycoris_te1_", SLR_DIALECT_LYCORIS, TE},
    {"lycoris_te2_", SLR_DIALECT_LYCORIS, TE2},
    {"lycoris_te_", SLR_DIALECT_LYCORIS, TE},
    {"lycoris_", SLR_DIALECT_LYCORIS, ANY},
    {"base_model.model.unet.", SLR_DIALECT_PEFT, UNET},
    {"base_model.model.text_encoder.", SLR_DIALECT_PEFT, TE},
    {"base_model.model.text_encoder_2.", SLR_DIALECT_PEFT, TE2},
    {"base_model.model.", SLR_DIALECT_PEFT, ANY},
    {"unet.", SLR_DIALECT_DIFFUSERS, UNET},
    {"text_encoder.", SLR_DIALECT_DIFFUSERS, TE},
    {"text_encoder_2.", SLR_DIALECT_DIFFUSERS, TE2},
    {"text_encoders.clip_l.transformer.", SLR_DIALECT_NATIVE, TE},
    {"text_encoders.clip_g.transformer.", SLR_DIALECT_NATIVE, TE2},
    {"diffusion_model.", SLR_DIALECT_NATIVE, UNET},
    {"", SLR_DIALECT_DIFFUSERS, ANY},
};

static const struct {
    const char *prefix, *what;
} foreign[] = {
    {"lllite_unet_", "a ControlNet-LLLite"},
    {"lora_controlnet", "a ControlNet"},
    {"lora_prior_", "Stable Cascade"},
    {"lora_transformer_", "a diffusion transformer (SD3, Flux)"},
    {"transformer.", "a diffusion transformer (SD3, Flux)"},
    {"lora_te3_", "a diffusion transformer (SD3, Flux)"},
};

const char *slr_key_foreign(const char *key)
{
    for (size_t i = 0; i < sizeof foreign / sizeof *foreign; i++)
        if (slr_starts(key, foreign[i].prefix))
            return foreign[i].what;
    return NULL;
}

/* --- leaves --- */

/* PEFT's: one piece of the path, after which an adapter's name and ".weight" may follow; layers of
 * their own always have the latter, or what `end` says. */
static const struct {
    const char *piece, *leaf;
    int take;
    bool layer;
    const char *end; /* NULL: ".weight" */
} pieces[] = {
    {"lora_A", "lora_down.weight", SLR_TAKE_PLAIN, true, NULL},
    {"lora_B", "lora_up.weight", SLR_TAKE_PLAIN, true, NULL},
    {"lora_B", "diff_b", SLR_TAKE_SCALED, true, ".bias"},
    {"lora_magnitude_vector", "dora_scale", SLR_TAKE_ROWS, false, NULL},
    {"ia3_l", "weight", SLR_TAKE_FACTOR, false, NULL},
    {"hada_w1_a", "hada_w1_a", SLR_TAKE_PLAIN, false, NULL},
    {"hada_w1_b", "hada_w1_b", SLR_TAKE_PLAIN, false, NULL},
    {"hada_w2_a", "hada_w2_a", SLR_TAKE_PLAIN, false, NULL},
    {"hada_w2_b", "hada_w2_b", SLR_TAKE_PLAIN, false, NULL},
    {"hada_t1", "hada_t1", SLR_TAKE_PLAIN, false, NULL},
    {"hada_t2", "hada_t2", SLR_TAKE_PLAIN, false, NULL},
    {"lokr_w1", "lokr_w1", SLR_TAKE_PLAIN, false, NULL},
    {"lokr_w1_a", "lokr_w1_a", SLR_TAKE_PLAIN, false, NULL},
    {"lokr_w1_b", "lokr_w1_b", SLR_TAKE_PLAIN, false, NULL},
    {"lokr_w2", "lokr_w2", SLR_TAKE_PLAIN, false, NULL},
    {"lokr_w2_a", "lokr_w2_a", SLR_TAKE_PLAIN, false, NULL},
    {"lokr_w2_b", "lokr_w2_b", SLR_TAKE_PLAIN, false, NULL},
    {"lokr_t2", "lokr_t2", SLR_TAKE_PLAIN, false, NULL},
    {"oft_R", "oft_R.weight", SLR_TAKE_PLAIN, true, NULL},
};

/* Other whole endings.  A glued one belongs to a module "to_q_lora" beside the layer it means. */
static const struct {
    const char *text, *leaf;
    int dialect; /* -1: as the prefix says */
    bool glued;
} endings[] = {
    {"_lora.down.weight", "lora_down.weight", SLR_DIALECT_PROCESSOR, true},
    {"_lora.up.weight", "lora_up.weight", SLR_DIALECT_PROCESSOR, true},
    {".lora_linear_layer.down.weight", "lora_down.weight", SLR_DIALECT_OLD, false},
    {".lora_linear_layer.up.weight", "lora_up.weight", SLR_DIALECT_OLD, false},
    {".lora.down.weight", "lora_down.weight", SLR_DIALECT_OLD, false},
    {".lora.up.weight", "lora_up.weight", SLR_DIALECT_OLD, false},
    {".alpha", "alpha", -1, false},
    {".scale", "scale", -1, false},
    {".dora_scale", "dora_scale", -1, false},
    {".bias_size", SLR_RESIDUAL_SIZE, -1, false},
};

/* Where the last but `n` piece of a path starts; NULL: it has no so many. */
static const char *piece_at(const char *key, int n)
{
    const char *p = key + strlen(key);
    for (int i = 0; i <= n; i++) {
        if (p == key)
            return NULL;
        for (p--; p > key && *p != '.'; p--)
            ;
    }
    return *p == '.' ? p + 1 : NULL;
}

/* Whether the row's piece may stand before the last n pieces of a key that ends so. */
static bool fits_piece(size_t row, const char *key, int n)
{
    const char *end = pieces[row].end ? pieces[row].end : ".weight";
    bool ends = slr_ends(key, end);
    return n == 0 ? !pieces[row].end : ends || (n == 1 && !pieces[row].layer);
}

/* "<piece>", "<piece>.weight", "<piece>.<adapter>.weight" or, of a bare tensor,
 * "<piece>.<adapter>". */
static bool read_piece(slr_key *out, const char *key, size_t *module)
{
    for (int n = 0; n < 3; n++) {
        const char *p = piece_at(key, n);
        size_t size = p ? strcspn(p, ".") : 0;
        for (size_t i = 0; p && i < sizeof pieces / sizeof *pieces; i++) {
            if (strlen(pieces[i].piece) != size || memcmp(pieces[i].piece, p, size) != 0 ||
                !fits_piece(i, key, n))
                continue;
            out->leaf = pieces[i].leaf;
            out->take = pieces[i].take;
            out->peft = true; /* the prefix may say otherwise */
            *module = (size_t)(p - key) - 1;
            return true;
        }
    }
    return false;
}

/* The longest leaf of any kind that the key ends with. */
static bool read_kind_leaf(slr_key *out, const char *key, size_t *module)
{
    const slr_kind *kind;
    size_t n = strlen(key), best = 0;
    for (size_t k = 0; (kind = slr_kind_at(k)); k++)
        for (int i = 0; i <= SLR_KIND_LEAVES; i++) {
            const char *leaf = i < SLR_KIND_LEAVES ? slr_kind_leaf(kind, i) : kind->marker;
            size_t size = leaf ? strlen(leaf) : 0;
            if (size > best && size + 1 < n && key[n - size - 1] == '.' && slr_ends(key, leaf))
                best = size;
        }
    out->leaf = key + n - best;
    *module = best ? n - best - 1 : 0;
    return best > 0;
}

static bool read_ending(slr_key *out, const char *key, size_t *module, int *dialect, bool *glued)
{
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++)
        if (slr_ends(key, endings[i].text)) {
            out->leaf = endings[i].leaf;
            *module = strlen(key) - strlen(endings[i].text);
            *dialect = endings[i].dialect;
            *glued = endings[i].glued;
            return true;
        }
    return false;
}

/* "...attn1_processor_to_out" -> "...attn1_to_out_0"; of a text encoder "...self_attn_to_q" ->
 * "...self_attn_q_proj". */
static bool unglue(char module[SLR_LAYER_KEY])
{
    static const char processor[] = "processor_", to[] = "_self_attn_to_";
    char *p = strstr(module, processor);
    if (p)
        memmove(p, p + strlen(processor), strlen(p + strlen(processor)) + 1);
    p = strstr(module, to);
    bool out = slr_ends(module, "_to_out");
    if (p)
        memmove(p + strlen("_self_attn_"), p + strlen(to), strlen(p + strlen(to)) + 1);
    const char *more = p ? "_proj" : out ? "_0" : "";
    size_t n = strlen(module), k = strlen(more);
    if (n + k >= SLR_LAYER_KEY)
        return false;
    memcpy(module + n, more, k + 1);
    return true;
}

bool slr_key_read(slr_key *out, const char *key)
{
    size_t end = 0, p = 0;
    int dialect = -1;
    bool glued = false;
    *out = (slr_key){.dialect = -1};
    if (!read_piece(out, key, &end) && !read_ending(out, key, &end, &dialect, &glued) &&
        !read_kind_leaf(out, key, &end)) {
        end = strcspn(key, ".");
        if (!key[end])
            return false;
        out->leaf = key + end + 1;
    }
    while (!slr_starts(key, prefixes[p].text))
        p++;
    size_t skip = strlen(prefixes[p].text), n = end > skip ? end - skip : 0;
    if (n == 0 || n >= SLR_LAYER_KEY)
        return false;
    for (size_t i = 0; i < n; i++)
        out->module[i] = key[skip + i] == '.' ? '_' : key[skip + i];
    out->module[n] = '\0';
    out->dialect = dialect >= 0 ? dialect : prefixes[p].dialect;
    out->peft =
        out->peft && (out->dialect == SLR_DIALECT_DIFFUSERS || out->dialect == SLR_DIALECT_PEFT);
    out->parts = prefixes[p].parts;
    return !glued || unglue(out->module);
}

const slr_target *slr_key_target(const slr_targets *t, const slr_key *key)
{
    static const int order[] = {SLR_PART_UNET, SLR_PART_TE, SLR_PART_TE2};
    for (size_t i = 0; i < sizeof order / sizeof *order; i++) {
        const slr_target *found =
            key->parts >> order[i] & 1u ? slr_targets_spelled(t, order[i], key->module) : NULL;
        if (found)
            return found;
    }
    return NULL;
}

/* --- algorithms --- */

static const struct {
    const char *leaf, *algorithm;
} algorithms[] = {
    {"lora_down.weight", "lora"}, {"lora_up.weight", "lora"}, {"hada_w1_a", "loha"},
    {"lokr_w1", "lokr"},          {"lokr_w1_a", "lokr"},      {"lokr_w2", "lokr"},
    {"lokr_w2_a", "lokr"},        {"on_input", "ia3"},        {"oft_blocks", "oft"},
    {"oft_diag", "oft"},          {"oft_R.weight", "oft-v2"}, {"diff", "full"},
    {"set_weight", "set"},        {"w_norm", "norm"},         {"b_norm", "norm"},
    {"a1.weight", "glora"},       {"b1.weight", "glora"},     {"lambda_layer", "tlora"},
};

const char *slr_leaf_algorithm(const char *leaf)
{
    for (size_t i = 0; i < sizeof algorithms / sizeof *algorithms; i++)
        if (!strcmp(algorithms[i].leaf, leaf))
            return algorithms[i].algorithm;
    return NULL;
}

/* --- writing --- */

static const char *const lora_only[] = {"lora", NULL};
static const char *const peft_kinds[] = {"lora", "loha", "ia3", NULL};

#define DOTTED                                                                                     \
    {                                                                                              \
        [SLR_PART_UNET] = "unet.", [SLR_PART_TE] = "text_encoder.",                                \
        [SLR_PART_TE2] = "text_encoder_2."                                                         \
    }

static const slr_spelling spellings[] = {
    {.name = "kohya", .dialect = SLR_DIALECT_KOHYA},
    {.name = "onetrainer", /* as kohya, but SDXL's UNet by diffusers' names */
     .dialect = SLR_DIALECT_KOHYA,
     .first = "lora_te1_",
     .prefix = {[SLR_PART_UNET] = "lora_unet_",
                [SLR_PART_TE] = "lora_te_",
                [SLR_PART_TE2] = "lora_te2_"}},
    {.name = "lycoris",
     .dialect = SLR_DIALECT_LYCORIS,
     .first = "lycoris_te1_",
     .prefix = {[SLR_PART_UNET] = "lycoris_unet_",
                [SLR_PART_TE] = "lycoris_te_",
                [SLR_PART_TE2] = "lycoris_te2_"}},
    {.name = "diffusers",
     .dialect = SLR_DIALECT_DIFFUSERS,
     .prefix = DOTTED,
     .dots = true,
     .kinds = lora_only},
    {.name = "diffusers-folded",
     .dialect = SLR_DIALECT_DIFFUSERS,
     .prefix = DOTTED,
     .dots = true,
     .folds = true,
     .kinds = lora_only},
    {.name = "diffusers-old",
     .dialect = SLR_DIALECT_OLD,
     .prefix = DOTTED,
     .dots = true,
     .folds = true,
     .kinds = lora_only},
    {.name = "peft",
     .dialect = SLR_DIALECT_PEFT,
     .prefix = {[SLR_PART_UNET] = "base_model.model.",
                [SLR_PART_TE] = "base_model.model.",
                [SLR_PART_TE2] = "base_model.model."},
     .dots = true,
     .kinds = peft_kinds},
};

const slr_spelling *slr_spelling_at(size_t i)
{
    return i < sizeof spellings / sizeof *spellings ? &spellings[i] : NULL;
}

int slr_spelling_named(const slr_spelling **out, const char *name)
{
    char all[256] = "";
    size_t used = 0;
    *out = NULL;
    for (size_t i = 0; i < sizeof spellings / sizeof *spellings; i++) {
        size_t n = strlen(spellings[i].name);
        if (!strcmp(spellings[i].name, name)) {
            *out = &spellings[i];
            return SDLORA_OK;
        }
        if (used + n + 3 >= sizeof all)
            continue;
        if (used) {
            memcpy(all + used, ", ", 2);
            used += 2;
        }
        memcpy(all + used, spellings[i].name, n + 1);
        used += n;
    }
    return slr_fail(SDLORA_EINVAL, __func__, "there is no dialect '%s' to write; there are %s",
                    name, all);
}

void slr_spelling_key(slr_buf *b, const slr_spelling *s, const slr_network *n,
                      const slr_module *mod, const char *leaf)
{
    static const char kohya[] = "lora_unet_";
    const slr_target *t = &mod->target;
    const char *prefix = s->prefix[t->part];
    if (s->first && t->part == SLR_PART_TE && n->family->id == SLR_FAMILY_SDXL)
        prefix = s->first;
    bool oft = !prefix && mod->kind == &slr_kind_oft && slr_starts(t->name, kohya);
    if (oft)
        slr_buf_puts(b, "oft_unet_");
    slr_buf_puts(b, prefix ? prefix : t->name + (oft ? strlen(kohya) : 0));
    for (const char *p = prefix ? t->path : ""; *p; p++)
        slr_buf_putc(b, *p == '.' && !s->dots ? '_' : *p);
    slr_buf_printf(b, ".%s", leaf);
}

static const struct {
    int dialect;
    bool text; /* of text encoders; the rest of a dialect's rows are for the UNet */
    const char *leaf, *spelled;
} spelled[] = {
    {SLR_DIALECT_DIFFUSERS, false, "lora_down.weight", "lora_A.weight"},
    {SLR_DIALECT_DIFFUSERS, false, "lora_up.weight", "lora_B.weight"},
    {SLR_DIALECT_DIFFUSERS, true, "lora_down.weight", "lora_A.weight"},
    {SLR_DIALECT_DIFFUSERS, true, "lora_up.weight", "lora_B.weight"},
    {SLR_DIALECT_DIFFUSERS, false, "dora_scale", "lora_magnitude_vector"},
    {SLR_DIALECT_DIFFUSERS, true, "dora_scale", "lora_magnitude_vector"},
    {SLR_DIALECT_DIFFUSERS, false, "diff_b", "lora_B.bias"},
    {SLR_DIALECT_DIFFUSERS, true, "diff_b", "lora_B.bias"},
    {SLR_DIALECT_PEFT, false, "lora_down.weight", "lora_A.weight"},
    {SLR_DIALECT_PEFT, false, "lora_up.weight", "lora_B.weight"},
    {SLR_DIALECT_PEFT, true, "lora_down.weight", "lora_A.weight"},
    {SLR_DIALECT_PEFT, true, "lora_up.weight", "lora_B.weight"},
    {SLR_DIALECT_PEFT, false, "dora_scale", "lora_magnitude_vector"},
    {SLR_DIALECT_PEFT, true, "dora_scale", "lora_magnitude_vector"},
    {SLR_DIALECT_PEFT, false, "diff_b", "lora_B.bias"},
    {SLR_DIALECT_PEFT, true, "diff_b", "lora_B.bias"},
    {SLR_DIALECT_PEFT, false, "weight", "ia3_l"},
    {SLR_DIALECT_PEFT, true, "weight", "ia3_l"},
    {SLR_DIALECT_OLD, false, "lora_down.weight", "lora.down.weight"},
    {SLR_DIALECT_OLD, false, "lora_up.weight", "lora.up.weight"},
    {SLR_DIALECT_OLD, true, "lora_down.weight", "lora_linear_layer.down.weight"},
    {SLR_DIALECT_OLD, true, "lora_up.weight", "lora_linear_layer.up.weight"},
};

const char *slr_spelling_leaf(const slr_spelling *s, int part, const char *leaf)
{
    for (size_t i = 0; i < sizeof spelled / sizeof *spelled; i++)
        if (spelled[i].dialect == s->dialect && spelled[i].text == (part != SLR_PART_UNET) &&
            !strcmp(spelled[i].leaf, leaf))
            return spelled[i].spelled;
    return leaf;
}
