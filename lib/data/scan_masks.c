/* SPDX-License-Identifier: MIT */
/* The masks in a folder of pictures: whose they are by name, whatever the case of the ending, and
 * which of them nobody has.  Refuses to decode them: a mask that cannot be read is a failure of
 * those alone who need it. */
#include <string.h>

#include "base/map.h"
#include "base/status.h"
#include "data/dataset_impl.h"
#include "io/file.h"

/* The first of two that are for the same picture is taken; the other is nobody's. */
static int add(slr_folder_masks *f, slr_mem *m, const char *name, size_t at)
{
    int64_t known;
    size_t stem = strlen(name) - strlen(SLR_MASK_ENDING);
    if (slr_map_getn(f->by_stem, name, stem, &known))
        return SDLORA_OK;
    char *key = slr_strndup(m, name, stem);
    int rc = key ? slr_map_set(f->by_stem, key, (int64_t)at) : SDLORA_ENOMEM;
    slr_free(m, key);
    return rc;
}

int slr_folder_masks_open(slr_folder_masks *f, slr_mem *m, const char *dir, const slr_list *names)
{
    *f = (slr_folder_masks){.dir = dir, .names = names};
    f->used = slr_calloc(m, names->n + 1, sizeof *f->used);
    if (!f->used)
        return SDLORA_ENOMEM;
    SLR_TRY(slr_map_new(&f->by_stem, m));
    for (size_t i = 0; i < names->n; i++)
        if (slr_is_mask(names->item[i]))
            SLR_TRY(add(f, m, names->item[i], i));
    return SDLORA_OK;
}

void slr_folder_masks_free(slr_folder_masks *f, slr_mem *m)
{
    slr_map_free(f->by_stem);
    slr_free(m, f->used);
}

static int hash_mask(slr_dataset *d, slr_item *item)
{
    void *bytes;
    size_t n;
    int rc = slr_file_read(d->m, item->mask, SLR_PICTURE_BYTES, &bytes, &n);
    if (rc == SDLORA_ENOMEM)
        return rc;
    if (rc == 0) {
        item->mask_hash = slr_hash64(bytes, n, 0);
        slr_free(d->m, bytes);
    }
    slr_clear();
    return SDLORA_OK;
}

int slr_folder_masks_find(slr_folder_masks *f, slr_dataset *d, const char *picture, slr_item *item)
{
    int64_t at;
    if (!slr_map_getn(f->by_stem, picture, slr_path_stem(picture), &at))
        return SDLORA_OK;
    char *path = slr_path_join(d->m, f->dir, f->names->item[at]);
    bool there = path && slr_file_exists(path);
    if (there)
        item->mask = slr_arena_strdup(d->arena, path);
    slr_free(d->m, path);
    if (!path || (there && !item->mask))
        return SDLORA_ENOMEM;
    if (!there)
        return SDLORA_OK;
    f->used[at] = true;
    return hash_mask(d, item);
}

int slr_folder_masks_strays(const slr_folder_masks *f, slr_dataset *d)
{
    for (size_t i = 0; i < f->names->n; i++) {
        if (!slr_is_mask(f->names->item[i]) || f->used[i])
            continue;
        if (d->n_stray++)
            continue;
        char *path = slr_path_join(d->m, f->dir, f->names->item[i]);
        d->first_stray = path ? slr_arena_strdup(d->arena, path) : NULL;
        slr_free(d->m, path);
        if (!d->first_stray)
            return SDLORA_ENOMEM;
    }
    return SDLORA_OK;
}
