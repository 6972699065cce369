/* SPDX-License-Identifier: MIT */
/* Atomic writing: a file is either the old one or the whole new one, whatever happens in between.
 * The bytes go to a nameless file (O_TMPFILE), so that a killed process leaves nothing behind;
 * where the file system has none, to ".name.tmp.PID.N", which slr_writer_sweep() can clear away.
 * Commit is fsync, link or rename, fsync of the directory.  It refuses to know what the bytes mean.
 */
#include "io/file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "base/status.h"
#include "base/str.h"

#define BUFFER    ((size_t)1 << 16) /* small puts gather here; large ones pass by */
#define WRITE_MAX ((size_t)1 << 30)
#define TRIES     64 /* names tried before giving up; each is new but for the clock */

struct slr_writer {
    slr_mem *m;
    char *path;              /* as the caller spelled it, for messages */
    const char *base;        /* inside path */
    char temp[NAME_MAX + 1]; /* the temporary's name in dir; "" while it has none */
    int dir, fd;
    int error; /* first failure; every later call gives it back */
    size_t held;
    unsigned char buffer[BUFFER];
};

static int failed(slr_writer *w, const char *what)
{
    w->error = slr_fail(SDLORA_EIO, "slr_writer", "%s: %s: %s", w->path, what, strerror(errno));
    return w->error;
}

/* A name that no one else uses: process, nanosecond and try.  Long base names are cut. */
static void name_temp(slr_writer *w, int attempt)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    snprintf(w->temp, sizeof w->temp, ".%.180s.tmp.%ld.%lx", w->base, (long)getpid(),
             ((unsigned long)now.tv_nsec << 8) + (unsigned long)attempt);
}

static int open_dir(slr_writer *w)
{
    size_t n = (size_t)(w->base - w->path);
    char *dir = n ? slr_strndup(w->m, w->path, n) : slr_strdup(w->m, ".");
    if (!dir)
        return w->error = SDLORA_ENOMEM;
    w->dir = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    slr_free(w->m, dir);
    return w->dir < 0 ? failed(w, "its directory") : SDLORA_OK;
}

/* The nameless file, or -1.  Without /proc it could never get a name, so that counts as "no". */
static int open_nameless(slr_writer *w)
{
    if (access("/proc/self/fd", X_OK) != 0)
        return -1;
    return openat(w->dir, ".", O_RDWR | O_TMPFILE | O_CLOEXEC, 0666);
}

static int open_temp(slr_writer *w)
{
    w->fd = open_nameless(w);
    if (w->fd >= 0)
        return SDLORA_OK;
    for (int i = 0; i < TRIES && w->fd < 0; i++) {
        name_temp(w, i);
        w->fd = openat(w->dir, w->temp, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0666);
        if (w->fd < 0 && errno != EEXIST)
            break;
    }
    if (w->fd < 0) {
        w->temp[0] = '\0';
        return failed(w, "can't make a temporary file beside it");
    }
    return SDLORA_OK;
}

/* Refuses what a rename must not replace; takes over the permissions of what it may. */
static int look_at_target(slr_writer *w)
{
    struct stat st;
    if (fstatat(w->dir, w->base, &st, AT_SYMLINK_NOFOLLOW) != 0) {
        if (errno == ENOENT)
            return SDLORA_OK;
        return failed(w, "can't look at it");
    }
    if (!S_ISREG(st.st_mode) && !S_ISLNK(st.st_mode))
        return w->error = slr_fail(SDLORA_EINVAL, "slr_writer_open",
                                   "%s: exists and is not a regular file", w->path);
    if (S_ISREG(st.st_mode))
        (void)!fchmod(w->fd, st.st_mode & 0777); /* a file system may have no modes */
    return SDLORA_OK;
}

int slr_writer_open(slr_writer **out, slr_mem *m, const char *path)
{
    slr_writer *w;
    int rc;
    slr_require(out && path);
    *out = NULL;
    w = slr_alloc(m, sizeof *w);
    if (!w)
        return SDLORA_ENOMEM;
    w->m = m ? slr_mem_ref(m) : NULL;
    w->dir = w->fd = -1;
    w->error = SDLORA_OK;
    w->held = 0;
    w->temp[0] = '\0';
    w->path = slr_strdup(m, path);
    if (!w->path) {
        slr_writer_abort(&w);
        return SDLORA_ENOMEM;
    }
    w->base = slr_path_base(w->path);
    if (!*w->base || strlen(w->base) > NAME_MAX)
        rc = slr_fail(SDLORA_EINVAL, __func__, "%s: is not a name for a file", path);
    else if ((rc = open_dir(w)) == SDLORA_OK && (rc = open_temp(w)) == SDLORA_OK)
        rc = look_at_target(w);
    if (rc < 0)
        slr_writer_abort(&w);
    *out = w;
    return rc;
}

static int put_all(slr_writer *w, const unsigned char *p, size_t n)
{
    while (n) {
        ssize_t put = write(w->fd, p, n < WRITE_MAX ? n : WRITE_MAX);
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return failed(w, "write");
        p += put;
        n -= (size_t)put;
    }
    return SDLORA_OK;
}

static int flush(slr_writer *w)
{
    size_t n = w->held;
    w->held = 0;
    return put_all(w, w->buffer, n);
}

int slr_writer_put(slr_writer *w, const void *bytes, size_t n)
{
    slr_require(w && (bytes || !n));
    if (w->error < 0)
        return w->error;
    if (w->held + n > BUFFER)
        SLR_TRY(flush(w));
    if (n > BUFFER)
        return put_all(w, bytes, n);
    if (n)
        memcpy(w->buffer + w->held, bytes, n);
    w->held += n;
    return SDLORA_OK;
}

/* Blocks are set aside without changing the size, so that a disk that is too small says so before
 * hours of work.  File systems that can't are left to fail at the write. */
int slr_writer_reserve(slr_writer *w, uint64_t bytes)
{
    if (w->error < 0)
        return w->error;
    if (bytes == 0 || bytes > INT64_MAX)
        return SDLORA_OK;
    if (fallocate(w->fd, FALLOC_FL_KEEP_SIZE, 0, (off_t)bytes) == 0 ||
        (errno != ENOSPC && errno != EFBIG && errno != EDQUOT))
        return SDLORA_OK;
    w->error = slr_fail(SDLORA_EIO, __func__, "%s: needs %llu bytes: %s", w->path,
                        (unsigned long long)bytes, strerror(errno));
    return w->error;
}

int slr_writer_read(slr_writer *w, uint64_t at, void *bytes, size_t n)
{
    if (w->error < 0)
        return w->error;
    SLR_TRY(flush(w));
    return slr_file_fd_read(w->fd, w->path, at, bytes, n);
}

/* Gives a nameless file a name: the target's own if that is free, else a temporary one. */
static int link_name(slr_writer *w, bool *done)
{
    char fd_path[40];
    snprintf(fd_path, sizeof fd_path, "/proc/self/fd/%d", w->fd);
    *done = linkat(AT_FDCWD, fd_path, w->dir, w->base, AT_SYMLINK_FOLLOW) == 0;
    for (int i = 0; i < TRIES && !*done && errno == EEXIST; i++) {
        name_temp(w, i);
        if (linkat(AT_FDCWD, fd_path, w->dir, w->temp, AT_SYMLINK_FOLLOW) == 0)
            return SDLORA_OK;
    }
    if (*done)
        return SDLORA_OK;
    w->temp[0] = '\0';
    return failed(w, "link");
}

static int finish(slr_writer *w)
{
    bool done = false;
    int fd;
    if (w->error < 0)
        return w->error;
    SLR_TRY(flush(w));
    if (fsync(w->fd) != 0)
        return failed(w, "fsync");
    if (!w->temp[0])
        SLR_TRY(link_name(w, &done));
    fd = w->fd;
    w->fd = -1;
    if (close(fd) != 0 && errno != EINTR)
        return failed(w, "close");
    if (!done && renameat(w->dir, w->temp, w->dir, w->base) != 0)
        return failed(w, "rename");
    w->temp[0] = '\0'; /* it bears the real name now: nothing to remove */
    /* Some file systems can't fsync a directory (EINVAL): then there is nothing to wait for. */
    if (fsync(w->dir) != 0 && errno != EINVAL && errno != ENOTSUP)
        return failed(w, "fsync of its directory");
    return SDLORA_OK;
}

int slr_writer_commit(slr_writer **w)
{
    int rc;
    slr_require(w && *w);
    rc = finish(*w);
    slr_writer_abort(w);
    return rc;
}

void slr_writer_abort(slr_writer **pw)
{
    slr_writer *w = pw ? *pw : NULL;
    slr_mem *m;
    if (!w)
        return;
    *pw = NULL;
    slr_file_fd_close(w->fd);
    if (w->temp[0])
        unlinkat(w->dir, w->temp, 0);
    slr_file_fd_close(w->dir);
    m = w->m;
    slr_free(m, w->path);
    slr_free(m, w);
    slr_mem_unref(m);
}

int slr_file_write(slr_mem *m, const char *path, const void *bytes, size_t n)
{
    slr_writer *w;
    int rc;
    SLR_TRY(slr_writer_open(&w, m, path));
    rc = slr_writer_put(w, bytes, n);
    if (rc == SDLORA_OK)
        return slr_writer_commit(&w);
    slr_writer_abort(&w);
    return rc;
}

int slr_file_append_line(const char *path, const char *line)
{
    struct iovec part[2];
    struct stat st;
    ssize_t put;
    int fd, rc = SDLORA_OK;
    slr_require(path && line);
    fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0666);
    if (fd < 0)
        return slr_fail(SDLORA_EIO, __func__, "%s: %s", path, strerror(errno));
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        close(fd);
        return slr_fail(SDLORA_EINVAL, __func__, "%s: is not a regular file", path);
    }
    part[0] = (struct iovec){(void *)(uintptr_t)line, strlen(line)};
    part[1] = (struct iovec){(void *)(uintptr_t) "\n", 1};
    do
        put = writev(fd, part, 2);
    while (put < 0 && errno == EINTR);
    if (put < 0 || (size_t)put != part[0].iov_len + 1)
        rc = slr_fail(SDLORA_EIO, __func__, "%s: %s", path,
                      put < 0 ? strerror(errno) : "the line was not written whole");
    if (close(fd) != 0 && errno != EINTR && rc == SDLORA_OK)
        rc = slr_fail(SDLORA_EIO, __func__, "%s: close: %s", path, strerror(errno));
    return rc;
}

static bool is_old(int dir, const char *name, int64_t age)
{
    struct stat st;
    return fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && st.st_mtime + age <= time(NULL);
}

/* ".name.tmp.PID.hex" of a process that is no more. */
static bool is_stale(const char *name)
{
    const char *mark = name[0] == '.' ? strstr(name + 1, ".tmp.") : NULL;
    const char *pid, *dot;
    char digits[16];
    int64_t id;
    while (mark && strstr(mark + 1, ".tmp."))
        mark = strstr(mark + 1, ".tmp.");
    if (!mark)
        return false;
    pid = mark + 5;
    dot = strchr(pid, '.');
    if (!dot || !dot[1] || dot[1 + strspn(dot + 1, "0123456789abcdef")] ||
        (size_t)(dot - pid) >= sizeof digits)
        return false;
    memcpy(digits, pid, (size_t)(dot - pid));
    digits[dot - pid] = '\0';
    if (!slr_parse_i64(digits, &id) || id <= 0 || id > INT32_MAX)
        return false;
    return kill((pid_t)id, 0) != 0 && errno == ESRCH;
}

int slr_writer_sweep(slr_mem *m, const char *dir, int64_t age, size_t *removed)
{
    slr_list names;
    size_t n = 0;
    int fd;
    SLR_TRY(slr_dir_list(&names, m, dir));
    fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    for (size_t i = 0; i < names.n && fd >= 0; i++)
        if (is_stale(names.item[i]) && is_old(fd, names.item[i], age) &&
            unlinkat(fd, names.item[i], 0) == 0)
            n++;
    slr_file_fd_close(fd);
    slr_list_free(&names);
    if (removed)
        *removed = n;
    return SDLORA_OK;
}
