/* SPDX-License-Identifier: MIT */
/* Transposing a packed bf16 matrix block by block.  A block is 32 rows of 64 columns, and two rows
 * lie side by side: a word of 32 bits is what one column has in an even row and in the next.
 * Refuses to know products. */
#include "turn.h"

#include <emmintrin.h>

enum { ROWS = 32, COLS = 64, PAIRS = ROWS / 2, BLOCK = ROWS * COLS };

static bool in_pairs(const dn_layout *l)
{
    return l->rank == 2 && l->type == SDLORA_BF16 && l->cuts == 3 && l->block[0] == PAIRS &&
           l->block[1] == COLS && l->block[2] == 2 && l->axis[0] == 0 && l->axis[1] == 1 &&
           l->axis[2] == 0 && l->dim[0] % COLS == 0 && l->dim[1] % COLS == 0;
}

bool dn_turn_fits(const dn_layout *from, const dn_layout *to)
{
    return in_pairs(from) && in_pairs(to) && from->dim[0] == to->dim[1] &&
           from->dim[1] == to->dim[0];
}

typedef struct turn_job {
    const uint32_t *from;
    uint32_t *to;
    int64_t cols;               /* blocks of COLS x COLS of `from`, along its columns */
    int64_t from_row, from_col; /* words between blocks */
    int64_t to_row, to_col;
} turn_job;

static __m128i words_at(const uint32_t *p)
{
    return _mm_loadu_si128((const __m128i *)(const void *)p);
}

/* Of words 0 to 7 the even and the odd ones. */
static __m128i every_other(const uint32_t *p, bool odd)
{
    const __m128 a = _mm_castsi128_ps(words_at(p)), b = _mm_castsi128_ps(words_at(p + 4));
    return _mm_castps_si128(odd ? _mm_shuffle_ps(a, b, 0xdd) : _mm_shuffle_ps(a, b, 0x88));
}

/* Words of a block by pairs of rows, to words of the same numbers by pairs of columns:
 * [ROWS][COLS / 2]. */
static void by_columns(const uint32_t *from, uint32_t *to)
{
    const __m128i low = _mm_set1_epi32(0xffff), high = _mm_slli_epi32(low, 16);
    for (int64_t p = 0; p < PAIRS; p++)
        for (int64_t c = 0; c < COLS / 2; c += 4) {
            const __m128i a = every_other(from + p * COLS + 2 * c, false);
            const __m128i b = every_other(from + p * COLS + 2 * c, true);
            uint32_t *even = to + 2 * p * (COLS / 2) + c, *odd = even + COLS / 2;
            _mm_storeu_si128((__m128i *)(void *)even,
                             _mm_or_si128(_mm_and_si128(a, low), _mm_slli_epi32(b, 16)));
            _mm_storeu_si128((__m128i *)(void *)odd,
                             _mm_or_si128(_mm_srli_epi32(a, 16), _mm_and_si128(b, high)));
        }
}

/* Four words of each of four rows, rows `from_row` apart, to columns. */
static void transpose(const uint32_t *from, int64_t from_row, uint32_t *to, int64_t to_row)
{
    const __m128i a = words_at(from), b = words_at(from + from_row);
    const __m128i c = words_at(from + 2 * from_row), d = words_at(from + 3 * from_row);
    const __m128i ab = _mm_unpacklo_epi32(a, b), cd = _mm_unpacklo_epi32(c, d);
    const __m128i ab2 = _mm_unpackhi_epi32(a, b), cd2 = _mm_unpackhi_epi32(c, d);
    _mm_storeu_si128((__m128i *)(void *)to, _mm_unpacklo_epi64(ab, cd));
    _mm_storeu_si128((__m128i *)(void *)(to + to_row), _mm_unpackhi_epi64(ab, cd));
    _mm_storeu_si128((__m128i *)(void *)(to + 2 * to_row), _mm_unpacklo_epi64(ab2, cd2));
    _mm_storeu_si128((__m128i *)(void *)(to + 3 * to_row), _mm_unpackhi_epi64(ab2, cd2));
}

/* A square of COLS x COLS numbers: two blocks become two. */
static void turn_square(const turn_job *j, int64_t row, int64_t col)
{
    uint32_t pairs[ROWS * COLS / 2];
    for (int64_t half = 0; half < 2; half++) {
        by_columns(j->from + (2 * row + half) * j->from_row + col * j->from_col, pairs);
        for (int64_t other = 0; other < 2; other++) {
            uint32_t *to = j->to + (2 * col + other) * j->to_row + row * j->to_col + half * ROWS;
            for (int64_t p = 0; p < PAIRS; p += 4)
                for (int64_t r = 0; r < ROWS; r += 4)
                    transpose(pairs + r * (COLS / 2) + other * PAIRS + p, COLS / 2,
                              to + p * COLS + r, COLS);
        }
    }
}

static void turn_range(void *arg, int64_t lo, int64_t hi)
{
    const turn_job *j = arg;
    for (int64_t i = lo; i < hi; i++)
        turn_square(j, i / j->cols, i % j->cols);
}

void dn_turn_run(const sdlora_dev *dev, const dn_layout *from, const dn_layout *to,
                 const void *packed, void *turned)
{
    turn_job j = {.from = packed,
                  .to = turned,
                  .cols = from->dim[1] / COLS,
                  .from_row = from->stride[0] / 2,
                  .from_col = from->stride[1] / 2,
                  .to_row = to->stride[0] / 2,
                  .to_col = to->stride[1] / 2};
    dn_parallel(dev, from->dim[0] / COLS * j.cols, 8, turn_range, &j);
}
