/* SPDX-License-Identifier: MIT */
/* The refiner of a generator and the checkpoint of its second passes: by handle, or by the option
 * that names one.  Refuses to know what they do. */
#include <string.h>
#include <strings.h>

#include "api/generator.h"
#include "base/status.h"
#include "models/checkpoint.h"

const char *slr_api_other_option(int role)
{
    return role == SLR_ROLE_REFINER ? "refiner_checkpoint" : "hr_checkpoint_name";
}

void slr_api_other_free(slr_api_other *c, slr_mem *m)
{
    sdlora_checkpoint_unref(c->given);
    sdlora_checkpoint_unref(c->named);
    slr_free(m, c->path);
    *c = (slr_api_other){0};
}

static bool is_hash(slr_str s)
{
    if (s.n < 8)
        return false;
    for (size_t i = 0; i < s.n; i++)
        if (!strchr("0123456789abcdefABCDEF", s.p[i]))
            return false;
    return true;
}

slr_api_title slr_api_title_of(const char *text)
{
    slr_str all = slr_str_trim(slr_str_of(text));
    slr_api_title t = {.name = all};
    size_t at = all.n && all.p[all.n - 1] == ']' ? all.n : 0; /* behind the last '[' */

    while (at && all.p[at - 1] != '[')
        at--;
    if (at < 3 || all.p[at - 2] != ' ' || !is_hash((slr_str){all.p + at, all.n - 1 - at}))
        return t;
    t.name = slr_str_trim((slr_str){all.p, at - 2});
    t.hash = (slr_str){all.p + at, all.n - 1 - at};
    return t;
}

int slr_api_other_named(const sdlora_generator *g, slr_str name, char **path)
{
    return slr_folders_within(&g->start.ckpts, "model", name, path);
}

/* Which file an option asks for, by path or title; *path NULL: none.  A picture's words for "none"
 * are read too. */
static int wanted(sdlora_generator *g, int role, slr_opt o, char **path)
{
    const char *name = slr_opt_text(o, slr_api_other_option(role));

    *path = NULL;
    if (!name || !*name || !strcasecmp(name, "None") || !strcasecmp(name, "Use same checkpoint"))
        return SDLORA_OK;
    if (!slr_dir_exists(name) && !slr_file_exists(name))
        return slr_api_other_named(g, slr_api_title_of(name).name, path);
    *path = slr_strdup(g->ckpt->ctx->mem, name);
    return *path ? SDLORA_OK : SDLORA_ENOMEM;
}

/* From now on; ckpt Nullable. */
static int use(sdlora_generator *g, int role, sdlora_checkpoint *ckpt)
{
    return slr_generator_set_model(g->gen, role, ckpt ? ckpt->base : NULL);
}

static void forget(sdlora_generator *g, slr_api_other *c)
{
    sdlora_checkpoint_unref(c->named);
    slr_free(g->ckpt->ctx->mem, c->path);
    c->named = NULL;
    c->path = NULL;
}

/* The model's own file is the model as it was opened. */
static int open_other(sdlora_checkpoint **out, const sdlora_generator *g, const char *path)
{
    SLR_TRY(sdlora_checkpoint_open(out, g->ckpt->ctx, path, NULL));
    if (!slr_checkpoint_same((*out)->base, g->ckpt->base))
        return SDLORA_OK;
    sdlora_checkpoint_unref(*out);
    *out = sdlora_checkpoint_ref(g->ckpt);
    return SDLORA_OK;
}

/* Takes the path over. */
static int use_file(sdlora_generator *g, int role, char *path)
{
    slr_api_other *c = &g->start.other[role];
    sdlora_checkpoint *ckpt = NULL;
    int rc = open_other(&ckpt, g, path);

    if (rc >= 0)
        rc = use(g, role, ckpt);
    if (rc < 0) {
        sdlora_checkpoint_unref(ckpt);
        slr_free(g->ckpt->ctx->mem, path);
        return rc;
    }
    forget(g, c);
    c->named = ckpt;
    c->path = path;
    return SDLORA_OK;
}

int slr_api_other_choose(sdlora_generator *g, int role, slr_opt o)
{
    slr_api_other *c = &g->start.other[role];
    char *path;

    if (c->given || (role == SLR_ROLE_SECOND && !slr_opt_bool(o, "enable_hr")))
        return SDLORA_OK;
    SLR_TRY(wanted(g, role, o, &path));
    if (path && c->path && !strcmp(path, c->path)) {
        slr_free(g->ckpt->ctx->mem, path);
        return SDLORA_OK;
    }
    if (path)
        return use_file(g, role, path);
    if (!c->named)
        return SDLORA_OK;
    SLR_TRY(use(g, role, NULL));
    forget(g, c);
    return SDLORA_OK;
}

static int set_given(sdlora_generator *g, int role, sdlora_checkpoint *ckpt)
{
    slr_api_other *c = &g->start.other[role];

    SLR_TRY(use(g, role, ckpt));
    forget(g, c);
    sdlora_checkpoint_ref(ckpt);
    sdlora_checkpoint_unref(c->given);
    c->given = ckpt;
    return SDLORA_OK;
}

int sdlora_generator_set_refiner(sdlora_generator *g, sdlora_checkpoint *refiner)
{
    slr_clear();
    SLR_TRY(slr_api_given(g, "g", __func__));
    return set_given(g, SLR_ROLE_REFINER, refiner);
}

int sdlora_generator_set_hr_checkpoint(sdlora_generator *g, sdlora_checkpoint *ckpt)
{
    slr_clear();
    SLR_TRY(slr_api_given(g, "g", __func__));
    return set_given(g, SLR_ROLE_SECOND, ckpt);
}
