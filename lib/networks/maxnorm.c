/* SPDX-License-Identifier: MIT */
/* scale_weight_norms: keeps the change of each layer below a length (training.md §2.15).  Refuses
 * to know when. */
#include <math.h>

#include "base/status.h"
#include "networks/kind.h"

/* || up down ||_F without forming the product: trace of (up^T up)(down down^T). */
static double product_norm(const float *down, const float *up, int64_t rank, int64_t width,
                           int64_t rows)
{
    double sum = 0;
    for (int64_t a = 0; a < rank; a++)
        for (int64_t b = 0; b < rank; b++) {
            double dd = 0, uu = 0;
            for (int64_t i = 0; i < width; i++)
                dd += (double)down[a * width + i] * down[b * width + i];
            for (int64_t o = 0; o < rows; o++)
                uu += (double)up[o * rank + a] * up[o * rank + b];
            sum += dd * uu;
        }
    return sqrt(fmax(0.0, sum));
}

/* |scale D| of a kind that is two factors. */
static int module_norm(const slr_network *n, const slr_module *mod, double *norm)
{
    int64_t width = slr_target_fan_in(&mod->target), rows = mod->target.out, rank = mod->rank;
    float *down = slr_alloc(n->m, (size_t)(rank * width) * sizeof *down);
    float *up = slr_alloc(n->m, (size_t)(rank * rows) * sizeof *up);
    if (down && up) {
        mod->kind->factors(mod, &n->slot[mod->slot], n->params, rank, down, up, rank);
        *norm = product_norm(down, up, rank, width, rows);
    }
    int rc = down && up ? SDLORA_OK : SDLORA_ENOMEM;
    slr_free(n->m, down);
    slr_free(n->m, up);
    return rc;
}

/* Every factor takes its share, so that the product shrinks by `ratio`. */
static void shrink(slr_network *n, const slr_module *mod, double ratio)
{
    int factors = 0;
    for (int i = 0; i < SLR_KIND_OWN; i++)
        factors += slr_module_has(mod, i);
    float share = (float)pow(ratio, 1.0 / factors);
    for (int i = 0; i < SLR_KIND_OWN; i++) {
        const slr_network_slot *s = slr_module_slot(mod, &n->slot[mod->slot], i);
        for (size_t k = 0; s && k < s->count; k++)
            n->params[s->offset + k] *= share;
    }
}

int slr_network_scale_norms(slr_network *n, slr_devices *devices, double max)
{
    (void)devices;
    for (size_t i = 0; i < n->n_modules; i++) {
        const slr_module *mod = &n->module[i];
        double norm;
        if (!mod->kind->factors)
            return slr_fail(SDLORA_ENOTSUP, __func__, "scale_weight_norms is not supported for %s",
                            mod->kind->name);
        SLR_TRY(module_norm(n, mod, &norm));
        norm = fmax(norm, max / 2);
        if (norm > max)
            shrink(n, mod, max / norm);
    }
    return SDLORA_OK;
}
