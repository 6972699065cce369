/* SPDX-License-Identifier: MIT */
/* Runs the text encoders of a model over chunks of 77 tokens, one chunk at a time, so that any
 * prompt uses the same graphs.  Knows batches of texts, embeddings and which state goes where;
 * refuses to know grammars (script.h) and what weights mean (weigh.h). */
#include "sample/conds.h"

#include <string.h>

#include "base/map.h"
#include "base/status.h"
#include "base/str.h"
#include "io/hash.h"
#include "networks/embedding.h"
#include "sample/weigh.h"

enum { MOST_SETS = 256, ROW = 77 };

/* The states of one batch of different texts. */
typedef struct set {
    float *states; /* [n,tokens,width] */
    float *pooled; /* [n,pooled]; NULL: none */
    int64_t tokens;
} set;

struct slr_conds {
    slr_mem *m;
    slr_engine *engine;
    const slr_family *family;
    slr_text_shape shape;
    slr_bpe *bpe;
    slr_words *words;  /* Nullable: no embeddings */
    uint64_t *written; /* the version of each when states were made of it */
    uint64_t version;  /* of the engine, when states were kept */
    slr_map *by_key;
    set *set;
    size_t n_sets, cap;
};

int slr_conds_new(slr_conds **out, slr_mem *m, slr_engine *engine, slr_bpe *bpe)
{
    slr_checkpoint *base = slr_engine_base(engine);
    *out = NULL;
    slr_conds *c = slr_calloc(m, 1, sizeof *c);
    if (!c)
        return SDLORA_ENOMEM;
    c->m = m;
    c->engine = engine;
    c->family = slr_checkpoint_family(base);
    c->bpe = slr_bpe_ref(bpe);
    int rc = slr_text_read(&c->shape, base);
    if (rc >= 0)
        rc = slr_map_new(&c->by_key, m);
    if (rc < 0) {
        slr_conds_free(c);
        return rc;
    }
    *out = c;
    return SDLORA_OK;
}

static void free_set(slr_conds *c, set *s)
{
    slr_free(c->m, s->states);
    slr_free(c->m, s->pooled);
}

static void drop_sets(slr_conds *c)
{
    for (size_t i = 0; i < c->n_sets; i++)
        free_set(c, &c->set[i]);
    c->n_sets = 0;
    if (c->by_key)
        slr_map_clear(c->by_key);
}

static void drop_words(slr_conds *c)
{
    slr_words_free(c->words);
    slr_free(c->m, c->written);
    c->words = NULL;
    c->written = NULL;
}

void slr_conds_rest(slr_conds *c)
{
    drop_sets(c);
    drop_words(c);
}

void slr_conds_free(slr_conds *c)
{
    if (!c)
        return;
    slr_conds_rest(c);
    slr_free(c->m, c->set);
    slr_map_free(c->by_key);
    slr_bpe_unref(c->bpe);
    slr_free(c->m, c);
}

const slr_text_shape *slr_conds_shape(const slr_conds *c)
{
    return &c->shape;
}

/* What was kept is stale once the engine has changed. */
static void follow_engine(slr_conds *c)
{
    if (c->version != slr_engine_version(c->engine))
        drop_sets(c);
    c->version = slr_engine_version(c->engine);
}

/* --- embeddings --- */

static bool same_words(const slr_conds *c, slr_network *const *embeddings, size_t n)
{
    if (n != slr_words_count(c->words))
        return false;
    for (size_t i = 0; i < n; i++)
        if (embeddings[i] != slr_words_at(c->words, i) ||
            slr_network_version(embeddings[i]) != c->written[i])
            return false;
    return true;
}

static int check_embedding(const slr_conds *c, const slr_network *embedding)
{
    for (int e = 0; e < c->shape.n; e++) {
        int64_t vectors, width = 0, want = c->shape.clip[e].width;
        slr_embedding_rows_of(embedding, c->shape.part[e], &vectors, &width);
        if (width != want)
            return slr_fail(SDLORA_EINVAL, __func__, "%s is %lld wide, and the %s %lld",
                            slr_network_name(embedding), (long long)width,
                            slr_part_name(c->shape.part[e]), (long long)want);
    }
    return SDLORA_OK;
}

int slr_conds_set_embeddings(slr_conds *c, slr_network *const *embeddings, size_t n)
{
    slr_words *words;
    follow_engine(c);
    if (c->n_sets >= MOST_SETS)
        drop_sets(c);
    if (same_words(c, embeddings, n))
        return SDLORA_OK;
    uint64_t *written = slr_calloc(c->m, n + 1, sizeof *written);
    if (!written)
        return SDLORA_ENOMEM;
    int rc = slr_words_new(&words, c->m, c->bpe);
    for (size_t i = 0; rc >= 0 && i < n; i++) {
        written[i] = slr_network_version(embeddings[i]);
        rc = check_embedding(c, embeddings[i]);
        if (rc >= 0)
            rc = slr_words_add(words, embeddings[i]);
    }
    if (rc < 0) {
        slr_words_free(words);
        slr_free(c->m, written);
        return rc;
    }
    drop_sets(c);
    drop_words(c);
    c->words = words;
    c->written = written;
    return SDLORA_OK;
}

/* --- one chunk through one encoder --- */

/* a = encoder, b = clip skip, c = whether embeddings stand in the chunk. */
static void build(void *user, slr_graph *g, const slr_engine_key *k)
{
    const slr_conds *c = user;
    int e = (int)k->a, part = c->shape.part[e];
    slr_adapter adapter = slr_engine_adapter(c->engine);
    slr_nn nn = {g, slr_engine_weights(c->engine, part), part, &adapter};
    const int64_t row[2] = {1, ROW}, mark[3] = {1, 1, ROW};
    bool pools = slr_family_text_of(c->family, part)->pooled;
    slr_val end = pools ? slr_input(g, "end", SDLORA_F32, 3, mark) : SLR_NONE, pooled = SLR_NONE;
    if (k->c)
        adapter.tokens = slr_words_tokens;
    slr_val ids = slr_input(g, "ids", SDLORA_I32, 2, row);
    slr_graph_push(g, "text_encoder");
    slr_val out =
        slr_text_build(&nn, c->family, &c->shape, e, ids, (int)k->b, end, pools ? &pooled : NULL);
    slr_graph_pop(g);
    slr_output(g, slr_cast(g, out, SDLORA_F32), "out");
    if (pools)
        slr_output(g, slr_cast(g, pooled, SDLORA_F32), "pooled");
}

/* chunk: 77 ids.  The plan holds the results until the next run. */
static int run(slr_conds *c, int e, int clip_skip, const int32_t *chunk,
               const slr_cancel_flag *cancel, slr_plan **out)
{
    static const int kinds[SLR_TEXT_ENCODERS] = {SLR_ENGINE_TEXT, SLR_ENGINE_TEXT2};
    int part = c->shape.part[e];
    const slr_family_text *row = slr_family_text_of(c->family, part);
    int32_t ids[ROW];
    bool any = slr_words_any(chunk, ROW);
    slr_engine_key key = {.kind = kinds[e], .a = e, .b = clip_skip, .c = any};
    SLR_TRY(slr_engine_plan(c->engine, &key, build, c, cancel, out));
    memcpy(ids, chunk, sizeof ids);
    if (any)
        slr_words_split(c->words, part, ids, ROW, slr_engine_memory(*out, "text_encoder.put"),
                        slr_engine_memory(*out, "text_encoder.rows"), c->shape.clip[e].width,
                        NULL);
    if (row->pad != c->family->eos) /* else what a text's own end token stands before is kept */
        slr_text_pad(c->family, part, ids, 1);
    if (row->pooled)
        slr_text_ends(ids, 1, slr_engine_memory(*out, "end"));
    memcpy(slr_engine_memory(*out, "ids"), ids, sizeof ids);
    return slr_plan_run(*out, cancel);
}

/* --- a batch --- */

/* Texts that are being encoded. */
typedef struct batch {
    const slr_cond_config *config;
    const char **text; /* the different ones; borrowed */
    int64_t *count;    /* how often each stands in the batch */
    size_t n;
    slr_chunks *chunks; /* of each */
    size_t n_chunks;    /* that each has in the end */
    slr_map *seen;      /* ids of a chunk -> text * n_chunks + chunk, for one encoder */
    set out;
} batch;

static int skip_of(const slr_cond_config *config)
{
    return config->clip_skip == 0 ? 1 : config->clip_skip;
}

static slr_chunk_config chunk_config(const slr_cond_config *config)
{
    return (slr_chunk_config){config->emphasis,
                              config->backtrack < 0 ? SLR_BACKTRACK : config->backtrack};
}

static int make_chunks(slr_conds *c, batch *b)
{
    const slr_chunk_config how = chunk_config(b->config);
    b->chunks = slr_calloc(c->m, b->n, sizeof *b->chunks);
    if (!b->chunks)
        return SDLORA_ENOMEM;
    for (size_t i = 0; i < b->n; i++) {
        SLR_TRY(slr_prompt_chunks_by(&b->chunks[i], c->m, c->bpe, c->words, c->family, b->text[i],
                                     &how));
        if (b->chunks[i].n > b->n_chunks)
            b->n_chunks = b->chunks[i].n;
    }
    for (size_t i = 0; i < b->n; i++)
        SLR_TRY(slr_chunks_extend(&b->chunks[i], c->family, b->n_chunks));
    b->out.tokens = (int64_t)b->n_chunks * ROW;
    return SDLORA_OK;
}

static int make_room(slr_conds *c, batch *b)
{
    size_t tokens = b->n * (size_t)b->out.tokens;
    b->out.states = slr_calloc(c->m, tokens, (size_t)c->shape.width * sizeof(float));
    if (!b->out.states)
        return SDLORA_ENOMEM;
    if (!c->shape.pooled)
        return SDLORA_OK;
    b->out.pooled = slr_calloc(c->m, b->n, (size_t)c->shape.pooled * sizeof(float));
    return b->out.pooled ? SDLORA_OK : SDLORA_ENOMEM;
}

/* Where the states of a chunk begin in encoder e's columns. */
static float *place(const slr_conds *c, const batch *b, int e, size_t text, size_t chunk)
{
    size_t token = (text * b->n_chunks + chunk) * ROW;
    return b->out.states + token * (size_t)c->shape.width + c->shape.at[e];
}

static void copy_rows(float *to, int64_t to_stride, const float *from, int64_t from_stride,
                      int64_t width)
{
    for (int64_t i = 0; i < ROW; i++)
        memcpy(to + i * to_stride, from + i * from_stride, (size_t)width * sizeof *to);
}

static void copy_pooled(const slr_conds *c, batch *b, size_t to, const float *from)
{
    memcpy(b->out.pooled + to * (size_t)c->shape.pooled, from,
           (size_t)c->shape.pooled * sizeof *from);
}

/* One chunk of one text; the same chunk as before is copied.  First chunks come first, so that
 * their pooled states are there to be copied too. */
static int encode_chunk(slr_conds *c, batch *b, int e, size_t text, size_t chunk,
                        const slr_cancel_flag *cancel, slr_buf *key)
{
    const int32_t *ids = b->chunks[text].ids + chunk * ROW;
    const int64_t width = c->shape.clip[e].width;
    float *to = place(c, b, e, text, chunk);
    bool pools = chunk == 0 && slr_family_text_of(c->family, c->shape.part[e])->pooled;
    int64_t at;
    slr_plan *p;
    key->len = 0;
    for (int i = 0; i < ROW; i++)
        slr_buf_printf(key, "%d,", (int)ids[i]);
    SLR_TRY(slr_buf_ok(key));
    if (slr_map_get(b->seen, key->data, &at)) {
        size_t first = (size_t)at / b->n_chunks;
        copy_rows(to, c->shape.width, place(c, b, e, first, (size_t)at % b->n_chunks),
                  c->shape.width, width);
        if (pools)
            copy_pooled(c, b, text, b->out.pooled + first * (size_t)c->shape.pooled);
        return SDLORA_OK;
    }
    SLR_TRY(run(c, e, skip_of(b->config), ids, cancel, &p));
    copy_rows(to, c->shape.width, slr_engine_memory(p, "out"), width, width);
    if (pools)
        copy_pooled(c, b, text, slr_engine_memory(p, "pooled"));
    return slr_map_set(b->seen, key->data, (int64_t)(text * b->n_chunks + chunk));
}

static int encode_part(slr_conds *c, batch *b, int e, const slr_cancel_flag *cancel)
{
    slr_buf key;
    int rc = SDLORA_OK;
    slr_buf_init(&key, c->m);
    slr_map_clear(b->seen);
    for (size_t chunk = 0; rc >= 0 && chunk < b->n_chunks; chunk++)
        for (size_t text = 0; rc >= 0 && text < b->n; text++)
            rc = encode_chunk(c, b, e, text, chunk, cancel, &key);
    slr_buf_free(&key);
    return rc;
}

/* Weights of a chunk of all texts, in encoder e's columns. */
static void weigh(const slr_conds *c, const batch *b, int e, size_t chunk, slr_weighed *list)
{
    for (size_t i = 0; i < b->n; i++)
        list[i] = (slr_weighed){place(c, b, e, i, chunk), b->chunks[i].weights + chunk * ROW,
                                b->count[i]};
    slr_weigh(b->config->emphasis, list, b->n, c->shape.clip[e].width, c->shape.width);
}

static int encode(slr_conds *c, batch *b, const slr_cancel_flag *cancel)
{
    SLR_TRY(make_chunks(c, b));
    SLR_TRY(make_room(c, b));
    bool nothing = b->n == 1 && !*b->text[0];
    if (nothing && b->config->zero && c->family->zero_negative)
        return SDLORA_OK;
    slr_weighed *list = slr_calloc(c->m, b->n, sizeof *list);
    int rc = list ? slr_map_new(&b->seen, c->m) : SDLORA_ENOMEM;
    for (int e = 0; rc >= 0 && e < c->shape.n; e++) {
        rc = encode_part(c, b, e, cancel);
        for (size_t chunk = 0; rc >= 0 && chunk < b->n_chunks; chunk++)
            weigh(c, b, e, chunk, list);
    }
    slr_free(c->m, list);
    slr_map_free(b->seen);
    return rc;
}

static void free_batch(slr_conds *c, batch *b)
{
    for (size_t i = 0; b->chunks && i < b->n; i++)
        slr_chunks_free(&b->chunks[i]);
    slr_free(c->m, b->chunks);
    slr_free(c->m, b->text);
    slr_free(c->m, b->count);
}

/* The different texts, and at[i]: which of them text i is. */
static int collect(slr_conds *c, batch *b, const char *const *text, size_t n, size_t *at)
{
    slr_map *known;
    b->text = slr_calloc(c->m, n, sizeof *b->text);
    b->count = slr_calloc(c->m, n, sizeof *b->count);
    if (!b->text || !b->count)
        return SDLORA_ENOMEM;
    SLR_TRY(slr_map_new(&known, c->m));
    int rc = SDLORA_OK;
    for (size_t i = 0; rc >= 0 && i < n; i++) {
        int64_t k = (int64_t)b->n;
        if (!slr_map_get(known, text[i], &k)) {
            rc = slr_map_set(known, text[i], k);
            b->text[b->n++] = text[i];
        }
        at[i] = (size_t)k;
        b->count[k]++;
    }
    slr_map_free(known);
    return rc;
}

/* What a batch is kept under. */
static int key_of(const slr_conds *c, const batch *b, char key[65])
{
    const slr_cond_config *o = b->config;
    slr_sha256 *h;
    slr_buf head;
    SLR_TRY(slr_sha256_new(&h, c->m));
    slr_buf_init(&head, c->m);
    slr_buf_printf(&head, "%d %d %d %d", skip_of(o), o->emphasis, chunk_config(o).backtrack,
                   o->zero);
    int rc = slr_buf_ok(&head);
    for (size_t i = 0; rc >= 0 && i < b->n; i++) {
        slr_buf_printf(&head, "\n%lld %zu\n", (long long)b->count[i], strlen(b->text[i]));
        rc = slr_buf_ok(&head);
        if (rc >= 0)
            rc = slr_sha256_add(h, head.data, head.len);
        if (rc >= 0)
            rc = slr_sha256_add(h, b->text[i], strlen(b->text[i]));
        head.len = 0;
    }
    slr_buf_free(&head);
    int end = slr_sha256_hex(&h, rc >= 0 ? key : NULL);
    return rc >= 0 ? end : rc;
}

static int keep(slr_conds *c, const char *key, const set *s)
{
    SLR_TRY(slr_grow(c->m, &c->set, &c->cap, c->n_sets + 1, sizeof *c->set));
    SLR_TRY(slr_map_set(c->by_key, key, (int64_t)c->n_sets));
    c->set[c->n_sets++] = *s;
    return SDLORA_OK;
}

/* The states of a batch, made unless they are kept. */
static int find(slr_conds *c, batch *b, const slr_cancel_flag *cancel, set *out)
{
    char key[65];
    int64_t at;
    follow_engine(c);
    SLR_TRY(key_of(c, b, key));
    if (slr_map_get(c->by_key, key, &at)) {
        *out = c->set[at];
        return SDLORA_OK;
    }
    int rc = encode(c, b, cancel);
    if (rc >= 0)
        rc = keep(c, key, &b->out);
    if (rc < 0)
        free_set(c, &b->out);
    *out = b->out;
    return rc;
}

int slr_conds_get(slr_conds *c, const char *const *text, size_t n, const slr_cond_config *config,
                  const slr_cancel_flag *cancel, slr_cond *out)
{
    batch b = {.config = config};
    set s;
    slr_require(n > 0);
    size_t *at = slr_calloc(c->m, n, sizeof *at);
    int rc = at ? collect(c, &b, text, n, at) : SDLORA_ENOMEM;
    if (rc >= 0)
        rc = find(c, &b, cancel, &s);
    for (size_t i = 0; rc >= 0 && i < n; i++)
        out[i] = (slr_cond){
            .states = s.states + at[i] * (size_t)(s.tokens * c->shape.width),
            .pooled = s.pooled ? s.pooled + at[i] * (size_t)c->shape.pooled : NULL,
            .tokens = s.tokens,
        };
    free_batch(c, &b);
    slr_free(c->m, at);
    return rc;
}

int slr_conds_uses(slr_conds *c, const char *text, const slr_cond_config *config, size_t **list,
                   size_t *n)
{
    const slr_chunk_config how = chunk_config(config);
    slr_chunks chunks;
    *list = NULL;
    *n = 0;
    SLR_TRY(slr_prompt_chunks_by(&chunks, c->m, c->bpe, c->words, c->family, text, &how));
    *list = slr_calloc(c->m, slr_words_count(c->words) + 1, sizeof **list);
    if (*list)
        *n = slr_words_used(c->words, chunks.ids, chunks.n * ROW, *list);
    slr_chunks_free(&chunks);
    return *list ? SDLORA_OK : SDLORA_ENOMEM;
}
