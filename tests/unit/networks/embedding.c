/* SPDX-License-Identifier: MIT */
/* Embedding files of every kind (tests/golden/embedding, written by torch, safetensors, Pillow and
 * AUTOMATIC1111's own code), new embeddings, saving, and what is refused. */
#include "failing.h"
#include "network_test.h"

#include "networks/embedding.h"
#include "networks/words.h"

#define FOLDER TEST_ROOT "/golden/embedding/"
#define GOLDEN TEST_ROOT "/golden/embedding.safetensors"
#define LORA   TEST_ROOT "/data/torch-openmoji-lora.safetensors"

enum { WIDTH = 64 };

static slr_checkpoint *base;
static golden g;

static int setup(void **state)
{
    (void)state;
    ok(slr_checkpoint_open(&base, TINYSD, &CONFIG));
    g = golden_open(GOLDEN);
    return g.file ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    golden_close(&g);
    slr_checkpoint_unref(base);
    return 0;
}

static void files(void **state)
{
    (void)state;
    static const struct {
        const char *file, *name;
        int64_t vectors;
    } CASES[] = {
        {"a1111.pt", "a1111", 2},
        {"legacy.pt", "legacy", 2},
        {"parameterdict.pt", "parameterdict", 2},
        {"kohya.pt", "kohya", 2},
        {"learned_embeds.bin", "learned_embeds", 1},
        {"emb_params.safetensors", "emb_params", 2},
        {"token.safetensors", "token", 2},
        {"text.png", "glow", 2},
        {"pixels.png", "glow", 2},
        {"pixels.webp", "glow", 2},
    };
    float *want = golden_f32(&g, "vec", NULL);
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        char path[256];
        int64_t vectors, width;
        slr_network *n;
        snprintf(path, sizeof path, FOLDER "%s", CASES[i].file);
        print_message("%s\n", CASES[i].file);
        ok(slr_network_open(&n, NULL, base, path));
        assert_true(slr_network_is_embedding(n));
        assert_string_equal(slr_network_name(n), CASES[i].name);
        assert_string_equal(slr_network_path(n), path);
        const float *rows = slr_embedding_rows(n, &vectors, &width);
        assert_int_equal(vectors, CASES[i].vectors);
        assert_int_equal(width, WIDTH);
        assert_memory_equal(rows, want, (size_t)(vectors * width) * sizeof *rows);
        slr_network_unref(n);
    }
    slr_free(NULL, want);
}

static void foreign_files(void **state)
{
    (void)state;
    slr_network *n;
    assert_int_equal(slr_network_open(&n, NULL, base, FOLDER "sdxl.safetensors"), SDLORA_ENOTSUP);
    assert_null(n);
    says("clip_g [2,1280]");
    says("SDXL");
    says("width 64");
    assert_int_equal(slr_embedding_open(&n, NULL, base, FOLDER "picture.png"), SDLORA_DONE);
    assert_null(n);
    assert_int_equal(slr_embedding_open(&n, NULL, base, LORA), SDLORA_DONE);
    assert_false(slr_embedding_is_card("x/a.preview.png"));
    assert_true(slr_embedding_is_card("x/a.webp"));
    assert_false(slr_embedding_is_card("x.png/a.pt"));
}

/* --- one tensor, bent --- */

static void write_one(const char *path, const char *key, uint32_t dtype, int rank,
                      const int64_t *dim, float first)
{
    slr_st_entry e = {key, {.dtype = dtype, .rank = rank}};
    memcpy(e.t.dim, dim, (size_t)rank * sizeof *dim);
    char *bytes = slr_calloc(NULL, slr_tensor_bytes(&e.t) + 4, 1);
    e.t.data = bytes;
    if (dtype == SDLORA_F32)
        memcpy(bytes, &first, sizeof first);
    ok(slr_safetensors_write(NULL, path, &e, 1, NULL, 0));
    slr_free(NULL, bytes);
}

static void refusals(void **state)
{
    (void)state;
    static const struct {
        const char *key;
        uint32_t dtype;
        int rank;
        int64_t dim[3];
        float first;
        int code;
        const char *word;
    } CASES[] = {
        {"emb_params", SDLORA_F32, 2, {2, 768}, 0, SDLORA_EINVAL, "width 768 (SD 1)"},
        {"emb_params", SDLORA_F32, 2, {2, 1024}, 0, SDLORA_EINVAL, "(SD 2)"},
        {"emb_params", SDLORA_F32, 2, {2, 63}, 0, SDLORA_EINVAL, "takes 64"},
        {"emb_params", SDLORA_F32, 2, {76, 64}, 0, SDLORA_EFORMAT, "76 vectors"},
        {"emb_params", SDLORA_F32, 2, {0, 64}, 0, SDLORA_EFORMAT, "0 vectors"},
        {"emb_params", SDLORA_F32, 3, {1, 1, 64}, 0, SDLORA_EFORMAT, "[1,1,64]"},
        {"emb_params", SDLORA_I32, 2, {1, 64}, 0, SDLORA_EFORMAT, "floating-point"},
        {"emb_params", SDLORA_F32, 2, {1, 64}, NAN, SDLORA_EFORMAT, "not finite"},
        {"<glow>", SDLORA_F32, 1, {64}, INFINITY, SDLORA_EFORMAT, "not finite"},
        {"clip_l", SDLORA_F32, 2, {1, 768}, 0, SDLORA_EINVAL, "clip_l"},
    };
    char path[64];
    temp_file(path);
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        slr_network *n;
        write_one(path, CASES[i].key, CASES[i].dtype, CASES[i].rank, CASES[i].dim, CASES[i].first);
        assert_int_equal(slr_network_open(&n, NULL, base, path), CASES[i].code);
        assert_null(n);
        says(path);
        says(CASES[i].word);
    }
    unlink(path);
}

/* Every file cut at every 13th byte, and with one byte changed: refused, or taken whole; never a
 * crash. */
static void bent_files(void **state)
{
    (void)state;
    static const char *const names[] = {"a1111.pt",   "legacy.pt", "emb_params.safetensors",
                                        "pixels.png", "text.png",  "pixels.webp"};
    size_t taken = 0, refused = 0;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char from[256], path[64];
        void *bytes;
        size_t size;
        snprintf(from, sizeof from, FOLDER "%s", names[i]);
        snprintf(path, sizeof path, "/tmp/sdlora-test-%d-%s", (int)getpid(), names[i]);
        ok(slr_file_read(NULL, from, 1 << 20, &bytes, &size));
        for (size_t at = 0; at < size; at += 13)
            for (int cut = 0; cut < 2; cut++) {
                slr_network *n;
                ((char *)bytes)[at] ^= cut ? 0 : 0x55;
                ok(slr_file_write(NULL, path, bytes, cut ? at : size));
                ((char *)bytes)[at] ^= cut ? 0 : 0x55;
                int rc = slr_network_open(&n, NULL, base, path);
                assert_true((rc == SDLORA_OK) == (n != NULL));
                taken += n != NULL;
                refused += n == NULL;
                slr_network_unref(n);
            }
        unlink(path);
        slr_free(NULL, bytes);
    }
    print_message("%zu bent files refused, %zu taken\n", refused, taken);
    assert_true(refused > taken);
}

static void made(void **state)
{
    (void)state;
    slr_network *n;
    const slr_tensor *table;
    int64_t vectors, width;
    slr_bpe *bpe;
    int32_t *ids;
    size_t n_ids;
    float want[WIDTH];
    ok(make_rc(&n, base,
               (const char *const[]){"token_string", "mochi-chan", "init_word", "red apple",
                                     "num_vectors_per_token", "3", NULL},
               5));
    assert_string_equal(slr_network_name(n), "mochi-chan");
    const float *rows = slr_embedding_rows(n, &vectors, &width);
    assert_int_equal(vectors, 3);
    ok(slr_bpe_new(&bpe, NULL));
    ok(slr_bpe_encode(bpe, NULL, "red apple", 9, &ids, &n_ids));
    assert_int_equal(n_ids, 2);
    ok(slr_weights_get(slr_checkpoint_part(base, SLR_PART_TE),
                       "text_model.embeddings.token_embedding.weight", &table));
    for (int i = 0; i < 3; i++) {
        slr_tensor row = {.dtype = table->dtype, .rank = 1, .dim = {WIDTH}};
        row.data =
            (const char *)table->data + (size_t)ids[i % 2] * WIDTH * slr_dtype_size(row.dtype);
        ok(slr_tensor_to_f32(&row, want));
        assert_memory_equal(rows + i * WIDTH, want, sizeof want);
    }
    slr_free(NULL, ids);
    slr_bpe_unref(bpe);
    slr_network_unref(n);

    assert_int_equal(
        make_rc(&n, base, (const char *const[]){"network_module", "textual_inversion", NULL}, 1),
        SDLORA_EINVAL);
    says("token_string");
    assert_int_equal(
        make_rc(&n, base,
                (const char *const[]){"network_module", "networks.lora", "token_string", "x", NULL},
                1),
        SDLORA_EINVAL);
    assert_int_equal(
        make_rc(&n, base, (const char *const[]){"token_string", "x", "init_word", " ", NULL}, 1),
        SDLORA_EINVAL);
}

static void saved(void **state)
{
    (void)state;
    static const char *const endings[] = {".safetensors", ".pt"};
    slr_network *n = make(
        base, (const char *const[]){"token_string", "word", "num_vectors_per_token", "4", NULL}, 3,
        0.1);
    for (size_t i = 0; i < 2; i++) {
        char path[64];
        slr_network *back;
        slr_meta *meta;
        int64_t vectors, width;
        snprintf(path, sizeof path, "/tmp/sdlora-test-%d%s", (int)getpid(), endings[i]);
        ok(slr_meta_new(&meta, NULL));
        ok(slr_meta_set(meta, "modelspec.title", "word"));
        ok(slr_netfile_save(n, path, SDLORA_F32, meta));
        ok(slr_network_open(&back, NULL, base, path));
        const float *rows = slr_embedding_rows(back, &vectors, &width);
        assert_int_equal(vectors, 4);
        assert_memory_equal(rows, slr_embedding_rows(n, &vectors, &width),
                            4 * WIDTH * sizeof *rows);
        if (i == 0)
            assert_string_equal(slr_meta_get(slr_network_meta(back), "modelspec.title"), "word");
        slr_meta_free(meta);
        slr_network_unref(back);
        unlink(path);
    }
    slr_weights *merged;
    const slr_stack_item item = {.network = n, .te = 1, .unet = 1};
    assert_int_equal(slr_merge_part(&merged, NULL, NULL, slr_checkpoint_part(base, SLR_PART_TE),
                                    SLR_PART_TE, &item, 1),
                     SDLORA_ENOTSUP);
    says("word");
    slr_network_params(n)[5] = NAN;
    assert_int_equal(slr_embedding_save(n, "/tmp/sdlora-test-never.safetensors", SDLORA_F32, NULL),
                     SDLORA_ENAN);
    assert_false(slr_file_exists("/tmp/sdlora-test-never.safetensors"));
    slr_network_unref(n);
}

/* Names are found by tokens, the longest first; a later embedding of one name counts. */
static void names(void **state)
{
    (void)state;
    slr_bpe *bpe;
    slr_words *w;
    slr_network *one = make(base, (const char *const[]){"token_string", "red glow", NULL}, 1, 1),
                *two = make(base,
                            (const char *const[]){"token_string", "glow", "num_vectors_per_token",
                                                  "2", NULL},
                            2, 1),
                *longer = make(base, (const char *const[]){"token_string", "glow up", NULL}, 4, 1),
                *again = make(base, (const char *const[]){"token_string", "glow", NULL}, 3, 1);
    ok(slr_bpe_new(&bpe, NULL));
    ok(slr_words_new(&w, NULL, bpe));
    ok(slr_words_add(w, one));
    ok(slr_words_add(w, two));
    ok(slr_words_add(w, longer));
    enum { A = SLR_WORDS_FIRST, B, C, D };
    static const struct {
        const char *text;
        size_t n;
        int32_t ids[8];
    } CASES[] = {
        {"RED  Glow", 1, {A}},        {"glow up glow", 3, {D, B, C}},
        {"glow red", 3, {B, C, 736}}, {"embedding:glow, embedding:red glow", 4, {B, C, 267, A}},
        {"glowing", 1, {19741}},      {"", 0, {0}},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        int32_t *ids;
        size_t n;
        ok(slr_words_encode(w, bpe, NULL, CASES[i].text, strlen(CASES[i].text), &ids, &n));
        assert_int_equal(n, CASES[i].n);
        for (size_t k = 0; k < n; k++)
            if (CASES[i].ids[k] != 19741) /* whatever the id of a longer word is */
                assert_int_equal(ids[k], CASES[i].ids[k]);
        slr_free(NULL, ids);
    }
    assert_int_equal(slr_words_span(w, B), 2);
    assert_int_equal(slr_words_span(w, C), 0);
    ok(slr_words_add(w, again));
    int32_t *ids;
    size_t n;
    ok(slr_words_encode(w, bpe, NULL, "glow", 4, &ids, &n));
    assert_int_equal(n, 1);
    assert_int_equal(ids[0], D + 1);
    float put, rows[WIDTH];
    int64_t vectors, width;
    slr_words_split(w, SLR_PART_TE, ids, 1, &put, rows, WIDTH, NULL);
    assert_int_equal(ids[0], 0);
    assert_true(put == 1);
    assert_memory_equal(rows, slr_embedding_rows(again, &vectors, &width), sizeof rows);
    slr_free(NULL, ids);
    slr_words_free(w);
    slr_bpe_unref(bpe);
    slr_network_unref(one);
    slr_network_unref(two);
    slr_network_unref(longer);
    slr_network_unref(again);
}

/* A LoRA's file with embeddings in it. */
static void bundles(void **state)
{
    (void)state;
    static float zeros[4 * WIDTH];
    char path[64];
    slr_network *n;
    static const char *const keys[] = {"lora_unet_mid_block_attentions_0_proj_in.lora_down.weight",
                                       "lora_unet_mid_block_attentions_0_proj_in.lora_up.weight",
                                       "bundle_emb.sun glow.string_to_param.*",
                                       "bundle_emb.moon.emb_params"};
    const slr_target *t;
    slr_targets *targets;
    slr_st_entry e[4] = {{0}};
    ok(slr_targets_new(&targets, NULL, base));
    t = target_named(targets, keys[0], strcspn(keys[0], "."));
    assert_non_null(t);
    for (int i = 0; i < 4; i++)
        e[i] = (slr_st_entry){keys[i], {.dtype = SDLORA_F32, .rank = 2, .data = zeros}};
    float *much = slr_calloc(NULL, (size_t)(t->in + t->out), sizeof *much);
    e[0].t = (slr_tensor){SDLORA_F32, 4, {1, t->in, 1, 1}, much, 0, NULL};
    e[1].t = (slr_tensor){SDLORA_F32, 4, {t->out, 1, 1, 1}, much, 0, NULL};
    memcpy(e[2].t.dim, (int64_t[]){3, WIDTH}, 2 * sizeof(int64_t));
    memcpy(e[3].t.dim, (int64_t[]){1, WIDTH}, 2 * sizeof(int64_t));
    ok(slr_safetensors_write(NULL, temp_file(path), e, 4, NULL, 0));
    ok(slr_network_open(&n, NULL, base, path));
    assert_false(slr_network_is_embedding(n));
    assert_int_equal(slr_network_bundled(n), 2);
    for (size_t i = 0; i < 2; i++) {
        int64_t vectors, width;
        slr_network *b = slr_network_bundle_at(n, i);
        bool sun = !strcmp(slr_network_name(b), "sun glow");
        assert_true(sun || !strcmp(slr_network_name(b), "moon"));
        assert_non_null(slr_embedding_rows(b, &vectors, &width));
        assert_int_equal(vectors, sun ? 3 : 1);
    }
    slr_network_unref(n);
    e[3].t.dim[1] = WIDTH - 1;
    ok(slr_safetensors_write(NULL, path, e, 4, NULL, 0));
    assert_int_equal(slr_network_open(&n, NULL, base, path), SDLORA_EINVAL);
    says("bundle_emb.moon");
    unlink(path);
    slr_free(NULL, much);
    slr_targets_free(targets);
}

/* Reads a file and a text that names it; the first allocation fails, then the second ... */
static int use(slr_mem *m, const slr_bpe *bpe, const char *path)
{
    slr_network *n;
    slr_words *w = NULL;
    int32_t *ids = NULL;
    size_t count;
    SLR_TRY(slr_network_open(&n, m, base, path));
    int rc = slr_words_new(&w, m, bpe);
    if (rc >= 0)
        rc = slr_words_add(w, n);
    if (rc >= 0)
        rc = slr_words_encode(w, bpe, m, "a glow", 6, &ids, &count);
    if (rc >= 0)
        slr_free(m, ids);
    slr_words_free(w);
    slr_network_unref(n);
    return rc;
}

static void out_of_memory(void **state)
{
    (void)state;
    static const char *const names[] = {"a1111.pt", "emb_params.safetensors", "pixels.png",
                                        "text.png"};
    slr_bpe *bpe;
    ok(slr_bpe_new(&bpe, NULL));
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[256];
        int64_t k = 0;
        int rc = SDLORA_ENOMEM;
        snprintf(path, sizeof path, FOLDER "%s", names[i]);
        for (; rc < 0; k++) {
            failing f = {.left = k};
            const slr_mem_hooks table = {fail_alloc, fail_realloc, fail_free, &f};
            slr_mem *m;
            rc = slr_mem_new(&m, &table, 0);
            if (rc >= 0) {
                rc = use(m, bpe, path);
                slr_mem_unref(m);
            }
            assert_true(rc == SDLORA_OK || rc == SDLORA_ENOMEM);
            assert_int_equal(f.held, 0);
        }
        print_message("%s: %lld allocations\n", names[i], (long long)k - 1);
        assert_true(k > 5);
    }
    slr_bpe_unref(bpe);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(files),        cmocka_unit_test(foreign_files),
        cmocka_unit_test(refusals),     cmocka_unit_test(bent_files),
        cmocka_unit_test(made),         cmocka_unit_test(saved),
        cmocka_unit_test(names),        cmocka_unit_test(bundles),
        cmocka_unit_test(out_of_memory)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
