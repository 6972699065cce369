/* SPDX-License-Identifier: MIT */
/* lib/data/caption.c: what stays, moves and goes, in the order of kohya's trainers. */
#include "data_test.h"

#include <time.h>

#include "data/caption.h"

static char *draw_at(const char *const *pairs, const char *raw, uint64_t seed, int64_t epoch,
                     int64_t step)
{
    static char out[8][4096];
    static unsigned turn;
    char *to = out[turn++ % 8];
    sdlora_options *o = dataset_options(pairs);
    slr_caption_rule r;
    slr_rng rng;
    slr_buf b;
    slr_rng_init(&rng, seed, SLR_STREAM_CAPTION, 0);
    slr_buf_init(&b, NULL);
    assert_ok(slr_caption_rule_new(&r, (slr_opt){o, "dataset"}, 100));
    assert_ok(slr_caption_draw(&r, NULL, raw, &rng, epoch, step, &b));
    snprintf(to, sizeof *out, "%s", b.data);
    slr_buf_free(&b);
    slr_options_unref(o);
    return to;
}

#define OPTIONS(...)         ((const char *const[]){__VA_ARGS__, NULL})
#define draw(raw, seed, ...) draw_at(OPTIONS(__VA_ARGS__), raw, seed, 0, 0)

static void untouched_unless_asked(void **state)
{
    assert_string_equal(draw("a,b ,  c", 1, "keep_tokens=1"), "a,b ,  c");
    assert_string_equal(draw("a|||b, c", 1, "keep_tokens_separator=|||"), "a|||b, c");
    assert_string_equal(draw("one\ntwo", 1, "keep_tokens=0"), "one");
    assert_string_equal(draw("x", 1, "caption_prefix=p,", "caption_suffix=, s"), "p, x , s");
    assert_string_equal(draw("a;;;b, c", 1, "secondary_separator=;;;"), "a,b, c");
}

static void shuffles_behind_the_kept(void **state)
{
    int first[4] = {0};
    for (uint64_t s = 0; s < 300; s++) {
        char *t = draw("k, a, b ,c,d", s, "shuffle_caption=true", "keep_tokens=1");
        assert_int_equal(strlen(t), strlen("k, a, b, c, d"));
        assert_int_equal(strncmp(t, "k, ", 3), 0);
        for (const char *c = "abcd"; *c; c++)
            assert_non_null(strchr(t, *c));
        first[t[3] - 'a']++;
        assert_string_equal(t, draw("k, a, b ,c,d", s, "shuffle_caption=true", "keep_tokens=1"));
    }
    for (int i = 0; i < 4; i++) /* 75 expected, 7.5 is one standard deviation */
        assert_true(first[i] > 37 && first[i] < 113);
    for (uint64_t s = 0; s < 20; s++) {
        char *t = draw("x, y ||| a, , b ||| z", s, "shuffle_caption=true",
                       "keep_tokens_separator=|||", "keep_tokens=9");
        assert_true(!strcmp(t, "x, y, a, b, z") || !strcmp(t, "x, y, b, a, z"));
        t = draw("a;;b, c", s, "shuffle_caption=true", "secondary_separator=;;");
        assert_true(!strcmp(t, "a,b, c") || !strcmp(t, "c, a,b"));
        /* always ", " between, whatever separates before */
        t = draw("a. b", s, "shuffle_caption=true", "caption_separator=.");
        assert_true(!strcmp(t, "a, b") || !strcmp(t, "b, a"));
    }
    assert_string_equal(draw("", 1, "shuffle_caption=true"), "");
    assert_string_equal(draw("a, , b", 1, "keep_tokens=9", "shuffle_caption=true"), "a, , b");
}

static void drops(void **state)
{
    int whole = 0, tags = 0;
    for (uint64_t s = 0; s < 400; s++) {
        whole += !*draw("a, b", s, "caption_dropout_rate=0.25", "caption_prefix=p");
        char *t = draw("k, a", s, "caption_tag_dropout_rate=0.25", "keep_tokens=1");
        assert_int_equal(t[0], 'k');
        tags += !strcmp(t, "k");
    }
    /* 100 expected, 8.7 is one standard deviation */
    assert_true(whole > 56 && whole < 144);
    assert_true(tags > 56 && tags < 144);
    for (int64_t e = 0; e < 6; e++) /* epochs count from 1 there: the third and the sixth */
        assert_string_equal(draw_at(OPTIONS("caption_dropout_every_n_epochs=3"), "a", 1, e, 0),
                            e % 3 == 2 ? "" : "a");
}

static void warms_up(void **state)
{
    /* T = 10, 5 tags, min 1: floor(step * 4 / 10) + 1 */
    static const char *const want[] = {"a", "a", "a", "a, b", "a, b", "a, b, c"};
    for (int64_t s = 0; s < 6; s++)
        assert_string_equal(draw_at(OPTIONS("token_warmup_step=10"), "a,b,c,d,e", 1, 0, s),
                            want[s]);
    assert_string_equal(draw_at(OPTIONS("token_warmup_step=10"), "a,b,c,d,e", 1, 0, 10),
                        "a, b, c, d, e");
    /* a share of 100 steps */
    assert_string_equal(draw_at(OPTIONS("token_warmup_step=0.1"), "a,b,c,d,e", 1, 0, 3), "a, b");
    sdlora_options *o = dataset_options(OPTIONS("token_warmup_step=0.1"));
    slr_caption_rule r;
    assert_int_equal(slr_caption_rule_new(&r, (slr_opt){o, "dataset"}, 0), SDLORA_EINVAL);
    slr_options_unref(o);
}

static void wildcards(void **state)
{
    int seen[3] = {0};
    for (uint64_t s = 0; s < 300; s++) {
        char *t = draw("a {red|green|} cat\n{{b}}", s, "enable_wildcard=true");
        if (!strcmp(t, "{b}"))
            continue;
        seen[0] += !strcmp(t, "a red cat");
        seen[1] += !strcmp(t, "a green cat");
        seen[2] += !strcmp(t, "a  cat");
        assert_true(strstr(t, "cat") && !strchr(t, '{'));
    }
    for (int i = 0; i < 3; i++) /* 50 expected of 300 draws, 6.5 is one standard deviation */
        assert_true(seen[i] > 17 && seen[i] < 83);
    assert_string_equal(draw("{} {a", 1, "enable_wildcard=true"), "{} {a");
    assert_string_equal(draw("{{{a}}}", 1, "enable_wildcard=true"), "{a}");
    assert_string_equal(draw("{a|b}", 1, "keep_tokens=0"), "{a|b}");
}

/* A hostile megabyte is linear work. */
static void long_captions(void **state)
{
    size_t n = 1 << 20;
    char *text = malloc(n + 1);
    static const char *const piece[] = {"{a", "a,", "{|", "((", "{{}"};
    const char *const pairs[] = {"enable_wildcard=true", "shuffle_caption=true",
                                 "caption_tag_dropout_rate=0.5", NULL};
    clock_t t0 = clock();
    for (size_t p = 0; p < sizeof piece / sizeof *piece; p++) {
        for (size_t i = 0; i < n; i++)
            text[i] = piece[p][i % strlen(piece[p])];
        text[n] = '\0';
        draw_at(pairs, text, 1, 0, 0);
    }
    assert_true((double)(clock() - t0) / CLOCKS_PER_SEC < 5); /* a square would take minutes */
    free(text);
}

static void files(void **state)
{
    char *text;
    put_text(in_scratch("c.txt"), "\xEF\xBB\xBF  first line \r\n\r\n second\rthird\n");
    assert_ok(slr_caption_read(&text, NULL, in_scratch("c.txt"), false));
    assert_string_equal(text, "first line");
    slr_free(NULL, text);
    assert_ok(slr_caption_read(&text, NULL, in_scratch("c.txt"), true));
    assert_string_equal(text, "first line\nsecond\nthird");
    slr_free(NULL, text);
    put_text(in_scratch("c.txt"), "");
    assert_ok(slr_caption_read(&text, NULL, in_scratch("c.txt"), false));
    assert_string_equal(text, "");
    slr_free(NULL, text);
    put_text(in_scratch("c.txt"), "good\nbad \xC0\xAF");
    assert_int_equal(slr_caption_read(&text, NULL, in_scratch("c.txt"), false), SDLORA_EFORMAT);
    assert_says("c.txt");
    assert_says("line 2");
    put_file(in_scratch("c.txt"), "a\0b", 3);
    assert_int_equal(slr_caption_read(&text, NULL, in_scratch("c.txt"), false), SDLORA_EFORMAT);
}

/* 1 MiB is a caption, a byte more is none. */
static void huge_files(void **state)
{
    const size_t n = 1 << 20;
    char *bytes = malloc(n + 1), *text;
    memset(bytes, 'a', n + 1);
    put_file(in_scratch("huge.txt"), bytes, n);
    assert_ok(slr_caption_read(&text, NULL, in_scratch("huge.txt"), false));
    assert_int_equal(strlen(text), n);
    slr_free(NULL, text);
    put_file(in_scratch("huge.txt"), bytes, n + 1);
    assert_int_equal(slr_caption_read(&text, NULL, in_scratch("huge.txt"), false), SDLORA_EFORMAT);
    assert_null(text);
    assert_says("huge.txt");
    assert_says("1048577 bytes");
    free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(untouched_unless_asked),
        cmocka_unit_test(shuffles_behind_the_kept),
        cmocka_unit_test(drops),
        cmocka_unit_test(warms_up),
        cmocka_unit_test(wildcards),
        cmocka_unit_test(long_captions),
        cmocka_unit_test(files),
        cmocka_unit_test(huge_files),
    };
    return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
