/* SPDX-License-Identifier: MIT */
/* The graph of one training step at one shape: text encoders (when they are in), UNet, loss, and
 * the backward pass to every trained slot, whose gradients land in one flat block.  Refuses to know
 * datasets, schedules, optimisers. */
#include "train/step.h"

#include <string.h>

#include "base/status.h"
#include "base/str.h"
#include "models/unet.h"

/* Arithmetic that gradient checkpointing may add.  The curve is steep up to here: SD 1.5 at 512x512
 * keeps 23 % of its activations for 14 % more, and 16 % at the most for 36 %. */
#define RECOMPUTE_SHARE 0.15

struct slr_step {
    slr_mem *m;
    slr_checkpoint *base;
    slr_network *network;
    slr_plan *plan;
    float *grad, *own_grad;
    slr_step_io io;
    slr_recompute_cost recomputed;
    size_t rows;  /* of ids */
    size_t extra; /* floats of a sample's io.extra */
};

/* Values of the graph while it is built. */
typedef struct building {
    const slr_step_config *c;
    slr_graph *g;
    slr_text_shape text;
    slr_unet_shape unet;
    slr_val x, t, target, weight, delta, seed, loss;
    slr_val *vals, *wrt, *grads; /* one per slot */
    slr_train_hook hook;
} building;

static const slr_adapter *adapter_of(const building *b, slr_adapter *stacked)
{
    if (b->c->stack) {
        *stacked = slr_stack_adapter(b->c->stack);
        return stacked;
    }
    return b->c->network ? &b->hook.adapter : NULL;
}

static slr_weights *weights_of(const slr_step_config *c, int part)
{
    return c->stack ? slr_stack_weights(c->stack, part) : slr_checkpoint_part(c->base, part);
}

/* [n,tokens,width] and [n,pooled] */
static void build_text(building *b, const slr_adapter *adapter, slr_val *states, slr_val *pooled)
{
    const slr_step_config *c = b->c;
    if (c->text_states) {
        int64_t dim[3] = {c->n, slr_text_tokens(c->n_chunks), b->text.width};
        int64_t wide[2] = {c->n, b->text.pooled};
        *states = slr_input(b->g, "states", SDLORA_F32, 3, dim);
        *pooled = b->text.pooled ? slr_input(b->g, "pooled", SDLORA_F32, 2, wide) : SLR_NONE;
        return;
    }
    slr_text_graph text = {.family = slr_checkpoint_family(c->base),
                           .shape = &b->text,
                           .adapter = adapter,
                           .n = c->n,
                           .n_chunks = c->n_chunks,
                           .clip_skip = c->clip_skip};
    for (int e = 0; e < b->text.n; e++)
        text.weights[e] = weights_of(c, b->text.part[e]);
    slr_text_graph_build(b->g, &text, states, pooled);
}

/* Pooled state and sizes in one row, as SDXL's UNet takes them: [n,vector], f32. */
static slr_val build_vector(building *b, slr_val pooled)
{
    int64_t dim[2] = {b->c->n, b->text.n_sizes * SLR_SIZE_WIDTH};
    if (!b->text.vector)
        return SLR_NONE;
    slr_val part[2] = {pooled, slr_input(b->g, "sizes", SDLORA_F32, 2, dim)};
    if (slr_shape_of(b->g, pooled).dtype != SDLORA_F32)
        part[0] = slr_cast(b->g, pooled, SDLORA_F32);
    return slr_concat(b->g, part, 2, 1);
}

/* Noisy latents, and beside them what an inpainting model takes: [n,h,w,in]. */
static slr_val build_image(building *b)
{
    const slr_step_config *c = b->c;
    int64_t own = b->unet.out_channels, more = b->unet.in_channels - own;
    int64_t image[4] = {c->n, c->h, c->w, own}, extra[4] = {c->n, c->h, c->w, more};
    b->x = slr_input(b->g, "x", SDLORA_F32, 4, image);
    if (!more)
        return b->x;
    slr_val part[2] = {b->x, slr_input(b->g, "extra", SDLORA_F32, 4, extra)};
    return slr_concat(b->g, part, 2, 3);
}

static void build_forward(building *b)
{
    const slr_step_config *c = b->c;
    int64_t image[4] = {c->n, c->h, c->w, b->unet.out_channels}, one[1] = {c->n}, two[1] = {2};
    bool dropout = c->part_mask && c->network && slr_network_has_dropout(c->network);
    slr_adapter stacked;
    slr_val context, pooled;

    slr_val x = build_image(b);
    b->t = slr_input(b->g, "t", SDLORA_F32, 1, one);
    b->target = slr_input(b->g, "target", SDLORA_F32, 4, image);
    b->weight = slr_input(b->g, "weight", SDLORA_F32, 1, one);
    b->delta = c->loss_type == SDLORA_LOSS_HUBER || c->loss_type == SDLORA_LOSS_SMOOTH_L1
                   ? slr_input(b->g, "delta", SDLORA_F32, 1, one)
                   : SLR_NONE;
    b->seed = dropout ? slr_input(b->g, "seed", SDLORA_I32, 1, two) : SLR_NONE;
    if (c->network)
        slr_train_hook_init(&b->hook, c->network, b->seed, b->vals);
    int64_t ranks[1] = {dropout ? (int64_t)slr_network_ranks(c->network) : 0};
    if (ranks[0])
        b->hook.ranks = slr_input(b->g, "ranks", SDLORA_F32, 1, ranks);
    int64_t masks[2] = {c->n, 0};
    if (c->part_mask && c->network)
        masks[1] = (int64_t)slr_network_mask_width(c->network);
    if (masks[1])
        b->hook.masks = slr_input(b->g, "masks", SDLORA_F32, 2, masks);

    const slr_adapter *adapter = adapter_of(b, &stacked);
    build_text(b, adapter, &context, &pooled);
    slr_val vector = build_vector(b, pooled);
    slr_nn nn = {b->g, weights_of(c, SLR_PART_UNET), SLR_PART_UNET, adapter};
    slr_graph_push(b->g, "unet");
    slr_val pred =
        slr_unet_build_vector(&nn, slr_checkpoint_family(c->base), x, b->t, context, vector);
    slr_graph_pop(b->g);
    b->loss = slr_loss(b->g, pred, b->target, b->weight, b->delta, c->loss_type);
    slr_output(b->g, b->loss, "loss");
    slr_output(b->g, pred, "pred");
}

static bool trained(const building *b, size_t slot)
{
    const slr_network_slot *s = slr_network_slot_at(b->c->network, slot);
    return b->vals[slot] != SLR_NONE && s->lr_scale > 0 && (b->c->part_mask >> s->part & 1u);
}

/* Gradient of mean(loss) by every trained slot. */
static int build_backward(building *b)
{
    size_t n_slots = b->c->network ? slr_network_slots(b->c->network) : 0, n = 0;
    for (size_t i = 0; i < n_slots; i++)
        if (b->c->part_mask && trained(b, i))
            b->wrt[n++] = b->vals[i];
    if (!n)
        return SDLORA_OK;

    slr_val mean = slr_affine(b->g, b->loss, 1.0 / (double)b->c->n, 0.0);
    SLR_TRY(slr_graph_grad(b->g, mean, b->wrt, n, b->grads));
    for (size_t i = 0, k = 0; i < n_slots; i++) {
        if (!trained(b, i))
            continue;
        char name[256];
        slr_val grad = b->grads[k++];
        if (grad == SLR_NONE)
            continue;
        SLR_TRY(
            slr_text_join(name, sizeof name, "grad.", slr_network_slot_at(b->c->network, i)->key));
        slr_output(b->g, grad, name);
    }
    return slr_graph_status(b->g);
}

/* Parameters and gradients lie in the network's and the step's flat blocks. */
static int bind_slots(slr_step *s, const building *b)
{
    const slr_network *n = b->c->network;
    for (size_t i = 0; n && i < slr_network_slots(n); i++) {
        const slr_network_slot *slot = slr_network_slot_at(n, i);
        char name[256];
        slr_val v;
        if (b->vals[i] == SLR_NONE)
            continue;
        SLR_TRY(slr_plan_find(s->plan, slot->key, &v));
        SLR_TRY(slr_plan_bind(s->plan, v, slr_network_params(b->c->network) + slot->offset));
        SLR_TRY(slr_text_join(name, sizeof name, "grad.", slot->key));
        if (slr_plan_find(s->plan, name, &v) < 0) {
            slr_clear(); /* not trained, or the loss does not depend on it */
            continue;
        }
        SLR_TRY(slr_plan_bind(s->plan, v, s->grad + slot->offset));
    }
    return b->c->stack ? slr_stack_bind(b->c->stack, s->plan) : SDLORA_OK;
}

static void fill_io(slr_step *s, const building *b)
{
    slr_plan *p = s->plan;
    s->io = (slr_step_io){
        .x = slr_train_held(p, "x"),
        .extra = slr_train_held(p, "extra"),
        .target = slr_train_held(p, "target"),
        .t = slr_train_held(p, "t"),
        .weight = slr_train_held(p, "weight"),
        .delta = slr_train_held(p, "delta"),
        .text = slr_text_io_of(p),
        .states = slr_train_held(p, "states"),
        .pooled = slr_train_held(p, "pooled"),
        .sizes = slr_train_held(p, "sizes"),
        .seed = slr_train_held(p, "seed"),
        .ranks = slr_train_held(p, "ranks"),
        .masks = slr_train_held(p, "masks"),
        .loss = slr_train_held(p, "loss"),
        .pred = slr_train_held(p, "pred"),
        .grad = s->grad,
        .channels = b->unet.out_channels,
        .tokens = slr_text_tokens(b->c->n_chunks),
        .shape = b->text,
    };
    s->rows = (size_t)(b->c->n * b->c->n_chunks);
    s->extra = (size_t)(b->c->h * b->c->w * (b->unet.in_channels - b->unet.out_channels));
}

/* Shapes of the model's parts, and what it takes to train it. */
static int read_shapes(building *b)
{
    const slr_step_config *c = b->c;
    const slr_family *family = slr_checkpoint_family(c->base);
    slr_weights *unet = slr_checkpoint_part(c->base, SLR_PART_UNET);
    if (!unet)
        return slr_fail(SDLORA_EINVAL, __func__, "%s has no UNet", slr_checkpoint_path(c->base));
    SLR_TRY(slr_text_read(&b->text, c->base));
    SLR_TRY(slr_unet_read(&b->unet, family, unet));
    int64_t own = b->unet.out_channels;
    if (b->unet.in_channels != own && b->unet.in_channels != own + 1 + own)
        return slr_fail(SDLORA_ENOTSUP, __func__,
                        "%s: the UNet takes %lld channels and gives %lld, which is neither a plain "
                        "model nor one for inpainting",
                        slr_checkpoint_path(c->base), (long long)b->unet.in_channels,
                        (long long)own);
    return SDLORA_OK;
}

int slr_step_check(slr_checkpoint *base)
{
    const slr_step_config config = {.base = base};
    building b = {.c = &config};
    return read_shapes(&b);
}

static int build(slr_step *s, building *b)
{
    const slr_step_config *c = b->c;
    SLR_TRY(read_shapes(b));
    size_t n_slots = c->network ? slr_network_slots(c->network) : 0;
    b->vals = slr_calloc(s->m, 3 * n_slots + 1, sizeof *b->vals);
    if (!b->vals)
        return SDLORA_ENOMEM;
    if (c->part_mask && !c->grad)
        s->own_grad = slr_calloc(s->m, slr_network_param_count(c->network), sizeof(float));
    s->grad = c->grad ? c->grad : s->own_grad;
    if (c->part_mask && !s->grad)
        return SDLORA_ENOMEM;
    b->wrt = b->vals + n_slots;
    b->grads = b->wrt + n_slots;

    SLR_TRY(slr_graph_new(&b->g, s->m, c->policy));
    slr_graph_checkpoint(b->g, c->recompute ? RECOMPUTE_SHARE : 0);
    build_forward(b);
    SLR_TRY(slr_graph_status(b->g));
    SLR_TRY(build_backward(b));
    s->recomputed = slr_graph_recomputed(b->g);
    SLR_TRY(slr_plan_new(&s->plan, b->g, c->devices));
    SLR_TRY(bind_slots(s, b));
    SLR_TRY(slr_plan_back(s->plan));
    fill_io(s, b);
    return SDLORA_OK;
}

int slr_step_new(slr_step **out, const slr_step_config *config)
{
    *out = NULL;
    slr_step *s = slr_calloc(config->mem, 1, sizeof *s);
    if (!s)
        return SDLORA_ENOMEM;
    s->m = config->mem;
    s->base = slr_checkpoint_ref(config->base);
    s->network = slr_network_ref(config->network);
    building b = {.c = config};
    int rc = build(s, &b);
    slr_graph_free(b.g);
    slr_free(s->m, b.vals);
    if (rc < 0) {
        slr_step_free(s);
        return rc;
    }
    *out = s;
    return SDLORA_OK;
}

int slr_step_live(const slr_step_config *config, bool *live)
{
    slr_step_config small = *config;
    building b = {.c = &small};
    SLR_TRY(read_shapes(&b));
    size_t n = slr_network_slots(config->network);
    small.n = 1;
    small.h = small.w = (int64_t)1 << (b.unet.n_levels - 1);
    b.vals = slr_calloc(config->mem, n + 1, sizeof *b.vals);
    int rc = b.vals ? slr_graph_new(&b.g, config->mem, config->policy) : SDLORA_ENOMEM;
    if (rc >= 0) {
        build_forward(&b);
        rc = slr_graph_status(b.g);
    }
    for (size_t i = 0; rc >= 0 && i < n; i++)
        live[i] = b.vals[i] != SLR_NONE;
    slr_graph_free(b.g);
    slr_free(config->mem, b.vals);
    return rc;
}

void slr_step_free(slr_step *s)
{
    if (!s)
        return;
    slr_plan_free(s->plan);
    slr_free(s->m, s->own_grad);
    slr_network_unref(s->network);
    slr_checkpoint_unref(s->base);
    slr_free(s->m, s);
}

const slr_step_io *slr_step_io_of(slr_step *s)
{
    return &s->io;
}

int slr_step_run(slr_step *s, const slr_cancel_flag *cancel)
{
    return slr_plan_run(s->plan, cancel);
}

slr_plan *slr_step_plan(slr_step *s)
{
    return s->plan;
}

slr_recompute_cost slr_step_recomputed(const slr_step *s)
{
    return s->recomputed;
}

void slr_step_fill_text(const slr_step *s, const slr_words *words)
{
    slr_text_io_fill(&s->io.text, words, slr_checkpoint_family(s->base), &s->io.shape, s->rows);
}

void slr_step_fill_sizes(const slr_step *s, const float *numbers, float score, int64_t i)
{
    float told[SLR_SIZE_NUMBERS];
    int n = s->io.shape.n_sizes;
    if (!s->io.sizes)
        return;
    memcpy(told, numbers, sizeof told);
    if (n == SLR_SIZE_NUMBERS - 1)
        told[n - 1] = score;
    slr_text_sizes(told, n, s->io.sizes + i * n * SLR_SIZE_WIDTH);
}

void slr_step_fill_extra(const slr_step *s, const float *extra, int64_t i)
{
    if (s->io.extra)
        memcpy(s->io.extra + (size_t)i * s->extra, extra, s->extra * sizeof *extra);
}
