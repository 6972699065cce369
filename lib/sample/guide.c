/* SPDX-License-Identifier: MIT */
/* Scripts say which text stands at which evaluation, conds.c what its states are; this joins both
 * for the denoiser.  All texts are encoded before the first step, so that steps cost the UNet only.
 */
#include "sample/guide.h"

#include <string.h>

#include "base/status.h"

slr_cond_config slr_guide_config(const slr_settings *set, const slr_model *model, bool negative)
{
    int skip = set->clip_skip > 1 ? set->clip_skip : 1;
    bool xl = slr_conds_shape(model->conds)->pooled > 0;
    return (slr_cond_config){.clip_skip = xl && set->clip_l_skip ? -skip : skip,
                             .emphasis = set->emphasis,
                             .backtrack = set->backtrack,
                             .zero = negative};
}

/* States of one part's texts: one batch. */
static int encode_part(slr_guide *g, const slr_script_part *part, bool negative, slr_cond **out)
{
    slr_cond_config config = slr_guide_config(g->p->set, g->model, negative);
    const char **text = slr_calloc(g->m, part->n, sizeof *text);
    *out = slr_calloc(g->m, part->n, sizeof **out);
    int rc = text && *out ? SDLORA_OK : SDLORA_ENOMEM;
    for (size_t i = 0; rc >= 0 && i < part->n; i++)
        text[i] = part->at[i].text;
    if (rc >= 0)
        rc = slr_conds_get(g->model->conds, text, part->n, &config, g->p->cancel, *out);
    slr_free(g->m, text);
    return rc;
}

static int encode(slr_guide *g)
{
    const slr_script *positive = g->p->positive;
    const char *nothing = "";
    slr_cond_config config = slr_guide_config(g->p->set, g->model, false);
    g->part = slr_calloc(g->m, positive->n, sizeof *g->part);
    g->now = slr_calloc(g->m, positive->n, sizeof *g->now);
    g->weight = slr_calloc(g->m, positive->n, sizeof *g->weight);
    if (!g->part || !g->now || !g->weight)
        return SDLORA_ENOMEM;
    for (size_t i = 0; i < positive->n; i++) {
        g->weight[i] = positive->part[i].weight;
        SLR_TRY(encode_part(g, &positive->part[i], false, &g->part[i]));
    }
    SLR_TRY(encode_part(g, &g->p->negative->part[0], true, &g->negative));
    if (!g->p->set->pad)
        return SDLORA_OK;
    return slr_conds_get(g->model->conds, &nothing, 1, &config, g->p->cancel, &g->empty);
}

/* The model is told that the picture is as large as it is, and whole. */
static int make_sizes(slr_guide *g)
{
    const slr_text_shape *shape = slr_conds_shape(g->model->conds);
    const slr_settings *set = g->p->set;
    float h = (float)(g->p->height ? g->p->height : g->p->h * 8),
          w = (float)(g->p->width ? g->p->width : g->p->w * 8);
    g->n_sizes = shape->n_sizes;
    if (!g->n_sizes)
        return SDLORA_OK;
    for (int i = 0; i < 2; i++) {
        float numbers[SLR_SIZE_NUMBERS] = {h, w, (float)set->crop_top, (float)set->crop_left, h, w};
        if (shape->n_sizes == SLR_SIZE_NUMBERS - 1) /* a refiner's score instead of a target */
            numbers[4] = (float)(i ? set->aesthetic_low : set->aesthetic_high);
        g->sizes[i] = slr_calloc(g->m, (size_t)g->n_sizes * SLR_SIZE_WIDTH, sizeof(float));
        if (!g->sizes[i])
            return SDLORA_ENOMEM;
        slr_text_sizes(numbers, g->n_sizes, g->sizes[i]);
    }
    return SDLORA_OK;
}

int slr_guide_new(slr_guide *out, slr_mem *m, slr_pass *p, slr_model *model)
{
    *out = (slr_guide){.m = m, .p = p, .model = model};
    int rc = make_sizes(out);
    if (rc >= 0)
        rc = encode(out);
    if (rc < 0)
        slr_guide_free(out);
    return rc;
}

void slr_guide_free(slr_guide *g)
{
    for (size_t i = 0; g->part && i < g->p->positive->n; i++)
        slr_free(g->m, g->part[i]);
    slr_free(g->m, g->part);
    slr_free(g->m, g->negative);
    slr_free(g->m, g->now);
    slr_free(g->m, g->weight);
    slr_free(g->m, g->sizes[0]);
    slr_free(g->m, g->sizes[1]);
    *g = (slr_guide){0};
}

/* The first whose end has not come; after the last, the first again. */
static size_t index_at(const slr_script_part *part, int evaluation)
{
    for (size_t i = 0; i < part->n; i++)
        if (evaluation <= part->at[i].end)
            return i;
    return 0;
}

/* Skip Early CFG and NGMS, which leave the negative prompt out to save time. */
static bool leave_out(slr_pass *p, int evaluation, int total, double level)
{
    const slr_settings *set = p->set;
    bool early = set->skip_early > 0 && (double)evaluation / total <= set->skip_early;
    bool low = (evaluation % 2 || set->s_min_uncond_all) && level < set->s_min_uncond;
    p->became.skipped_early |= early;
    p->became.skipped |= low && !early;
    return early || low;
}

/* AUTOMATIC1111 patches the model that a pass begins with, and a refiner inherits that when its
 * weights go where the model's were. */
static bool merges(const slr_guide *g)
{
    return slr_checkpoint_family(g->model->base) == slr_checkpoint_family(g->p->model->base);
}

void slr_guide_at(slr_guide *g, int evaluation, int total, double level, double factor,
                  slr_guidance *out)
{
    slr_pass *p = g->p;
    const slr_settings *set = p->set;
    bool edit = p->edit && set->image_cfg != 1;
    for (size_t i = 0; i < p->positive->n; i++)
        g->now[i] = g->part[i][index_at(&p->positive->part[i], evaluation)];
    *out = (slr_guidance){
        .cond = g->now,
        .weight = g->weight,
        .n = p->positive->n,
        .uncond = g->negative[index_at(&p->negative->part[0], evaluation)],
        .cfg = set->cfg * factor,
        .rescale = set->cfg_rescale,
        .skip_uncond = !edit && leave_out(p, evaluation, total, level),
        .pad = set->pad_v0 ? SLR_PAD_REPEAT
               : set->pad  ? SLR_PAD_EMPTY
                           : SLR_PAD_NONE,
        .empty = &g->empty,
        .sizes = g->sizes[0],
        .uncond_sizes = g->sizes[1],
        .n_sizes = g->n_sizes,
        .extra = p->extra,
        .n_extra = p->n_extra,
        .edit = edit,
        .edit_cfg = set->image_cfg,
        .merge = merges(g) ? p->merge : 0,
        .h = p->h,
        .w = p->w,
    };
    if (slr_guidance_pads(out))
        *(set->pad_v0 ? &p->became.padded_v0 : &p->became.padded) = true;
}
