/* SPDX-License-Identifier: MIT */
/* Presets: the table of LyCORIS' own and kohya's rules as rows of the same table, and the walk from
 * a model to its layers by which classes and paths pick them.  Classes are known by the paths at
 * which sd-scripts' models have them.  Refuses to know files (presetfile.c) and what an algorithm
 * is. */
#include "networks/preset.h"

#include <ctype.h>
#include <fnmatch.h>
#include <string.h>

#include "networks/presetfile.h"

/* --- presets --- */

#define LIST(...)                                                                                  \
    (const char *const[])                                                                          \
    {                                                                                              \
        __VA_ARGS__, NULL                                                                          \
    }
#define TRANSFORMER  "Transformer2DModel"
#define CONV_CLASSES "ResnetBlock2D", "Downsample2D", "Upsample2D"
#define TE_CLASSES   LIST("CLIPAttention", "CLIPSdpaAttention", "CLIPMLP")
#define TIME_NAMES   "time_embedding.linear_1", "time_embedding.linear_2"
#define ON_INPUT     LIST("train_on_input", "true")

/* LyCORIS' rows, for models that the library knows.  LyCORIS 4.1 has TimestepEmbedding among the
 * classes too, for a newer model: on Stable Diffusion its `full` then refuses itself, for the names
 * pick the same two layers.  Here that class is left out, as in LyCORIS 3.  LyCORIS' ia3 picks
 * nothing on Stable Diffusion, for its names do not begin any path; here they end one. */
static const slr_preset presets[] = {
    {.name = "full",
     .unet_class = LIST(TRANSFORMER, CONV_CLASSES),
     .unet_name = LIST("conv_in", "conv_out", TIME_NAMES),
     .te_class = TE_CLASSES},
    {.name = "full-lin",
     .no_conv = true,
     .unet_class = LIST(TRANSFORMER, "ResnetBlock2D"),
     .unet_name = LIST(TIME_NAMES),
     .te_class = TE_CLASSES},
    {.name = "attn-mlp", .no_conv = true, .unet_class = LIST(TRANSFORMER), .te_class = TE_CLASSES},
    {.name = "attn-only",
     .no_conv = true,
     .unet_class = LIST("CrossAttention", "SelfAttention"),
     .te_class = LIST("CLIPAttention", "CLIPSdpaAttention")},
    {.name = "unet-only",
     .unet_class = LIST(TRANSFORMER, CONV_CLASSES),
     .unet_name = LIST("conv_in", "conv_out", TIME_NAMES)},
    {.name = "unet-transformer-only", .no_conv = true, .unet_class = LIST(TRANSFORMER)},
    {.name = "unet-convblock-only",
     .unet_class = LIST(CONV_CLASSES),
     .unet_name = LIST("conv_in", "conv_out")},
    {.name = "ia3",
     .no_conv = true,
     .wildcards = true,
     .unet_name = LIST("*.to_k", "*.to_v", "*.ff.net.2"),
     .te_name = LIST("*.k_proj", "*.v_proj", "*.mlp.fc2"),
     .name_algo = (const slr_override[]){{.match = "*.mlp.fc2", .pairs = ON_INPUT},
                                         {.match = "*.ff.net.2", .pairs = ON_INPUT},
                                         {0}}},
};

const slr_preset slr_preset_lora = {
    .no_conv = true, .unet_class = LIST(TRANSFORMER), .te_class = TE_CLASSES};
const slr_preset slr_preset_locon = {.unet_class = LIST(TRANSFORMER, CONV_CLASSES),
                                     .te_class = TE_CLASSES};
const slr_preset slr_preset_oft[2][2] = {
    {{.no_conv = true, .unet_class = LIST("CrossAttention")},
     {.unet_class = LIST("CrossAttention", CONV_CLASSES)}},
    {{.no_conv = true, .unet_class = LIST(TRANSFORMER)},
     {.unet_class = LIST(TRANSFORMER, CONV_CLASSES)}},
};

int slr_preset_open(slr_preset *out, slr_mem *m, slr_arena *texts, const char *name)
{
    for (size_t i = 0; i < sizeof presets / sizeof *presets; i++)
        if (!strcmp(presets[i].name, name)) {
            *out = presets[i];
            return SDLORA_OK;
        }
    *out = presets[0]; /* what a file does not say is as in `full` */
    return slr_preset_read(out, m, texts, name);
}

/* --- classes --- */

enum { UNET = 1 << SLR_PART_UNET, TEXT = 1 << SLR_PART_TE | 1 << SLR_PART_TE2 };

/* The class of the module at a path: '#' is a number, '*' at the front any path before. */
static const struct {
    int parts;
    const char *path, *name, *alias;
} classes[] = {
    {UNET, "", "UNet2DConditionModel", NULL},
    {UNET, "time_embedding", "TimestepEmbedding", NULL},
    {UNET, "add_embedding", "TimestepEmbedding", NULL},
    {UNET, "mid_block", "UNetMidBlock2DCrossAttn", NULL},
    {UNET, "*.attentions.#", "Transformer2DModel", NULL},
    {UNET, "*.resnets.#", "ResnetBlock2D", NULL},
    {UNET, "*.downsamplers.#", "Downsample2D", NULL},
    {UNET, "*.upsamplers.#", "Upsample2D", NULL},
    {UNET, "*.transformer_blocks.#", "BasicTransformerBlock", NULL},
    {UNET, "*.attn1", "CrossAttention", "Attention"},
    {UNET, "*.attn2", "CrossAttention", "Attention"},
    {UNET, "*.ff", "FeedForward", NULL},
    {UNET, "*.ff.net.#", "GEGLU", NULL}, /* the second of them is the layer itself */
    {TEXT, "", "CLIPTextModel", NULL},
    {TEXT, "text_model", "CLIPTextTransformer", NULL},
    {TEXT, "text_model.encoder", "CLIPEncoder", NULL},
    {TEXT, "*.layers.#", "CLIPEncoderLayer", NULL},
    {TEXT, "*.self_attn", "CLIPAttention", "CLIPSdpaAttention"},
    {TEXT, "*.mlp", "CLIPMLP", NULL},
};

/* Classes of other models, and of layers that no list of classes needs: they pick nothing here. */
static const char *const others[] = {"AceStepDiTLayer",
                                     "AceStepEncoderLayer",
                                     "BertAttention",
                                     "BertLayer",
                                     "Block",
                                     "Conv1d",
                                     "Conv3d",
                                     "DoubleStreamBlock",
                                     "FinalLayer",
                                     "Gemma2Attention",
                                     "Gemma2FlashAttention2",
                                     "Gemma2MLP",
                                     "Gemma2SdpaAttention",
                                     "HunYuanDiTBlock",
                                     "HunyuanVideoSingleTransformerBlock",
                                     "HunyuanVideoTransformerBlock",
                                     "Ideogram4TransformerBlock",
                                     "JointTransformerBlock",
                                     "LLMAdapterTransformerBlock",
                                     "LensTransformerBlock",
                                     "MMDoubleStreamBlock",
                                     "MMSingleStreamBlock",
                                     "MT5Block",
                                     "MT5LayerSelfAttention",
                                     "PatchEmbed",
                                     "Qwen3Attention",
                                     "Qwen3FlashAttention2",
                                     "Qwen3MLP",
                                     "Qwen3SdpaAttention",
                                     "QwenImageTransformerBlock",
                                     "SelfAttention",
                                     "SingleDiTBlock",
                                     "SingleStreamBlock",
                                     "TextFusionBlock",
                                     "WanAttentionBlock",
                                     "ZImageTransformerBlock"};

static const char *const layers[] = {"Linear", "Conv2d", "GroupNorm", "LayerNorm"};

const char *slr_class_at(size_t i)
{
    enum {
        N_CLASSES = sizeof classes / sizeof *classes,
        N_LAYERS = sizeof layers / sizeof *layers
    };
    if (i < 2 * N_CLASSES)
        return i % 2 && classes[i / 2].alias ? classes[i / 2].alias : classes[i / 2].name;
    i -= 2 * N_CLASSES;
    if (i < N_LAYERS)
        return layers[i];
    i -= N_LAYERS;
    return i < sizeof others / sizeof *others ? others[i] : NULL;
}

/* The path fits the pattern from end to end. */
static bool at_path(const char *pattern, const char *path, size_t n)
{
    size_t k = strlen(pattern);
    bool open = k && pattern[0] == '*';
    while (k > open && n) {
        char c = pattern[k - 1];
        if (c == '#' ? !isdigit((unsigned char)path[n - 1]) : c != path[n - 1])
            return false;
        while (c == '#' && n > 1 && isdigit((unsigned char)path[n - 2]))
            n--;
        k--;
        n--;
    }
    return k == open && (open || !n);
}

static const char *layer_class(const slr_target *t)
{
    if (!t->norm)
        return t->conv ? "Conv2d" : "Linear";
    return t->part == SLR_PART_UNET && !strstr(t->path, ".transformer_blocks.") ? "GroupNorm"
                                                                                : "LayerNorm";
}

/* Whether the module at the first n bytes of the layer's path has this class. */
static bool has_class(const slr_target *t, size_t n, const char *name)
{
    if (!t->path[n])
        return !strcmp(layer_class(t), name);
    for (size_t i = 0; i < sizeof classes / sizeof *classes; i++)
        if (classes[i].parts >> t->part & 1 && at_path(classes[i].path, t->path, n))
            return !strcmp(classes[i].name, name) ||
                   (classes[i].alias && !strcmp(classes[i].alias, name));
    return false;
}

static bool class_in(const slr_target *t, size_t n, const char *const *list)
{
    for (; list && *list; list++)
        if (has_class(t, n, *list))
            return true;
    return false;
}

static const slr_override *class_override(const slr_preset *p, const slr_target *t, size_t n)
{
    for (const slr_override *o = p->class_algo; o && o->match; o++)
        if (has_class(t, n, o->match))
            return o;
    return NULL;
}

/* --- names --- */

static bool matches(const slr_preset *p, const char *pattern, const char *path)
{
    if (p->wildcards)
        return !strcmp(pattern, path) || !fnmatch(pattern, path, FNM_NOESCAPE);
    return !strcmp(pattern, path) || slr_pattern_fits(pattern, path);
}

static bool name_in(const slr_preset *p, const char *const *list, const char *path)
{
    for (; list && *list; list++)
        if (matches(p, *list, path))
            return true;
    return false;
}

/* An equal name goes before any that only matches. */
static const slr_override *name_override(const slr_preset *p, const char *path)
{
    for (const slr_override *o = p->name_algo; o && o->match; o++)
        if (!strcmp(o->match, path))
            return o;
    for (const slr_override *o = p->name_algo; o && o->match; o++)
        if (matches(p, o->match, path))
            return o;
    return NULL;
}

/* --- the walk --- */

static void choose(slr_choice *out, const slr_override *o)
{
    out->over = o;
    if (o && o->algo)
        out->algo = o->algo;
}

/* The end of the next module on the way to the layer, after that which ends at n. */
static size_t next_node(const char *path, size_t n)
{
    n += path[n] == '.';
    return n + strcspn(path + n, ".");
}

/* Inside a container that was picked: the innermost class with settings of its own counts. */
static void descend(const slr_preset *p, const slr_target *t, size_t n, slr_choice *out)
{
    char node[SLR_PATH_MAX];
    choose(out, class_override(p, t, n));
    while (t->path[n]) {
        n = next_node(t->path, n);
        memcpy(node, t->path, n);
        node[n] = '\0';
        const slr_override *o = class_override(p, t, n);
        if (o && !name_in(p, p->exclude, node))
            choose(out, o);
    }
}

bool slr_preset_takes(const slr_preset *p, const slr_target *t, slr_choice *out)
{
    bool unet = t->part == SLR_PART_UNET;
    const char *const *class_list = unet ? p->unet_class : p->te_class, *const *name_list =
                                                                            unet ? p->unet_name
                                                                                 : p->te_name;
    char node[SLR_PATH_MAX];
    size_t n = 0, length = strlen(t->path);
    *out = (slr_choice){0};
    if (length >= sizeof node || name_in(p, p->exclude, t->path))
        return false;
    for (bool last = false; !last; n = next_node(t->path, n)) {
        memcpy(node, t->path, n);
        node[n] = '\0';
        last = n == length;
        if (n && name_in(p, p->exclude, node))
            continue;
        bool named = name_in(p, name_list, node);
        if (class_in(t, n, class_list) && !named) {
            descend(p, t, n, out);
            return true;
        }
        if (named && last) {
            const slr_override *o = name_override(p, node);
            choose(out, o ? o : class_override(p, t, n));
            return true;
        }
    }
    return false;
}
