/* SPDX-License-Identifier: MIT */
/* Runs the autoencoder on images: one at a time, over graphs planned once per size.  Knows the
 * latent scale and that every number that comes out must be finite; refuses to know pixels as bytes
 * and how tiles are put together. */
#include <math.h>
#include <string.h>

#include "base/status.h"
#include "graph/exec.h"
#include "models/vae.h"
#include "models/vae_tiles.h"

/* A training set's buckets, a generator's few sizes, or all tiles of a picture: inner ones and the
 * last two each way. */
#define N_PLANS 9

enum { ENCODE, DECODE };

static const slr_policy F32 = {SDLORA_F32, SDLORA_MATH_STRICT};

typedef struct planned {
    slr_plan *plan; /* NULL: free */
    int half;       /* ENCODE or DECODE */
    int64_t h, w;   /* of the input */
    slr_val x, y;
    uint64_t used; /* the run that used it last */
} planned;

struct slr_vae_runner {
    slr_mem *m;
    slr_weights *vae;
    const slr_family *family;
    slr_devices *devices;
    slr_policy policy, wanted; /* wanted: before f32 had to take over */
    int factor;                /* log2 */
    int64_t colours, z;        /* channels of images and of latents */
    int64_t tile;              /* side in latents; 0: no tiles */
    planned cache[N_PLANS];
    uint64_t runs;
};

static int channels(slr_vae_runner *r)
{
    const slr_tensor *t;
    r->colours = 3;
    r->z = 4;
    if ((t = slr_weights_find(r->vae, "decoder.conv_out.weight")) && t->rank == 4)
        r->colours = t->dim[0];
    if ((t = slr_weights_find(r->vae, "encoder.conv_in.weight")) && t->rank == 4)
        r->colours = t->dim[1];
    if ((t = slr_weights_find(r->vae, "encoder.conv_out.weight")) && t->rank == 4)
        r->z = t->dim[0] / 2;
    if ((t = slr_weights_find(r->vae, "decoder.conv_in.weight")) && t->rank == 4)
        r->z = t->dim[1];
    if (r->colours == 3 && r->z >= 1)
        return SDLORA_OK;
    return slr_fail(SDLORA_ENOTSUP, __func__,
                    "%s: an autoencoder of %lld colours and %lld latent channels",
                    slr_weights_label(r->vae), (long long)r->colours, (long long)r->z);
}

int slr_vae_runner_new(slr_vae_runner **out, slr_weights *vae, const slr_family *family,
                       slr_devices *devices)
{
    slr_mem *m = slr_devices_mem(devices);
    *out = NULL;
    slr_require(vae != NULL && family != NULL);
    slr_vae_runner *r = slr_calloc(m, 1, sizeof *r);
    if (!r)
        return SDLORA_ENOMEM;
    r->m = slr_mem_ref(m);
    r->vae = slr_weights_ref(vae);
    r->family = family;
    r->devices = slr_devices_ref(devices);
    r->policy = r->wanted = F32;
    int rc = slr_vae_factor(vae, &r->factor);
    if (rc == SDLORA_OK)
        rc = channels(r);
    if (rc < 0) {
        slr_vae_runner_free(r);
        return rc;
    }
    *out = r;
    return SDLORA_OK;
}

static void drop_plans(slr_vae_runner *r)
{
    for (int i = 0; i < N_PLANS; i++) {
        slr_plan_free(r->cache[i].plan);
        r->cache[i] = (planned){0};
    }
}

void slr_vae_runner_free(slr_vae_runner *r)
{
    if (!r)
        return;
    slr_mem *m = r->m;
    drop_plans(r);
    slr_weights_unref(r->vae);
    slr_devices_unref(r->devices);
    slr_free(m, r);
    slr_mem_unref(m);
}

void slr_vae_runner_set_policy(slr_vae_runner *r, slr_policy policy)
{
    if (r->wanted.storage == policy.storage && r->wanted.math == policy.math)
        return;
    drop_plans(r);
    r->policy = r->wanted = policy;
}

int64_t slr_vae_runner_tile(const slr_vae_runner *r)
{
    int64_t side = (int64_t)r->family->native_size >> r->factor;
    return side > 4 ? side - side % 4 : 4;
}

int slr_vae_runner_set_tiling(slr_vae_runner *r, int64_t tile)
{
    if (tile < 0 || tile % 4 || tile > SLR_VAE_TILE_LIMIT)
        return slr_fail(SDLORA_EINVAL, __func__,
                        "tiles of %lld latents: the side must be a multiple of 4, at most %d",
                        (long long)tile, SLR_VAE_TILE_LIMIT);
    if (r->tile != tile)
        drop_plans(r); /* the memory of another size */
    r->tile = tile;
    return SDLORA_OK;
}

/* All plans work in one memory, as big as the biggest needs. */
static int share_memory(slr_vae_runner *r, planned *p)
{
    for (int i = 0; i < N_PLANS; i++)
        if (&r->cache[i] != p && r->cache[i].plan)
            return slr_plan_share(p->plan, r->cache[i].plan);
    return SDLORA_OK;
}

static int make_plan(slr_vae_runner *r, planned *p, const slr_cancel_flag *cancel)
{
    slr_graph *g;
    SLR_TRY(slr_graph_new(&g, r->m, r->policy));
    slr_nn nn = {.g = g, .w = r->vae, .part = SLR_PART_VAE};
    const int64_t dim[4] = {1, p->h, p->w, p->half == ENCODE ? r->colours : r->z};
    slr_val x = slr_input(g, "x", SDLORA_F32, 4, dim);
    slr_val y = p->half == ENCODE ? slr_vae_encode_build(&nn, x) : slr_vae_decode_build(&nn, x);
    slr_output(g, y, "y");
    int rc = slr_graph_status(g);
    if (rc == SDLORA_OK)
        rc = slr_plan_new_until(&p->plan, g, r->devices, cancel);
    if (rc == SDLORA_OK)
        rc = share_memory(r, p);
    if (rc == SDLORA_OK)
        rc = slr_plan_find(p->plan, "x", &p->x);
    if (rc == SDLORA_OK)
        rc = slr_plan_find(p->plan, "y", &p->y);
    slr_graph_free(g);
    return rc;
}

/* The plan for a size, made in the place of the one unused longest if need be. */
static int plan_for(slr_vae_runner *r, int half, int64_t h, int64_t w,
                    const slr_cancel_flag *cancel, planned **out)
{
    planned *oldest = &r->cache[0];
    for (int i = 0; i < N_PLANS; i++) {
        planned *p = &r->cache[i];
        if (p->plan && p->half == half && p->h == h && p->w == w) {
            p->used = ++r->runs;
            *out = p;
            return SDLORA_OK;
        }
        if (p->used < oldest->used)
            oldest = p;
    }
    slr_plan_free(oldest->plan);
    *oldest = (planned){.half = half, .h = h, .w = w};
    int rc = make_plan(r, oldest, cancel);
    if (rc < 0) {
        slr_plan_free(oldest->plan);
        *oldest = (planned){0};
        return rc;
    }
    oldest->used = ++r->runs;
    *out = oldest;
    return SDLORA_OK;
}

static int all_finite(const slr_vae_runner *r, const float *x, size_t n, const char *what)
{
    for (size_t i = 0; i < n; i++)
        if (!isfinite(x[i]))
            return slr_fail(SDLORA_ENAN, __func__,
                            "%s: the autoencoder's %s is not finite (element %zu of %zu)",
                            slr_weights_label(r->vae), what, i, n);
    return SDLORA_OK;
}

/* Runs one half on one picture; *y: the result.  Lifetime: until the next run. */
static int run(slr_vae_runner *r, int half, int64_t h, int64_t w, const float *x, size_t in,
               size_t out, const slr_cancel_flag *cancel, const float **y)
{
    planned *p;
    SLR_TRY(plan_for(r, half, h, w, cancel, &p));
    SLR_TRY(slr_plan_back(p->plan));
    memcpy(slr_plan_data(p->plan, p->x), x, in * sizeof *x);
    SLR_TRY(slr_plan_run(p->plan, cancel));
    *y = slr_plan_data(p->plan, p->y);
    int rc = all_finite(r, *y, out, half == ENCODE ? "encoding" : "picture");
    if (rc != SDLORA_ENAN || r->policy.storage != SDLORA_BF16)
        return rc;
    slr_clear();
    drop_plans(r); /* from now on in f32 */
    r->policy = F32;
    return run(r, half, h, w, x, in, out, cancel, y);
}

typedef struct tile_job {
    slr_vae_runner *r;
    const slr_cancel_flag *cancel;
    int half;
    int64_t c_in, c_out;
} tile_job;

static int run_tile(void *user, int64_t h, int64_t w, const float *x, const float **y)
{
    const tile_job *j = user;
    slr_vae_runner *r = j->r;
    int64_t pixels = j->half == ENCODE ? (h >> r->factor) * (w >> r->factor)
                                       : (h << r->factor) * (w << r->factor);
    return run(r, j->half, h, w, x, (size_t)(h * w * j->c_in), (size_t)(pixels * j->c_out),
               j->cancel, y);
}

/* The same for a picture that may be larger than a tile, into the caller's memory. */
static int run_tiled(slr_vae_runner *r, int half, int64_t h, int64_t w, const float *x,
                     const slr_cancel_flag *cancel, float *y)
{
    int64_t scale = (int64_t)1 << r->factor, up = half == ENCODE ? 1 : scale,
            down = half == ENCODE ? scale : 1;
    tile_job job = {r, cancel, half, half == ENCODE ? r->colours : r->z,
                    half == ENCODE ? 2 * r->z : r->colours};
    const slr_tiles tiles = {.m = r->m,
                             .h = h,
                             .w = w,
                             .c_in = job.c_in,
                             .c_out = job.c_out,
                             .tile = r->tile * down,
                             .up = up,
                             .down = down,
                             .fn = run_tile,
                             .user = &job};
    const float *made;
    if (r->tile && (h > tiles.tile || w > tiles.tile))
        return slr_tiles_run(&tiles, x, y);
    SLR_TRY(run_tile(&job, h, w, x, &made));
    memcpy(y, made, (size_t)(h * up / down * (w * up / down) * job.c_out) * sizeof *y);
    return SDLORA_OK;
}

/* moments [h,w,2z] -> latents [h,w,z] */
static void latents_of(const slr_vae_runner *r, const float *moments, int64_t pixels,
                       const float *noise, float *latents)
{
    float scale = (float)r->family->vae_scale;
    for (int64_t i = 0; i < pixels; i++)
        for (int64_t c = 0; c < r->z; c++) {
            float x = moments[i * 2 * r->z + c];
            if (noise) {
                float logvar = moments[i * 2 * r->z + r->z + c];
                x += expf(0.5f * fminf(fmaxf(logvar, -30.0f), 20.0f)) * noise[i * r->z + c];
            }
            latents[i * r->z + c] = x * scale;
        }
}

int slr_vae_encode(slr_vae_runner *r, const float *image, int64_t n, int64_t h, int64_t w,
                   const float *noise, float *latents, const slr_cancel_flag *cancel)
{
    int64_t step = (int64_t)1 << r->factor;
    if (n < 0 || h < step || w < step || h % step || w % step)
        return slr_fail(SDLORA_EINVAL, __func__,
                        "an image of %lldx%lld cannot be encoded: sides must be multiples of %lld",
                        (long long)w, (long long)h, (long long)step);
    int64_t pixels = (h >> r->factor) * (w >> r->factor);
    size_t in = (size_t)(h * w * r->colours), out = (size_t)(pixels * r->z);
    float *moments = slr_alloc(r->m, 2 * out * sizeof *moments);
    int rc = moments ? SDLORA_OK : SDLORA_ENOMEM;
    for (int64_t i = 0; rc >= 0 && i < n; i++) {
        rc = run_tiled(r, ENCODE, h, w, image + (size_t)i * in, cancel, moments);
        if (rc >= 0)
            latents_of(r, moments, pixels, noise ? noise + (size_t)i * out : NULL,
                       latents + (size_t)i * out);
    }
    slr_free(r->m, moments);
    return rc;
}

int slr_vae_decode(slr_vae_runner *r, const float *latents, int64_t n, int64_t h, int64_t w,
                   float *image, const slr_cancel_flag *cancel)
{
    if (n < 0 || h < 1 || w < 1)
        return slr_fail(SDLORA_EINVAL, __func__, "latents of %lldx%lld cannot be decoded",
                        (long long)w, (long long)h);
    size_t in = (size_t)(h * w * r->z),
           out = (size_t)((h << r->factor) * (w << r->factor) * r->colours);
    float scale = (float)r->family->vae_scale;
    float *x = slr_alloc(r->m, in * sizeof *x);
    int rc = x ? SDLORA_OK : SDLORA_ENOMEM;
    for (int64_t i = 0; rc >= 0 && i < n; i++) {
        for (size_t k = 0; k < in; k++)
            x[k] = latents[(size_t)i * in + k] / scale;
        rc = run_tiled(r, DECODE, h, w, x, cancel, image + (size_t)i * out);
    }
    slr_free(r->m, x);
    return rc;
}
