/* SPDX-License-Identifier: MIT */
/* What modules take from the frozen weight when they are made or opened: norms (DoRA), and what a
 * kind begins with.  Refuses to know what kinds do with it. */
#include <math.h>
#include <string.h>

#include "base/status.h"
#include "networks/kind.h"

/* In f32; *w is the caller's.  NULL: the base has shapes alone. */
static int read_weight(const slr_network *n, const slr_module *mod, const slr_checkpoint *base,
                       float **w)
{
    char name[SLR_LAYER_KEY];
    const slr_tensor *t;
    *w = NULL;
    slr_nn_path(name, "%s.weight", mod->target.path);
    SLR_TRY(slr_weights_get(slr_checkpoint_part(base, mod->target.part), name, &t));
    if (!t->data)
        return SDLORA_OK;
    *w = slr_alloc(n->m, (size_t)slr_tensor_count(t) * sizeof **w);
    return *w ? slr_tensor_to_f32(t, *w) : SDLORA_ENOMEM;
}

/* |W| along the axis that dora_scale has. */
static int take_norms(const slr_network *n, const slr_module *mod, const slr_network_slot *slot,
                      const float *w)
{
    int64_t width = slr_target_fan_in(&mod->target), taps = mod->target.kh * mod->target.kw;
    bool rows = slot->dim[0] == mod->target.out && slot->dim[1] == 1;
    double *sum = slr_calloc(n->m, slot->count, sizeof *sum);
    if (!sum)
        return SDLORA_ENOMEM;
    for (int64_t i = 0; i < mod->target.out * width; i++)
        sum[rows ? i / width : i % width / taps] += (double)w[i] * w[i];
    for (size_t i = 0; i < slot->count; i++)
        n->params[slot->offset + i] = (float)sqrt(sum[i]);
    slr_free(n->m, sum);
    return SDLORA_OK;
}

int slr_network_norms(const slr_network *n, const slr_module *mod, const slr_checkpoint *base)
{
    const slr_network_slot *slot = slr_module_slot(mod, &n->slot[mod->slot], SLR_LEAF_DORA);
    float *w;
    if (!slot)
        return SDLORA_OK;
    int rc = read_weight(n, mod, base, &w);
    if (rc >= 0 && w)
        rc = take_norms(n, mod, slot, w);
    slr_free(n->m, w);
    return rc;
}

/* --- what a kind begins with --- */

typedef struct job {
    slr_network *n;
    const slr_checkpoint *base;
    bool made;
    uint64_t seed;
    _Atomic int rc;
    slr_error_copy *error; /* of each module */
} job;

/* LyCORIS without use_data_init: normal numbers whose deviation is one by the rank. */
static int draw_weight(const slr_network *n, const slr_module *mod, slr_rng *rng, float **w)
{
    size_t count = (size_t)(mod->target.out * slr_target_fan_in(&mod->target));
    *w = slr_alloc(n->m, count * sizeof **w);
    if (!*w)
        return SDLORA_ENOMEM;
    slr_init_normal(*w, count, 1.0 / (double)mod->rank, rng);
    return SDLORA_OK;
}

static int begin_module(const job *j, size_t i)
{
    const slr_module *mod = &j->n->module[i];
    slr_rng rng;
    float *w;
    if (!mod->kind->begin || !(j->made || mod->begins))
        return SDLORA_OK;
    slr_rng_init(&rng, j->seed, SLR_STREAM_INIT, (uint32_t)i);
    int rc = mod->set->data_init ? read_weight(j->n, mod, j->base, &w)
                                 : draw_weight(j->n, mod, &rng, &w);
    if (rc >= 0 && w)
        rc = mod->kind->begin(mod, &j->n->slot[mod->slot], j->n->params, j->n->m, w);
    slr_free(j->n->m, w);
    return rc;
}

static void begin_some(void *arg, int64_t lo, int64_t hi)
{
    job *j = arg;
    for (int64_t i = lo; i < hi && j->rc >= 0; i++) {
        int rc = begin_module(j, (size_t)i);
        if (rc < 0) {
            slr_error_take(&j->error[i]);
            j->rc = rc;
        }
    }
}

static int begin(slr_network *n, const slr_checkpoint *base, bool made, uint64_t seed)
{
    job j = {.n = n, .base = base, .made = made, .seed = seed};
    size_t i = 0;
    while (i < n->n_modules && !n->module[i].kind->begin)
        i++;
    if (i == n->n_modules)
        return SDLORA_OK;
    j.error = slr_calloc(n->m, n->n_modules, sizeof *j.error);
    if (!j.error)
        return SDLORA_ENOMEM;
    slr_parallel(slr_threads_default(), (int64_t)n->n_modules, 1, begin_some, &j);
    int rc = SDLORA_OK;
    for (i = 0; rc >= 0 && i < n->n_modules; i++)
        rc = j.error[i].code < 0 ? slr_error_put(&j.error[i]) : SDLORA_OK;
    slr_free(n->m, j.error);
    return rc;
}

int slr_network_begin(slr_network *n, const slr_checkpoint *base, uint64_t seed)
{
    return begin(n, base, true, seed);
}

int slr_network_begin_again(slr_network *n, const slr_checkpoint *base)
{
    return begin(n, base, false, 0);
}
