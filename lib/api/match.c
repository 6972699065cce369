/* SPDX-License-Identifier: MIT */
/* Whether what a parameters text names is what a generator has: model, VAE, networks, embeddings,
 * by their hashes.  Tags of networks that go by another name here are renamed, as AUTOMATIC1111
 * does when a text is pasted. */
#include "api/match.h"

#include <stdio.h>
#include <string.h>

#include "base/status.h"
#include "base/thread.h"

static void note(slr_matching *k, const char *what, slr_str name, const char *why)
{
    slr_buf_printf(k->notes, "%s%.*s: %s\n", what, (int)(name.n < 200 ? name.n : 200), name.p, why);
}

/* What hashes is watched, and what opens networks is not, since those are kept. */
int slr_match_is(slr_matching *k, const char *path, int of, slr_str hash, bool *same)
{
    slr_watch w;
    slr_watch_enter(&w, &k->g->cancel);
    int rc = slr_byhash_is(slr_finder_hashes(k->g->finder), path, of, hash, same);
    slr_watch_leave(&w);
    return rc;
}

/* --- model and VAE --- */

static bool first_hash(void *user, slr_info_hash h)
{
    snprintf(user, 65, "%.*s", (int)(h.hash.n < 65 ? h.hash.n : 0), h.hash.p);
    return false;
}

/* What a text says of a file's hash: in a field of its own, or in "Hashes". */
static bool find_hash(const slr_info *i, const char *field, const char *kind, char out[65])
{
    const char *value = slr_info_get(i, field);
    out[0] = '\0';
    if (value)
        first_hash(out, (slr_info_hash){{"", 0}, slr_str_trim(slr_str_of(value))});
    else
        slr_info_hashes(i, kind, first_hash, out);
    return out[0] != '\0';
}

static int match_file(slr_matching *k, const char *what, const char *key, const char *kind,
                      const char *field, const char *path)
{
    char digits[65];
    bool same = true;
    const char *name = slr_info_get(k->info, key);
    slr_buf why;
    if (!find_hash(k->info, field, kind, digits))
        return SDLORA_OK;
    if (path)
        SLR_TRY(slr_match_is(k, path, SLR_BYHASH_FILE, slr_str_of(digits), &same));
    if (path && same)
        return SDLORA_OK;
    slr_buf_init(&why, k->m);
    slr_buf_printf(&why, "the picture's %s has the hash %s%s%s, ", what, digits,
                   name ? ", its name is " : "", name ? name : "");
    if (path)
        slr_buf_printf(&why, "%s is another", path);
    else
        slr_buf_puts(&why, "here is none but the model's own");
    int rc = slr_buf_ok(&why);
    if (rc >= 0)
        note(k, key, slr_str_of(""), why.data);
    slr_buf_free(&why);
    return rc;
}

/* A VAE of the directories that has the name is taken, unless the caller chose one. */
static int match_vae(slr_matching *k)
{
    sdlora_generator *g = k->g;
    const char *name = slr_info_get(k->info, "VAE");
    char *path = NULL;
    int rc;
    if (g->vae)
        return match_file(k, "VAE", "VAE", "vae", "VAE hash", g->vae->path);
    if (name && slr_folders_named(&g->start.vaes, "VAE", slr_path_base(name), &path) < 0) {
        if (sdlora_last_error()->code == SDLORA_ENOMEM)
            return SDLORA_ENOMEM;
        slr_clear();
    }
    rc = match_file(k, "VAE", "VAE", "vae", "VAE hash", path);
    if (rc >= 0 && path && !slr_opt_given((slr_opt){k->o, "generate"}, "sd_vae"))
        rc = slr_options_set_text(k->o, "sd_vae", slr_path_base(name));
    slr_free(k->m, path);
    return rc;
}

/* --- networks --- */

/* "<lora:NAME" with what ends the name behind it, from `at` on. */
static const char *find_tag(const char *at, slr_str name)
{
    static const char open[] = "<lora:";
    while ((at = strstr(at, open))) {
        at += sizeof open - 1;
        if (!strncmp(at, name.p, name.n) && (at[name.n] == ':' || at[name.n] == '>'))
            return at;
    }
    return NULL;
}

static int rename_in(slr_matching *k, const char *option, slr_str from, const char *to)
{
    const char *text = slr_opt_text((slr_opt){k->o, "generate"}, option), *at = text, *tag;
    slr_buf b;
    if (!text || !find_tag(text, from))
        return SDLORA_OK;
    slr_buf_init(&b, k->m);
    while ((tag = find_tag(at, from))) {
        slr_buf_add(&b, at, (size_t)(tag - at));
        slr_buf_puts(&b, to);
        at = tag + from.n;
    }
    slr_buf_puts(&b, at);
    int rc = slr_buf_ok(&b);
    if (rc >= 0)
        rc = slr_options_set_text(k->o, option, b.data);
    slr_buf_free(&b);
    return rc;
}

/* What goes by this name here; *path is the caller's, NULL: nothing does. */
static int by_name(slr_matching *k, slr_str name, char **path)
{
    slr_network *n = NULL;
    char *text = slr_strndup(k->m, name.p, name.n);
    *path = NULL;
    if (!text)
        return SDLORA_ENOMEM;
    int rc = slr_finder_find(k->g->finder, "lora", text, &n);
    slr_free(k->m, text);
    if (rc == SDLORA_ENOMEM)
        return rc;
    slr_clear();
    if (rc >= 0 && slr_network_path(n) && !(*path = slr_strdup(k->m, slr_network_path(n))))
        rc = SDLORA_ENOMEM;
    slr_network_unref(n);
    return rc == SDLORA_ENOMEM ? rc : SDLORA_OK;
}

/* Texts of JSON end with the callback: they are copied. */
static int add_missing(slr_matching *k, slr_info_hash h, const char *path)
{
    slr_match_missing *x = &k->missing[k->n_missing++];
    x->name = slr_strndup(k->m, h.name.p, h.name.n);
    x->hash = slr_strndup(k->m, h.hash.p, h.hash.n);
    x->path = path ? slr_strdup(k->m, path) : NULL;
    return x->name && x->hash && (x->path || !path) ? SDLORA_OK : SDLORA_ENOMEM;
}

static bool is_tagged(const slr_matching *k, slr_str name)
{
    const char *prompt = slr_opt_text((slr_opt){k->o, "generate"}, "prompt");
    return prompt && find_tag(prompt, name);
}

static int match_lora(slr_matching *k, slr_info_hash h)
{
    bool same = false;
    char *path;
    SLR_TRY(by_name(k, h.name, &path));
    int rc = path ? slr_match_is(k, path, SLR_BYHASH_NETWORK, h.hash, &same) : SDLORA_OK;
    if (rc >= 0 && !same)
        rc = add_missing(k, h, path);
    slr_free(k->m, path);
    return rc;
}

static bool each_lora(void *user, slr_info_hash h)
{
    slr_matching *k = user;
    if (k->n_loras++ == SLR_MATCH_MOST) {
        note(k, "lora ", h.name, "is not looked for, nor is what follows: the text has too many");
        return false;
    }
    if (atomic_load(&k->g->cancel))
        k->rc = slr_fail(SDLORA_ECANCELED, "sdlora_generator_match", "canceled");
    else if (is_tagged(k, h.name))
        k->rc = match_lora(k, h);
    return k->rc >= 0;
}

static int settle(slr_matching *k, const slr_match_missing *x, const char *stem)
{
    slr_buf why;
    slr_str name = slr_str_of(x->name);
    if (!is_tagged(k, name)) /* renamed already, by a field that says the same */
        return SDLORA_OK;
    slr_buf_init(&why, k->m);
    if (stem)
        slr_buf_printf(&why, "goes by the name %s here", stem);
    else if (x->path)
        slr_buf_printf(&why, "%s is another file than the picture's, whose hash is %s", x->path,
                       x->hash);
    else
        slr_buf_printf(&why, "is not in the directories, neither by name nor by its hash %s",
                       x->hash);
    int rc = slr_buf_ok(&why);
    if (rc >= 0)
        note(k, "lora ", name, why.data);
    if (rc >= 0 && stem)
        rc = rename_in(k, "prompt", name, stem);
    if (rc >= 0 && stem)
        rc = rename_in(k, "hr_prompt", name, stem);
    slr_buf_free(&why);
    return rc;
}

/* One walk for all that are missing. */
static int settle_all(slr_matching *k)
{
    slr_byhash_wanted wanted[SLR_MATCH_MOST];
    slr_watch w;
    for (size_t i = 0; i < k->n_missing; i++)
        wanted[i] = (slr_byhash_wanted){.digits = slr_str_of(k->missing[i].hash)};
    slr_watch_enter(&w, &k->g->cancel);
    int rc = slr_byhash_find(slr_finder_hashes(k->g->finder), slr_finder_dirs(k->g->finder),
                             SLR_BYHASH_NETWORK, wanted, k->n_missing);
    slr_watch_leave(&w);
    for (size_t i = 0; i < k->n_missing; i++) {
        if (rc >= 0)
            rc = settle(k, &k->missing[i], wanted[i].stem);
        slr_free(k->m, wanted[i].stem);
        slr_free(k->m, wanted[i].path);
    }
    return rc;
}

static void free_missing(slr_matching *k)
{
    for (size_t i = 0; i < k->n_missing; i++) {
        slr_free(k->m, k->missing[i].name);
        slr_free(k->m, k->missing[i].hash);
        slr_free(k->m, k->missing[i].path);
    }
}

/* --- embeddings --- */

static bool each_embedding(void *user, slr_info_hash h)
{
    slr_matching *k = user;
    size_t n;
    slr_network *const *known = slr_generator_embeddings(k->g->gen, &n);
    for (size_t i = 0; i < n; i++) {
        const char *name = slr_network_name(known[i]), *path = slr_network_path(known[i]);
        bool same = true;
        if (strlen(name) != h.name.n || memcmp(name, h.name.p, h.name.n))
            continue;
        if (path)
            k->rc = slr_match_is(k, path, SLR_BYHASH_NETWORK, h.hash, &same);
        if (k->rc >= 0 && !same)
            note(k, "embedding ", h.name, "is another file than the picture's");
        return k->rc >= 0;
    }
    note(k, "embedding ", h.name, "is not here");
    return true;
}

static int match_all(slr_matching *k)
{
    sdlora_generator *g = k->g;
    SLR_TRY(
        match_file(k, "model", "Model", "model", "Model hash", slr_checkpoint_path(g->ckpt->base)));
    SLR_TRY(match_vae(k));
    SLR_TRY(slr_match_others(k));
    SLR_TRY(slr_match_start(k));
    slr_info_hashes(k->info, "lora", each_lora, k);
    SLR_TRY(k->rc);
    SLR_TRY(settle_all(k));
    slr_info_hashes(k->info, "embed", each_embedding, k);
    SLR_TRY(k->rc);
    return slr_buf_ok(k->notes);
}

int sdlora_generator_match(sdlora_generator *g, sdlora_options *o, const char *text, char **notes)
{
    slr_info info;
    slr_buf lines;

    slr_clear();
    if (notes)
        *notes = NULL;
    SLR_TRY(slr_api_given(g, "g", __func__));
    SLR_TRY(slr_api_given(text, "text", __func__));
    SLR_TRY(slr_api_given(o, "o", __func__));
    SLR_TRY(slr_api_kind(o, "generate", __func__));
    if (slr_utf8_valid(text, strlen(text)) != strlen(text))
        return slr_fail(SDLORA_EINVAL, __func__, "the text is not UTF-8");
    slr_mem *m = g->ckpt->ctx->mem;
    atomic_store(&g->cancel, 0);
    SLR_TRY(slr_info_read(&info, m, text));
    slr_buf_init(&lines, m);
    slr_matching k = {.g = g, .m = m, .o = o, .info = &info, .notes = &lines};
    int rc = slr_info_complete(&info, m);
    if (rc >= 0)
        rc = match_all(&k);
    free_missing(&k);
    if (rc >= 0 && notes && !(*notes = slr_buf_take(&lines)))
        rc = SDLORA_ENOMEM;
    slr_buf_free(&lines);
    slr_info_free(&info);
    return rc;
}
