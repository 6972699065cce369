/* SPDX-License-Identifier: MIT */
/* Sorts a bag of tensors into a model's parts under canonical names. */
#ifndef SLR_MODELS_PARTS_H
#define SLR_MODELS_PARTS_H

#include "models/modelfile.h"
#include "models/nn.h"

/* Spellings that names can come in. */
enum { SLR_SPELL_NONE, SLR_SPELL_OURS, SLR_SPELL_LDM, SLR_SPELL_OPEN, SLR_SPELL_NAI };

typedef struct slr_parts {
    slr_weights *part[SLR_PART_COUNT]; /* references; NULL: not there */
    int spelling[SLR_PART_COUNT];
    char prefix[SLR_PART_COUNT][96]; /* as found: "model.diffusion_model." */
    bool keep_types; /* set before the first call: rare types and counting numbers stay as they are,
                        for who converts and does not compute */
    size_t n_ema;    /* UNet tensors taken from model_ema */
    size_t n_other;  /* tensors that belong to no part */
} slr_parts;

/* Adds what the bag holds to *out (zeroed by the caller before the first call; slr_parts_drop after
 * a failure too). want: bits 1 << SLR_PART_*; a text encoder of its own folder goes where `te` says
 * (SLR_PART_TE or SLR_PART_TE2).  label names the file in messages. */
int slr_parts_sort(slr_parts *out, slr_mem *m, const slr_bag *bag, const char *label, unsigned want,
                   int te, bool use_ema);
void slr_parts_drop(slr_parts *p);
/* The part that a name of the sorted file belongs to, or -1; *rest: the name behind its prefix. */
int slr_parts_of(const slr_parts *p, const char *name, const char **rest);
/* The name of a UNet tensor's average, `rest` being its name behind the prefix; false: a file with
 * this prefix has none. */
bool slr_parts_ema_name(const slr_parts *p, const char *rest, char *out, size_t cap);

#endif
