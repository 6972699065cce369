/* SPDX-License-Identifier: MIT */
/* Bounded reads by position with one small window, so that walking a header costs few system calls
 * and never trusts an offset; and the first bytes of the files that people have by mistake. */
#include "io/source.h"

#include <string.h>

#include "base/status.h"
#include "io/file.h"

void slr_source_memory(slr_source *s, const void *bytes, size_t n, const char *label)
{
    s->bytes = bytes;
    s->fd = -1;
    s->size = n;
    s->label = label;
    s->at = s->held = 0;
}

static int fill_window(slr_source *s, uint64_t at)
{
    size_t n = s->size - at < sizeof s->window ? (size_t)(s->size - at) : sizeof s->window;
    s->held = 0;
    SLR_TRY(slr_file_fd_read(s->fd, s->label, at, s->window, n));
    s->at = at;
    s->held = n;
    return SDLORA_OK;
}

int slr_source_get(slr_source *s, uint64_t at, void *to, size_t n)
{
    if (at > s->size || n > s->size - at)
        return slr_fail(SDLORA_EFORMAT, __func__, "%s: ends early, at byte %llu", s->label,
                        (unsigned long long)s->size);
    if (n == 0)
        return SDLORA_OK;
    if (s->bytes) {
        memcpy(to, s->bytes + at, n);
        return SDLORA_OK;
    }
    if (n > sizeof s->window)
        return slr_file_fd_read(s->fd, s->label, at, to, n);
    if (at < s->at || at + n > s->at + s->held)
        SLR_TRY(fill_window(s, at));
    memcpy(to, s->window + (at - s->at), n);
    return SDLORA_OK;
}

void slr_source_file(slr_source *s, int fd, uint64_t size, const char *label)
{
    slr_source_memory(s, NULL, 0, label);
    s->fd = fd;
    s->size = size;
}

/* What people have under a wrong name: told by content, never by suffix. */
static const struct {
    const char *magic;
    size_t n;
    const char *text;
} kinds[] = {
    {"version https://git-lfs", 23, "a git-lfs pointer: the file itself was never fetched"},
    {"PK\003\004", 4, "a zip file, perhaps a torch checkpoint (.ckpt, .pt) under another name"},
    {"\200\002", 2, "a Python pickle, perhaps an old torch checkpoint under another name"},
    {"\200\003", 2, "a Python pickle"},
    {"\200\004", 2, "a Python pickle"},
    {"\200\005", 2, "a Python pickle"},
    {"GGUF", 4, "a GGUF file"},
    {"7z\274\257", 4, "a 7z archive"},
    {"Rar!", 4, "a RAR archive"},
    {"\037\213", 2, "a gzip file"},
    {"\211HDF", 4, "an HDF5 file"},
    {"\211PNG", 4, "a PNG picture"},
    {"\377\330\377", 3, "a JPEG picture"},
    {"{", 1, "JSON text, perhaps a server's error message saved in place of the file"},
};

const char *slr_file_kind(const void *first, size_t n)
{
    static const unsigned char zero[8];
    const unsigned char *p = first;
    size_t blank = 0;
    if (n >= sizeof zero && !memcmp(p, zero, sizeof zero))
        return "zeros, as a download that was cut short leaves";
    if (n > 9 && p[8] == '{' && p[5] == 0 && p[6] == 0 && p[7] == 0)
        return "a safetensors file under another name";
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (n >= kinds[i].n && !memcmp(p, kinds[i].magic, kinds[i].n))
            return kinds[i].text;
    while (blank < n && (p[blank] == ' ' || (p[blank] >= '\t' && p[blank] <= '\r')))
        blank++;
    return blank < n && p[blank] == '<' ? "a web page saved in place of the file" : NULL;
}
