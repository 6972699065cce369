/* SPDX-License-Identifier: MIT */
/* Feature bits of this processor, asked once.
 *
 * Knows cpuid, which register files the operating system saves, and that Linux hands out AMX tiles
 * only on request.  Refuses to know brands and models.  The answer never changes, so a race between
 * two first callers is harmless. */
#include "base/cpu.h"

#include <stdatomic.h>
#include <stddef.h>
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

enum {
    XCR0_AVX = 0x6,     /* XMM, YMM */
    XCR0_AVX512 = 0xE6, /* and opmask, ZMM */
    XCR0_AMX = 0x60000  /* tile configuration and data */
};

static uint64_t saved_state(void)
{
    uint32_t lo, hi;

    __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
    return (uint64_t)hi << 32 | lo;
}

/* Tiles are 8 KiB of state, so the kernel wants to be asked once per process. */
static int tiles_granted(void)
{
#if defined(__linux__)
    enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 }; /* ARCH_REQ_XCOMP_PERM */

    return syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
#else
    return 0;
#endif
}

static int all(uint32_t word, uint32_t bits)
{
    return (word & bits) == bits;
}

static uint64_t ask(void)
{
    uint32_t a, b, c, d, b7 = 0, d7 = 0, a71 = 0;
    uint64_t saved, found = 0;

    if (!__get_cpuid(1, &a, &b, &c, &d) || !all(c, bit_OSXSAVE | bit_AVX | bit_FMA | bit_F16C))
        return 0;
    if (__get_cpuid_count(7, 0, &a, &b7, &c, &d7)) {
        uint32_t subleaves = a;

        if (subleaves >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d))
            a71 = a;
    }
    saved = saved_state();
    if ((saved & XCR0_AVX) != XCR0_AVX || !all(b7, bit_AVX2))
        return 0;
    found |= SLR_CPU_AVX2;
    if ((saved & XCR0_AVX512) != XCR0_AVX512 ||
        !all(b7, bit_AVX512F | bit_AVX512BW | bit_AVX512DQ | bit_AVX512VL))
        return found;
    found |= SLR_CPU_AVX512;
    if (all(a71, 1u << 5))
        found |= SLR_CPU_AVX512_BF16;
    /* AMX-TILE and AMX-BF16 */
    if ((saved & XCR0_AMX) == XCR0_AMX && all(d7, 1u << 24 | 1u << 22) && tiles_granted())
        found |= SLR_CPU_AMX_BF16;
    return found;
}
#else
static uint64_t ask(void)
{
    return 0;
}
#endif

uint64_t slr_cpu_features(void)
{
    static _Atomic uint64_t known; /* top bit: asked */
    const uint64_t asked = UINT64_C(1) << 63;
    uint64_t v = atomic_load_explicit(&known, memory_order_relaxed);

    if (!v) {
        v = ask() | asked;
        atomic_store_explicit(&known, v, memory_order_relaxed);
    }
    return v & ~asked;
}

uint64_t slr_cpu_mask(const char *name)
{
    static const struct {
        const char *name;
        uint64_t bits;
    } rows[] = {
        {"generic", 0},
        {"avx2", SLR_CPU_AVX2},
        {"avx512", SLR_CPU_AVX2 | SLR_CPU_AVX512 | SLR_CPU_AVX512_BF16},
        {"amx", SLR_CPU_AVX2 | SLR_CPU_AVX512 | SLR_CPU_AVX512_BF16 | SLR_CPU_AMX_BF16},
    };

    for (size_t i = 0; name && i < sizeof rows / sizeof *rows; i++)
        if (!strcmp(rows[i].name, name))
            return rows[i].bits;
    return UINT64_MAX; /* "auto" */
}
