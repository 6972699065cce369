/* SPDX-License-Identifier: MIT */
/* How programs spell the tensors of networks: a key of any file taken apart into a module path and
 * a leaf as kinds know it, and the spellings that this library writes.  Tables; knows no files and
 * no weights. */
#ifndef SLR_NETWORKS_DIALECT_H
#define SLR_NETWORKS_DIALECT_H

#include "base/str.h"
#include "networks/kind.h"

/* Who writes so, as far as a key tells. */
enum {
    SLR_DIALECT_KOHYA = 0,     /* lora_unet_..., oft_unet_...: sd-scripts, OneTrainer, LyCORIS */
    SLR_DIALECT_LYCORIS = 1,   /* lycoris_unet_...: LyCORIS by itself */
    SLR_DIALECT_PROCESSOR = 2, /* unet.....processor.to_q_lora.down.weight: diffusers of 2023 */
    SLR_DIALECT_OLD = 3,       /* unet.....to_q.lora.down.weight: diffusers before PEFT */
    SLR_DIALECT_DIFFUSERS = 4, /* unet.....to_q.lora_A.weight */
    SLR_DIALECT_PEFT = 5,      /* base_model.model.....lora_A.weight, with an adapter_config.json */
    SLR_DIALECT_NATIVE = 6,    /* diffusion_model.input_blocks....: ComfyUI */
    SLR_DIALECT_COUNT = 7
};
const char *slr_dialect_name(int dialect); /* "kohya", "diffusers", ... */

/* What is to be done with a tensor before its kind sees it. */
enum {
    SLR_TAKE_PLAIN = 0,
    SLR_TAKE_ROWS = 1,   /* PEFT's magnitudes: one number for each output, whatever the rank */
    SLR_TAKE_FACTOR = 2, /* PEFT's (IA)^3: 1 + the weight */
    SLR_TAKE_SCALED = 3, /* PEFT's bias of lora_B: times the scale, which diff_b does not know */
};

/* A key taken apart. */
typedef struct slr_key {
    int dialect;
    uint32_t parts;             /* bit p: the prefix may mean part p */
    bool peft;                  /* its alpha stands in a configuration, if anywhere */
    char module[SLR_LAYER_KEY]; /* path with '_' for '.', without prefix */
    const char *leaf;           /* as kinds and netread.c name it; static, or inside the key */
    int take;                   /* SLR_TAKE_* */
} slr_key;

/* False: a key without a module and a leaf, or one longer than any layer's name. */
bool slr_key_read(slr_key *out, const char *key);
/* The layer that it means; NULL: none of this model. */
const slr_target *slr_key_target(const slr_targets *t, const slr_key *key);
/* What a key belongs to that no model here has ("a ControlNet-LLLite"), or NULL. */
const char *slr_key_foreign(const char *key);
/* The name of the algorithm whose tensor the leaf is, whether there is a kind for it or not; NULL:
 * none that is known. */
const char *slr_leaf_algorithm(const char *leaf);

/* --- writing --- */

typedef struct slr_spelling {
    const char *name;                   /* "diffusers": what users say */
    int dialect;                        /* SLR_DIALECT_*, as which it is read again */
    const char *prefix[SLR_PART_COUNT]; /* NULL: kohya's names, which a target has */
    const char *first;                  /* Nullable: SDXL's first text encoder */
    bool dots;                          /* paths as they are; else with '_' */
    bool folds;                         /* no alphas: the scale is multiplied into the up factor */
    const char *const *kinds;           /* NULL-terminated names; NULL: every kind */
} slr_spelling;

const slr_spelling *slr_spelling_at(size_t i); /* NULL: no more */
/* EINVAL lists the names. */
int slr_spelling_named(const slr_spelling **out, const char *name);
/* Appends a key. */
void slr_spelling_key(slr_buf *b, const slr_spelling *s, const slr_network *n,
                      const slr_module *mod, const char *leaf);
/* A kind's leaf in that spelling; the leaf itself where it has no other. */
const char *slr_spelling_leaf(const slr_spelling *s, int part, const char *leaf);

#endif
