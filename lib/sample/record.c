/* SPDX-License-Identifier: MIT */
/* The parameters text of a picture: what it was made with, in AUTOMATIC1111's words and order. */
#include "sample/generator_impl.h"

#include <stdio.h>
#include <string.h>

#include "base/status.h"
#include "base/str.h"
#include "io/file.h"
#include "io/hash.h"
#include "networks/hypernet.h"
#include "networks/netfile.h"
#include "sample/guide.h"
#include "sample/infotext.h"
#include "sample/steps.h"

#include <sdlora/version.h>

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
static int lora_hashes(const slr_run *s, slr_buf *b)
{
    for (size_t i = 0; i < s->words.n_items; i++) {
        slr_network *n = s->words.item[i].network;
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
static void add_hypernet(const slr_run *s, slr_infotext *t)
{
    for (size_t i = 0; i < s->words.n_given; i++) {
        slr_network *n = s->words.item[i].network;
        char hash[11] = "";
        if (!slr_network_is_hyper(n))
            continue;
        slr_infotext_add(t, "Hypernet", slr_network_name(n));
        if (slr_network_path(n))
            slr_infotext_add(t, "Hypernet hash", short_hash(hash, slr_network_path(n)));
        slr_infotext_real(t, "Hypernet strength", s->words.item[i].unet);
        return; /* the text has words for one */
    }
}

/* "name: hash12" of the embeddings of one text that came from files. */
static int hashes_of(const slr_run *s, const char *text, slr_buf *b)
{
    slr_cond_config c = {
        .clip_skip = s->set.clip_skip, .emphasis = s->set.emphasis, .backtrack = s->set.backtrack};
    size_t *list, n;
    SLR_TRY(slr_conds_uses(s->g->model->conds, text, &c, &list, &n));
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

static void stem_of(const char *path, char out[256])
{
    const char *base = slr_path_base(path);
    size_t n = slr_path_stem(base);
    n = n < 255 ? n : 255;
    memcpy(out, base, n);
    out[n] = '\0';
}

static void add_sampler(const slr_run *s, slr_infotext *t)
{
    slr_steps rows = {0};
    if (slr_sampler_choose(s->set.sampler ? s->set.sampler : "Euler a", s->set.scheduler,
                           &rows.sampler, &rows.scheduler, &rows.automatic) < 0)
        return; /* it has just drawn */
    slr_infotext_add(t, "Sampler", rows.sampler->name);
    slr_infotext_add(t, "Schedule type",
                     rows.automatic || !rows.scheduler ? "Automatic" : rows.scheduler->name);
}

static void add_all(slr_run *s, slr_infotext *t, const char *loras, const char *words)
{
    const slr_settings *set = &s->set;
    slr_generator *g = s->g;
    char text[256];
    const char *path = slr_checkpoint_path(g->model->base);
    slr_steps rows = {0};
    slr_infotext_int(t, "Steps", set->steps);
    add_sampler(s, t);
    slr_infotext_real(t, "CFG scale", set->cfg);
    slr_infotext_int(t, "Seed", s->seed);
    snprintf(text, sizeof text, "%dx%d", set->width, set->height);
    slr_infotext_add(t, "Size", text);
    slr_infotext_add(t, "Model hash", short_hash(g->model_hash, path));
    stem_of(path, text);
    slr_infotext_add(t, "Model", text);
    if (g->vae_path) {
        slr_infotext_add(t, "VAE hash", short_hash(g->vae_hash, g->vae_path));
        slr_infotext_add(t, "VAE", slr_path_base(g->vae_path));
    }
    if (set->clip_skip > 1)
        slr_infotext_int(t, "Clip skip", set->clip_skip);
    slr_infotext_add(t, "RNG", set->rng == SLR_NOISE_NV ? "NV" : "CPU");
    if (set->eta >= 0 &&
        slr_sampler_choose(set->sampler ? set->sampler : "Euler a", NULL, &rows.sampler,
                           &rows.scheduler, &rows.automatic) >= 0 &&
        rows.sampler->eta)
        slr_infotext_real(t, rows.sampler->timesteps ? "Eta DDIM" : "Eta", set->eta);
    slr_infotext_add(t, "Lora hashes", loras);
    add_hypernet(s, t);
    slr_infotext_add(t, "TI hashes", words);
    slr_infotext_add(t, "Version", "libsdlora-" SDLORA_VERSION_STRING);
}

char *slr_record(slr_run *s)
{
    slr_infotext t;
    slr_buf loras, words;
    slr_buf_init(&loras, s->g->m);
    slr_buf_init(&words, s->g->m);
    char *text = NULL;
    if (lora_hashes(s, &loras) >= 0 && embedding_hashes(s, &words) >= 0) {
        slr_infotext_init(&t, s->g->m, s->words.full, s->words.negative);
        add_all(s, &t, loras.len ? loras.data : NULL, words.len ? words.data : NULL);
        text = slr_infotext_take(&t);
    }
    slr_buf_free(&loras);
    slr_buf_free(&words);
    return text;
}
