/* SPDX-License-Identifier: MIT */
/* Inside the room: what the public handles hold.  Each is a count of references, the handle that it
 * was made from, and the object of a lower room; dropping the last reference drops the parent. */
#ifndef SLR_API_API_H
#define SLR_API_API_H

#include <pthread.h>

#include <sdlora/sdlora.h>

#include "backend/registry.h"
#include "base/log.h"
#include "base/options.h"
#include "base/thread.h"
#include "data/dataset.h"
#include "io/file.h"
#include "io/image.h"
#include "models/bpe.h"
#include "models/checkpoint.h"
#include "networks/network.h"

struct sdlora_context {
    slr_refs refs;
    slr_mem *mem;
    slr_log user; /* where the caller wants lines */
    slr_log log;  /* what is handed down: passes lines on to `user`, whenever that is set */
    slr_devices *devices;
    pthread_mutex_t lock; /* guards what follows */
    slr_bpe *bpe;         /* made when first asked for */
    sdlora_checkpoint *shelf;
};

/* sdlora_file_convert of a network: options of kind "convert" with a dialect. */
int slr_api_convert_network(char **json, sdlora_context *ctx, const char *in, const char *out,
                            slr_opt o);

/* What makes two openings of a file the same checkpoint. */
typedef struct slr_shelf_key {
    slr_file_id file;
    bool use_ema;
    int predict; /* as asked for; -1: detected */
    int ztsnr;
} slr_shelf_key;

struct sdlora_checkpoint {
    slr_refs refs;
    sdlora_context *ctx;
    slr_checkpoint *base;
    bool hollow; /* it has shapes and no values */
    slr_shelf_key key;
    sdlora_checkpoint *next; /* on the context's shelf */
};

struct sdlora_vae {
    slr_refs refs;
    sdlora_context *ctx;
    slr_weights *weights;
    char *path;
};

struct sdlora_network {
    slr_refs refs;
    sdlora_checkpoint *ckpt;
    bool merged; /* base_weights: ckpt is made of the caller's, and what this is trained on */
    slr_network *net;
};

struct sdlora_dataset {
    slr_refs refs;
    sdlora_context *ctx;
    slr_dataset *data;
};

struct sdlora_image {
    slr_refs refs;
    sdlora_context *ctx;
    slr_pixels pixels;     /* 3 channels */
    char *text;            /* NULL: none */
    slr_image_texts texts; /* further ones of the file */
    uint8_t *alpha;        /* [h,w]; NULL: opaque */
    int orientation;       /* EXIF's, 1 to 8; 0 or 1: upright */
};

/* --- argument checks: each returns SDLORA_OK or EINVAL with a sentence --- */

/* where: __func__ of the public entry. */
int slr_api_given(const void *arg, const char *name, const char *where);
/* NULL options pass. */
int slr_api_kind(const sdlora_options *o, const char *kind, const char *where);

/* Copies a result struct by the size that its owner set in the first member: a shorter one gets the
 * front, a longer one zeros behind it. */
int slr_api_fill(void *dst, const void *src, size_t size, const char *where);

/* --- progress of jobs that have no handle --- */

typedef struct slr_api_watch {
    sdlora_progress_fn fn; /* Nullable */
    void *user;
    double start, phase_start; /* clock; 0: not running yet */
    const char *phase;         /* static text */
} slr_api_watch;

/* Fills the public struct with what is known and calls fn; non-zero cancels.  `watch` is an
 * slr_api_watch: the shape of slr_phase_fn. */
int slr_api_tell(void *watch, const char *phase, int64_t done, int64_t total);

/* --- checkpoints that are open (shelf.c) --- */

/* A reference to the weights of an open handle with this key and path, however that is spelled;
 * NULL: there is none. */
slr_checkpoint *slr_shelf_find(sdlora_context *ctx, const slr_shelf_key *key, const char *path);
/* From now on others may find it; undone by slr_shelf_take before the handle goes. */
void slr_shelf_put(sdlora_checkpoint *c, const slr_shelf_key *key);
void slr_shelf_take(sdlora_checkpoint *c); /* does nothing when it is not there */

/* --- shared parts --- */

int slr_api_bpe(sdlora_context *ctx, slr_bpe **out); /* borrowed from the context */
/* Takes over pixels.data and text (of the context's memory), also on failure. */
int slr_api_image(sdlora_image **out, sdlora_context *ctx, slr_pixels pixels, char *text);
/* A checkpoint handle likewise; takes over `base`, also on failure. */
int slr_api_checkpoint(sdlora_checkpoint **out, sdlora_context *ctx, slr_checkpoint *base);
/* A network handle around an object of the room below; takes over `net`, also on failure. */
int slr_api_network(sdlora_network **out, sdlora_checkpoint *ckpt, slr_network *net);
/* EINVAL unless the network was made for this checkpoint's family. */
int slr_api_fits(const sdlora_network *net, const sdlora_checkpoint *ckpt, const char *where);
/* n networks with their strengths; checks each.  The caller frees *items. */
int slr_api_items(slr_stack_item **items, const sdlora_checkpoint *ckpt,
                  sdlora_network *const *nets, const double *te, const double *unet, size_t n,
                  const char *where);

#endif
