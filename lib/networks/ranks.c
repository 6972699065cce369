/* SPDX-License-Identifier: MIT */
/* DyLoRA: in each pass a module uses its first blocks of ranks and trains the last of those.  Which
 * blocks is drawn here, from seed and sample; the rows of others get neither gradient nor update.
 * LyCORIS weighs r of R ranks by R / r, and kohya by its root; the file is a plain LoRA of all
 * ranks.  (LyCORIS divides by blocks, not by ranks: a file of its blocks of more than one rank is
 * weaker than what was trained.  Here it is not.)  Refuses to know graphs. */
#include <math.h>
#include <string.h>

#include "networks/kind.h"

int64_t slr_module_unit(const slr_module *mod)
{
    return mod->kind == &slr_kind_lora && mod->rank > 0 ? mod->set->unit : 0;
}

int64_t slr_module_ranks_at(const slr_network *n, const slr_module *mod)
{
    int64_t at = 0;
    for (const slr_module *k = n->module; k < mod; k++)
        at += slr_module_unit(k) ? k->rank : 0;
    return at;
}

size_t slr_network_ranks(const slr_network *n)
{
    return (size_t)slr_module_ranks_at(n, n->module + n->n_modules);
}

void slr_network_draw_ranks(const slr_network *n, uint64_t seed, uint64_t sample, float *weight)
{
    slr_rng rng;
    slr_rng_init(&rng, seed + (sample >> 32), SLR_STREAM_RANKS, (uint32_t)sample);
    for (size_t i = 0; i < n->n_modules; i++) {
        const slr_module *mod = &n->module[i];
        int64_t unit = slr_module_unit(mod);
        if (!unit)
            continue;
        int64_t live = unit * (int64_t)(1 + slr_rng_below(&rng, (uint64_t)(mod->rank / unit)));
        double up = (double)mod->rank / (double)live;
        for (int64_t r = 0; r < mod->rank; r++)
            weight[r] = r < live ? (float)(mod->set->unit_root ? sqrt(up) : up) : 0;
        weight += mod->rank;
    }
}

/* The tensor's elements of one rank: down [r, ...], up [out, r, ...]. */
typedef struct strip {
    float *first;
    size_t n, step, length; /* n runs of `length` floats, `step` apart */
} strip;

static strip strip_of(const slr_network_slot *s, const slr_module *mod, float *block, int64_t rank)
{
    size_t r = (size_t)mod->rank, each = s->count / r;
    bool rows = !(mod->kind->plus >> s->leaf & 1u); /* `up` is what LoRA+ speeds up */
    return rows ? (strip){block + s->offset + (size_t)rank * each, 1, 0, each}
                : (strip){block + s->offset + (size_t)rank, each, r, 1};
}

static void each_strip(const slr_network *n, const slr_module *mod, int64_t rank, float *to,
                       const float *from)
{
    for (int leaf = 0; leaf < SLR_KIND_OWN; leaf++) {
        const slr_network_slot *s = slr_module_slot(mod, &n->slot[mod->slot], leaf);
        if (!s)
            continue;
        strip t = strip_of(s, mod, to, rank);
        for (size_t i = 0; i < t.n; i++) {
            float *at = t.first + i * t.step;
            if (from)
                memcpy(at, from + (at - to), t.length * sizeof *at);
            else
                memset(at, 0, t.length * sizeof *at);
        }
    }
}

void slr_network_mask_ranks(const slr_network *n, const float *weight, float *grad,
                            uint8_t *touched)
{
    for (size_t i = 0; i < n->n_modules; i++) {
        const slr_module *mod = &n->module[i];
        int64_t live = 0;
        if (!slr_module_unit(mod))
            continue;
        while (live < mod->rank && weight[live] > 0)
            live++;
        for (int64_t r = 0; r < mod->rank; r++)
            if (r >= live - slr_module_unit(mod) && r < live)
                touched[r] = 1;
            else
                each_strip(n, mod, r, grad, NULL);
        weight += mod->rank;
        touched += mod->rank;
    }
}

void slr_network_keep_ranks(const slr_network *n, const uint8_t *touched, const float *from,
                            float *to)
{
    for (size_t i = 0; i < n->n_modules; i++) {
        const slr_module *mod = &n->module[i];
        if (!slr_module_unit(mod))
            continue;
        for (int64_t r = 0; r < mod->rank; r++)
            if (!touched[r])
                each_strip(n, mod, r, to, from);
        touched += mod->rank;
    }
}
