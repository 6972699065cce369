/* SPDX-License-Identifier: MIT */
/* Model files made of model files: containers, types of numbers, averaged weights in or out,
 * another autoencoder, and the two layouts (one LDM file, a diffusers folder).  Streaming: memory
 * does not grow with the file.  Atomic, and onto the file that is read if asked so. */
#ifndef SLR_MODELS_CONVERT_H
#define SLR_MODELS_CONVERT_H

#include <stdbool.h>

#include "base/log.h"
#include "base/phase.h"
#include "models/family.h"
#include "models/parts.h"

enum { SLR_LAYOUT_KEEP = 0, SLR_LAYOUT_LDM, SLR_LAYOUT_DIFFUSERS };
enum { SLR_EMA_DROP = 0, SLR_EMA_USE, SLR_EMA_KEEP };

typedef struct slr_convert_config {
    slr_mem *mem;
    slr_log log;
    slr_phase_fn phase; /* Nullable: "write" and "verify", bytes */
    void *phase_user;
    int layout;         /* SLR_LAYOUT_* */
    int ema;            /* SLR_EMA_*: other layouts than the file's own never keep */
    uint32_t dtype;     /* of numbers that are weights; 0: as they are */
    uint32_t vae_dtype; /* of the autoencoder; 0: like dtype */
    bool vae_keep;      /* the autoencoder's stay as they are */
    bool drop_extras;   /* what is no weight of the model: schedules, states of training */
    bool verify;        /* compare the written file with what was meant */
    /* Nullable.  By the name of a tensor: why a file that holds it can't be told as tensors alone;
     * NULL: it can. */
    const char *(*refuse)(const char *name);
    int threads;      /* of a run of the UNet, should nothing tell what it predicts; 0: all cores */
    uint64_t cpu_off; /* CPU features that it does not use */
    const char *vae;  /* file whose autoencoder is baked in; NULL: none */
} slr_convert_config;

/* in: a file or a diffusers folder.  out: a .safetensors file; for SLR_LAYOUT_DIFFUSERS a folder
 * that does not exist yet.  *json: what was done, the caller's (slr_free with mem).
 * ENOTFOUND: the averages that were asked for are not there.  ECANCELED: nothing was changed. */
int slr_model_convert(char **json, const char *in, const char *out,
                      const slr_convert_config *config);

/* ---- between the files of this job ---- */

/* What one job has. */
typedef struct slr_converting {
    const slr_convert_config *config;
    slr_mem *m;
    const char *in, *out;
    slr_bag *bag;                    /* of a file; folders are sorted part by part */
    slr_bag *vae_bag;                /* NULL: none is baked in */
    slr_bag *folder[SLR_PART_COUNT]; /* of a folder's components */
    slr_parts parts, vae;
    const slr_family *family; /* NULL: no model that is known */
    int predict;              /* SLR_PREDICT_*; -1: the input does not tell */
    bool ztsnr;
} slr_converting;

/* What a job tells when it is done. */
enum { SLR_IS_OTHER, SLR_IS_EMA, SLR_IS_SCHEDULE, SLR_IS_MARKER, SLR_IS_TRAINING, SLR_IS_COUNT };
enum { SLR_DROPPED_NAMES = 8 }; /* that are told, of each class */

typedef struct slr_converted {
    uint64_t bytes_in, bytes_out, overflows;
    size_t tensors, n_ema;
    char first_overflow[192];
    struct {
        size_t n;
        uint64_t bytes;
        const char *name[SLR_DROPPED_NAMES];
    } dropped[SLR_IS_COUNT];
    const char *layout;
} slr_converted;

struct slr_outfile;

/* What a tensor is by its name alone, when it is no weight of a part: SLR_IS_* (prune.c). */
int slr_tensor_class(const char *name);
/* Fills a file with the input's tensors under their own names, less what is left out. */
int slr_fill_as_named(struct slr_outfile *f, const slr_converting *c, slr_converted *r);
/* Notes in *r what another layout has no place for. */
void slr_note_dropped(const slr_converting *c, slr_converted *r);
/* r as JSON text. */
int slr_converted_json(char **json, const slr_converting *c, const slr_converted *r);

/* Type that a tensor of a part (-1: of none) gets: 0 when it stays. */
uint32_t slr_convert_dtype(const slr_converting *c, int part, const slr_tensor *t);
/* Fills an LDM file, or one component of a folder, from canonical names (relayout.c). */
int slr_relayout_ldm(struct slr_outfile *f, const slr_converting *c);
int slr_relayout_part(struct slr_outfile *f, const slr_converting *c, int part);
/* The LDM names of an autoencoder's tensors behind `prefix`. */
int slr_relayout_vae(struct slr_outfile *f, const slr_converting *c, const slr_weights *vae,
                     const char *prefix);
/* A diffusers folder's configurations and tokenizers (dfconfig.c). */
int slr_write_df_configs(const slr_converting *c, const char *folder);

#endif
