/* SPDX-License-Identifier: MIT */
/* txt2img as AUTOMATIC1111 does it: tags out of the prompt, networks, text states, noise from the
 * seed, sampler, decode, parameters text.  One picture at a time; text states and graphs are kept
 * for the next. */
#include "sample/generator.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/clock.h"
#include "base/rng.h"
#include "base/status.h"
#include "base/str.h"
#include "io/file.h"
#include "io/hash.h"
#include "models/vae.h"
#include "networks/embedding.h"
#include "networks/hypernet.h"
#include "networks/netfile.h"
#include "sample/denoiser.h"
#include "sample/infotext.h"
#include "sample/known.h"
#include "sample/noise.h"

#include <sdlora/version.h>

enum { MIN_SIDE = 64, MAX_SIDE = 16384 };

struct slr_generator {
    slr_mem *m;
    slr_log log;
    slr_checkpoint *base;
    slr_weights *vae;
    char *vae_path;
    slr_devices *devices;
    slr_bpe *bpe;
    slr_denoiser *denoiser;
    slr_vae_runner *decoder; /* NULL: resting */
    slr_schedule schedule;
    slr_find_network_fn find;
    void *find_user;
    slr_known known;                   /* embeddings of every picture */
    char model_hash[11], vae_hash[11]; /* "": not computed yet */
};

static int open_decoder(slr_generator *g)
{
    return slr_vae_runner_new(&g->decoder, g->vae, slr_checkpoint_family(g->base), g->devices);
}

int slr_generator_new(slr_generator **out, slr_mem *m, slr_log log, slr_checkpoint *base,
                      slr_weights *vae, const char *vae_path, slr_devices *devices, slr_bpe *bpe)
{
    *out = NULL;
    slr_weights *decoder = vae ? vae : slr_checkpoint_part(base, SLR_PART_VAE);
    if (!decoder)
        return slr_fail(SDLORA_EINVAL, __func__, "%s has no VAE: give one",
                        slr_checkpoint_path(base));
    slr_generator *g = slr_calloc(m, 1, sizeof *g);
    if (!g)
        return SDLORA_ENOMEM;
    g->m = m;
    g->known.m = m;
    g->log = log;
    g->base = slr_checkpoint_ref(base);
    g->vae = slr_weights_ref(decoder);
    g->devices = slr_devices_ref(devices);
    slr_schedule_init(&g->schedule);
    int rc = SDLORA_OK;
    if (vae_path && !(g->vae_path = slr_strdup(m, vae_path)))
        rc = SDLORA_ENOMEM;
    if (rc >= 0 && bpe)
        g->bpe = slr_bpe_ref(bpe);
    else if (rc >= 0)
        rc = slr_bpe_new(&g->bpe, m);
    if (rc >= 0)
        rc = slr_denoiser_new(&g->denoiser, m, base, devices, g->bpe);
    if (rc >= 0)
        rc = open_decoder(g);
    if (rc < 0) {
        slr_generator_free(g);
        return rc;
    }
    *out = g;
    return SDLORA_OK;
}

void slr_generator_rest(slr_generator *g)
{
    slr_vae_runner_free(g->decoder);
    g->decoder = NULL;
    slr_denoiser_rest(g->denoiser);
}

void slr_generator_free(slr_generator *g)
{
    if (!g)
        return;
    slr_vae_runner_free(g->decoder);
    slr_denoiser_free(g->denoiser);
    slr_known_free(&g->known);
    slr_bpe_unref(g->bpe);
    slr_devices_unref(g->devices);
    slr_weights_unref(g->vae);
    slr_checkpoint_unref(g->base);
    slr_free(g->m, g->vae_path);
    slr_free(g->m, g);
}

void slr_generator_set_finder(slr_generator *g, slr_find_network_fn fn, void *user)
{
    g->find = fn;
    g->find_user = user;
}

int slr_generator_add_embedding(slr_generator *g, slr_network *embedding)
{
    slr_require(slr_network_is_embedding(embedding));
    return slr_known_add(&g->known, embedding);
}

/* --- one run --- */

typedef struct run {
    slr_generator *g;
    const slr_request *r;
    const slr_sampler_row *sampler;
    const slr_scheduler_row *scheduler; /* timestep samplers do not use it */
    const char *scheduler_name;         /* for the parameters text */
    slr_prompt_tags tags;
    slr_stack_item *item;
    size_t n_items;
    size_t n_given;  /* of them: without the tags' */
    slr_known known; /* embeddings of this run */
    double *sigmas;
    int n_sigmas, *timesteps, n_timesteps;
    slr_guidance guidance;
    int64_t h, w, c, floats;
    slr_noise *noise; /* of the picture in the making */
    float *nchw, *x, *input;
} run;

static int choose_sampler(run *s)
{
    bool automatic;
    SLR_TRY(slr_sampler_choose(s->r->sampler ? s->r->sampler : "Euler a", s->r->scheduler,
                               &s->sampler, &s->scheduler, &automatic));
    s->scheduler_name = automatic || !s->scheduler ? "Automatic" : s->scheduler->name;
    return SDLORA_OK;
}

static int check_request(const run *s)
{
    const slr_request *r = s->r;
    int unit = 8;
    if (r->width < MIN_SIDE || r->height < MIN_SIDE || r->width > MAX_SIDE ||
        r->height > MAX_SIDE || r->width % unit || r->height % unit)
        return slr_fail(SDLORA_EINVAL, __func__,
                        "%dx%d: width and height are multiples of %d from %d to %d", r->width,
                        r->height, unit, MIN_SIDE, MAX_SIDE);
    if (r->steps < 1 || r->steps > SLR_MAX_STEPS)
        return slr_fail(SDLORA_EINVAL, __func__, "steps %d are not between 1 and %d", r->steps,
                        SLR_MAX_STEPS);
    if (r->count < 1)
        return slr_fail(SDLORA_EINVAL, __func__, "count %d is less than 1", r->count);
    if (r->seed > INT64_MAX - r->count)
        return slr_fail(SDLORA_EINVAL, __func__, "seed %lld is too large for %d pictures",
                        (long long)r->seed, r->count);
    return SDLORA_OK;
}

static int make_timesteps(run *s)
{
    s->timesteps = slr_calloc(s->g->m, SLR_TIMESTEPS, sizeof *s->timesteps);
    if (!s->timesteps)
        return SDLORA_ENOMEM;
    return slr_timesteps(s->sampler, s->r->steps, false, s->timesteps, &s->n_timesteps);
}

static int make_sigmas(run *s)
{
    const slr_sigma_config config = {.steps = s->r->steps};
    s->sigmas = slr_calloc(s->g->m, SLR_MAX_SIGMAS, sizeof *s->sigmas);
    if (!s->sigmas)
        return SDLORA_ENOMEM;
    return slr_sigmas(s->sampler, s->scheduler, &s->g->schedule, &config, s->sigmas, &s->n_sigmas);
}

/* --- networks of the request and of the prompt's tags --- */

static int add_item(run *s, slr_stack_item item)
{
    if (slr_network_is_embedding(item.network)) /* it has its say where its name stands */
        return slr_known_add(&s->known, item.network);
    slr_stack_item *grown = slr_realloc(s->g->m, s->item, s->n_items + 1, sizeof *grown);
    if (!grown)
        return SDLORA_ENOMEM;
    s->item = grown;
    s->item[s->n_items++] = item;
    slr_network_ref(item.network);
    return SDLORA_OK;
}

int slr_generator_no_dirs(const char *kind, const char *name)
{
    return slr_fail(SDLORA_ENOTFOUND, __func__, "<%s:%s>: no directory of networks was given", kind,
                    name);
}

static int find_network(run *s, const char *kind, const char *name, slr_network **out)
{
    if (!s->g->find)
        return slr_generator_no_dirs(kind, name);
    SLR_TRY(s->g->find(s->g->find_user, kind, name, out));
    bool hyper = !strcmp(kind, "hypernet");
    if (slr_network_is_hyper(*out) == hyper)
        return SDLORA_OK;
    slr_network_unref(*out);
    *out = NULL;
    return slr_fail(SDLORA_EINVAL, __func__, "<%s:%s>: %s is %s hypernetwork", kind, name, name,
                    hyper ? "not a" : "a");
}

static int add_tag(run *s, const slr_prompt_tag *tag)
{
    bool hyper = !strcmp(tag->kind, "hypernet");
    if (tag->bad || (!hyper && strcmp(tag->kind, "lora") && strcmp(tag->kind, "lyco"))) {
        slr_logf(&s->g->log, SLR_LOG_WARN, "<%s:%s> is skipped: %s%s", tag->kind, tag->name,
                 tag->bad ? "not a number: " : "no such kind of tag", tag->bad ? tag->bad : "");
        return SDLORA_OK;
    }
    slr_network *network;
    SLR_TRY(find_network(s, hyper ? "hypernet" : "lora", tag->name, &network));
    int rc = add_item(s, (slr_stack_item){.network = network,
                                          .te = tag->te,
                                          .unet = hyper ? tag->te : tag->unet,
                                          .dyn = hyper ? 0 : tag->dyn});
    slr_network_unref(network);
    return rc;
}

static int apply_networks(run *s)
{
    for (size_t i = 0; i < s->g->known.n; i++)
        SLR_TRY(slr_known_add(&s->known, s->g->known.at[i]));
    for (size_t i = 0; i < s->r->n_networks; i++)
        SLR_TRY(add_item(s, s->r->networks[i]));
    s->n_given = s->n_items;
    for (size_t i = 0; i < s->tags.n; i++)
        SLR_TRY(add_tag(s, &s->tags.tag[i]));
    SLR_TRY(slr_denoiser_set_networks(s->g->denoiser, s->item, s->n_items));
    for (size_t i = 0; i < s->n_items; i++)
        SLR_TRY(slr_known_add_bundle(&s->known, s->item[i].network));
    return slr_denoiser_set_embeddings(s->g->denoiser, s->known.at, s->known.n);
}

static const char *negative_of(const run *s)
{
    return s->r->negative ? s->r->negative : "";
}

static int skip_of(const run *s)
{
    return s->r->clip_skip > 0 ? s->r->clip_skip : 1;
}

static int encode_prompts(run *s)
{
    slr_guidance *g = &s->guidance;
    const char *negative = negative_of(s);
    int skip = skip_of(s);
    *g = (slr_guidance){.cfg = s->r->cfg, .h = s->h, .w = s->w};
    SLR_TRY(slr_denoiser_text(s->g->denoiser, s->tags.text, skip, s->r->cancel, &g->cond,
                              &g->cond_tokens));
    return slr_denoiser_text(s->g->denoiser, negative, skip, s->r->cancel, &g->uncond,
                             &g->uncond_tokens);
}

/* --- callbacks of the solvers --- */

/* k-diffusion: D(x, sigma). */
static int denoise_sigma(void *user, const float *x, double sigma, float *out)
{
    run *s = user;
    slr_wrap_factors f = slr_sampler_wrap(
        s->sampler, &s->g->schedule, slr_checkpoint_predict(s->g->base) == SLR_PREDICT_V, sigma);
    for (int64_t i = 0; i < s->floats; i++)
        s->input[i] = x[i] * (float)f.in;
    SLR_TRY(slr_denoiser_predict(s->g->denoiser, &s->guidance, s->input, f.t, out, s->r->cancel));
    for (int64_t i = 0; i < s->floats; i++)
        out[i] = (float)f.skip * x[i] + (float)f.out * out[i];
    return SDLORA_OK;
}

/* Timestep samplers: eps(x, t). */
static int predict_eps(void *user, const float *x, double t, float *out)
{
    run *s = user;
    SLR_TRY(slr_denoiser_predict(s->g->denoiser, &s->guidance, x, t, out, s->r->cancel));
    if (slr_checkpoint_predict(s->g->base) == SLR_PREDICT_V) {
        double a = s->g->schedule.alpha_bar[(int)t];
        for (int64_t i = 0; i < s->floats; i++)
            out[i] = (float)sqrt(a) * out[i] + (float)sqrt(1 - a) * x[i];
    }
    return SDLORA_OK;
}

static int next_noise(void *user, float *out)
{
    run *s = user;
    SLR_TRY(slr_noise_next(s->noise, s->nchw));
    slr_nchw_to_nhwc(out, s->nchw, 1, s->c, s->h, s->w);
    return SDLORA_OK;
}

static int between(void *user, double from, double to, float *out)
{
    run *s = user;
    SLR_TRY(slr_noise_between(s->noise, from, to, s->nchw));
    slr_nchw_to_nhwc(out, s->nchw, 1, s->c, s->h, s->w);
    return SDLORA_OK;
}

static int after_step(void *user, int index, int total, const float *denoised)
{
    run *s = user;
    if (s->r->progress && s->r->progress(s->r->progress_user, index + 1, total, denoised))
        return slr_fail(SDLORA_ECANCELED, __func__, "cancelled by the progress callback");
    return SDLORA_OK;
}

/* --- a picture --- */

/* The Brownian path over all sigmas above 0. */
static int start_path(run *s)
{
    double lo = s->sigmas[0], hi = s->sigmas[0];
    for (int i = 0; i < s->n_sigmas; i++) {
        lo = s->sigmas[i] > 0 && s->sigmas[i] < lo ? s->sigmas[i] : lo;
        hi = s->sigmas[i] > hi ? s->sigmas[i] : hi;
    }
    return slr_noise_tree(s->noise, lo, hi);
}

static int first_noise(run *s, int k)
{
    const slr_noise_config config = {
        .seed = (uint64_t)s->r->seed + (uint64_t)k, .c = s->c, .h = s->h, .w = s->w};
    slr_noise_free(s->noise);
    SLR_TRY(slr_noise_new(&s->noise, s->g->m, &config));
    SLR_TRY(slr_noise_first(s->noise, s->nchw));
    slr_nchw_to_nhwc(s->x, s->nchw, 1, s->c, s->h, s->w);
    if (s->sampler->brownian)
        SLR_TRY(start_path(s));
    if (s->r->latents_in)
        slr_nchw_to_nhwc(s->x, s->r->latents_in + k * s->floats, 1, s->c, s->h, s->w);
    if (!s->sampler->timesteps)
        for (int64_t i = 0; i < s->floats; i++)
            s->x[i] *= (float)s->sigmas[0];
    return SDLORA_OK;
}

static int sample(run *s)
{
    bool ts = s->sampler->timesteps;
    slr_sampling job = {
        .m = s->g->m,
        .n = (size_t)s->floats,
        .x = s->x,
        .steps = s->r->steps,
        .sigmas = s->sigmas,
        .n_sigmas = s->n_sigmas,
        .timesteps = s->timesteps,
        .n_timesteps = s->n_timesteps,
        .schedule = &s->g->schedule,
        .eta = s->r->eta >= 0 ? s->r->eta
               : ts           ? 0.0
                              : 1.0,
        .s_noise = 1.0,
        .user = s,
        .denoise = ts ? predict_eps : denoise_sigma,
        .noise = next_noise,
        .between = between,
        .step = after_step,
    };
    return slr_sampler_run(s->sampler, &job);
}

/* [-1,1] to bytes: clamp((x + 1) / 2) * 255, truncated. */
static void to_bytes(const float *image, uint8_t *out, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float v = (image[i] + 1.0f) / 2.0f;
        v = v < 0.0f ? 0.0f : v > 1.0f ? 1.0f : v;
        out[i] = (uint8_t)(v * 255.0f);
    }
}

static int decode(run *s, slr_picture *picture)
{
    size_t bytes = (size_t)s->r->width * (size_t)s->r->height * 3;
    float *image = slr_alloc(s->g->m, bytes * sizeof *image);
    picture->pixels = (slr_pixels){s->r->width, s->r->height, 3, slr_alloc(s->g->m, bytes)};
    int rc = image && picture->pixels.data ? SDLORA_OK : SDLORA_ENOMEM;
    if (rc >= 0)
        rc = slr_vae_decode(s->g->decoder, s->x, 1, s->h, s->w, image, s->r->cancel);
    if (rc >= 0)
        to_bytes(image, picture->pixels.data, bytes);
    slr_free(s->g->m, image);
    return rc;
}

/* --- parameters text --- */

/* The first ten digits of a file's sha256, computed once. */
static const char *short_hash(char kept[11], const char *path)
{
    char full[65];
    if (!kept[0] && slr_file_exists(path) && slr_hash_file(path, full) >= 0) {
        memcpy(kept, full, 10);
        kept[10] = '\0';
    }
    return kept[0] ? kept : NULL;
}

/* "name: hash12, ..." of the networks that came from files. */
static int lora_hashes(const run *s, slr_buf *b)
{
    for (size_t i = 0; i < s->n_items; i++) {
        slr_network *n = s->item[i].network;
        const char *known = slr_meta_get(slr_network_meta(n), "sshs_model_hash"),
                   *path = slr_network_path(n);
        char hex[65];
        if (!path || slr_network_is_hyper(n))
            continue;
        if (!known && slr_hash_tensors(path, hex) < 0)
            continue;
        slr_buf_printf(b, "%s%s: %.12s", b->len ? ", " : "", slr_network_name(n),
                       known ? known : hex);
    }
    return slr_buf_ok(b);
}

/* AUTOMATIC1111 reads these as <hypernet:name:strength>, so they are for what is in no prompt. */
static void add_hypernet(const run *s, slr_infotext *t)
{
    for (size_t i = 0; i < s->n_given; i++) {
        slr_network *n = s->item[i].network;
        char hash[11] = "";
        if (!slr_network_is_hyper(n))
            continue;
        slr_infotext_add(t, "Hypernet", slr_network_name(n));
        if (slr_network_path(n))
            slr_infotext_add(t, "Hypernet hash", short_hash(hash, slr_network_path(n)));
        slr_infotext_real(t, "Hypernet strength", s->item[i].unet);
        return; /* the text has words for one */
    }
}

/* "name: hash12, ..." of the embeddings that came from files and are used: the prompt's, then the
 * negative prompt's. */
static int embedding_hashes(const run *s, slr_buf *b)
{
    const char *prompts[2] = {s->tags.text, negative_of(s)};
    for (size_t i = 0; i < 2; i++) {
        const size_t *list;
        size_t n;
        SLR_TRY(slr_denoiser_text_uses(s->g->denoiser, prompts[i], skip_of(s), &list, &n));
        for (size_t k = 0; k < n; k++)
            slr_known_hash(&s->known, list[k], b);
    }
    return slr_buf_ok(b);
}

static void stem_of(const char *path, char out[256])
{
    const char *base = slr_path_base(path);
    size_t n = slr_path_stem(base);
    n = n < 255 ? n : 255;
    memcpy(out, base, n);
    out[n] = '\0';
}

static char *write_infotext(run *s, int64_t seed)
{
    slr_infotext t;
    char size[32], model[256], vae[256];
    const slr_request *r = s->r;
    const char *path = slr_checkpoint_path(s->g->base);
    slr_buf hashes, words;
    slr_buf_init(&hashes, s->g->m);
    slr_buf_init(&words, s->g->m);
    if (lora_hashes(s, &hashes) < 0 || embedding_hashes(s, &words) < 0) {
        slr_buf_free(&hashes);
        slr_buf_free(&words);
        return NULL;
    }
    snprintf(size, sizeof size, "%dx%d", r->width, r->height);
    stem_of(path, model);
    slr_infotext_init(&t, s->g->m, r->prompt ? r->prompt : "", r->negative ? r->negative : "");
    slr_infotext_int(&t, "Steps", r->steps);
    slr_infotext_add(&t, "Sampler", s->sampler->name);
    slr_infotext_add(&t, "Schedule type", s->scheduler_name);
    slr_infotext_real(&t, "CFG scale", r->cfg);
    slr_infotext_int(&t, "Seed", seed);
    slr_infotext_add(&t, "Size", size);
    slr_infotext_add(&t, "Model hash", short_hash(s->g->model_hash, path));
    slr_infotext_add(&t, "Model", model);
    if (s->g->vae_path) {
        slr_infotext_add(&t, "VAE hash", short_hash(s->g->vae_hash, s->g->vae_path));
        snprintf(vae, sizeof vae, "%s", slr_path_base(s->g->vae_path));
        slr_infotext_add(&t, "VAE", vae);
    }
    if (r->clip_skip > 1)
        slr_infotext_int(&t, "Clip skip", r->clip_skip);
    slr_infotext_add(&t, "RNG", "CPU");
    if (r->eta >= 0 && s->sampler->eta)
        slr_infotext_real(&t, s->sampler->timesteps ? "Eta DDIM" : "Eta", r->eta);
    slr_infotext_add(&t, "Lora hashes", hashes.len ? hashes.data : NULL);
    add_hypernet(s, &t);
    slr_infotext_add(&t, "TI hashes", words.len ? words.data : NULL);
    slr_infotext_add(&t, "Version", "libsdlora-" SDLORA_VERSION_STRING);
    slr_buf_free(&hashes);
    slr_buf_free(&words);
    return slr_infotext_take(&t);
}

static int make_picture(run *s, int k, slr_picture *picture)
{
    SLR_TRY(first_noise(s, k));
    SLR_TRY(sample(s));
    SLR_TRY(decode(s, picture));
    picture->seed = s->r->seed + k;
    picture->infotext = write_infotext(s, picture->seed);
    picture->latents = slr_alloc(s->g->m, (size_t)s->floats * sizeof(float));
    if (!picture->infotext || !picture->latents)
        return SDLORA_ENOMEM;
    memcpy(picture->latents, s->x, (size_t)s->floats * sizeof(float));
    return SDLORA_OK;
}

static int allocate(run *s)
{
    int factor;
    SLR_TRY(slr_vae_factor(s->g->vae, &factor));
    s->h = s->r->height >> factor;
    s->w = s->r->width >> factor;
    s->c = slr_denoiser_channels(s->g->denoiser);
    s->floats = s->h * s->w * s->c;
    float **blocks[] = {&s->nchw, &s->x, &s->input};
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++)
        if (!(*blocks[i] = slr_calloc(s->g->m, (size_t)s->floats, sizeof(float))))
            return SDLORA_ENOMEM;
    return SDLORA_OK;
}

static int prepare(run *s)
{
    SLR_TRY(check_request(s));
    SLR_TRY(choose_sampler(s));
    SLR_TRY(allocate(s));
    SLR_TRY(s->sampler->timesteps ? make_timesteps(s) : make_sigmas(s));
    SLR_TRY(slr_prompt_cut_tags(&s->tags, s->g->m, s->r->prompt ? s->r->prompt : ""));
    SLR_TRY(apply_networks(s));
    return encode_prompts(s);
}

static void end(run *s)
{
    slr_mem *m = s->g->m;
    slr_prompt_tags_free(&s->tags);
    slr_known_free(&s->known);
    for (size_t i = 0; i < s->n_items; i++)
        slr_network_unref(s->item[i].network);
    slr_free(m, s->item);
    slr_free(m, s->sigmas);
    slr_free(m, s->timesteps);
    slr_noise_free(s->noise);
    slr_free(m, s->nchw);
    slr_free(m, s->x);
    slr_free(m, s->input);
}

int slr_generator_run(slr_generator *g, const slr_request *r, slr_picture *pictures)
{
    slr_request request = *r;
    if (request.seed < 0) { /* a random one, in the range that users know */
        slr_rng rng;
        slr_rng_init(&rng, slr_clock_seed(), SLR_STREAM_EVAL, 0);
        request.seed = (int64_t)slr_rng_below(&rng, 4294967294u);
    }
    run s = {.g = g, .r = &request, .known = {.m = g->m}};
    memset(pictures, 0, (size_t)(r->count > 0 ? r->count : 0) * sizeof *pictures);
    if (!g->decoder)
        SLR_TRY(open_decoder(g));
    slr_denoiser_set_policy(g->denoiser, r->policy);
    slr_vae_runner_set_policy(g->decoder, r->vae_policy);
    SLR_TRY(
        slr_vae_runner_set_tiling(g->decoder, r->vae_tiling ? slr_vae_runner_tile(g->decoder) : 0));
    int rc = prepare(&s);
    for (int k = 0; rc >= 0 && k < r->count; k++)
        rc = make_picture(&s, k, &pictures[k]);
    if (rc < 0)
        for (int k = 0; k < r->count; k++)
            slr_picture_free(g->m, &pictures[k]);
    end(&s);
    return rc;
}

void slr_picture_free(slr_mem *m, slr_picture *p)
{
    slr_free(m, p->pixels.data);
    slr_free(m, p->infotext);
    slr_free(m, p->latents);
    *p = (slr_picture){0};
}
