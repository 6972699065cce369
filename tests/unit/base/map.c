/* SPDX-License-Identifier: MIT */
/* The map: order, replacing, slices as keys, failure at every allocation. */
#include "base_test.h"

#include <stdio.h>

#include "base/map.h"

static int fill_and_check(slr_mem *m)
{
    slr_map *map;
    char key[32];
    int64_t v;
    int rc = slr_map_new(&map, m);

    if (rc < 0)
        return rc;
    for (int64_t round = 0; round < 2; round++)
        for (int64_t i = 0; i < 1000; i++) {
            snprintf(key, sizeof key, "lora_unet_%lld", (long long)i);
            rc = slr_map_set(map, key, i * 10 + round);
            if (rc < 0)
                goto done;
        }
    assert_int_equal(slr_map_count(map), 1000);
    for (size_t i = 0; i < 1000; i++) {
        snprintf(key, sizeof key, "lora_unet_%zu", i);
        assert_string_equal(slr_map_at(map, i, &v), key); /* insertion order, not hash order */
        assert_int_equal(v, i * 10 + 1);
        assert_true(slr_map_get(map, key, &v) && v == (int64_t)i * 10 + 1);
    }
    assert_null(slr_map_at(map, 1000, &v));
    assert_false(slr_map_get(map, "lora_unet_1000", &v));
    assert_true(slr_map_getn(map, "lora_unet_12345", 12, &v) && v == 121);
    assert_true(slr_map_get(map, "lora_unet_0", NULL));
done:
    slr_map_free(map);
    return rc;
}

static void holds_what_was_set(void **state)
{
    torture(fill_and_check);
}

static void empty_and_cleared(void **state)
{
    slr_map *map;
    int64_t v;

    assert_ok(slr_map_new(&map, NULL));
    assert_false(slr_map_get(map, "", &v));
    slr_map_clear(map);
    assert_ok(slr_map_set(map, "", 5));
    assert_true(slr_map_get(map, "", &v) && v == 5);
    assert_true(slr_map_getn(map, "xyz", 0, &v) && v == 5);
    slr_map_clear(map);
    assert_int_equal(slr_map_count(map), 0);
    assert_false(slr_map_get(map, "", &v));
    assert_ok(slr_map_set(map, "a", 1));
    assert_int_equal(slr_map_count(map), 1);
    slr_map_free(map);
    slr_map_free(NULL);
}

/* Every bit of every byte, the length and the seed move about half of the bits. */
static void hash_spreads(void **state)
{
    unsigned char text[40] = {0};

    for (size_t n = 0; n <= sizeof text; n++) {
        uint64_t h = slr_hash64(text, n, 1);

        assert_true(h != slr_hash64(text, n, 2));
        assert_true(n == sizeof text || h != slr_hash64(text, n + 1, 1));
        for (size_t bit = 0; bit < n * 8; bit++) {
            int moved;

            text[bit / 8] ^= (unsigned char)(1u << bit % 8);
            moved = __builtin_popcountll(h ^ slr_hash64(text, n, 1));
            text[bit / 8] ^= (unsigned char)(1u << bit % 8);
            assert_in_range(moved, 8, 56); /* 32 expected, sd 4: six of them on either side */
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(holds_what_was_set),
        cmocka_unit_test(empty_and_cleared),
        cmocka_unit_test(hash_spreads),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
