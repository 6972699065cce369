/* SPDX-License-Identifier: MIT */
/* Prompts to scripts and networks: comments and tags go, tags find their networks.  Refuses to know
 * what states are. */
#include "sample/generator_impl.h"

#include <string.h>

#include "base/status.h"
#include "networks/embedding.h"
#include "networks/hypernet.h"

int slr_generator_no_dirs(const char *kind, const char *name)
{
    return slr_fail(SDLORA_ENOTFOUND, __func__, "<%s:%s>: no directory of networks was given", kind,
                    name);
}

/* --- networks --- */

static int add_item(slr_wording *w, slr_mem *m, slr_stack_item item)
{
    if (slr_network_is_embedding(item.network)) /* it has its say where its name stands */
        return slr_known_add(&w->known, item.network);
    slr_stack_item *grown = slr_realloc(m, w->item, w->n_items + 1, sizeof *grown);
    if (!grown)
        return SDLORA_ENOMEM;
    w->item = grown;
    w->item[w->n_items++] = item;
    slr_network_ref(item.network);
    return SDLORA_OK;
}

static int find_network(const slr_generator *g, const char *kind, const char *name,
                        slr_network **out)
{
    if (!g->find)
        return slr_generator_no_dirs(kind, name);
    SLR_TRY(g->find(g->find_user, kind, name, out));
    bool hyper = !strcmp(kind, "hypernet");
    if (slr_network_is_hyper(*out) == hyper)
        return SDLORA_OK;
    slr_network_unref(*out);
    *out = NULL;
    return slr_fail(SDLORA_EINVAL, __func__, "<%s:%s>: %s is %s hypernetwork", kind, name, name,
                    hyper ? "not a" : "a");
}

static int add_tag(slr_wording *w, const slr_generator *g, const slr_prompt_tag *tag)
{
    bool hyper = !strcmp(tag->kind, "hypernet");
    if (tag->bad || (!hyper && strcmp(tag->kind, "lora") && strcmp(tag->kind, "lyco"))) {
        slr_logf(&g->log, SLR_LOG_WARN, "<%s:%s> is skipped: %s%s", tag->kind, tag->name,
                 tag->bad ? "not a number: " : "no such kind of tag", tag->bad ? tag->bad : "");
        return SDLORA_OK;
    }
    slr_network *network;
    SLR_TRY(find_network(g, hyper ? "hypernet" : "lora", tag->name, &network));
    int rc = add_item(w, g->m,
                      (slr_stack_item){.network = network,
                                       .te = tag->te,
                                       .unet = hyper ? tag->te : tag->unet,
                                       .dyn = hyper ? 0 : tag->dyn,
                                       .blocks = tag->blocks});
    slr_network_unref(network);
    return rc;
}

static int find_networks(slr_wording *w, const slr_run *s)
{
    const slr_generator *g = s->g;
    for (size_t i = 0; i < g->known.n; i++)
        SLR_TRY(slr_known_add(&w->known, g->known.at[i]));
    for (size_t i = 0; i < s->r->n_networks; i++)
        SLR_TRY(add_item(w, g->m, s->r->networks[i]));
    w->n_given = w->n_items;
    for (size_t i = 0; i < w->tags.n; i++)
        SLR_TRY(add_tag(w, g, &w->tags.tag[i]));
    for (size_t i = 0; i < w->n_items; i++)
        SLR_TRY(slr_known_add_bundle(&w->known, w->item[i].network));
    return SDLORA_OK;
}

/* --- texts --- */

/* Takes the text and gives it without comments. */
static char *plain(const slr_run *s, char *text)
{
    char *out = text && s->set.comments ? slr_prompt_uncomment(s->g->m, text) : text;
    if (out != text)
        slr_free(s->g->m, text);
    return out;
}

/* Styles first, then comments, which styles may hold too. */
static int read_texts(slr_wording *w, const slr_run *s, const char *prompt, const char *negative)
{
    char *texts[2] = {0};
    prompt = prompt ? prompt : "";
    negative = negative ? negative : "";
    if (s->set.styles && *s->set.styles) {
        SLR_TRY(
            slr_styles_apply(&s->styles, s->set.styles, prompt, negative, &texts[0], &texts[1]));
    } else {
        texts[0] = slr_strdup(s->g->m, prompt);
        texts[1] = slr_strdup(s->g->m, negative);
    }
    w->full = plain(s, texts[0]);
    w->negative = plain(s, texts[1]);
    return w->full && w->negative ? SDLORA_OK : SDLORA_ENOMEM;
}

static int parse(slr_wording *w, const slr_run *s, int evaluations, int hr_evaluations)
{
    slr_script_config c = {.steps = evaluations,
                           .hires_steps = hr_evaluations,
                           .old = s->set.old_scheduling,
                           .compose = true};
    SLR_TRY(slr_prompt_cut_tags(&w->tags, s->g->m, w->full));
    SLR_TRY(slr_script_new(&w->positive, s->g->m, w->tags.text, &c));
    c.compose = false;
    return slr_script_new(&w->uncond, s->g->m, w->negative, &c);
}

int slr_wording_new(slr_wording *out, slr_run *s, const char *prompt, const char *negative,
                    int evaluations, int hr_evaluations)
{
    *out = (slr_wording){.known = {.m = s->g->m}};
    int rc = read_texts(out, s, prompt, negative);
    if (rc >= 0)
        rc = parse(out, s, evaluations, hr_evaluations);
    if (rc >= 0)
        rc = find_networks(out, s);
    if (rc < 0)
        slr_wording_free(out, s->g->m);
    return rc;
}

void slr_wording_free(slr_wording *w, slr_mem *m)
{
    for (size_t i = 0; i < w->n_items; i++)
        slr_network_unref(w->item[i].network);
    slr_free(m, w->item);
    slr_known_free(&w->known);
    slr_prompt_tags_free(&w->tags);
    slr_script_free(&w->positive);
    slr_script_free(&w->uncond);
    slr_free(m, w->full);
    slr_free(m, w->negative);
    *w = (slr_wording){.known = {.m = m}};
}

/* --- at work --- */

static int apply_to(const slr_wording *w, slr_model *model, const slr_cancel_flag *cancel)
{
    SLR_TRY(slr_engine_set_networks(model->engine, w->item, w->n_items, cancel));
    return slr_conds_set_embeddings(model->conds, w->known.at, w->known.n);
}

/* Another checkpoint may be of another architecture, as refiners are: networks of the first do not
 * fit it then. */
static int apply_if_fits(const slr_wording *w, const slr_run *s, slr_model *model, int level)
{
    const slr_generator *g = s->g;
    int rc = apply_to(w, model, s->r->cancel);
    if (rc >= 0 || rc == SDLORA_ENOMEM || rc == SDLORA_ECANCELED)
        return rc;
    slr_logf(&g->log, level, "%s works without networks: %s", slr_checkpoint_path(model->base),
             sdlora_last_error()->message);
    slr_clear();
    SLR_TRY(slr_engine_set_networks(model->engine, NULL, 0, NULL));
    return slr_conds_set_embeddings(model->conds, NULL, 0);
}

int slr_wording_apply(const slr_wording *w, slr_run *s, const slr_pass *p)
{
    if (p->model == s->g->model[SLR_ROLE_BASE])
        SLR_TRY(apply_to(w, p->model, s->r->cancel));
    else
        SLR_TRY(apply_if_fits(w, s, p->model, SLR_LOG_WARN));
    return p->refiner ? apply_if_fits(w, s, p->refiner, SLR_LOG_INFO) : SDLORA_OK;
}
