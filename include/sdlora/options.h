/* SPDX-License-Identifier: MIT */
/**
 * @file sdlora/options.h
 * Sets of named values: how every job is configured.
 *
 * An option is one row: kind, name, type, range, default, help.  The names are those of kohya's
 * train_network.py where it has one.  The rows can be listed, so that a front-end can draw a form:
 *
 *     sdlora_options *o;
 *     sdlora_options_new(&o, "train");
 *     sdlora_options_set_real(o, "unet_lr", 1e-4);
 *     sdlora_options_set_text(o, "lr_scheduler", "cosine");
 *
 * Kinds: "context", "checkpoint", "network", "dataset", "train", "generate", "eval",
 * "convert", "prune", "bench", "resize", "merge", "extract".
 * Thread: one thread at a time per set; a set that is only read may be shared.
 */
#ifndef SDLORA_OPTIONS_H
#define SDLORA_OPTIONS_H

#include <sdlora/types.h>

SDLORA_BEGIN_DECLS

enum {
    SDLORA_OPTION_INT = 1,
    SDLORA_OPTION_REAL = 2,
    SDLORA_OPTION_TEXT = 3,
    SDLORA_OPTION_BOOL = 4, /**< as text: "true" or "false" */
    SDLORA_OPTION_LIST = 5  /**< as text: one item per line */
};

/** One row of the option table. */
typedef struct sdlora_option_info {
    size_t struct_size; /**< set by the caller */
    const char *kind;
    const char *name;
    const char *help;         /**< one line */
    const char *choices;      /**< "a|b|c", or NULL */
    const char *default_text; /**< NULL: none */
    double min, max;          /**< of numbers, inclusive */
    int32_t type;             /**< SDLORA_OPTION_* */
    int32_t reserved0;
} sdlora_option_info;

/** Errors: SDLORA_ENOTFOUND for an unknown kind. */
SDLORA_API int sdlora_options_new(sdlora_options **out, const char *kind);
SDLORA_API sdlora_options *sdlora_options_ref(sdlora_options *o);
SDLORA_API void sdlora_options_unref(sdlora_options *o);
SDLORA_API const char *sdlora_options_kind(const sdlora_options *o);

/**
 * Sets one value.  set_text parses for options of any type ("1e-4", "true", "8").
 * Errors: SDLORA_ENOTFOUND names the nearest option; SDLORA_EINVAL names the range or the choices.
 */
SDLORA_API int sdlora_options_set_int(sdlora_options *o, const char *name, int64_t value);
SDLORA_API int sdlora_options_set_real(sdlora_options *o, const char *name, double value);
SDLORA_API int sdlora_options_set_text(sdlora_options *o, const char *name, const char *value);

/**
 * Reads one value, or its default.
 * @return SDLORA_DONE when the option has neither value nor default (*value is then 0 or NULL).
 * Lifetime: text is valid until the option is set again.
 */
SDLORA_API int sdlora_options_get_int(const sdlora_options *o, const char *name, int64_t *value);
SDLORA_API int sdlora_options_get_real(const sdlora_options *o, const char *name, double *value);
SDLORA_API int sdlora_options_get_text(const sdlora_options *o, const char *name,
                                       const char **value);

/**
 * Sets every option of this kind ("train", "network" or "dataset") that a network file's metadata
 * tell of, as kohya's and LyCORIS' trainers write them.  What is set already stays.
 * @param notes  Nullable: receives a line for each setting that cannot be taken over and, with
 *               "train", for each unknown ss_ key; to be given back with sdlora_text_free().
 * Errors: SDLORA_ENOTFOUND when the file does not tell how it was trained.
 */
SDLORA_API int sdlora_options_from_metadata(sdlora_options *o, sdlora_context *ctx,
                                            const char *path, char **notes);

/**
 * Sets every option of kind "generate" that a picture's generation parameters tell of, in the words
 * of AUTOMATIC1111 and its relatives, old versions included.  What is set already stays.  Fields
 * that are not known here go to the option infotext_extra, so that the next picture has them too.
 * Where styles_file is set and neither text is, styles of those files that are in both texts become
 * the option styles.
 * Model, VAE, networks and embeddings are the caller's: sdlora_generator_match() compares them.
 * @param notes  Nullable: receives a line for each field that cannot be followed; to be given back
 *               with sdlora_text_free().
 */
SDLORA_API int sdlora_options_from_infotext(sdlora_options *o, sdlora_context *ctx,
                                            const char *text, char **notes);

/** The i-th row of a kind (NULL: of all kinds).  Errors: SDLORA_ENOTFOUND past the last. */
SDLORA_API int sdlora_option_at(const char *kind, size_t i, sdlora_option_info *info);

SDLORA_END_DECLS
#endif /* SDLORA_OPTIONS_H */
