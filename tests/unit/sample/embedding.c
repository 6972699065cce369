/* SPDX-License-Identifier: MIT */
/* Embeddings in prompts against AUTOMATIC1111 (tests/golden/embedding.safetensors): chunks, weights
 * and text states; and what generators do with them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <sys/stat.h>
#include <unistd.h>

#include "backend/registry.h"
#include "base/cpu.h"
#include "golden_test.h"
#include "io/file.h"
#include "io/hash.h"
#include "models/checkpoint.h"
#include "networks/embedding.h"
#include "sample/conds.h"
#include "sample/generator.h"

#define TINYSD TEST_ROOT "/../examples/data/tinysd/tinysd.safetensors"
#define GOLDEN TEST_ROOT "/golden/embedding.safetensors"
#define FILE_A TEST_ROOT "/golden/embedding/emb_params.safetensors"
#define FILE_B TEST_ROOT "/golden/embedding/pixels.webp" /* "glow" */

/* Random rows condition a norm badly now and then; measured 5.2e-5 in one place of 2000, and 4e-6
 * elsewhere. */
#define TOL_STATES 1e-4

enum { ROW = 77, WIDTH = 64, N_NAMES = 6, N_PROMPTS = 16 };

static const char *const NAMES[N_NAMES] = {"glow", "ti-one", "Bad_Hands", "big", "red glow", "v75"};

#define TAGS                                                                                       \
    "1girl, solo, long hair, blue eyes, looking at viewer, smile, red dress, white background, "   \
    "standing, holding umbrella, rain, "
#define TIMES6(x)  x x x x x x
#define TIMES37(x) TIMES6(TIMES6(x)) x

/* PROMPTS of make_embedding.py. */
static const char *const PROMPTS[N_PROMPTS] = {
    "glow",
    "a glow, (ti-one:1.3) and BAD_hands",
    "red glow, glow, glowing, glow2",
    "(red glow:0.7), [glow], ti-one, ti -one",
    TIMES37("a a ") "glow",
    TIMES6(TIMES6("a a ")) "a glow b",
    "big, big",
    TIMES6("a ") "big",
    TIMES37("a, ") "bad_hands",
    "v75",
    "a v75 b",
    TAGS TAGS TAGS "(red glow:1.4)",
    "glow BREAK glow",
    "unknown word",
    TIMES6("bad_hands ") TIMES6("bad_hands ") "bad_hands ",
    "(a glow BREAK b:1.2)",
};

static slr_devices *devices;
static slr_checkpoint *base;
static slr_bpe *bpe;
static golden g;
static slr_network *embedding[N_NAMES];

static void ok(int rc)
{
    if (rc < 0)
        fail_msg("%s (%s)", sdlora_last_error()->message, sdlora_last_error()->where);
}

/* An embedding of the golden file, through a file of that name. */
static slr_network *open_named(const char *name)
{
    char path[128], key[64];
    slr_tensor t;
    slr_network *n;
    snprintf(key, sizeof key, "vec.%s", name);
    assert_true(slr_safetensors_find(g.file, key, &t));
    slr_st_entry e = {"emb_params", t};
    snprintf(path, sizeof path, "/tmp/sdlora-test-%d", (int)getpid());
    mkdir(path, 0700);
    snprintf(path, sizeof path, "/tmp/sdlora-test-%d/%s.safetensors", (int)getpid(), name);
    ok(slr_safetensors_write(NULL, path, &e, 1, NULL, 0));
    ok(slr_network_open(&n, NULL, base, path));
    assert_string_equal(slr_network_name(n), name);
    unlink(path);
    *strrchr(path, '/') = '\0';
    rmdir(path);
    return n;
}

static int setup(void **state)
{
    (void)state;
    const slr_devices_config config = {.cpu_features = slr_cpu_features(), .backend = "cpu"};
    ok(slr_devices_open(&devices, &config));
    ok(slr_checkpoint_open(&base, TINYSD, &(slr_checkpoint_config){.predict = -1}));
    ok(slr_bpe_new(&bpe, NULL));
    g = golden_open(GOLDEN);
    for (int i = 0; g.file && i < N_NAMES; i++)
        embedding[i] = open_named(NAMES[i]);
    return g.file ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    for (int i = 0; i < N_NAMES; i++)
        slr_network_unref(embedding[i]);
    golden_close(&g);
    slr_bpe_unref(bpe);
    slr_checkpoint_unref(base);
    slr_devices_unref(devices);
    return 0;
}

/* The first id of an embedding, as slr_words_add() gives them out. */
static int32_t first_id(int name)
{
    int32_t id = SLR_WORDS_FIRST;
    for (int i = 0; i < name; i++) {
        int64_t vectors, width;
        slr_embedding_rows(embedding[i], &vectors, &width);
        id += (int32_t)vectors;
    }
    return id;
}

static void chunks(void **state)
{
    (void)state;
    slr_words *w;
    ok(slr_words_new(&w, NULL, bpe));
    for (int i = 0; i < N_NAMES; i++)
        ok(slr_words_add(w, embedding[i]));
    for (int i = 0; i < N_PROMPTS; i++) {
        char key[32];
        slr_chunks c;
        slr_tensor t;
        ok(slr_prompt_chunks(&c, NULL, bpe, w, slr_checkpoint_family(base), PROMPTS[i]));
        snprintf(key, sizeof key, "ids.%d", i);
        int32_t *ids = golden_i32(&g, key, &t);
        snprintf(key, sizeof key, "row.%d", i);
        int32_t *row = golden_i32(&g, key, NULL);
        snprintf(key, sizeof key, "weights.%d", i);
        float *weights = golden_f32(&g, key, NULL);
        assert_int_equal(c.n, t.dim[0]);
        for (size_t k = 0; k < c.n * ROW; k++) {
            int32_t want = ids[k] < 0 ? first_id(-1 - ids[k]) + row[k] : ids[k];
            if (c.ids[k] != want || c.weights[k] != weights[k])
                fail_msg("prompt %d, place %zu: id %d weight %g, not %d and %g", i, k, c.ids[k],
                         c.weights[k], want, weights[k]);
        }
        slr_free(NULL, ids);
        slr_free(NULL, row);
        slr_free(NULL, weights);
        slr_chunks_free(&c);
    }
    slr_words_free(w);
}

static void states(void **state)
{
    (void)state;
    slr_engine *e;
    slr_conds *c;
    const slr_cond_config config = {.clip_skip = 1, .backtrack = 20};
    ok(slr_engine_new(&e, slr_checkpoint_mem(base), base, devices));
    ok(slr_conds_new(&c, slr_checkpoint_mem(base), e, bpe));
    ok(slr_conds_set_embeddings(c, embedding, N_NAMES));
    for (int i = 0; i < N_PROMPTS; i++) {
        char key[32];
        slr_tensor t;
        slr_cond got;
        snprintf(key, sizeof key, "states.%d", i);
        float *want = golden_f32(&g, key, &t);
        ok(slr_conds_get(c, &PROMPTS[i], 1, &config, NULL, &got));
        assert_int_equal(got.tokens, t.dim[1]);
        assert_true(
            golden_close_to(key, got.states, want, (size_t)(got.tokens * WIDTH), TOL_STATES));
        slr_free(NULL, want);
    }
    size_t *list, n;
    ok(slr_conds_uses(c, PROMPTS[3], &config, &list, &n));
    assert_int_equal(n, 3);
    assert_int_equal(list[0], 4);
    assert_int_equal(list[1], 0);
    assert_int_equal(list[2], 1);
    slr_free(slr_checkpoint_mem(base), list);
    ok(slr_conds_uses(c, "unknown word", &config, &list, &n));
    assert_int_equal(n, 0);
    slr_free(slr_checkpoint_mem(base), list);
    slr_conds_free(c);
    slr_engine_free(e);
}

/* Text that AUTOMATIC1111 puts behind a comma takes its embedding along; see add_token(). */
static void moved_rows(void **state)
{
    (void)state;
    slr_words *w;
    slr_chunks c;
    ok(slr_words_new(&w, NULL, bpe));
    ok(slr_words_add(w, embedding[0]));
    ok(slr_prompt_chunks(&c, NULL, bpe, w, slr_checkpoint_family(base),
                         TIMES6(TIMES6("a a ")) ", glow b"));
    assert_int_equal(c.n, 2);
    assert_int_equal(c.ids[73], 267);
    assert_int_equal(c.ids[74], 49407);
    assert_int_equal(c.ids[ROW + 1], SLR_WORDS_FIRST);
    assert_int_equal(c.ids[ROW + 2], SLR_WORDS_FIRST + 1);
    slr_chunks_free(&c);
    slr_words_free(w);
}

/* --- generators --- */

static slr_picture draw(slr_generator *gen, const char *prompt, const char *negative,
                        const slr_stack_item *items, size_t n)
{
    slr_picture p;
    slr_request r = {.networks = items, .n_networks = n};
    slr_settings_read(&r.set, (slr_opt){NULL, "generate"});
    r.set.prompt = prompt;
    r.set.negative = negative;
    r.set.sampler = "Euler";
    r.set.steps = 1;
    r.set.width = r.set.height = 64;
    r.set.seed = 1;
    ok(slr_generator_run(gen, &r, &p));
    return p;
}

static bool same(const slr_picture *a, const slr_picture *b)
{
    return !memcmp(a->latents, b->latents, 8 * 8 * 4 * sizeof *a->latents);
}

static void generators(void **state)
{
    (void)state;
    slr_generator *gen;
    slr_network *a, *b;
    slr_picture p[6];
    char hash_a[65], hash_b[65], want[128];
    ok(slr_network_open(&a, NULL, base, FILE_A));
    ok(slr_network_open(&b, NULL, base, FILE_B));
    ok(slr_hash_file(FILE_A, hash_a));
    ok(slr_hash_file(FILE_B, hash_b));
    ok(slr_generator_new(&gen, NULL, (slr_log){0}, base, NULL, NULL, devices, bpe));
    p[0] = draw(gen, "a glow", "emb_params", NULL, 0);
    assert_null(strstr(p[0].infotext, "TI hashes"));
    ok(slr_generator_add_embedding(gen, a));
    p[1] = draw(gen, "a glow", "emb_params", NULL, 0);
    snprintf(want, sizeof want, "TI hashes: \"emb_params: %.12s\"", hash_a);
    assert_non_null(strstr(p[1].infotext, want));
    assert_false(same(&p[0], &p[1]));
    ok(slr_generator_add_embedding(gen, b));
    p[2] = draw(gen, "a glow", "emb_params, glow", NULL, 0);
    snprintf(want, sizeof want, "TI hashes: \"glow: %.12s, emb_params: %.12s\"", hash_b, hash_a);
    assert_non_null(strstr(p[2].infotext, want));
    p[3] = draw(gen, "a glow", "emb_params", NULL, 0);
    assert_false(same(&p[1], &p[3]));

    /* one that is trained meanwhile: its new rows count at once */
    slr_stack_item item = {.network = embedding[1], .te = 1, .unet = 1};
    p[4] = draw(gen, "a ti-one", "", &item, 1);
    float *rows = slr_network_params(embedding[1]);
    for (int i = 0; i < WIDTH; i++)
        rows[i] = -rows[i];
    slr_network_touch(embedding[1]);
    p[5] = draw(gen, "a ti-one", "", &item, 1);
    assert_false(same(&p[4], &p[5]));
    for (int i = 0; i < 6; i++)
        slr_picture_free(NULL, &p[i]);
    slr_generator_free(gen);
    slr_network_unref(a);
    slr_network_unref(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(chunks), cmocka_unit_test(states),
                                       cmocka_unit_test(moved_rows), cmocka_unit_test(generators)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
