/* SPDX-License-Identifier: MIT */
/* A list of embeddings.  Refuses to know tokens (networks/words.h) and folders. */
#include "sample/known.h"

#include <string.h>

#include "base/status.h"
#include "io/hash.h"
#include "networks/embedding.h"

int slr_known_add(slr_known *k, slr_network *embedding)
{
    SLR_TRY(slr_grow(k->m, &k->at, &k->cap, k->n + 1, sizeof *k->at));
    k->at[k->n++] = slr_network_ref(embedding);
    return SDLORA_OK;
}

static bool has(const slr_known *k, const char *name)
{
    for (size_t i = 0; i < k->n; i++)
        if (!strcmp(slr_network_name(k->at[i]), name))
            return true;
    return false;
}

int slr_known_add_bundle(slr_known *k, const slr_network *network)
{
    for (size_t i = 0; i < slr_network_bundled(network); i++) {
        slr_network *embedding = slr_network_bundle_at(network, i);
        if (!has(k, slr_network_name(embedding)))
            SLR_TRY(slr_known_add(k, embedding));
    }
    return SDLORA_OK;
}

void slr_known_free(slr_known *k)
{
    for (size_t i = 0; i < k->n; i++)
        slr_network_unref(k->at[i]);
    slr_free(k->m, k->at);
    k->at = NULL;
    k->n = k->cap = 0;
}

/* Colons and commas would end the name. */
static void plain_name(const char *name, slr_buf *out)
{
    for (; *name; name++)
        if (*name != ':' && *name != ',')
            slr_buf_putc(out, *name);
    slr_buf_puts(out, ": ");
}

void slr_known_hash(const slr_known *k, size_t i, slr_buf *text)
{
    const char *path = slr_network_path(k->at[i]);
    char hex[65];
    slr_buf entry;
    if (!path || slr_hash_file(path, hex) < 0) {
        slr_clear(); /* the file may be gone by now */
        return;
    }
    slr_buf_init(&entry, k->m);
    plain_name(slr_network_name(k->at[i]), &entry);
    slr_buf_printf(&entry, "%.12s", hex);
    if (slr_buf_ok(&entry) >= 0 && !(text->len && strstr(text->data, entry.data)))
        slr_buf_printf(text, "%s%s", text->len ? ", " : "", entry.data);
    slr_buf_free(&entry);
}
