/* SPDX-License-Identifier: MIT */
/* Latents and states on disk, one safetensors file per picture and setting.  Its name carries a
 * hash of the settings, so that runs with different ones do not disturb each other; inside stand
 * the whole key with the picture's content hash, and a digest of the numbers.  What does not fit is
 * not used: times and names of files prove nothing.  Refuses to know how latents are made. */
#include "data/cache.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/map.h"
#include "base/status.h"
#include "io/file.h"
#include "io/hash.h"
#include "io/safetensors.h"

#define FORMAT 1 /* to be raised whenever old files must not be used */

static uint64_t settings_hash(const slr_item *item, const slr_cache_key *key)
{
    const int64_t number[] = {FORMAT,          item->width,     item->height,   item->resized_w,
                              item->resized_h, item->crop_left, item->crop_top, key->h,
                              key->w,          key->c,          key->variants};
    uint64_t h = slr_hash64(key->encoder_id, strlen(key->encoder_id), key->settings);
    return slr_hash64(number, sizeof number, h);
}

typedef struct names {
    char *path;
    char key[40];    /* picture and settings */
    char digest[65]; /* of the numbers; empty before they are known */
} names;

static int name_it(slr_mem *m, const slr_item *item, const slr_cache_key *key, names *out)
{
    uint64_t settings = settings_hash(item, key);
    size_t n = strlen(item->path) + 64;
    out->path = slr_alloc(m, n);
    if (!out->path)
        return SDLORA_ENOMEM;
    snprintf(out->path, n, "%s.%s-%016" PRIx64 ".safetensors", item->path, key->what, settings);
    snprintf(out->key, sizeof out->key, "%016" PRIx64 "-%016" PRIx64, item->content_hash, settings);
    out->digest[0] = '\0';
    return SDLORA_OK;
}

static size_t value_count(const slr_cache_key *key)
{
    return (size_t)(key->variants * key->h * key->w * key->c);
}

static bool shape_fits(const slr_tensor *t, const slr_cache_key *key)
{
    return t->dtype == SDLORA_F32 && t->rank == 4 && t->dim[0] == key->variants &&
           t->dim[1] == key->h && t->dim[2] == key->w && t->dim[3] == key->c;
}

static int check(const slr_safetensors *f, const slr_cache_key *key, names *name, float *latents)
{
    const char *has = slr_safetensors_meta(f, "sdlora.key");
    const char *digest = slr_safetensors_meta(f, "sdlora.digest");
    slr_tensor t;
    if (!has || !digest || strcmp(has, name->key) != 0)
        return slr_fail(SDLORA_EFORMAT, __func__, "%s was made from another picture", name->path);
    if (!slr_safetensors_find(f, key->what, &t) || !shape_fits(&t, key))
        return slr_fail(SDLORA_EFORMAT, __func__, "%s does not hold the %s wanted", name->path,
                        key->what);
    /* copied first, checked then: another process cannot come between */
    memcpy(latents, t.data, value_count(key) * sizeof *latents);
    SLR_TRY(slr_hash_bytes(latents, value_count(key) * sizeof *latents, name->digest));
    if (strcmp(digest, name->digest) != 0)
        return slr_fail(SDLORA_EFORMAT, __func__, "%s is damaged", name->path);
    return SDLORA_OK;
}

int slr_cache_load(slr_mem *m, const slr_item *item, const slr_cache_key *key, float *latents)
{
    slr_safetensors *f = NULL;
    slr_error_copy why;
    void *bytes = NULL;
    size_t n, limit = value_count(key) * sizeof *latents + 65536;
    names name;
    SLR_TRY(name_it(m, item, key, &name));
    /* a copy, since a mapped file that someone cuts short would end the process */
    int rc = slr_file_read(m, name.path, limit, &bytes, &n);
    if (rc == 0)
        rc = slr_safetensors_parse(&f, m, bytes, n, name.path);
    if (rc == 0)
        rc = check(f, key, &name, latents);
    slr_safetensors_close(f);
    slr_free(m, bytes);
    slr_free(m, name.path);
    if (rc == 0 || rc == SDLORA_ENOMEM)
        return rc;
    if (rc == SDLORA_ENOTFOUND) {
        slr_clear();
        return SDLORA_DONE;
    }
    slr_error_take(&why);
    return slr_fail(SDLORA_EFORMAT, __func__, "%s", why.text);
}

int slr_cache_save(slr_mem *m, const slr_item *item, const slr_cache_key *key, const float *latents)
{
    names name;
    SLR_TRY(name_it(m, item, key, &name));
    int rc = slr_hash_bytes(latents, value_count(key) * sizeof *latents, name.digest);
    if (rc == 0) {
        const slr_st_entry e = {.name = key->what,
                                .t = {.dtype = SDLORA_F32,
                                      .rank = 4,
                                      .dim = {key->variants, key->h, key->w, key->c},
                                      .data = latents}};
        const slr_st_pair meta[] = {{"sdlora.digest", name.digest}, {"sdlora.key", name.key}};
        rc = slr_safetensors_write(m, name.path, &e, 1, meta, sizeof meta / sizeof *meta);
    }
    slr_free(m, name.path);
    return rc;
}
