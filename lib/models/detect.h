/* SPDX-License-Identifier: MIT */
/* Which family a model is of and what it predicts, told by structure and markers, never by the
 * width of its context. */
#ifndef SLR_MODELS_DETECT_H
#define SLR_MODELS_DETECT_H

#include "models/family.h"
#include "models/parts.h"

/* EFORMAT when nothing of it is a Stable Diffusion model; ENOTSUP names the variant that is
 * recognised but not handled. */
int slr_detect_family(const slr_family **out, const slr_parts *parts, const slr_bag *bag,
                      const char *label);
/* What a run of its UNet may use. */
typedef struct slr_probe_limits {
    int threads;      /* 0: all cores */
    uint64_t cpu_off; /* CPU features that are not used */
} slr_probe_limits;

/* What a model was trained to give and to take, beside its family. */
typedef struct slr_traits {
    int predict;        /* SLR_PREDICT_*; -1: nothing tells (slr_probe_predict() may) */
    const char *source; /* what told: "metadata", a literal */
    bool ztsnr;         /* its schedule ends without any signal */
    bool inpaint;       /* the UNet takes a mask and masked latents too */
    bool edit;          /* the UNet takes the latents of a picture to edit too */
    slr_probe_limits limits;
} slr_traits;

/* By marker tensors, metadata, the folder's scheduler, a .yaml beside the file and the family's
 * default.  unet Nullable.  told: SLR_PREDICT_* where the caller says it, who comes first; or -1.
 */
int slr_detect_traits(slr_traits *out, slr_mem *m, const slr_family *family,
                      const slr_weights *unet, const slr_bag *bag, const char *path, int told);
/* A1111's test of models that say nothing: what the UNet makes of grey at the last timestep.  It is
 * run once, in f32, which takes memory for its packed weights and seconds at full size. */
int slr_probe_predict(int *out, slr_mem *m, const slr_family *family, const slr_weights *unet,
                      const slr_probe_limits *limits);

/* What a UNet's middle plainly lacks, for a sentence about it; NULL: it is whole, or as a known
 * pruned form has it: one residual block alone (SSD-1B, Segmind-Vega), or none where levels have
 * one residual block each (BK-SDM, KOALA, SDXS). */
const char *slr_detect_gap(const slr_weights *unet);

/* The encoder of a model that has one stands where its family says.  After slr_detect_family(). */
void slr_detect_settle(slr_parts *parts, const slr_family *family);

#endif
