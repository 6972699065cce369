/* SPDX-License-Identifier: MIT */
/* Zip files as torch writes them: entries stored, never compressed, so that they can be used where
 * they lie.  A reader of its own, since what counts is each entry's place in the file, and since
 * every doubt (overlaps, two headers that differ, two entries of one name, ZIP64 records that say
 * something else) has to end in a refusal. */
#ifndef SLR_IO_ZIP_H
#define SLR_IO_ZIP_H

#include "base/mem.h"
#include "io/source.h"

typedef struct slr_zip_entry {
    const char *name;  /* NUL-terminated, UTF-8, a plain inner path */
    uint64_t at, size; /* bytes [at, at + size) of the file */
    uint32_t crc;
    uint64_t header; /* where its local header begins */
} slr_zip_entry;

typedef struct slr_zip {
    slr_mem *m;
    slr_zip_entry *entry; /* [n], sorted by name */
    size_t n;
    char *names;
} slr_zip;

int slr_zip_open(slr_zip *out, slr_mem *m, slr_source *s);
void slr_zip_close(slr_zip *z);                                        /* a zeroed one is fine */
const slr_zip_entry *slr_zip_find(const slr_zip *z, const char *name); /* NULL: none */
/* A copy of an entry, its CRC-32 checked; refused above `limit`.  Caller frees. */
int slr_zip_read(const slr_zip *z, slr_source *s, const slr_zip_entry *e, size_t limit,
                 void **bytes);

#endif
