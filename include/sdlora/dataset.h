/* SPDX-License-Identifier: MIT */
/**
 * @file sdlora/dataset.h
 * Tagged pictures on disk: kohya's folders, captions, repeats, aspect buckets.
 *
 * Opening reads image headers and captions only.  A dataset never changes afterwards and may be
 * shared. Return, out and text rules: see sdlora/context.h.
 */
#ifndef SDLORA_DATASET_H
#define SDLORA_DATASET_H

#include <sdlora/types.h>

SDLORA_BEGIN_DECLS

/**
 * @param opts  kind "dataset"; train_data_dir is required.  A folder without `N_name` subfolders
 * that holds pictures is taken as one subset with one repeat. Errors: SDLORA_ENOTFOUND when there
 * is no picture, with what was looked for and what was found.
 */
SDLORA_API int sdlora_dataset_open(sdlora_dataset **out, sdlora_context *ctx,
                                   const sdlora_options *opts);
SDLORA_API sdlora_dataset *sdlora_dataset_ref(sdlora_dataset *data);
SDLORA_API void sdlora_dataset_unref(sdlora_dataset *data);

/** Pictures, and pictures times repeats. */
SDLORA_API size_t sdlora_dataset_images(const sdlora_dataset *data);
SDLORA_API int64_t sdlora_dataset_views(const sdlora_dataset *data);
/** Sum over the buckets of ceil(views / batch size). */
SDLORA_API int64_t sdlora_dataset_batches_per_epoch(const sdlora_dataset *data);

/** One picture and where it goes. */
typedef struct sdlora_dataset_item {
    size_t struct_size;         /**< set by the caller */
    const char *path, *caption; /**< borrowed from the dataset */
    int64_t repeats;
    int32_t width, height; /**< of the file */
    int32_t bucket_width, bucket_height;
    int32_t resized_width, resized_height, crop_left, crop_top;
} sdlora_dataset_item;
SDLORA_API int sdlora_dataset_item_at(const sdlora_dataset *data, size_t i,
                                      sdlora_dataset_item *item);

/** What was skipped or odd, one sentence each; NULL past the last. */
SDLORA_API const char *sdlora_dataset_note(const sdlora_dataset *data, size_t i);

SDLORA_END_DECLS
#endif /* SDLORA_DATASET_H */
