/* SPDX-License-Identifier: MIT */
/* The sparse residual of a module: what a decomposition left at its largest places, as values, rows
 * and columns.  It is added to D before the scale.  A graph sees a dense input, so that memory is
 * one weight at a time.  Refuses to know files. */
#include <math.h>
#include <string.h>

#include "networks/tool.h"
#include "tensor/linalg.h"

slr_val slr_residual_input(slr_graph *g, const char *name, const slr_target *t)
{
    const int64_t dim[4] = {t->out, t->in, t->kh, t->kw};
    return slr_input(g, name, SDLORA_F32, t->kh * t->kw > 1 ? 4 : 2, dim);
}

void slr_residual_fill(const slr_module *mod, const slr_network_slot *slots, const float *params,
                       float *dense)
{
    const slr_network_slot *value = slr_module_slot(mod, slots, SLR_LEAF_SPARSE),
                           *place = slr_module_slot(mod, slots, SLR_LEAF_PLACES);
    const float *row = params + place->offset, *column = row + value->count;
    size_t width = (size_t)slr_target_fan_in(&mod->target);
    memset(dense, 0, (size_t)mod->target.out * width * sizeof *dense);
    for (size_t i = 0; i < value->count; i++)
        dense[(size_t)row[i] * width + (size_t)column[i]] += params[value->offset + i];
}

/* LyCORIS: all that are not below the quantile of their magnitudes, but for zeros. */
int slr_residual_make(slr_made *made, slr_mem *m, const float *left, double sparsity)
{
    int64_t out = made->target->out, width = slr_target_fan_in(made->target), n = 0;
    size_t count = (size_t)(out * width);
    float *size = slr_alloc(m, count * sizeof *size);
    if (!size)
        return SDLORA_ENOMEM;
    for (size_t i = 0; i < count; i++)
        size[i] = fabsf(left[i]);
    float least = slr_quantile(size, count, sparsity);
    slr_free(m, size);
    for (size_t i = 0; i < count; i++)
        n += left[i] != 0 && fabsf(left[i]) >= least;
    if (!n)
        return SDLORA_OK;
    slr_form_add(&made->form, SLR_LEAF_SPARSE, 1, &n);
    slr_form_add(&made->form, SLR_LEAF_PLACES, 2, (int64_t[]){2, n});
    float *value = made->leaf[SLR_LEAF_SPARSE] = slr_alloc(m, (size_t)n * sizeof *value),
          *place = made->leaf[SLR_LEAF_PLACES] = slr_alloc(m, (size_t)(2 * n) * sizeof *place);
    if (!value || !place)
        return SDLORA_ENOMEM;
    for (int64_t i = 0, k = 0; i < out * width; i++)
        if (left[i] != 0 && fabsf(left[i]) >= least) {
            value[k] = left[i];
            place[k] = (float)(i / width);
            place[n + k++] = (float)(i % width);
        }
    return SDLORA_OK;
}
