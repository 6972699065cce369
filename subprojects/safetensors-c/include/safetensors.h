/* SPDX-License-Identifier: MIT */
/**
 * @file safetensors.h
 * Reads and writes the headers of .safetensors files, strictly and without trust in the file.
 *
 * One header, libc only.  Put this in exactly one .c file:
 *
 *     #define SAFETENSORS_IMPLEMENTATION
 *     #include <safetensors.h>
 *
 * or define SAFETENSORS_STATIC before each include to get private copies (static functions).
 * SAFETENSORS_NO_MMAP leaves out st_open() and st_close(), the only part that calls the OS.
 *
 * The file:  u64 little-endian N | N bytes of JSON | tensor bytes up to the end of the file.
 *
 * Unless a comment below says otherwise:
 *  - Return: ST_OK (0), or a negative ST_E* code; `err`, if given, then holds the same code and
 *    one line of text that names the tensor.  Names in it are printable ASCII: every other byte
 *    is shown as \xNN, and quotes and escapes stand as they do in the file;
 *  - Errors: a failure leaves the output zeroed, and nothing has to be freed;
 *  - Nullable: `limits`, `alloc` and `err` may be NULL: defaults, malloc, no text;
 *  - Lifetime: what a getter or a field points at lives until the owner is freed;
 *  - Thread: no global state.  A parsed document is immutable, so any number of threads may
 *    read it at once;
 *  - Strings: UTF-8, NUL-terminated, without inner NUL.  They come from the file: never use one
 *    as a path, and escape it before showing it on a terminal.
 */
#ifndef SAFETENSORS_H
#define SAFETENSORS_H

#include <stddef.h>
#include <stdint.h>

/* Predefine ST_API to add, say, a visibility attribute. */
#if defined(SAFETENSORS_STATIC)
#define ST_API static inline
#elif !defined(ST_API)
#define ST_API extern
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define ST_VERSION_MAJOR 0
#define ST_VERSION_MINOR 1
#define ST_VERSION_PATCH 0

#define ST_MAX_HEADER 100000000u        /**< bytes of JSON; the reference's own limit */
#define ST_MAX_ENTRIES 1000000u         /**< tensors plus metadata pairs of one file */
#define ST_MAX_RANK 8                   /**< dimensions of one tensor */
#define ST_MAX_ELEMENTS (UINT64_C(1) << 48) /**< product of the dimensions, zeros counted as 1 */

/** What went wrong, as the caller can act on it.  Numbers are pinned. */
enum {
    ST_OK = 0,
    ST_EINVAL = -1,      /**< a bad argument: the calling program is wrong, not a file */
    ST_ENOMEM = -2,      /**< the allocator said no */
    ST_EIO = -3,         /**< the OS or a callback failed */
    ST_EHEADER = -4,     /**< not a safetensors file: the header length cannot be true */
    ST_ETRUNCATED = -5,  /**< the file ends before its header or its last tensor does */
    ST_ESYNTAX = -6,     /**< not strict JSON or not UTF-8 */
    ST_EDUPLICATE = -7,  /**< a key twice, after unescaping */
    ST_ESCHEMA = -8,     /**< JSON, but not of this format: a key or a type is wrong */
    ST_EDTYPE = -9,      /**< an unknown or sub-byte element type */
    ST_ESHAPE = -10,     /**< rank, overflow, or shape * dtype differs from the bytes given */
    ST_EOFFSET = -11,    /**< tensors overlap, leave a hole, or end before they begin */
    ST_ETRAILING = -12,  /**< bytes after the last tensor; see ST_ALLOW_TRAILING */
    ST_ELIMIT = -13      /**< well formed, but above a limit */
};

/** The one error type: filled on failure, untouched on success. */
typedef struct st_error {
    int code;       /**< the value that the function returned */
    char text[256]; /**< one line, NUL-terminated */
} st_error;

/**
 * Element types.  Ascending numbers are the reference's ascending alignment order, which is what
 * its writer sorts by; the gaps leave room for types to come.
 */
enum {
    ST_OPAQUE = 0, /**< unknown or sub-byte; appears only under ST_ALLOW_OPAQUE */
    ST_BOOL = 1,   /**< one byte, 0 or 1 (unchecked) */
    ST_F4 = 2,     /**< sub-byte: recognised, refused */
    ST_F6_E2M3 = 3, /**< sub-byte: recognised, refused */
    ST_F6_E3M2 = 4, /**< sub-byte: recognised, refused */
    ST_U8 = 10,
    ST_I8 = 11,
    ST_F8_E5M2 = 12,
    ST_F8_E4M3 = 13,
    ST_F8_E8M0 = 14,
    ST_F8_E4M3FNUZ = 15,
    ST_F8_E5M2FNUZ = 16,
    ST_I16 = 20,
    ST_U16 = 21,
    ST_F16 = 22,
    ST_BF16 = 23,
    ST_I32 = 30,
    ST_U32 = 31,
    ST_F32 = 32,
    ST_C64 = 40, /**< two f32 */
    ST_F64 = 41,
    ST_I64 = 42,
    ST_U64 = 43
};

/**
 * Allocator hooks, all or none.  The struct is copied, `user` must outlive what it allocated.
 * Results must be aligned as malloc's are.
 */
typedef struct st_alloc {
    void *(*alloc)(void *user, size_t bytes);              /**< NULL on failure */
    void *(*realloc)(void *user, void *ptr, size_t bytes); /**< never called by this version */
    void (*free)(void *user, void *ptr);                   /**< ptr is never NULL */
    void *user;
} st_alloc;

/** Exceptions from strictness, for st_limits.flags. */
enum {
    ST_ALLOW_TRAILING = 1, /**< bytes after the last tensor are counted in st_doc.trailing */
    ST_ALLOW_OPAQUE = 2    /**< list tensors of unknown or sub-byte type as ST_OPAQUE */
};

/** Limits of one parse.  A zero takes the default; a value above the default is the default. */
typedef struct st_limits {
    uint64_t max_header;   /**< bytes, default ST_MAX_HEADER */
    uint64_t max_entries;  /**< tensors + metadata pairs, default ST_MAX_ENTRIES */
    uint64_t max_elements; /**< per tensor, default ST_MAX_ELEMENTS */
    uint32_t flags;        /**< ST_ALLOW_* */
    uint32_t reserved;     /**< zero */
} st_limits;

/** One tensor of a parsed file. */
typedef struct st_tensor {
    const char *name;       /**< name_len bytes and a NUL; may be empty */
    const char *dtype_name; /**< as the file spells it: "F16" */
    const uint64_t *shape;  /**< rank values; not NULL even when rank is 0 (a scalar) */
    uint64_t offset;        /**< bytes from the start of the *file*, ready for pread or as map +
                                 offset.  Nothing promises alignment: read with memcpy. */
    uint64_t size;          /**< bytes; product of shape * element size, except for ST_OPAQUE */
    uint32_t name_len;      /**< bytes */
    uint16_t dtype;         /**< ST_F32 ... */
    uint16_t rank;          /**< 0 .. ST_MAX_RANK */
} st_tensor;

/** One entry of `__metadata__`, read or to be written. */
typedef struct st_pair {
    const char *key;
    const char *value;
    uint32_t key_len;   /**< bytes; read only: the writer takes strlen */
    uint32_t value_len; /**< bytes; read only: the writer takes strlen */
} st_pair;

/** A parsed header.  Owns copies of all it points at, so the JSON buffer may go. */
typedef struct st_doc {
    const st_tensor *tensors; /**< n_tensors, by ascending offset; ties in file order */
    const st_pair *metadata;  /**< n_metadata, in file order */
    size_t n_tensors;
    size_t n_metadata;
    uint64_t data_offset; /**< 8 + header length: where the first tensor begins */
    uint64_t data_size;   /**< bytes of all tensors */
    uint64_t trailing;    /**< bytes after them; 0 unless ST_ALLOW_TRAILING */
    int has_metadata;     /**< 1 if `__metadata__` is there, even if empty */
    /* private from here on */
    const uint32_t *by_name, *by_key; /* permutations, sorted bytewise */
    void *block;                      /* the one allocation */
    st_alloc hooks;
} st_doc;

/* ---- element types --------------------------------------------------------------------- */

/** Bytes of one element; 0 for sub-byte types, ST_OPAQUE and unknown numbers. */
ST_API size_t st_dtype_size(int dtype);

/** The name used in files, such as "BF16"; NULL for ST_OPAQUE and unknown numbers. */
ST_API const char *st_dtype_name(int dtype);

/** The number of a name, exact case; ST_OPAQUE when there is none. */
ST_API int st_dtype_from_name(const char *name);

/* ---- reading --------------------------------------------------------------------------- */

/**
 * Judges the first eight bytes of a file: do this before allocating anything for the header.
 * @param first8     The first eight bytes.  Not read when file_size < 8.
 * @param file_size  Of the whole file, as fstat gives it.
 * @param out        Length of the JSON: 2 .. min(ST_MAX_HEADER, file_size - 8).
 * Errors: ST_EHEADER (with a hint for git-lfs pointers, HTML pages and zip files),
 *         ST_ETRUNCATED, ST_EINVAL.
 */
ST_API int st_header_length(const void *first8, uint64_t file_size, uint64_t *out, st_error *err);

/**
 * Parses the JSON of a header and checks it against the size of the file.
 * Makes at most one allocation, after all of the syntax was checked; time is O(n log n).
 * `json` may be a map that another process writes to: the outcome is then unspecified, but no
 * byte outside the buffers is touched.
 * @param doc        Give back with st_free().
 * @param json       The n bytes that follow the first eight.  May be freed after the call.
 * @param file_size  Of the whole file.
 * Errors: any code; ST_EIO only when the bytes changed during the call.
 */
ST_API int st_parse(st_doc *doc, const void *json, size_t n, uint64_t file_size,
                    const st_limits *limits, const st_alloc *alloc, st_error *err);

/** Frees what st_parse() made and zeroes it.  Nullable: doc; a zeroed doc is a no-op. */
ST_API void st_free(st_doc *doc);

/** The tensor of that name, O(log n).  Nullable: the result, when there is none. */
ST_API const st_tensor *st_find(const st_doc *doc, const char *name);

/** The value of a metadata key, O(log n).  Nullable: the result, when there is none. */
ST_API const char *st_metadata(const st_doc *doc, const char *key);

#ifndef SAFETENSORS_NO_MMAP
/** A whole file mapped for reading. */
typedef struct st_file {
    st_doc doc;
    const unsigned char *map; /**< all bytes; tensor t lies at map + t->offset */
    uint64_t size;            /**< bytes */
} st_file;

/**
 * Maps a regular file and parses its header.  Fifos, devices and directories are refused.
 * If another process truncates the file while it is mapped, reading it raises SIGBUS: for files
 * that may change use pread with st_header_length() and st_parse().
 * @param file  Give back with st_close().
 * Errors: ST_EIO with the OS's reason, and those of the two functions.
 */
ST_API int st_open(st_file *file, const char *path, const st_limits *limits, const st_alloc *alloc,
                   st_error *err);

/** Unmaps, frees, zeroes.  Nullable: file; a zeroed file is a no-op. */
ST_API void st_close(st_file *file);
#endif

/* ---- writing --------------------------------------------------------------------------- */

/** One tensor to be written. */
typedef struct st_item {
    const char *name;
    const uint64_t *shape; /**< rank values; NULL only when rank is 0 */
    const void *data;      /**< Nullable: ask st_sink.read.  Little-endian, row-major. */
    uint16_t dtype;
    uint16_t rank;
    uint32_t reserved; /**< zero */
} st_item;

/** All but the tensor bytes of a file to be.  Keeps nothing of the caller's. */
typedef struct st_plan {
    const unsigned char *head; /**< the first head_size bytes of the file, length word included */
    const uint32_t *order;     /**< order[i] = index of the i-th item in the file */
    const uint64_t *offset;    /**< offset[i] of item i (the caller's index), from the file start */
    const uint64_t *size;      /**< size[i] of item i, bytes */
    size_t n_items;
    uint64_t head_size; /**< a multiple of 8 */
    uint64_t file_size;
    /* private */
    void *block;
    st_alloc hooks;
} st_plan;

/**
 * Lays a file out byte for byte as the reference writer does: compact JSON, metadata first,
 * tensors by descending alignment then by name, padded with spaces to a multiple of 8.
 * The reference's metadata order is that of a hash map; here it is the caller's.
 * @param metadata  Nullable: no `__metadata__`.  Not NULL with n_metadata 0 writes an empty one.
 * @param plan      Give back with st_plan_free().
 * Errors: ST_EDUPLICATE, ST_ESYNTAX (a string is not UTF-8), ST_EDTYPE, ST_ESHAPE, ST_ELIMIT,
 *         ST_EINVAL (also for a tensor named `__metadata__`), ST_ENOMEM.
 */
ST_API int st_plan_make(st_plan *plan, const st_item *items, size_t n_items,
                        const st_pair *metadata, size_t n_metadata, const st_alloc *alloc,
                        st_error *err);

/** Frees a plan and zeroes it.  Nullable: plan. */
ST_API void st_plan_free(st_plan *plan);

/** Where a file goes and where tensor bytes come from.  A callback returns 0, or ends the write. */
typedef struct st_sink {
    /** Appends n bytes (never 0) to the file. */
    int (*write)(void *user, const void *bytes, size_t n);
    /** Fills buf with bytes [at, at + n) of item `index`.  Nullable: every item has data. */
    int (*read)(void *user, size_t index, uint64_t at, void *buf, size_t n);
    void *user;
} st_sink;

/**
 * Streams a file out: the header, then each tensor in file order.  Items without data are asked
 * for piece by piece, at most 1 MiB at a time and in ascending order, so a file of any size
 * passes through 1 MiB of memory.
 * Errors: those of st_plan_make(), ST_EIO when a callback fails (its value is in the text).  Bytes
 *         already written stay written: write to a temporary file and rename it.
 */
ST_API int st_write(const st_sink *sink, const st_item *items, size_t n_items,
                    const st_pair *metadata, size_t n_metadata, const st_alloc *alloc,
                    st_error *err);

/**
 * The same into memory; every item has data.
 * @param out   Free it with alloc->free, or with free() when alloc was NULL.
 * @param size  Bytes of it.
 */
ST_API int st_write_buffer(void **out, size_t *size, const st_item *items, size_t n_items,
                           const st_pair *metadata, size_t n_metadata, const st_alloc *alloc,
                           st_error *err);

#ifdef __cplusplus
}
#endif

/* ---------------------------------------------------------------------------------------- */
/* Bodies                                                                                    */
/* ---------------------------------------------------------------------------------------- */

#if (defined(SAFETENSORS_IMPLEMENTATION) || defined(SAFETENSORS_STATIC)) && !defined(ST__BODY)
#define ST__BODY

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifndef SAFETENSORS_NO_MMAP
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#endif

#if defined(__GNUC__)
#define ST__FORMAT(f, a) __attribute__((format(printf, f, a)))
#else
#define ST__FORMAT(f, a)
#endif

#define ST__SMALL 16          /* longest key or dtype name we know, and a NUL */
#define ST__CHUNK (1u << 20)  /* bytes asked of st_sink.read at once */
#define ST__META "__metadata__"

/* ---- errors and names ------------------------------------------------------------------ */

ST__FORMAT(3, 4)
static int st__fail(st_error *err, int code, const char *fmt, ...)
{
    if (err) {
        va_list ap;
        va_start(ap, fmt);
        err->code = code;
        vsnprintf(err->text, sizeof err->text, fmt, ap);
        va_end(ap);
    }
    return code;
}

/* A string of the file made fit for a terminal: printable ASCII, at most 120 characters. */
typedef struct st__shown {
    char text[128];
} st__shown;

static st__shown st__show(const char *s, size_t n)
{
    static const char hex[] = "0123456789ABCDEF";
    st__shown out;
    size_t at = 0, i;
    for (i = 0; i < n && at <= 116; i++) {
        unsigned char c = (unsigned char)s[i];
        if (c >= 0x20 && c < 0x7f) {
            out.text[at++] = (char)c;
        } else {
            out.text[at++] = '\\';
            out.text[at++] = 'x';
            out.text[at++] = hex[c >> 4];
            out.text[at++] = hex[c & 15];
        }
    }
    if (i < n) {
        memcpy(out.text + at, "...", 3);
        at += 3;
    }
    out.text[at] = '\0';
    return out;
}

/* "[2,3]" */
typedef struct st__dims {
    char text[ST_MAX_RANK * 21 + 3];
} st__dims;

static st__dims st__show_shape(const uint64_t *shape, size_t rank)
{
    st__dims out;
    size_t at = 0, i;
    out.text[at++] = '[';
    for (i = 0; i < rank; i++)
        at += (size_t)snprintf(out.text + at, sizeof out.text - at, "%s%llu", i ? "," : "",
                               (unsigned long long)shape[i]);
    out.text[at++] = ']';
    out.text[at] = '\0';
    return out;
}

/* ---- allocation ------------------------------------------------------------------------ */

static void *st__libc_alloc(void *user, size_t bytes)
{
    (void)user;
    return malloc(bytes);
}

static void *st__libc_realloc(void *user, void *ptr, size_t bytes)
{
    (void)user;
    return realloc(ptr, bytes);
}

static void st__libc_free(void *user, void *ptr)
{
    (void)user;
    free(ptr);
}

static int st__hooks(st_alloc *out, const st_alloc *alloc, st_error *err)
{
    if (!alloc) {
        out->alloc = st__libc_alloc;
        out->realloc = st__libc_realloc;
        out->free = st__libc_free;
        out->user = NULL;
        return ST_OK;
    }
    if (!alloc->alloc || !alloc->realloc || !alloc->free)
        return st__fail(err, ST_EINVAL, "allocator hooks: give all three or none");
    *out = *alloc;
    return ST_OK;
}

static int st__alloc(void **out, const st_alloc *hooks, uint64_t bytes, st_error *err)
{
    *out = bytes <= SIZE_MAX ? hooks->alloc(hooks->user, (size_t)bytes) : NULL;
    if (*out)
        return ST_OK;
    return st__fail(err, ST_ENOMEM, "no memory for %llu bytes", (unsigned long long)bytes);
}

/* ---- element types --------------------------------------------------------------------- */

typedef struct st__dtype_row {
    uint16_t dtype;
    uint16_t size; /* bytes, 0 = sub-byte */
    const char *name;
} st__dtype_row;

static const st__dtype_row st__dtypes[] = {
    {ST_BOOL, 1, "BOOL"},
    {ST_F4, 0, "F4"},
    {ST_F6_E2M3, 0, "F6_E2M3"},
    {ST_F6_E3M2, 0, "F6_E3M2"},
    {ST_U8, 1, "U8"},
    {ST_I8, 1, "I8"},
    {ST_F8_E5M2, 1, "F8_E5M2"},
    {ST_F8_E4M3, 1, "F8_E4M3"},
    {ST_F8_E8M0, 1, "F8_E8M0"},
    {ST_F8_E4M3FNUZ, 1, "F8_E4M3FNUZ"},
    {ST_F8_E5M2FNUZ, 1, "F8_E5M2FNUZ"},
    {ST_I16, 2, "I16"},
    {ST_U16, 2, "U16"},
    {ST_F16, 2, "F16"},
    {ST_BF16, 2, "BF16"},
    {ST_I32, 4, "I32"},
    {ST_U32, 4, "U32"},
    {ST_F32, 4, "F32"},
    {ST_C64, 8, "C64"},
    {ST_F64, 8, "F64"},
    {ST_I64, 8, "I64"},
    {ST_U64, 8, "U64"},
};

static const st__dtype_row *st__dtype(int dtype)
{
    size_t i;
    for (i = 0; i < sizeof st__dtypes / sizeof *st__dtypes; i++)
        if (st__dtypes[i].dtype == dtype)
            return &st__dtypes[i];
    return NULL;
}

static const st__dtype_row *st__dtype_named(const char *name)
{
    size_t i;
    for (i = 0; i < sizeof st__dtypes / sizeof *st__dtypes; i++)
        if (!strcmp(st__dtypes[i].name, name))
            return &st__dtypes[i];
    return NULL;
}

ST_API size_t st_dtype_size(int dtype)
{
    const st__dtype_row *row = st__dtype(dtype);
    return row ? row->size : 0;
}

ST_API const char *st_dtype_name(int dtype)
{
    const st__dtype_row *row = st__dtype(dtype);
    return row ? row->name : NULL;
}

ST_API int st_dtype_from_name(const char *name)
{
    const st__dtype_row *row = name ? st__dtype_named(name) : NULL;
    return row ? row->dtype : (int)ST_OPAQUE;
}

/*
 * Product of the dimensions.  The check counts a zero as one: [0, 2^62, 2^62] is as wrong as
 * [2^62, 2^62, 0], whatever the order of multiplication makes of them.
 */
static int st__elements(uint64_t *out, const uint64_t *shape, size_t rank, uint64_t max)
{
    uint64_t n = 1;
    int empty = 0;
    size_t i;
    for (i = 0; i < rank; i++) {
        if (!shape[i])
            empty = 1;
        else if (n > UINT64_MAX / shape[i])
            return ST_ESHAPE;
        else
            n *= shape[i];
    }
    *out = empty ? 0 : n;
    return n > max ? ST_ELIMIT : ST_OK;
}

/* ---- sorting --------------------------------------------------------------------------- */

typedef int (*st__compare)(const void *ctx, uint32_t a, uint32_t b);

/* Stable merge sort of indices, without recursion; `tmp` has room for n. */
static void st__sort(uint32_t *a, uint32_t *tmp, size_t n, st__compare cmp, const void *ctx)
{
    size_t width, lo;
    for (width = 1; width < n; width *= 2) {
        for (lo = 0; lo < n && n - lo > width; lo += 2 * width) {
            size_t mid = lo + width, hi = n - mid > width ? mid + width : n;
            size_t i = 0, j = mid, k = lo;
            if (cmp(ctx, a[mid - 1], a[mid]) <= 0)
                continue;
            memcpy(tmp, a + lo, width * sizeof *a);
            while (i < width && j < hi)
                a[k++] = cmp(ctx, tmp[i], a[j]) <= 0 ? tmp[i++] : a[j++];
            memcpy(a + k, tmp + i, (width - i) * sizeof *a);
        }
    }
}

static void st__iota(uint32_t *a, size_t n)
{
    size_t i;
    for (i = 0; i < n; i++)
        a[i] = (uint32_t)i;
}

/* ---- JSON: the little of it that a header may hold -------------------------------------- */

/*
 * The header is parsed twice by the same code: first to judge and count (block == NULL), then
 * to fill one allocation of just the right size.  Since the bytes may lie in a shared map, the
 * second pass trusts none of the first one's counts: each store is checked against its room.
 */
typedef struct st__in {
    const unsigned char *base, *p, *end;
    st_error *err;
    const char *what; /* names in messages: "tensor", "metadata key" or NULL */
    const unsigned char *name;
    size_t name_len;
    uint64_t max_entries, max_elements;
    uint32_t flags;
    int has_metadata;
    void *block;
    st_tensor *tensors;
    st_pair *pairs;
    uint64_t *dims;
    char *pool;
    size_t n_tensors, n_pairs, n_dims, n_pool;         /* so far */
    size_t cap_tensors, cap_pairs, cap_dims, cap_pool; /* second pass */
} st__in;

ST__FORMAT(3, 4)
static int st__bad(const st__in *in, int code, const char *fmt, ...)
{
    char text[256];
    va_list ap;
    if (!in->err)
        return code;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (in->what)
        return st__fail(in->err, code, "%s \"%s\": %s", in->what,
                        st__show((const char *)in->name, in->name_len).text, text);
    return st__fail(in->err, code, "header: %s", text);
}

static int st__changed(const st__in *in)
{
    return st__bad(in, ST_EIO, "the header changed while it was being read");
}

static unsigned long st__at(const st__in *in)
{
    return (unsigned long)(in->p - in->base);
}

static void st__space(st__in *in)
{
    while (in->p < in->end &&
           (*in->p == ' ' || *in->p == '\n' || *in->p == '\r' || *in->p == '\t'))
        in->p++;
}

/* The JSON type that byte c begins; NULL if none. */
static const char *st__kind(int c)
{
    if (c == '"')
        return "a string";
    if (c == '{')
        return "an object";
    if (c == '[')
        return "an array";
    if (c == '-' || (c >= '0' && c <= '9'))
        return "a number";
    if (c == 't' || c == 'f')
        return "a boolean";
    return c == 'n' ? "null" : NULL;
}

/* Fails because `wanted` is not what the next byte begins. */
static int st__unexpected(const st__in *in, const char *wanted)
{
    const char *kind;
    if (in->p == in->end)
        return st__bad(in, ST_ESYNTAX, "expected %s, found the end of the header", wanted);
    kind = st__kind(*in->p);
    if (kind)
        return st__bad(in, ST_ESCHEMA, "expected %s, found %s at byte %lu", wanted, kind,
                       st__at(in));
    return st__bad(in, ST_ESYNTAX, "expected %s, found '%s' at byte %lu", wanted,
                   st__show((const char *)in->p, 1).text, st__at(in));
}

/* Skips white space, then takes byte c, which opens `wanted`. */
static int st__take(st__in *in, int c, const char *wanted)
{
    st__space(in);
    if (in->p == in->end || *in->p != c)
        return st__unexpected(in, wanted);
    in->p++;
    return ST_OK;
}

/* Skips white space and takes byte c if it is there. */
static int st__skip(st__in *in, int c)
{
    st__space(in);
    if (in->p == in->end || *in->p != c)
        return 0;
    in->p++;
    return 1;
}

/* After a member: 1 = a comma and one more, 0 = `close`, negative = neither. */
static int st__more(st__in *in, int close, const char *wanted)
{
    if (st__skip(in, ','))
        return 1;
    if (st__skip(in, close))
        return 0;
    if (in->p == in->end)
        return st__unexpected(in, wanted);
    return st__bad(in, ST_ESYNTAX, "expected %s, found '%s' at byte %lu", wanted,
                   st__show((const char *)in->p, 1).text, st__at(in));
}

/* Bytes of the UTF-8 sequence at p (Unicode table 3-7), 0 if it is not well formed. */
static size_t st__utf8(const unsigned char *p, const unsigned char *end)
{
    size_t n, i;
    unsigned char lo = 0x80, hi = 0xbf, c = *p;
    if (c < 0x80)
        return 1;
    if (c < 0xc2 || c > 0xf4)
        return 0;
    n = c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
    if (c == 0xe0)
        lo = 0xa0; /* overlong */
    if (c == 0xed)
        hi = 0x9f; /* surrogates */
    if (c == 0xf0)
        lo = 0x90; /* overlong */
    if (c == 0xf4)
        hi = 0x8f; /* above U+10FFFF */
    if ((size_t)(end - p) < n || p[1] < lo || p[1] > hi)
        return 0;
    for (i = 2; i < n; i++)
        if (p[i] < 0x80 || p[i] > 0xbf)
            return 0;
    return n;
}

static size_t st__put_utf8(unsigned char out[4], uint32_t u)
{
    if (u < 0x80) {
        out[0] = (unsigned char)u;
        return 1;
    }
    if (u < 0x800) {
        out[0] = (unsigned char)(0xc0 | u >> 6);
        out[1] = (unsigned char)(0x80 | (u & 0x3f));
        return 2;
    }
    if (u < 0x10000) {
        out[0] = (unsigned char)(0xe0 | u >> 12);
        out[1] = (unsigned char)(0x80 | (u >> 6 & 0x3f));
        out[2] = (unsigned char)(0x80 | (u & 0x3f));
        return 3;
    }
    out[0] = (unsigned char)(0xf0 | u >> 18);
    out[1] = (unsigned char)(0x80 | (u >> 12 & 0x3f));
    out[2] = (unsigned char)(0x80 | (u >> 6 & 0x3f));
    out[3] = (unsigned char)(0x80 | (u & 0x3f));
    return 4;
}

/* The four hex digits after \u; the cursor stands on the first. */
static int st__hex4(st__in *in, uint32_t *out)
{
    uint32_t v = 0;
    int i;
    for (i = 0; i < 4; i++, in->p++) {
        unsigned c = in->p < in->end ? *in->p : 0u;
        if (c >= '0' && c <= '9')
            v = v << 4 | (c - '0');
        else if ((c | 32) >= 'a' && (c | 32) <= 'f')
            v = v << 4 | ((c | 32) - 'a' + 10);
        else
            return st__bad(in, ST_ESYNTAX, "\\u needs four hex digits at byte %lu", st__at(in));
    }
    *out = v;
    return ST_OK;
}

static int st__unicode_escape(st__in *in, uint32_t *out)
{
    uint32_t low = 0;
    int rc = st__hex4(in, out);
    if (rc < 0)
        return rc;
    if (!*out)
        return st__bad(in, ST_ESYNTAX, "\\u0000 at byte %lu: NUL is refused", st__at(in));
    if (*out < 0xd800 || *out > 0xdfff)
        return ST_OK;
    if (*out > 0xdbff || in->end - in->p < 6 || in->p[0] != '\\' || in->p[1] != 'u')
        return st__bad(in, ST_ESYNTAX, "lone surrogate \\u%04x at byte %lu", (unsigned)*out,
                       st__at(in));
    in->p += 2;
    rc = st__hex4(in, &low);
    if (rc < 0)
        return rc;
    if (low < 0xdc00 || low > 0xdfff)
        return st__bad(in, ST_ESYNTAX, "lone surrogate \\u%04x at byte %lu", (unsigned)*out,
                       st__at(in));
    *out = 0x10000 + ((*out - 0xd800) << 10) + (low - 0xdc00);
    return ST_OK;
}

/* The part of an escape after its backslash. */
static int st__escape(st__in *in, uint32_t *out)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    const char *hit;
    int c = in->p < in->end ? *in->p : 0;
    if (c == 'u') {
        in->p++;
        return st__unicode_escape(in, out);
    }
    hit = c ? strchr(from, c) : NULL;
    if (!hit)
        return st__bad(in, ST_ESYNTAX, "unknown escape at byte %lu", st__at(in));
    *out = (uint32_t)to[hit - from];
    in->p++;
    return ST_OK;
}

/* Takes the bytes that stand for themselves, ASCII only; returns how many. */
static size_t st__plain(st__in *in, char *out, size_t room)
{
    const unsigned char *p = in->p;
    size_t n;
    while (p < in->end && *p >= 0x20 && *p < 0x80 && *p != '"' && *p != '\\')
        p++;
    n = (size_t)(p - in->p);
    if (room)
        memcpy(out, in->p, n < room ? n : room);
    in->p = p;
    return n;
}

/*
 * Takes a string whose opening quote was taken.  Writes as much of it as fits in cap bytes,
 * without NUL; *len is its full length.
 */
static int st__string(st__in *in, char *out, size_t cap, size_t *len)
{
    size_t n = 0;
    for (;;) {
        unsigned char code[4];
        const unsigned char *from;
        size_t k, i;
        n += st__plain(in, n < cap ? out + n : NULL, n < cap ? cap - n : 0);
        if (in->p == in->end || *in->p == '"')
            break;
        from = in->p;
        if (*in->p == '\\') {
            uint32_t u = 0;
            int rc;
            in->p++;
            rc = st__escape(in, &u);
            if (rc < 0)
                return rc;
            k = st__put_utf8(code, u);
            from = code;
        } else if (*in->p < 0x20) {
            return st__bad(in, ST_ESYNTAX, "raw control character \\x%02X in a string at byte %lu",
                           *in->p, st__at(in));
        } else {
            k = st__utf8(in->p, in->end);
            if (!k)
                return st__bad(in, ST_ESYNTAX, "not UTF-8 at byte %lu", st__at(in));
            in->p += k;
        }
        for (i = 0; i < k; i++, n++)
            if (n < cap)
                out[n] = (char)from[i];
    }
    if (in->p == in->end)
        return st__bad(in, ST_ESYNTAX, "a string is not closed");
    in->p++;
    *len = n;
    return ST_OK;
}

/* Takes a string; `small` gets it if it is shorter than ST__SMALL, else "". */
static int st__word(st__in *in, char small[ST__SMALL], const unsigned char **start, size_t *len,
                    const char *wanted)
{
    int rc = st__take(in, '"', wanted);
    if (rc < 0)
        return rc;
    *start = in->p;
    rc = st__string(in, small, ST__SMALL, len);
    if (rc < 0)
        return rc;
    small[*len < ST__SMALL ? *len : 0] = '\0';
    return ST_OK;
}

/* Counts, or in the second pass stores, the string that began at start. */
static int st__keep(st__in *in, const unsigned char *start, size_t len, const char **out,
                    uint32_t *out_len)
{
    const unsigned char *p = in->p;
    size_t room = in->cap_pool - in->n_pool;
    char *to;
    int rc;
    if (!in->block) {
        in->n_pool += len + 1;
        return ST_OK;
    }
    to = in->pool + in->n_pool;
    in->p = start;
    rc = st__string(in, to, room, &len);
    if (rc < 0)
        return rc;
    if (len >= room)
        return st__changed(in);
    to[len] = '\0';
    in->p = p;
    in->n_pool += len + 1;
    *out = to;
    *out_len = (uint32_t)len; /* below ST_MAX_HEADER */
    return ST_OK;
}

static int st__u64(st__in *in, uint64_t *out)
{
    static const char wanted[] = "an integer from 0 to 2^64-1";
    const unsigned char *start;
    uint64_t v = 0;
    st__space(in);
    start = in->p;
    if (in->p == in->end || *in->p < '0' || *in->p > '9') {
        if (in->p < in->end && *in->p == '-')
            return st__bad(in, ST_ESCHEMA, "expected %s, found a sign at byte %lu", wanted,
                           st__at(in));
        return st__unexpected(in, wanted);
    }
    for (; in->p < in->end && *in->p >= '0' && *in->p <= '9'; in->p++) {
        unsigned digit = *in->p - '0';
        if (v > (UINT64_MAX - digit) / 10)
            return st__bad(in, ST_ESCHEMA, "expected %s, found more at byte %lu", wanted,
                           st__at(in));
        v = v * 10 + digit;
    }
    if (*start == '0' && in->p - start > 1)
        return st__bad(in, ST_ESYNTAX, "a number begins with 0 at byte %lu", st__at(in));
    if (in->p < in->end && (*in->p == '.' || (*in->p | 32) == 'e'))
        return st__bad(in, ST_ESCHEMA, "expected %s, found a fraction or exponent at byte %lu",
                       wanted, st__at(in));
    *out = v;
    return ST_OK;
}

/* An array of at most cap integers. */
static int st__integers(st__in *in, uint64_t *out, size_t cap, size_t *count, const char *key)
{
    int rc = st__take(in, '[', "an array of integers");
    *count = 0;
    if (rc < 0)
        return rc;
    if (st__skip(in, ']'))
        return ST_OK;
    do {
        if (*count == cap)
            return st__bad(in, ST_ESHAPE, "%s has more than %lu values", key,
                           (unsigned long)cap);
        rc = st__u64(in, &out[(*count)++]);
        if (rc < 0)
            return rc;
        rc = st__more(in, ']', "',' or ']'");
    } while (rc > 0);
    return rc;
}

/* ---- the header ------------------------------------------------------------------------ */

static int st__count_entry(const st__in *in)
{
    if (in->n_tensors + in->n_pairs < in->max_entries)
        return ST_OK;
    return st__bad(in, ST_ELIMIT, "more than %llu entries", (unsigned long long)in->max_entries);
}

static int st__pair(st__in *in)
{
    char small[ST__SMALL];
    const unsigned char *key, *value;
    size_t key_len, value_len;
    st_pair pair = {NULL, NULL, 0, 0};
    int rc = st__word(in, small, &key, &key_len, "a metadata key");
    if (rc < 0)
        return rc;
    in->what = "metadata key";
    in->name = key;
    in->name_len = (size_t)(in->p - 1 - key);
    if ((rc = st__take(in, ':', "':'")) < 0 ||
        (rc = st__word(in, small, &value, &value_len, "a string as value")) < 0 ||
        (rc = st__count_entry(in)) < 0 ||
        (rc = st__keep(in, key, key_len, &pair.key, &pair.key_len)) < 0 ||
        (rc = st__keep(in, value, value_len, &pair.value, &pair.value_len)) < 0)
        return rc;
    if (in->block) {
        if (in->n_pairs == in->cap_pairs)
            return st__changed(in);
        in->pairs[in->n_pairs] = pair;
    }
    in->n_pairs++;
    in->what = NULL;
    return ST_OK;
}

static int st__metadata(st__in *in)
{
    int rc;
    if (in->has_metadata)
        return st__bad(in, ST_EDUPLICATE, ST__META " appears twice");
    in->has_metadata = 1;
    rc = st__take(in, '{', "an object of strings as " ST__META);
    if (rc < 0 || st__skip(in, '}'))
        return rc;
    do {
        rc = st__pair(in);
        if (rc < 0)
            return rc;
        rc = st__more(in, '}', "',' or '}' in " ST__META);
    } while (rc > 0);
    return rc;
}

/* What the three keys of a tensor say. */
typedef struct st__entry {
    unsigned seen; /* one bit per row of st__fields */
    char dtype[ST__SMALL];
    const unsigned char *dtype_start;
    size_t dtype_len, dtype_raw; /* bytes unescaped, and as in the file */
    uint64_t shape[ST_MAX_RANK];
    size_t rank;
    uint64_t span[2]; /* begin, end: bytes from the data's start */
} st__entry;

static int st__field_dtype(st__in *in, st__entry *e)
{
    int rc = st__word(in, e->dtype, &e->dtype_start, &e->dtype_len, "a string as dtype");
    if (rc == ST_OK)
        e->dtype_raw = (size_t)(in->p - 1 - e->dtype_start);
    return rc;
}

static int st__field_shape(st__in *in, st__entry *e)
{
    return st__integers(in, e->shape, ST_MAX_RANK, &e->rank, "shape");
}

static int st__field_offsets(st__in *in, st__entry *e)
{
    size_t n;
    int rc = st__integers(in, e->span, 2, &n, "data_offsets");
    if (rc < 0 || n == 2)
        return rc;
    return st__bad(in, ST_ESCHEMA, "data_offsets has %lu values, not 2", (unsigned long)n);
}

typedef struct st__field_row {
    const char *key;
    int (*read)(st__in *in, st__entry *e);
} st__field_row;

static const st__field_row st__fields[] = {
    {"dtype", st__field_dtype},
    {"shape", st__field_shape},
    {"data_offsets", st__field_offsets},
};
#define ST__N_FIELDS (sizeof st__fields / sizeof *st__fields)

/* One "key": value of a tensor. */
static int st__field(st__in *in, st__entry *e)
{
    char key[ST__SMALL];
    const unsigned char *start;
    size_t len, i;
    int rc = st__word(in, key, &start, &len, "a key");
    if (rc < 0)
        return rc;
    for (i = 0; i < ST__N_FIELDS && strcmp(key, st__fields[i].key); i++)
        ;
    if (i == ST__N_FIELDS)
        return st__bad(in, ST_ESCHEMA, "unknown key \"%s\"",
                       st__show((const char *)start, (size_t)(in->p - 1 - start)).text);
    if (e->seen & 1u << i)
        return st__bad(in, ST_EDUPLICATE, "%s appears twice", key);
    e->seen |= 1u << i;
    rc = st__take(in, ':', "':'");
    return rc < 0 ? rc : st__fields[i].read(in, e);
}

/* Judges one tensor by itself: type, shape and length. */
static int st__judge(st__in *in, const st__entry *e, const st__dtype_row *row)
{
    uint64_t n, bytes;
    int rc;
    if (!row && !(in->flags & ST_ALLOW_OPAQUE))
        return st__bad(in, ST_EDTYPE, "unknown dtype \"%s\"",
                       st__show((const char *)e->dtype_start, e->dtype_raw).text);
    if (row && !row->size && !(in->flags & ST_ALLOW_OPAQUE))
        return st__bad(in, ST_EDTYPE, "sub-byte dtype %s is not supported", row->name);
    rc = st__elements(&n, e->shape, e->rank, in->max_elements);
    if (rc == ST_ESHAPE)
        return st__bad(in, rc, "shape %s overflows 64 bits",
                       st__show_shape(e->shape, e->rank).text);
    if (rc < 0)
        return st__bad(in, rc, "shape %s has more than %llu elements",
                       st__show_shape(e->shape, e->rank).text,
                       (unsigned long long)in->max_elements);
    if (e->span[1] < e->span[0])
        return st__bad(in, ST_EOFFSET, "ends at byte %llu, before its begin at %llu",
                       (unsigned long long)e->span[1], (unsigned long long)e->span[0]);
    if (!row || !row->size)
        return ST_OK;
    bytes = n * row->size; /* at most 2^48 * 8 */
    if (bytes == e->span[1] - e->span[0])
        return ST_OK;
    return st__bad(in, ST_ESHAPE, "%s %s takes %llu bytes, but data_offsets give %llu", row->name,
                   st__show_shape(e->shape, e->rank).text, (unsigned long long)bytes,
                   (unsigned long long)(e->span[1] - e->span[0]));
}

/* Counts, or in the second pass stores, one judged tensor. */
static int st__add(st__in *in, const st__entry *e, const st__dtype_row *row, size_t len)
{
    st_tensor t = {NULL, NULL, NULL, 0, 0, 0, 0, 0};
    uint32_t ignored;
    int rc = st__keep(in, in->name, len, &t.name, &t.name_len);
    if (rc < 0)
        return rc;
    if (row)
        t.dtype_name = row->name;
    else if ((rc = st__keep(in, e->dtype_start, e->dtype_len, &t.dtype_name, &ignored)) < 0)
        return rc;
    if (in->block) {
        if (in->n_tensors == in->cap_tensors || e->rank > in->cap_dims - in->n_dims)
            return st__changed(in);
        t.shape = in->dims + in->n_dims;
        memcpy(in->dims + in->n_dims, e->shape, e->rank * sizeof *e->shape);
        t.dtype = (uint16_t)(row && row->size ? row->dtype : (int)ST_OPAQUE);
        t.rank = (uint16_t)e->rank;
        t.offset = e->span[0];
        t.size = e->span[1] - e->span[0];
        in->tensors[in->n_tensors] = t;
    }
    in->n_tensors++;
    in->n_dims += e->rank;
    return ST_OK;
}

/* The value of a tensor's key. */
static int st__tensor(st__in *in, const unsigned char *name, size_t raw_len, size_t len)
{
    st__entry e;
    const st__dtype_row *row;
    size_t i;
    int rc;
    memset(&e, 0, sizeof e);
    in->what = "tensor";
    in->name = name;
    in->name_len = raw_len;
    rc = st__take(in, '{', "an object");
    if (rc < 0)
        return rc;
    rc = !st__skip(in, '}');
    while (rc > 0) {
        rc = st__field(in, &e);
        if (rc < 0)
            return rc;
        rc = st__more(in, '}', "',' or '}'");
    }
    if (rc < 0)
        return rc;
    for (i = 0; i < ST__N_FIELDS; i++)
        if (!(e.seen & 1u << i))
            return st__bad(in, ST_ESCHEMA, "%s is missing", st__fields[i].key);
    row = st__dtype_named(e.dtype);
    if ((rc = st__judge(in, &e, row)) < 0 || (rc = st__count_entry(in)) < 0 ||
        (rc = st__add(in, &e, row, len)) < 0)
        return rc;
    in->what = NULL;
    return ST_OK;
}

/* One "name": {...} of the top level. */
static int st__member(st__in *in)
{
    char key[ST__SMALL];
    const unsigned char *start;
    size_t len, raw_len;
    int rc = st__word(in, key, &start, &len, "a tensor name");
    if (rc < 0)
        return rc;
    raw_len = (size_t)(in->p - 1 - start);
    rc = st__take(in, ':', "':'");
    if (rc < 0)
        return rc;
    return strcmp(key, ST__META) ? st__tensor(in, start, raw_len, len) : st__metadata(in);
}

/* One pass over the whole header. */
static int st__pass(st__in *in)
{
    int rc;
    in->p = in->base;
    in->what = NULL;
    in->has_metadata = 0;
    in->n_tensors = in->n_pairs = in->n_dims = in->n_pool = 0;
    rc = st__take(in, '{', "'{'");
    if (rc < 0)
        return rc;
    rc = !st__skip(in, '}');
    while (rc > 0) {
        rc = st__member(in);
        if (rc < 0)
            return rc;
        rc = st__more(in, '}', "',' or '}'");
    }
    if (rc < 0)
        return rc;
    st__space(in);
    if (in->p < in->end)
        return st__bad(in, ST_ESYNTAX, "more than one JSON value, at byte %lu", st__at(in));
    return ST_OK;
}

/* ---- the document ---------------------------------------------------------------------- */

static int st__by_offset(const void *ctx, uint32_t a, uint32_t b)
{
    const st_tensor *x = (const st_tensor *)ctx + a, *y = (const st_tensor *)ctx + b;
    if (x->offset != y->offset)
        return x->offset < y->offset ? -1 : 1;
    return (x->size > y->size) - (x->size < y->size);
}

static int st__by_name(const void *ctx, uint32_t a, uint32_t b)
{
    const st_tensor *t = (const st_tensor *)ctx;
    return strcmp(t[a].name, t[b].name);
}

static int st__by_key(const void *ctx, uint32_t a, uint32_t b)
{
    const st_pair *p = (const st_pair *)ctx;
    return strcmp(p[a].key, p[b].key);
}

/* Moves t[order[i]] to t[i] for each i, in place; order becomes the identity. */
static void st__permute(st_tensor *t, uint32_t *order, size_t n)
{
    size_t i;
    for (i = 0; i < n; i++) {
        st_tensor first = t[i];
        size_t j = i;
        while (order[j] != i) {
            size_t k = order[j];
            order[j] = (uint32_t)j;
            t[j] = t[k];
            j = k;
        }
        order[j] = (uint32_t)j;
        t[j] = first;
    }
}

/* Puts tensors in offset order, then builds both indices and looks for names given twice. */
static int st__index(st__in *in, uint32_t *by_name, uint32_t *by_key, uint32_t *tmp)
{
    size_t i, n = in->n_tensors, m = in->n_pairs;
    st__iota(by_name, n);
    st__sort(by_name, tmp, n, st__by_offset, in->tensors);
    st__permute(in->tensors, by_name, n);
    st__sort(by_name, tmp, n, st__by_name, in->tensors);
    for (i = 1; i < n; i++) {
        const st_tensor *t = &in->tensors[by_name[i]];
        if (!st__by_name(in->tensors, by_name[i - 1], by_name[i]))
            return st__fail(in->err, ST_EDUPLICATE, "tensor \"%s\": the name appears twice",
                            st__show(t->name, t->name_len).text);
    }
    st__iota(by_key, m);
    st__sort(by_key, tmp, m, st__by_key, in->pairs);
    for (i = 1; i < m; i++) {
        const st_pair *p = &in->pairs[by_key[i]];
        if (!st__by_key(in->pairs, by_key[i - 1], by_key[i]))
            return st__fail(in->err, ST_EDUPLICATE, "metadata key \"%s\": the key appears twice",
                            st__show(p->key, p->key_len).text);
    }
    return ST_OK;
}

/* Checks that the sorted tensors tile the data, and turns offsets into file offsets. */
static int st__tile(st__in *in, st_doc *doc, uint64_t have)
{
    uint64_t at = 0;
    size_t i;
    for (i = 0; i < in->n_tensors; i++) {
        st_tensor *t = &in->tensors[i];
        st__shown name = st__show(t->name, t->name_len);
        if (t->offset > at)
            return st__fail(in->err, ST_EOFFSET,
                            "tensor \"%s\": begins at byte %llu, leaving a hole after %llu",
                            name.text, (unsigned long long)t->offset, (unsigned long long)at);
        if (t->offset < at)
            return st__fail(in->err, ST_EOFFSET,
                            "tensor \"%s\": begins at byte %llu, inside one that ends at %llu",
                            name.text, (unsigned long long)t->offset, (unsigned long long)at);
        at += t->size;
        if (at > have)
            return st__fail(in->err, ST_ETRUNCATED,
                            "tensor \"%s\": ends at byte %llu of the data, the file at %llu",
                            name.text, (unsigned long long)at, (unsigned long long)have);
        t->offset += doc->data_offset;
    }
    doc->data_size = at;
    doc->trailing = have - at;
    if (!doc->trailing || (in->flags & ST_ALLOW_TRAILING))
        return ST_OK;
    return st__fail(in->err, ST_ETRAILING, "%llu bytes follow the last tensor%s%s%s",
                    (unsigned long long)doc->trailing, i ? " \"" : "",
                    i ? st__show(in->tensors[i - 1].name, in->tensors[i - 1].name_len).text : "",
                    i ? "\"" : "");
}

/* Allocates the one block, by the counts of the first pass, and parses again into it. */
static int st__fill(st__in *in, st_doc *doc)
{
    size_t n = in->n_tensors, m = in->n_pairs, tmp = n > m ? n : m;
    uint64_t bytes = (uint64_t)n * sizeof(st_tensor) + (uint64_t)m * sizeof(st_pair) +
                     (uint64_t)in->n_dims * 8 + ((uint64_t)n + m + tmp) * 4 + in->n_pool;
    uint32_t *index;
    int rc;
    if (!bytes)
        return ST_OK;
    rc = st__alloc(&in->block, &doc->hooks, bytes, in->err);
    if (rc < 0)
        return rc;
    doc->block = in->block;
    in->cap_tensors = n;
    in->cap_pairs = m;
    in->cap_dims = in->n_dims;
    in->cap_pool = in->n_pool;
    in->tensors = (st_tensor *)in->block;
    in->pairs = (st_pair *)(in->tensors + n);
    in->dims = (uint64_t *)(in->pairs + m);
    index = (uint32_t *)(in->dims + in->cap_dims);
    in->pool = (char *)(index + n + m + tmp);
    rc = st__pass(in);
    if (rc < 0)
        return rc;
    doc->tensors = in->tensors;
    doc->metadata = in->pairs;
    doc->by_name = index;
    doc->by_key = index + n;
    return st__index(in, index, index + n, index + n + m);
}

static uint64_t st__cap(uint64_t given, uint64_t most)
{
    return given && given < most ? given : most;
}

/* Everything of st_parse but cleaning up after a failure. */
static int st__parse(st_doc *doc, st__in *in, uint64_t file_size)
{
    uint64_t n = (uint64_t)(in->end - in->base);
    int rc = st__pass(in);
    if (rc < 0)
        return rc;
    rc = st__fill(in, doc);
    if (rc < 0)
        return rc;
    doc->n_tensors = in->n_tensors;
    doc->n_metadata = in->n_pairs;
    doc->has_metadata = in->has_metadata;
    doc->data_offset = 8 + n;
    return st__tile(in, doc, file_size - 8 - n);
}

ST_API int st_parse(st_doc *doc, const void *json, size_t n, uint64_t file_size,
                    const st_limits *limits, const st_alloc *alloc, st_error *err)
{
    static const st_limits none = {0, 0, 0, 0, 0};
    st__in in;
    int rc;
    if (!doc)
        return st__fail(err, ST_EINVAL, "st_parse: doc is NULL");
    memset(doc, 0, sizeof *doc);
    if (!json)
        return st__fail(err, ST_EINVAL, "st_parse: json is NULL");
    if (!limits)
        limits = &none;
    if (n > st__cap(limits->max_header, ST_MAX_HEADER))
        return st__fail(err, ST_ELIMIT, "header: %llu bytes, the limit is %llu",
                        (unsigned long long)n,
                        (unsigned long long)st__cap(limits->max_header, ST_MAX_HEADER));
    if (file_size < 8 || n > file_size - 8)
        return st__fail(err, ST_ETRUNCATED, "header: %llu bytes do not fit a file of %llu",
                        (unsigned long long)n, (unsigned long long)file_size);
    memset(&in, 0, sizeof in);
    in.base = (const unsigned char *)json;
    in.end = in.base + n;
    in.err = err;
    in.max_entries = st__cap(limits->max_entries, ST_MAX_ENTRIES);
    in.max_elements = st__cap(limits->max_elements, ST_MAX_ELEMENTS);
    in.flags = limits->flags;
    rc = st__hooks(&doc->hooks, alloc, err);
    if (rc == ST_OK)
        rc = st__parse(doc, &in, file_size);
    if (rc < 0)
        st_free(doc);
    return rc;
}

ST_API void st_free(st_doc *doc)
{
    if (!doc)
        return;
    if (doc->block)
        doc->hooks.free(doc->hooks.user, doc->block);
    memset(doc, 0, sizeof *doc);
}

ST_API const st_tensor *st_find(const st_doc *doc, const char *name)
{
    size_t lo = 0, hi = doc && name ? doc->n_tensors : 0;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        const st_tensor *t = &doc->tensors[doc->by_name[mid]];
        int order = strcmp(name, t->name);
        if (!order)
            return t;
        if (order < 0)
            hi = mid;
        else
            lo = mid + 1;
    }
    return NULL;
}

ST_API const char *st_metadata(const st_doc *doc, const char *key)
{
    size_t lo = 0, hi = doc && key ? doc->n_metadata : 0;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        const st_pair *p = &doc->metadata[doc->by_key[mid]];
        int order = strcmp(key, p->key);
        if (!order)
            return p->value;
        if (order < 0)
            hi = mid;
        else
            lo = mid + 1;
    }
    return NULL;
}

/* ---- the first eight bytes ------------------------------------------------------------- */

typedef struct st__hint_row {
    const char *magic;
    size_t n;
    const char *text;
} st__hint_row;

static const st__hint_row st__hints[] = {
    {"version ", 8, ": this looks like a git-lfs pointer, the file itself was never fetched"},
    {"<!DOCTYP", 8, ": this looks like an HTML page, saved in place of the file"},
    {"<!doctyp", 8, ": this looks like an HTML page, saved in place of the file"},
    {"<html", 5, ": this looks like an HTML page, saved in place of the file"},
    {"PK\003\004", 4, ": this looks like a zip file or a torch checkpoint"},
    {"GGUF", 4, ": this looks like a GGUF file"},
};

static const char *st__hint(const unsigned char *first8)
{
    size_t i;
    for (i = 0; i < sizeof st__hints / sizeof *st__hints; i++)
        if (!memcmp(first8, st__hints[i].magic, st__hints[i].n))
            return st__hints[i].text;
    return "";
}

ST_API int st_header_length(const void *first8, uint64_t file_size, uint64_t *out, st_error *err)
{
    const unsigned char *b = (const unsigned char *)first8;
    uint64_t n = 0;
    int i;
    if (!out)
        return st__fail(err, ST_EINVAL, "st_header_length: out is NULL");
    *out = 0;
    if (file_size < 8)
        return st__fail(err, ST_ETRUNCATED, "header: a file of %llu bytes has no length word",
                        (unsigned long long)file_size);
    if (!b)
        return st__fail(err, ST_EINVAL, "st_header_length: first8 is NULL");
    for (i = 7; i >= 0; i--)
        n = n << 8 | b[i];
    if (n < 2 || n > ST_MAX_HEADER)
        return st__fail(err, ST_EHEADER, "header: its length reads %llu, not 2 to %lu%s",
                        (unsigned long long)n, (unsigned long)ST_MAX_HEADER, st__hint(b));
    if (n > file_size - 8)
        return st__fail(err, ST_ETRUNCATED, "header: %llu bytes do not fit a file of %llu",
                        (unsigned long long)n, (unsigned long long)file_size);
    *out = n;
    return ST_OK;
}

#ifndef SAFETENSORS_NO_MMAP
/* ---- mapped files ---------------------------------------------------------------------- */

/* strerror() is neither thread-safe nor free of the locale. */
static int st__os_fail(st_error *err, const char *call, int code)
{
    const char *why = code == ENOENT    ? "no such file"
                      : code == EACCES  ? "permission denied"
                      : code == ENOTDIR ? "a part of the path is no directory"
                      : code == EMFILE || code == ENFILE ? "too many open files"
                      : code == ENOMEM  ? "no address space"
                                        : "failed";
    return st__fail(err, ST_EIO, "%s: %s (errno %d)", call, why, code);
}

/* Opens, checks and maps; the descriptor is closed again in any case. */
static int st__map(st_file *file, const char *path, st_error *err)
{
    struct stat info;
    void *map = MAP_FAILED;
    int flags = O_RDONLY | O_NONBLOCK | O_NOCTTY; /* a fifo must not hang us */
    int fd, code = 0, regular = 0;
#ifdef O_CLOEXEC
    flags |= O_CLOEXEC;
#endif
    memset(&info, 0, sizeof info);
    fd = open(path, flags);
    if (fd < 0)
        return st__os_fail(err, "open", errno);
    if (fstat(fd, &info))
        code = errno;
    else if ((regular = S_ISREG(info.st_mode)) && info.st_size > 0 &&
             (uint64_t)info.st_size <= SIZE_MAX) {
        map = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        code = map == MAP_FAILED ? errno : 0;
    }
    close(fd);
    if (code)
        return st__os_fail(err, "fstat or mmap", code);
    if (!regular)
        return st__fail(err, ST_EIO, "not a regular file");
    if (map == MAP_FAILED)
        return info.st_size ? st__fail(err, ST_EIO, "too large for the address space")
                            : st__fail(err, ST_ETRUNCATED, "header: the file is empty");
    file->map = (const unsigned char *)map;
    file->size = (uint64_t)info.st_size;
    return ST_OK;
}

ST_API int st_open(st_file *file, const char *path, const st_limits *limits, const st_alloc *alloc,
                   st_error *err)
{
    uint64_t n;
    int rc;
    if (!file)
        return st__fail(err, ST_EINVAL, "st_open: file is NULL");
    memset(file, 0, sizeof *file);
    if (!path)
        return st__fail(err, ST_EINVAL, "st_open: path is NULL");
    rc = st__map(file, path, err);
    if (rc == ST_OK)
        rc = st_header_length(file->map, file->size, &n, err);
    if (rc == ST_OK)
        rc = st_parse(&file->doc, file->map + 8, (size_t)n, file->size, limits, alloc, err);
    if (rc < 0)
        st_close(file);
    return rc;
}

ST_API void st_close(st_file *file)
{
    if (!file)
        return;
    st_free(&file->doc);
    if (file->map)
        munmap((void *)(uintptr_t)file->map, (size_t)file->size);
    memset(file, 0, sizeof *file);
}
#endif /* SAFETENSORS_NO_MMAP */

/* ---- writing --------------------------------------------------------------------------- */

/* Text being counted (out == NULL) or written. */
typedef struct st__text {
    unsigned char *out;
    uint64_t n;
} st__text;

static void st__put(st__text *t, const char *s, size_t n)
{
    if (t->out)
        memcpy(t->out + t->n, s, n);
    t->n += n;
}

static void st__puts(st__text *t, const char *s)
{
    st__put(t, s, strlen(s));
}

static void st__put_u64(st__text *t, uint64_t v)
{
    char digits[20];
    size_t at = sizeof digits;
    do
        digits[--at] = (char)('0' + v % 10);
    while (v /= 10);
    st__put(t, digits + at, sizeof digits - at);
}

/* A JSON string as serde_json writes it: escapes only what it must, hex in lower case. */
static void st__put_string(st__text *t, const char *s)
{
    static const char named[] = "\"\"\\\\\bb\ff\nn\rr\tt"; /* pairs: byte, letter */
    static const char hex[] = "0123456789abcdef";
    const char *run = s;
    st__put(t, "\"", 1);
    for (; *s; s++) {
        unsigned char c = (unsigned char)*s;
        char code[6] = {'\\', 'u', '0', '0', 0, 0};
        size_t i, n = 6;
        if (c >= 0x20 && c != '"' && c != '\\')
            continue;
        st__put(t, run, (size_t)(s - run));
        run = s + 1;
        code[4] = hex[c >> 4];
        code[5] = hex[c & 15];
        for (i = 0; named[i]; i += 2)
            if ((unsigned char)named[i] == c) {
                code[1] = named[i + 1];
                n = 2;
            }
        st__put(t, code, n);
    }
    st__put(t, run, (size_t)(s - run));
    st__put(t, "\"", 1);
}

static int st__check_utf8(const char *s, const char *what, st_error *err)
{
    const unsigned char *p = (const unsigned char *)s, *end;
    size_t k;
    if (!s)
        return st__fail(err, ST_EINVAL, "%s is NULL", what);
    for (end = p + strlen(s); p < end; p += k) {
        k = st__utf8(p, end);
        if (!k)
            return st__fail(err, ST_ESYNTAX, "%s \"%s\": not UTF-8 at byte %lu", what,
                            st__show(s, strlen(s)).text,
                            (unsigned long)(p - (const unsigned char *)s));
    }
    return ST_OK;
}

/* Checks one item by itself; *size is its bytes. */
static int st__check_item(const st_item *item, uint64_t *size, st_error *err)
{
    const st__dtype_row *row = st__dtype(item->dtype);
    st__shown name;
    uint64_t n;
    int rc = st__check_utf8(item->name, "tensor", err);
    if (rc < 0)
        return rc;
    name = st__show(item->name, strlen(item->name));
    if (!strcmp(item->name, ST__META))
        return st__fail(err, ST_EINVAL, "tensor \"%s\": the name is reserved", name.text);
    if (!row || !row->size)
        return st__fail(err, ST_EDTYPE, "tensor \"%s\": dtype %d (%s) cannot be written",
                        name.text, item->dtype, row ? row->name : "unknown");
    if (item->rank > ST_MAX_RANK)
        return st__fail(err, ST_ESHAPE, "tensor \"%s\": shape has more than %d values", name.text,
                        ST_MAX_RANK);
    if (item->rank && !item->shape)
        return st__fail(err, ST_EINVAL, "tensor \"%s\": shape is NULL", name.text);
    rc = st__elements(&n, item->shape, item->rank, ST_MAX_ELEMENTS);
    if (rc < 0)
        return st__fail(err, rc, "tensor \"%s\": shape %s has too many elements", name.text,
                        st__show_shape(item->shape, item->rank).text);
    *size = n * row->size; /* at most 2^48 * 8 */
    return ST_OK;
}

static int st__items_by_name(const void *ctx, uint32_t a, uint32_t b)
{
    const st_item *items = (const st_item *)ctx;
    return strcmp(items[a].name, items[b].name);
}

static int st__items_by_dtype(const void *ctx, uint32_t a, uint32_t b)
{
    const st_item *items = (const st_item *)ctx;
    return (int)items[b].dtype - (int)items[a].dtype;
}

static void st__put_item(st__text *t, const st_item *item, uint64_t begin, uint64_t end)
{
    size_t i;
    st__put_string(t, item->name);
    st__puts(t, ":{\"dtype\":\"");
    st__puts(t, st_dtype_name(item->dtype));
    st__puts(t, "\",\"shape\":[");
    for (i = 0; i < item->rank; i++) {
        st__puts(t, i ? "," : "");
        st__put_u64(t, item->shape[i]);
    }
    st__puts(t, "],\"data_offsets\":[");
    st__put_u64(t, begin);
    st__puts(t, ",");
    st__put_u64(t, end);
    st__puts(t, "]}");
}

/* What a plan is made from. */
typedef struct st__job {
    const st_item *items;
    const st_pair *pairs;
    size_t n_items, n_pairs;
    uint32_t *order, *keys, *tmp;
    uint64_t *offset, *size;
} st__job;

/* The JSON; job->offset is relative to the data here. */
static void st__put_header(st__text *t, const st__job *job)
{
    size_t i;
    st__puts(t, "{");
    if (job->pairs) {
        st__puts(t, "\"" ST__META "\":{");
        for (i = 0; i < job->n_pairs; i++) {
            st__puts(t, i ? "," : "");
            st__put_string(t, job->pairs[i].key);
            st__puts(t, ":");
            st__put_string(t, job->pairs[i].value);
        }
        st__puts(t, "}");
    }
    for (i = 0; i < job->n_items; i++) {
        size_t k = job->order[i];
        st__puts(t, i || job->pairs ? "," : "");
        st__put_item(t, &job->items[k], job->offset[k], job->offset[k] + job->size[k]);
    }
    st__puts(t, "}");
    while (t->n % 8)
        st__put(t, " ", 1);
}

static int st__check_job(const st__job *job, st_error *err)
{
    size_t i;
    int rc = ST_OK;
    for (i = 0; i < job->n_items && rc == ST_OK; i++)
        rc = st__check_item(&job->items[i], &job->size[i], err);
    for (i = 0; i < job->n_pairs && rc == ST_OK; i++) {
        rc = st__check_utf8(job->pairs[i].key, "metadata key", err);
        if (rc == ST_OK)
            rc = st__check_utf8(job->pairs[i].value, "metadata value", err);
    }
    return rc;
}

/* Puts items in file order, refuses names given twice, and lays the data out. */
static int st__lay_out(st__job *job, uint64_t *data_size, st_error *err)
{
    uint64_t at = 0;
    size_t i, n = job->n_items, m = job->n_pairs;
    st__iota(job->order, n);
    st__sort(job->order, job->tmp, n, st__items_by_name, job->items);
    for (i = 1; i < n; i++) {
        const char *name = job->items[job->order[i]].name;
        if (!strcmp(job->items[job->order[i - 1]].name, name))
            return st__fail(err, ST_EDUPLICATE, "tensor \"%s\": the name appears twice",
                            st__show(name, strlen(name)).text);
    }
    st__iota(job->keys, m);
    st__sort(job->keys, job->tmp, m, st__by_key, job->pairs);
    for (i = 1; i < m; i++) {
        const char *key = job->pairs[job->keys[i]].key;
        if (!strcmp(job->pairs[job->keys[i - 1]].key, key))
            return st__fail(err, ST_EDUPLICATE, "metadata key \"%s\": the key appears twice",
                            st__show(key, strlen(key)).text);
    }
    st__sort(job->order, job->tmp, n, st__items_by_dtype, job->items); /* stable */
    for (i = 0; i < n; i++) {
        size_t k = job->order[i];
        job->offset[k] = at;
        if (job->size[k] > INT64_MAX - at)
            return st__fail(err, ST_ELIMIT, "tensor \"%s\": the file would pass 2^63 bytes",
                            st__show(job->items[k].name, strlen(job->items[k].name)).text);
        at += job->size[k];
    }
    *data_size = at;
    return ST_OK;
}

/* Allocates and writes the length word and the JSON. */
static int st__make_head(st_plan *plan, const st__job *job, uint64_t data_size, st_error *err)
{
    st__text text = {NULL, 0};
    void *head;
    size_t i;
    int rc;
    st__put_header(&text, job);
    if (text.n > ST_MAX_HEADER)
        return st__fail(err, ST_ELIMIT, "header: %llu bytes, the limit is %lu",
                        (unsigned long long)text.n, (unsigned long)ST_MAX_HEADER);
    rc = st__alloc(&head, &plan->hooks, 8 + text.n, err);
    if (rc < 0)
        return rc;
    plan->head = (unsigned char *)head;
    plan->head_size = 8 + text.n;
    plan->file_size = plan->head_size + data_size;
    for (i = 0; i < 8; i++)
        ((unsigned char *)head)[i] = (unsigned char)(text.n >> 8 * i);
    text.out = (unsigned char *)head + 8;
    text.n = 0;
    st__put_header(&text, job);
    for (i = 0; i < job->n_items; i++)
        job->offset[i] += plan->head_size;
    return ST_OK;
}

/* Everything of st_plan_make but cleaning up after a failure. */
static int st__plan(st_plan *plan, st__job *job, st_error *err)
{
    size_t n = job->n_items, m = job->n_pairs, tmp = n > m ? n : m;
    uint64_t data_size = 0;
    int rc = st__alloc(&plan->block, &plan->hooks,
                       (uint64_t)n * 16 + ((uint64_t)n + m + tmp) * 4 + 1, err);
    if (rc < 0)
        return rc;
    job->offset = (uint64_t *)plan->block;
    job->size = job->offset + n;
    job->order = (uint32_t *)(job->size + n);
    job->keys = job->order + n;
    job->tmp = job->keys + m;
    if ((rc = st__check_job(job, err)) < 0 || (rc = st__lay_out(job, &data_size, err)) < 0 ||
        (rc = st__make_head(plan, job, data_size, err)) < 0)
        return rc;
    plan->offset = job->offset;
    plan->size = job->size;
    plan->order = job->order;
    plan->n_items = n;
    return ST_OK;
}

ST_API int st_plan_make(st_plan *plan, const st_item *items, size_t n_items,
                        const st_pair *metadata, size_t n_metadata, const st_alloc *alloc,
                        st_error *err)
{
    st__job job;
    int rc;
    if (!plan)
        return st__fail(err, ST_EINVAL, "st_plan_make: plan is NULL");
    memset(plan, 0, sizeof *plan);
    if ((n_items && !items) || (n_metadata && !metadata))
        return st__fail(err, ST_EINVAL, "st_plan_make: items or metadata is NULL");
    if (n_items > ST_MAX_ENTRIES || n_metadata > ST_MAX_ENTRIES - n_items)
        return st__fail(err, ST_ELIMIT, "header: more than %lu entries",
                        (unsigned long)ST_MAX_ENTRIES);
    memset(&job, 0, sizeof job);
    job.items = items;
    job.n_items = n_items;
    job.pairs = metadata;
    job.n_pairs = n_metadata;
    rc = st__hooks(&plan->hooks, alloc, err);
    if (rc == ST_OK)
        rc = st__plan(plan, &job, err);
    if (rc < 0)
        st_plan_free(plan);
    return rc;
}

ST_API void st_plan_free(st_plan *plan)
{
    if (!plan)
        return;
    if (plan->head)
        plan->hooks.free(plan->hooks.user, (void *)(uintptr_t)plan->head);
    if (plan->block)
        plan->hooks.free(plan->hooks.user, plan->block);
    memset(plan, 0, sizeof *plan);
}

static int st__send(const st_sink *sink, const void *bytes, size_t n, uint64_t at, st_error *err)
{
    int rc = sink->write(sink->user, bytes, n);
    if (!rc)
        return ST_OK;
    return st__fail(err, ST_EIO, "the write callback returned %d at byte %llu", rc,
                    (unsigned long long)at);
}

/* One item that has no data of its own, piece by piece through buf. */
static int st__send_pieces(const st_sink *sink, const st_plan *plan, const st_item *items,
                           size_t k, void *buf, st_error *err)
{
    uint64_t at = 0;
    while (at < plan->size[k]) {
        uint64_t left = plan->size[k] - at;
        size_t n = left < ST__CHUNK ? (size_t)left : ST__CHUNK;
        int rc = sink->read(sink->user, k, at, buf, n);
        if (rc)
            return st__fail(err, ST_EIO, "tensor \"%s\": the read callback returned %d",
                            st__show(items[k].name, strlen(items[k].name)).text, rc);
        rc = st__send(sink, buf, n, plan->offset[k] + at, err);
        if (rc < 0)
            return rc;
        at += n;
    }
    return ST_OK;
}

/* Finds out, before a byte is written, whether all data can be had; 1 = some by callback. */
static int st__sources(const st_sink *sink, const st_plan *plan, const st_item *items,
                       st_error *err)
{
    size_t i;
    int asks = 0;
    for (i = 0; i < plan->n_items; i++) {
        if (items[i].data || !plan->size[i])
            continue;
        if (!sink->read)
            return st__fail(err, ST_EINVAL, "tensor \"%s\": no data, and no read callback",
                            st__show(items[i].name, strlen(items[i].name)).text);
        asks = 1;
    }
    return asks;
}

static int st__stream(const st_sink *sink, const st_plan *plan, const st_item *items, st_error *err)
{
    void *buf = NULL;
    size_t i;
    int rc = st__sources(sink, plan, items, err);
    if (rc > 0)
        rc = st__alloc(&buf, &plan->hooks, ST__CHUNK, err);
    if (rc == ST_OK)
        rc = st__send(sink, plan->head, (size_t)plan->head_size, 0, err);
    for (i = 0; i < plan->n_items && rc == ST_OK; i++) {
        size_t k = plan->order[i];
        if (!plan->size[k])
            continue;
        if (!items[k].data)
            rc = st__send_pieces(sink, plan, items, k, buf, err);
        else if (plan->size[k] > SIZE_MAX)
            rc = st__fail(err, ST_EINVAL, "tensor \"%s\": larger than the address space",
                          st__show(items[k].name, strlen(items[k].name)).text);
        else
            rc = st__send(sink, items[k].data, (size_t)plan->size[k], plan->offset[k], err);
    }
    if (buf)
        plan->hooks.free(plan->hooks.user, buf);
    return rc;
}

ST_API int st_write(const st_sink *sink, const st_item *items, size_t n_items,
                    const st_pair *metadata, size_t n_metadata, const st_alloc *alloc,
                    st_error *err)
{
    st_plan plan;
    int rc;
    if (!sink || !sink->write)
        return st__fail(err, ST_EINVAL, "st_write: no write callback");
    rc = st_plan_make(&plan, items, n_items, metadata, n_metadata, alloc, err);
    if (rc < 0)
        return rc;
    rc = st__stream(sink, &plan, items, err);
    st_plan_free(&plan);
    return rc;
}

static int st__append(void *user, const void *bytes, size_t n)
{
    unsigned char **to = (unsigned char **)user;
    memcpy(*to, bytes, n);
    *to += n;
    return 0;
}

ST_API int st_write_buffer(void **out, size_t *size, const st_item *items, size_t n_items,
                           const st_pair *metadata, size_t n_metadata, const st_alloc *alloc,
                           st_error *err)
{
    st_sink sink = {st__append, NULL, NULL};
    st_plan plan;
    unsigned char *to;
    int rc;
    if (!out || !size)
        return st__fail(err, ST_EINVAL, "st_write_buffer: out or size is NULL");
    *out = NULL;
    *size = 0;
    rc = st_plan_make(&plan, items, n_items, metadata, n_metadata, alloc, err);
    if (rc < 0)
        return rc;
    rc = st__sources(&sink, &plan, items, err);
    if (rc == ST_OK)
        rc = st__alloc(out, &plan.hooks, plan.file_size, err);
    if (rc == ST_OK) {
        to = (unsigned char *)*out;
        sink.user = &to;
        rc = st__stream(&sink, &plan, items, err);
        *size = (size_t)plan.file_size;
    }
    st_plan_free(&plan);
    return rc;
}

#endif /* bodies */

#endif /* SAFETENSORS_H */
