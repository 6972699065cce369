/* SPDX-License-Identifier: MIT */
/* Directories are walked anew for each name, so that files may appear between pictures.  Knows
 * endings of weights and which VAE belongs to a checkpoint; refuses to know what is in files, but
 * for the line of user metadata that names a VAE. */
#include "api/folders.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "api/walk.h"
#include "base/status.h"
#include "base/str.h"
#include "io/json.h"

enum { MAX_METADATA = 1 << 20 };

void slr_folders_init(slr_folders *f, slr_mem *m)
{
    *f = (slr_folders){.m = m, .dirs = {.m = m}};
}

void slr_folders_free(slr_folders *f)
{
    slr_list_free(&f->dirs);
}

static int append(slr_list *l, const char *text, size_t n)
{
    SLR_TRY(slr_grow(l->m, &l->item, &l->cap, l->n + 1, sizeof *l->item));
    char *copy = slr_strndup(l->m, text, n);
    if (!copy)
        return SDLORA_ENOMEM;
    l->item[l->n++] = copy;
    return SDLORA_OK;
}

int slr_folders_add(slr_folders *f, const char *dir)
{
    if (!slr_dir_exists(dir))
        return slr_fail(SDLORA_ENOTFOUND, __func__, "%s is not a directory", dir);
    return append(&f->dirs, dir, strlen(dir));
}

/* A folder that can't be read has nothing. */
static int list_dir(slr_list *list, slr_mem *m, const char *dir)
{
    int rc = slr_dir_list(list, m, dir);

    if (rc >= 0 || rc == SDLORA_ENOMEM)
        return rc;
    slr_clear();
    return SDLORA_OK;
}

/* --- the walk --- */

typedef struct search {
    slr_mem *m;
    const char *dir;
    slr_folders_fn match;
    const void *user;
    char *found; /* NULL: not yet */
} search;

static int visit(void *user, const char *path)
{
    search *s = user;
    const char *inner = path + strlen(s->dir);

    if (!s->match(s->user, inner + strspn(inner, "/")) || !slr_file_exists(path))
        return 0;
    s->found = slr_strdup(s->m, path);
    return s->found ? 1 : SDLORA_ENOMEM;
}

int slr_folders_find(const slr_folders *f, slr_folders_fn match, const void *user, char **path)
{
    search s = {.m = f->m, .match = match, .user = user};
    int rc = SDLORA_OK;

    for (size_t i = 0; rc >= 0 && !s.found && i < f->dirs.n; i++) {
        s.dir = f->dirs.item[i];
        rc = slr_walk(f->m, NULL, s.dir, visit, &s);
    }
    *path = s.found;
    return rc < 0 ? rc : SDLORA_OK;
}

/* --- names --- */

typedef struct naming {
    slr_list *out;
    bool stems;
} naming;

static int name_file(void *user, const char *path)
{
    const naming *k = user;
    const char *base = slr_path_base(path);

    if (!slr_walk_is_weights(base) || !slr_file_exists(path))
        return 0;
    return append(k->out, base, k->stems ? slr_path_stem(base) : strlen(base));
}

static int by_alphabet(const void *a, const void *b)
{
    const char *x = *(char *const *)a, *y = *(char *const *)b;
    int order = strcasecmp(x, y);

    return order ? order : strcmp(x, y);
}

static void drop_doubles(slr_list *l)
{
    size_t n = 0;

    for (size_t i = 0; i < l->n; i++)
        if (n && !strcmp(l->item[n - 1], l->item[i]))
            slr_free(l->m, l->item[i]);
        else
            l->item[n++] = l->item[i];
    l->n = n;
}

int slr_folders_names(const slr_folders *f, bool stems, slr_list *out)
{
    naming k = {out, stems};

    *out = (slr_list){.m = f->m};
    for (size_t i = 0; i < f->dirs.n; i++)
        SLR_TRY(slr_walk(f->m, NULL, f->dirs.item[i], name_file, &k));
    if (out->n)
        qsort(out->item, out->n, sizeof *out->item, by_alphabet);
    drop_doubles(out);
    return SDLORA_OK;
}

/* AUTOMATIC1111 on Windows writes backslashes between folders. */
static bool begins(const char *path, slr_str name)
{
    for (size_t i = 0; i < name.n; i++)
        if (path[i] != name.p[i] && !(path[i] == '/' && name.p[i] == '\\'))
            return false;
    return true;
}

bool slr_folders_means(slr_str name, const char *inner)
{
    bool folders = memchr(name.p, '/', name.n) || memchr(name.p, '\\', name.n);
    const char *base = slr_path_base(inner), *path = folders ? inner : base;
    size_t stem = (size_t)(base - path) + slr_path_stem(base);

    return slr_walk_is_weights(base) && (name.n == stem || name.n == strlen(path)) &&
           begins(path, name);
}

static bool is_named(const void *user, const char *inner)
{
    const slr_str *name = user;

    return slr_folders_means(*name, inner);
}

int slr_folders_within(const slr_folders *f, const char *what, slr_str name, char **path)
{
    int n = (int)(name.n < 1000 ? name.n : 1000);

    SLR_TRY(slr_folders_find(f, is_named, &name, path));
    if (*path)
        return SDLORA_OK;
    if (!f->dirs.n)
        return slr_fail(SDLORA_ENOTFOUND, __func__,
                        "there is no %s '%.*s': no directory of them was given", what, n, name.p);
    return slr_fail(SDLORA_ENOTFOUND, __func__, "there is no %s '%.*s' in %s%s", what, n, name.p,
                    f->dirs.item[0], f->dirs.n > 1 ? " or the other directories" : "");
}

int slr_folders_named(const slr_folders *f, const char *what, const char *name, char **path)
{
    if (!strchr(name, '/') || !slr_file_exists(name))
        return slr_folders_within(f, what, slr_str_of(name), path);
    *path = slr_strdup(f->m, name);
    return *path ? SDLORA_OK : SDLORA_ENOMEM;
}

/* --- the VAE of a checkpoint --- */

typedef struct beside {
    const char *stem; /* of the checkpoint */
    size_t n;
    bool exact; /* nothing but ".vae" may follow it */
    bool vae;   /* ".vae" must stand in front of the ending */
} beside;

static bool is_beside(const void *user, const char *inner)
{
    const beside *b = user;
    const char *base = slr_path_base(inner);
    size_t n = slr_path_stem(base);
    bool vae = n > 4 && !strncmp(base + n - 4, ".vae", 4);

    if (!slr_walk_is_weights(base) || strncmp(base, b->stem, b->n) || (b->vae && !vae))
        return false;
    return b->exact ? n - (vae ? 4 : 0) == b->n : base[b->n] == '.';
}

/* "vae" of <stem>.json, or "": a file that is something else says nothing. */
static int metadata_name(slr_mem *m, const char *ckpt, slr_buf *name)
{
    json_t *root;
    slr_buf path;

    slr_buf_init(&path, m);
    slr_buf_printf(
        &path, "%.*s.json",
        (int)(strlen(ckpt) - strlen(slr_path_base(ckpt)) + slr_path_stem(slr_path_base(ckpt))),
        ckpt);
    int rc = slr_buf_ok(&path);
    if (rc >= 0 && slr_file_exists(path.data) &&
        slr_json_read(&root, m, path.data, MAX_METADATA) >= 0) {
        const char *vae = json_string_value(json_object_get(root, "vae"));
        if (vae)
            slr_buf_printf(name, "%s", vae);
        json_decref(root);
        rc = slr_buf_ok(name);
    }
    slr_buf_free(&path);
    if (rc >= 0)
        slr_clear();
    return rc;
}

/* Beside the checkpoint, not below. */
static int find_near(const slr_folders *f, const beside *b, const char *ckpt, char **path)
{
    slr_list list = {0};
    size_t n = strlen(ckpt) - strlen(slr_path_base(ckpt));
    char *dir = n ? slr_strndup(f->m, ckpt, n) : slr_strdup(f->m, ".");

    *path = NULL;
    if (!dir)
        return SDLORA_ENOMEM;
    int rc = list_dir(&list, f->m, dir);
    for (size_t i = 0; rc >= 0 && !*path && i < list.n; i++)
        if (is_beside(b, list.item[i]) && !(*path = slr_path_join(f->m, dir, list.item[i])))
            rc = SDLORA_ENOMEM;
    slr_list_free(&list);
    slr_free(f->m, dir);
    return rc;
}

static int find_beside(const slr_folders *f, const char *ckpt, char **path)
{
    const char *base = slr_path_base(ckpt);

    for (int exact = 1; exact >= 0; exact--) {
        beside b = {.stem = base, .n = slr_path_stem(base), .exact = exact, .vae = true};
        SLR_TRY(find_near(f, &b, ckpt, path));
        if (*path)
            return SDLORA_OK;
        b.vae = false;
        SLR_TRY(slr_folders_find(f, is_beside, &b, path));
        if (*path && slr_path_same(*path, ckpt)) { /* both lie in one directory */
            slr_free(f->m, *path);
            *path = NULL;
        }
        if (*path)
            return SDLORA_OK;
    }
    return SDLORA_OK;
}

static bool is_word(const char *text, const char *word)
{
    return !strcasecmp(text, word);
}

int slr_folders_vae(const slr_folders *f, const char *setting, const char *ckpt, char **path)
{
    slr_buf name;

    *path = NULL;
    if (is_word(setting, "None"))
        return SDLORA_OK;
    if (!is_word(setting, "Automatic") && !is_word(setting, "auto"))
        return slr_folders_named(f, "VAE", setting, path);
    slr_buf_init(&name, f->m);
    int rc = metadata_name(f->m, ckpt, &name);
    bool given = rc >= 0 && name.len && !is_word(name.data, "Automatic");
    bool none = given && is_word(name.data, "None");
    slr_str wanted = slr_str_of(name.data);
    if (given && !none)
        rc = slr_folders_find(f, is_named, &wanted, path);
    slr_buf_free(&name);
    if (rc < 0 || *path || none)
        return rc;
    return find_beside(f, ckpt, path);
}
