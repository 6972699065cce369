/* SPDX-License-Identifier: MIT */
/* From what the user says about precision to a graph's policy. */
#ifndef SLR_GRAPH_POLICY_H
#define SLR_GRAPH_POLICY_H

#include "backend/registry.h"
#include "base/options.h"
#include "graph/graph.h"

/* kohya's mixed_precision: "no" f32 throughout; "bf16" activations and the frozen model's products
 * in bf16, sums, statistics, losses and parameters in f32; "auto" bf16 where a device multiplies
 * it in hardware, else f32.  NULL is "no".  ENOTSUP for fp16. */
int slr_policy_read(slr_policy *out, const char *mixed_precision, const slr_devices *devices);

/* What a job computes in: the denoiser and the text encoder, and the autoencoder. */
typedef struct slr_precision {
    slr_policy model, vae;
} slr_precision;
/* From the options mixed_precision and no_half_vae, which every kind of job has. */
int slr_precision_read(slr_precision *out, slr_opt o, const slr_devices *devices);
/* The name of what a policy does: "no" or "bf16". */
const char *slr_policy_name(slr_policy policy);

#endif
