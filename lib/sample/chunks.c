/* SPDX-License-Identifier: MIT */
/* Fragments to rows of 77 tokens with a weight each, as AUTOMATIC1111 fills them.  Refuses to know
 * what a text encoder does with them. */
#include <string.h>

#include "base/status.h"
#include "sample/prompt.h"

enum { ROW = 77, CHUNK = 75, COMMA = 267 };

/* The chunk being filled. */
typedef struct filler {
    slr_chunks *out;
    size_t cap;
    const slr_bpe *bpe;
    const slr_words *words; /* Nullable */
    const slr_family *family;
    int backtrack;
    int32_t ids[CHUNK];
    float weights[CHUNK];
    int n, last_comma; /* -1: none in this chunk */
} filler;

/* Pads to 75 with the end token, frames with begin and end, and starts the next chunk. */
static int close_chunk(filler *f)
{
    slr_chunks *c = f->out;
    if (c->n == f->cap) {
        size_t cap = f->cap ? 2 * f->cap : 4;
        int32_t *ids = slr_realloc(c->m, c->ids, cap * ROW, sizeof *ids);
        if (!ids)
            return SDLORA_ENOMEM;
        c->ids = ids;
        float *weights = slr_realloc(c->m, c->weights, cap * ROW, sizeof *weights);
        if (!weights)
            return SDLORA_ENOMEM;
        c->weights = weights;
        f->cap = cap;
    }
    int32_t *ids = c->ids + c->n * ROW;
    float *weights = c->weights + c->n * ROW;
    for (int i = 0; i < ROW; i++) {
        bool inside = i >= 1 && i <= f->n;
        ids[i] = i == 0 ? f->family->bos : inside ? f->ids[i - 1] : f->family->eos;
        weights[i] = inside ? f->weights[i - 1] : 1.0f;
    }
    c->n++;
    f->n = 0;
    f->last_comma = -1;
    return SDLORA_OK;
}

/* The chunk is full: what stands after a near comma moves to the next one. */
static int break_at_comma(filler *f)
{
    int keep = f->last_comma + 1, moved = f->n - keep;
    int32_t ids[CHUNK];
    float weights[CHUNK];
    memcpy(ids, f->ids + keep, (size_t)moved * sizeof *ids);
    memcpy(weights, f->weights + keep, (size_t)moved * sizeof *weights);
    f->n = keep;
    SLR_TRY(close_chunk(f));
    memcpy(f->ids, ids, (size_t)moved * sizeof *ids);
    memcpy(f->weights, weights, (size_t)moved * sizeof *weights);
    f->n = moved;
    return SDLORA_OK;
}

static int add_token(filler *f, int32_t id, double weight)
{
    if (id == COMMA)
        f->last_comma = f->n;
    else if (f->n == CHUNK && f->last_comma != -1 && f->n - f->last_comma <= f->backtrack)
        SLR_TRY(break_at_comma(f));
    if (f->n == CHUNK) {
        SLR_TRY(close_chunk(f));
        /* a comma that opens the next chunk is not remembered: the full chunk's end cleared it */
    }
    /* An embedding is not cut.  Should it move behind a comma, all of its rows move: the original
     * leaves their places in the chunk that they came from. */
    if (f->n + slr_words_span(f->words, id) > CHUNK)
        SLR_TRY(close_chunk(f));
    f->ids[f->n] = id;
    f->weights[f->n++] = (float)weight;
    return SDLORA_OK;
}

static int add_fragment(filler *f, const slr_fragment *fragment)
{
    if (!strcmp(fragment->text, "BREAK") && fragment->weight == -1.0)
        return close_chunk(f);
    int32_t *ids;
    size_t n;
    SLR_TRY(slr_words_encode(f->words, f->bpe, f->out->m, fragment->text, strlen(fragment->text),
                             &ids, &n));
    int rc = SDLORA_OK;
    for (size_t i = 0; rc >= 0 && i < n; i++)
        rc = add_token(f, ids[i], fragment->weight);
    slr_free(f->out->m, ids);
    return rc;
}

static int add_fragments(filler *f, const char *prompt, int emphasis)
{
    slr_fragment *list, whole = {(char *)prompt, 1.0};
    size_t n;
    if (emphasis == SLR_EMPHASIS_NONE)
        return add_fragment(f, &whole);
    SLR_TRY(slr_prompt_emphasis(f->out->m, prompt, &list, &n, NULL));
    int rc = SDLORA_OK;
    for (size_t i = 0; rc >= 0 && i < n; i++)
        rc = add_fragment(f, &list[i]);
    slr_fragments_free(f->out->m, list, n);
    return rc;
}

int slr_prompt_chunks_by(slr_chunks *out, slr_mem *m, const slr_bpe *bpe, const slr_words *words,
                         const slr_family *family, const char *prompt,
                         const slr_chunk_config *config)
{
    *out = (slr_chunks){.m = m};
    filler f = {.out = out,
                .bpe = bpe,
                .words = words,
                .family = family,
                .backtrack = config->backtrack,
                .last_comma = -1};
    int rc = add_fragments(&f, prompt, config->emphasis);
    if (rc >= 0 && (f.n || !out->n))
        rc = close_chunk(&f);
    if (rc < 0)
        slr_chunks_free(out);
    return rc;
}

int slr_prompt_chunks(slr_chunks *out, slr_mem *m, const slr_bpe *bpe, const slr_words *words,
                      const slr_family *family, const char *prompt)
{
    static const slr_chunk_config usual = {SLR_EMPHASIS_ORIGINAL, SLR_BACKTRACK};
    return slr_prompt_chunks_by(out, m, bpe, words, family, prompt, &usual);
}

int slr_chunks_extend(slr_chunks *c, const slr_family *family, size_t n)
{
    filler f = {.out = c, .family = family, .last_comma = -1, .cap = c->n};
    while (c->n < n)
        SLR_TRY(close_chunk(&f));
    return SDLORA_OK;
}

void slr_chunks_free(slr_chunks *c)
{
    slr_free(c->m, c->ids);
    slr_free(c->m, c->weights);
    *c = (slr_chunks){0};
}
