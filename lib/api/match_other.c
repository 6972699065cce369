/* SPDX-License-Identifier: MIT */
/* Checkpoints besides the model that a parameters text names, by name and hash, and what it says of
 * pictures to start from. */
#include "api/match.h"

#include <string.h>

#include "base/status.h"
#include "base/thread.h"
#include "models/checkpoint.h"

/* How a file was found. */
enum { NOT, BY_NAME, BY_HASH, BY_NAME_ALONE /* its hash is another */ };

static slr_str without_folders(slr_str name)
{
    size_t at = name.n;
    while (at && name.p[at - 1] != '/' && name.p[at - 1] != '\\')
        at--;
    return (slr_str){name.p + at, name.n - at};
}

/* The file of a name: the model's own, or one in the directories alone, since a text may name what
 * it likes.  *path NULL: there is none. */
static int by_name(slr_matching *k, slr_str name, char **path)
{
    const char *base = slr_checkpoint_path(k->g->ckpt->base);
    slr_str last = without_folders(name);
    /* a folder's name has no ending */
    bool itself =
        slr_folders_means(last, slr_path_base(base)) || slr_str_eq(last, slr_path_base(base));
    int rc = SDLORA_OK;
    *path = NULL;
    if (!itself || last.n < name.n)
        rc = slr_api_other_named(k->g, name, path);
    if (rc == SDLORA_ENOMEM)
        return rc;
    slr_clear();
    if (!*path && itself)
        *path = slr_strdup(k->m, base);
    return *path || !itself ? SDLORA_OK : SDLORA_ENOMEM;
}

/* Whatever its name.  Whole files are read. */
static int by_hash(slr_matching *k, slr_str digits, char **path)
{
    slr_byhash_wanted w = {.digits = digits};
    slr_watch watch;
    slr_watch_enter(&watch, &k->g->cancel);
    int rc = slr_byhash_find(slr_finder_hashes(k->g->finder), &k->g->start.ckpts.dirs,
                             SLR_BYHASH_FILE, &w, 1);
    slr_watch_leave(&watch);
    *path = w.path;
    slr_free(k->m, w.stem);
    return rc;
}

/* The file with name and hash, else one with the hash, else, as in AUTOMATIC1111, the one with the
 * name.  *path is the caller's, even after a failure. */
static int find(slr_matching *k, const slr_api_title *t, char **path, int *how)
{
    bool same = true;
    char *hashed = NULL;
    SLR_TRY(by_name(k, t->name, path));
    if (*path && t->hash.n)
        SLR_TRY(slr_match_is(k, *path, SLR_BYHASH_FILE, t->hash, &same));
    *how = !*path ? NOT : same ? BY_NAME : BY_NAME_ALONE;
    if (!t->hash.n || *how == BY_NAME)
        return SDLORA_OK;
    int rc = by_hash(k, t->hash, &hashed);
    if (!hashed)
        return rc;
    slr_free(k->m, *path);
    *path = hashed;
    *how = BY_HASH;
    return rc;
}

/* A checkpoint besides the model: its option gets the file, unless the caller chose one. */
static int match_other(slr_matching *k, const char *key, int role, const char *without)
{
    const slr_api_other *c = &k->g->start.other[role];
    const char *value = slr_info_get(k->info, key), *option = slr_api_other_option(role);
    char *path = NULL;
    int how = NOT;
    if (!value || !strcmp(value, "Use same checkpoint") || !strcmp(value, "None") || c->given ||
        slr_opt_given((slr_opt){k->o, "generate"}, option))
        return SDLORA_OK;
    slr_api_title t = slr_api_title_of(value);
    int rc = find(k, &t, &path, &how);
    if (rc >= 0 && path)
        rc = slr_options_set_text(k->o, option, path);
    if (how == NOT)
        slr_buf_printf(k->notes, "%s: %.200s is not in the directories of models: %s\n", key, value,
                       without);
    else if (how == BY_HASH)
        slr_buf_printf(k->notes, "%s: %.200s is %s here\n", key, value, path);
    else if (how == BY_NAME_ALONE)
        slr_buf_printf(k->notes, "%s: %s is another file than the picture's %.200s\n", key, path,
                       value);
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
        slr_buf_puts(k->notes,
                     "the picture was made with a mask, which its text does not hold: give "
                     "it as mask, or all of the picture changes\n");
    if (!s->init.data || !slr_opt_bool((slr_opt){k->o, "generate"}, "enable_hr"))
        return SDLORA_OK;
    slr_buf_puts(k->notes, "hires fix is left out, since there is a picture to start from\n");
    return slr_options_set_text(k->o, "enable_hr", "false");
}
