/* SPDX-License-Identifier: MIT */
/* The contract inside the built-in CPU backend: what an operation file gives (rows) and what it is
 * lent (the environment).  Knows one host and its instruction sets; refuses to know graphs and
 * models.
 *
 * An operation file exports one table of rows that ends with op 0, and its line in rows.def:
 *     const slr_cpu_row slr_cpu_rows_norm[] = {{SDLORA_OP_GROUP_NORM, .prepare = ...}, ..., {0}};
 * Its prepare checks the descriptor (SDLORA_ENOTSUP by slr_fail with a sentence for what it does
 * not take), makes a kernel by slr_cpu_kernel_new(), and says how much scratch a launch wants. */
#ifndef SLR_BACKEND_CPU_CPU_H
#define SLR_BACKEND_CPU_CPU_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <sdlora/backend.h>
#include "base/mem.h"

/* --- instruction sets --- */

/* A file NAME_tmpl.c is compiled once per instruction set and storage type
 * (lib/backend/meson.build), with SLR_ISA being base, avx2 or avx512 and SLR_ELEM f32 or bf16, and
 * exports one const struct of function pointers called SLR_ISA_SYM(slr_cpu_NAME), e.g.
 * slr_cpu_NAME_bf16_avx2.  Of bf16 there is avx512bf16 too, for processors that convert in one
 * instruction.  The plain file declares them by SLR_CPU_DECLARE(type, slr_cpu_NAME) and picks by
 * SLR_CPU_PICK(env, slr_cpu_NAME, dtype), at prepare.  Templates that know f32 only are declared
 * and picked by _F32. */
enum {
    SLR_CPU_LEVEL_BASE = 0,
    SLR_CPU_LEVEL_AVX2 = 1,
    SLR_CPU_LEVEL_AVX512 = 2,
    SLR_CPU_LEVEL_AVX512_BF16 = 3
};

#define SLR_ISA_CAT_(a, b) a##_##b
#define SLR_ISA_CAT(a, b)  SLR_ISA_CAT_(a, b)
#define SLR_ISA_SYM(name)  SLR_ISA_CAT(SLR_ISA_CAT(name, SLR_ELEM), SLR_ISA)

#if defined(__x86_64__)
#define SLR_CPU_DECLARE_F32(type, name)                                                            \
    extern const type name##_f32_base, name##_f32_avx2, name##_f32_avx512
#define SLR_CPU_PICK_F32(env, name)                                                                \
    ((env)->level >= SLR_CPU_LEVEL_AVX512 ? &name##_f32_avx512                                     \
     : (env)->level == SLR_CPU_LEVEL_AVX2 ? &name##_f32_avx2                                       \
                                          : &name##_f32_base)
#define SLR_CPU_DECLARE_BF16(type, name)                                                           \
    extern const type name##_bf16_base, name##_bf16_avx2, name##_bf16_avx512, name##_bf16_avx512bf16
#define SLR_CPU_PICK_BF16(env, name)                                                               \
    ((env)->level == SLR_CPU_LEVEL_AVX512_BF16 ? &name##_bf16_avx512bf16                           \
     : (env)->level == SLR_CPU_LEVEL_AVX512    ? &name##_bf16_avx512                               \
     : (env)->level == SLR_CPU_LEVEL_AVX2      ? &name##_bf16_avx2                                 \
                                               : &name##_bf16_base)
#else
#define SLR_CPU_DECLARE_F32(type, name)  extern const type name##_f32_base
#define SLR_CPU_PICK_F32(env, name)      (&name##_f32_base)
#define SLR_CPU_DECLARE_BF16(type, name) extern const type name##_bf16_base
#define SLR_CPU_PICK_BF16(env, name)     (&name##_bf16_base)
#endif

#define SLR_CPU_DECLARE(type, name)                                                                \
    SLR_CPU_DECLARE_F32(type, name);                                                               \
    SLR_CPU_DECLARE_BF16(type, name)
#define SLR_CPU_PICK(env, name, dtype)                                                             \
    ((dtype) == SDLORA_BF16 ? SLR_CPU_PICK_BF16(env, name) : SLR_CPU_PICK_F32(env, name))

/* --- what an operation is lent --- */
typedef struct slr_cpu_packs slr_cpu_packs; /* pack.h */
typedef struct slr_cpu_pack slr_cpu_pack;

typedef struct slr_cpu_env {
    const sdlora_host *host;
    int level; /* SLR_CPU_LEVEL_*, chosen once per device from host->cpu_features */
    int slots; /* how many pieces of slr_cpu_spread() may run at once; fixed per device */
    slr_cpu_packs
        *packs; /* converted and re-laid frozen inputs, shared by all kernels of the device */
} slr_cpu_env;

/* Calls body over [0,n) in pieces of `grain` items.  grain may depend on shapes only. */
static inline void slr_cpu_parallel(const slr_cpu_env *env, int64_t n, int64_t grain,
                                    void (*body)(void *arg, int64_t lo, int64_t hi), void *arg)
{
    env->host->parallel(env->host->self, n, grain, body, arg);
}

/* Calls body for each of n pieces, in any order and on any thread; `slot` < env->slots is not used
 * by two pieces at once, so that scratch can be env->slots blocks.  Which slot must not change a
 * result. */
void slr_cpu_spread(const slr_cpu_env *env, int64_t n,
                    void (*body)(void *arg, int64_t piece, int slot), void *arg);

/* --- kernels --- */
#define SLR_CPU_MAX_FROZEN 8

/* Head of every kernel; an operation puts it first in a struct of its own. */
struct sdlora_kernel {
    /* ptr: inputs, then outputs, as addresses; NULL for absent.  A frozen input has the address of
     * its pack.  scratch is 64-byte aligned and as big as prepare said. */
    int (*launch)(sdlora_kernel *k, const slr_cpu_env *env, void *const *ptr, void *scratch);
    /* Frees what the operation added; NULL: nothing was.  The head and `frozen` are freed by cpu.c.
     */
    void (*free)(sdlora_kernel *k, const slr_cpu_env *env);
    const slr_cpu_env *env;
    uint32_t n_in, n_args;
    slr_cpu_pack *frozen[SLR_CPU_MAX_FROZEN]; /* by input; NULL: an ordinary argument */
};

/* A cleared block of `bytes` (>= sizeof(sdlora_kernel)) whose launch is set.  NULL: ENOMEM was set.
 */
void *slr_cpu_kernel_new(const slr_cpu_env *env, size_t bytes,
                         int (*launch)(sdlora_kernel *, const slr_cpu_env *, void *const *,
                                       void *));
/* For prepare's own failure after slr_cpu_kernel_new(); NULL does nothing. */
void slr_cpu_kernel_free(sdlora_kernel *k);

typedef struct slr_cpu_row {
    uint32_t op;
    /* false: frozen inputs look like ordinary ones.  cpu.c hands prepare a descriptor in which each
     * frozen f16, bf16 or f64 input is a dense f32 one, and gives its converted address in ptr at
     * launch.  true: prepare sees the descriptor as it is and fills k->frozen itself (pack.h). */
    bool own_packs;
    int (*prepare)(sdlora_kernel **out, uint64_t *scratch, const slr_cpu_env *env,
                   const sdlora_opdesc *op);
} slr_cpu_row;

/* The first row that does not decline wins; rows of the same operation may stand in several files.
 */
#define SLR_CPU_ROWS(file) extern const slr_cpu_row slr_cpu_rows_##file[];
#include "backend/cpu/rows.def"
#undef SLR_CPU_ROWS

/* --- descriptors --- */
static inline bool slr_cpu_has(const sdlora_tdesc *t)
{
    return t->dtype != 0;
}

static inline int64_t slr_cpu_count(const sdlora_tdesc *t)
{
    int64_t n = 1;
    for (uint32_t i = 0; i < t->rank; i++)
        n *= t->dim[i];
    return n;
}

/* Row-major without gaps; axes of length 1 may have any stride. */
static inline bool slr_cpu_dense(const sdlora_tdesc *t)
{
    int64_t want = 1;
    for (uint32_t i = t->rank; i-- > 0;) {
        if (t->dim[i] != 1 && t->stride[i] != want)
            return false;
        want *= t->dim[i];
    }
    return true;
}

static inline bool slr_cpu_same_shape(const sdlora_tdesc *a, const sdlora_tdesc *b)
{
    if (a->rank != b->rank)
        return false;
    for (uint32_t i = 0; i < a->rank; i++)
        if (a->dim[i] != b->dim[i])
            return false;
    return true;
}

/* Dense f32. */
static inline bool slr_cpu_f32(const sdlora_tdesc *t)
{
    return t->dtype == SDLORA_F32 && slr_cpu_dense(t);
}

/* Dense, in a type that kernels compute from. */
static inline bool slr_cpu_stored(const sdlora_tdesc *t)
{
    return (t->dtype == SDLORA_F32 || t->dtype == SDLORA_BF16) && slr_cpu_dense(t);
}

/* Dense, in the given one of these types. */
static inline bool slr_cpu_stored_as(const sdlora_tdesc *t, uint32_t dtype)
{
    return slr_cpu_stored(t) && t->dtype == dtype;
}

/* Bytes of an element of such a tensor, and the address of one. */
static inline int64_t slr_cpu_size(const sdlora_tdesc *t)
{
    return t->dtype == SDLORA_BF16 ? 2 : 4;
}

static inline void *slr_cpu_at(const void *p, int64_t i, int64_t size)
{
    return (char *)(uintptr_t)p + i * size;
}

/* Element i as f32; size tells f32 from bf16. */
static inline float slr_cpu_get(const void *p, int64_t i, int64_t size)
{
    float f;
    if (size == 2) {
        uint32_t u = (uint32_t)((const uint16_t *)p)[i] << 16;
        memcpy(&f, &u, sizeof f);
        return f;
    }
    memcpy(&f, (const float *)p + i, sizeof f);
    return f;
}

static inline bool slr_cpu_is_frozen(const sdlora_opdesc *op, uint32_t i)
{
    return op->consts && i < op->n_in && op->consts[i].data;
}

#endif
