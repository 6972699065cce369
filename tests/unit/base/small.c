/* SPDX-License-Identifier: MIT */
/* The small parts of base: log, clock, processor bits. */
#include "base_test.h"

#include "base/clock.h"
#include "base/cpu.h"
#include "base/log.h"

typedef struct said {
    int level, times;
    char text[4096];
} said;

static void hear(int level, const char *text, void *user)
{
    said *s = user;

    s->level = level;
    s->times++;
    strncpy(s->text, text, sizeof s->text - 1);
}

static void log_speaks_up_to_its_level(void **state)
{
    said s = {0};
    slr_log log = {hear, &s, SLR_LOG_WARN};
    char text[5000];

    slr_logf(NULL, SLR_LOG_ERROR, "x");
    slr_logf(&(slr_log){0}, SLR_LOG_ERROR, "x");
    slr_logf(&log, SLR_LOG_INFO, "x");
    assert_int_equal(s.times, 0);
    slr_logf(&log, SLR_LOG_WARN, "%d files", 3);
    assert_int_equal(s.level, SLR_LOG_WARN);
    assert_string_equal(s.text, "3 files");
    memset(text, 'y', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    slr_logf(&log, SLR_LOG_ERROR, "%s", text);
    assert_int_equal(strlen(s.text), 2047);
}

static void clocks(void **state)
{
    char out[32];
    double a = slr_clock(), b = slr_clock();

    assert_true(b >= a);
    assert_true(slr_wall_time() > 1.7e9);
    slr_iso_time(0, out);
    assert_string_equal(out, "1970-01-01T00:00:00");
    slr_iso_time(1795383008.9, out);
    assert_string_equal(out, "2026-11-22T21:30:08");
    slr_iso_time(-1, out);
    assert_string_equal(out, "1969-12-31T23:59:59");
    slr_iso_time(1e300, out);
    assert_string_equal(out, "1970-01-01T00:00:00");
    slr_iso_time(0.0 / 0.0, out);
    assert_string_equal(out, "1970-01-01T00:00:00");
}

static void processor_bits(void **state)
{
    uint64_t f = slr_cpu_features();

    assert_int_equal(f, slr_cpu_features());
    if (f & SLR_CPU_AVX512)
        assert_true(f & SLR_CPU_AVX2);
    if (f & (SLR_CPU_AVX512_BF16 | SLR_CPU_AMX_BF16))
        assert_true(f & SLR_CPU_AVX512);
#if defined(__x86_64__)
    __builtin_cpu_init();
    assert_int_equal(!!(f & SLR_CPU_AVX2),
                     __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"));
    assert_int_equal(!!(f & SLR_CPU_AVX512), __builtin_cpu_supports("avx512vl") &&
                                                 __builtin_cpu_supports("avx512bw") &&
                                                 __builtin_cpu_supports("avx512dq"));
    assert_int_equal(!!(f & SLR_CPU_AVX512_BF16), !!__builtin_cpu_supports("avx512bf16"));
#endif
    assert_int_equal(slr_cpu_mask("generic"), 0);
    assert_int_equal(slr_cpu_mask("avx2"), SLR_CPU_AVX2);
    assert_false(slr_cpu_mask("avx512") & SLR_CPU_AMX_BF16);
    assert_true(slr_cpu_mask("amx") & SLR_CPU_AMX_BF16);
    assert_int_equal(f & slr_cpu_mask("auto"), f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(log_speaks_up_to_its_level),
        cmocka_unit_test(clocks),
        cmocka_unit_test(processor_bits),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
