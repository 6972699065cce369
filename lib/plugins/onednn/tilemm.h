/* SPDX-License-Identifier: MIT */
/* Small products inside a piece of work: C[m,n] f32 (+)= A[m,k] B[k,n], A row-major without gaps,
 * B packed as the primitive wants it.  One shape per object.  Knows how B lies and how oneDNN is
 * called on one thread; refuses to know what the matrices mean. */
#ifndef DN_TILEMM_H
#define DN_TILEMM_H

#include "common.h"

/* Where element (k, n) of a packed B lies, in elements:
 *     n / cols * col_step + k / pair * cols * pair + n % cols * pair + k % pair
 * with k < depth and n < width; what lies beyond the product's own k must be zero. */
typedef struct dn_tile_layout {
    int64_t cols;     /* columns of one panel; a multiple of 16 */
    int64_t pair;     /* values of k side by side: 1 for f32, 2 for bf16 */
    int64_t col_step; /* from panel to panel */
    int64_t depth;    /* k rounded up */
    int64_t bytes;
} dn_tile_layout;

/* Where columns n to n + 15 of row 0 begin. */
static inline int64_t dn_tile_panel(const dn_tile_layout *b, int64_t n)
{
    return n / b->cols * b->col_step + n % b->cols * b->pair;
}

typedef struct dn_tilemm {
    dn_tile_layout b;
    int64_t m, n, k;
    dnnl_primitive_t prim;
    struct dn_tilemm_slot *slots;
    int n_slots;
    int64_t work_bytes; /* scratch of one call */
} dn_tilemm;

/* type: SDLORA_F32 or SDLORA_BF16, of A and B.  add: C is added to.  SDLORA_ENOTSUP with a sentence
 * where oneDNN has no fast kernel.  The object is filled in place; free it also after a failure. */
int dn_tilemm_init(dn_tilemm *t, const sdlora_dev *dev, uint32_t type, int64_t m, int64_t n,
                   int64_t k, bool add);
void dn_tilemm_free(const sdlora_dev *dev, dn_tilemm *t);

/* Runs on the calling thread, which must be inside a piece that holds `slot`.  work: work_bytes,
 * aligned to 64, as are A, B and C where speed matters. */
int dn_tilemm_run(const dn_tilemm *t, const sdlora_dev *dev, int slot, const void *a, const void *b,
                  float *c, void *work);

/* Packs B of the layout from src, row-major with rows of ld elements of the layout's type, zero
 * beyond: dn_tile_pack_rows: B[k,n] = src[k,n], src has k rows and n columns;
 * dn_tile_pack_columns: B[k,n] = src[n,k], src has n rows and k columns. */
void dn_tile_pack_rows(const dn_tile_layout *b, int64_t width, void *dst, const void *src,
                       int64_t ld, int64_t k, int64_t n);
void dn_tile_pack_columns(const dn_tile_layout *b, int64_t width, void *dst, const void *src,
                          int64_t ld, int64_t k, int64_t n);

#endif
