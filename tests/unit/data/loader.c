/* SPDX-License-Identifier: MIT */
/* lib/data/loader.c, order.c, cache.c, ahead.c: batch arithmetic, order, draws, the cache on disk
 * under damage, and nothing that depends on the order of calls.  The encoder is a stand-in that
 * keeps enough of the pixels to tell crops and mirrored pictures apart. */
#include "data_test.h"

#include <math.h>
#include <pthread.h>
#include <sys/stat.h>
#include <time.h>

#include "data/loader.h"

typedef struct fake {
    int64_t calls, images;
    int64_t nan_at; /* call that gives NaN; 0: none */
} fake;

/* Channel c < 3: mean of a cell; channel 3: its top left red value. */
static int fake_encode(void *user, const float *image, int64_t n, int64_t h, int64_t w,
                       float *latents)
{
    fake *f = user;
    f->calls++;
    f->images += n;
    for (int64_t i = 0; i < n; i++)
        for (int64_t y = 0; y < h; y += 8)
            for (int64_t x = 0; x < w; x += 8, latents += 4) {
                const float *p = image + ((i * h + y) * w + x) * 3;
                for (int c = 0; c < 3; c++) {
                    double sum = 0;
                    for (int64_t k = 0; k < 64; k++)
                        sum += p[((k / 8) * w + k % 8) * 3 + c];
                    latents[c] = (float)(sum / 64);
                }
                latents[3] = f->nan_at == f->calls ? NAN : p[0];
            }
    return 0;
}

static slr_loader_config config_of(fake *f, uint64_t seed)
{
    return (slr_loader_config){.encode = fake_encode,
                               .encode_user = f,
                               .encoder_id = "fake",
                               .factor = 8,
                               .channels = 4,
                               .seed = seed,
                               .threads = 2};
}

static slr_loader *loader_of(slr_dataset *d, fake *f, uint64_t seed)
{
    slr_loader *l;
    slr_loader_config c = config_of(f, seed);
    assert_ok(slr_loader_new(&l, d, &c));
    return l;
}

/* A digest of all that a batch says. */
static uint64_t digest(const slr_batch *b)
{
    uint64_t h = 14695981039346656037u;
    const unsigned char *p = (const unsigned char *)b->latents;
#define MIX(byte) (h = (h ^ (uint64_t)(byte)) * 1099511628211u)
    for (size_t i = 0; i < (size_t)(b->n * b->lw * b->lh * b->channels) * 4; i++)
        MIX(p[i]);
    for (int64_t i = 0; i < b->n; i++) {
        for (const char *c = b->captions[i]; *c; c++)
            MIX((unsigned char)*c);
        MIX(b->items[i]);
        MIX((int)(b->loss_weight[i] * 1000));
    }
    MIX(b->w);
    MIX(b->h);
    return h;
#undef MIX
}

static uint64_t epoch_digest(slr_loader *l, const slr_dataset *d, int64_t epoch, bool backwards)
{
    int64_t n = slr_dataset_batches_per_epoch(d);
    uint64_t h = 0, one[64] = {0};
    assert_true(n <= 64);
    for (int64_t k = 0; k < n; k++) {
        const slr_batch *b;
        int64_t i = backwards ? n - 1 - k : k;
        assert_ok(slr_loader_get(l, epoch, i, 0, &b));
        one[i] = digest(b);
    }
    for (int64_t i = 0; i < n; i++)
        h = h * 31 + one[i];
    return h;
}

/* 5 pictures in two shapes: 3 x 2 wide ones, 2 x 2 upright ones. */
static const char *small_tree(const char *name)
{
    char path[128];
    for (int i = 0; i < 5; i++) {
        snprintf(path, sizeof path, "%s/2_cat/%d.png", name, i);
        put_picture(in_scratch(path), i < 3 ? 96 : 48, i < 3 ? 48 : 96, (uint32_t)i + 1);
        snprintf(path, sizeof path, "%s/2_cat/%d.txt", name, i);
        put_text(in_scratch(path), "cat, a, b, c, d\n");
    }
    return in_scratch(name);
}

static slr_dataset *open_small(const char *name, const char *extra)
{
    slr_dataset *d;
    const char *pairs[] = {option_of("train_data_dir", in_scratch(name)),
                           "resolution=64",
                           "enable_bucket=true",
                           "min_bucket_reso=64",
                           "bucket_reso_steps=8",
                           "caption_extension=.txt",
                           "train_batch_size=4",
                           extra,
                           NULL};
    assert_ok(open_dataset(&d, pairs));
    return d;
}

static void batches_are_slices_of_buckets(void **state)
{
    fake f = {0};
    slr_dataset *d;
    int64_t seen[5] = {0};
    small_tree("slices");
    const char *pairs[] = {option_of("train_data_dir", in_scratch("slices")),
                           "resolution=64,64",
                           "enable_bucket=true",
                           "min_bucket_reso=64",
                           "bucket_no_upscale=true",
                           "bucket_reso_steps=8",
                           "caption_extension=.txt",
                           "train_batch_size=4",
                           NULL};
    assert_ok(open_dataset(&d, pairs));
    assert_int_equal(slr_dataset_buckets(d), 2);
    assert_int_equal(slr_dataset_batches_per_epoch(d), 2 + 1); /* ceil(6/4) + ceil(4/4) */
    slr_loader *l = loader_of(d, &f, 1);
    assert_int_equal(f.images, 5);
    int64_t total = 0;
    for (int64_t i = 0; i < 3; i++) {
        const slr_batch *b;
        assert_ok(slr_loader_get(l, 0, i, 0, &b));
        total += b->n;
        assert_true(b->n == 4 || b->n == 2);
        assert_int_equal(b->lw, b->w / 8);
        assert_int_equal(b->lh, b->h / 8);
        assert_int_equal(b->channels, 4);
        for (int64_t k = 0; k < b->n; k++) {
            const slr_item *item = slr_dataset_item(d, b->items[k]);
            assert_int_equal(slr_dataset_bucket(d, item->bucket)->width, b->w);
            assert_string_equal(b->captions[k], "cat, a, b, c, d");
            assert_true(b->loss_weight[k] == 1.0f);
            seen[b->items[k]]++;
        }
    }
    assert_int_equal(total, 10);
    for (int i = 0; i < 5; i++)
        assert_int_equal(seen[i], 2);
    const slr_batch *b;
    assert_int_equal(slr_loader_get(l, 0, 3, 0, &b), SDLORA_EINVAL);
    assert_int_equal(slr_loader_get(l, -1, 0, 0, &b), SDLORA_EINVAL);
    assert_null(b);
    slr_loader_free(l);
    slr_dataset_unref(d);
}

static const char *const draws = "shuffle_caption=true";

static void order_of_calls_does_not_matter(void **state)
{
    fake f = {0};
    small_tree("calls");
    slr_dataset *d = open_small("calls", draws);
    slr_loader *a = loader_of(d, &f, 7), *b = loader_of(d, &f, 7), *c = loader_of(d, &f, 8);
    uint64_t first[4];
    for (int e = 0; e < 4; e++)
        first[e] = epoch_digest(a, d, e, false);
    for (int e = 3; e >= 0; e--)
        assert_true(epoch_digest(b, d, e, true) == first[e]);
    assert_true(epoch_digest(a, d, 2, true) == first[2]);
    assert_true(first[0] != first[1] && first[1] != first[2]);
    assert_true(epoch_digest(c, d, 0, false) != first[0]);
    slr_loader_free(a);
    slr_loader_free(b);
    slr_loader_free(c);
    slr_dataset_unref(d);
}

static void mirrored_half_of_the_time(void **state)
{
    fake f = {0};
    small_tree("flip");
    slr_dataset *d = open_small("flip", "flip_aug=true");
    slr_loader *l = loader_of(d, &f, 3);
    int64_t kinds[2] = {0};
    float first[5] = {0};
    bool have[5] = {false};
    assert_int_equal(f.images, 10);
    for (int64_t e = 0; e < 40; e++)
        for (int64_t i = 0; i < slr_dataset_batches_per_epoch(d); i++) {
            const slr_batch *b;
            assert_ok(slr_loader_get(l, e, i, 0, &b));
            for (int64_t k = 0; k < b->n; k++) {
                float v = b->latents[k * b->lw * b->lh * 4 + 3];
                size_t at = b->items[k];
                if (!have[at])
                    first[at] = v;
                have[at] = true;
                kinds[v == first[at]]++;
            }
        }
    /* 400 fair draws: 200 +- 60 is six standard deviations */
    assert_true(kinds[0] > 140 && kinds[0] < 260);
    slr_loader_free(l);
    slr_dataset_unref(d);
}

static void random_crops_move(void **state)
{
    fake f = {0};
    small_tree("crop");
    slr_dataset *d = open_small("crop", "random_crop=true");
    slr_loader *a = loader_of(d, &f, 3), *b = loader_of(d, &f, 3);
    assert_int_equal(f.calls, 0);
    uint64_t h = epoch_digest(a, d, 5, false);
    assert_true(f.calls > 0);
    epoch_digest(b, d, 1, true);
    assert_true(epoch_digest(b, d, 5, true) == h);
    slr_loader_free(a);
    slr_loader_free(b);
    slr_dataset_unref(d);
}

static int stop_at_two(void *user, int64_t done, int64_t total)
{
    assert_int_equal(total, 5);
    *(int64_t *)user = done;
    return done == 2;
}

static void cancels_and_refuses(void **state)
{
    fake f = {0};
    int64_t done = 0;
    slr_loader *l;
    slr_cancel_flag stop = 1;
    small_tree("cancel");
    slr_dataset *d = open_small("cancel", "flip_aug=false");
    slr_loader_config c = config_of(&f, 1);
    c.progress = stop_at_two;
    c.progress_user = &done;
    assert_int_equal(slr_loader_new(&l, d, &c), SDLORA_ECANCELED);
    assert_null(l);
    assert_int_equal(done, 2);
    c.progress = NULL;
    c.cancel = &stop;
    assert_int_equal(slr_loader_new(&l, d, &c), SDLORA_ECANCELED);
    c.cancel = NULL;
    f = (fake){.nan_at = 3};
    assert_int_equal(slr_loader_new(&l, d, &c), SDLORA_ENAN);
    assert_says("2.png");
    c.factor = 7;
    assert_int_equal(slr_loader_new(&l, d, &c), SDLORA_EINVAL);
    assert_says("multiples of 7");
    c.factor = 8;
    put_picture(in_scratch("cancel/2_cat/4.png"), 48, 96, 99);
    f = (fake){0};
    assert_int_equal(slr_loader_new(&l, d, &c), SDLORA_EFORMAT);
    assert_says("4.png");
    assert_says("changed");
    slr_dataset_unref(d);
}

/* --- cache on disk --- */

static void count_warnings(int level, const char *text, void *user)
{
    if (level <= SLR_LOG_WARN && strstr(text, "made anew"))
        ++*(int *)user;
}

static slr_loader *logged(slr_dataset *d, fake *f, int *warnings)
{
    slr_loader *l;
    slr_loader_config c = config_of(f, 1);
    c.log = (slr_log){count_warnings, warnings, SLR_LOG_WARN};
    assert_ok(slr_loader_new(&l, d, &c));
    return l;
}

static void find_cache(const char *dir, const char *picture, char out[600])
{
    slr_list names;
    out[0] = '\0';
    assert_ok(slr_dir_list(&names, NULL, dir));
    for (size_t i = 0; i < names.n; i++)
        if (!strncmp(names.item[i], picture, strlen(picture)) &&
            strstr(names.item[i], ".safetensors"))
            snprintf(out, 600, "%s/%s", dir, names.item[i]);
    slr_list_free(&names);
    assert_true(out[0] != '\0');
}

static void disk_cache_is_used_and_goes_stale(void **state)
{
    fake f = {0}, again = {0}, edited = {0}, other = {0};
    int warnings = 0;
    small_tree("disk");
    slr_dataset *plain = open_small("disk", "cache_latents=true");
    slr_loader *l = loader_of(plain, &f, 1);
    uint64_t h = epoch_digest(l, plain, 0, false);
    slr_loader_free(l);
    slr_dataset_unref(plain);
    /* the run before kept latents: none are encoded again, and the bytes are those */
    slr_dataset *d = open_small("disk", "cache_latents_to_disk=true");
    slr_loader_free(logged(d, &f, &warnings));
    l = logged(d, &again, &warnings);
    assert_int_equal(again.images, 0);
    assert_true(epoch_digest(l, d, 0, false) == h);
    slr_loader_free(l);
    slr_dataset_unref(d);
    /* edited pictures: as many are made anew, told once */
    put_picture(in_scratch("disk/2_cat/0.png"), 96, 48, 77);
    put_picture(in_scratch("disk/2_cat/1.png"), 96, 48, 78);
    d = open_small("disk", "cache_latents_to_disk=true");
    l = logged(d, &edited, &warnings);
    assert_int_equal(edited.images, 2);
    assert_int_equal(warnings, 1);
    slr_loader_free(l);
    /* another VAE */
    slr_loader_config c = config_of(&other, 1);
    c.encoder_id = "another";
    assert_ok(slr_loader_new(&l, d, &c));
    assert_int_equal(other.images, 5);
    slr_loader_free(l);
    slr_dataset_unref(d);
}

/* Every byte of a cache file, flipped: the batch is the one without a cache. */
static void damaged_cache_changes_nothing(void **state)
{
    fake f = {0};
    char path[600];
    size_t n = 0;
    void *bytes;
    const slr_batch *b;
    put_picture(in_scratch("flip1/1_x/p.png"), 16, 16, 5);
    put_text(in_scratch("flip1/1_x/p.txt"), "x");
    const char *pairs[] = {option_of("train_data_dir", in_scratch("flip1")), "resolution=16",
                           "caption_extension=.txt", "cache_latents_to_disk=true", NULL};
    slr_dataset *d;
    assert_ok(open_dataset(&d, pairs));
    slr_loader *l = loader_of(d, &f, 1);
    assert_ok(slr_loader_get(l, 0, 0, 0, &b));
    uint64_t want = digest(b);
    slr_loader_free(l);
    find_cache(in_scratch("flip1/1_x"), "p.png", path);
    assert_ok(slr_file_read(NULL, path, 1 << 20, &bytes, &n));
    for (size_t i = 0; i < n + 3; i++) {
        int64_t before = f.images;
        unsigned char *bad = malloc(n);
        memcpy(bad, bytes, n);
        if (i < n)
            bad[i] ^= (unsigned char)(1u << i % 8);
        /* beyond: cut short, empty, and no regular file */
        put_file(path, bad, i < n ? n : i == n ? n - 1 : 0);
        if (i == n + 2) {
            assert_int_equal(unlink(path), 0);
            assert_int_equal(mkfifo(path, 0600), 0);
        }
        free(bad);
        l = loader_of(d, &f, 1);
        assert_ok(slr_loader_get(l, 0, 0, 0, &b));
        assert_true(digest(b) == want);
        if (i >= n - 64) /* the numbers themselves: always noticed */
            assert_int_equal(f.images, before + 1);
        slr_loader_free(l);
        if (i == n + 2)
            assert_int_equal(unlink(path), 0);
    }
    slr_free(NULL, bytes);
    slr_dataset_unref(d);
}

static void *run_one(void *arg)
{
    fake f = {0};
    slr_dataset *d = arg;
    slr_loader *l = loader_of(d, &f, 1);
    uint64_t *h = malloc(sizeof *h);
    *h = epoch_digest(l, d, 0, false);
    slr_loader_free(l);
    return h;
}

/* Runs that share a directory and a dataset: whoever comes second finds whole files or none. */
static void runs_may_share_a_cache(void **state)
{
    pthread_t thread[4];
    uint64_t *h[4];
    small_tree("share");
    slr_dataset *d = open_small("share", "cache_latents_to_disk=true");
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&thread[i], NULL, run_one, d), 0);
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_join(thread[i], (void **)&h[i]), 0);
    for (int i = 1; i < 4; i++)
        assert_true(*h[i] == *h[0]);
    for (int i = 0; i < 4; i++)
        free(h[i]);
    slr_dataset_unref(d);
}

/* --- memory --- */

typedef struct scarce {
    _Atomic int64_t left, held; /* calls until one fails; blocks out */
} scarce;

static void *scarce_alloc(void *user, size_t bytes)
{
    scarce *s = user;
    if (s->left-- <= 0)
        return NULL;
    s->held++;
    return malloc(bytes ? bytes : 1);
}

static void *scarce_realloc(void *user, void *ptr, size_t bytes)
{
    scarce *s = user;
    if (s->left-- <= 0)
        return NULL;
    s->held += !ptr;
    return realloc(ptr, bytes ? bytes : 1);
}

static void scarce_free(void *user, void *ptr)
{
    ((scarce *)user)->held -= ptr != NULL;
    free(ptr);
}

static int open_and_draw(slr_mem *m, const sdlora_options *o, fake *f)
{
    slr_dataset *d = NULL;
    slr_loader *l = NULL;
    const slr_batch *b;
    slr_loader_config c = config_of(f, 1);
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
    small_tree("oom");
    const char *pairs[] = {option_of("train_data_dir", in_scratch("oom")),
                           "resolution=64",
                           "caption_extension=.txt",
                           "train_batch_size=4",
                           "shuffle_caption=true",
                           "cache_latents_to_disk=true",
                           NULL};
    sdlora_options *o = dataset_options(pairs);
    int rc = SDLORA_ENOMEM;
    for (int64_t k = 0; rc != 0; k++) {
        scarce s = {.left = k};
        slr_mem_hooks hooks = {scarce_alloc, scarce_realloc, scarce_free, &s};
        slr_mem *m;
        fake f = {0};
        rc = slr_mem_new(&m, &hooks, 0);
        if (rc == 0) {
            rc = open_and_draw(m, o, &f);
            slr_mem_unref(m);
        }
        assert_true(rc == 0 || rc == SDLORA_ENOMEM);
        assert_int_equal(s.held, 0);
        assert_true(k < 5000);
    }
    slr_options_unref(o);
}

/* --- real pictures --- */

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void the_projects_pictures(void **state)
{
    fake f = {0};
    slr_dataset *d;
    const slr_batch *b;
    const char *pairs[] = {"train_data_dir=" PICTURES "openmoji-style/train",
                           "reg_data_dir=" PICTURES "regularization",
                           "resolution=64",
                           "caption_extension=.txt",
                           "train_batch_size=4",
                           "prior_loss_weight=0.5",
                           NULL};
    double t0 = now();
    assert_ok(open_dataset(&d, pairs));
    double opened = now() - t0;
    assert_int_equal(slr_dataset_train_images(d), 240);
    slr_loader *l = loader_of(d, &f, 42);
    assert_int_equal(slr_dataset_batches_per_epoch(d), 120);
    int64_t reg = 0;
    t0 = now();
    for (int64_t i = 0; i < 120; i++) {
        assert_ok(slr_loader_get(l, 0, i, 0, &b));
        for (int64_t k = 0; k < b->n; k++) {
            reg += b->loss_weight[k] == 0.5f;
            assert_true(strlen(b->captions[k]) > 2);
        }
    }
    print_message("54 pictures opened in %.1f ms, an epoch served in %.1f ms\n", opened * 1e3,
                  (now() - t0) * 1e3);
    assert_int_equal(reg, 240);
    slr_loader_free(l);
    slr_dataset_unref(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(batches_are_slices_of_buckets),
        cmocka_unit_test(order_of_calls_does_not_matter),
        cmocka_unit_test(mirrored_half_of_the_time),
        cmocka_unit_test(random_crops_move),
        cmocka_unit_test(cancels_and_refuses),
        cmocka_unit_test(disk_cache_is_used_and_goes_stale),
        cmocka_unit_test(damaged_cache_changes_nothing),
        cmocka_unit_test(runs_may_share_a_cache),
        cmocka_unit_test(every_allocation_may_fail),
        cmocka_unit_test(the_projects_pictures),
    };
    return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
