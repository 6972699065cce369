/* SPDX-License-Identifier: MIT */
/* Walks folders of embeddings in byte order, as AUTOMATIC1111 does: of two with one name the later
 * one counts.  Refuses to know what is in a file. */
#include "api/embeddings.h"

#include "base/status.h"
#include "base/str.h"
#include "io/file.h"
#include "networks/embedding.h"

enum { MAX_DEPTH = 16 }; /* folders inside folders: a link to a parent must end somewhere */

typedef struct job {
    slr_generator *g;
    slr_mem *m;
    const slr_log *log;
    const slr_checkpoint *base;
} job;

static bool is_candidate(const char *path)
{
    uint64_t size;
    bool known = slr_ends(path, ".pt") || slr_ends(path, ".bin") ||
                 slr_ends(path, ".safetensors") || slr_embedding_is_card(path);
    return known && slr_file_exists(path) && slr_file_size(path, &size) >= 0 && size > 0;
}

static int load(const job *j, const char *path)
{
    slr_network *embedding;
    int rc = slr_embedding_open(&embedding, j->m, j->base, path);
    if (rc == SDLORA_OK) {
        rc = slr_generator_add_embedding(j->g, embedding);
        slr_network_unref(embedding);
    }
    return rc;
}

/* Whatever is wrong with one file of many is not the folder's fault. */
static int load_one_of_many(const job *j, const char *path)
{
    slr_error_copy error;
    int rc = load(j, path);
    if (rc >= 0 || rc == SDLORA_ENOMEM)
        return rc < 0 ? rc : SDLORA_OK;
    slr_error_take(&error);
    slr_logf(j->log, SLR_LOG_WARN, "embedding skipped: %s", error.text);
    slr_clear();
    return SDLORA_OK;
}

static int walk(const job *j, const char *dir, int depth)
{
    slr_list list = {0};
    int rc = slr_dir_list(&list, j->m, dir);
    for (size_t i = 0; rc >= 0 && i < list.n; i++) {
        char *path = slr_path_join(j->m, dir, list.item[i]);
        if (!path)
            rc = SDLORA_ENOMEM;
        else if (slr_dir_exists(path))
            rc = depth < MAX_DEPTH ? walk(j, path, depth + 1) : SDLORA_OK;
        else if (is_candidate(path))
            rc = load_one_of_many(j, path);
        slr_free(j->m, path);
    }
    slr_list_free(&list);
    return rc;
}

int slr_embeddings_load(slr_generator *g, slr_mem *m, const slr_log *log,
                        const slr_checkpoint *base, const char *path)
{
    const job j = {g, m, log, base};
    if (slr_dir_exists(path))
        return walk(&j, path, 0);
    int rc = load(&j, path);
    return rc == SDLORA_DONE ? slr_fail(SDLORA_EFORMAT, __func__, "%s: holds no embedding", path)
                             : rc;
}
