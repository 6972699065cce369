/* SPDX-License-Identifier: MIT */
/* The step graphs of a trainer by shape: planned when a batch asks for one, kept while there is
 * room, all in one memory. */
#include "base/status.h"
#include "train/trainer_impl.h"

static slr_step_slot *oldest(slr_trainer *t)
{
    slr_step_slot *found = &t->graph[0];
    for (int i = 1; i < SLR_MAX_GRAPHS; i++)
        if (t->graph[i].used < found->used)
            found = &t->graph[i];
    return found;
}

/* All step graphs work in one memory, as big as the biggest needs. */
static int share_memory(slr_trainer *t, const slr_step_slot *slot)
{
    for (int i = 0; i < SLR_MAX_GRAPHS; i++)
        if (&t->graph[i] != slot && t->graph[i].step)
            return slr_plan_share(slr_step_plan(slot->step), slr_step_plan(t->graph[i].step));
    return SDLORA_OK;
}

/* w, h: of latents. */
static void tell_recompute(const slr_trainer *t, slr_recompute_cost c, int64_t w, int64_t h)
{
    if (c.flops > 0)
        slr_logf(&t->c.log, SLR_LOG_INFO,
                 "gradient checkpointing at latents of %lldx%lld: activations %.2f GB -> %.2f GB, "
                 "%.0f %% more arithmetic",
                 (long long)w, (long long)h, (double)c.bytes_without * 1e-9,
                 (double)c.bytes_with * 1e-9, 100 * c.flops_again / c.flops);
}

slr_step_config slr_trainer_step_config(const slr_trainer *t, int64_t n, int64_t h, int64_t w)
{
    return (slr_step_config){.mem = t->m,
                             .base = t->c.base,
                             .network = t->c.network,
                             .devices = t->c.devices,
                             .policy = t->precision.model,
                             .n = n,
                             .h = h,
                             .w = w,
                             .n_chunks = t->n_chunks,
                             .clip_skip = t->clip_skip,
                             .loss_type = t->noise.loss_type,
                             .part_mask = t->part_mask,
                             .grad = t->grad,
                             .text_states = t->text != NULL,
                             .recompute = slr_opt_bool(t->o, "gradient_checkpointing")};
}

int slr_trainer_graph(slr_trainer *t, int64_t n, int64_t h, int64_t w, slr_step **out)
{
    t->clock++;
    for (int i = 0; i < SLR_MAX_GRAPHS; i++) {
        slr_step_slot *s = &t->graph[i];
        if (s->step && s->n == n && s->h == h && s->w == w) {
            s->used = t->clock;
            *out = s->step;
            return SDLORA_OK;
        }
    }
    slr_step_slot *s = oldest(t); /* an empty one was used least */
    slr_step_free(s->step);
    *s = (slr_step_slot){0};
    slr_step_config config = slr_trainer_step_config(t, n, h, w);
    SLR_TRY(slr_step_new(&s->step, &config));
    tell_recompute(t, slr_step_recomputed(s->step), w, h);
    SLR_TRY(share_memory(t, s));
    s->n = n;
    s->h = h;
    s->w = w;
    s->used = t->clock;
    *out = s->step;
    return SDLORA_OK;
}
