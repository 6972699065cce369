/* SPDX-License-Identifier: MIT */
/* lib/data/masks.c, loader_masks.c: what masks are drawn, whose they are, and that a batch has the
 * same ones whenever and in whatever order it is asked for.  The encoder is a stand-in whose
 * latents are the first pixel of each block. */
#include "data_test.h"

#include <math.h>

#include "failing.h"

#include "base/rng.h"
#include "data/loader.h"
#include "data/masks.h"

enum { SIDE = 64, LATENTS = SIDE / 8, MORE = 1 + 4, EACH = LATENTS * LATENTS * MORE };

typedef struct fake {
    int64_t images;
} fake;

static int fake_encode(void *user, const float *image, int64_t n, int64_t h, int64_t w,
                       float *latents)
{
    ((fake *)user)->images += n;
    for (int64_t i = 0; i < n; i++)
        for (int64_t y = 0; y < h; y += 8)
            for (int64_t x = 0; x < w; x += 8, latents += 4) {
                const float *p = image + ((i * h + y) * w + x) * 3;
                memcpy(latents, p, 3 * sizeof *p);
                latents[3] = 1;
            }
    return 0;
}

/* --- drawn masks --- */

typedef struct shape {
    int32_t left, top, right, bottom; /* of the box around it */
    int64_t area;
} shape;

static shape measure(const uint8_t *mask, int32_t w, int32_t h)
{
    shape s = {w, h, 0, 0, 0};
    for (int32_t y = 0; y < h; y++)
        for (int32_t x = 0; x < w; x++)
            if (mask[y * w + x]) {
                assert_int_equal(mask[y * w + x], 1);
                s.left = x < s.left ? x : s.left;
                s.top = y < s.top ? y : s.top;
                s.right = x + 1 > s.right ? x + 1 : s.right;
                s.bottom = y + 1;
                s.area++;
            }
    return s;
}

static void masks_are_rectangles_and_ellipses(void **state)
{
    enum { W = 96, H = 64, N = 4000 };
    static uint8_t mask[W * H];
    int64_t round = 0, wide = 0, high = 0, left = 0, edges = 0;
    double share = 0;
    (void)state;
    for (uint32_t i = 0; i < N; i++) {
        slr_rng rng;
        slr_rng_init(&rng, 5, SLR_STREAM_MASK, i);
        slr_masks_draw(&rng, W, H, mask);
        shape s = measure(mask, W, H);
        int64_t box = (int64_t)(s.right - s.left) * (s.bottom - s.top);
        assert_true(s.area > 0);
        share += (double)s.area / (W * H) / N;
        wide += s.right - s.left;
        high += s.bottom - s.top;
        left += s.left;
        edges += s.left == 0 && s.right == W;
        if (s.area == box)
            continue;
        round++;
        /* pixels whose middle is inside: the perimeter's share of a small one is large */
        if (box > 1000)
            assert_true(fabs((double)s.area / (double)box - 0.785398) < 0.02);
        for (int32_t y = s.top; y < s.bottom; y++) /* and it is symmetric */
            for (int32_t x = s.left; x < s.right; x++)
                assert_int_equal(mask[y * W + x],
                                 mask[(s.top + s.bottom - 1 - y) * W + s.left + s.right - 1 - x]);
    }
    /* means of uniform sides, 1 to n, and of places; 4000 draws: 4 standard deviations.  Half of
     * the draws are round, less those too thin to tell. */
    assert_true(fabs((double)wide / N - 48.5) < 1.8);
    assert_true(fabs((double)high / N - 32.5) < 1.2);
    assert_true(fabs((double)left / N - 23.75) < 1.5);
    assert_true(round > N * 0.42 && round < N * 0.53);
    /* (1/2 + 1/192)(1/2 + 1/128) of a rectangle, pi/4 of that of an ellipse */
    assert_true(fabs(share - 0.2291) < 0.013);
    assert_true(edges > 10); /* whole widths do occur: one in 96 */
}

static void draws_are_functions_of_their_address(void **state)
{
    static uint8_t a[SIDE * SIDE], b[SIDE * SIDE], c[SIDE * SIDE];
    slr_rng rng;
    (void)state;
    slr_rng_init(&rng, 9, SLR_STREAM_MASK, 3);
    slr_masks_draw(&rng, SIDE, SIDE, a);
    slr_rng_init(&rng, 9, SLR_STREAM_MASK, 3);
    slr_masks_draw(&rng, SIDE, SIDE, b);
    slr_rng_init(&rng, 9, SLR_STREAM_MASK, 4);
    slr_masks_draw(&rng, SIDE, SIDE, c);
    assert_memory_equal(a, b, sizeof a);
    assert_memory_not_equal(a, c, sizeof a);
    uint8_t one;
    slr_masks_draw(&rng, 1, 1, &one);
    assert_int_equal(one, 1);
}

/* --- loaders --- */

static void put_mask(const char *path, int32_t w, int32_t h)
{
    slr_pixels p = {w, h, 3, calloc((size_t)w * (size_t)h, 3)};
    assert_non_null(p.data);
    for (int32_t y = 0; y < h; y++) /* the left third; 128 is the first that counts */
        for (int32_t x = 0; x < w; x++)
            memset(p.data + (y * w + x) * 3, x * 3 < w ? 128 : 127, 3);
    assert_ok(slr_png_write(NULL, path, &p, NULL));
    free(p.data);
}

/* Three pictures, 2 repeats; with `own` the first has a mask. */
static slr_dataset *open_set(const char *name, bool own, const char *extra)
{
    char path[128];
    slr_dataset *d;
    for (int i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s/2_cat/%d.png", name, i);
        put_picture(in_scratch(path), SIDE, SIDE, (uint32_t)i + 1);
    }
    snprintf(path, sizeof path, "%s/2_cat/0-masklabel.png", name);
    if (own)
        put_mask(in_scratch(path), SIDE, SIDE);
    const char *pairs[] = {option_of("train_data_dir", in_scratch(name)), "resolution=64",
                           "train_batch_size=4", extra, NULL};
    assert_ok(open_dataset(&d, pairs));
    return d;
}

static slr_loader_config config_of(fake *f, int64_t masks, uint64_t seed)
{
    return (slr_loader_config){.encode = fake_encode,
                               .encode_user = f,
                               .encoder_id = "fake",
                               .factor = 8,
                               .channels = 4,
                               .seed = seed,
                               .threads = 2,
                               .inpaint = true,
                               .masks = masks,
                               .mask_seed = seed};
}

static slr_loader *loader_of(slr_dataset *d, fake *f, int64_t masks, uint64_t seed)
{
    slr_loader *l;
    slr_loader_config c = config_of(f, masks, seed);
    assert_ok(slr_loader_new(&l, d, &c));
    return l;
}

/* What is masked is grey beside the mask, the rest is the picture's. */
static void check_sample(const slr_batch *b, int64_t i)
{
    const float *extra = b->extra + i * EACH, *plain = b->latents + i * LATENTS * LATENTS * 4;
    for (int64_t k = 0; k < LATENTS * LATENTS; k++, extra += MORE, plain += 4) {
        assert_true(extra[0] == 0 || extra[0] == 1);
        for (int c = 0; c < 3; c++)
            assert_true(extra[1 + c] == (extra[0] == 1 ? 0 : plain[c]));
    }
}

static uint64_t epoch_digest(slr_loader *l, const slr_dataset *d, int64_t epoch, bool backwards)
{
    int64_t n = slr_dataset_batches_per_epoch(d);
    uint64_t h[8] = {0}, all = 0;
    for (int64_t k = 0; k < n; k++) {
        const slr_batch *b;
        int64_t at = backwards ? n - 1 - k : k;
        assert_ok(slr_loader_get(l, epoch, at, 0, &b));
        assert_non_null(b->extra);
        const unsigned char *p = (const unsigned char *)b->extra;
        for (size_t i = 0; i < (size_t)b->n * EACH * sizeof(float); i++)
            h[at] = (h[at] ^ p[i]) * 1099511628211u;
        for (int64_t i = 0; i < b->n; i++)
            check_sample(b, i);
    }
    for (int64_t i = 0; i < n; i++)
        all = all * 31 + h[i];
    return all;
}

static void batches_do_not_depend_on_calls(void **state)
{
    static const struct {
        int64_t masks;
        const char *extra;
    } rows[] = {
        {3, "flip_aug=false"}, {3, "flip_aug=true"}, {0, "flip_aug=true"}, {3, "random_crop=true"}};
    (void)state;
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
        fake f = {0};
        uint64_t first[3];
        slr_dataset *d = open_set("calls", r == 2, rows[r].extra);
        slr_loader *a = loader_of(d, &f, rows[r].masks, 7), *b = loader_of(d, &f, rows[r].masks, 7),
                   *c = loader_of(d, &f, rows[r].masks, 8);
        assert_int_equal(slr_loader_encodes(a), r >= 2);
        for (int e = 0; e < 3; e++)
            first[e] = epoch_digest(a, d, e, false);
        for (int e = 2; e >= 0; e--)
            assert_true(epoch_digest(b, d, e, true) == first[e]);
        assert_true(first[0] != first[1] && epoch_digest(c, d, 0, false) != first[0]);
        slr_loader_free(a);
        slr_loader_free(b);
        slr_loader_free(c);
        slr_dataset_unref(d);
    }
}

/* Which of the masks met so far a sample has; a new one is added. */
static size_t which(float (*seen)[EACH], size_t *n, const float *extra)
{
    size_t i = 0;
    while (i < *n && memcmp(seen[i], extra, sizeof *seen) != 0)
        i++;
    if (i == *n) {
        assert_true(*n < 16);
        memcpy(seen[(*n)++], extra, sizeof *seen);
    }
    return i;
}

static void kept_masks_take_turns(void **state)
{
    fake f = {0};
    static float seen[3][16][EACH];
    size_t n[3] = {0}, uses[3][16] = {{0}};
    (void)state;
    slr_dataset *d = open_set("turns", true, NULL);
    slr_loader *l = loader_of(d, &f, 4, 1);
    assert_int_equal(f.images, 3 + 1 + 4 + 4); /* an own mask is one */
    for (int64_t e = 0; e < 6; e++)
        for (int64_t i = 0; i < slr_dataset_batches_per_epoch(d); i++) {
            const slr_batch *b;
            assert_ok(slr_loader_get(l, e, i, 0, &b));
            for (int64_t k = 0; k < b->n; k++) {
                size_t at = b->items[k];
                uses[at][which(seen[at], &n[at], b->extra + k * EACH)]++;
            }
        }
    assert_int_equal(n[0], 1);
    for (int i = 1; i < 3; i++) {
        assert_int_equal(n[i], 4);
        for (int k = 0; k < 4; k++)
            assert_int_equal(uses[i][k], 3); /* 6 epochs of 2 repeats */
    }
    for (int k = 0; k < LATENTS * LATENTS; k++) /* 64 / 3: three blocks begin left of it */
        assert_true(seen[0][0][k * MORE] == (k % LATENTS < 3));
    slr_loader_free(l);
    slr_dataset_unref(d);
}

/* Room for latents: of pixels there is one picture's, from before the first batch. */
static void batches_take_little(void **state)
{
    (void)state;
    slr_dataset *d = open_set("little", false, NULL);
    for (int64_t masks = 0; masks < 3; masks += 2) {
        fake f = {0};
        slr_mem *m;
        slr_loader *l;
        assert_ok(slr_mem_new(&m, NULL, 0));
        slr_loader_config c = config_of(&f, masks, 1);
        c.mem = m;
        assert_ok(slr_loader_new(&l, d, &c));
        uint64_t before = slr_mem_used(m), latents = (LATENTS * LATENTS * 4 + EACH) * sizeof(float);
        epoch_digest(l, d, 0, false);
        uint64_t taken = slr_mem_used(m) - before;
        if (taken > 4 * latents + 16384) /* 4 samples, captions, a mask; a picture is 49152 */
            fail_msg("%d masks: %llu bytes", (int)masks, (unsigned long long)taken);
        slr_loader_free(l);
        slr_mem_unref(m);
    }
    slr_dataset_unref(d);
}

/* No mask is encoded that no epoch uses, and the first ones stay the same. */
static void as_many_masks_as_are_used(void **state)
{
    fake f = {0}, g = {0};
    slr_loader *few, *many;
    (void)state;
    slr_dataset *d = open_set("few", false, NULL);
    slr_loader_config c = config_of(&f, 100, 1);
    c.max_epochs = 2;
    assert_ok(slr_loader_new(&few, d, &c));
    assert_int_equal(f.images, 3 * (1 + 4));
    c.encode_user = &g;
    c.max_epochs = 3;
    assert_ok(slr_loader_new(&many, d, &c));
    assert_int_equal(g.images, 3 * (1 + 6));
    for (int e = 0; e < 2; e++)
        assert_true(epoch_digest(few, d, e, false) == epoch_digest(many, d, e, false));
    slr_loader_free(few);
    slr_loader_free(many);
    slr_dataset_unref(d);
}

static void own_masks_are_mirrored_with_the_picture(void **state)
{
    static const char *const ways[] = {"flip_aug=true", "random_crop=true"};
    (void)state;
    for (int w = 0; w < 2; w++) {
        fake f = {0};
        bool left = false, right = false;
        slr_dataset *d = open_set(w ? "crop" : "mirror", true, ways[w]);
        slr_loader *l = loader_of(d, &f, 4, 1);
        for (int64_t e = 0; e < 12; e++)
            for (int64_t i = 0; i < slr_dataset_batches_per_epoch(d); i++) {
                const slr_batch *b;
                assert_ok(slr_loader_get(l, e, i, 0, &b));
                for (int64_t k = 0; k < b->n; k++) {
                    if (b->items[k])
                        continue;
                    check_sample(b, k);
                    left = left || b->extra[k * EACH] == 1;
                    right = right || b->extra[k * EACH] == 0;
                }
            }
        assert_true(left && right == (w == 0)); /* a crop as large as the picture is the picture */
        slr_loader_free(l);
        slr_dataset_unref(d);
    }
}

/* --- files --- */

static size_t files_of(const char *dir, const char *part)
{
    slr_list list;
    size_t n = 0;
    assert_ok(slr_dir_list(&list, NULL, dir));
    for (size_t i = 0; i < list.n; i++)
        n += strstr(list.item[i], part) != NULL;
    slr_list_free(&list);
    return n;
}

static void masked_latents_are_kept_on_disk(void **state)
{
    fake f = {0}, again = {0}, other = {0}, plain = {0};
    (void)state;
    slr_dataset *d = open_set("disk", true, "cache_latents_to_disk=true");
    slr_loader *l = loader_of(d, &f, 2, 1);
    uint64_t h = epoch_digest(l, d, 1, false);
    slr_loader_free(l);
    assert_int_equal(files_of(in_scratch("disk/2_cat"), ".inpaint-"), 3);
    l = loader_of(d, &again, 2, 1);
    assert_int_equal(again.images, 0);
    assert_true(epoch_digest(l, d, 1, false) == h);
    slr_loader_free(l);
    /* another seed draws other masks, but the own mask is its own */
    l = loader_of(d, &other, 2, 2);
    assert_int_equal(other.images, 2 * 2);
    slr_loader_free(l);
    /* a plain model shares the latents */
    slr_loader_config c = config_of(&plain, 0, 1);
    c.inpaint = false;
    assert_ok(slr_loader_new(&l, d, &c));
    assert_int_equal(plain.images, 0);
    slr_loader_free(l);
    slr_dataset_unref(d);
}

static void masks_are_no_pictures(void **state)
{
    const char *const *lines;
    (void)state;
    slr_dataset *with = open_set("no", true, NULL);
    assert_int_equal(slr_dataset_items(with), 3);
    assert_int_equal(slr_dataset_notes(with, &lines), 1); /* of captions that are not there */
    assert_non_null(slr_dataset_item(with, 0)->mask);
    assert_null(slr_dataset_item(with, 1)->mask);
    put_mask(in_scratch("no/2_cat/9-masklabel.png"), 8, 8);
    slr_dataset *stray = open_set("no", true, NULL);
    assert_int_equal(slr_dataset_items(stray), 3);
    assert_int_equal(slr_dataset_notes(stray, &lines), 2);
    char says[600];
    snprintf(says, sizeof says, "1 masks (-masklabel.png) belong to no picture, the first is %s",
             in_scratch("no/2_cat/9-masklabel.png"));
    assert_string_equal(lines[1], says);
    assert_true(slr_dataset_fingerprint(stray, true) == slr_dataset_fingerprint(with, true));
    assert_int_equal(unlink(in_scratch("no/2_cat/0-masklabel.png")), 0);
    slr_dataset *without = open_set("no", false, NULL);
    for (int masks = 0; masks < 2; masks++)
        assert_true((slr_dataset_fingerprint(without, masks) ==
                     slr_dataset_fingerprint(with, masks)) == !masks);
    slr_dataset_unref(with);
    slr_dataset_unref(stray);
    slr_dataset_unref(without);
}

/* The ending's case does not matter, and pictures of the same name share a mask. */
static void masks_are_found_by_name(void **state)
{
    static const char *const files[] = {"0-MaskLabel.PNG", "1-masklabel.png"};
    char path[64];
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "names/2_cat/%s", files[i]);
        put_mask(in_scratch(path), SIDE, SIDE);
    }
    put_picture(in_scratch("names/2_cat/1.jpg"), SIDE, SIDE, 9); /* known by its bytes */
    slr_dataset *d = open_set("names", false, NULL);
    assert_int_equal(slr_dataset_items(d), 4); /* 0, 1, 1 and 2 */
    for (size_t i = 0; i < 3; i++) {
        const char *mask = slr_dataset_item(d, i)->mask;
        assert_non_null(mask);
        assert_string_equal(slr_path_base(mask), files[i > 0]);
        assert_true(slr_dataset_item(d, i)->mask_hash != 0);
    }
    assert_null(slr_dataset_item(d, 3)->mask);
    assert_false(notes_say(d, "belong to no picture"));
    slr_dataset_unref(d);
    put_mask(in_scratch("names/2_cat/0-masklabel.PNG"), SIDE, SIDE); /* one too many */
    d = open_set("names", false, NULL);
    assert_string_equal(slr_path_base(slr_dataset_item(d, 0)->mask), files[0]);
    assert_true(notes_say(d, "1 masks (-masklabel.png) belong to no picture"));
    assert_true(notes_say(d, "names/2_cat/0-masklabel.PNG"));
    slr_dataset_unref(d);
}

static void masks_that_do_not_fit_are_refused(void **state)
{
    fake f = {0};
    slr_loader *l;
    (void)state;
    slr_loader_config c = config_of(&f, 2, 1);
    slr_dataset *d = open_set("bad", true, NULL);
    put_mask(in_scratch("bad/2_cat/0-masklabel.png"), SIDE, SIDE / 2);
    assert_int_equal(slr_loader_new(&l, d, &c), SDLORA_EINVAL);
    assert_says("0-masklabel.png is 64x32 and its picture 64x64");
    put_text(in_scratch("bad/2_cat/0-masklabel.png"), "no picture");
    assert_true(slr_loader_new(&l, d, &c) < 0);
    assert_says("0-masklabel.png");
    put_mask(in_scratch("bad/2_cat/0-masklabel.png"), SIDE, SIDE);
    put_picture(in_scratch("bad/2_cat/0-masklabel.png"), SIDE, SIDE, 3);
    assert_int_equal(slr_loader_new(&l, d, &c), SDLORA_EFORMAT);
    assert_says("changed");
    c.inpaint = false; /* others do not look at masks */
    assert_ok(slr_loader_new(&l, d, &c));
    slr_loader_free(l);
    slr_dataset_unref(d);
}

/* --- memory that runs out --- */

static int open_and_draw(slr_mem *m, const sdlora_options *o, int64_t masks)
{
    fake f = {0};
    slr_dataset *d = NULL;
    slr_loader *l = NULL;
    const slr_batch *b;
    slr_loader_config c = config_of(&f, masks, 1);
    c.mem = m;
    int rc = slr_dataset_open(&d, m, (slr_log){0}, o);
    if (rc == 0)
        rc = slr_loader_new(&l, d, &c);
    if (rc == 0)
        rc = slr_loader_get(l, 0, 0, 0, &b);
    slr_loader_free(l);
    slr_dataset_unref(d);
    return rc;
}

/* Each allocation in turn fails: an error every time, nothing kept. */
static void every_allocation_may_fail(void **state)
{
    (void)state;
    slr_dataset_unref(open_set("oom", true, NULL));
    for (int64_t masks = 0; masks < 2; masks++) {
        sdlora_options *o = dataset_options(
            (const char *[]){option_of("train_data_dir", in_scratch("oom")), "resolution=64",
                             "cache_latents_to_disk=true", "train_batch_size=4", NULL});
        int rc = SDLORA_ENOMEM;
        for (int64_t k = 0; rc != 0; k++) {
            failing s = {.left = k};
            const slr_mem_hooks hooks = {fail_alloc, fail_realloc, fail_free, &s};
            slr_mem *m;
            rc = slr_mem_new(&m, &hooks, 0);
            if (rc == 0) {
                rc = open_and_draw(m, o, masks);
                slr_mem_unref(m);
            }
            assert_true(rc == 0 || rc == SDLORA_ENOMEM);
            assert_int_equal(s.held, 0);
            assert_true(k < 5000);
        }
        slr_options_unref(o);
    }
}

/* --- what it will take --- */

static void needs_are_counted(void **state)
{
    static const struct {
        int64_t masks;
        const char *extra;
        int64_t pictures, epoch_pictures, files;
        size_t floats; /* of a picture, in latents of 8x8 */
    } rows[] = {{2, NULL, 3, 0, 0, 4 + 2 * MORE},
                {2, "flip_aug=true", 3, 0, 0, 2 * (4 + 2 * MORE)},
                {2, "cache_latents_to_disk=true", 3, 0, 6, 4 + 2 * MORE},
                {0, NULL, 3, 6, 0, 4},
                {2, "random_crop=true", 0, 6, 0, 0}};
    (void)state;
    slr_dataset_unref(open_set("needs", false, NULL));
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
        fake f = {0};
        slr_loader_needs n;
        slr_dataset *d = open_set("needs", false, rows[r].extra);
        slr_loader_config c = config_of(&f, rows[r].masks, 1);
        assert_ok(slr_loader_look(d, &c, &n));
        assert_int_equal(n.pictures, rows[r].pictures);
        assert_int_equal(n.epoch_pictures, rows[r].epoch_pictures);
        assert_int_equal(n.cache_files, rows[r].files);
        assert_int_equal(n.latent_bytes, 3 * LATENTS * LATENTS * rows[r].floats * sizeof(float));
        assert_true((n.seconds > 0) == (n.pictures > 0));
        assert_true((n.epoch_seconds > 0) == (n.epoch_pictures > 0));
        slr_dataset_unref(d);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(masks_are_rectangles_and_ellipses),
        cmocka_unit_test(draws_are_functions_of_their_address),
        cmocka_unit_test(batches_do_not_depend_on_calls),
        cmocka_unit_test(kept_masks_take_turns),
        cmocka_unit_test(batches_take_little),
        cmocka_unit_test(as_many_masks_as_are_used),
        cmocka_unit_test(own_masks_are_mirrored_with_the_picture),
        cmocka_unit_test(masked_latents_are_kept_on_disk),
        cmocka_unit_test(masks_are_no_pictures),
        cmocka_unit_test(masks_are_found_by_name),
        cmocka_unit_test(masks_that_do_not_fit_are_refused),
        cmocka_unit_test(every_allocation_may_fail),
        cmocka_unit_test(needs_are_counted),
    };
    return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
