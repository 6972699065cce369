/* SPDX-License-Identifier: MIT */
/* Merging networks into weights: W + sum of strength * delta, summed in f32 and rounded once to the
 * base's type.  The base's tensors are never written, so dropping the result removes the networks
 * exactly. */
#include "networks/kind.h"

#include "base/status.h"
#include "base/str.h"
#include "base/thread.h"

typedef struct merge_job {
    const slr_stack_item *items;
    size_t n;
    int threads, part;
    const char *path;
    float *w;
} merge_job;

#define ROWS_PER_PIECE 16

static void merge_rows(void *arg, int64_t lo, int64_t hi)
{
    const merge_job *job = arg;
    for (size_t i = 0; i < job->n; i++) {
        const slr_network *n = job->items[i].network;
        const slr_module *mod = slr_network_find(n, job->part, job->path);
        double strength = job->part == SLR_PART_UNET ? job->items[i].unet : job->items[i].te;
        if (mod && strength != 0)
            mod->kind->merge(mod, &n->slot[mod->slot], n->params, strength, lo, hi, job->w);
    }
}

static bool adapted(const merge_job *job)
{
    for (size_t i = 0; i < job->n; i++)
        if (slr_network_find(job->items[i].network, job->part, job->path))
            return true;
    return false;
}

/* A network that was opened against another checkpoint must not write past a row. */
static int check_fit(const merge_job *job, const char *name, const slr_tensor *t)
{
    for (size_t i = 0; i < job->n; i++) {
        const slr_network *n = job->items[i].network;
        const slr_module *mod = slr_network_find(n, job->part, job->path);
        const slr_target *want = mod ? &mod->target : NULL;
        if (want && (t->rank < 2 || t->dim[0] != want->out ||
                     slr_tensor_count(t) != want->out * want->in * want->kh * want->kw))
            return slr_fail(SDLORA_EINVAL, __func__, "%s: %s does not fit %s of this checkpoint",
                            n->path ? n->path : n->name, want->name, name);
    }
    return SDLORA_OK;
}

static int merge_tensor(slr_weights *out, slr_mem *m, const char *name, const slr_tensor *t,
                        merge_job *job)
{
    const slr_dtype_row *type = slr_dtype(t->dtype);
    size_t count = (size_t)slr_tensor_count(t);
    slr_storage *storage = NULL;
    SLR_TRY(check_fit(job, name, t));
    job->w = slr_calloc(m, count, sizeof(float));
    int rc = job->w ? slr_tensor_to_f32(t, job->w) : SDLORA_ENOMEM;
    if (rc >= 0)
        rc = slr_storage_new(&storage, m, count * type->size);
    if (rc >= 0) {
        slr_parallel(job->threads, t->dim[0], ROWS_PER_PIECE, merge_rows, job);
        type->from_f32(slr_storage_data(storage), job->w, count);
        slr_tensor merged = *t;
        merged.data = slr_storage_data(storage);
        merged.storage = storage;
        merged.id = slr_tensor_next_id();
        rc = slr_weights_put(out, name, &merged);
    }
    slr_storage_unref(storage);
    slr_free(m, job->w);
    return rc;
}

int slr_merge_part(slr_weights **out, slr_mem *m, int threads, slr_weights *base, int part,
                   const slr_stack_item *items, size_t n)
{
    *out = NULL;
    slr_weights *merged = NULL;
    int rc = slr_weights_new(&merged, m, slr_weights_label(base));
    for (size_t i = 0; rc >= 0 && i < slr_weights_count(base); i++) {
        const slr_tensor *t;
        const char *name = slr_weights_at(base, i, &t);
        merge_job job = {.items = items, .n = n, .threads = threads, .part = part};
        const bool weight = slr_ends(name, ".weight");
        char *path = weight ? slr_strndup(m, name, slr_str_of(name).n - 7) : NULL;
        job.path = path;
        if (weight && !path)
            rc = SDLORA_ENOMEM;
        else if (path && adapted(&job))
            rc = merge_tensor(merged, m, name, t, &job);
        else
            rc = slr_weights_put(merged, name, t);
        slr_free(m, path);
    }
    if (rc < 0) {
        slr_weights_unref(merged);
        return rc;
    }
    *out = merged;
    return SDLORA_OK;
}
