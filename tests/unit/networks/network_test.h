/* SPDX-License-Identifier: MIT */
/* What the tests of networks share: the small checkpoint, options by text, temporary files,
 * networks with weights everywhere, and one pass of the UNet. */
#ifndef NETWORK_TEST_H
#define NETWORK_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>

#include "backend/registry.h"
#include "base/cpu.h"
#include "golden_test.h"
#include "graph/exec.h"
#include "io/file.h"
#include "io/hash.h"
#include "models/checkpoint.h"
#include "models/unet.h"
#include "networks/netfile.h"
#include "networks/target.h"

#define TINYSD TEST_ROOT "/../examples/data/tinysd/tinysd.safetensors"

static const slr_checkpoint_config CONFIG = {.predict = -1};

static inline void ok(int rc)
{
    if (rc < 0)
        fail_msg("%s (%s)", sdlora_last_error()->message, sdlora_last_error()->where);
}

static inline void says(const char *word)
{
    if (!strstr(sdlora_last_error()->message, word))
        fail_msg("'%s' does not say '%s'", sdlora_last_error()->message, word);
}

/* "name", "value", ..., NULL */
static inline sdlora_options *options(const char *const *pairs)
{
    sdlora_options *o;
    ok(slr_options_new(&o, NULL, "network"));
    for (; pairs && *pairs; pairs += 2)
        ok(slr_options_set_text(o, pairs[0], pairs[1]));
    return o;
}

static inline int make_rc(slr_network **out, const slr_checkpoint *base, const char *const *pairs,
                          uint64_t seed)
{
    sdlora_options *o = options(pairs);
    int rc = slr_network_make(out, base, o, seed);
    slr_options_unref(o);
    return rc;
}

/* A new network whose every weight has a value, so that `up` counts too. */
static inline slr_network *make(const slr_checkpoint *base, const char *const *pairs, uint64_t seed,
                                double size)
{
    slr_network *n;
    slr_rng r;
    ok(make_rc(&n, base, pairs, seed));
    slr_rng_init(&r, seed, SLR_STREAM_INIT, 1u << 30);
    for (size_t i = 0; i < slr_network_slots(n); i++) {
        const slr_network_slot *s = slr_network_slot_at(n, i);
        slr_rng_normal(&r, slr_network_params(n) + s->offset, s->count);
        for (size_t k = 0; k < s->count; k++)
            slr_network_params(n)[s->offset + k] *= (float)size;
    }
    return n;
}

/* The layer of that name in kohya's spelling, whose first n bytes count; NULL: none. */
static inline const slr_target *target_named(const slr_targets *t, const char *name, size_t n)
{
    for (size_t i = 0; i < slr_targets_count(t); i++)
        if (strlen(slr_targets_at(t, i)->name) == n && !memcmp(slr_targets_at(t, i)->name, name, n))
            return slr_targets_at(t, i);
    return NULL;
}

static inline const char *temp_file(char path[64])
{
    strcpy(path, "/tmp/sdlora-test-XXXXXX.safetensors");
    close(mkstemps(path, 12));
    return path;
}

/* SHA-256 over every byte of every part. */
static inline void base_hash(const slr_checkpoint *c, char hex[65])
{
    slr_sha256 *sha;
    ok(slr_sha256_new(&sha, NULL));
    for (int p = 0; p < SLR_PART_COUNT; p++) {
        slr_weights *w = slr_checkpoint_part(c, p);
        for (size_t i = 0; w && i < slr_weights_count(w); i++) {
            const slr_tensor *t;
            slr_weights_at(w, i, &t);
            ok(slr_sha256_add(sha, t->data, slr_tensor_bytes(t)));
        }
    }
    ok(slr_sha256_hex(&sha, hex));
}

/* The same weights in f32. */
static inline slr_weights *widened(slr_weights *w)
{
    slr_weights *out;
    ok(slr_weights_new(&out, NULL, "f32"));
    for (size_t i = 0; i < slr_weights_count(w); i++) {
        const slr_tensor *t;
        slr_storage *storage;
        const char *name = slr_weights_at(w, i, &t);
        slr_tensor wide = *t;
        ok(slr_storage_new(&storage, NULL, (size_t)slr_tensor_count(t) * sizeof(float)));
        ok(slr_tensor_to_f32(t, slr_storage_data(storage)));
        wide.dtype = SDLORA_F32;
        wide.data = slr_storage_data(storage);
        wide.storage = storage;
        wide.id = 0;
        ok(slr_weights_put(out, name, &wide));
        slr_storage_unref(storage);
    }
    return out;
}

#endif
