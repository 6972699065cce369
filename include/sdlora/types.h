/* SPDX-License-Identifier: MIT */
/**
 * @file sdlora/types.h
 * Export macro, status codes, handle names: what every other header needs.
 */
#ifndef SDLORA_TYPES_H
#define SDLORA_TYPES_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
#define SDLORA_BEGIN_DECLS extern "C" {
#define SDLORA_END_DECLS   }
#else
#define SDLORA_BEGIN_DECLS
#define SDLORA_END_DECLS
#endif

#if defined(__GNUC__)
#define SDLORA_API __attribute__((visibility("default")))
#else
#define SDLORA_API
#endif

SDLORA_BEGIN_DECLS

/**
 * What a call came to.  Negative codes say what the caller can do; the text of
 * sdlora_last_error() says what happened, with file, tensor and shape.
 * The numbers are pinned; new ones are only appended.
 */
enum {
    SDLORA_OK = 0,
    SDLORA_DONE = 1,       /**< not an error: a loop has reached its end */
    SDLORA_ERROR = -1,     /**< none of the below fits */
    SDLORA_ENOMEM = -2,    /**< memory, or the context's byte budget, is used up */
    SDLORA_EINVAL = -3,    /**< an argument or option is wrong: fix the call */
    SDLORA_ENOTSUP = -4,   /**< asked for something this build or model cannot do */
    SDLORA_EIO = -5,       /**< the operating system refused a read or write */
    SDLORA_EFORMAT = -6,   /**< a file is broken, or not what it was taken for */
    SDLORA_ENOTFOUND = -7, /**< no such file, tensor, option or network */
    SDLORA_ECANCELED = -8, /**< a cancel or a callback ended the job */
    SDLORA_EBACKEND = -9,  /**< a device or its library failed */
    SDLORA_EVERSION = -10, /**< made for another version of the library */
    SDLORA_ENAN = -11      /**< a loss, gradient or image is not finite */
};

typedef struct sdlora_context sdlora_context;
typedef struct sdlora_options sdlora_options;
typedef struct sdlora_checkpoint sdlora_checkpoint;
typedef struct sdlora_vae sdlora_vae;
typedef struct sdlora_network sdlora_network;
typedef struct sdlora_dataset sdlora_dataset;
typedef struct sdlora_trainer sdlora_trainer;
typedef struct sdlora_generator sdlora_generator;
typedef struct sdlora_grid sdlora_grid;
typedef struct sdlora_image sdlora_image;

/** The last failure on this thread. */
typedef struct sdlora_error {
    int32_t code; /**< SDLORA_E*, or 0 */
    int32_t reserved0;
    const char *message; /**< one sentence, UTF-8; "" after success */
    const char *where;   /**< the internal function that noticed */
} sdlora_error;

/**
 * The failure of this thread's last sdlora call.  Never NULL.
 * Lifetime: until this thread's next sdlora call.
 */
SDLORA_API const sdlora_error *sdlora_last_error(void);

/** "0.1.0": of the library that runs, which may be newer than the headers. */
SDLORA_API const char *sdlora_version(void);

SDLORA_END_DECLS
#endif /* SDLORA_TYPES_H */
