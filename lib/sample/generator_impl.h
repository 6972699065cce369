/* SPDX-License-Identifier: MIT */
/* What the files of one run share: the generator's insides, a run, and the texts of a pass.  For
 * lib/sample only. */
#ifndef SLR_SAMPLE_GENERATOR_IMPL_H
#define SLR_SAMPLE_GENERATOR_IMPL_H

#include "models/vae.h"
#include "sample/generator.h"
#include "sample/known.h"
#include "sample/model.h"
#include "sample/pass.h"
#include "sample/prompt.h"
#include "sample/upscaler.h"
#include "sample/styles.h"

struct slr_generator {
    slr_mem *m;
    slr_log log;
    slr_model *model[SLR_ROLES]; /* by SLR_ROLE_*; NULL: none */
    slr_devices *devices;
    slr_bpe *bpe;
    slr_upscaler *upscaler; /* of the last hires fix that needed one; NULL */
    char *upscaler_name;
    slr_find_network_fn find;
    void *find_user;
    slr_hash_fn hash; /* Nullable */
    void *hash_user;
    slr_known known; /* embeddings of every picture */
};

/* The texts of one pass, and the networks that its tags and the request name. */
typedef struct slr_wording {
    char *full,
        *negative; /* after styles and comments, with tags: as the parameters text has them */
    slr_prompt_tags tags; /* cut out of full */
    slr_script positive, uncond;
    slr_stack_item *item; /* references */
    size_t n_items;
    size_t n_given;  /* of them: the request's, which stand first */
    slr_known known; /* embeddings */
} slr_wording;

typedef struct slr_modes slr_modes; /* modes.h */

typedef struct slr_run {
    slr_generator *g;
    const slr_request *r;
    slr_settings set;  /* of the first pass; seeds are drawn */
    slr_styles styles; /* of styles_file */
    slr_wording words;
    int factor; /* log2 of pixels per latent */
    int k;      /* the picture that is made */
    int64_t seed, subseed;
    int pass, n_passes, done; /* done: steps of earlier passes */
    int later;                /* steps of later passes, as far as is known */
    slr_modes *modes;         /* pictures to start from, and the second pass */
    slr_pass last;            /* the pass that ran last */
    slr_became became;        /* of all passes of the picture */
} slr_run;

/* --- wording.c --- */

/* evaluations: of the first pass; hr_evaluations: of the second, when this is its wording, else 0.
 * Finds the networks. */
int slr_wording_new(slr_wording *out, slr_run *s, const char *prompt, const char *negative,
                    int evaluations, int hr_evaluations);
void slr_wording_free(slr_wording *w, slr_mem *m);
/* Makes its networks and embeddings those of a pass's models. */
int slr_wording_apply(const slr_wording *w, slr_run *s, const slr_pass *p);

/* --- run.c --- */

/* Those of the option styles_file. */
int slr_run_read_styles(slr_run *s);
/* Tells where the run is.  Errors: ECANCELED. */
int slr_run_tell(slr_run *s, int phase);
/* Random numbers of picture k for latents of this size. */
int slr_run_noise(const slr_run *s, int64_t h, int64_t w, slr_noise **out);
/* The model that a pass begins with. */
slr_model *slr_run_model(const slr_run *s, int pass);
/* The VAE of a model; of one that has none the first's. */
int slr_run_coder(const slr_run *s, slr_model *model, slr_vae_runner **out);
/* Runs p with these words: model, refiner, scripts, progress and cancel are filled in; set, size,
 * noise, x and what p starts from are the caller's. */
int slr_run_pass(slr_run *s, const slr_wording *words, slr_pass *p);

/* --- picture.c --- */

int slr_run_picture(slr_run *s, slr_picture *out);

/* --- record.c --- */

/* The parameters text; the caller frees it. */
int slr_record(slr_run *s, char **text);

#endif
