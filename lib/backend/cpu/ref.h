/* SPDX-License-Identifier: MIT */
/* The slow obvious version of every operation of sdlora/ops.h, in double precision on dense arrays:
 * what a contract means when its sentence leaves a doubt.  Tests compare backends with it; it is
 * never part of the library. */
#ifndef SLR_BACKEND_CPU_REF_H
#define SLR_BACKEND_CPU_REF_H

#include <sdlora/backend.h>

/* One operation with its operands as doubles (ids and seeds too); NULL: absent.  Only the shapes of
 * the descriptors count, except for CAST, which rounds to the type of its output. */
typedef struct slr_ref_call {
    const sdlora_opdesc *op;
    const double *const *in;
    double *const *out;
} slr_ref_call;

/* SDLORA_ENOTSUP when the operation has no row. */
int slr_ref_run(const slr_ref_call *c);

/* Rows, by family; each table ends with op 0. */
typedef struct slr_ref_row {
    uint32_t op;
    void (*run)(const slr_ref_call *c);
} slr_ref_row;
extern const slr_ref_row slr_ref_dense[]; /* matmul, convolution, norms, attention */
extern const slr_ref_row slr_ref_ew[];    /* elementwise, loss, optimiser */
extern const slr_ref_row slr_ref_move[];  /* shape and memory */

/* The activations and their slopes. */
double slr_ref_act(int64_t kind, double x);
double slr_ref_act_slope(int64_t kind, double x);

static inline int64_t slr_ref_count(const sdlora_tdesc *t)
{
    int64_t n = 1;
    for (uint32_t i = 0; i < t->rank; i++)
        n *= t->dim[i];
    return n;
}

static inline int64_t slr_ref_last(const sdlora_tdesc *t)
{
    return t->rank ? t->dim[t->rank - 1] : 1;
}

#endif
