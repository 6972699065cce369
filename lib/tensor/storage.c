/* SPDX-License-Identifier: MIT */
/* The memory behind tensors: a heap block, or someone's bytes with a way to give them back.
 *
 * Knows who is the last to let go.  Refuses to know what the bytes mean. */
#include "tensor/tensor.h"

#include "base/status.h"
#include "base/thread.h"

struct slr_storage {
    slr_refs refs;
    slr_mem *m;
    void *data;
    size_t bytes;
    void (*release)(void *user); /* NULL: data is ours, from m */
    void *user;
};

static int make(slr_storage **out, slr_mem *m)
{
    slr_storage *s = slr_calloc(m, 1, sizeof *s);

    *out = s;
    if (!s)
        return SDLORA_ENOMEM;
    slr_refs_init(&s->refs);
    s->m = slr_mem_ref(m);
    return SDLORA_OK;
}

int slr_storage_new(slr_storage **out, slr_mem *m, size_t bytes)
{
    slr_storage *s;

    *out = NULL;
    SLR_TRY(make(&s, m));
    s->data = slr_alloc(m, bytes);
    s->bytes = bytes;
    if (!s->data) {
        slr_storage_unref(s);
        return SDLORA_ENOMEM;
    }
    *out = s;
    return SDLORA_OK;
}

static void release_nothing(void *user)
{
    (void)user;
}

int slr_storage_wrap(slr_storage **out, slr_mem *m, const void *data, size_t bytes,
                     void (*release)(void *user), void *user)
{
    slr_storage *s;

    *out = NULL;
    SLR_TRY(make(&s, m));
    s->data = (void *)(uintptr_t)data; /* whether it may be written is the owner's knowledge */
    s->bytes = bytes;
    s->release = release ? release : release_nothing;
    s->user = user;
    *out = s;
    return SDLORA_OK;
}

slr_storage *slr_storage_ref(slr_storage *s)
{
    if (s)
        slr_refs_get(&s->refs);
    return s;
}

void slr_storage_unref(slr_storage *s)
{
    slr_mem *m;

    if (!s || !slr_refs_put(&s->refs))
        return;
    m = s->m;
    if (s->release)
        s->release(s->user);
    else
        slr_free(m, s->data);
    slr_free(m, s);
    slr_mem_unref(m);
}

void *slr_storage_data(slr_storage *s)
{
    return s->data;
}

size_t slr_storage_bytes(const slr_storage *s)
{
    return s->bytes;
}

int slr_storage_is(const slr_storage *s, void (*release)(void *user))
{
    return s && s->release == release;
}
