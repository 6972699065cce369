/* SPDX-License-Identifier: MIT */
/* Shapes and whole-tensor conversions on the host.
 *
 * Knows dense row-major tensors and how to count them without overflow.  Refuses to know strides,
 * devices and operations. */
#include "tensor/tensor.h"

#include <stdatomic.h>
#include <stdio.h>

#include "base/status.h"

int64_t slr_tensor_count(const slr_tensor *t)
{
    int64_t n = 1;
    int zero = 0;

    if (t->rank < 0 || t->rank > SLR_MAX_RANK)
        return -1;
    for (int i = 0; i < t->rank; i++) {
        if (t->dim[i] < 0)
            return -1;
        if (!t->dim[i])
            zero = 1; /* empty; the other axes must still make a product that fits */
        else if (__builtin_mul_overflow(n, t->dim[i], &n))
            return -1;
    }
    return zero ? 0 : n;
}

size_t slr_tensor_bytes(const slr_tensor *t)
{
    int64_t n = slr_tensor_count(t);
    size_t bytes;

    if (n < 0 || !slr_mul_ok((size_t)n, slr_dtype_size(t->dtype), &bytes))
        return SIZE_MAX;
    return bytes;
}

uint64_t slr_tensor_next_id(void)
{
    static _Atomic uint64_t last; /* only ever compared: which number one gets does not matter */

    return atomic_fetch_add(&last, 1) + 1;
}

const char *slr_shape_text(const int64_t *dim, int rank, char out[96])
{
    size_t at = 0;

    out[at++] = '[';
    for (int i = 0; i < rank && at < 90; i++) {
        int n = snprintf(out + at, 96 - at, "%s%lld", i ? "," : "", (long long)dim[i]);

        if (n < 0 || (size_t)n > 90 - at) { /* only absurd shapes are this long */
            at += (size_t)snprintf(out + at, 96 - at, "...");
            break;
        }
        at += (size_t)n;
    }
    out[at++] = ']';
    out[at] = '\0';
    return out;
}

int slr_tensor_to_f32(const slr_tensor *t, float *dst)
{
    const slr_dtype_row *row = slr_dtype(t->dtype);
    int64_t n = slr_tensor_count(t);
    char shape[96];

    if (!row)
        return slr_fail(SDLORA_ENOTSUP, __func__, "data type %u cannot be read as f32",
                        (unsigned)t->dtype);
    if (n < 0)
        return slr_fail(
            SDLORA_EINVAL, __func__, "%s is not the shape of a tensor",
            slr_shape_text(t->dim, t->rank > SLR_MAX_RANK ? SLR_MAX_RANK : t->rank, shape));
    if (n)
        row->to_f32(dst, t->data, (size_t)n);
    return SDLORA_OK;
}

/* dst[b][j][i] = src[b][i][j]; squares that fit the nearest cache on both sides. */
static void transpose(float *dst, const float *src, int64_t batch, int64_t rows, int64_t cols)
{
    enum { SIDE = 16 };

    for (int64_t b = 0; b < batch; b++, dst += rows * cols, src += rows * cols)
        for (int64_t i0 = 0; i0 < rows; i0 += SIDE)
            for (int64_t j0 = 0; j0 < cols; j0 += SIDE) {
                int64_t i1 = i0 + SIDE < rows ? i0 + SIDE : rows;
                int64_t j1 = j0 + SIDE < cols ? j0 + SIDE : cols;

                for (int64_t j = j0; j < j1; j++)
                    for (int64_t i = i0; i < i1; i++)
                        dst[j * rows + i] = src[i * cols + j];
            }
}

void slr_nchw_to_nhwc(float *dst, const float *src, int64_t n, int64_t c, int64_t h, int64_t w)
{
    transpose(dst, src, n, c, h * w);
}

void slr_nhwc_to_nchw(float *dst, const float *src, int64_t n, int64_t c, int64_t h, int64_t w)
{
    transpose(dst, src, n, h * w, c);
}
