/* SPDX-License-Identifier: MIT */
/* Pictures on disk as training samples: kohya folders, captions, repeats, buckets.  Knows images
 * and text; refuses to know models (encoding is a callback). */
#ifndef SLR_DATA_DATASET_H
#define SLR_DATA_DATASET_H

#include "base/log.h"
#include "base/options.h"
#include "base/thread.h"

typedef struct slr_dataset slr_dataset;

/* Reads headers and captions of everything below train_data_dir (and reg_data_dir); options: kind
 * "dataset", copied.  Immutable afterwards; atomically refcounted.  Problems (skipped files) go to
 * log and to slr_dataset_notes.  A picture that cannot be used is no failure; no picture at all is
 * ENOTFOUND, a caption that is not UTF-8 EFORMAT. */
int slr_dataset_open(slr_dataset **out, slr_mem *m, slr_log log, const sdlora_options *opts);
slr_dataset *slr_dataset_ref(slr_dataset *d);
void slr_dataset_unref(slr_dataset *d);

typedef struct slr_subset {
    const char *dir;          /* basename: "10_openmoji" */
    const char *class_tokens; /* "openmoji" */
    int64_t repeats, images;
    bool is_reg;
} slr_subset;
const slr_subset *slr_dataset_subset(const slr_dataset *d, size_t i);

typedef struct slr_item {
    const char *path, *caption; /* caption: raw text of the file or the class tokens */
    size_t subset, bucket;
    int32_t width, height; /* of the file (after EXIF orientation when applied) */
    int32_t resized_w, resized_h, crop_left, crop_top;
    int64_t repeats;       /* as counted for this run: reg images are taken in turn */
    uint64_t content_hash; /* of the file's bytes */
    const char *mask;      /* "<stem>-masklabel.png" beside it: white where an inpainting model is
                            * to paint; NULL: there is none */
    uint64_t mask_hash;    /* of that file's bytes; 0: they could not be read */
} slr_item;
size_t slr_dataset_items(const slr_dataset *d);
const slr_item *slr_dataset_item(const slr_dataset *d, size_t i);
/* What is trained on with a picture where nothing is drawn: its caption with prefix, suffix and
 * separators; meaningless with shuffling, wildcards and dropped tags.  Caller frees. */
int slr_dataset_caption(const slr_dataset *d, slr_mem *m, size_t i, char **out);

typedef struct slr_bucket {
    int32_t width, height;
    int64_t count; /* repeats included */
} slr_bucket;
size_t slr_dataset_buckets(const slr_dataset *d);
const slr_bucket *slr_dataset_bucket(const slr_dataset *d, size_t i);

/* What SDXL is told of a sample, in the order that its UNet takes it: height and width of the
 * picture, top and left of the crop, height and width of the bucket.  The crop is kohya's: where
 * the picture would begin if it were shrunk into the bucket with nothing cut off.  That is not the
 * crop that is made, but the number that networks are trained with. */
enum { SLR_SAMPLE_SIZES = 6 };
void slr_sample_sizes(int64_t w, int64_t h, const slr_bucket *b, bool flip,
                      float out[SLR_SAMPLE_SIZES]);

/* Sum over buckets of ceil(count / batch). */
int64_t slr_dataset_batches_per_epoch(const slr_dataset *d);
int64_t slr_dataset_batch_size(const slr_dataset *d);
int64_t slr_dataset_train_images(const slr_dataset *d); /* repeats included, reg images not */
int64_t slr_dataset_reg_images(const slr_dataset *d); /* with the repeats that their folders name */
const sdlora_options *slr_dataset_options(const slr_dataset *d);
/* Of files, captions and settings, wherever they lie: for resuming.  masks: and of the masks that
 * pictures bring. */
uint64_t slr_dataset_fingerprint(const slr_dataset *d, bool masks);
/* {"dir": {"tag": count}} and friends as JSON text for metadata, spelled as Python's json.dumps
 * does.  Caller frees; NULL: out of memory. */
char *slr_dataset_tag_frequency(const slr_dataset *d, slr_mem *m);
char *slr_dataset_dirs_json(const slr_dataset *d, slr_mem *m, bool reg);
char *slr_dataset_bucket_info(const slr_dataset *d, slr_mem *m);
/* Human lines about what was skipped or odd. */
size_t slr_dataset_notes(const slr_dataset *d, const char *const **lines);

#endif
