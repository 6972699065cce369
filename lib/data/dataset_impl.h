/* SPDX-License-Identifier: MIT */
/* Inside the room: what a dataset is made of while it is filled. */
#ifndef SLR_DATA_DATASET_IMPL_H
#define SLR_DATA_DATASET_IMPL_H

#include "base/map.h"
#include "data/bucket.h"
#include "data/dataset.h"
#include "io/file.h"
#include "io/image.h"

/* Entries of one epoch that are planned at most; a folder name like 999999999_x is a mistake. */
#define SLR_MAX_ENTRIES   ((int64_t)1 << 24)

#define SLR_PICTURE_BYTES ((uint64_t)1 << 30) /* of a file */
#define SLR_MASK_ENDING   "-masklabel.png"    /* OneTrainer's, in any case */

/* A shape as one number that sorts by width, then height; sides are below 65536. */
#define SLR_SHAPE_KEY(w, h) ((size_t)(w) << 16 | (size_t)(h))

struct slr_dataset {
    slr_refs refs;
    slr_mem *m;
    slr_arena *arena; /* all texts below */
    slr_log log;
    sdlora_options *opts;
    slr_bucket_rule rule;
    slr_shape *table; /* [n_table], to fit pictures into */
    size_t n_table;
    int64_t batch;
    slr_subset *subset; /* [n_subset] */
    size_t n_subset, cap_subset;
    slr_item *item; /* [n_item], those that are used */
    size_t n_item, cap_item;
    double *ar_error; /* [n_item] while filled; of each picture */
    size_t cap_error;
    slr_bucket *bucket; /* [n_bucket], ascending */
    size_t n_bucket;
    const char **note;
    size_t n_note, cap_note;
    char *tags; /* JSON */
    double mean_error;
    int64_t n_batches, n_train, n_reg;
    int64_t n_uncaptioned, n_text_beside, n_cropped, n_turned; /* told once each */
    int64_t n_stray; /* masks of no picture, told once, and the first of them */
    const char *first_stray;
};

/* Adds a note (and a log line). */
int slr_dataset_note(slr_dataset *d, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Finds the folders below `dir` and reads what is in them. */
int slr_dataset_scan(slr_dataset *d, const char *dir, bool is_reg);
bool slr_is_mask(const char *name); /* by its ending */

/* scan_masks.c: the masks among the names of a folder; the text and the list are borrowed. */
typedef struct slr_folder_masks {
    const char *dir;
    const slr_list *names;
    slr_map *by_stem; /* picture's stem to the number of its mask */
    bool *used;       /* [names] */
} slr_folder_masks;
/* After an error it has to be freed too. */
int slr_folder_masks_open(slr_folder_masks *f, slr_mem *m, const char *dir, const slr_list *names);
void slr_folder_masks_free(slr_folder_masks *f, slr_mem *m);
/* Fills mask and mask_hash where the picture of that name has one. */
int slr_folder_masks_find(slr_folder_masks *f, slr_dataset *d, const char *picture, slr_item *item);
/* Counts those that no picture has. */
int slr_folder_masks_strays(const slr_folder_masks *f, slr_dataset *d);

/* Counts tags into d->tags; all pictures that were found are still there. */
int slr_dataset_count_tags(slr_dataset *d);
/* What is wrong with the end of a picture file, or NULL: it looks whole. */
const char *slr_picture_cut(const uint8_t *bytes, size_t n, const char *format);

#endif
