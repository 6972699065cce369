/* SPDX-License-Identifier: MIT */
/* One thread that reads, decodes and resizes pictures into a short ring.  The order of pictures and
 * every byte are those of a loop without a thread, which also stands in when none can be started.
 * Refuses to know what becomes of the pictures. */
#include "data/ahead.h"

#include <pthread.h>

#include "base/status.h"

#define SLOTS 3 /* decoded pictures that may wait */

typedef struct slot {
    slr_pixels pixels;
    int rc;
    slr_error_copy error;
} slot;

struct slr_ahead {
    slr_mem *m;
    const slr_picture_rule *rule;
    const slr_dataset *d;
    const size_t *items;
    size_t n, taken;
    bool threaded, failed;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    size_t made; /* below: under the lock */
    bool stop;
    slot slot[SLOTS]; /* of picture i: i % SLOTS */
};

static void make(slr_ahead *a, size_t i, slot *s)
{
    s->rc = slr_picture_read(a->rule, a->m, slr_dataset_item(a->d, a->items[i]), &s->pixels);
    if (s->rc < 0)
        slr_error_take(&s->error);
}

static void *work(void *arg)
{
    slr_ahead *a = arg;
    for (size_t i = 0; i < a->n; i++) {
        pthread_mutex_lock(&a->lock);
        while (!a->stop && i - a->taken >= SLOTS)
            pthread_cond_wait(&a->changed, &a->lock);
        bool stop = a->stop;
        pthread_mutex_unlock(&a->lock);
        if (stop)
            break;
        slot *s = &a->slot[i % SLOTS]; /* nobody looks at it before `made` says so */
        make(a, i, s);
        stop = s->rc < 0;
        pthread_mutex_lock(&a->lock);
        a->made = i + 1;
        pthread_cond_signal(&a->changed);
        pthread_mutex_unlock(&a->lock);
        if (stop)
            break;
    }
    return NULL;
}

int slr_ahead_new(slr_ahead **out, slr_mem *m, const slr_picture_rule *rule, const slr_dataset *d,
                  const size_t *items, size_t n)
{
    slr_ahead *a = slr_calloc(m, 1, sizeof *a);
    *out = a;
    if (!a)
        return SDLORA_ENOMEM;
    a->m = m;
    a->rule = rule;
    a->d = d;
    a->items = items;
    a->n = n;
    pthread_mutex_init(&a->lock, NULL);
    pthread_cond_init(&a->changed, NULL);
    a->threaded = n > 1 && pthread_create(&a->thread, NULL, work, a) == 0;
    return SDLORA_OK;
}

int slr_ahead_next(slr_ahead *a, slr_pixels *out)
{
    slot *s = &a->slot[a->taken % SLOTS];
    *out = (slr_pixels){0};
    slr_require(a->taken < a->n && !a->failed);
    if (!a->threaded)
        make(a, a->taken, s);
    pthread_mutex_lock(&a->lock);
    while (a->threaded && a->made <= a->taken)
        pthread_cond_wait(&a->changed, &a->lock);
    pthread_mutex_unlock(&a->lock);
    if (s->rc < 0) {
        a->failed = true;
        return slr_error_put(&s->error);
    }
    *out = s->pixels;
    s->pixels = (slr_pixels){0};
    pthread_mutex_lock(&a->lock);
    a->taken++;
    pthread_cond_signal(&a->changed);
    pthread_mutex_unlock(&a->lock);
    return SDLORA_OK;
}

void slr_ahead_free(slr_ahead *a)
{
    if (!a)
        return;
    pthread_mutex_lock(&a->lock);
    a->stop = true;
    pthread_cond_signal(&a->changed);
    pthread_mutex_unlock(&a->lock);
    if (a->threaded)
        pthread_join(a->thread, NULL);
    for (int i = 0; i < SLOTS; i++)
        slr_free(a->m, a->slot[i].pixels.data);
    pthread_cond_destroy(&a->changed);
    pthread_mutex_destroy(&a->lock);
    slr_free(a->m, a);
}
