/* SPDX-License-Identifier: MIT */
/* Rounding and widening of float types, 16 lanes at a time, on the calling thread.  To bf16: to
 * nearest even, NaN stays NaN.  Only an active device may call: it has AVX-512. */
#ifndef DN_CONVERT_H
#define DN_CONVERT_H

#include "common.h"

/* Bytes of a float type; 0: not one of f32, f16, bf16, f64. */
size_t dn_size(uint32_t dtype);

/* dst is f32 or bf16, src any float type at any alignment. */
void dn_convert(void *dst, uint32_t to, const void *src, uint32_t from, int64_t n);

/* `rows` rows of n elements: from a pitch (in elements) to another, and to another type. */
void dn_copy_rows(void *to, uint32_t to_type, int64_t to_pitch, const void *from,
                  uint32_t from_type, int64_t from_pitch, int64_t rows, int64_t n);

/* dn_convert in pieces over the host's threads. */
void dn_convert_all(const sdlora_dev *dev, void *dst, uint32_t to, const void *src, uint32_t from,
                    int64_t n);

#endif
