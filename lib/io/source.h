/* SPDX-License-Identifier: MIT */
/* Bytes by position, from an open file or from memory, for readers that need only a few of them;
 * and a guess, from its first bytes, at what a file is that is not what it was taken for. */
#ifndef SLR_IO_SOURCE_H
#define SLR_IO_SOURCE_H

#include <stddef.h>
#include <stdint.h>

typedef struct slr_source {
    const uint8_t *bytes; /* NULL: read from fd */
    int fd;
    uint64_t size;
    const char *label; /* stands in messages */
    uint64_t at;       /* window of fd: bytes [at, at + held) */
    size_t held;
    uint8_t window[4096];
} slr_source;

void slr_source_memory(slr_source *s, const void *bytes, size_t n, const char *label);
void slr_source_file(slr_source *s, int fd, uint64_t size, const char *label); /* fd stays open */
/* Copies [at, at + n) into `to`; EFORMAT when the source ends before that. */
int slr_source_get(slr_source *s, uint64_t at, void *to, size_t n);

/* "a git-lfs pointer: ..." or NULL; goes behind "this is". */
const char *slr_file_kind(const void *first, size_t n);

static inline uint32_t slr_be32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static inline uint32_t slr_be16(const uint8_t *p)
{
    return (uint32_t)p[0] << 8 | p[1];
}

static inline uint32_t slr_le16(const uint8_t *p)
{
    return (uint32_t)p[1] << 8 | p[0];
}

static inline uint32_t slr_le32(const uint8_t *p)
{
    return (uint32_t)p[3] << 24 | (uint32_t)p[2] << 16 | (uint32_t)p[1] << 8 | p[0];
}

static inline uint64_t slr_le64(const uint8_t *p)
{
    return (uint64_t)slr_le32(p + 4) << 32 | slr_le32(p);
}

#endif
