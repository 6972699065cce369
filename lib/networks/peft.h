/* SPDX-License-Identifier: MIT */
/* What PEFT keeps beside the tensors of an adapter: ranks, alphas and kind, in adapter_config.json
 * or in diffusers' metadata "lora_adapter_metadata".  Knows no keys and no weights. */
#ifndef SLR_NETWORKS_PEFT_H
#define SLR_NETWORKS_PEFT_H

#include "base/str.h"
#include "networks/dialect.h"

#define SLR_PEFT_METADATA "lora_adapter_metadata"
#define SLR_PEFT_CONFIG   "adapter_config.json"

typedef struct slr_peft slr_peft;

/* metadata: the text in the file, or NULL; without it, and when `beside` is set, an
 * adapter_config.json in the file's folder is read.  *out stays NULL when there is neither. */
int slr_peft_open(slr_peft **out, slr_mem *m, const char *file, const char *metadata, bool beside);
void slr_peft_free(slr_peft *p);
/* The factor of a module's change, where rank is that of its tensors (0: they do not tell), or NAN
 * when nothing is said of it.  p is Nullable. */
int slr_peft_scale(const slr_peft *p, const slr_target *t, int64_t rank, double *scale);
/* (IA)^3: whether the layer's input is what is scaled. */
bool slr_peft_feedforward(const slr_peft *p, const slr_target *t);

/* --- writing --- */

/* The largest rank of a part. */
int64_t slr_peft_widest(const slr_network *n, int part);
/* The settings of the modules of one part as the items of a JSON object, each name with the given
 * prefix; appended to b.  folded: the scale is in the tensors, every rank
 * is the largest, and so is alpha.  ENOTSUP when one
 * configuration can't hold them all. */
int slr_peft_describe(slr_buf *b, const slr_network *n, int part, const char *prefix, bool folded);

#endif
