/* SPDX-License-Identifier: MIT */
/* The cache of converted frozen inputs: (contents, layout) -> one f32 block, counted by the kernels
 * that use it.  After conversion the pages of a mapped file are let go.  Refuses to know
 * operations; a new layout is a row of `layouts`. */
#include "backend/cpu/pack.h"

#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "base/status.h"
#include "io/file.h"
#include "tensor/dtype.h"

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

/* --- layouts
 * ------------------------------------------------------------------------------------------ */

/* [K,Cg,R,S] -> [groups][R*S][Cg][Kg] (CK) or [groups][R*S][Kg][Cg] (KC), K = groups * Kg. */
void slr_cpu_pack_conv(float *dst, const float *src, const int64_t dim[4], int64_t groups,
                       int layout)
{
    const int64_t kg = dim[0] / groups, cg = dim[1], rs = dim[2] * dim[3];
    const bool ck = layout == SLR_PACK_CONV_CK;
    for (int64_t g = 0; g < groups; g++) {
        for (int64_t t = 0; t < rs; t++) {
            float *d = dst + (g * rs + t) * cg * kg;
            const float *s = src + g * kg * cg * rs + t;
            /* eight filters at a time: reads walk eight rows, writes fill whole cache lines */
            for (int64_t k0 = 0; k0 < kg; k0 += 8) {
                int64_t k1 = k0 + 8 < kg ? k0 + 8 : kg;
                for (int64_t c = 0; c < cg; c++)
                    for (int64_t k = k0; k < k1; k++)
                        d[ck ? c * kg + k : k * cg + c] = s[(k * cg + c) * rs];
            }
        }
    }
}

static void fill_plain(float *dst, const float *src, const sdlora_tdesc *desc, int64_t groups)
{
    (void)groups;
    memcpy(dst, src, (size_t)slr_cpu_count(desc) * sizeof *dst);
}

static void fill_conv_ck(float *dst, const float *src, const sdlora_tdesc *desc, int64_t groups)
{
    slr_cpu_pack_conv(dst, src, desc->dim, groups, SLR_PACK_CONV_CK);
}

static void fill_conv_kc(float *dst, const float *src, const sdlora_tdesc *desc, int64_t groups)
{
    slr_cpu_pack_conv(dst, src, desc->dim, groups, SLR_PACK_CONV_KC);
}

static void (*const layouts[])(float *dst, const float *src, const sdlora_tdesc *desc,
                               int64_t groups) = {
    [SLR_PACK_PLAIN] = fill_plain,
    [SLR_PACK_CONV_CK] = fill_conv_ck,
    [SLR_PACK_CONV_KC] = fill_conv_kc,
};

/* --- letting the pages of a mapped file go
 * ------------------------------------------------------------- */

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

/* --- making and sharing
 * -------------------------------------------------------------------------------- */

static bool is_float(uint32_t dtype)
{
    return dtype == SDLORA_F32 || dtype == SDLORA_F16 || dtype == SDLORA_BF16 ||
           dtype == SDLORA_F64;
}

/* Another type, other layout or odd alignment: a block of our own. */
static int convert(slr_cpu_packs *packs, slr_cpu_pack *p, const slr_dtype_row *type)
{
    const size_t n = (size_t)slr_cpu_count(&p->desc);
    const void *src = p->data;
    float *tmp = NULL;
    float *dst = block_new(packs, n ? n * 4 : 4);
    if (!dst)
        return SDLORA_ENOMEM;
    if (p->layout == SLR_PACK_PLAIN) {
        type->to_f32(dst, src, n);
    } else if (type->dtype == SDLORA_F32 && (uintptr_t)src % 4 == 0) {
        layouts[p->layout](dst, src, &p->desc, p->groups);
    } else {
        tmp = block_new(packs, n ? n * 4 : 4);
        if (!tmp) {
            block_free(packs, dst);
            return SDLORA_ENOMEM;
        }
        type->to_f32(tmp, src, n);
        layouts[p->layout](dst, tmp, &p->desc, p->groups);
        block_free(packs, tmp);
    }
    p->data = p->owned = dst;
    p->bytes = n * 4;
    let_go(src, n * type->size);
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

static int fill(slr_cpu_packs *packs, slr_cpu_pack *p)
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
                       : copy_bytes(packs, p, (size_t)slr_cpu_count(&p->desc) * type->size);
    }
    if (p->desc.dtype == SDLORA_F32 && p->layout == SLR_PACK_PLAIN && aligned)
        return SDLORA_OK;
    return convert(packs, p, type);
}

static bool same_pack(const slr_cpu_pack *p, const slr_cpu_pack *want)
{
    return p->id == want->id && p->layout == want->layout && p->groups == want->groups &&
           p->desc.dtype == want->desc.dtype && slr_cpu_same_shape(&p->desc, &want->desc);
}

static int find_or_make(slr_cpu_pack **out, slr_cpu_packs *packs, const slr_cpu_pack *want)
{
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
    int rc = fill(packs, p);
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
    int rc = find_or_make(&k->frozen[i], packs, &want);
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
