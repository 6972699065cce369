/* SPDX-License-Identifier: MIT */
/* Whole folders that appear at once: filled under a hidden name beside their own, then renamed.  It
 * knows that they hold files and one level of folders; it refuses to know what is in them. */
#include "io/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/status.h"
#include "base/str.h"

enum { MAX_STAGES = 100 };

/* The new folder's place is free: nothing is there, or an empty folder. */
static int check_free(slr_mem *m, const char *path)
{
    struct stat st;
    slr_list l;
    if (lstat(path, &st) != 0)
        return SDLORA_OK;
    if (!S_ISDIR(st.st_mode))
        return slr_fail(SDLORA_EINVAL, "slr_dir_stage", "%s: exists and is no folder", path);
    SLR_TRY(slr_dir_list(&l, m, path));
    size_t n = l.n;
    slr_list_free(&l);
    if (n)
        return slr_fail(SDLORA_EINVAL, "slr_dir_stage",
                        "%s: exists and holds %zu files; name a folder that does not exist", path,
                        n);
    return SDLORA_OK;
}

/* A folder of its own beside `plain`: threads and processes may fill one at the same time. */
static int make_hidden(char **temp, slr_mem *m, const char *plain)
{
    const char *base = slr_path_base(plain);
    for (int i = 0; i < MAX_STAGES; i++) {
        slr_buf b;
        slr_buf_init(&b, m);
        slr_buf_printf(&b, "%.*s.%s.partial.%ld.%d", (int)(base - plain), plain, base,
                       (long)getpid(), i);
        int rc = slr_buf_ok(&b);
        if (rc >= 0 && mkdir(b.data, 0777) == 0) {
            *temp = slr_buf_take(&b);
            return SDLORA_OK;
        }
        if (rc >= 0 && errno != EEXIST)
            rc = slr_fail(SDLORA_EIO, "slr_dir_stage", "%s: %s", b.data, strerror(errno));
        slr_buf_free(&b);
        SLR_TRY(rc);
    }
    return slr_fail(SDLORA_EIO, "slr_dir_stage", "%s: %d unfinished folders lie beside it", plain,
                    MAX_STAGES);
}

int slr_dir_stage(char **temp, slr_mem *m, const char *path)
{
    size_t len = strlen(path);
    *temp = NULL;
    while (len > 1 && path[len - 1] == '/')
        len--;
    char *plain = slr_strndup(m, path, len);
    if (!plain)
        return SDLORA_ENOMEM;
    int rc = check_free(m, plain);
    if (rc == SDLORA_OK)
        rc = make_hidden(temp, m, plain);
    slr_free(m, plain);
    return rc;
}

/* Removes what is in a folder, and the folder. */
static void clear(slr_mem *m, const char *path, int depth)
{
    slr_list l;
    if (slr_dir_list(&l, m, path) < 0)
        return;
    for (size_t i = 0; i < l.n; i++) {
        char *inner = slr_path_join(m, path, l.item[i]);
        if (inner && unlink(inner) != 0 && depth > 0)
            clear(m, inner, depth - 1);
        slr_free(m, inner);
    }
    slr_list_free(&l);
    rmdir(path);
}

void slr_dir_abandon(slr_mem *m, char **temp)
{
    slr_error_copy error;
    if (!*temp)
        return;
    slr_error_take(&error);
    clear(m, *temp, 1);
    if (error.code < 0) /* why it is abandoned is what the caller wants to hear */
        slr_error_put(&error);
    slr_free(m, *temp);
    *temp = NULL;
}

static void sync_parent(slr_mem *m, const char *path)
{
    const char *base = slr_path_base(path);
    char *dir = base > path ? slr_strndup(m, path, (size_t)(base - path)) : slr_strdup(m, ".");
    int fd = dir ? open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    if (fd >= 0) {
        (void)!fsync(fd); /* some file systems can't, and then there is nothing to wait for */
        close(fd);
    }
    slr_free(m, dir);
}

int slr_dir_commit(slr_mem *m, char **temp, const char *path)
{
    if (rename(*temp, path) != 0) {
        int rc = slr_fail(SDLORA_EIO, __func__, "%s: rename: %s", path, strerror(errno));
        slr_dir_abandon(m, temp);
        return rc;
    }
    sync_parent(m, *temp);
    slr_free(m, *temp);
    *temp = NULL;
    return SDLORA_OK;
}
