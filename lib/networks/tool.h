/* SPDX-License-Identifier: MIT */
/* What the tools share that make networks from networks or from checkpoints (resize.c, combine.c,
 * extract.c): a job over many modules, the change of a module as numbers, and the network that
 * comes of it. */
#ifndef SLR_NETWORKS_TOOL_H
#define SLR_NETWORKS_TOOL_H

#include "base/log.h"
#include "networks/kind.h"

typedef struct slr_tool {
    slr_mem *m;
    slr_devices *devices;
    slr_log log;
    const slr_checkpoint *base; /* whose layers the result has */
    bool hollow;                /* base knows shapes and no values */
    /* Nullable.  On the thread that runs the job; non-zero cancels. */
    int (*tell)(void *user, const char *phase, int64_t done, int64_t total);
    void *user;
} slr_tool;

/* What is to be done with item i.  Fetch runs on the calling thread and may use graphs; work runs
 * on any thread and must not; bytes says how much memory an item holds between the two. */
typedef struct slr_tool_steps {
    int (*fetch)(void *job, size_t i); /* Nullable */
    int (*work)(void *job, size_t i);  /* Nullable */
    uint64_t (*bytes)(void *job, size_t i);
} slr_tool_steps;
int slr_tool_each(const slr_tool *t, const char *phase, size_t n, const slr_tool_steps *steps,
                  void *job);

/* --- the change of a module --- */

/* Without strength, and with `scale` false without its alpha too.  D is up[out,rank]
 * down[rank,in*kh*kw], or dense[out,in*kh*kw] ([out] of a norm). */
typedef struct slr_change {
    int64_t rank;
    float *up, *down; /* NULL: it is dense */
    float *dense;
} slr_change;

/* ENOTSUP when it depends on weights that a hollow base does not have.  Not for pool pieces unless
 * the change is thin (slr_module_thin), which needs no graph. */
int slr_change_read(slr_change *out, const slr_tool *t, const slr_network *n, const slr_module *mod,
                    bool scale);
void slr_change_free(slr_mem *m, slr_change *c);

/* --- the result --- */

/* One module of it. */
typedef struct slr_made {
    const slr_target *target;
    const slr_kind *kind; /* NULL: left out */
    slr_form form;
    float *leaf[SLR_KIND_LEAVES];
} slr_made;

/* A LoRA module with room for its factors. */
int slr_made_lora(slr_made *made, slr_mem *m, const slr_target *target, int64_t rank, double alpha);
float *slr_made_down(const slr_made *made);
float *slr_made_up(const slr_made *made);
/* residual.c: the sparse residual of a matrix, [out,in*kh*kw], its share `sparsity` left out. */
int slr_residual_make(slr_made *made, slr_mem *m, const float *left, double sparsity);
/* Adds a module's change of the bias, `weight` times, where it has one. */
int slr_made_bias(slr_made *made, slr_mem *m, const slr_network *n, const slr_module *mod,
                  double weight);
/* The same module once more. */
int slr_made_copy(slr_made *made, slr_mem *m, const slr_network *n, const slr_module *mod);
void slr_made_free(slr_mem *m, slr_made *made, size_t n);

/* fill: Nullable; writes leaves that a module has no memory for. */
int slr_made_network(slr_network **out, const slr_tool *t, const slr_made *made, size_t n,
                     int (*fill)(void *job, size_t i, int leaf, float *to), void *job);

/* --- numbers of a layer --- */

/* kohya's clamp: both factors to +-h, h being the q-quantile of their values with their signs. */
int slr_clamp_factors(slr_mem *m, float *up, size_t n_up, float *down, size_t n_down, double q);

/* --- metadata --- */

/* modelspec.*: of a LoRA, or of a whole model.  title, merged: Nullable. */
int slr_tool_modelspec(slr_meta *meta, const slr_checkpoint *base, bool network, const char *title,
                       const char *merged);
/* ss_v2, ss_base_model_version, ss_network_module, _dim, _alpha; args: Nullable, JSON. */
int slr_tool_minimum(slr_meta *meta, const char *v2, const char *base_version, const char *module,
                     const char *dim, const char *alpha, const char *args);

#endif
