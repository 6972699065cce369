/* SPDX-License-Identifier: MIT */
/* A list of names as token ids, longest first, and what their rows become in a graph.  Refuses to
 * know chunks, weights and files. */
#include "networks/words.h"

#include <string.h>

#include "base/status.h"
#include "base/str.h"
#include "models/clip.h"
#include "networks/embedding.h"

/* One spelling of an embedding's name. */
typedef struct spelling {
    int32_t *id;
    size_t n;
    size_t which;
} spelling;

/* An embedding, and the id of its first row. */
typedef struct word {
    slr_network *network;
    int32_t first;
    int64_t vectors;
} word;

struct slr_words {
    slr_mem *m;
    const slr_bpe *bpe;
    word *word;
    size_t n, cap;
    spelling *at; /* longest first; of equals, the one that came first */
    size_t n_at, cap_at;
    int32_t next; /* the next embedding's first id */
};

int slr_words_new(slr_words **out, slr_mem *m, const slr_bpe *bpe)
{
    *out = slr_calloc(m, 1, sizeof **out);
    if (!*out)
        return SDLORA_ENOMEM;
    **out = (slr_words){.m = m, .bpe = bpe, .next = SLR_WORDS_FIRST};
    return SDLORA_OK;
}

void slr_words_free(slr_words *w)
{
    if (!w)
        return;
    for (size_t i = 0; i < w->n_at; i++)
        slr_free(w->m, w->at[i].id);
    for (size_t i = 0; i < w->n; i++)
        slr_network_unref(w->word[i].network);
    slr_free(w->m, w->at);
    slr_free(w->m, w->word);
    slr_free(w->m, w);
}

size_t slr_words_count(const slr_words *w)
{
    return w ? w->n : 0;
}

slr_network *slr_words_at(const slr_words *w, size_t i)
{
    return w->word[i].network;
}

/* --- names --- */

static void insert(slr_words *w, spelling s)
{
    size_t at = w->n_at++;
    for (; at > 0 && w->at[at - 1].n < s.n; at--)
        w->at[at] = w->at[at - 1];
    w->at[at] = s;
}

static int add_spelling(slr_words *w, const char *prefix, const char *name, size_t which)
{
    spelling s = {.which = which};
    slr_buf text;
    SLR_TRY(slr_grow(w->m, &w->at, &w->cap_at, w->n_at + 1, sizeof *w->at));
    slr_buf_init(&text, w->m);
    slr_buf_puts(&text, prefix);
    slr_buf_puts(&text, name);
    int rc = slr_buf_ok(&text);
    if (rc >= 0)
        rc = slr_bpe_encode(w->bpe, w->m, text.data, text.len, &s.id, &s.n);
    slr_buf_free(&text);
    SLR_TRY(rc);
    if (s.n)
        insert(w, s);
    else
        slr_free(w->m, s.id); /* a name of nothing but white space can't be written */
    return SDLORA_OK;
}

/* The spellings of an embedding that another one of the same name replaces. */
static void forget(slr_words *w, const char *name)
{
    size_t kept = 0;
    for (size_t i = 0; i < w->n_at; i++) {
        if (strcmp(slr_network_name(w->word[w->at[i].which].network), name) != 0)
            w->at[kept++] = w->at[i];
        else
            slr_free(w->m, w->at[i].id);
    }
    w->n_at = kept;
}

int slr_words_add(slr_words *w, slr_network *embedding)
{
    int64_t vectors, width;
    const char *name = slr_network_name(embedding);
    slr_require(slr_embedding_rows(embedding, &vectors, &width) != NULL);
    if (w->next > INT32_MAX - SLR_EMBEDDING_MOST)
        return slr_fail(SDLORA_EINVAL, __func__, "%s: too many embeddings", name);
    SLR_TRY(slr_grow(w->m, &w->word, &w->cap, w->n + 1, sizeof *w->word));
    forget(w, name);
    w->word[w->n++] = (word){slr_network_ref(embedding), w->next, vectors};
    w->next += (int32_t)vectors;
    SLR_TRY(add_spelling(w, "", name, w->n - 1));
    return add_spelling(w, "embedding:", name, w->n - 1);
}

/* --- texts --- */

static const spelling *spelling_at(const slr_words *w, const int32_t *ids, size_t n)
{
    for (size_t i = 0; i < w->n_at; i++)
        if (w->at[i].n <= n && !memcmp(w->at[i].id, ids, w->at[i].n * sizeof *ids))
            return &w->at[i];
    return NULL;
}

/* The names in tokens as rows. */
static int replace(const slr_words *w, slr_mem *m, int32_t **ids, size_t *count)
{
    int32_t *out = NULL;
    size_t n = 0, cap = 0;
    for (size_t i = 0; i < *count;) {
        const spelling *s = spelling_at(w, *ids + i, *count - i);
        const word *found = s ? &w->word[s->which] : NULL;
        size_t rows = found ? (size_t)found->vectors : 1;
        int rc = slr_grow(m, &out, &cap, n + rows, sizeof *out);
        if (rc < 0) {
            slr_free(m, out);
            return rc;
        }
        for (size_t k = 0; k < rows; k++)
            out[n++] = found ? found->first + (int32_t)k : (*ids)[i];
        i += s ? s->n : 1;
    }
    slr_free(m, *ids);
    *ids = out;
    *count = n;
    return SDLORA_OK;
}

int slr_words_encode(const slr_words *w, const slr_bpe *bpe, slr_mem *m, const char *text, size_t n,
                     int32_t **ids, size_t *count)
{
    SLR_TRY(slr_bpe_encode(bpe, m, text, n, ids, count));
    if (!slr_words_count(w) || !*count)
        return SDLORA_OK;
    int rc = replace(w, m, ids, count);
    if (rc < 0) {
        slr_free(m, *ids);
        *ids = NULL;
    }
    return rc;
}

int slr_words_caption(const slr_words *w, const slr_bpe *bpe, slr_mem *m, const slr_family *family,
                      const char *caption, int n_chunks, int32_t *ids)
{
    int32_t *token;
    size_t n;
    SLR_TRY(slr_words_encode(w, bpe, m, caption, strlen(caption), &token, &n));
    int rc = slr_clip_rows(family, token, n, n_chunks, ids);
    slr_free(m, token);
    return rc;
}

/* --- rows --- */

/* The embedding that an id is a row of; NULL: it is a token. */
static const word *word_of(const slr_words *w, int32_t id)
{
    for (size_t i = 0; id >= SLR_WORDS_FIRST && i < slr_words_count(w); i++)
        if (id >= w->word[i].first && id - w->word[i].first < w->word[i].vectors)
            return &w->word[i];
    return NULL;
}

int64_t slr_words_span(const slr_words *w, int32_t id)
{
    const word *found = word_of(w, id);
    return found && found->first == id ? found->vectors : 0;
}

size_t slr_words_used(const slr_words *w, const int32_t *ids, size_t n, size_t *list)
{
    size_t used = 0;
    for (size_t i = 0; i < n; i++) {
        const word *found = word_of(w, ids[i]);
        size_t k = 0;
        if (!found)
            continue;
        while (k < used && list[k] != (size_t)(found - w->word))
            k++;
        if (k == used)
            list[used++] = (size_t)(found - w->word);
    }
    return used;
}

bool slr_words_any(const int32_t *ids, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (ids[i] >= SLR_WORDS_FIRST)
            return true;
    return false;
}

static void copy_row(const slr_network *n, int part, int64_t row, float *to, int64_t width)
{
    int64_t vectors, wide = 0;
    const float *from = slr_embedding_rows_of(n, part, &vectors, &wide);
    if (from && wide == width) /* one that is for another text encoder has no say */
        memcpy(to, from + row * width, (size_t)width * sizeof *to);
}

void slr_words_split(const slr_words *w, int part, int32_t *ids, size_t n, float *put, float *rows,
                     int64_t width, int32_t *index)
{
    if (rows)
        memset(rows, 0, n * (size_t)width * sizeof *rows);
    for (size_t i = 0; i < n; i++) {
        const word *found = word_of(w, ids[i]);
        int64_t row = found ? ids[i] - found->first : 0;
        put[i] = found ? 1.0f : 0.0f;
        if (index)
            index[i] = (int32_t)row;
        if (!found)
            continue;
        if (rows)
            copy_row(found->network, part, row, rows + i * (size_t)width, width);
        ids[i] = 0;
    }
}

/* --- in a graph --- */

slr_val slr_words_put(slr_graph *g, slr_val x, slr_val rows)
{
    if (slr_graph_status(g) < 0)
        return SLR_NONE;
    slr_shape s = slr_shape_of(g, x);
    const int64_t dim[3] = {s.dim[0], s.dim[1], 1};
    slr_val put = slr_input(g, "put", SDLORA_F32, 3, dim);
    slr_val keep = slr_affine(g, put, -1.0, 1.0);
    if (s.dtype != SDLORA_F32) {
        put = slr_cast(g, put, s.dtype);
        keep = slr_cast(g, keep, s.dtype);
    }
    if (slr_shape_of(g, rows).dtype != s.dtype)
        rows = slr_cast(g, rows, s.dtype);
    return slr_add(g, slr_mul(g, x, keep), slr_mul(g, rows, put));
}

slr_val slr_words_tokens(void *user, slr_graph *g, int part, slr_val ids, slr_val x)
{
    (void)user, (void)part, (void)ids;
    if (slr_graph_status(g) < 0)
        return SLR_NONE;
    slr_shape s = slr_shape_of(g, x);
    return slr_words_put(g, x, slr_input(g, "rows", SDLORA_F32, s.rank, s.dim));
}
