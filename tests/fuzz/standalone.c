/* SPDX-License-Identifier: MIT */
/* Runs a fuzz target over directories of inputs where there is no libFuzzer: each file as it is,
 * cut at sixteen places, and with single bytes changed, always in a block that ends where the input
 * does. replay-NAME DIRECTORY... */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { CHANGES = 256, INPUT_MAX = 1 << 20 };

static void run(const uint8_t *bytes, size_t n)
{
    uint8_t *tight = malloc(n ? n : 1);
    if (!tight)
        exit(1);
    if (n)
        memcpy(tight, bytes, n);
    LLVMFuzzerTestOneInput(tight, n);
    free(tight);
}

static void run_near(uint8_t *bytes, size_t n)
{
    uint32_t x = 1;
    run(bytes, n);
    for (size_t k = 0; k < 16; k++)
        run(bytes, n * k / 16);
    for (int i = 0; i < CHANGES && n; i++) {
        size_t at;
        uint8_t keep;
        x = x * 1664525 + 1013904223;
        at = (x >> 8) % (n < 4096 || i % 2 ? n : 4096); /* heads matter most */
        keep = bytes[at];
        bytes[at] = (uint8_t)(i % 4 ? x >> 24 : i % 8 ? 0xff : 0);
        run(bytes, n);
        bytes[at] = keep;
    }
}

static size_t run_file(const char *dir, const char *name, uint8_t *bytes)
{
    char path[4096];
    size_t n;
    FILE *f;
    snprintf(path, sizeof path, "%s/%s", dir, name);
    f = fopen(path, "rb");
    if (!f)
        return 0;
    n = fread(bytes, 1, INPUT_MAX, f);
    fclose(f);
    run_near(bytes, n);
    return 1;
}

int main(int argc, char **argv)
{
    uint8_t *bytes = malloc(INPUT_MAX);
    size_t n = 0;
    for (int i = 1; i < argc && bytes; i++) {
        DIR *dir = opendir(argv[i]);
        struct dirent *e;
        if (!dir) {
            printf("%s: not a directory\n", argv[i]);
            return 1;
        }
        while ((e = readdir(dir)) != NULL)
            if (e->d_name[0] != '.')
                n += run_file(argv[i], e->d_name, bytes);
        closedir(dir);
    }
    free(bytes);
    printf("%zu inputs replayed\n", n);
    return n == 0;
}
