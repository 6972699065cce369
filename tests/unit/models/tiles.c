/* SPDX-License-Identifier: MIT */
/* The autoencoder in tiles: against diffusers (tests/golden/tiles.safetensors), against itself
 * without tiles, in memory; and the cutting and blending alone. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "backend/registry.h"
#include "base/cpu.h"
#include "golden_test.h"
#include "models/checkpoint.h"
#include "models/vae.h"
#include "models/vae_tiles.h"

/* f32 on both sides, sums in another order; measured 2e-6.  A blend that is one element off shows
 * as 1e-2. */
#define TOL    1e-5
#define TINYSD TEST_ROOT "/../examples/data/tinysd/tinysd.safetensors"

enum { TILE = 32, FACTOR = 8 }; /* of the golden file */

typedef struct world {
    slr_mem *m;
    slr_devices *devices;
    slr_checkpoint *c;
    slr_vae_runner *r;
} world;

static void ok(int rc)
{
    if (rc < 0)
        fail_msg("%s (%s)", sdlora_last_error()->message, sdlora_last_error()->where);
}

static world open_world(uint64_t budget)
{
    const slr_checkpoint_config config = {.predict = -1};
    world w;
    ok(slr_mem_new(&w.m, NULL, budget));
    const slr_devices_config devices = {
        .mem = w.m, .cpu_features = slr_cpu_features(), .backend = "cpu"};
    ok(slr_devices_open(&w.devices, &devices));
    ok(slr_checkpoint_open(&w.c, TINYSD, &config));
    ok(slr_vae_runner_new(&w.r, slr_checkpoint_part(w.c, SLR_PART_VAE), slr_checkpoint_family(w.c),
                          w.devices));
    return w;
}

static void close_world(world *w)
{
    slr_vae_runner_free(w->r);
    slr_checkpoint_unref(w->c);
    slr_devices_unref(w->devices);
    assert_int_equal(slr_mem_used(w->m), 0);
    slr_mem_unref(w->m);
}

/* --- inputs, as tests/golden/make_tiles.py makes them --- */

static float chance(int64_t i)
{
    return (float)((uint32_t)((uint64_t)i * 2654435761u) >> 16) / 65536;
}

static float *image(int64_t h, int64_t w)
{
    float *out = slr_alloc(NULL, (size_t)(h * w * 3) * sizeof *out);
    for (int64_t i = 0; i < h * w * 3; i++) {
        int64_t c = i % 3, x = i / 3 % w, y = i / 3 / w;
        float wave = (float)((x * (c + 1) + y * 3) / 2 % 256) / 128 - 1;
        out[i] = wave * 0.75f + (chance(i) - 0.5f) * 0.5f;
    }
    return out;
}

static float *latents(int64_t h, int64_t w)
{
    float *out = slr_alloc(NULL, (size_t)(h * w * 4) * sizeof *out);
    for (int64_t i = 0; i < h * w * 4; i++) {
        int64_t c = i % 4, x = i / 4 % w, y = i / 4 / w;
        float wave = (float)((x * 5 + y * (2 * c + 1)) % 64) / 32 - 1;
        out[i] = wave * 0.5f + chance(i) - 0.5f;
    }
    return out;
}

/* Every step-th element against the tensor HxW.what. */
static void same_as(const golden *g, int64_t h, int64_t w, const char *what, const float *got,
                    int64_t n, int64_t step)
{
    char name[64];
    slr_tensor t;
    snprintf(name, sizeof name, "%lldx%lld.%s", (long long)h, (long long)w, what);
    float *want = golden_f32(g, name, &t);
    assert_int_equal(t.dim[0], (n + step - 1) / step);
    float *picked = slr_alloc(NULL, (size_t)t.dim[0] * sizeof *picked);
    for (int64_t i = 0; i < t.dim[0]; i++)
        picked[i] = got[i * step];
    assert_true(golden_close_to(name, picked, want, (size_t)t.dim[0], TOL));
    slr_free(NULL, picked);
    slr_free(NULL, want);
}

/* Tiles cut short on both sides, and a single row of tiles. */
static void as_diffusers(void **state)
{
    static const int64_t SIZES[][2] = {{92, 78}, {20, 70}};
    golden g = golden_open(TEST_ROOT "/golden/tiles.safetensors");
    world s = open_world(0);
    assert_int_equal(slr_vae_runner_tile(s.r), 64); /* diffusers': 512 pixels */
    ok(slr_vae_runner_set_tiling(s.r, TILE));
    for (int k = 0; k < 2; k++) {
        int64_t h = SIZES[k][0], w = SIZES[k][1], n = h * w * 4, pixels = h * w * 64 * 3;
        float *in = image(h * FACTOR, w * FACTOR), *z = latents(h, w);
        float *ones = slr_alloc(NULL, (size_t)n * sizeof *ones);
        for (int64_t i = 0; i < n; i++)
            ones[i] = 1;
        ok(slr_vae_decode(s.r, z, 1, h, w, in, NULL));
        same_as(&g, h, w, "decoded", in, pixels, 401);
        slr_free(NULL, in);
        in = image(h * FACTOR, w * FACTOR);
        ok(slr_vae_encode(s.r, in, 1, h * FACTOR, w * FACTOR, NULL, z, NULL));
        same_as(&g, h, w, "mean", z, n, 13);
        ok(slr_vae_encode(s.r, in, 1, h * FACTOR, w * FACTOR, ones, z, NULL));
        same_as(&g, h, w, "noisy", z, n, 13);
        slr_free(NULL, in);
        slr_free(NULL, z);
        slr_free(NULL, ones);
    }
    close_world(&s);
    golden_close(&g);
}

static void one_tile_is_the_picture(void **state)
{
    enum { H = 16, W = 12, N = H * W * 4, PIXELS = H * W * 64 * 3 };
    world s = open_world(0);
    float *in = image(H * FACTOR, W * FACTOR), *z = latents(H, W);
    float *made[2], *coded[2];
    for (int tiled = 0; tiled < 2; tiled++) {
        made[tiled] = slr_alloc(NULL, PIXELS * sizeof(float));
        coded[tiled] = slr_alloc(NULL, N * sizeof(float));
        ok(slr_vae_runner_set_tiling(s.r, tiled ? H : 0));
        ok(slr_vae_decode(s.r, z, 1, H, W, made[tiled], NULL));
        ok(slr_vae_encode(s.r, in, 1, H * FACTOR, W * FACTOR, NULL, coded[tiled], NULL));
    }
    assert_memory_equal(made[0], made[1], PIXELS * sizeof(float));
    assert_memory_equal(coded[0], coded[1], N * sizeof(float));
    ok(slr_vae_runner_set_tiling(s.r, H - 4)); /* and smaller tiles are something else */
    ok(slr_vae_decode(s.r, z, 1, H, W, made[1], NULL));
    assert_memory_not_equal(made[0], made[1], PIXELS * sizeof(float));
    for (int i = 0; i < 2; i++) {
        slr_free(NULL, made[i]);
        slr_free(NULL, coded[i]);
    }
    slr_free(NULL, in);
    slr_free(NULL, z);
    close_world(&s);
}

/* The peak of a run, without the weights' copies being part of what is compared. */
static uint64_t peak(int64_t tile, bool encode, int64_t h, int64_t w)
{
    world s = open_world(0);
    float *in = image(h * FACTOR, w * FACTOR), *z = latents(h, w);
    ok(slr_vae_runner_set_tiling(s.r, tile));
    if (encode)
        ok(slr_vae_encode(s.r, in, 1, h * FACTOR, w * FACTOR, NULL, z, NULL));
    else
        ok(slr_vae_decode(s.r, z, 1, h, w, in, NULL));
    uint64_t bytes = slr_mem_peak(s.m);
    close_world(&s);
    slr_free(NULL, in);
    slr_free(NULL, z);
    return bytes;
}

static void less_memory(void **state)
{
    enum { H = 48, W = 40 }; /* 7.5 tiles of 16x16: workspace goes with the area */
    for (int encode = 0; encode < 2; encode++) {
        uint64_t whole = peak(0, encode, H, W), tiles = peak(16, encode, H, W);
        printf("%s: %llu KiB whole, %llu KiB in tiles\n", encode ? "encode" : "decode",
               (unsigned long long)whole >> 10, (unsigned long long)tiles >> 10);
        assert_true(tiles < whole / 2);
    }
}

/* What a whole picture has no room for, tiles do; and a run that failed leaves nothing behind. */
static void in_a_budget(void **state)
{
    enum { H = 48, W = 40 };
    uint64_t tiles = peak(16, false, H, W);
    world s = open_world(tiles + tiles / 8);
    float *out = image(H * FACTOR, W * FACTOR), *z = latents(H, W);
    assert_int_equal(slr_vae_decode(s.r, z, 1, H, W, out, NULL), SDLORA_ENOMEM);
    ok(slr_vae_runner_set_tiling(s.r, 16));
    ok(slr_vae_decode(s.r, z, 1, H, W, out, NULL));
    slr_free(NULL, out);
    slr_free(NULL, z);
    close_world(&s);
}

static void refusals(void **state)
{
    enum { H = 12, W = 20 };
    static const int64_t BAD[] = {-4, 6, 1, SLR_VAE_TILE_LIMIT + 4, INT64_MAX - 3};
    world s = open_world(0);
    float *out = image(H * FACTOR, W * FACTOR), *z = latents(H, W);
    slr_cancel_flag cancel;
    for (size_t i = 0; i < sizeof BAD / sizeof *BAD; i++)
        assert_int_equal(slr_vae_runner_set_tiling(s.r, BAD[i]), SDLORA_EINVAL);
    ok(slr_vae_runner_set_tiling(s.r, 8));
    atomic_init(&cancel, 1);
    assert_int_equal(slr_vae_decode(s.r, z, 1, H, W, out, &cancel), SDLORA_ECANCELED);
    z[H * W * 4 - 1] = NAN; /* the last tile alone */
    assert_int_equal(slr_vae_decode(s.r, z, 1, H, W, out, NULL), SDLORA_ENAN);
    slr_free(NULL, out);
    slr_free(NULL, z);
    close_world(&s);
}

/* --- the cutting and blending alone --- */

typedef struct scaler {
    slr_tiles t;
    float *y;
    int64_t calls, fails_at;
} scaler;

/* Repeats or drops pixels, so that tiles agree wherever they overlap. */
static int rescale(void *user, int64_t h, int64_t w, const float *x, const float **y)
{
    scaler *s = user;
    int64_t up = s->t.up, down = s->t.down, wide = w * up / down;
    assert_in_range(h, 1, s->t.tile);
    assert_in_range(w, 1, s->t.tile);
    assert_true(h % down == 0 && w % down == 0);
    if (s->calls++ == s->fails_at)
        return slr_fail(SDLORA_ECANCELED, __func__, "asked to");
    for (int64_t i = 0; i < h * up / down; i++)
        for (int64_t j = 0; j < wide; j++)
            for (int64_t c = 0; c < 2; c++)
                s->y[(i * wide + j) * 2 + c] = x[(i * down / up * w + j * down / up) * 2 + c];
    *y = s->y;
    return SDLORA_OK;
}

/* Every way in which a picture can end within a tile or an overlap. */
static void every_size(void **state)
{
    enum { MOST = 34, TWICE = 2 * MOST };
    static const int64_t RATIO[][2] = {{1, 1}, {2, 1}, {1, 2}};
    static float x[TWICE * TWICE * 2], y[TWICE * TWICE * 2], made[TWICE * TWICE * 2];
    for (int k = 0; k < 3; k++)
        for (int64_t h = 1; h <= MOST; h++)
            for (int64_t w = 1; w <= MOST; w++) {
                int64_t up = RATIO[k][0], down = RATIO[k][1], wide = w * up;
                scaler s = {.t = {.h = h * down,
                                  .w = w * down,
                                  .c_in = 2,
                                  .c_out = 2,
                                  .tile = 8 * down,
                                  .up = up,
                                  .down = down,
                                  .fn = rescale,
                                  .user = &s},
                            .y = made,
                            .fails_at = -1};
                for (int64_t i = 0; i < s.t.h * s.t.w * 2; i++)
                    x[i] = chance(i + h);
                ok(slr_tiles_run(&s.t, x, y));
                assert_int_equal(s.calls, ((h + 5) / 6) * ((w + 5) / 6));
                for (int64_t i = 0; i < h * up * wide * 2; i++) {
                    int64_t row = i / 2 / wide * down / up, column = i / 2 % wide * down / up;
                    float want = x[(row * s.t.w + column) * 2 + i % 2];
                    if (fabsf(y[i] - want) > 2e-7f) /* weights add up to 1 but for their rounding */
                        fail_msg("%lldx%lld: element %lld is %g, not %g", (long long)h,
                                 (long long)w, (long long)i, (double)y[i], (double)want);
                }
                s.fails_at = s.calls + s.calls / 2;
                assert_int_equal(slr_tiles_run(&s.t, x, y), SDLORA_ECANCELED);
            }
}

/* Tiles that are 0, 1, 2... throughout: the weights themselves. */
static int count(void *user, int64_t h, int64_t w, const float *x, const float **y)
{
    scaler *s = user;
    for (int64_t i = 0; i < h * w; i++)
        s->y[i] = (float)s->calls;
    s->calls++;
    *y = s->y;
    return SDLORA_OK;
}

static void weights(void **state)
{
    /* Starts at 0, 12, 24; overlaps of 4 from there; the third tile has 2 pixels, and so has its
     * overlap. */
    static const float WANT[26] = {0,     0,    0,     0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
                                   0.25f, 0.5f, 0.75f, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1.5f};
    float x[26] = {0}, y[26], made[16];
    for (int tall = 0; tall < 2; tall++) {
        scaler s = {.t = {.h = tall ? 26 : 1,
                          .w = tall ? 1 : 26,
                          .c_in = 1,
                          .c_out = 1,
                          .tile = 16,
                          .up = 1,
                          .down = 1,
                          .fn = count,
                          .user = &s},
                    .y = made};
        ok(slr_tiles_run(&s.t, x, y));
        assert_memory_equal(y, WANT, sizeof WANT);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(as_diffusers), cmocka_unit_test(one_tile_is_the_picture),
        cmocka_unit_test(less_memory),  cmocka_unit_test(in_a_budget),
        cmocka_unit_test(refusals),     cmocka_unit_test(every_size),
        cmocka_unit_test(weights),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
