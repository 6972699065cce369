/* SPDX-License-Identifier: MIT */
/* Of two embeddings with one name the later one counts, as in AUTOMATIC1111: those of a folder come
 * before those below it.  Refuses to know what is in a file. */
#include "api/embeddings.h"

#include "api/walk.h"
#include "base/status.h"
#include "base/str.h"
#include "io/file.h"
#include "networks/embedding.h"

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
static int load_one_of_many(void *user, const char *path)
{
    const job *j = user;
    slr_error_copy error;

    if (!is_candidate(path))
        return 0;
    int rc = load(j, path);
    if (rc >= 0 || rc == SDLORA_ENOMEM)
        return rc < 0 ? rc : 0;
    slr_error_take(&error);
    slr_logf(j->log, SLR_LOG_WARN, "embedding skipped: %s", error.text);
    slr_clear();
    return 0;
}

int slr_embeddings_load(slr_generator *g, slr_mem *m, const slr_log *log,
                        const slr_checkpoint *base, const char *path)
{
    job j = {g, m, log, base};
    if (slr_dir_exists(path))
        return slr_walk(m, log, path, load_one_of_many, &j);
    int rc = load(&j, path);
    return rc == SDLORA_DONE ? slr_fail(SDLORA_EFORMAT, __func__, "%s: holds no embedding", path)
                             : rc;
}
