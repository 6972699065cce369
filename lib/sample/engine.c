/* SPDX-License-Identifier: MIT */
/* Keeps a stack of networks and a few plans, and packed weights across changes of both.  Refuses to
 * know what is computed. */
#include "sample/engine.h"

#include <string.h>

#include "base/status.h"

enum { MAX_PLANS = 8 };

/* A planned graph; packed weights make it dear. */
typedef struct kept {
    slr_plan *plan;
    slr_engine_key key;
    uint64_t used;
} kept;

struct slr_engine {
    slr_mem *m;
    slr_checkpoint *base;
    slr_devices *devices;
    slr_policy policy;
    slr_stack *stack;
    slr_stack_item *item; /* what the stack holds, for comparing */
    size_t n_items;
    kept plan[MAX_PLANS];
    slr_plan *retired[SLR_ENGINE_KINDS]; /* keep the packed weights that the next plan wants too */
    uint64_t clock, version;
};

int slr_engine_new(slr_engine **out, slr_mem *m, slr_checkpoint *base, slr_devices *devices)
{
    *out = NULL;
    slr_engine *e = slr_calloc(m, 1, sizeof *e);
    if (!e)
        return SDLORA_ENOMEM;
    e->m = m;
    e->base = slr_checkpoint_ref(base);
    e->devices = slr_devices_ref(devices);
    e->policy = (slr_policy){SDLORA_F32, SDLORA_MATH_STRICT};
    *out = e;
    return SDLORA_OK;
}

static void drop_plans(slr_engine *e)
{
    for (int i = 0; i < MAX_PLANS; i++) {
        slr_plan_free(e->plan[i].plan);
        e->plan[i] = (kept){0};
    }
}

/* The plans of another stack.  The last of each kind stays until there is a new one, since packing
 * a model's weights again takes seconds; unless most of them were the stack's own. */
static void retire_plans(slr_engine *e)
{
    for (int kind = 0; kind < SLR_ENGINE_KINDS; kind++) {
        kept *last = NULL;
        for (int i = 0; i < MAX_PLANS; i++)
            if (e->plan[i].plan && e->plan[i].key.kind == kind &&
                (!last || e->plan[i].used > last->used))
                last = &e->plan[i];
        if (!last || (e->stack && slr_stack_rebuilds_most(e->stack, kind)))
            continue;
        slr_plan_free(e->retired[kind]);
        e->retired[kind] = last->plan;
        last->plan = NULL;
    }
    drop_plans(e);
}

static void drop_retired(slr_engine *e, int kind)
{
    slr_plan_free(e->retired[kind]);
    e->retired[kind] = NULL;
}

static void drop_stack(slr_engine *e)
{
    slr_stack_free(e->stack);
    slr_free(e->m, e->item);
    e->stack = NULL;
    e->item = NULL;
    e->n_items = 0;
}

void slr_engine_rest(slr_engine *e)
{
    drop_plans(e);
    for (int kind = 0; kind < SLR_ENGINE_KINDS; kind++)
        drop_retired(e, kind);
    drop_stack(e);
    e->version++;
}

void slr_engine_free(slr_engine *e)
{
    if (!e)
        return;
    slr_engine_rest(e);
    slr_devices_unref(e->devices);
    slr_checkpoint_unref(e->base);
    slr_free(e->m, e);
}

void slr_engine_set_policy(slr_engine *e, slr_policy policy)
{
    if (e->policy.storage == policy.storage && e->policy.math == policy.math)
        return;
    drop_plans(e);
    for (int kind = 0; kind < SLR_ENGINE_KINDS; kind++)
        drop_retired(e, kind);
    e->version++;
    e->policy = policy;
}

uint64_t slr_engine_version(const slr_engine *e)
{
    return e->version;
}

slr_checkpoint *slr_engine_base(const slr_engine *e)
{
    return e->base;
}

slr_weights *slr_engine_weights(const slr_engine *e, int part)
{
    return e->stack ? slr_stack_weights(e->stack, part) : slr_checkpoint_part(e->base, part);
}

slr_adapter slr_engine_adapter(const slr_engine *e)
{
    return e->stack ? slr_stack_adapter(e->stack) : (slr_adapter){0};
}

/* --- networks --- */

static bool same_networks(const slr_engine *e, const slr_stack_item *items, size_t n)
{
    if (n != e->n_items)
        return false;
    for (size_t i = 0; i < n; i++)
        if (items[i].network != e->item[i].network || items[i].dyn != e->item[i].dyn)
            return false;
    return true;
}

static bool same_strengths(const slr_engine *e, const slr_stack_item *items, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!slr_item_same_strength(&items[i], &e->item[i]))
            return false;
    return true;
}

/* Plans serve a stack that differs from theirs in its numbers alone. */
static int keep_plans(slr_engine *e, slr_stack *stack)
{
    for (int i = 0; i < MAX_PLANS; i++)
        if (e->plan[i].plan)
            SLR_TRY(slr_stack_bind(stack, e->plan[i].plan));
    return SDLORA_OK;
}

/* Rebuilding weights takes seconds where networks are of other kinds than LoRA.  All that comes of
 * it is the stack, so the work may be cut anywhere. */
static int build_stack(slr_engine *e, const slr_stack_item *items, size_t n,
                       const slr_cancel_flag *cancel, slr_stack **out)
{
    slr_watch watch;
    slr_watch_enter(&watch, cancel);
    int rc = slr_stack_new(out, e->m, e->devices, e->base, items, n);
    bool cut = watch.cut;
    slr_watch_leave(&watch);
    if (!cut)
        return rc;
    slr_stack_free(*out);
    *out = NULL;
    return slr_fail(SDLORA_ECANCELED, __func__, "canceled");
}

/* A new stack, before anything of the old one is given up. */
static int replace_stack(slr_engine *e, const slr_stack_item *items, size_t n,
                         const slr_cancel_flag *cancel)
{
    slr_stack *stack = NULL;
    slr_stack_item *copy = NULL;
    if (n) {
        SLR_TRY(build_stack(e, items, n, cancel, &stack));
        copy = slr_calloc(e->m, n, sizeof *copy);
        if (!copy) {
            slr_stack_free(stack);
            return SDLORA_ENOMEM;
        }
        memcpy(copy, items, n * sizeof *copy);
    }
    if (!stack || !e->stack || !slr_stack_alike(e->stack, stack) || keep_plans(e, stack) < 0)
        retire_plans(e);
    drop_stack(e);
    e->version++;
    e->stack = stack;
    e->item = copy;
    e->n_items = n;
    return SDLORA_OK;
}

int slr_engine_set_networks(slr_engine *e, const slr_stack_item *items, size_t n,
                            const slr_cancel_flag *cancel)
{
    if (!same_networks(e, items, n))
        return replace_stack(e, items, n, cancel);
    if (same_strengths(e, items, n) && !(e->stack && slr_stack_stale(e->stack)))
        return SDLORA_OK;
    if (!slr_stack_live(e->stack))
        return replace_stack(e, items, n, cancel);
    SLR_TRY(slr_stack_set(e->stack, items, n));
    memcpy(e->item, items, n * sizeof *items);
    e->version++;
    return SDLORA_OK;
}

/* --- plans --- */

static bool same_key(const slr_engine_key *a, const slr_engine_key *b)
{
    return a->kind == b->kind && a->a == b->a && a->b == b->b && a->c == b->c && a->d == b->d;
}

static int plan_graph(slr_engine *e, slr_engine_build_fn build, void *user,
                      const slr_engine_key *key, const slr_cancel_flag *cancel, slr_plan **out)
{
    slr_graph *g;
    SLR_TRY(slr_graph_new(&g, e->m, e->policy));
    build(user, g, key);
    int rc = slr_graph_status(g);
    if (rc >= 0)
        rc = slr_plan_new_until(out, g, e->devices, cancel);
    slr_graph_free(g);
    if (rc >= 0 && e->stack)
        rc = slr_stack_bind(e->stack, *out);
    return rc;
}

/* All plans work in one memory, as big as the biggest needs. */
static int share_memory(slr_engine *e, const kept *slot)
{
    for (int i = 0; i < MAX_PLANS; i++)
        if (&e->plan[i] != slot && e->plan[i].plan)
            return slr_plan_share(slot->plan, e->plan[i].plan);
    return SDLORA_OK;
}

/* The plan for a key that is kept; else NULL, and where a new one goes. */
static slr_plan *find_plan(slr_engine *e, const slr_engine_key *key, kept **slot)
{
    *slot = &e->plan[0];
    for (int i = 0; i < MAX_PLANS; i++) {
        kept *k = &e->plan[i];
        if (k->plan && same_key(&k->key, key)) {
            k->used = e->clock;
            return k->plan;
        }
        if (k->used < (*slot)->used)
            *slot = k;
    }
    return NULL;
}

/* A plan that was not finished, or NULL.  After a cancel it keeps what has been packed for the next
 * run; giving gigabytes back would take longer than a cancel may. */
static void give_up(slr_engine *e, int kind, slr_plan *plan, int rc)
{
    if (rc == SDLORA_ECANCELED && !e->retired[kind])
        e->retired[kind] = plan;
    else
        slr_plan_free(plan);
}

int slr_engine_plan(slr_engine *e, const slr_engine_key *key, slr_engine_build_fn build, void *user,
                    const slr_cancel_flag *cancel, slr_plan **out)
{
    kept *slot;
    e->clock++;
    *out = find_plan(e, key, &slot);
    if (*out)
        return SDLORA_OK;
    slr_plan_free(slot->plan);
    *slot = (kept){.key = *key};
    int rc = plan_graph(e, build, user, key, cancel, &slot->plan);
    if (rc >= 0)
        rc = share_memory(e, slot);
    if (rc >= 0)
        rc = slr_plan_back(slot->plan);
    if (rc < 0) {
        give_up(e, key->kind, slot->plan, rc);
        *slot = (kept){0};
        return rc;
    }
    drop_retired(e, key->kind);
    slot->used = e->clock;
    *out = slot->plan;
    return SDLORA_OK;
}

void *slr_engine_memory(slr_plan *p, const char *name)
{
    slr_val v;
    return slr_plan_find(p, name, &v) < 0 ? NULL : slr_plan_data(p, v);
}
