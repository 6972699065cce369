/* SPDX-License-Identifier: MIT */
/* Reading files: it knows how to open a regular file without hanging or being led astray, read
 * ranges of it in full, and map it.  It refuses to know what is inside. */
#include "io/file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/status.h"

#define READ_MAX ((size_t)1 << 30) /* one call's share; Linux stops just below 2 GiB */

bool slr_file_exists(const char *path)
{
    struct stat st;
    return path && stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

bool slr_dir_exists(const char *path)
{
    struct stat st;
    return path && stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

static int open_failed(const char *path)
{
    int code = errno == ENOENT || errno == ENOTDIR ? SDLORA_ENOTFOUND : SDLORA_EIO;
    return slr_fail(code, "slr_file_fd_open", "%s: %s", path, strerror(errno));
}

int slr_file_fd_open(int *fd, uint64_t *size, const char *path)
{
    struct stat st;
    int f;
    slr_require(fd && size && path);
    *fd = -1;
    *size = 0;
    /* NONBLOCK so that a FIFO without writer returns at once; it means nothing to a file. */
    do
        f = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    while (f < 0 && errno == EINTR);
    if (f < 0)
        return open_failed(path);
    if (fstat(f, &st) != 0) {
        int rc = open_failed(path);
        close(f);
        return rc;
    }
    if (!S_ISREG(st.st_mode)) {
        close(f);
        return slr_fail(SDLORA_EINVAL, __func__, "%s: %s", path,
                        S_ISDIR(st.st_mode) ? "is a directory, wanted a file"
                                            : "is not a regular file");
    }
    *fd = f;
    *size = (uint64_t)st.st_size;
    return SDLORA_OK;
}

void slr_file_fd_close(int fd)
{
    if (fd >= 0)
        close(fd);
}

int slr_file_fd_read(int fd, const char *path, uint64_t offset, void *bytes, size_t n)
{
    unsigned char *to = bytes;
    if (offset > INT64_MAX || n > INT64_MAX - offset)
        return slr_fail(SDLORA_EIO, __func__, "%s: offset %llu is out of range", path,
                        (unsigned long long)offset);
    while (n) {
        ssize_t got = pread(fd, to, n < READ_MAX ? n : READ_MAX, (off_t)offset);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return slr_fail(SDLORA_EIO, __func__, "%s: %s at byte %llu", path, strerror(errno),
                            (unsigned long long)offset);
        if (got == 0)
            return slr_fail(SDLORA_EIO, __func__, "%s: ends at byte %llu, %zu more were wanted",
                            path, (unsigned long long)offset, n);
        to += got;
        offset += (uint64_t)got;
        n -= (size_t)got;
    }
    return SDLORA_OK;
}

int slr_file_size(const char *path, uint64_t *size)
{
    int fd;
    SLR_TRY(slr_file_fd_open(&fd, size, path));
    slr_file_fd_close(fd);
    return SDLORA_OK;
}

static slr_file_id id_of(const struct stat *st)
{
    return (slr_file_id){.device = st->st_dev,
                         .inode = st->st_ino,
                         .size = (uint64_t)st->st_size,
                         .seconds = st->st_mtim.tv_sec,
                         .nanoseconds = st->st_mtim.tv_nsec};
}

bool slr_path_identify(const char *path, slr_file_id *id)
{
    struct stat st;
    if (stat(path, &st) < 0 || (!S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode)))
        return false;
    *id = id_of(&st);
    return true;
}

bool slr_file_identify(const char *path, slr_file_id *id)
{
    struct stat st;
    if (stat(path, &st) < 0 || !S_ISREG(st.st_mode))
        return false;
    *id = id_of(&st);
    return true;
}

bool slr_file_same(const slr_file_id *a, const slr_file_id *b)
{
    return a->device == b->device && a->inode == b->inode && a->size == b->size &&
           a->seconds == b->seconds && a->nanoseconds == b->nanoseconds;
}

bool slr_path_same(const char *a, const char *b)
{
    slr_file_id ia, ib;
    return slr_path_identify(a, &ia) && slr_path_identify(b, &ib) && slr_file_same(&ia, &ib);
}

int slr_file_read_at(const char *path, uint64_t offset, void *bytes, size_t n)
{
    uint64_t size;
    int fd, rc;
    SLR_TRY(slr_file_fd_open(&fd, &size, path));
    rc = slr_file_fd_read(fd, path, offset, bytes, n);
    slr_file_fd_close(fd);
    return rc;
}

int slr_file_read(slr_mem *m, const char *path, uint64_t limit, void **bytes, size_t *n)
{
    uint64_t size;
    char *block = NULL;
    int fd, rc;
    slr_require(bytes && n);
    *bytes = NULL;
    *n = 0;
    SLR_TRY(slr_file_fd_open(&fd, &size, path));
    if (size > limit || size >= SIZE_MAX)
        rc = slr_fail(SDLORA_EFORMAT, __func__, "%s: has %llu bytes, the limit here is %llu", path,
                      (unsigned long long)size, (unsigned long long)limit);
    else if (!(block = slr_alloc(m, (size_t)size + 1)))
        rc = SDLORA_ENOMEM;
    else
        rc = slr_file_fd_read(fd, path, 0, block, (size_t)size);
    slr_file_fd_close(fd);
    if (rc < 0) {
        slr_free(m, block);
        return rc;
    }
    block[size] = '\0';
    *bytes = block;
    *n = (size_t)size;
    return SDLORA_OK;
}

/* What a mapped storage gives back. */
typedef struct mapping {
    slr_mem *m;
    void *at;
    size_t bytes;
} mapping;

static void unmap(void *user)
{
    mapping *map = user;
    slr_mem *m = map->m;
    munmap(map->at, map->bytes);
    slr_free(m, map);
    slr_mem_unref(m);
}

bool slr_file_is_map(const slr_storage *s)
{
    return slr_storage_is(s, unmap);
}

static int map_bytes(slr_storage **out, slr_mem *m, int fd, size_t size, const char *path)
{
    mapping *map = slr_alloc(m, sizeof *map);
    int rc;
    if (!map)
        return SDLORA_ENOMEM;
    map->bytes = size;
    map->at = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
    if (map->at == MAP_FAILED) {
        rc = slr_fail(errno == ENOMEM ? SDLORA_ENOMEM : SDLORA_EIO, __func__, "%s: mmap: %s", path,
                      strerror(errno));
        slr_free(m, map);
        return rc;
    }
    map->m = m ? slr_mem_ref(m) : NULL;
    rc = slr_storage_wrap(out, m, map->at, size, unmap, map);
    if (rc < 0)
        unmap(map);
    return rc;
}

int slr_file_fd_map(slr_storage **out, slr_mem *m, int fd, uint64_t size, const char *path)
{
    slr_require(out && fd >= 0);
    *out = NULL;
    if (size > PTRDIFF_MAX)
        return slr_fail(SDLORA_ENOTSUP, __func__, "%s: is larger than the address space", path);
    if (size == 0) /* mmap has no empty maps */
        return slr_storage_new(out, m, 0);
    return map_bytes(out, m, fd, (size_t)size, path);
}

int slr_file_map(slr_storage **out, slr_mem *m, const char *path)
{
    uint64_t size;
    int fd, rc;
    slr_require(out);
    *out = NULL;
    SLR_TRY(slr_file_fd_open(&fd, &size, path));
    rc = slr_file_fd_map(out, m, fd, size, path);
    slr_file_fd_close(fd);
    return rc;
}

void slr_file_forget(const void *data, size_t bytes)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    /* Inwards to whole pages: the ones at the edges hold a neighbour's bytes too. */
    uintptr_t lo = ((uintptr_t)data + page - 1) / page * page;
    uintptr_t hi = ((uintptr_t)data + bytes) / page * page;
    if (data && hi > lo)
        madvise((void *)lo, hi - lo, MADV_DONTNEED);
}
