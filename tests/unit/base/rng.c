/* SPDX-License-Identifier: MIT */
/* Random numbers: published Philox answers, torch's own draws to the bit, and the statistics of
 * what is made from them. */
#include "base_test.h"

#include <math.h>
#include <stdio.h>

#include "base/rng.h"

/* Random123's kat_vectors for philox4x32 with 10 rounds. */
static void philox_known_answers(void **state)
{
    static const uint32_t rows[][10] = {
        {0, 0, 0, 0, 0, 0, 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8},
        {0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0x408f276d,
         0x41c83b0e, 0xa20bc7c6, 0x6d5451fd},
        {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344, 0xa4093822, 0x299f31d0, 0xd16cfe09,
         0x94fdcceb, 0x5001e420, 0x24126ea1},
    };
    uint32_t out[4];

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        slr_philox(rows[i], rows[i] + 4, out);
        assert_memory_equal(out, rows[i] + 6, sizeof out);
    }
}

/* The golden file is a safetensors file: 8 bytes of length, JSON, data.  Returns the floats of
 * `name`. */
static const float *golden(const char *file, size_t size, const char *name, size_t count)
{
    uint64_t head;
    unsigned long long lo = 0, hi = 0;
    const char *at;
    char key[64];

    memcpy(&head, file, sizeof head);
    snprintf(key, sizeof key, "\"%s\":", name);
    at = strstr(file + 8, key);
    assert_non_null(at);
    at = strstr(at, "\"data_offsets\":[");
    assert_non_null(at);
    assert_int_equal(sscanf(at, "\"data_offsets\":[%llu,%llu]", &lo, &hi), 2);
    assert_int_equal(hi - lo, count * sizeof(float));
    assert_true(8 + head + hi <= size);
    return (const float *)(const void *)(file + 8 + head + lo);
}

static void torch_randn_to_the_bit(void **state)
{
    static const uint64_t seeds[] = {0, 1, 12345, 4294967295};
    static const size_t lengths[] = {1, 4, 15, 16, 17, 20, 31, 32, 33, 256};
    static float draw[2][16384];
    FILE *f = fopen(TEST_ROOT "/golden/sampler.safetensors", "rb");
    char *file, name[64];
    size_t size;
    slr_torch_rng r;
    const float *want;

    assert_non_null(f);
    fseek(f, 0, SEEK_END);
    size = (size_t)ftell(f);
    rewind(f);
    file = calloc(size + 1, 1);
    assert_int_equal(fread(file, 1, size, f), size);
    fclose(f);
    for (size_t s = 0; s < 4; s++)
        for (size_t k = 0; k < sizeof lengths / sizeof *lengths; k++) {
            size_t n = lengths[k];

            snprintf(name, sizeof name, "randn.%zu.%llu", n, (unsigned long long)seeds[s]);
            want = golden(file, size, name, 2 * n);
            slr_torch_seed(&r, seeds[s]);
            slr_torch_randn(&r, draw[0], n);
            slr_torch_randn(&r, draw[1], n);
            assert_memory_equal(draw[0], want, n * sizeof(float));
            assert_memory_equal(draw[1], want + n, n * sizeof(float));
        }
    want = golden(file, size, "randn.16384.12345", 32);
    slr_torch_seed(&r, 12345);
    for (size_t i = 0; i < 2; i++) {
        slr_torch_randn(&r, draw[i], 16384);
        assert_memory_equal(draw[i], want + 16 * i, 8 * sizeof(float));
        assert_memory_equal(draw[i] + 16384 - 8, want + 16 * i + 8, 8 * sizeof(float));
    }
    free(file);
}

/* Matsumoto and Nishimura's generator: 10000th draw of seed 5489 (as the C++ standard demands). */
static void mersenne_twister(void **state)
{
    slr_torch_rng r;
    uint32_t v = 0;

    slr_torch_seed(&r, 5489);
    for (int i = 0; i < 10000; i++)
        v = slr_torch_u32(&r);
    assert_int_equal(v, 4123659995u);
    slr_torch_seed(&r, 5489 | UINT64_C(7) << 32); /* torch takes the low half */
    for (int i = 0; i < 10000; i++)
        v = slr_torch_u32(&r);
    assert_int_equal(v, 4123659995u);
}

/* A short draw leaves its second normal for the next short draw, whatever came between. */
static void torch_twin_waits(void **state)
{
    slr_torch_rng a, b;
    float one[1], two[2], wide[16];

    slr_torch_seed(&a, 9);
    slr_torch_seed(&b, 9);
    slr_torch_randn(&a, two, 2);
    slr_torch_randn(&b, one, 1);
    assert_memory_equal(one, two, sizeof one);
    slr_torch_randn(&b, wide, 16);
    slr_torch_randn(&b, one, 1);
    assert_memory_equal(one, two + 1, sizeof one);
    slr_torch_randn(&b, one, 0);
}

/* What CUDA draws for seeds that users share, as A1111's rng_philox.py documents it;
 * tests/unit/sample/noise.c has A1111's own to the bit.  The second draw of a generator is another
 * counter. */
static void nv_known_answers(void **state)
{
    static const float zero[12] = {-0.92466259f, -0.42534415f, -2.6438457f,  0.14518388f,
                                   -0.12087647f, -0.57972564f, -0.62285122f, -0.32838709f,
                                   -1.07454231f, -0.36314407f, -1.67105067f, 2.26550497f};
    static const float far[2][4] = {{0.57864f, -0.52476f, -0.29190f, 0.01401f},
                                    {2.70129f, -0.71039f, -1.37546f, -1.51998f}};
    float got[12];
    slr_nv_rng r;

    slr_nv_seed(&r, 0);
    slr_nv_randn(&r, got, 12);
    for (int i = 0; i < 12; i++)
        assert_true(fabsf(got[i] - zero[i]) < 2e-5f); /* a GPU's logarithm is f32 */
    slr_nv_seed(&r, 12345);
    for (int draw = 0; draw < 2; draw++) {
        slr_nv_randn(&r, got, 4);
        for (int i = 0; i < 4; i++)
            assert_true(fabsf(got[i] - far[draw][i]) < 6e-6f); /* five decimals */
    }
}

/* numpy's SeedSequence, by which torchsde seeds the nodes of its tree. */
static void seed_sequence_known_answers(void **state)
{
    static const uint64_t path[2][2] = {{0, 0}, {5, 3}};
    static const uint32_t want[3][4] = {{2888090517u, 4151165838u, 1159728038u, 0},
                                        {3924261748u, 2174456085u, 2149736121u, 3248841855u},
                                        {173650277u, 1015160349u, 1939661955u, 1198629348u}};
    uint32_t got[4];

    slr_seed_sequence(12345, NULL, 0, got, 4);
    assert_memory_equal(got, want[0], 3 * sizeof *got);
    for (int i = 0; i < 2; i++) {
        slr_seed_sequence(12345, path[i], 2, got, 4);
        assert_memory_equal(got, want[i + 1], sizeof got);
    }
}

static void streams_differ_and_repeat(void **state)
{
    slr_rng a, b;
    uint32_t first, other[4];

    slr_rng_init(&a, 5, SLR_STREAM_NOISE, 3);
    first = slr_rng_u32(&a);
    b = a;
    assert_int_equal(slr_rng_u32(&a), slr_rng_u32(&b)); /* copying copies the state */
    slr_rng_init(&a, 5, SLR_STREAM_NOISE, 3);
    assert_int_equal(slr_rng_u32(&a), first);
    slr_rng_init(&a, 6, SLR_STREAM_NOISE, 3);
    other[0] = slr_rng_u32(&a);
    slr_rng_init(&a, 5 | UINT64_C(1) << 40, SLR_STREAM_NOISE, 3);
    other[1] = slr_rng_u32(&a);
    slr_rng_init(&a, 5, SLR_STREAM_TIME, 3);
    other[2] = slr_rng_u32(&a);
    slr_rng_init(&a, 5, SLR_STREAM_NOISE, 4);
    other[3] = slr_rng_u32(&a);
    for (int i = 0; i < 4; i++)
        assert_int_not_equal(other[i], first);
    /* counter words in the order the header promises */
    {
        const uint32_t counter[4] = {1, 0, SLR_STREAM_NOISE, 3}, key[2] = {5, 0};
        uint32_t want[4];

        slr_philox(counter, key, want);
        slr_rng_init(&a, 5, SLR_STREAM_NOISE, 3);
        for (int i = 0; i < 4; i++)
            slr_rng_u32(&a);
        for (int i = 0; i < 4; i++)
            assert_int_equal(slr_rng_u32(&a), want[i]);
    }
}

static void normals_are_normal(void **state)
{
    enum { N = 200001 };
    static float v[N], head[5];
    double sum = 0, sum2 = 0, sum4 = 0;
    int beyond = 0;
    slr_rng r;

    slr_rng_init(&r, 1, SLR_STREAM_NOISE, 0);
    slr_rng_normal(&r, v, N);
    for (int i = 0; i < N; i++) {
        double x = v[i];

        assert_true(isfinite(x));
        sum += x;
        sum2 += x * x;
        sum4 += x * x * x * x;
        beyond += fabs(x) > 1.959964;
    }
    /* five standard errors each: 1/sqrt N, sqrt(2/N), sqrt(96/N), sqrt(.05 .95/N) */
    assert_true(fabs(sum / N) < 5 * 0.00224);
    assert_true(fabs(sum2 / N - 1) < 5 * 0.00316);
    assert_true(fabs(sum4 / N - 3) < 5 * 0.0219);
    assert_true(fabs((double)beyond / N - 0.05) < 5 * 0.000488);
    slr_rng_init(&r, 1, SLR_STREAM_NOISE, 0);
    slr_rng_normal(&r, head, 5); /* an odd count draws the same numbers */
    assert_memory_equal(head, v, sizeof head);
}

/* Against libm, which may differ in the last bit of the double before rounding. */
static void normals_are_box_muller(void **state)
{
    slr_rng r, again;
    float v[1000];

    slr_rng_init(&r, 77, 1, 2);
    again = r;
    slr_rng_normal(&r, v, 1000);
    for (int i = 0; i < 1000; i += 2) {
        double u = (slr_rng_u32(&again) + 0.5) * 0x1p-32, t = slr_rng_u32(&again) * 0x1p-32;
        double radius = sqrt(-2 * log(u)), turn = 2 * acos(-1) * t;

        assert_true(fabs(v[i] - radius * cos(turn)) < 3e-7); /* half an ulp of f32 below 4 */
        assert_true(fabs(v[i + 1] - radius * sin(turn)) < 3e-7);
    }
}

static void below_is_fair(void **state)
{
    enum { DRAWS = 70000 };
    int seen[7] = {0};
    slr_rng r;

    slr_rng_init(&r, 3, 0, 0);
    for (int i = 0; i < DRAWS; i++) {
        uint64_t v = slr_rng_below(&r, 7);

        assert_true(v < 7);
        seen[v]++;
    }
    for (int i = 0; i < 7; i++) /* five standard deviations of 93 */
        assert_in_range(seen[i], DRAWS / 7 - 463, DRAWS / 7 + 463);
    /* Without the rejection every third value below 3 2^62 would come twice as often. */
    seen[0] = 0;
    for (int i = 0; i < DRAWS; i++)
        seen[0] += slr_rng_below(&r, UINT64_C(3) << 62) % 3 == 0;
    assert_in_range(seen[0], DRAWS / 3 - 624, DRAWS / 3 + 624); /* five of 125 */
    for (int i = 0; i < 100; i++) {
        assert_int_equal(slr_rng_below(&r, 1), 0);
        assert_true(slr_rng_below(&r, UINT64_C(1) << 63 | 1) <= UINT64_C(1) << 63);
        assert_true(slr_rng_real(&r) < 1);
    }
}

static void shuffle_permutes(void **state)
{
    enum { N = 6, TRIES = 60000 };
    static int where[N][N];
    struct {
        char pad[70];
        int v;
    } a[N];
    slr_rng r;

    slr_rng_init(&r, 4, 0, 0);
    for (int t = 0; t < TRIES; t++) {
        int mask = 0;

        for (int i = 0; i < N; i++)
            a[i].v = i;
        slr_rng_shuffle(&r, a, N, sizeof *a);
        for (int i = 0; i < N; i++) {
            mask |= 1 << a[i].v;
            where[a[i].v][i]++;
        }
        assert_int_equal(mask, (1 << N) - 1);
    }
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++) /* five standard deviations of 91 */
            assert_in_range(where[i][j], TRIES / N - 456, TRIES / N + 456);
    slr_rng_shuffle(&r, a, 0, sizeof *a);
    slr_rng_shuffle(&r, a, 1, sizeof *a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(philox_known_answers),      cmocka_unit_test(torch_randn_to_the_bit),
        cmocka_unit_test(mersenne_twister),          cmocka_unit_test(torch_twin_waits),
        cmocka_unit_test(nv_known_answers),          cmocka_unit_test(seed_sequence_known_answers),
        cmocka_unit_test(streams_differ_and_repeat), cmocka_unit_test(normals_are_normal),
        cmocka_unit_test(normals_are_box_muller),    cmocka_unit_test(below_is_fair),
        cmocka_unit_test(shuffle_permutes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
