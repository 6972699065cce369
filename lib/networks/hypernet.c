/* SPDX-License-Identifier: MIT */
/* What a hypernetwork is made of, and its forward pass as graph operations: linear, activation,
 * layer norm, dropout, again and again, added to the input.  Refuses to know files (hyperfile.c)
 * and training loops; gradients are autodiff's. */
#include "networks/hypernet.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/status.h"
#include "base/str.h"
#include "networks/kind.h"

#define NORM_EPS 1e-5 /* torch.nn.LayerNorm's default */
#define DROPOUT  0.3

/* No layer of a model bears its modules' paths, so none of a kind's functions are called. */
static const slr_kind slr_kind_hypernet = {
    .name = "hypernetwork",
    .leaf = {[SLR_HYPER_WEIGHT] = "weight",
             [SLR_HYPER_BIAS] = "bias",
             [SLR_HYPER_NORM_WEIGHT] = "norm.weight",
             [SLR_HYPER_NORM_BIAS] = "norm.bias"},
    .no_alpha = true,
};

bool slr_network_is_hyper(const slr_network *n)
{
    return n->hyper != NULL;
}

/* --- structure --- */

/* torch's names in lower case, and AUTOMATIC1111's own "swish". */
static const struct {
    const char *name;
    int act;
} activations[] = {
    {"linear", SDLORA_ACT_NONE},
    {"relu", SDLORA_ACT_RELU},
    {"leakyrelu", SDLORA_ACT_LEAKY_RELU},
    {"elu", SDLORA_ACT_ELU},
    {"celu", SDLORA_ACT_ELU}, /* the same where alpha is 1 */
    {"swish", SDLORA_ACT_HARDSWISH},
    {"hardswish", SDLORA_ACT_HARDSWISH},
    {"tanh", SDLORA_ACT_TANH},
    {"sigmoid", SDLORA_ACT_SIGMOID},
    {"silu", SDLORA_ACT_SILU},
    {"gelu", SDLORA_ACT_GELU},
    {"mish", SDLORA_ACT_MISH},
    {"selu", SDLORA_ACT_SELU},
    {"softplus", SDLORA_ACT_SOFTPLUS},
    {"logsigmoid", SDLORA_ACT_LOG_SIGMOID},
    {"hardsigmoid", SDLORA_ACT_HARDSIGMOID},
    {"hardtanh", SDLORA_ACT_HARDTANH},
    {"relu6", SDLORA_ACT_RELU6},
    {"softsign", SDLORA_ACT_SOFTSIGN},
    {"tanhshrink", SDLORA_ACT_TANHSHRINK},
    {"hardshrink", SDLORA_ACT_HARDSHRINK},
    {"softshrink", SDLORA_ACT_SOFTSHRINK},
};

static int find_activation(slr_hyper *h, const char *label)
{
    h->act = SDLORA_ACT_NONE;
    if (!h->activation)
        return SDLORA_OK;
    for (size_t i = 0; i < sizeof activations / sizeof *activations; i++)
        if (!strcmp(activations[i].name, h->activation)) {
            h->act = activations[i].act;
            return SDLORA_OK;
        }
    return slr_fail(SDLORA_ENOTSUP, __func__, "%s: the activation %.40s is not supported", label,
                    h->activation);
}

int64_t slr_hyper_width(const slr_hyper *h, int64_t width, int i)
{
    return (int64_t)((double)width * h->structure[i]);
}

void slr_hyper_derive_dropout(slr_hyper *h)
{
    for (int i = 0; i <= h->layers; i++)
        h->dropout[i] = h->use_dropout && i > 0 && i < h->layers - 1 ? DROPOUT : 0;
    if (h->use_dropout && h->last_layer_dropout && h->layers > 1)
        h->dropout[h->layers - 1] = DROPOUT;
}

static int check_structure(const slr_hyper *h, const char *label)
{
    if (h->layers < 1 || h->structure[0] != 1 || h->structure[h->layers] != 1)
        return slr_fail(SDLORA_EFORMAT, __func__,
                        "%s: layer_structure must begin and end with 1, with %d numbers at most",
                        label, SLR_HYPER_LAYERS + 1);
    for (int i = 0; i <= h->layers; i++)
        for (int w = 0; w < h->widths; w++)
            if (!(h->structure[i] > 0 && h->structure[i] <= SLR_HYPER_WIDEST) ||
                slr_hyper_width(h, h->width[w], i) < 1 ||
                slr_hyper_width(h, h->width[w], i) > SLR_HYPER_WIDEST)
                return slr_fail(SDLORA_EFORMAT, __func__,
                                "%s: layer_structure has %g, which makes no layer of %lld", label,
                                h->structure[i], (long long)h->width[w]);
    for (int i = 0; i <= h->layers; i++)
        if (!(h->dropout[i] >= 0 && h->dropout[i] < 1))
            return slr_fail(SDLORA_EFORMAT, __func__,
                            "%s: dropout_structure has %g, which is not in [0,1)", label,
                            h->dropout[i]);
    return SDLORA_OK;
}

int slr_hyper_check(slr_hyper *h, const char *label)
{
    SLR_TRY(check_structure(h, label));
    return find_activation(h, label);
}

/* Whether an activation follows layer i. */
static bool active(const slr_hyper *h, int i)
{
    return h->act != SDLORA_ACT_NONE && (i < h->layers - 1 || h->activate_output);
}

size_t slr_hyper_module(const slr_hyper *h, int width, bool value, int i)
{
    return ((size_t)width * 2 + value) * (size_t)h->layers + (size_t)i;
}

void slr_hyper_key(const slr_hyper *h, int width, bool value, int i, int leaf, char key[96])
{
    bool norm = leaf >= SLR_HYPER_NORM_WEIGHT;
    int at = 0; /* in torch's Sequential, where linear, activation, norm and dropout count alike */
    for (int k = 0; k < i; k++)
        at += 1 + active(h, k) + h->is_layer_norm + (h->dropout[k + 1] > 0);
    if (norm)
        at += 1 + active(h, i);
    snprintf(key, 96, "%lld.%d.linear.%d.%s", (long long)h->width[width], (int)value, at,
             leaf == SLR_HYPER_WEIGHT || leaf == SLR_HYPER_NORM_WEIGHT ? "weight" : "bias");
}

static const char *keep_text(slr_network *n, const char *text, int *rc)
{
    char *copy = text ? slr_arena_strdup(n->texts, text) : NULL;
    if (text && !copy)
        *rc = SDLORA_ENOMEM;
    return copy;
}

static int keep_structure(slr_network *n, const slr_hyper *h)
{
    int rc = SDLORA_OK;
    slr_hyper *copy = slr_arena_alloc(n->texts, 1, sizeof *copy);
    if (!copy)
        return SDLORA_ENOMEM;
    *copy = *h;
    copy->activation = keep_text(n, h->activation, &rc);
    copy->weight_initialization = keep_text(n, h->weight_initialization, &rc);
    copy->sd_checkpoint = keep_text(n, h->sd_checkpoint, &rc);
    copy->sd_checkpoint_name = keep_text(n, h->sd_checkpoint_name, &rc);
    n->hyper = copy;
    return rc;
}

/* Module `at` of an MLP: what dropout stands behind it is its own setting. */
static int add_layer(slr_network *n, int64_t width, bool value, int i)
{
    const slr_hyper *h = n->hyper;
    int64_t in = slr_hyper_width(h, width, i), out = slr_hyper_width(h, width, i + 1);
    char name[64];
    slr_form form = {.alpha = NAN, .scale = 1};
    slr_settings *set = slr_arena_alloc(n->texts, 1, sizeof *set);
    if (!set)
        return SDLORA_ENOMEM;
    *set = (slr_settings){.factor = -1, .lr_weight = 1.0, .dropout = h->dropout[i + 1]};
    snprintf(name, sizeof name, "hypernet.%lld.%c.%d", (long long)width, value ? 'v' : 'k', i);
    slr_form_add(&form, SLR_HYPER_WEIGHT, 2, (int64_t[]){out, in});
    slr_form_add(&form, SLR_HYPER_BIAS, 1, &out);
    if (h->is_layer_norm) {
        slr_form_add(&form, SLR_HYPER_NORM_WEIGHT, 1, &out);
        slr_form_add(&form, SLR_HYPER_NORM_BIAS, 1, &out);
    }
    const slr_target target = {
        .part = SLR_PART_UNET, .name = name, .path = name, .out = out, .in = in, .kh = 1, .kw = 1};
    return slr_network_add(n, &slr_kind_hypernet, &target, &form, set);
}

/* What attention layers of the base's UNet read. */
static int check_widths(const slr_hyper *h, slr_mem *m, const slr_checkpoint *base,
                        const char *label)
{
    slr_targets *targets;
    bool known = false;
    int64_t some = 0;
    SLR_TRY(slr_targets_new(&targets, m, base));
    for (size_t i = 0; i < slr_targets_count(targets); i++) {
        const slr_target *t = slr_targets_at(targets, i);
        if (t->part != SLR_PART_UNET || !slr_ends(t->path, ".to_k"))
            continue;
        some = t->in;
        for (int w = 0; w < h->widths; w++)
            known = known || h->width[w] == t->in;
    }
    slr_targets_free(targets);
    if (known)
        return SDLORA_OK;
    return slr_fail(SDLORA_EFORMAT, __func__,
                    "%s: a hypernetwork for another model: none of its widths (%lld%s) is one that "
                    "attention layers of this checkpoint read (%lld, for one)",
                    label, (long long)h->width[0], h->widths > 1 ? ", ..." : "", (long long)some);
}

int slr_hyper_new(slr_network **out, slr_mem *m, const slr_checkpoint *base, const slr_hyper *h,
                  const char *label)
{
    slr_network *n = NULL;
    *out = NULL;
    SLR_TRY(check_widths(h, m, base, label));
    int rc = slr_network_new(&n, m, base);
    if (rc >= 0)
        rc = keep_structure(n, h);
    for (int w = 0; rc >= 0 && w < h->widths; w++)
        for (int v = 0; rc >= 0 && v < 2; v++)
            for (int i = 0; rc >= 0 && i < h->layers; i++)
                rc = add_layer(n, h->width[w], v, i);
    if (rc >= 0)
        rc = slr_network_layout(n);
    if (rc < 0) {
        slr_network_unref(n);
        return rc;
    }
    *out = n;
    return SDLORA_OK;
}

/* --- forward --- */

static slr_val leaf(const slr_hyper_use *u, const slr_module *mod, int which)
{
    return u->leaf(u->user, u->g, mod->slot + (size_t)mod->at[which]);
}

/* Linear, activation, norm, dropout. */
static slr_val layer(const slr_hyper_use *u, size_t index, int i, slr_val x)
{
    const slr_network *n = u->network;
    const slr_module *mod = &n->module[index];
    slr_graph *g = u->g;
    x = slr_linear(g, x, leaf(u, mod, SLR_HYPER_WEIGHT), leaf(u, mod, SLR_HYPER_BIAS), SLR_NONE);
    if (active(n->hyper, i))
        x = slr_act(g, x, n->hyper->act);
    if (n->hyper->is_layer_norm)
        x = slr_layer_norm(g, x, leaf(u, mod, SLR_HYPER_NORM_WEIGHT),
                           leaf(u, mod, SLR_HYPER_NORM_BIAS), NORM_EPS);
    if (u->seed != SLR_NONE && mod->set->dropout > 0)
        x = slr_dropout(g, x, u->seed, mod->set->dropout,
                        u->call * (int64_t)n->n_modules + (int64_t)index, 1);
    return x;
}

slr_val slr_hyper_context(const slr_hyper_use *u, bool value, slr_val x)
{
    const slr_hyper *h = u->network->hyper;
    int64_t width = slr_dim(u->g, x, -1);
    for (int w = 0; w < h->widths; w++) {
        slr_val y = x;
        if (h->width[w] != width || slr_graph_status(u->g) < 0)
            continue;
        for (int i = 0; i < h->layers; i++)
            y = layer(u, slr_hyper_module(h, w, value, i), i, y);
        if (u->strength != SLR_NONE) {
            uint32_t stored = slr_shape_of(u->g, y).dtype;
            y = slr_mul(u->g, y,
                        stored == SDLORA_F32 ? u->strength : slr_cast(u->g, u->strength, stored));
        }
        return slr_add(u->g, x, y);
    }
    return x;
}
