/* SPDX-License-Identifier: MIT */
/* The cache of converted frozen inputs: (contents, layout) -> one block, counted by the kernels
 * that use it.  After conversion the pages of a mapped file are let go.  Refuses to know
 * operations; a new layout is a row of `layouts`. */
#include "backend/cpu/pack.h"

#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "backend/cpu/mm.h"
#include "base/status.h"
#include "io/file.h"

enum { BUCKETS = 256 };

struct slr_cpu_pack {
    slr_cpu_pack *next;
    uint64_t id; /* 0: contents without a name, never shared */
    int layout;
    int64_t groups;
    sdlora_tdesc desc;
    const void *data;
    void *owned; /* NULL: data is the caller's */
    uint64_t bytes;
    int refs;
};

struct slr_cpu_packs {
    const sdlora_host *host;
    pthread_mutex_t lock; /* kernels of several plans come and go at once */
    uint64_t bytes;
    slr_cpu_pack *bucket[BUCKETS];
};

static void *block_new(slr_cpu_packs *packs, size_t bytes)
{
    return packs->host->alloc(packs->host->self, bytes, 64);
}

static void block_free(slr_cpu_packs *packs, void *p)
{
    if (p)
        packs->host->free(packs->host->self, p);
}

int slr_cpu_packs_new(slr_cpu_packs **out, const sdlora_host *host)
{
    slr_cpu_packs *packs = host->alloc(host->self, sizeof *packs, 64);
    *out = packs;
    if (!packs)
        return SDLORA_ENOMEM;
    memset(packs, 0, sizeof *packs);
    packs->host = host;
    pthread_mutex_init(&packs->lock, NULL);
    return SDLORA_OK;
}

void slr_cpu_packs_free(slr_cpu_packs *packs)
{
    if (!packs)
        return;
    pthread_mutex_destroy(&packs->lock);
    block_free(packs, packs);
}

/* --- layouts --- */

enum { PACK_BLOCK = 16, CONVERT_BLOCK = 1 << 18 };

/* One relaying of weights: dst[group][tap][outer][inner], inner being filters (CK) or channels
 * (KC). */
typedef struct relay_job {
    float *dst;
    const float *src;
    int64_t taps, n_inner, n_outer, inner_step, outer_step, blocks;
} relay_job;

/* A cache line of `inner` at a time: reads walk 16 rows, writes fill whole lines. */
static void relay_block(const relay_job *j, int64_t group, int64_t i0)
{
    const int64_t i1 = i0 + PACK_BLOCK < j->n_inner ? i0 + PACK_BLOCK : j->n_inner;
    const int64_t plane = j->n_inner * j->n_outer;
    float *dst = j->dst + group * j->taps * plane;
    const float *src = j->src + group * j->taps * plane;
    for (int64_t o = 0; o < j->n_outer; o++)
        for (int64_t t = 0; t < j->taps; t++)
            for (int64_t i = i0; i < i1; i++)
                dst[t * plane + o * j->n_inner + i] =
                    src[i * j->inner_step + o * j->outer_step + t];
}

static void relay_blocks(void *arg, int64_t lo, int64_t hi)
{
    const relay_job *j = arg;
    for (int64_t b = lo; b < hi; b++)
        relay_block(j, b / j->blocks, b % j->blocks * PACK_BLOCK);
}

/* [K,Cg,R,S] -> [groups][R*S][Cg][Kg] (CK) or [groups][R*S][Kg][Cg] (KC), K = groups * Kg. */
void slr_cpu_pack_conv(const slr_cpu_env *env, float *dst, const float *src, const int64_t dim[4],
                       int64_t groups, int layout)
{
    const int64_t kg = dim[0] / groups, cg = dim[1], taps = dim[2] * dim[3];
    relay_job j = {.dst = dst, .src = src, .taps = taps};
    if (layout == SLR_PACK_CONV_CK) {
        j.n_inner = kg;
        j.n_outer = cg;
        j.inner_step = cg * taps;
        j.outer_step = taps;
    } else {
        j.n_inner = cg;
        j.n_outer = kg;
        j.inner_step = taps;
        j.outer_step = cg * taps;
    }
    j.blocks = (j.n_inner + PACK_BLOCK - 1) / PACK_BLOCK;
    /* small weights stay on this thread */
    int64_t each = PACK_BLOCK * j.n_outer * taps;
    slr_cpu_parallel(env, groups * j.blocks, each < CONVERT_BLOCK ? CONVERT_BLOCK / each : 1,
                     relay_blocks, &j);
}

typedef struct convert_job {
    const slr_dtype_row *type;
    float *dst;
    const char *src;
} convert_job;

static void convert_range(void *arg, int64_t lo, int64_t hi)
{
    const convert_job *j = arg;
    j->type->to_f32(j->dst + lo, j->src + (size_t)lo * j->type->size, (size_t)(hi - lo));
}

void slr_cpu_to_f32(const slr_cpu_env *env, const slr_dtype_row *type, float *dst, const void *src,
                    int64_t n)
{
    convert_job j = {.type = type, .dst = dst, .src = src};
    slr_cpu_parallel(env, n, CONVERT_BLOCK, convert_range, &j);
}

/* What panels are made of, or no runs for other layouts. */
static slr_mm_source source_of(const sdlora_tdesc *t, int layout)
{
    const int64_t last = t->dim[t->rank - 1], rest = slr_cpu_count(t) / (last ? last : 1);
    const int64_t kk = t->dim[0], c = t->rank > 3 ? t->dim[1] : 1,
                  taps = t->rank > 3 ? t->dim[2] * t->dim[3] : 1;
    switch (layout & ~SLR_PACK_HALF) {
    case SLR_PACK_MM:
        return (slr_mm_source){1, rest, last, last, 1};
    case SLR_PACK_MM_T:
        return (slr_mm_source){1, last, rest, 1, last};
    case SLR_PACK_MM_CONV:
        return (slr_mm_source){taps, c, kk, taps, c * taps};
    case SLR_PACK_MM_BACK:
        return (slr_mm_source){taps, kk, c, c * taps, taps};
    default:
        return (slr_mm_source){0};
    }
}

/* --- letting the pages of a mapped file go --- */

/* True when every page of [lo,hi) that exists belongs to a file, so that dropping it loses nothing:
 * merged weights may lie on the heap. */
static bool only_file_pages(uintptr_t lo, uintptr_t hi, uintptr_t page)
{
    int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    const uint64_t exists = UINT64_C(3) << 62, of_file = UINT64_C(1) << 61;
    bool good = true;
    uint64_t word[512];
    for (uintptr_t at = lo; good && at < hi;) {
        size_t n = (hi - at) / page < 512 ? (hi - at) / page : 512;
        good = pread(fd, word, n * 8, (off_t)(at / page * 8)) == (ssize_t)(n * 8);
        for (size_t i = 0; good && i < n; i++)
            good = !(word[i] & exists) || (word[i] & of_file);
        at += n * page;
    }
    close(fd);
    return good;
}

static void let_go(const void *data, size_t bytes)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t lo = ((uintptr_t)data + page - 1) / page * page;
    uintptr_t hi = ((uintptr_t)data + bytes) / page * page;
    if (hi > lo && only_file_pages(lo, hi, page))
        slr_file_forget(data, bytes);
}

/* --- making and sharing --- */

static bool is_float(uint32_t dtype)
{
    return dtype == SDLORA_F32 || dtype == SDLORA_F16 || dtype == SDLORA_BF16 ||
           dtype == SDLORA_F64;
}

/* Another type, other layout or odd alignment: a block of our own. */
static int convert(const slr_cpu_env *env, slr_cpu_pack *p, const slr_dtype_row *type)
{
    slr_cpu_packs *packs = env->packs;
    const int64_t n = slr_cpu_count(&p->desc);
    const size_t floats = (size_t)(n ? n : 1) * sizeof(float);
    const bool plain = p->layout == SLR_PACK_PLAIN, half = p->layout & SLR_PACK_HALF;
    const bool ready = type->dtype == SDLORA_F32 && (uintptr_t)p->data % 4 == 0;
    const void *src = p->data;
    const slr_mm_source panels = source_of(&p->desc, p->layout);
    const slr_mm_fns *fns = slr_mm_fns_of(env, half);
    const size_t bytes = panels.runs ? slr_mm_bytes(fns, half, &panels) : floats;
    float *dst = block_new(packs, bytes);
    float *flat = plain || ready ? NULL : block_new(packs, floats); /* f32 in file order */
    float *spare = panels.runs ? block_new(packs, floats) : NULL;
    const bool enough = dst && (plain || ready || flat) && (!panels.runs || spare);
    if (enough && (!ready || plain))
        slr_cpu_to_f32(env, type, plain ? dst : flat, src, n);
    if (enough && panels.runs)
        slr_mm_panels(fns, half, dst, ready ? src : flat, &panels, spare);
    else if (enough && !plain)
        slr_cpu_pack_conv(env, dst, ready ? src : flat, p->desc.dim, p->groups, p->layout);
    block_free(packs, flat);
    block_free(packs, spare);
    if (!enough) {
        block_free(packs, dst);
        return SDLORA_ENOMEM;
    }
    p->data = p->owned = dst;
    p->bytes = bytes;
    let_go(src, (size_t)n * type->size);
    return SDLORA_OK;
}

/* Integers and the like: only their alignment may be wrong. */
static int copy_bytes(slr_cpu_packs *packs, slr_cpu_pack *p, size_t bytes)
{
    p->owned = block_new(packs, bytes ? bytes : 1);
    if (!p->owned)
        return SDLORA_ENOMEM;
    memcpy(p->owned, p->data, bytes);
    p->data = p->owned;
    p->bytes = bytes;
    return SDLORA_OK;
}

static int fill(const slr_cpu_env *env, slr_cpu_pack *p)
{
    const slr_dtype_row *type = slr_dtype(p->desc.dtype);
    if (!type)
        return slr_fail(SDLORA_ENOTSUP, __func__, "a frozen input has the unknown data type %u",
                        (unsigned)p->desc.dtype);
    if (p->layout == SLR_PACK_FILE)
        return SDLORA_OK;
    bool aligned = (uintptr_t)p->data % type->size == 0;
    if (!is_float(p->desc.dtype)) {
        if (p->layout != SLR_PACK_PLAIN)
            return slr_fail(SDLORA_ENOTSUP, __func__, "weights of type %s", type->name);
        return aligned ? SDLORA_OK
                       : copy_bytes(env->packs, p, (size_t)slr_cpu_count(&p->desc) * type->size);
    }
    if (p->desc.dtype == SDLORA_F32 && p->layout == SLR_PACK_PLAIN && aligned)
        return SDLORA_OK;
    return convert(env, p, type);
}

/* A pack that is used in place stands for one address: equal bytes elsewhere may outlive it. */
static bool same_pack(const slr_cpu_pack *p, const slr_cpu_pack *want)
{
    return p->id == want->id && p->layout == want->layout && p->groups == want->groups &&
           p->desc.dtype == want->desc.dtype && slr_cpu_same_shape(&p->desc, &want->desc) &&
           (p->owned || p->data == want->data);
}

static int find_or_make(slr_cpu_pack **out, const slr_cpu_env *env, const slr_cpu_pack *want)
{
    slr_cpu_packs *packs = env->packs;
    slr_cpu_pack **head = &packs->bucket[want->id % BUCKETS];
    for (slr_cpu_pack *p = want->id ? *head : NULL; p; p = p->next) {
        if (same_pack(p, want)) {
            p->refs++;
            *out = p;
            return SDLORA_OK;
        }
    }
    slr_cpu_pack *p = block_new(packs, sizeof *p);
    if (!p)
        return SDLORA_ENOMEM;
    *p = *want;
    int rc = fill(env, p);
    if (rc < 0) {
        block_free(packs, p);
        return rc;
    }
    p->refs = 1;
    p->next = *head;
    *head = p;
    packs->bytes += p->bytes;
    *out = p;
    return SDLORA_OK;
}

int slr_cpu_freeze(sdlora_kernel *k, const sdlora_opdesc *op, uint32_t i, int layout,
                   int64_t groups)
{
    if (i >= SLR_CPU_MAX_FROZEN)
        return slr_fail(SDLORA_ENOTSUP, __func__, "input %u of operation %u is frozen; %d can be",
                        (unsigned)i, (unsigned)op->op, (int)SLR_CPU_MAX_FROZEN);
    slr_cpu_packs *packs = k->env->packs;
    const slr_cpu_pack want = {
        .id = op->consts[i].id,
        .layout = layout,
        .groups = layout == SLR_PACK_PLAIN ? 1 : groups,
        .desc = op->in[i],
        .data = op->consts[i].data,
    };
    pthread_mutex_lock(&packs->lock);
    int rc = find_or_make(&k->frozen[i], k->env, &want);
    pthread_mutex_unlock(&packs->lock);
    return rc;
}

const void *slr_cpu_pack_data(const slr_cpu_pack *p)
{
    return p->data;
}

void slr_cpu_pack_put(slr_cpu_packs *packs, slr_cpu_pack *p)
{
    if (!p)
        return;
    pthread_mutex_lock(&packs->lock);
    bool last = --p->refs == 0;
    if (last) {
        slr_cpu_pack **at = &packs->bucket[p->id % BUCKETS];
        while (*at != p)
            at = &(*at)->next;
        *at = p->next;
        packs->bytes -= p->bytes;
    }
    pthread_mutex_unlock(&packs->lock);
    if (last) {
        block_free(packs, p->owned);
        block_free(packs, p);
    }
}

uint64_t slr_cpu_packs_bytes(slr_cpu_packs *packs)
{
    pthread_mutex_lock(&packs->lock);
    uint64_t bytes = packs->bytes;
    pthread_mutex_unlock(&packs->lock);
    return bytes;
}
