/* SPDX-License-Identifier: MIT */
/* What the tests of the training loop share: tinysd, a folder of five example pictures, and runs
 * made from lists of options. */
#ifndef TRAINER_TEST_H
#define TRAINER_TEST_H

#include "backend/registry.h"
#include "base/cpu.h"
#include "io/safetensors.h"
#include "train/trainer_impl.h"
#include "unit/data/data_test.h"

#define TINYSD TEST_ROOT "/../examples/data/tinysd/tinysd.safetensors"

static slr_devices *devices;
static slr_checkpoint *base;
static slr_bpe *bpe;

/* A finished, running or refused run. */
typedef struct job {
    slr_network *net;
    slr_dataset *data;
    slr_trainer *t;
} job;

typedef struct job_spec {
    const char *const *train, *const *network, *const *data; /* name, value, ..., NULL; Nullable */
    slr_devices *devices;                                    /* Nullable: the common ones */
    slr_dataset *validation;
    slr_phase_fn phase;
    void *phase_user;
    slr_log log;
} job_spec;

#define LIST(...) ((const char *const[]){__VA_ARGS__, NULL})

static inline slr_devices *open_devices(int threads)
{
    slr_devices *d;
    const slr_devices_config config = {
        .cpu_features = slr_cpu_features(), .backend = "cpu", .threads = threads};
    assert_ok(slr_devices_open(&d, &config));
    return d;
}

static inline sdlora_options *options_of(const char *kind, const char *const *first,
                                         const char *const *second)
{
    sdlora_options *o;
    assert_ok(slr_options_new(&o, NULL, kind));
    for (const char *const *p = first; p && p[0]; p += 2)
        assert_ok(slr_options_set_text(o, p[0], p[1]));
    for (const char *const *p = second; p && p[0]; p += 2)
        assert_ok(slr_options_set_text(o, p[0], p[1]));
    return o;
}

static inline slr_dataset *open_folder(const char *dir, const char *const *more)
{
    slr_dataset *d;
    sdlora_options *o = options_of("dataset",
                                   LIST("train_data_dir", dir, "caption_extension", ".txt",
                                        "resolution", "64", "train_batch_size", "2"),
                                   more);
    assert_ok(slr_dataset_open(&d, NULL, (slr_log){0}, o));
    slr_options_unref(o);
    return d;
}

/* Five pictures in batches of two: two batches of two and one of one an epoch. */
static inline const char *pictures_dir(void)
{
    return in_scratch("cats");
}

/* The code of slr_trainer_new; with a failure only job_close is allowed. */
static inline int job_try(job *j, const job_spec *s)
{
    *j = (job){0};
    sdlora_options *train =
        options_of("train",
                   LIST("unet_lr", "1e-3", "text_encoder_lr", "5e-4", "seed", "3",
                        "max_train_steps", "12", "gradient_accumulation_steps", "2"),
                   s->train);
    sdlora_options *network = options_of("network", LIST("network_dim", "2"), s->network);
    j->data = open_folder(pictures_dir(), s->data);
    int rc = slr_network_make(&j->net, base, network, 3);
    const slr_trainer_config config = {.mem = slr_checkpoint_mem(base),
                                       .log = s->log,
                                       .devices = s->devices ? s->devices : devices,
                                       .base = base,
                                       .network = j->net,
                                       .data = j->data,
                                       .validation = s->validation,
                                       .bpe = bpe,
                                       .opts = train,
                                       .phase = s->phase,
                                       .phase_user = s->phase_user};
    if (rc >= 0)
        rc = slr_trainer_new(&j->t, &config);
    slr_options_unref(train);
    slr_options_unref(network);
    return rc;
}

static inline job job_open(const job_spec *s)
{
    job j;
    assert_ok(job_try(&j, s));
    return j;
}

static inline void job_close(job *j)
{
    slr_trainer_free(j->t);
    slr_network_unref(j->net);
    slr_dataset_unref(j->data);
}

/* Steps until `step` steps are done; the last one's report. */
static inline slr_progress job_run(job *j, int64_t step)
{
    slr_progress p = {0};
    while (j->t->run.step < step)
        assert_ok(slr_trainer_step(j->t, &p));
    return p;
}

/* The digest of all tensor bytes of the saved file: sshs_model_hash. */
typedef struct digest {
    char text[65];
} digest;

static inline digest job_digest(job *j)
{
    digest d;
    slr_safetensors *f;
    const char *path = in_scratch("digest.safetensors");
    assert_ok(slr_trainer_save(j->t, path));
    assert_ok(slr_safetensors_open(&f, NULL, path, true));
    const char *text = slr_safetensors_meta(f, "sshs_model_hash");
    assert_non_null(text);
    assert_int_equal(strlen(text), 64);
    strcpy(d.text, text);
    slr_safetensors_close(f);
    return d;
}

static inline float *params_copy(job *j)
{
    size_t bytes = slr_network_param_count(j->net) * sizeof(float);
    float *copy = malloc(bytes);
    assert_non_null(copy);
    return memcpy(copy, slr_network_params(j->net), bytes);
}

static inline void copy_pictures(const char *from, int n, const char *to)
{
    char command[1024];
    snprintf(command, sizeof command,
             "mkdir -p '%s' && cd '" PICTURES "%s' && cp $(ls | head -n %d) '%s'", to, from, 2 * n,
             to);
    assert_int_equal(system(command), 0);
}

static inline int trainer_setup(void **state)
{
    const slr_checkpoint_config model = {.predict = -1};
    if (scratch_make(state))
        return -1;
    devices = open_devices(0);
    assert_ok(slr_checkpoint_open(&base, TINYSD, &model));
    assert_ok(slr_bpe_new(&bpe, NULL));
    copy_pictures("mochi-character/train/20_mochi", 5, in_scratch("cats/1_cat"));
    return 0;
}

static inline int trainer_teardown(void **state)
{
    slr_bpe_unref(bpe);
    slr_checkpoint_unref(base);
    slr_devices_unref(devices);
    return scratch_remove(state);
}

#endif
