/* SPDX-License-Identifier: MIT */
/* Names of files and listings of directories.  It knows the grammar of paths and byte order; it
 * refuses to follow a name that came out of a file to anywhere but below its root. */
#include "io/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/status.h"

static int by_bytes(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

void slr_list_free(slr_list *l)
{
    if (!l)
        return;
    for (size_t i = 0; i < l->n; i++)
        slr_free(l->m, l->item[i]);
    slr_free(l->m, l->item);
    memset(l, 0, sizeof *l);
}

static int collect(slr_list *l, DIR *dir, const char *path)
{
    for (;;) {
        struct dirent *e;
        errno = 0;
        e = readdir(dir);
        if (!e && errno)
            return slr_fail(SDLORA_EIO, __func__, "%s: %s", path, strerror(errno));
        if (!e)
            return SDLORA_OK;
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
            continue;
        SLR_TRY(slr_grow(l->m, &l->item, &l->cap, l->n + 1, sizeof *l->item));
        l->item[l->n] = slr_strdup(l->m, e->d_name);
        if (!l->item[l->n])
            return SDLORA_ENOMEM;
        l->n++;
    }
}

int slr_dir_list(slr_list *out, slr_mem *m, const char *path)
{
    DIR *dir;
    int fd, rc;
    slr_require(out && path);
    memset(out, 0, sizeof *out);
    out->m = m;
    fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NONBLOCK);
    dir = fd < 0 ? NULL : fdopendir(fd);
    if (!dir) {
        int code = errno == ENOENT || errno == ENOTDIR ? SDLORA_ENOTFOUND : SDLORA_EIO;
        rc = slr_fail(code, __func__, "%s: %s", path, strerror(errno));
        slr_file_fd_close(fd);
        return rc;
    }
    rc = collect(out, dir, path);
    closedir(dir);
    if (rc < 0) {
        slr_list_free(out);
        return rc;
    }
    if (out->n > 1)
        qsort(out->item, out->n, sizeof *out->item, by_bytes);
    return SDLORA_OK;
}

int slr_dir_make(const char *path)
{
    char part[PATH_MAX];
    size_t n;
    slr_require(path && *path);
    n = strlen(path);
    if (n >= sizeof part)
        return slr_fail(SDLORA_EINVAL, __func__, "a path of %zu bytes is too long", n);
    memcpy(part, path, n + 1);
    for (size_t i = 1; i <= n; i++) {
        if (part[i] != '/' && part[i] != '\0')
            continue;
        part[i] = '\0';
        /* A part that is there already may give EEXIST, EROFS or EACCES: ask what counts. */
        if (mkdir(part, 0777) != 0 && !slr_dir_exists(part))
            return slr_fail(SDLORA_EIO, __func__, "%s: %s", part,
                            strerror(errno == EEXIST ? ENOTDIR : errno));
        part[i] = i < n ? '/' : '\0';
    }
    return SDLORA_OK;
}

char *slr_path_join(slr_mem *m, const char *dir, const char *name)
{
    size_t nd = strlen(dir), nn = strlen(name);
    size_t slash = nd && dir[nd - 1] != '/';
    char *out = slr_alloc(m, nd + slash + nn + 1);
    if (!out)
        return NULL;
    memcpy(out, dir, nd);
    if (slash)
        out[nd] = '/';
    memcpy(out + nd + slash, name, nn + 1);
    return out;
}

const char *slr_path_base(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

size_t slr_path_stem(const char *base)
{
    size_t lead = strspn(base, "."); /* ".bashrc" is all stem, as in Python's splitext */
    const char *dot = strrchr(base + lead, '.');
    return dot ? (size_t)(dot - base) : strlen(base);
}

bool slr_path_is_inner(const char *name)
{
    if (!name || !*name || *name == '/' || strlen(name) >= PATH_MAX)
        return false;
    while (*name) {
        size_t n = strcspn(name, "/");
        if (n == 2 && name[0] == '.' && name[1] == '.')
            return false;
        name += n + (name[n] == '/');
    }
    return true;
}
