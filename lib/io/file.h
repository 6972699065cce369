/* SPDX-License-Identifier: MIT */
/* Files: mmap views, bounded reads, atomic writes (temporary file, fsync, rename, fsync of the
 * directory), directory listings in byte order.  Regular files only; FIFOs and devices are refused
 * and can't make a call hang.  Every descriptor is closed on exec.  A missing file is ENOTFOUND,
 * anything else that is not a regular file EINVAL, a refusal of the operating system EIO. */
#ifndef SLR_IO_FILE_H
#define SLR_IO_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/mem.h"
#include "tensor/tensor.h"

bool slr_file_exists(const char *path); /* a regular file, perhaps behind a link */
bool slr_dir_exists(const char *path);
int slr_file_size(const char *path, uint64_t *size);
/* What tells whether two paths are one file that nobody has written to in between. */
typedef struct slr_file_id {
    uint64_t device, inode, size;
    int64_t seconds, nanoseconds; /* of the last change */
} slr_file_id;
/* False, without an error, for what is not a regular file. */
bool slr_file_identify(const char *path, slr_file_id *id);
/* The same for a folder too, which says nothing of what is in it. */
bool slr_path_identify(const char *path, slr_file_id *id);
bool slr_file_same(const slr_file_id *a, const slr_file_id *b);
/* Whether two paths lead to one file or folder. */
bool slr_path_same(const char *a, const char *b);
/* Whole file, refused above `limit`; NUL-terminated. Caller frees. */
int slr_file_read(slr_mem *m, const char *path, uint64_t limit, void **bytes, size_t *n);
/* Reads [offset, offset+n); a short read is EIO. */
int slr_file_read_at(const char *path, uint64_t offset, void *bytes, size_t n);
/* A read-only mapping as a storage whose pages the kernel may drop.  Should another process
 * truncate the file while it is mapped, reading the lost pages raises SIGBUS: that is the price of
 * never copying weights, and why headers are read by slr_file_fd_read() instead. */
int slr_file_map(slr_storage **out, slr_mem *m, const char *path);
/* Tells the kernel that a mapped range is not needed until it is read again; it comes back from the
 * file when touched.  Only for bytes inside a storage of slr_file_map(): heap memory would be
 * emptied. */
void slr_file_forget(const void *data, size_t bytes);
bool slr_file_is_map(const slr_storage *s); /* whether it is one of slr_file_map(); NULL: no */

/* The same steps for several looks at one file: the descriptor pins which file it is. */
int slr_file_fd_open(int *fd, uint64_t *size, const char *path);
int slr_file_fd_read(int fd, const char *path, uint64_t offset, void *bytes, size_t n);
int slr_file_fd_map(slr_storage **out, slr_mem *m, int fd, uint64_t size, const char *path);
void slr_file_fd_close(int fd); /* negative: nothing */

/* Writes beside `path` and appears there whole at commit, with the permissions of the file that it
 * replaces.  A symbolic link at `path` is replaced, not followed. */
typedef struct slr_writer slr_writer;
int slr_writer_open(slr_writer **out, slr_mem *m, const char *path);
int slr_writer_put(slr_writer *w, const void *bytes,
                   size_t n); /* after a failure: the same again */
/* Before the first put: asks the file system for that much room.  EIO when it has not got it. */
int slr_writer_reserve(slr_writer *w, uint64_t bytes);
/* Reads back what was put. */
int slr_writer_read(slr_writer *w, uint64_t at, void *bytes, size_t n);
/* The file appears whole under its name; *w becomes NULL even on failure. */
int slr_writer_commit(slr_writer **w);
void slr_writer_abort(slr_writer **w); /* leaves no trace; NULL-safe */
int slr_file_write(slr_mem *m, const char *path, const void *bytes, size_t n); /* atomic */
int slr_file_append_line(const char *path, const char *line); /* one write of line + "\n" */
/* Removes what killed writers left in a directory and nobody has written to for `age` seconds;
 * counts them if asked.  On a shared disk or in a container a living writer may look like a dead
 * one. */
int slr_writer_sweep(slr_mem *m, const char *dir, int64_t age, size_t *removed);

/* Names in a directory, sorted by bytes, without "." and "..". Free with slr_list_free. */
typedef struct slr_list {
    slr_mem *m;
    char **item;
    size_t n, cap;
} slr_list;
int slr_dir_list(slr_list *out, slr_mem *m, const char *path);
void slr_list_free(slr_list *l);
int slr_dir_make(const char *path); /* like mkdir -p */

/* A folder that appears whole: *temp (of m) is a new hidden folder beside `path`, to be filled with
 * files and one level of folders; commit gives it the name, abandon removes it.  Both end *temp.
 * EINVAL when something other than an empty folder is at path. */
int slr_dir_stage(char **temp, slr_mem *m, const char *path);
int slr_dir_commit(slr_mem *m, char **temp, const char *path);
void slr_dir_abandon(slr_mem *m, char **temp);

/* "dir/name" (caller frees), borrowed basename, stem length without extension. */
char *slr_path_join(slr_mem *m, const char *dir, const char *name);
const char *slr_path_base(const char *path);
size_t slr_path_stem(const char *base);
/* Plain relative name without "..", for paths that come out of files. */
bool slr_path_is_inner(const char *name);

#endif
