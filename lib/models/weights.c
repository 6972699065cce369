/* SPDX-License-Identifier: MIT */
/* A set of named frozen tensors.  Knows names, views and who holds the memory under them; refuses
 * to know what a name means. */
#include "models/weights.h"

#include <string.h>

#include "base/map.h"
#include "base/status.h"
#include "base/str.h"
#include "base/thread.h"

struct slr_weights {
    slr_mem *m;
    slr_refs refs;
    char *label;
    slr_map *index; /* name -> position in tensor[] */
    slr_tensor *tensor;
    size_t n, cap;
};

int slr_weights_new(slr_weights **out, slr_mem *m, const char *label)
{
    *out = NULL;
    slr_weights *w = slr_calloc(m, 1, sizeof *w);
    if (!w)
        return SDLORA_ENOMEM;
    w->m = slr_mem_ref(m);
    slr_refs_init(&w->refs);
    w->label = slr_strdup(m, label);
    int rc = w->label ? slr_map_new(&w->index, m) : SDLORA_ENOMEM;
    if (rc < 0) {
        slr_weights_unref(w);
        return rc;
    }
    *out = w;
    return SDLORA_OK;
}

slr_weights *slr_weights_ref(slr_weights *w)
{
    if (w)
        slr_refs_get(&w->refs);
    return w;
}

void slr_weights_unref(slr_weights *w)
{
    if (!w || !slr_refs_put(&w->refs))
        return;
    slr_mem *m = w->m;
    for (size_t i = 0; i < w->n; i++)
        slr_storage_unref(w->tensor[i].storage);
    slr_free(m, w->tensor);
    slr_free(m, w->label);
    slr_map_free(w->index);
    slr_free(m, w);
    slr_mem_unref(m);
}

int slr_weights_put(slr_weights *w, const char *name, const slr_tensor *t)
{
    int64_t at;
    slr_tensor copy = *t;
    if (copy.id == 0)
        copy.id = slr_tensor_next_id();
    if (slr_map_get(w->index, name, &at)) {
        slr_storage_ref(copy.storage);
        slr_storage_unref(w->tensor[at].storage);
        w->tensor[at] = copy;
        return SDLORA_OK;
    }
    SLR_TRY(slr_grow(w->m, &w->tensor, &w->cap, w->n + 1, sizeof *w->tensor));
    SLR_TRY(slr_map_set(w->index, name, (int64_t)w->n));
    slr_storage_ref(copy.storage);
    w->tensor[w->n++] = copy;
    return SDLORA_OK;
}

const slr_tensor *slr_weights_find(const slr_weights *w, const char *name)
{
    int64_t at;
    return slr_map_get(w->index, name, &at) ? &w->tensor[at] : NULL;
}

int slr_weights_get(const slr_weights *w, const char *name, const slr_tensor **out)
{
    *out = slr_weights_find(w, name);
    if (*out)
        return SDLORA_OK;
    return slr_fail(SDLORA_ENOTFOUND, __func__, "%s has no tensor %s", w->label, name);
}

size_t slr_weights_count(const slr_weights *w)
{
    return w->n;
}

const char *slr_weights_at(const slr_weights *w, size_t i, const slr_tensor **t)
{
    int64_t at;
    const char *name = slr_map_at(w->index, i, &at);
    if (t)
        *t = &w->tensor[at];
    return name;
}

const char *slr_weights_label(const slr_weights *w)
{
    return w->label;
}

slr_mem *slr_weights_mem(const slr_weights *w)
{
    return w->m;
}

bool slr_weights_any(const slr_weights *w, const char *prefix)
{
    for (size_t i = 0; i < w->n; i++) {
        int64_t at;
        if (slr_starts(slr_map_at(w->index, i, &at), prefix))
            return true;
    }
    return false;
}
