/* SPDX-License-Identifier: MIT */
/* CLIP's byte-pair encoding.  Knows the merge table (built in), the split into words and numbers,
 * and the greedy merge; text cleaning is textclean.c's.  Refuses to know prompts, chunks, weights
 * and padding.
 *
 * Ids are those of OpenAI's vocabulary: 0..255 byte symbols in GPT-2's order, 256..511 the same at
 * a word's end, 512 + r the product of merge r, then the two specials. */
#include "models/bpe.h"

#include <string.h>
#include <utf8proc.h>

#include "base/status.h"
#include "base/str.h"
#include "base/thread.h"
#include "models/tables.h"
#include "models/textclean.h"

#define FIRST_MERGE 512
#define SLOT_BITS   17
#define MAX_TEXT    (1 << 20) /* bytes, as of a caption file; bounds the work of hostile text */

enum { ID_START = 49406, ID_END = 49407, N_IDS = 49408, N_MERGES = ID_START - FIRST_MERGE };

static const char *const SPECIAL[2] = {"<|startoftext|>", "<|endoftext|>"};

struct slr_bpe {
    slr_mem *m;
    slr_refs refs;
    uint16_t *slot;     /* hash of a pair -> rank + 1; 0: free */
    uint32_t *token_at; /* [N_IDS] into token_text */
    char *token_text;
    uint8_t byte_id[256]; /* byte -> symbol */
};

static uint32_t pair_of(size_t rank)
{
    const unsigned char *p = slr_clip_merges + 4 * rank;
    return (uint32_t)p[0] << 16 | (uint32_t)p[1] << 24 | (uint32_t)p[2] | (uint32_t)p[3] << 8;
}

static size_t slot_of(uint32_t pair)
{
    return (size_t)(pair * 0x9E3779B1u) >> (32 - SLOT_BITS);
}

/* Rank of the merge of two ids, or -1. */
static int32_t rank_of(const slr_bpe *b, uint32_t left, uint32_t right)
{
    uint32_t pair = left << 16 | right;
    for (size_t s = slot_of(pair);; s = (s + 1) & ((1u << SLOT_BITS) - 1)) {
        if (b->slot[s] == 0)
            return -1;
        if (pair_of(b->slot[s] - 1u) == pair)
            return b->slot[s] - 1;
    }
}

/* The printable character that stands for a symbol in vocabulary files, as UTF-8. */
static size_t symbol_text(int id, char out[4])
{
    static const struct {
        int first, n, code;
    } RUNS[] = {{0, 94, 33}, {94, 12, 161}, {106, 82, 174}, {188, 68, 256}};
    for (size_t i = 0; i < 4; i++)
        if (id < RUNS[i].first + RUNS[i].n)
            return slr_utf8_put(out, (uint32_t)(RUNS[i].code + id - RUNS[i].first));
    return 0;
}

static void fill_bytes(slr_bpe *b)
{
    int id = 0, other = 188;
    for (int byte = 0; byte < 256; byte++) {
        bool plain = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
        b->byte_id[byte] = (uint8_t)(plain ? id++ : other++);
    }
}

static int fill_tokens(slr_bpe *b, size_t n_merges)
{
    slr_buf text;
    slr_buf_init(&text, b->m);
    for (int id = 0; id < FIRST_MERGE; id++) {
        char c[4];
        b->token_at[id] = (uint32_t)text.len;
        slr_buf_add(&text, c, symbol_text(id & 255, c));
        slr_buf_add(&text, "</w>", id < 256 ? 0 : 4);
        slr_buf_putc(&text, 0);
    }
    for (size_t r = 0; r < n_merges && slr_buf_ok(&text) == SDLORA_OK; r++) {
        uint32_t pair = pair_of(r), part[2] = {pair >> 16, pair & 0xFFFF};
        b->token_at[FIRST_MERGE + r] = (uint32_t)text.len;
        for (int k = 0; k < 2; k++) {
            size_t n = strlen(text.data + b->token_at[part[k]]);
            for (size_t i = 0; i < n; i++) /* the buffer may move while it grows */
                slr_buf_putc(&text, text.data[b->token_at[part[k]] + i]);
        }
        slr_buf_putc(&text, 0);
    }
    for (int k = 0; k < 2; k++) {
        b->token_at[ID_START + k] = (uint32_t)text.len;
        slr_buf_add(&text, SPECIAL[k], strlen(SPECIAL[k]) + 1);
    }
    int rc = slr_buf_ok(&text);
    if (rc == SDLORA_OK)
        b->token_text = slr_buf_take(&text);
    slr_buf_free(&text);
    return rc;
}

int slr_bpe_new(slr_bpe **out, slr_mem *m)
{
    size_t n_merges = slr_clip_merges_size / 4;
    int rc = SDLORA_ENOMEM;
    *out = NULL;
    slr_bpe *b = slr_calloc(m, 1, sizeof *b);
    if (!b)
        return SDLORA_ENOMEM;
    b->m = slr_mem_ref(m);
    slr_refs_init(&b->refs);
    b->slot = slr_calloc(m, (size_t)1 << SLOT_BITS, sizeof *b->slot);
    b->token_at = slr_calloc(m, N_IDS, sizeof *b->token_at);
    if (!b->slot || !b->token_at)
        goto fail;
    fill_bytes(b);
    for (size_t r = 0; r < n_merges; r++) {
        size_t s = slot_of(pair_of(r));
        while (b->slot[s])
            s = (s + 1) & ((1u << SLOT_BITS) - 1);
        b->slot[s] = (uint16_t)(r + 1);
    }
    rc = fill_tokens(b, n_merges);
    if (rc < 0)
        goto fail;
    *out = b;
    return SDLORA_OK;
fail:
    slr_bpe_unref(b);
    return rc;
}

slr_bpe *slr_bpe_ref(slr_bpe *b)
{
    if (b)
        slr_refs_get(&b->refs);
    return b;
}

void slr_bpe_unref(slr_bpe *b)
{
    if (!b || !slr_refs_put(&b->refs))
        return;
    slr_mem *m = b->m;
    slr_free(m, b->slot);
    slr_free(m, b->token_at);
    slr_free(m, b->token_text);
    slr_free(m, b);
    slr_mem_unref(m);
}

const char *slr_bpe_token(const slr_bpe *b, int32_t id)
{
    return id >= 0 && id < N_IDS ? b->token_text + b->token_at[id] : NULL;
}

/* ---- one word ---- */

typedef struct candidate {
    uint32_t at;    /* index of the left symbol */
    uint32_t below; /* 1 + the candidate of the same rank that came before; 0: none */
} candidate;

/* Candidates lie in one pile per rank; the ranks that have a pile form a heap.  That keeps a word
 * of a megabyte as quick per byte as a short one. */
typedef struct encoder {
    const slr_bpe *b;
    slr_mem *m;
    uint32_t *id; /* per symbol of the word; dead symbols hold DEAD */
    uint32_t *next, *prev;
    candidate *pile;
    size_t n_pile;
    uint32_t *top;  /* per rank: 1 + its last candidate; 0: none, as between words */
    uint16_t *rank; /* heap, the lowest first */
    size_t n_rank;
    int32_t *out;
    size_t n_out, cap_out;
} encoder;

#define DEAD UINT32_MAX

static void heap_push(encoder *e, uint16_t x)
{
    size_t i = e->n_rank++;
    while (i > 0 && x < e->rank[(i - 1) / 2]) {
        e->rank[i] = e->rank[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    e->rank[i] = x;
}

static uint16_t heap_pop(encoder *e)
{
    uint16_t lowest = e->rank[0], x = e->rank[--e->n_rank];
    size_t i = 0;
    for (;;) {
        size_t c = 2 * i + 1;
        if (c >= e->n_rank)
            break;
        if (c + 1 < e->n_rank && e->rank[c + 1] < e->rank[c])
            c++;
        if (e->rank[c] >= x)
            break;
        e->rank[i] = e->rank[c];
        i = c;
    }
    e->rank[i] = x;
    return lowest;
}

static void offer(encoder *e, uint32_t at)
{
    if (at == DEAD || e->next[at] == DEAD)
        return;
    int32_t rank = rank_of(e->b, e->id[at], e->id[e->next[at]]);
    if (rank < 0)
        return;
    if (!e->top[rank])
        heap_push(e, (uint16_t)rank);
    e->pile[e->n_pile] = (candidate){at, e->top[rank]};
    e->top[rank] = (uint32_t)++e->n_pile;
}

static int emit(encoder *e, int32_t id)
{
    if (e->n_out == e->cap_out)
        SLR_TRY(slr_grow(e->m, &e->out, &e->cap_out, e->n_out + 1, sizeof *e->out));
    e->out[e->n_out++] = id;
    return SDLORA_OK;
}

static void join(encoder *e, uint32_t at, uint32_t product)
{
    uint32_t right = e->next[at];
    e->id[at] = product;
    e->id[right] = DEAD;
    e->next[at] = e->next[right];
    if (e->next[right] != DEAD)
        e->prev[e->next[right]] = at;
    offer(e, e->prev[at]);
    offer(e, at);
}

/* Joins the pairs of one rank.  Only pairs of twins overlap: in a run of them the first goes with
 * the second, so the run is taken from its start, and whole. */
static void join_rank(encoder *e, uint16_t rank)
{
    uint32_t pair = pair_of(rank), left = pair >> 16, right = pair & 0xFFFF;
    uint32_t i = e->top[rank];
    e->top[rank] = 0;
    for (; i; i = e->pile[i - 1].below) {
        uint32_t at = e->pile[i - 1].at;
        if (e->id[at] != left) /* joined since it was offered */
            continue;
        while (left == right && e->prev[at] != DEAD && e->id[e->prev[at]] == left)
            at = e->prev[at];
        while (at != DEAD && e->id[at] == left && e->next[at] != DEAD &&
               e->id[e->next[at]] == right) {
            join(e, at, FIRST_MERGE + (uint32_t)rank);
            at = e->next[at];
        }
    }
}

/* Rank by rank: a merge's product only occurs in merges of higher rank. */
static int encode_word(encoder *e, const char *word, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        e->id[i] = e->b->byte_id[(unsigned char)word[i]] + (i + 1 == n ? 256u : 0u);
        e->next[i] = i + 1 == n ? DEAD : (uint32_t)i + 1;
        e->prev[i] = i == 0 ? DEAD : (uint32_t)i - 1;
    }
    e->n_pile = 0;
    for (size_t i = 0; i + 1 < n; i++)
        offer(e, (uint32_t)i);
    while (e->n_rank > 0)
        join_rank(e, heap_pop(e));
    for (uint32_t i = 0; i != DEAD; i = e->next[i])
        SLR_TRY(emit(e, (int32_t)e->id[i]));
    return SDLORA_OK;
}

/* ---- text to words ---- */

enum { CLASS_SPACE, CLASS_LETTER, CLASS_NUMBER, CLASS_OTHER };

static int class_of(uint32_t c)
{
    /* U+0345 alone belongs to no class when the pattern is matched without regard to case */
    if (slr_is_space((int32_t)c) || c == 0x345)
        return CLASS_SPACE;
    utf8proc_category_t k = utf8proc_category((utf8proc_int32_t)c);
    if (k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_LO)
        return CLASS_LETTER;
    return k >= UTF8PROC_CATEGORY_ND && k <= UTF8PROC_CATEGORY_NO ? CLASS_NUMBER : CLASS_OTHER;
}

/* Length of an English contraction at p ('s 't 're 've 'm 'll 'd), or 0.  A long s matches s. */
static size_t contraction(const char *p, size_t n)
{
    static const char *const TAILS[] = {"'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'\u017f"};
    for (size_t i = 0; i < sizeof TAILS / sizeof *TAILS; i++) {
        size_t len = strlen(TAILS[i]);
        if (n >= len && memcmp(p, TAILS[i], len) == 0)
            return len;
    }
    return 0;
}

static int special_at(const char *p, size_t n)
{
    for (int k = 0; k < 2; k++)
        if (n >= strlen(SPECIAL[k]) && memcmp(p, SPECIAL[k], strlen(SPECIAL[k])) == 0)
            return k;
    return -1;
}

static size_t word_length(const char *p, size_t n)
{
    uint32_t c;
    size_t len = contraction(p, n);
    if (len)
        return len;
    len = slr_utf8_next(p, n, &c);
    int class = class_of(c);
    if (class == CLASS_NUMBER || class == CLASS_SPACE)
        return len;
    while (len < n) {
        size_t step = slr_utf8_next(p + len, n - len, &c);
        if (class_of(c) != class)
            break;
        len += step;
    }
    return len;
}

static int encode_clean(encoder *e, const char *p, size_t n)
{
    while (n > 0) {
        uint32_t c;
        int special = special_at(p, n);
        size_t len = special >= 0 ? strlen(SPECIAL[special]) : word_length(p, n);
        if (special >= 0)
            SLR_TRY(emit(e, ID_START + special));
        else if (slr_utf8_next(p, n, &c) > 0 && class_of(c) != CLASS_SPACE)
            SLR_TRY(encode_word(e, p, len));
        p += len;
        n -= len;
    }
    return SDLORA_OK;
}

/* Cleans and encodes a stretch of text that holds no special token in its exact spelling. */
static int encode_plain(encoder *e, const char *text, size_t n)
{
    slr_buf clean;
    slr_buf_init(&clean, e->m);
    int rc = slr_text_clean(e->m, text, n, &clean);
    size_t len = clean.len;
    if (rc == SDLORA_OK && len > 0) {
        e->id = slr_calloc(e->m, len, sizeof *e->id);
        e->next = slr_calloc(e->m, len, sizeof *e->next);
        e->prev = slr_calloc(e->m, len, sizeof *e->prev);
        /* n-1 pairs at first, at most two more per merge */
        e->pile = slr_calloc(e->m, 3 * len, sizeof *e->pile);
        rc = e->id && e->next && e->prev && e->pile ? encode_clean(e, clean.data, len)
                                                    : SDLORA_ENOMEM;
        slr_free(e->m, e->id);
        slr_free(e->m, e->next);
        slr_free(e->m, e->prev);
        slr_free(e->m, e->pile);
    }
    slr_buf_free(&clean);
    return rc;
}

int slr_bpe_encode(const slr_bpe *b, slr_mem *m, const char *text, size_t n_bytes, int32_t **ids,
                   size_t *n_ids)
{
    encoder e = {.b = b, .m = m};
    int rc = SDLORA_OK;
    *ids = NULL;
    *n_ids = 0;
    if (n_bytes > MAX_TEXT)
        return slr_fail(SDLORA_EINVAL, __func__,
                        "a text of %zu bytes is too long for the tokenizer (limit %d)", n_bytes,
                        MAX_TEXT);
    size_t valid = slr_utf8_valid(text, n_bytes);
    if (valid != n_bytes)
        return slr_fail(SDLORA_EINVAL, __func__, "text is not UTF-8 at byte %zu", valid);
    e.top = slr_calloc(m, N_MERGES, sizeof *e.top);
    e.rank = slr_calloc(m, N_MERGES, sizeof *e.rank);
    if (!e.top || !e.rank)
        rc = SDLORA_ENOMEM;
    /* special tokens split the text before anything is cleaned, as transformers does */
    for (size_t from = 0, at = 0; rc == SDLORA_OK && from < n_bytes;) {
        while (at < n_bytes && special_at(text + at, n_bytes - at) < 0)
            at++;
        rc = encode_plain(&e, text + from, at - from);
        if (rc == SDLORA_OK && at < n_bytes) {
            int special = special_at(text + at, n_bytes - at);
            rc = emit(&e, ID_START + special);
            at += strlen(SPECIAL[special]);
        }
        from = at;
    }
    slr_free(m, e.top);
    slr_free(m, e.rank);
    if (rc < 0) {
        slr_free(m, e.out);
        return rc;
    }
    *ids = e.out;
    *n_ids = e.n_out;
    return SDLORA_OK;
}

bool slr_bpe_merge_at(const slr_bpe *b, size_t rank, const char **left, const char **right)
{
    if (rank >= slr_clip_merges_size / 4)
        return false;
    uint32_t pair = pair_of(rank);
    *left = b->token_text + b->token_at[pair >> 16];
    *right = b->token_text + b->token_at[pair & 0xFFFF];
    return true;
}
