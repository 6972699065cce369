/* SPDX-License-Identifier: MIT */
/* The parameters text of a picture: what it was made with, in AUTOMATIC1111's words and in the
 * order in which it comes by them; then fields that other programs left.  What has its default is
 * not told, unless the original always tells it. */
#include "sample/generator_impl.h"

#include <stdio.h>
#include <string.h>

#include "base/status.h"
#include "base/str.h"
#include "io/file.h"
#include "io/hash.h"
#include "networks/embedding.h"
#include "networks/hypernet.h"
#include "networks/netfile.h"
#include "sample/infotext.h"
#include "sample/modes.h"
#include "sample/steps.h"

#include <sdlora/version.h>

typedef struct writing {
    slr_run *s;
    const slr_settings *set;
    slr_infotext t;
    const slr_sampler_row *sampler;
    const slr_scheduler_row *scheduler; /* NULL: timesteps */
    bool automatic;
} writing;

/* --- files --- */

/* The first ten digits of a file's sha256, computed once; "" while it is not known. */
static int short_hash(const slr_run *s, char kept[11], const char *path)
{
    char full[65];
    slr_watch w;
    if (kept[0] || !slr_file_exists(path))
        return SDLORA_OK;
    slr_watch_enter(&w, s->r->cancel);
    int rc = s->g->hash ? s->g->hash(s->g->hash_user, path, full) : slr_hash_file(path, full);
    slr_watch_leave(&w);
    if (rc == SDLORA_ECANCELED || rc == SDLORA_ENOMEM)
        return rc;
    slr_clear(); /* the file may be gone by now */
    if (rc >= 0)
        snprintf(kept, 11, "%.10s", full);
    return SDLORA_OK;
}

static const char *shown(const char *text)
{
    return *text ? text : NULL;
}

static void stem_of(const char *path, char out[256])
{
    const char *base = slr_path_base(path);
    snprintf(out, 256, "%.*s", (int)slr_path_stem(base), base);
}

/* "stem [hash]", as the original titles its checkpoints. */
static int title_of(const slr_run *s, slr_model *model, char out[280])
{
    char stem[256];
    const char *path = slr_checkpoint_path(model->base);
    SLR_TRY(short_hash(s, model->hash, path));
    stem_of(path, stem);
    snprintf(out, 280, *model->hash ? "%s [%s]" : "%s", stem, model->hash);
    return SDLORA_OK;
}

/* --- networks --- */

/* Colons and commas would end the name. */
static void put_name(slr_buf *b, const char *name)
{
    for (; *name; name++)
        if (*name != ':' && *name != ',')
            slr_buf_putc(b, *name);
}

/* "name: hash12", unless the name is there. */
static int put_hash(slr_buf *b, const slr_run *s, const slr_network *n, const char *name)
{
    const char *known = slr_meta_get(slr_network_meta(n), "sshs_model_hash"),
               *path = slr_network_path(n);
    char hex[65];
    slr_buf entry;
    slr_watch w;
    int rc = SDLORA_OK;
    if (!path || slr_network_is_hyper(n) || slr_network_is_embedding(n))
        return SDLORA_OK;
    slr_watch_enter(&w, s->r->cancel);
    if (!known && (rc = slr_hash_tensors(path, hex)) == SDLORA_EFORMAT)
        rc = slr_hash_file(path, hex); /* no safetensors file */
    slr_watch_leave(&w);
    if (rc < 0 && rc != SDLORA_ECANCELED && rc != SDLORA_ENOMEM) {
        slr_clear();
        return SDLORA_OK;
    }
    SLR_TRY(rc);
    slr_buf_init(&entry, b->m);
    put_name(&entry, name);
    slr_buf_puts(&entry, ": ");
    rc = slr_buf_ok(&entry);
    if (rc >= 0 && (!b->len || !strstr(b->data, entry.data)))
        slr_buf_printf(b, "%s%s%.12s", b->len ? ", " : "", entry.data, known ? known : hex);
    slr_buf_free(&entry);
    return rc < 0 ? rc : slr_buf_ok(b);
}

static int tag_hashes(const slr_run *s, const slr_wording *w, slr_buf *b)
{
    for (size_t i = 0; i < w->tags.n; i++) {
        slr_network *n = NULL;
        const slr_prompt_tag *tag = &w->tags.tag[i];
        if (tag->bad || !strcmp(tag->kind, "hypernet") || !s->g->find)
            continue;
        int rc = s->g->find(s->g->find_user, "lora", tag->name, &n);
        if (rc < 0 && rc != SDLORA_ENOMEM)
            continue; /* told already */
        if (rc >= 0)
            rc = put_hash(b, s, n, tag->name);
        slr_network_unref(n);
        SLR_TRY(rc);
    }
    slr_clear();
    return slr_buf_ok(b);
}

/* Those that no tag names first, then the tags' by the names that stand in them. */
static int lora_hashes(const slr_run *s, slr_buf *b)
{
    const slr_wording *w = &s->words;
    for (size_t i = 0; i < w->n_given; i++)
        SLR_TRY(put_hash(b, s, w->item[i].network, slr_network_name(w->item[i].network)));
    SLR_TRY(tag_hashes(s, w, b));
    return s->modes->hires ? tag_hashes(s, &s->modes->words, b) : SDLORA_OK;
}

/* AUTOMATIC1111 reads these as <hypernet:name:strength>, so they are for what is in no prompt. */
static int add_hypernet(writing *w)
{
    const slr_wording *words = &w->s->words;
    for (size_t i = 0; i < words->n_given; i++) {
        slr_network *n = words->item[i].network;
        char hash[11] = "";
        if (!slr_network_is_hyper(n))
            continue;
        slr_infotext_add(&w->t, "Hypernet", slr_network_name(n));
        if (slr_network_path(n))
            SLR_TRY(short_hash(w->s, hash, slr_network_path(n)));
        slr_infotext_add(&w->t, "Hypernet hash", shown(hash));
        slr_infotext_real(&w->t, "Hypernet strength", words->item[i].unet);
        break; /* the text has words for one */
    }
    return SDLORA_OK;
}

/* "name: hash12" of the embeddings of one text that came from files. */
static int hashes_of(const slr_run *s, const char *text, slr_buf *b)
{
    slr_cond_config c = {
        .clip_skip = s->set.clip_skip, .emphasis = s->set.emphasis, .backtrack = s->set.backtrack};
    size_t *list, n;
    SLR_TRY(slr_conds_uses(s->g->model[SLR_ROLE_BASE]->conds, text, &c, &list, &n));
    for (size_t k = 0; k < n; k++)
        slr_known_hash(&s->words.known, list[k], b);
    slr_free(s->g->m, list);
    return SDLORA_OK;
}

/* Those that are used: the prompt's, then the negative prompt's. */
static int embedding_hashes(const slr_run *s, slr_buf *b)
{
    const slr_script *script[2] = {&s->words.positive, &s->words.uncond};
    for (size_t i = 0; i < 2; i++)
        for (size_t k = 0; k < script[i]->n; k++)
            for (size_t t = 0; t < script[i]->part[k].n; t++)
                SLR_TRY(hashes_of(s, script[i]->part[k].at[t].text, b));
    return slr_buf_ok(b);
}

/* <lora:name:te:unet> of networks that the caller set and no tag names, so that the text alone
 * tells all; they work before those of the tags. */
static void put_given(const slr_run *s, slr_buf *b)
{
    for (size_t i = 0; i < s->words.n_given; i++) {
        const slr_stack_item *it = &s->words.item[i];
        const char *name = slr_network_name(it->network);
        char te[32], unet[32];
        if (!slr_network_path(it->network) || slr_network_is_hyper(it->network) ||
            strpbrk(name, ":>\n"))
            continue;
        slr_infotext_number(it->te, te);
        slr_infotext_number(it->unet, unet);
        slr_buf_printf(b, it->te == it->unet ? "<lora:%s:%s>" : "<lora:%s:%s:%s>", name, te, unet);
    }
}

/* --- settings --- */

static void real_unless(writing *w, const char *key, double value, double usual)
{
    if (value != usual)
        slr_infotext_real(&w->t, key, value);
}

static void int_unless(writing *w, const char *key, int64_t value, int64_t usual)
{
    if (value != usual)
        slr_infotext_int(&w->t, key, value);
}

static void if_true(writing *w, const char *key, bool value)
{
    slr_infotext_add(&w->t, key, value ? "True" : NULL);
}

static void text_unless(writing *w, const char *key, const char *value, const char *usual)
{
    if (value && strcmp(value, usual) != 0)
        slr_infotext_add(&w->t, key, value);
}

static void add_size(writing *w, const char *key, int width, int height)
{
    char text[48];
    snprintf(text, sizeof text, "%dx%d", width, height);
    slr_infotext_add(&w->t, key, text);
}

/* Whether the picture was made of another, and whether of a part of it. */
static bool from_picture(const writing *w)
{
    return w->s->modes->from_picture;
}

static bool is_masked(const writing *w)
{
    return from_picture(w) && w->s->modes->start.repaint;
}

/* Whether a pass over a picture was made by an inpainting model. */
static bool weighs_mask(const writing *w)
{
    return (from_picture(w) && slr_checkpoint_inpaint(slr_run_model(w->s, 0)->base)) ||
           (w->set->hr && slr_checkpoint_inpaint(slr_run_model(w->s, 1)->base));
}

static double eta_of(const writing *w)
{
    return w->set->eta >= 0 ? w->set->eta : w->sampler->timesteps ? 0 : 1;
}

/* The original has no name for what it does when neither sampler nor caller choose. */
static bool is_uniform(const writing *w)
{
    return !w->scheduler || (w->automatic && !strcmp(w->scheduler->name, "Uniform"));
}

/* What create_infotext() has rows for. */
static int add_first(writing *w)
{
    slr_model *m = w->s->g->model[SLR_ROLE_BASE];
    const slr_settings *set = w->set;
    const char *path = slr_checkpoint_path(m->base);
    char model[256];
    slr_infotext *t = &w->t;
    SLR_TRY(short_hash(w->s, m->hash, path));
    if (m->vae_path)
        SLR_TRY(short_hash(w->s, m->vae_hash, m->vae_path));
    slr_infotext_int(t, "Steps", set->steps);
    slr_infotext_add(t, "Sampler", w->sampler->name);
    slr_infotext_add(t, "Schedule type", is_uniform(w) ? "Automatic" : w->scheduler->name);
    slr_infotext_real(t, "CFG scale", set->cfg);
    if (from_picture(w) && slr_checkpoint_edit(m->base))
        slr_infotext_real(t, "Image CFG scale", set->image_cfg);
    slr_infotext_int(t, "Seed", w->s->seed);
    add_size(w, "Size", set->width, set->height);
    slr_infotext_add(t, "Model hash", shown(m->hash));
    stem_of(path, model);
    slr_infotext_add(t, "Model", model);
    if (m->vae_path) {
        slr_infotext_add(t, "VAE hash", shown(m->vae_hash));
        slr_infotext_add(t, "VAE", slr_path_base(m->vae_path));
    }
    if (set->subseed_strength != 0) {
        slr_infotext_int(t, "Variation seed", w->s->subseed);
        slr_infotext_real(t, "Variation seed strength", set->subseed_strength);
    }
    if (set->seed_from_w > 0 && set->seed_from_h > 0)
        add_size(w, "Seed resize from", set->seed_from_w, set->seed_from_h);
    if (set->hr || from_picture(w))
        slr_infotext_real(t, "Denoising strength", set->denoising_strength);
    if (weighs_mask(w))
        slr_infotext_real(t, "Conditional mask weight", set->mask_weight);
    if (set->clip_skip > 1)
        slr_infotext_int(t, "Clip skip", set->clip_skip);
    if (w->sampler->ensd && eta_of(w) != 0)
        int_unless(w, "ENSD", set->ensd, 0);
    real_unless(w, "Token merging ratio", slr_settings_merge(set, from_picture(w), false), 0);
    if (set->hr)
        real_unless(w, "Token merging ratio hr", slr_settings_merge(set, false, true), 0);
    slr_infotext_add(t, "RNG", set->rng == SLR_NOISE_NV ? "NV" : "CPU");
    return SDLORA_OK;
}

static void add_mask(writing *w)
{
    static const char *const contents[] = {"fill", NULL, "latent noise", "latent nothing"};
    const slr_settings *set = w->set;
    if (!is_masked(w))
        return;
    slr_infotext_add(&w->t, "Mask mode", set->mask_invert ? "Inpaint not masked" : NULL);
    int_unless(w, "Mask blur", set->mask_blur, 0);
    slr_infotext_add(&w->t, "Mask rounding", set->mask_round ? NULL : "False");
    if (set->full_res) {
        slr_infotext_add(&w->t, "Inpaint area", "Only masked");
        slr_infotext_int(&w->t, "Masked area padding", set->full_res_padding);
    }
    slr_infotext_add(&w->t, "Masked content", contents[set->fill & 3]);
}

static int add_hires(writing *w)
{
    const slr_settings *set = w->set;
    const slr_sampler_row *sampler = w->sampler;
    const slr_scheduler_row *scheduler = w->scheduler;
    slr_model *second = w->s->g->model[SLR_ROLE_SECOND];
    char title[280];
    bool automatic;
    if (!set->hr)
        return SDLORA_OK;
    if (second) {
        SLR_TRY(title_of(w->s, second, title));
        slr_infotext_add(&w->t, "Hires checkpoint", title);
    }
    if (slr_sampler_choose(set->hr_sampler ? set->hr_sampler : w->sampler->name,
                           set->hr_scheduler ? set->hr_scheduler : set->scheduler, &sampler,
                           &scheduler, &automatic) < 0)
        slr_clear();
    text_unless(w, "Hires sampler", sampler->name, w->sampler->name);
    if (set->hr_prompt && *set->hr_prompt)
        text_unless(w, "Hires prompt", set->hr_prompt, w->s->words.full);
    if (set->hr_negative && *set->hr_negative)
        text_unless(w, "Hires negative prompt", set->hr_negative, w->s->words.negative);
    if (scheduler && scheduler != w->scheduler)
        slr_infotext_add(&w->t, "Hires schedule type", scheduler->name);
    if (set->hr_width || set->hr_height)
        add_size(w, "Hires resize", set->hr_width, set->hr_height);
    else
        slr_infotext_real(&w->t, "Hires upscale", set->hr_scale);
    int_unless(w, "Hires steps", set->hr_steps, 0);
    slr_infotext_add(&w->t, "Hires upscaler", set->hr_upscaler);
    return SDLORA_OK;
}

static void add_sampling(writing *w)
{
    const slr_settings *set = w->set;
    bool k = !w->sampler->timesteps;
    if_true(w, "Downcast alphas_cumprod", set->downcast);
    if (set->ztsnr)
        slr_infotext_add(&w->t, "Noise Schedule", "Zero Terminal SNR");
    if (from_picture(w))
        real_unless(w, "Noise multiplier", set->noise_multiplier, 1);
    if_true(w, "Discard penultimate sigma", set->discard && !w->sampler->discard);
    if (k && w->scheduler) {
        real_unless(w, "Schedule min sigma", set->sigma_min, 0);
        real_unless(w, "Schedule max sigma", set->sigma_max, 0);
        if (w->scheduler->rho > 0 && set->rho != w->scheduler->rho)
            real_unless(w, "Schedule rho", set->rho, 0);
        if (!strcmp(w->scheduler->name, "Beta")) {
            slr_infotext_real(&w->t, "Beta schedule alpha", set->beta_alpha);
            slr_infotext_real(&w->t, "Beta schedule beta", set->beta_beta);
        }
    }
    if_true(w, "SGM noise multiplier", k && set->sgm_noise);
    if (from_picture(w) || set->hr)
        real_unless(w, "Extra noise", set->extra_noise, 0);
    if (w->sampler->eta && set->eta >= 0)
        real_unless(w, k ? "Eta" : "Eta DDIM", set->eta, k ? 1 : 0);
    if (w->sampler->churn) {
        real_unless(w, "Sigma churn", set->s_churn, 0);
        real_unless(w, "Sigma tmin", set->s_tmin, 0);
        real_unless(w, "Sigma tmax", set->s_tmax, 0);
    }
    if (w->sampler->s_noise)
        real_unless(w, "Sigma noise", set->s_noise, 1);
    if (!strcmp(w->sampler->name, "UniPC")) {
        text_unless(w, "UniPC variant", set->unipc_variant, "bh1");
        text_unless(w, "UniPC skip type", set->unipc_skip, "time_uniform");
        int_unless(w, "UniPC order", set->unipc_order, 3);
        slr_infotext_add(&w->t, "UniPC lower order final", set->unipc_lower_final ? NULL : "False");
    }
}

static int add_refiner(writing *w)
{
    static const char *const passes[] = {NULL, "first pass", "both passes"};
    slr_model *refiner = w->s->g->model[SLR_ROLE_REFINER];
    char title[280];
    if (!refiner || !w->s->became.refined)
        return SDLORA_OK;
    SLR_TRY(title_of(w->s, refiner, title));
    if_true(w, "Refiner switch by sampling steps", w->set->refiner_by_steps);
    if (w->set->hr)
        slr_infotext_add(&w->t, "Hires refiner", passes[w->set->hr_refine % 3]);
    slr_infotext_add(&w->t, "Refiner", title);
    slr_infotext_real(&w->t, "Refiner switch at", w->set->refiner_at);
    return SDLORA_OK;
}

static void add_guidance(writing *w)
{
    const slr_settings *set = w->set;
    if (w->s->became.skipped_early)
        slr_infotext_real(&w->t, "Skip Early CFG", set->skip_early);
    if (w->s->became.skipped) {
        slr_infotext_real(&w->t, "NGMS", set->s_min_uncond);
        if_true(w, "NGMS all steps", set->s_min_uncond_all);
    }
    real_unless(w, "CFG rescale", set->cfg_rescale, 0);
}

static void add_words(writing *w, const char *embeddings)
{
    static const char *const modes[] = {NULL, "No norm", "Ignore", "None"};
    const slr_wording *words = &w->s->words;
    bool brackets = strpbrk(words->full, "([") || strpbrk(words->negative, "([");
    if_true(w, "Old prompt editing timelines",
            w->set->old_scheduling && (strchr(words->full, '[') || strchr(words->negative, '[')));
    slr_infotext_add(&w->t, "TI hashes", embeddings);
    if (brackets)
        slr_infotext_add(&w->t, "Emphasis", modes[w->set->emphasis & 3]);
}

/* What moves the last bits, or more, and has no words in the original. */
static void add_precision(writing *w)
{
    text_unless(w, "Precision", w->set->precision, "auto");
    slr_infotext_add(&w->t, "VAE precision", w->set->full_vae ? "full" : NULL);
    if_true(w, "VAE tiling", w->set->vae_tiling);
}

/* Fields of other programs, as they stood. */
static void add_extra(writing *w)
{
    slr_str rest = slr_str_of(w->set->extra), item;
    char *line;
    while (slr_str_next(&rest, '\n', &item)) {
        item = slr_str_trim(item);
        if (!item.n)
            continue;
        line = slr_strndup(w->s->g->m, item.p, item.n);
        if (line)
            slr_infotext_raw(&w->t, line);
        else
            w->t.text.error = SDLORA_ENOMEM;
        slr_free(w->s->g->m, line);
    }
}

static int add_all(writing *w, const char *loras, const char *words)
{
    SLR_TRY(add_first(w));
    add_mask(w);
    SLR_TRY(add_hires(w));
    slr_infotext_add(&w->t, "Lora hashes", loras);
    SLR_TRY(add_hypernet(w));
    add_words(w, words);
    add_sampling(w);
    SLR_TRY(add_refiner(w));
    add_guidance(w);
    if_true(w, "Pad conds", w->s->became.padded);
    if_true(w, "Pad conds v0", w->s->became.padded_v0);
    add_precision(w);
    add_extra(w);
    slr_infotext_add(&w->t, "Version", "libsdlora-" SDLORA_VERSION_STRING);
    return SDLORA_OK;
}

static int begin(writing *w, slr_buf *prompt)
{
    const slr_settings *set = w->set;
    SLR_TRY(slr_sampler_choose(set->sampler ? set->sampler : "Euler a", set->scheduler, &w->sampler,
                               &w->scheduler, &w->automatic));
    put_given(w->s, prompt);
    slr_buf_puts(prompt, w->s->words.full);
    return slr_buf_ok(prompt);
}

int slr_record(slr_run *s, char **text)
{
    writing w = {.s = s, .set = &s->set};
    slr_buf loras, words, prompt;
    *text = NULL;
    slr_buf_init(&loras, s->g->m);
    slr_buf_init(&words, s->g->m);
    slr_buf_init(&prompt, s->g->m);
    int rc = begin(&w, &prompt);
    if (rc >= 0)
        rc = lora_hashes(s, &loras);
    if (rc >= 0)
        rc = embedding_hashes(s, &words);
    if (rc >= 0) {
        slr_infotext_init(&w.t, s->g->m, prompt.data, s->words.negative);
        rc = add_all(&w, loras.len ? loras.data : NULL, words.len ? words.data : NULL);
        if (rc >= 0 && !(*text = slr_infotext_take(&w.t)))
            rc = slr_fail(SDLORA_ENOMEM, __func__, "no memory for the parameters text");
        if (rc < 0)
            slr_buf_free(&w.t.text);
    }
    slr_buf_free(&loras);
    slr_buf_free(&words);
    slr_buf_free(&prompt);
    return rc;
}
