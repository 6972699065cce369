/* SPDX-License-Identifier: MIT */
/* Embedding files: torch and safetensors containers as a list of tensors, and writing.  Refuses to
 * know which tensor is which (embedding.c). */
#include <math.h>
#include <string.h>

#include "base/status.h"
#include "base/str.h"
#include "io/file.h"
#include "io/safetensors.h"
#include "io/torchfile.h"
#include "io/torchwrite.h"
#include "networks/embedding.h"
#include "networks/kind.h"

/* 75 vectors of 2048 f64 are 1.2 MB; what is larger is not looked into. */
#define FILE_MAX (UINT64_C(64) << 20)

typedef struct source {
    slr_mem *m;
    slr_safetensors *st;
    slr_torchfile *torch;
    slr_named *tensor;
    size_t n;
} source;

static void source_close(source *s)
{
    slr_free(s->m, s->tensor);
    slr_safetensors_close(s->st);
    slr_torchfile_close(s->torch);
}

/* By content: embeddings are passed on under any ending. */
static int source_open(source *s, slr_mem *m, const char *path)
{
    uint8_t first[16];
    *s = (source){.m = m};
    SLR_TRY(slr_file_read_at(path, 0, first, sizeof first));
    if (slr_torchfile_is(first, sizeof first))
        SLR_TRY(slr_torchfile_open(&s->torch, m, path));
    else
        SLR_TRY(slr_safetensors_open(&s->st, m, path, true));
    s->n = s->st ? slr_safetensors_count(s->st) : slr_torchfile_count(s->torch);
    s->tensor = slr_calloc(m, s->n + 1, sizeof *s->tensor);
    if (!s->tensor)
        return SDLORA_ENOMEM;
    for (size_t i = 0; i < s->n; i++)
        s->tensor[i].key = s->st ? slr_safetensors_at(s->st, i, &s->tensor[i].t)
                                 : slr_torchfile_at(s->torch, i, &s->tensor[i].t);
    return SDLORA_OK;
}

static int copy_meta(slr_network *n, const source *s)
{
    for (size_t i = 0; s->st && i < slr_safetensors_meta_count(s->st); i++) {
        const char *value, *key = slr_safetensors_meta_at(s->st, i, &value);
        SLR_TRY(slr_meta_set(n->meta, key, value));
    }
    return SDLORA_OK;
}

int slr_embedding_open(slr_network **out, slr_mem *m, const slr_checkpoint *base, const char *path)
{
    const char *file = slr_path_base(path);
    uint64_t size;
    source s;
    *out = NULL;
    if (slr_embedding_is_card(path))
        return slr_embedding_card(out, m, base, path);
    SLR_TRY(slr_file_size(path, &size));
    if (size > FILE_MAX || size < 16)
        return SDLORA_DONE;
    int rc = source_open(&s, m, path);
    if (rc >= 0)
        rc = slr_embedding_of(out, m, base, s.tensor, s.n, path,
                              (slr_str){file, slr_path_stem(file)}, path);
    if (rc == SDLORA_OK) {
        rc = copy_meta(*out, &s);
        if (rc < 0) {
            slr_network_unref(*out);
            *out = NULL;
        }
    }
    source_close(&s);
    return rc;
}

/* --- writing --- */

static const char *const pair_names[2] = {"clip_l", "clip_g"};

/* The smallest magnitude that rounds to infinity. */
static float first_infinite(uint32_t dtype)
{
    return dtype == SDLORA_F16 ? 65520.0f : dtype == SDLORA_BF16 ? 0x1.ffp127f : INFINITY;
}

static int write_safetensors(slr_mem *m, const char *path, const slr_tensor *t, size_t count,
                             const slr_meta *meta)
{
    slr_st_entry entry[2] = {{.name = slr_kind_embedding.leaf[0], .t = t[0]}};
    size_t n = meta ? slr_meta_count(meta) : 0;
    slr_st_pair *pair = slr_calloc(m, n + 1, sizeof *pair);
    if (!pair)
        return SDLORA_ENOMEM;
    if (count == 2) {
        entry[0].name = pair_names[0];
        entry[1] = (slr_st_entry){.name = pair_names[1], .t = t[1]};
    }
    for (size_t i = 0; i < n; i++)
        pair[i].key = slr_meta_at(meta, i, &pair[i].value);
    int rc = slr_safetensors_write(m, path, entry, count, pair, n);
    slr_free(m, pair);
    return rc;
}

/* The same tensors as torch saves them, which is how kohya's script writes a pair as .pt. */
static int write_pair(const slr_network *n, const char *path, const slr_tensor t[2])
{
    slr_torchwrite *w;
    SLR_TRY(slr_torchwrite_new(&w, n->m));
    slr_torchwrite_dict(w);
    for (int i = 0; i < 2; i++) {
        slr_torchwrite_text(w, pair_names[i]);
        slr_torchwrite_tensor(w, &t[i], t[i].dtype);
    }
    slr_torchwrite_end(w);
    int rc = slr_torchwrite_save(w, path);
    slr_torchwrite_free(w);
    return rc;
}

/* What AUTOMATIC1111 writes; 265 is the id of "*". */
static int write_torch(const slr_network *n, const char *path, const slr_tensor *t,
                       const slr_meta *meta)
{
    slr_torchwrite *w;
    const char *steps = meta ? slr_meta_get(meta, "ss_steps") : NULL;
    const char *model = meta ? slr_meta_get(meta, "ss_sd_model_name") : NULL;
    int64_t step = 0;
    if (steps)
        slr_parse_i64(steps, &step);
    SLR_TRY(slr_torchwrite_new(&w, n->m));
    slr_torchwrite_dict(w);
    slr_torchwrite_text(w, "string_to_token");
    slr_torchwrite_dict(w);
    slr_torchwrite_text(w, "*");
    slr_torchwrite_int(w, 265);
    slr_torchwrite_end(w);
    slr_torchwrite_text(w, "string_to_param");
    slr_torchwrite_dict(w);
    slr_torchwrite_text(w, "*");
    slr_torchwrite_tensor(w, t, t->dtype);
    slr_torchwrite_end(w);
    slr_torchwrite_text(w, "name");
    slr_torchwrite_text(w, n->name);
    slr_torchwrite_text(w, "step");
    slr_torchwrite_int(w, step);
    slr_torchwrite_text(w, "sd_checkpoint");
    slr_torchwrite_none(w);
    slr_torchwrite_text(w, "sd_checkpoint_name");
    if (model)
        slr_torchwrite_text(w, model);
    else
        slr_torchwrite_none(w);
    slr_torchwrite_end(w);
    int rc = slr_torchwrite_save(w, path);
    slr_torchwrite_free(w);
    return rc;
}

/* A module's rows as `save_dtype`; t->data is the caller's, NULL on failure. */
static int convert_rows(const slr_network *n, int part, uint32_t save_dtype, slr_tensor *t)
{
    const slr_dtype_row *type = slr_dtype(save_dtype);
    *t = (slr_tensor){.dtype = save_dtype, .rank = 2};
    const float *rows = slr_embedding_rows_of(n, part, &t->dim[0], &t->dim[1]);
    size_t count = (size_t)(t->dim[0] * t->dim[1]);
    float limit = first_infinite(save_dtype);
    for (size_t i = 0; i < count; i++)
        if (!(fabsf(rows[i]) < limit))
            return slr_fail(SDLORA_ENAN, __func__,
                            "%s holds a value that is not finite as %s: nothing was written",
                            slr_network_name(n), type->name);
    void *bytes = slr_alloc(n->m, count * type->size);
    if (!bytes)
        return SDLORA_ENOMEM;
    type->from_f32(bytes, rows, count);
    t->data = bytes;
    return SDLORA_OK;
}

int slr_embedding_save(const slr_network *n, const char *path, uint32_t save_dtype,
                       const slr_meta *meta)
{
    slr_tensor t[2] = {{0}};
    size_t count = n->n_modules;
    bool torch = slr_ends(path, ".pt") || slr_ends(path, ".bin");
    slr_require(count >= 1 && count <= 2);
    int rc = SDLORA_OK;
    for (size_t i = 0; rc >= 0 && i < count; i++)
        rc = convert_rows(n, n->module[i].target.part, save_dtype, &t[i]);
    if (rc >= 0)
        rc = !torch       ? write_safetensors(n->m, path, t, count, meta)
             : count == 2 ? write_pair(n, path, t)
                          : write_torch(n, path, t, meta);
    for (size_t i = 0; i < count; i++)
        slr_free(n->m, (void *)(uintptr_t)t[i].data);
    return rc;
}
