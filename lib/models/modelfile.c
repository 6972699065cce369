/* SPDX-License-Identifier: MIT */
/* Opens whatever a model comes in and gives one list of named tensors.  Knows containers, shards
 * and the usual broken downloads; refuses to know what the names mean. */
#include "models/modelfile.h"

#include <string.h>

#include "base/map.h"
#include "base/status.h"
#include "base/str.h"
#include "io/file.h"
#include "io/json.h"
#include "io/safetensors.h"
#include "io/torchfile.h"

#define MAX_INDEX_BYTES ((uint64_t)64 << 20)

typedef struct item {
    const char *name; /* in names */
    slr_tensor t;
} item;

struct slr_bag {
    slr_mem *m;
    slr_arena *names;
    slr_map *index; /* name -> position in item[] */
    item *item;
    size_t n, cap;
    slr_safetensors **safe; /* kept for their storages and metadata */
    size_t n_safe, cap_safe;
    slr_torchfile **torch;
    size_t n_torch, cap_torch;
};

int slr_bag_new(slr_bag **out, slr_mem *m)
{
    *out = NULL;
    slr_bag *b = slr_calloc(m, 1, sizeof *b);
    if (!b)
        return SDLORA_ENOMEM;
    b->m = m;
    int rc = slr_arena_new(&b->names, m);
    if (rc == SDLORA_OK)
        rc = slr_map_new(&b->index, m);
    if (rc < 0) {
        slr_bag_free(b);
        return rc;
    }
    *out = b;
    return SDLORA_OK;
}

void slr_bag_free(slr_bag *b)
{
    if (!b)
        return;
    for (size_t i = 0; i < b->n_safe; i++)
        slr_safetensors_close(b->safe[i]);
    for (size_t i = 0; i < b->n_torch; i++)
        slr_torchfile_close(b->torch[i]);
    slr_free(b->m, b->safe);
    slr_free(b->m, b->torch);
    slr_free(b->m, b->item);
    slr_map_free(b->index);
    slr_arena_free(b->names);
    slr_free(b->m, b);
}

static int put(slr_bag *b, const char *name, const slr_tensor *t)
{
    int64_t at;
    if (slr_map_get(b->index, name, &at)) {
        b->item[at].t = *t;
        return SDLORA_OK;
    }
    SLR_TRY(slr_grow(b->m, &b->item, &b->cap, b->n + 1, sizeof *b->item));
    char *copy = slr_arena_strdup(b->names, name);
    if (!copy)
        return SDLORA_ENOMEM;
    SLR_TRY(slr_map_set(b->index, name, (int64_t)b->n));
    b->item[b->n++] = (item){copy, *t};
    return SDLORA_OK;
}

static int add_safetensors(slr_bag *b, const char *path)
{
    slr_safetensors *f;
    SLR_TRY(slr_grow(b->m, &b->safe, &b->cap_safe, b->n_safe + 1, sizeof *b->safe));
    SLR_TRY(slr_safetensors_open(&f, b->m, path, true));
    b->safe[b->n_safe++] = f;
    for (size_t i = 0; i < slr_safetensors_count(f); i++) {
        slr_tensor t;
        const char *name = slr_safetensors_at(f, i, &t);
        SLR_TRY(put(b, name, &t));
    }
    return SDLORA_OK;
}

static int add_torch(slr_bag *b, const char *path)
{
    slr_torchfile *f;
    SLR_TRY(slr_grow(b->m, &b->torch, &b->cap_torch, b->n_torch + 1, sizeof *b->torch));
    SLR_TRY(slr_torchfile_open(&f, b->m, path));
    b->torch[b->n_torch++] = f;
    for (size_t i = 0; i < slr_torchfile_count(f); i++) {
        slr_tensor t;
        const char *name = slr_torchfile_at(f, i, &t);
        SLR_TRY(put(b, name, &t));
    }
    return SDLORA_OK;
}

/* Torch files are zips or bare pickles; anything else is the safetensors reader's to judge. */
int slr_bag_add_file(slr_bag *b, const char *path)
{
    static const char *const TORCH[] = {"PK\003\004", "\200\002"};
    char head[4] = {0};
    uint64_t size;
    SLR_TRY(slr_file_size(path, &size));
    SLR_TRY(slr_file_read_at(path, 0, head, size < sizeof head ? (size_t)size : sizeof head));
    for (size_t i = 0; i < sizeof TORCH / sizeof *TORCH; i++)
        if (memcmp(head, TORCH[i], strlen(TORCH[i])) == 0)
            return add_torch(b, path);
    return add_safetensors(b, path);
}

/* Every file that a sharded model's index names, once each. */
static int add_shards(slr_bag *b, const char *folder, const char *index)
{
    json_t *root = NULL, *file;
    slr_map *seen = NULL;
    const char *tensor;
    int rc = slr_json_read(&root, b->m, index, MAX_INDEX_BYTES);
    if (rc < 0)
        return rc;
    json_t *map = json_object_get(root, "weight_map");
    if (!json_is_object(map)) {
        rc = slr_fail(SDLORA_EFORMAT, __func__, "%s has no weight_map", index);
        goto done;
    }
    rc = slr_map_new(&seen, b->m);
    if (rc < 0)
        goto done;
    json_object_foreach(map, tensor, file)
    {
        int64_t known;
        const char *name = json_string_value(file);
        if (!name || !slr_path_is_inner(name)) {
            rc = slr_fail(SDLORA_EFORMAT, __func__,
                          "%s: %s is said to lie in %s, which is no file of this folder", index,
                          tensor, name ? name : "something that is no name");
            goto done;
        }
        if (slr_map_get(seen, name, &known))
            continue;
        char *path = slr_path_join(b->m, folder, name);
        rc = path ? slr_map_set(seen, name, 1) : SDLORA_ENOMEM;
        if (rc == SDLORA_OK)
            rc = slr_bag_add_file(b, path);
        slr_free(b->m, path);
        if (rc < 0)
            goto done;
    }
done:
    slr_map_free(seen);
    json_decref(root);
    return rc;
}

int slr_bag_add_component(slr_bag *b, const char *folder, const char *base)
{
    static const struct {
        const char *ending;
        bool index;
    } FORMS[] = {
        {".safetensors", false},
        {".safetensors.index.json", true},
        {".fp16.safetensors", false},
        {".safetensors.index.fp16.json", true},
        {".bin", false},
    };
    for (size_t i = 0; i < sizeof FORMS / sizeof *FORMS; i++) {
        slr_buf path;
        slr_buf_init(&path, b->m);
        slr_buf_printf(&path, "%s/%s%s", folder, base, FORMS[i].ending);
        int rc = slr_buf_ok(&path);
        bool there = rc == SDLORA_OK && slr_file_exists(path.data);
        if (there)
            rc = FORMS[i].index ? add_shards(b, folder, path.data) : slr_bag_add_file(b, path.data);
        slr_buf_free(&path);
        if (rc < 0 || there)
            return rc;
    }
    return slr_fail(SDLORA_ENOTFOUND, __func__, "%s has no %s.safetensors", folder, base);
}

size_t slr_bag_count(const slr_bag *b)
{
    return b->n;
}

const char *slr_bag_at(const slr_bag *b, size_t i, slr_tensor *t)
{
    if (t)
        *t = b->item[i].t;
    return b->item[i].name;
}

bool slr_bag_find(const slr_bag *b, const char *name, slr_tensor *t)
{
    int64_t at;
    if (!slr_map_get(b->index, name, &at))
        return false;
    *t = b->item[at].t;
    return true;
}

const char *slr_bag_meta(const slr_bag *b, const char *key)
{
    return b->n_safe > 0 ? slr_safetensors_meta(b->safe[0], key) : NULL;
}

size_t slr_bag_meta_count(const slr_bag *b)
{
    return b->n_safe > 0 ? slr_safetensors_meta_count(b->safe[0]) : 0;
}

const char *slr_bag_meta_at(const slr_bag *b, size_t i, const char **value)
{
    return slr_safetensors_meta_at(b->safe[0], i, value);
}
