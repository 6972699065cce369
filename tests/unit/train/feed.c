/* SPDX-License-Identifier: MIT */
/* Pictures to latents as a job's options say: in tiles or whole, and never from the other's cache.
 */
#include "trainer_test.h"

enum { WIDE = 80, TALL = 8, N = WIDE * TALL * 4 }; /* latents: more than a tile of 64 across */

/* The latents of the one picture for a job of that kind; tells whether they were cached.
 */
static bool latents_of(const char *dir, const char *kind, const char *tiling, float out[N])
{
    slr_feed feed;
    slr_cancel_flag cancel;
    const slr_batch *b;
    sdlora_options *o = options_of(kind, LIST("vae_tiling", tiling ? tiling : "false"), NULL);
    slr_dataset *data = open_folder(dir, LIST("resolution", "640,64", "train_batch_size", "1",
                                              "cache_latents_to_disk", "true"));
    const slr_trainer_config config = {
        .devices = devices, .base = base, .data = data, .bpe = bpe, .opts = tiling ? o : NULL};
    const slr_feed_use use = {
        .precision = {.storage = SDLORA_F32}, .max_steps = 1, .cancel = &cancel};
    slr_loader_needs needs;
    atomic_init(&cancel, 0);
    assert_ok(slr_feed_look(&feed, &config, data, &use, &needs));
    slr_feed_close(&feed);
    assert_ok(slr_feed_open(&feed, &config, data, &use));
    assert_ok(slr_loader_get(feed.loader, 0, 0, 0, &b));
    assert_int_equal(b->n * b->lw * b->lh * b->channels, N);
    assert_int_equal(b->lw, WIDE);
    memcpy(out, b->latents, N * sizeof *out);
    slr_feed_close(&feed);
    slr_dataset_unref(data);
    slr_options_unref(o);
    return needs.pictures == 0;
}

static void tiles_are_another_encoder(void **state)
{
    static float whole[N], tiles[N], again[N];
    put_picture(in_scratch("wide/p.png"), 640, 64, 7);
    const char *dir = in_scratch("wide");
    (void)state;
    assert_false(latents_of(dir, "train", NULL, whole));
    assert_false(latents_of(dir, "train", "true", tiles));
    assert_memory_not_equal(whole, tiles, sizeof whole);
    assert_true(latents_of(dir, "train", "false", again));
    assert_memory_equal(whole, again, sizeof whole);
    assert_true(latents_of(dir, "eval", "true", again));
    assert_memory_equal(tiles, again, sizeof tiles);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tiles_are_another_encoder),
    };
    return cmocka_run_group_tests(tests, trainer_setup, trainer_teardown);
}
