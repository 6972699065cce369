/* SPDX-License-Identifier: MIT */
/* One row per storage type: size, names, conversion to and from f32. */
#ifndef SLR_TENSOR_DTYPE_H
#define SLR_TENSOR_DTYPE_H

#include <stddef.h>
#include <stdint.h>

#include <sdlora/ops.h>

typedef struct slr_dtype_row {
    uint32_t dtype;
    size_t size;
    const char *name;   /* "f32" */
    const char *st_tag; /* safetensors: "F32" */
    const char *torch;  /* pickle storage class: "FloatStorage" */
    void (*to_f32)(float *dst, const void *src, size_t n);   /* any alignment of src */
    void (*from_f32)(void *dst, const float *src, size_t n); /* round to nearest even */
} slr_dtype_row;

const slr_dtype_row *slr_dtype(uint32_t dtype); /* NULL: unknown */
const slr_dtype_row *slr_dtype_by_st(const char *tag);
/* kohya's names of save precisions: "float", "fp16" or "bf16"; NULL: unknown. */
const slr_dtype_row *slr_dtype_by_precision(const char *name);
size_t slr_dtype_size(uint32_t dtype); /* 0: unknown */

float slr_f16_to_f32(uint16_t h);
uint16_t slr_f32_to_f16(float f);
float slr_bf16_to_f32(uint16_t h);
uint16_t slr_f32_to_bf16(float f);

#endif
