/* SPDX-License-Identifier: MIT */
/* Trainers: handles put together for the loop in the room `train`, its progress told in the public
 * struct, and samples drawn when the loop asks for them. */
#include "api/api.h"

#include <math.h>
#include <string.h>

#include "api/samples.h"
#include "base/status.h"
#include "sample/solver.h"
#include "train/forecast.h"
#include "train/trainer.h"

struct sdlora_trainer {
    slr_refs refs;
    sdlora_checkpoint *ckpt;
    sdlora_vae *vae; /* Nullable */
    sdlora_network *net;
    sdlora_dataset *data, *validation; /* validation Nullable */
    sdlora_options *opts;              /* Nullable; a copy */
    slr_trainer *loop;
    slr_generator *gen; /* of samples; NULL until the first ones */
    sdlora_progress_fn progress;
    void *user;
    sdlora_progress now;
    slr_cancel_flag cancel; /* of samples; the loop has its own */
};

/* --- progress --- */

static void take_progress(sdlora_trainer *t, const slr_progress *p)
{
    t->now = (sdlora_progress){
        .struct_size = sizeof t->now,
        .step = p->step,
        .total = p->total,
        .epoch = p->epoch,
        .epochs = p->epochs,
        .loss = p->loss,
        .average_loss = p->average_loss,
        .unet_lr = p->unet_lr,
        .text_encoder_lr = p->text_encoder_lr,
        .grad_norm = p->grad_norm,
        .val_loss = p->val_loss,
        .elapsed = p->elapsed,
        .eta = p->eta,
        .phase = "train",
        .phase_done = p->step,
        .phase_total = p->total,
        .text_encoder_2_lr = p->text_encoder_2_lr,
    };
}

/* The loop does not exist yet while the trainer is made. */
static int phase_progress(void *user, const char *phase, int64_t done, int64_t total)
{
    sdlora_trainer *t = user;
    slr_progress p;

    if (!t->progress)
        return 0;
    if (t->loop) {
        slr_trainer_now(t->loop, &p);
        take_progress(t, &p);
    }
    t->now.phase = phase;
    t->now.phase_done = done;
    t->now.phase_total = total;
    return t->progress(&t->now, t->user);
}

static int sample_progress(void *user, int64_t done, int64_t total)
{
    return phase_progress(user, "sample", done, total);
}

/* --- samples --- */

/* A sample that can't be drawn is no reason to lose a run: the log gets its sentence.  A cancel
 * ends the samples, and the loop's own flag ends the run before its next step. */
static int draw_samples(void *user, int64_t epoch, int64_t step)
{
    sdlora_trainer *t = user;
    slr_samples s = {
        .ctx = t->ckpt->ctx,
        .base = t->ckpt->base,
        .vae = t->vae ? t->vae->weights : NULL,
        .vae_path = t->vae ? t->vae->path : NULL,
        .network = t->net->net,
        .gen = &t->gen,
        .train = {t->opts, "train"},
        .cancel = &t->cancel,
        .progress = sample_progress,
        .user = t,
    };
    int rc = slr_samples_draw(&s, epoch, step);

    if (rc == SDLORA_ECANCELED)
        slr_trainer_cancel(t->loop);
    else if (rc < 0)
        slr_logf(&t->ckpt->ctx->log, SLR_LOG_WARN, "no samples at step %lld: %s", (long long)step,
                 sdlora_last_error()->message);
    slr_clear();
    return SDLORA_OK;
}

/* A missing or broken file of prompts is said before hours of training, not after. */
static int check_samples(const sdlora_trainer *t)
{
    slr_opt o = {t->opts, "train"};
    slr_sample_lines lines;

    if (!slr_opt_has(o, "sample_prompts"))
        return SDLORA_OK;
    if (!slr_opt_has(o, "output_dir"))
        return slr_fail(SDLORA_EINVAL, "sdlora_trainer_new",
                        "sample_prompts needs output_dir, where samples go");
    SLR_TRY(slr_sample_lines_read(&lines, t->ckpt->ctx->mem, slr_opt_text(o, "sample_prompts")));
    int rc = SDLORA_OK;
    for (size_t i = 0; rc >= 0 && i < lines.n; i++) {
        const char *sampler = lines.at[i].sampler;

        sampler = sampler ? sampler : slr_opt_text(o, "sample_sampler");
        if (!slr_sampler_find(sampler))
            rc = slr_fail(SDLORA_ENOTSUP, "sdlora_trainer_new",
                          "sample prompt %zu: the sampler '%s' is not supported", i + 1, sampler);
    }
    slr_sample_lines_free(&lines);
    return rc;
}

/* --- making --- */

/* The folder of the option validation_data_dir as a data set: read like the training pictures, but
 * without anything random. */
static int open_validation(sdlora_trainer *t)
{
    static const struct {
        const char *name, *value; /* NULL: back to the default */
    } changes[] = {
        {"reg_data_dir", NULL},         {"shuffle_caption", "false"},
        {"flip_aug", "false"},          {"random_crop", "false"},
        {"caption_dropout_rate", NULL}, {"caption_dropout_every_n_epochs", NULL},
        {"enable_wildcard", "false"},   {"caption_tag_dropout_rate", NULL},
        {"token_warmup_step", NULL},
    };
    slr_opt o = {t->opts, "train"};
    const char *dir = slr_opt_text(o, "validation_data_dir");
    sdlora_options *opts;

    if (t->validation || !dir)
        return SDLORA_OK;
    SLR_TRY(slr_options_copy(&opts, slr_dataset_options(t->data->data)));
    int rc = slr_options_set_text(opts, "train_data_dir", dir);
    for (size_t i = 0; rc >= 0 && i < sizeof changes / sizeof *changes; i++)
        rc = slr_options_set_text(opts, changes[i].name, changes[i].value);
    if (rc >= 0)
        rc = sdlora_dataset_open(&t->validation, t->data->ctx, opts);
    slr_options_unref(opts);
    return rc;
}

static int loop_config(sdlora_trainer *t, slr_trainer_config *config)
{
    sdlora_context *ctx = t->ckpt->ctx;
    slr_bpe *bpe;

    SLR_TRY(slr_api_bpe(ctx, &bpe));
    *config = (slr_trainer_config){
        .mem = ctx->mem,
        .log = ctx->log,
        .devices = ctx->devices,
        .base = t->ckpt->base,
        .vae = t->vae ? t->vae->weights : NULL,
        .vae_path = t->vae ? t->vae->path : NULL,
        .network = t->net->net,
        .data = t->data->data,
        .validation = t->validation ? t->validation->data : NULL,
        .bpe = bpe,
        .opts = t->opts,
        .phase = phase_progress,
        .phase_user = t,
    };
    return SDLORA_OK;
}

/* What is trained with what: checked, but without a loop. */
typedef struct parts {
    sdlora_checkpoint *ckpt;
    sdlora_vae *vae;
    sdlora_network *net;
    sdlora_dataset *data, *validation;
    const sdlora_options *opts;
    sdlora_progress_fn progress;
    void *user;
    const char *where; /* the public entry */
} parts;

static int shell_new(sdlora_trainer **out, const parts *p)
{
    SLR_TRY(slr_api_given(p->ckpt, "ckpt", p->where));
    SLR_TRY(slr_api_given(p->net, "net", p->where));
    SLR_TRY(slr_api_given(p->data, "data", p->where));
    SLR_TRY(slr_api_kind(p->opts, "train", p->where));
    SLR_TRY(slr_api_fits(p->net, p->ckpt, p->where));
    sdlora_trainer *t = slr_calloc(p->ckpt->ctx->mem, 1, sizeof *t);
    if (!t)
        return SDLORA_ENOMEM;
    slr_refs_init(&t->refs);
    t->ckpt = sdlora_checkpoint_ref(p->net->merged ? p->net->ckpt : p->ckpt);
    t->vae = sdlora_vae_ref(p->vae);
    t->net = sdlora_network_ref(p->net);
    t->data = sdlora_dataset_ref(p->data);
    t->validation = sdlora_dataset_ref(p->validation);
    t->progress = p->progress;
    t->user = p->user;
    t->now = (sdlora_progress){.struct_size = sizeof t->now, .val_loss = NAN, .eta = NAN};
    int rc = p->opts ? slr_options_copy(&t->opts, p->opts) : SDLORA_OK;
    if (rc >= 0)
        rc = check_samples(t);
    if (rc >= 0)
        rc = open_validation(t);
    if (rc < 0) {
        sdlora_trainer_unref(t);
        return rc;
    }
    *out = t;
    return SDLORA_OK;
}

int sdlora_trainer_new(sdlora_trainer **out, sdlora_checkpoint *ckpt, sdlora_vae *vae,
                       sdlora_network *net, sdlora_dataset *data, sdlora_dataset *validation,
                       const sdlora_options *opts, sdlora_progress_fn progress, void *user)
{
    const parts p = {ckpt, vae, net, data, validation, opts, progress, user, __func__};
    slr_trainer_config config;
    sdlora_trainer *t;

    slr_clear();
    SLR_TRY(slr_api_given(out, "out", __func__));
    *out = NULL;
    SLR_TRY(shell_new(&t, &p));
    int rc = loop_config(t, &config);
    if (rc >= 0)
        rc = slr_trainer_new(&t->loop, &config);
    if (rc < 0) {
        sdlora_trainer_unref(t);
        return rc;
    }
    if (slr_opt_has((slr_opt){t->opts, "train"}, "sample_prompts"))
        slr_trainer_set_sample_hook(t->loop, draw_samples, t);
    *out = t;
    return SDLORA_OK;
}

sdlora_trainer *sdlora_trainer_ref(sdlora_trainer *t)
{
    if (t)
        slr_refs_get(&t->refs);
    return t;
}

void sdlora_trainer_unref(sdlora_trainer *t)
{
    if (!t || !slr_refs_put(&t->refs))
        return;
    sdlora_checkpoint *ckpt = t->ckpt;
    slr_trainer_free(t->loop);
    slr_generator_free(t->gen);
    slr_options_unref(t->opts);
    sdlora_dataset_unref(t->validation);
    sdlora_dataset_unref(t->data);
    sdlora_network_unref(t->net);
    sdlora_vae_unref(t->vae);
    slr_free(ckpt->ctx->mem, t);
    sdlora_checkpoint_unref(ckpt);
}

/* --- running --- */

static int one_step(sdlora_trainer *t)
{
    slr_progress p;

    atomic_store(&t->cancel, 0);
    int rc = slr_trainer_step(t->loop, &p);
    if (rc >= 0)
        take_progress(t, &p);
    return rc;
}

int sdlora_trainer_step(sdlora_trainer *t, sdlora_progress *now)
{
    slr_clear();
    SLR_TRY(slr_api_given(t, "t", __func__));
    int rc = one_step(t);
    if (rc >= 0 && now)
        SLR_TRY(slr_api_fill(now, &t->now, sizeof t->now, __func__));
    return rc;
}

int sdlora_trainer_run(sdlora_trainer *t)
{
    int rc;

    slr_clear();
    SLR_TRY(slr_api_given(t, "t", __func__));
    while ((rc = one_step(t)) == SDLORA_OK)
        if (t->progress && t->progress(&t->now, t->user))
            return slr_fail(SDLORA_ECANCELED, __func__,
                            "cancelled by the progress callback after step %lld",
                            (long long)t->now.step);
    return rc;
}

void sdlora_trainer_cancel(sdlora_trainer *t)
{
    if (!t)
        return;
    atomic_store(&t->cancel, 1);
    slr_trainer_cancel(t->loop);
}

int sdlora_trainer_save(sdlora_trainer *t, const char *path)
{
    slr_clear();
    SLR_TRY(slr_api_given(t, "t", __func__));
    if (!path && !slr_opt_has((slr_opt){t->opts, "train"}, "output_dir"))
        return slr_fail(SDLORA_EINVAL, __func__, "there is neither a path nor an output_dir");
    return slr_trainer_save(t->loop, path);
}

int sdlora_trainer_save_state(sdlora_trainer *t, const char *path)
{
    slr_clear();
    SLR_TRY(slr_api_given(t, "t", __func__));
    if (!path && !slr_opt_has((slr_opt){t->opts, "train"}, "output_dir"))
        return slr_fail(SDLORA_EINVAL, __func__, "there is neither a path nor an output_dir");
    return slr_trainer_save_state(t->loop, path);
}

int sdlora_trainer_resume(sdlora_trainer *t, const char *path)
{
    slr_clear();
    SLR_TRY(slr_api_given(t, "t", __func__));
    SLR_TRY(slr_api_given(path, "path", __func__));
    return slr_trainer_resume(t->loop, path);
}

int sdlora_trainer_validate(sdlora_trainer *t, double *loss)
{
    slr_clear();
    SLR_TRY(slr_api_given(t, "t", __func__));
    SLR_TRY(slr_api_given(loss, "loss", __func__));
    *loss = NAN;
    return slr_trainer_validate(t->loop, loss);
}

sdlora_network *sdlora_trainer_network(const sdlora_trainer *t)
{
    return t ? t->net : NULL;
}

/* --- planning --- */

/* The pictures of one sampling point.  The caller frees *pictures. */
static int sample_pictures(const sdlora_trainer *t, slr_forecast_picture **pictures, size_t *n)
{
    slr_opt o = {t->opts, "train"};
    slr_mem *m = t->ckpt->ctx->mem;
    slr_sample_lines lines;

    if (!slr_opt_has(o, "sample_prompts"))
        return SDLORA_OK;
    SLR_TRY(slr_sample_lines_read(&lines, m, slr_opt_text(o, "sample_prompts")));
    *pictures = slr_calloc(m, lines.n, sizeof **pictures);
    *n = *pictures ? lines.n : 0;
    for (size_t i = 0; i < *n; i++)
        (*pictures)[i] = (slr_forecast_picture){.width = lines.at[i].width,
                                                .height = lines.at[i].height,
                                                .steps = lines.at[i].steps,
                                                .guided = lines.at[i].cfg != 1};
    slr_sample_lines_free(&lines);
    return *pictures ? SDLORA_OK : SDLORA_ENOMEM;
}

static int plan(sdlora_trainer *t, slr_buf *out)
{
    slr_mem *m = t->ckpt->ctx->mem;
    slr_forecast_picture *pictures = NULL;
    slr_trainer_config config;
    slr_forecast f = {0};
    size_t n = 0;
    int rc = loop_config(t, &config);

    if (rc >= 0)
        rc = sample_pictures(t, &pictures, &n);
    if (rc >= 0)
        rc = slr_forecast_make(&f, &config, pictures, n);
    if (rc >= 0)
        slr_forecast_json(out, &f);
    slr_forecast_clear(&f, m);
    slr_free(m, pictures);
    return rc;
}

int sdlora_plan(sdlora_checkpoint *ckpt, sdlora_vae *vae, sdlora_network *net, sdlora_dataset *data,
                sdlora_dataset *validation, const sdlora_options *opts, sdlora_progress_fn progress,
                void *user, char **json)
{
    const parts p = {ckpt, vae, net, data, validation, opts, progress, user, __func__};
    sdlora_trainer *t;
    slr_buf out;

    slr_clear();
    SLR_TRY(slr_api_given(json, "json", __func__));
    *json = NULL;
    SLR_TRY(shell_new(&t, &p));
    slr_buf_init(&out, ckpt->ctx->mem);
    int rc = plan(t, &out);
    if (rc >= 0)
        rc = slr_buf_ok(&out);
    if (rc >= 0 && !(*json = slr_buf_take(&out)))
        rc = SDLORA_ENOMEM;
    slr_buf_free(&out);
    sdlora_trainer_unref(t);
    return rc;
}

/* --- evaluation --- */

int sdlora_evaluate(sdlora_checkpoint *ckpt, sdlora_vae *vae, sdlora_dataset *data,
                    sdlora_network *const *nets, const double *te, const double *unet, size_t n,
                    const sdlora_options *opts, sdlora_progress_fn progress, void *user,
                    double *loss)
{
    slr_api_watch watch = {.fn = progress, .user = user};
    slr_stack_item *items;
    slr_bpe *bpe;

    slr_clear();
    SLR_TRY(slr_api_given(loss, "loss", __func__));
    *loss = NAN;
    SLR_TRY(slr_api_given(ckpt, "ckpt", __func__));
    SLR_TRY(slr_api_given(data, "data", __func__));
    SLR_TRY(slr_api_kind(opts, "eval", __func__));
    sdlora_context *ctx = ckpt->ctx;
    SLR_TRY(slr_api_bpe(ctx, &bpe));
    SLR_TRY(slr_api_items(&items, ckpt, nets, te, unet, n, __func__));
    slr_trainer_config config = {
        .mem = ctx->mem,
        .log = ctx->log,
        .devices = ctx->devices,
        .base = ckpt->base,
        .vae = vae ? vae->weights : NULL,
        .vae_path = vae ? vae->path : NULL,
        .data = data->data,
        .bpe = bpe,
        .opts = opts,
        .phase = slr_api_tell,
        .phase_user = &watch,
    };
    int rc = slr_eval_loss(loss, &config, items, n,
                           (uint64_t)slr_opt_int((slr_opt){opts, "eval"}, "seed"));
    slr_free(ctx->mem, items);
    return rc;
}
