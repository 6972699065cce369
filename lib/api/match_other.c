/* SPDX-License-Identifier: MIT */
/* Checkpoints besides the model that a parameters text names, by name and hash, and what it says of
 * pictures to start from. */
#include "api/match.h"

#include <string.h>

#include "base/status.h"
#include "base/thread.h"
#include "models/checkpoint.h"

/* What a title "name [hash]" says; texts are parts of it. */
typedef struct title {
    slr_str name, hash; /* hash.n 0: none */
} title;

static title title_of(const char *text)
{
    slr_str all = slr_str_trim(slr_str_of(text));
    title t = {.name = all};
    const char *open = all.n && all.p[all.n - 1] == ']' ? strrchr(text, '[') : NULL;
    if (!open || open < all.p)
        return t;
    t.name = slr_str_trim((slr_str){all.p, (size_t)(open - all.p)});
    t.hash = (slr_str){open + 1, (size_t)(all.p + all.n - 1 - (open + 1))};
    return t;
}

/* The file of a name; *path NULL: there is none, or it has another hash. */
static int by_title(slr_matching *k, const title *t, char **path)
{
    bool same = true;
    const char *base = slr_checkpoint_path(k->g->ckpt->base);
    char *name = slr_strndup(k->m, t->name.p, t->name.n);
    slr_str stem = {slr_path_base(base), slr_path_stem(slr_path_base(base))};
    *path = NULL;
    if (!name)
        return SDLORA_ENOMEM;
    int rc = slr_str_eq(stem, name) ? SDLORA_ENOTFOUND : slr_api_other_find(k->g, name, path);
    if (rc == SDLORA_ENOTFOUND && slr_str_eq(stem, name)) /* the model itself */
        rc = (*path = slr_strdup(k->m, base)) ? SDLORA_OK : SDLORA_ENOMEM;
    slr_free(k->m, name);
    if (rc == SDLORA_ENOMEM)
        return rc;
    slr_clear();
    rc = *path && t->hash.n ? slr_match_is(k, *path, t->hash, &same) : SDLORA_OK;
    if (rc >= 0 && same)
        return SDLORA_OK;
    slr_free(k->m, *path);
    *path = NULL;
    return rc;
}

/* Whatever its name.  Whole files are read. */
static int by_digits(slr_matching *k, const title *t, char **path)
{
    slr_byhash_wanted w = {.digits = t->hash};
    slr_watch watch;
    slr_watch_enter(&watch, &k->g->cancel);
    int rc = slr_byhash_find(slr_finder_hashes(k->g->finder), &k->g->start.ckpts.dirs, &w, 1);
    slr_watch_leave(&watch);
    *path = w.path;
    slr_free(k->m, w.stem);
    return rc;
}

/* A checkpoint besides the model: its option gets the file, unless the caller chose one. */
static int match_other(slr_matching *k, const char *key, int role, const char *without)
{
    const slr_api_other *c = &k->g->start.other[role];
    const char *value = slr_info_get(k->info, key), *option = slr_api_other_option(role);
    char *path = NULL;
    if (!value || !strcmp(value, "Use same checkpoint") || !strcmp(value, "None") || c->given ||
        slr_opt_given((slr_opt){k->o, "generate"}, option))
        return SDLORA_OK;
    title t = title_of(value);
    SLR_TRY(by_title(k, &t, &path));
    bool named = path != NULL;
    if (!path && t.hash.n)
        SLR_TRY(by_digits(k, &t, &path));
    int rc = path ? slr_options_set_text(k->o, option, path) : SDLORA_OK;
    if (!path)
        slr_buf_printf(k->notes, "%s: %.200s is not in the directories of models: %s\n", key, value,
                       without);
    else if (!named)
        slr_buf_printf(k->notes, "%s: %.200s is %s here\n", key, value, path);
    slr_free(k->m, path);
    return rc;
}

int slr_match_others(slr_matching *k)
{
    SLR_TRY(match_other(k, "Refiner", SLR_ROLE_REFINER, "there is no refiner"));
    return match_other(k, "Hires checkpoint", SLR_ROLE_SECOND,
                       "the second pass is made with the same model");
}

/* --- what it was made of --- */

/* Pictures and masks are in no text.  A second pass is for pictures from noise. */
int slr_match_start(slr_matching *k)
{
    const slr_api_start *s = &k->g->start;
    if (slr_info_from_picture(k->info) && !s->init.data)
        slr_buf_puts(k->notes, "the picture was made of another one (img2img), which its text does "
                               "not hold: give it as init_image, or this one begins with noise\n");
    else if (slr_info_masked(k->info) && !s->mask.data)
        slr_buf_puts(k->notes, "the picture was made with a mask, which its text does not hold: give "
                               "it as mask, or all of the picture changes\n");
    if (!s->init.data || !slr_opt_bool((slr_opt){k->o, "generate"}, "enable_hr"))
        return SDLORA_OK;
    slr_buf_puts(k->notes, "hires fix is left out, since there is a picture to start from\n");
    return slr_options_set_text(k->o, "enable_hr", "false");
}
