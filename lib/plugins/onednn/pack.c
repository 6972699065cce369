/* SPDX-License-Identifier: MIT */
/* Relaying of weights and the list of packs.  First the type: the file's elements become bf16 or
 * f32 in the same order (and filters are turned round), in parallel.  Then the layout: one reorder
 * primitive per panel, in parallel too.  Refuses to know what the weights are for. */
#include "pack.h"

#include <fcntl.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "convert.h"
#include "turn.h"

struct dn_pack {
    dn_pack *next;
    uint64_t id; /* 0: contents without a name, never shared */
    dn_relay relay;
    void *data;
    int refs;
};

/* --- the type */

static bool as_it_is(const dn_relay *r, const void *src)
{
    return r->taps == 1 && r->from == r->to.type && (uintptr_t)src % dn_size(r->from) == 0;
}

size_t dn_relay_flat(const dn_relay *r)
{
    return (size_t)dn_round_up(r->count * (int64_t)dn_size(r->to.type), 64);
}

typedef struct turn_job {
    unsigned char *data;
    int64_t taps, size;
} turn_job;

static void turn_range(void *arg, int64_t lo, int64_t hi)
{
    const turn_job *j = arg;
    unsigned char a[4];
    for (int64_t i = lo; i < hi; i++) {
        unsigned char *run = j->data + i * j->taps * j->size;
        for (int64_t x = 0, y = j->taps - 1; x < y; x++, y--) {
            memcpy(a, run + x * j->size, (size_t)j->size);
            memcpy(run + x * j->size, run + y * j->size, (size_t)j->size);
            memcpy(run + y * j->size, a, (size_t)j->size);
        }
    }
}

/* --- the layout */

typedef struct relay_job {
    sdlora_dev *dev;
    const dn_relay *relay;
    unsigned char *packed;
    const unsigned char *flat;
    int64_t width;
    _Atomic int status;
} relay_job;

/* The relaying of [n0, n0+n) along the axis. */
static dnnl_status_t relay_panel(const relay_job *j, int64_t n0, int64_t n)
{
    const dn_relay *r = j->relay;
    dn_layout from = dn_layout_strided(r->to.type, r->to.rank, r->to.dim, r->strides);
    from.dim[r->axis] = from.padded[r->axis] = n;
    return dn_library_relay(j->dev->engine, j->dev->stream, &from,
                            j->flat + n0 * r->strides[r->axis] * (int64_t)dn_size(r->to.type),
                            &r->to, r->axis, n0, j->packed);
}

static void relay_panels(void *arg, int64_t piece, int slot)
{
    relay_job *j = arg;
    const int64_t n0 = piece * j->width, all = j->relay->to.dim[j->relay->axis];
    (void)slot;
    dnnl_status_t rc = relay_panel(j, n0, dn_min(j->width, all - n0));
    if (rc != dnnl_success)
        atomic_store(&j->status, (int)rc);
}

int dn_relay_run(sdlora_dev *dev, const dn_relay *r, void *packed, const void *src, void *flat)
{
    relay_job j = {.dev = dev, .relay = r, .packed = packed, .flat = src};
    if (!as_it_is(r, src)) {
        dn_convert_all(dev, flat, r->to.type, src, r->from, r->count);
        turn_job turn = {flat, r->taps, (int64_t)dn_size(r->to.type)};
        if (r->taps > 1)
            dn_parallel(dev, r->count / r->taps, 1 + 65536 / r->taps, turn_range, &turn);
        j.flat = flat;
    }
    /* panels of 64: a whole number of every block that weights come in */
    const int64_t all = r->to.dim[r->axis];
    j.width = r->count > 1 << 16 && dn_layout_offset(&r->to, r->axis, 64) > 0 ? 64 : all;
    dn_spread(dev, dn_ceil_div(all, j.width), relay_panels, &j);
    return j.status ? dn_fail_dnnl(dev, (dnnl_status_t)j.status, "relaying weights") : SDLORA_OK;
}

/* --- letting the pages of a mapped file go --- */

/* True when every page of [lo,hi) that exists belongs to a file, so that dropping it loses nothing:
 * merged weights may lie on the heap. */
static bool only_file_pages(uintptr_t lo, uintptr_t hi, uintptr_t page)
{
    const uint64_t exists = UINT64_C(3) << 62, of_file = UINT64_C(1) << 61;
    uint64_t word[512];
    int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    bool good = fd >= 0;
    for (uintptr_t at = lo; good && at < hi;) {
        size_t n = (hi - at) / page < 512 ? (hi - at) / page : 512;
        good = pread(fd, word, n * 8, (off_t)(at / page * 8)) == (ssize_t)(n * 8);
        for (size_t i = 0; good && i < n; i++)
            good = !(word[i] & exists) || (word[i] & of_file);
        at += n * page;
    }
    if (fd >= 0)
        close(fd);
    return good;
}

static void let_go(const void *data, size_t bytes)
{
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    const uintptr_t lo = ((uintptr_t)data + page - 1) / page * page;
    const uintptr_t hi = ((uintptr_t)data + bytes) / page * page;
    if (hi > lo && only_file_pages(lo, hi, page))
        madvise((void *)lo, hi - lo, MADV_DONTNEED);
}

/* --- making and sharing --- */

static bool same_relay(const dn_relay *a, const dn_relay *b)
{
    bool same = a->from == b->from && a->count == b->count && a->taps == b->taps &&
                a->axis == b->axis && dn_layout_same(&a->to, &b->to);
    for (int i = 0; same && i < a->to.rank; i++)
        same = a->strides[i] == b->strides[i];
    return same;
}

static int create(dn_pack **out, sdlora_dev *dev, const sdlora_const *c, const dn_relay *r)
{
    dn_pack *p = dn_alloc(dev, sizeof *p);
    if (!p)
        return SDLORA_ENOMEM;
    p->relay = *r;
    p->id = c->id;
    p->refs = 1;
    const size_t bytes = (size_t)dn_layout_bytes(&r->to);
    void *flat = NULL;
    int rc = SDLORA_ENOMEM;
    p->data = dev->host->alloc(dev->host->self, bytes, 64);
    if (!p->data)
        goto done;
    if (!as_it_is(r, c->data) && !(flat = dev->host->alloc(dev->host->self, dn_relay_flat(r), 64)))
        goto done;
    rc = dn_relay_run(dev, r, p->data, c->data, flat);
done:
    dn_free(dev, flat);
    if (rc < 0) {
        dn_free(dev, p->data);
        dn_free(dev, p);
        return rc;
    }
    let_go(c->data, (size_t)r->count * dn_size(r->from));
    *out = p;
    return SDLORA_OK;
}

int dn_pack_get(dn_pack **out, sdlora_dev *dev, const sdlora_const *c, const dn_relay *relay)
{
    int rc = SDLORA_OK;
    *out = NULL;
    pthread_mutex_lock(&dev->lock);
    for (dn_pack *p = c->id ? dev->packs : NULL; p && !*out; p = p->next)
        if (p->id == c->id && same_relay(&p->relay, relay)) {
            p->refs++;
            *out = p;
        }
    if (!*out) {
        rc = create(out, dev, c, relay);
        if (rc >= 0) {
            (*out)->next = dev->packs;
            dev->packs = *out;
        }
    }
    pthread_mutex_unlock(&dev->lock);
    return rc;
}

static bool turned(const dn_relay *a, const dn_relay *b)
{
    return a->from == b->from && a->taps == 1 && b->taps == 1 && a->strides[0] == b->strides[1] &&
           a->strides[1] == b->strides[0] && dn_turn_fits(&a->to, &b->to);
}

dn_pack *dn_pack_find(sdlora_dev *dev, const sdlora_const *c, const dn_relay *relay,
                      bool transposed)
{
    dn_pack *found = NULL;
    pthread_mutex_lock(&dev->lock);
    for (dn_pack *p = c->id ? dev->packs : NULL; p && !found; p = p->next)
        if (p->id == c->id && (transposed ? turned : same_relay)(&p->relay, relay)) {
            p->refs++;
            found = p;
        }
    pthread_mutex_unlock(&dev->lock);
    return found;
}

void dn_pack_put(sdlora_dev *dev, dn_pack *p)
{
    if (!p)
        return;
    pthread_mutex_lock(&dev->lock);
    const bool last = --p->refs == 0;
    if (last) {
        dn_pack **at = &dev->packs;
        while (*at != p)
            at = &(*at)->next;
        *at = p->next;
    }
    pthread_mutex_unlock(&dev->lock);
    if (last) {
        dn_free(dev, p->data);
        dn_free(dev, p);
    }
}

void *dn_pack_data(const dn_pack *p)
{
    return p->data;
}

const dn_layout *dn_pack_layout(const dn_pack *p)
{
    return &p->relay.to;
}

int dn_pack_panel(dnnl_memory_t *out, sdlora_dev *dev, const dn_relay *relay, void *packed,
                  const dn_layout *panel, int64_t n0)
{
    const int64_t offset = dn_layout_offset(&relay->to, relay->axis, n0);
    dnnl_status_t rc =
        offset < 0 ? dnnl_unimplemented
                   : dn_memory_new(out, dev->engine, panel, (unsigned char *)packed + offset);
    return rc == dnnl_success ? SDLORA_OK : dn_fail_dnnl(dev, rc, "a panel of weights");
}
