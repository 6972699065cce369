/* SPDX-License-Identifier: MIT */
/* Tiles of small products for one instruction set and type of the factors: see mm.h.  A block of
 * ROWS x 3 registers of sums stays in registers over the whole inner axis. */
#include "backend/cpu/mm.h"

#include "backend/cpu/elem.h"

enum {
    ROWS = VN == 16 ? 8 : 4,
    MOST = 3,    /* registers of a panel's width */
    CHUNK = 128, /* words after which f32 sums begin anew, so that rounding does not pile up */
    STAGE = 128  /* words of a row that are turned at a time */
};

/* --- one word of either factor, times */

#if SLR_BF16

typedef int32_t word;
typedef vi words;

/* Two products at a time.  Without the instruction the halves are widened and added one by one. */
ALWAYS vf dot(vf s, words a, words b)
{
#if defined(__AVX512BF16__)
    return (vf)_mm512_dpbf16_ps((__m512)s, (__m512bh)a, (__m512bh)b);
#else
    s += (vf)(a << 16) * (vf)(b << 16);
    return s + (vf)(a & (int32_t)0xffff0000) * (vf)(b & (int32_t)0xffff0000);
#endif
}

#else

typedef float word;
typedef vf words;

ALWAYS vf dot(vf s, words a, words b)
{
    return s + a * b;
}

#endif

ALWAYS words wload(const word *p)
{
    words v;
    memcpy(&v, p, sizeof v);
    return v;
}

ALWAYS void wstore(word *p, words v)
{
    memcpy(p, &v, sizeof v);
}

ALWAYS words wset(const word *p)
{
    word w;
    memcpy(&w, p, sizeof w); /* a row of bf16 may begin between two words */
    return w - (words){0};
}

/* --- a block */

/* Where the rows of a block begin in one run; rows beyond the last stand for the last. */
ALWAYS void rows_at(const slr_mm *t, int64_t i, int64_t run, const word *at[ROWS])
{
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; r++) {
        const int64_t row = i + r < t->m ? i + r : t->m - 1;
        at[r] = t->rows ? t->rows[row * t->runs + run] : (const word *)t->a + row * t->a_row;
    }
}

ALWAYS void sum_run(const int nv, const int64_t step, int64_t k, const word *const at[ROWS],
                    const word *b, vf s[ROWS][MOST])
{
    for (int64_t l = 0; l < k; l++, b += nv * VN) {
        words v[MOST];
#pragma GCC unroll 3
        for (int j = 0; j < nv; j++)
            v[j] = wload(b + j * VN);
#pragma GCC unroll 8
        for (int r = 0; r < ROWS; r++) {
            const words x = wset(at[r] + l * step);
#pragma GCC unroll 3
            for (int j = 0; j < nv; j++)
                s[r][j] = dot(s[r][j], x, v[j]);
        }
    }
}

/* One register of results: columns [j, j + n) of row i, n <= VN. */
ALWAYS void finish(const slr_mm *t, int64_t i, int64_t j, int64_t n, vf s)
{
    const int64_t at = i * t->ldc + j;
    s *= t->alpha;
    if (t->bias)
        s += n < VN ? vload_n(t->bias + j, n) : vload(t->bias + j);
    if (t->add) {
        const int64_t from = i * t->ld_add + j;
        const float *f = (const float *)t->add + from;
        const uint16_t *h = (const uint16_t *)t->add + from;
        s += n < VN ? (t->add_half ? ld_half_n(h, n) : vload_n(f, n))
                    : (t->add_half ? ld_half(h) : vload(f));
    }
    if (t->c_half && n < VN)
        st_half_n((uint16_t *)t->c + at, s, n);
    else if (t->c_half)
        st_half((uint16_t *)t->c + at, s);
    else if (n < VN)
        vstore_n((float *)t->c + at, s, n);
    else
        vstore((float *)t->c + at, s);
}

/* Moves the sums so far to `total` (or adds them to it) and begins anew. */
ALWAYS void put_aside(const int nv, vf s[ROWS][MOST], float *total, bool first)
{
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 3
        for (int x = 0; x < nv; x++) {
            float *at = total + (r * MOST + x) * VN;
            vstore(at, first ? s[r][x] : vload(at) + s[r][x]);
            s[r][x] = vset(0.0f);
        }
}

/* All runs; factors of bf16 are so coarse that their sums need no care. */
ALWAYS void sum_runs(const int nv, const slr_mm *t, int64_t i, const word *b, vf s[ROWS][MOST])
{
    const int64_t chunk = SLR_BF16 ? INT64_MAX : CHUNK;
    float total[ROWS * MOST * VN];
    int64_t done = 0;
    bool aside = false;
    for (int64_t run = 0; run < t->runs; run++) {
        const word *at[ROWS], *from = b + (t->b_at ? t->b_at[run] : 0) * nv * VN;
        rows_at(t, i, run, at);
        for (int64_t l = 0, n; l < t->k; l += n, from += n * nv * VN) {
            if (done == chunk) {
                put_aside(nv, s, total, !aside);
                aside = true;
                done = 0;
            }
            n = t->k - l < chunk - done ? t->k - l : chunk - done;
            if (t->a_col == 1)
                sum_run(nv, 1, n, at, from, s);
            else
                sum_run(nv, t->a_col, n, at, from, s);
            done += n;
#pragma GCC unroll 8
            for (int r = 0; r < ROWS; r++)
                at[r] += n * t->a_col;
        }
    }
    if (!aside)
        return;
    put_aside(nv, s, total, false);
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 3
        for (int x = 0; x < nv; x++)
            s[r][x] = vload(total + (r * MOST + x) * VN);
}

ALWAYS void block(const int nv, const slr_mm *t, int64_t i, int64_t j, const word *b)
{
    vf s[ROWS][MOST];
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 3
        for (int x = 0; x < nv; x++)
            s[r][x] = vset(0.0f);
    sum_runs(nv, t, i, b, s);
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 3
        for (int x = 0; x < nv; x++)
            if (i + r < t->m)
                finish(t, i + r, j + x * VN, t->n - j - x * VN < VN ? t->n - j - x * VN : VN,
                       s[r][x]);
}

static void block1(const slr_mm *t, int64_t i, int64_t j, const word *b)
{
    block(1, t, i, j, b);
}

static void block2(const slr_mm *t, int64_t i, int64_t j, const word *b)
{
    block(2, t, i, j, b);
}

static void block3(const slr_mm *t, int64_t i, int64_t j, const word *b)
{
    block(3, t, i, j, b);
}

static void tile(const slr_mm *t)
{
    static void (*const blocks[])(const slr_mm *, int64_t, int64_t, const word *) = {block1, block2,
                                                                                     block3};
    for (int64_t j = 0; j < t->n; j += t->width) {
        const int64_t left = (t->n - j + VN - 1) / VN, most = t->width / VN;
        void (*one)(const slr_mm *, int64_t, int64_t, const word *) =
            blocks[(left < most ? left : most) - 1];
        for (int64_t i = 0; i < t->m; i += ROWS)
            one(t, i, j, (const word *)t->b + j * t->depth);
    }
}

/* --- words */

/* Elements i .. i + n of a row as f32, n <= VN; the others are 0. */
ALWAYS vf element(const void *src, bool half, int64_t i, int64_t n)
{
    const float *f = (const float *)src + i;
    const uint16_t *h = (const uint16_t *)src + i;
    if (n < VN)
        return half ? ld_half_n(h, n) : vload_n(f, n);
    return half ? ld_half(h) : vload(f);
}

ALWAYS const void *row_at(const void *src, bool half, int64_t i)
{
    return (const char *)src + i * (half ? 2 : 4);
}

#if SLR_BF16

ALWAYS vu zext(vh h)
{
    return (vu)widen(h) >> 16;
}

/* Elements of two rows side by side in words. */
ALWAYS words join(vf lo, vf hi)
{
    return (words)(zext(narrow(lo)) | zext(narrow(hi)) << 16);
}

static void pack(void *dst, int64_t width, const void *src, bool half, int64_t ld, int64_t k,
                 int64_t n)
{
    word *to = dst;
    for (int64_t l = 0; l < k; l += 2, to += width) {
        const void *lo = row_at(src, half, l * ld), *hi = row_at(src, half, (l + 1) * ld);
        for (int64_t j = 0; j < width; j += VN) {
            const int64_t m = n - j < 0 ? 0 : n - j < VN ? n - j : VN;
            const vf a = element(lo, half, j, m);
            wstore(to + j, join(a, l + 1 < k ? element(hi, half, j, m) : vset(0.0f)));
        }
    }
}

/* n elements as words; an odd one has 0 beside it. */
static void row_words(word *dst, const void *src, bool half, int64_t n)
{
    uint16_t *to = (uint16_t *)(void *)dst;
    if (half) {
        memcpy(to, src, (size_t)n * 2);
    } else {
        int64_t i = 0;
        for (; i + VN <= n; i += VN)
            st_half(to + i, vload((const float *)src + i));
        if (i < n)
            st_half_n(to + i, vload_n((const float *)src + i, n - i), n - i);
    }
    if (n % 2)
        memset(to + n, 0, sizeof *to);
}

static void rows_words(void *dst, const void *src, bool half, int64_t ld, int64_t m, int64_t k)
{
    for (int64_t i = 0; i < m; i++)
        row_words((word *)dst + i * ((k + 1) / 2), row_at(src, half, i * ld), half, k);
}

#else

static void pack(void *dst, int64_t width, const void *src, bool half, int64_t ld, int64_t k,
                 int64_t n)
{
    word *to = dst;
    for (int64_t l = 0; l < k; l++, to += width)
        for (int64_t j = 0; j < width; j += VN)
            wstore(to + j, element(row_at(src, half, l * ld), half, j,
                                   n - j < 0    ? 0
                                   : n - j < VN ? n - j
                                                : VN));
}

static void row_words(word *dst, const void *src, bool half, int64_t n)
{
    int64_t i = 0;
    for (; i + VN <= n; i += VN)
        wstore(dst + i, element(src, half, i, VN));
    if (i < n)
        vstore_n(dst + i, element(src, half, i, n - i), n - i);
}

#endif

/* --- turning */

/* Lane i of a where pick[i] < VN, else lane pick[i] - VN of b. */
ALWAYS words pick(words a, words b, vi which)
{
#if defined(__clang__)
    words r;
    for (int i = 0; i < VN; i++)
        r[i] = which[i] < VN ? a[which[i]] : b[which[i] - VN];
    return r;
#else
    return __builtin_shuffle(a, b, which);
#endif
}

/* VN rows of VN words become columns: bit by bit of the numbers of row and lane. */
ALWAYS void turn_square(words r[VN])
{
#pragma GCC unroll 4
    for (int bit = 1; bit < VN; bit *= 2) {
        const vi lane = viota(), set = (lane & bit) != 0;
        const vi first = (set & ((lane ^ bit) + VN)) | (~set & lane);
        const vi second = (set & (lane + VN)) | (~set & (lane | bit));
#pragma GCC unroll 16
        for (int i = 0; i < VN; i++)
            if (!(i & bit)) {
                const words a = r[i], b = r[i | bit];
                r[i] = pick(a, b, first);
                r[i | bit] = pick(a, b, second);
            }
    }
}

/* Columns j .. j + n of the transpose, n <= VN: k words of each. */
static void turn_columns(word *dst, int64_t width, word stage[VN][STAGE], int64_t k)
{
    for (int64_t l = 0; l < k; l += VN) {
        words r[VN];
        for (int i = 0; i < VN; i++)
            r[i] = wload(stage[i] + l);
        turn_square(r);
        for (int64_t i = 0; i < VN && l + i < k; i++)
            wstore(dst + (l + i) * width, r[i]);
    }
}

static void turn(void *dst, int64_t width, const void *src, bool half, int64_t ld, int64_t k,
                 int64_t n)
{
    enum { PER_WORD = SLR_BF16 ? 2 : 1 };
    word stage[VN][STAGE];
    memset(stage, 0, sizeof stage);
    for (int64_t j = 0; j < width; j += VN)
        for (int64_t l = 0; l < k; l += STAGE * PER_WORD) {
            const int64_t some = k - l < STAGE * PER_WORD ? k - l : STAGE * PER_WORD;
            const int64_t some_words = (some + PER_WORD - 1) / PER_WORD;
            for (int64_t i = 0; i < VN; i++) {
                if (j + i < n)
                    row_words(stage[i], row_at(src, half, (j + i) * ld + l), half, some);
                else
                    memset(stage[i], 0, (size_t)some_words * sizeof **stage);
            }
            turn_columns((word *)dst + l / PER_WORD * width + j, width, stage, some_words);
        }
}

extern const slr_mm_fns SLR_ISA_SYM(slr_cpu_mm);
const slr_mm_fns SLR_ISA_SYM(slr_cpu_mm) = {
    .lanes = VN,
    .rows = ROWS,
    .tile = tile,
    .pack = pack,
    .turn = turn,
#if SLR_BF16
    .words = rows_words,
#endif
};
