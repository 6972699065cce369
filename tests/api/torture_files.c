/* SPDX-License-Identifier: MIT */
/* What the torture's scenarios read: a model as small as can be, pictures with captions, a network
 * to be found.  Knows how a golden model becomes one with a whole vocabulary; refuses to know what
 * is done with it. */
#include "torture.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <sdlora/sdlora.h>

void torture_die(const char *what)
{
    fprintf(stderr, "torture: %s: %s\n", what, sdlora_last_error()->message);
    exit(2);
}

const char *torture_in(const char *dir, const char *name)
{
    static char path[4][256];
    static int next;
    char *p = path[next++ % 4];

    snprintf(p, sizeof path[0], "%s/%s", dir, name);
    return p;
}

static char *read_whole(const char *path, size_t *n)
{
    FILE *f = fopen(path, "rb");
    char *data = NULL;

    if (f && !fseek(f, 0, SEEK_END)) {
        *n = (size_t)ftell(f);
        rewind(f);
        data = malloc(*n + 1);
        if (data && fread(data, 1, *n, f) != *n)
            torture_die(path);
    }
    if (!data)
        torture_die(path);
    data[*n] = '\0';
    fclose(f);
    return data;
}

/* The golden model has 256 tokens: this one has all of CLIP's, the same 256 rows again and again.
 */
static void make_model(const char *dir, const char *name)
{
    enum { ROWS = 256, ALL = 49408, ROW = 64 * 2 };
    static const char key[] = "token_embedding.weight\":{\"dtype\":\"F16\",\"shape\":[256,64],"
                              "\"data_offsets\":[";
    static const char mark[] = "\"data_offsets\":[";
    size_t n = 0;
    char *old = read_whole(LAYOUTS "ldm.safetensors", &n);
    uint64_t header, shift = (ALL - ROWS) * ROW;
    memcpy(&header, old, 8);
    char *json = malloc(header * 2), *out = json, *p = old + 8, *end = p + header;
    char *at = strstr(p, key);
    if (!json || !at)
        torture_die("ldm.safetensors is not what it was");
    uint64_t stop = strtoull(strchr(at + sizeof key - 1, ',') + 1, NULL, 10);
    while (p < end) {
        if (strncmp(p, mark, sizeof mark - 1) != 0) {
            *out++ = *p++;
            continue;
        }
        uint64_t lo = strtoull(p + sizeof mark - 1, &p, 10), hi = strtoull(p + 1, &p, 10);
        out += sprintf(out, "%s%" PRIu64 ",%" PRIu64, mark, lo < stop ? lo : lo + shift,
                       hi < stop ? hi : hi + shift);
    }
    *out = '\0';
    /* the shape grows by two digits, the padding at the end gives way or grows */
    at = strstr(json, "\"shape\":[256,64]") + strlen("\"shape\":[");
    memmove(at + 5, at + 3, strlen(at + 3) + 1);
    memcpy(at, "49408", 5);
    out += 2;
    while ((out - json) % 8)
        *out++ = ' ';

    const char *temp = torture_in(dir, "model"); /* torture of other scenarios may be at it too */
    FILE *f = fopen(temp, "wb");
    uint64_t bytes = (uint64_t)(out - json);
    const char *data = old + 8 + header;
    if (!f || !fwrite(&bytes, 8, 1, f) || !fwrite(json, bytes, 1, f) || !fwrite(data, stop, 1, f))
        torture_die(temp);
    for (int i = ROWS; i < ALL; i += ROWS)
        fwrite(data + stop - ROWS * ROW, ROWS * ROW, 1, f);
    fwrite(data + stop, n - 8 - header - stop, 1, f);
    if (fclose(f) || rename(temp, name))
        torture_die(temp);
    free(json);
    free(old);
}

static void make_dir(const char *path)
{
    if (mkdir(path, 0777) && errno != EEXIST)
        torture_die(path);
}

/* Pictures with captions, a network to be found, and a folder for what is written. */
void torture_files(const char *dir)
{
    static const char *const stems[] = {"pictures/1_ramp/0", "pictures/1_ramp/1", "single/0"};
    uint8_t rgb[80 * 64 * 3];
    sdlora_context *ctx;
    sdlora_checkpoint *ckpt;
    sdlora_network *net;
    sdlora_image *img;
    char name[64];
    struct stat st;

    make_dir(dir);
    make_dir(torture_in(dir, "pictures"));
    make_dir(torture_in(dir, "pictures/1_ramp"));
    make_dir(torture_in(dir, "single"));
    make_dir(torture_in(dir, "loras"));
    make_dir(torture_in(dir, "models"));
    make_dir(torture_in(dir, "out"));
    if (stat(CKPT, &st))
        make_model(dir, CKPT);
    if (stat(SECOND, &st))
        make_model(dir, SECOND);
    if (symlink("../../" SECOND, torture_in(dir, "models/second.safetensors")) && errno != EEXIST)
        torture_die("link");
    if (sdlora_context_new(&ctx, NULL, NULL) < 0)
        torture_die("context");
    for (int k = 0; k < 3; k++) {
        for (size_t i = 0; i < sizeof rgb; i++)
            rgb[i] = (uint8_t)(i / 3 % 64 * 4 + (size_t)k * 30);
        snprintf(name, sizeof name, "%s.png", stems[k]);
        if (sdlora_image_new(&img, ctx, k == 1 ? 80 : 64, 64, rgb) < 0 ||
            sdlora_image_save(img, torture_in(dir, name)) < 0)
            torture_die(name);
        sdlora_image_unref(img);
        snprintf(name, sizeof name, "%s.txt", stems[k]);
        FILE *f = fopen(torture_in(dir, name), "w");
        if (!f || fprintf(f, "ramp, number %d", k) < 0 || fclose(f))
            torture_die(name);
    }
    if (sdlora_checkpoint_open(&ckpt, ctx, CKPT, NULL) < 0 ||
        sdlora_network_new(&net, ckpt, NULL, 1) < 0 ||
        sdlora_network_save(net, torture_in(dir, "loras/found.safetensors"), NULL) < 0)
        torture_die("network");
    sdlora_network_unref(net);
    sdlora_checkpoint_unref(ckpt);
    sdlora_context_unref(ctx);
}
