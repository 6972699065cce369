/* SPDX-License-Identifier: MIT */
/* Prompts and the tokenizer: any bytes are split into tags, weights and chunks that keep their
 * bounds, and what is tokenized can be read back from its tokens. */
#include <math.h>

#include "base/str.h"
#include "fuzz.h"
#include "models/bpe.h"
#include "models/family.h"
#include "models/textclean.h"
#include "sample/prompt.h"
#include "sample/script.h"

enum { ROW = 77, N_IDS = 49408, FIRST_SPECIAL = 49406, MAX_WEIGHT = 100, MAX_TEXT = 1 << 20 };

/* One table for all inputs: making it takes longer than most of them. */
static const slr_bpe *table(void)
{
    static slr_bpe *b;
    if (!b)
        FUZZ_CHECK(slr_bpe_new(&b, NULL) == 0);
    return b;
}

/* --- prompts --- */

static void tags(slr_mem *m, const char *prompt)
{
    slr_prompt_tags t;
    size_t left = strlen(prompt);
    FUZZ_CHECK(slr_prompt_cut_tags(&t, m, prompt) == 0);
    FUZZ_CHECK(strlen(t.text) <= left);
    left -= strlen(t.text);
    for (size_t i = 0; i < t.n; i++) {
        const slr_prompt_tag *g = &t.tag[i];
        size_t n = strlen(g->kind) + strlen(g->name) + 3; /* "<kind:name>" */
        FUZZ_CHECK(n <= left && *g->kind);
        left -= n;
        FUZZ_CHECK(g->bad || (isfinite(g->te) && isfinite(g->unet) && g->dyn >= 0));
        if (g->bad)
            fuzz_touch(g->bad, strlen(g->bad));
    }
    slr_prompt_tags_free(&t);
}

/* Text comes from the prompt only, whatever the brackets say. */
static void emphasis(slr_mem *m, const char *prompt)
{
    slr_fragment *f;
    size_t n, left = strlen(prompt);
    int rc = slr_prompt_emphasis(m, prompt, &f, &n, NULL);
    FUZZ_CHECK((rc == 0) == (slr_utf8_valid(prompt, left) == left));
    if (rc < 0)
        return;
    FUZZ_CHECK(n >= 1);
    for (size_t i = 0; i < n; i++) {
        FUZZ_CHECK(fabs(f[i].weight) <= MAX_WEIGHT);
        FUZZ_CHECK(!i || f[i].weight != f[i - 1].weight);
        FUZZ_CHECK(strlen(f[i].text) <= left);
        left -= strlen(f[i].text);
    }
    slr_fragments_free(m, f, n);
}

/* Texts of a program are pieces of the prompt, and there is one for every evaluation. */
static void program(slr_mem *m, const char *prompt)
{
    slr_script s;
    const slr_script_config c = {.steps = 7, .compose = true};
    int rc = slr_script_new(&s, m, prompt, &c);
    FUZZ_CHECK(rc == 0 || rc == SDLORA_EINVAL);
    for (size_t i = 0; rc == 0 && i < s.n; i++) {
        const slr_script_part *p = &s.part[i];
        FUZZ_CHECK(p->n >= 1 && p->at[p->n - 1].end == c.steps && isfinite(p->weight));
        for (size_t k = 0; k < p->n; k++) {
            FUZZ_CHECK(!k || p->at[k].end > p->at[k - 1].end);
            FUZZ_CHECK(strlen(p->at[k].text) <= strlen(prompt));
        }
        fuzz_touch(slr_script_text_at(p, 3), 1);
    }
    if (rc == 0)
        slr_script_free(&s);
    char *text = slr_prompt_uncomment(m, prompt);
    FUZZ_CHECK(text && !strchr(text, '#') && strlen(text) <= strlen(prompt) + 1);
    slr_free(m, text);
}

static void chunks(slr_mem *m, const char *prompt)
{
    const slr_family *family = slr_family_by_id(SLR_FAMILY_SD1);
    const bool valid = slr_utf8_valid(prompt, strlen(prompt)) == strlen(prompt);
    slr_chunks c;
    int rc = slr_prompt_chunks(&c, m, table(), NULL, family, prompt);
    FUZZ_CHECK(rc == 0 || (rc == SDLORA_EINVAL && (!valid || strlen(prompt) > MAX_TEXT)));
    for (size_t k = 0; k < c.n; k++) {
        const int32_t *id = c.ids + k * ROW;
        const float *w = c.weights + k * ROW;
        FUZZ_CHECK(id[0] == family->bos && id[ROW - 1] == family->eos);
        FUZZ_CHECK(w[0] == 1 && w[ROW - 1] == 1);
        for (int i = 0; i < ROW; i++)
            FUZZ_CHECK(id[i] >= 0 && id[i] < N_IDS && fabsf(w[i]) <= MAX_WEIGHT);
    }
    FUZZ_CHECK(rc < 0 || c.n >= 1);
    slr_chunks_free(&c);
}

/* --- the tokenizer --- */

/* The byte that a vocabulary file writes as character c: printable ones stand for themselves, the
 * others, in order, for 256 and up. */
static int byte_of(uint32_t c)
{
    uint32_t other = 256;
    if (c < 256)
        return (int)c;
    for (int b = 0; b < 256; b++) {
        const bool printable = (b > 32 && b < 127) || (b > 160 && b != 173);
        if (!printable && other++ == c)
            return b;
    }
    return -1;
}

/* Adds the bytes of a token; true when a word ends with it. */
static bool add_token(slr_buf *out, int32_t id)
{
    FUZZ_CHECK(id >= 0 && id < N_IDS);
    const char *s = slr_bpe_token(table(), id);
    size_t n = strlen(s);
    if (id >= FIRST_SPECIAL) {
        slr_buf_add(out, s, n);
        return true;
    }
    const bool end = n > 4 && memcmp(s + n - 4, "</w>", 4) == 0;
    n -= end ? 4 : 0;
    for (size_t i = 0; i < n;) {
        uint32_t c;
        i += slr_utf8_next(s + i, n - i, &c);
        FUZZ_CHECK(byte_of(c) >= 0);
        slr_buf_putc(out, (char)byte_of(c));
    }
    return end;
}

/* spaced: with one space behind each word. */
static void read_back(slr_buf *out, const int32_t *ids, size_t n, bool spaced)
{
    for (size_t i = 0; i < n; i++)
        if (add_token(out, ids[i]) && spaced)
            slr_buf_putc(out, ' ');
    FUZZ_CHECK(slr_buf_ok(out) == 0);
}

static bool holds_special(const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++)
        for (int32_t k = FIRST_SPECIAL; k < N_IDS; k++) {
            const char *s = slr_bpe_token(table(), k);
            if (n - i >= strlen(s) && memcmp(text + i, s, strlen(s)) == 0)
                return true;
        }
    return false;
}

/* No byte of the cleaned text is lost or made up, except what separates words.  U+0345 does. */
static void check_bytes(slr_mem *m, const char *text, size_t n, const int32_t *ids, size_t n_ids)
{
    slr_buf clean, want, got;
    slr_buf_init(&clean, m);
    slr_buf_init(&want, m);
    slr_buf_init(&got, m);
    FUZZ_CHECK(slr_text_clean(m, text, n, &clean) == 0);
    FUZZ_CHECK(slr_utf8_valid(clean.data, clean.len) == clean.len);
    for (size_t i = 0; i < clean.len;) {
        uint32_t c;
        size_t step = slr_utf8_next(clean.data + i, clean.len - i, &c);
        if (!slr_is_space((int32_t)c) && c != 0x345)
            slr_buf_add(&want, clean.data + i, step);
        i += step;
    }
    read_back(&got, ids, n_ids, false);
    FUZZ_CHECK(slr_buf_ok(&want) == 0 && want.len == got.len);
    FUZZ_CHECK(!got.len || memcmp(want.data, got.data, got.len) == 0);
    slr_buf_free(&clean);
    slr_buf_free(&want);
    slr_buf_free(&got);
}

/* Words read back have the same tokens, unless cleaning finds something in them: marks of an upper
 * case letter may stand in another order than those of the lower case one. */
static void check_again(slr_mem *m, const int32_t *ids, size_t n)
{
    slr_buf words, clean;
    int32_t *again;
    size_t n_again;
    slr_buf_init(&words, m);
    slr_buf_init(&clean, m);
    read_back(&words, ids, n, true);
    if (words.len)
        words.len--; /* the last space, which cleaning takes away */
    FUZZ_CHECK(slr_text_clean(m, words.data, words.len, &clean) == 0);
    if (clean.len == words.len && clean.len && !memcmp(clean.data, words.data, clean.len)) {
        FUZZ_CHECK(slr_bpe_encode(table(), m, words.data, words.len, &again, &n_again) == 0);
        FUZZ_CHECK(n_again == n && memcmp(again, ids, n * sizeof *ids) == 0);
        slr_free(m, again);
    }
    slr_buf_free(&words);
    slr_buf_free(&clean);
}

static void tokens(slr_mem *m, const char *text, size_t n)
{
    int32_t *ids;
    size_t n_ids;
    int rc = slr_bpe_encode(table(), m, text, n, &ids, &n_ids);
    FUZZ_CHECK((rc == 0) == (n <= MAX_TEXT && slr_utf8_valid(text, n) == n));
    if (rc == 0 && !holds_special(text, n))
        check_bytes(m, text, n, ids, n_ids);
    if (rc == 0 && 4 * n < MAX_TEXT) /* a space more per byte, and characters that grow */
        check_again(m, ids, n_ids);
    slr_free(m, ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    slr_mem *m = fuzz_mem();
    char *prompt = slr_strndup(m, size ? (const char *)data : "", size);
    FUZZ_CHECK(prompt);
    tags(m, prompt);
    emphasis(m, prompt);
    program(m, prompt);
    chunks(m, prompt);
    slr_free(m, prompt);
    tokens(m, size ? (const char *)data : "", size);
    fuzz_mem_done(m);
    return 0;
}
