/* SPDX-License-Identifier: MIT */
/* sdlora generate: pictures from a prompt, or again from a picture's parameters, with networks by
 * tag or by file. */
#include "setup.h"
#include "draw.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct job {
    cli_setup s;
    const char *out;
    bool json;
} job;

/* Where the ending of a picture's file begins; NULL: `path` is a directory. */
static const char *ending(const char *path)
{
    static const char *const ends[] = {".png", ".jpg", ".jpeg", ".webp"};
    size_t n = strlen(path);

    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        size_t k = strlen(ends[i]);
        if (n > k && !strcasecmp(path + n - k, ends[i]))
            return path + n - k;
    }
    return NULL;
}

/* "out.png", "out-002.png" for further ones, or "DIR/00000-SEED.png" with the first free number. */
static void file_name(const job *j, long long k, long long seed, char *path, size_t size)
{
    const char *end = ending(j->out);

    if (end && k == 0) {
        snprintf(path, size, "%s", j->out);
    } else if (end) {
        snprintf(path, size, "%.*s-%03lld%s", (int)(end - j->out), j->out, k + 1, end);
    } else {
        long long number = k;

        do
            snprintf(path, size, "%s/%05lld-%lld.png", j->out, number++, seed);
        while (access(path, F_OK) == 0);
    }
}

/* Seeds of picture k: those of variations of one picture count up instead of its own. */
static int set_seeds(sdlora_options *o, long long k, long long *seed, long long subseed)
{
    double strength = 0;

    sdlora_options_get_real(o, "subseed_strength", &strength);
    if (strength <= 0)
        *seed += k;
    else if (subseed >= 0 && sdlora_options_set_int(o, "subseed", subseed + k) < 0)
        return SDLORA_EINVAL;
    return sdlora_options_set_int(o, "seed", *seed);
}

static int draw_one(job *j, sdlora_options *o, long long k, long long count, long long seed,
                    long long subseed)
{
    char what[64], path[4096];
    sdlora_image *image = NULL;
    int rc;

    snprintf(what, sizeof what, "picture %lld/%lld", k + 1, count);
    rc = set_seeds(o, k, &seed, subseed);
    if (rc >= 0)
        rc = cli_draw(j->s.g, o, what, &image);
    file_name(j, k, seed, path, sizeof path);
    if (rc >= 0)
        rc = sdlora_image_save_as(image, path, cli_setup_quality(&j->s));
    sdlora_image_unref(image);
    if (rc < 0)
        return rc;
    cli_progress_end();
    if (!j->json) {
        printf("%s\n", path);
    } else {
        printf("{\"file\": ");
        cli_quote(path);
        printf(", \"seed\": %lld}\n", seed);
    }
    fflush(stdout);
    return SDLORA_OK;
}

static int draw_all(job *j, sdlora_options *o)
{
    int64_t count = 1, subseed = -1;
    long long seed = cli_seed(o);
    int rc = SDLORA_OK;

    sdlora_options_get_int(o, "count", &count);
    sdlora_options_get_int(o, "subseed", &subseed);
    if (seed > INT64_MAX - (count - 1))
        return cli_usage("--seed %lld is too large for --count %lld: picture k has the seed plus k",
                         seed, (long long)count);
    sdlora_options_set_int(o, "count", 1); /* each is saved as soon as it is done */
    for (int64_t k = 0; rc >= 0 && k < count; k++)
        rc = draw_one(j, o, k, count, seed, subseed);
    return rc < 0 ? cli_failed() : CLI_OK;
}

static int run(job *j)
{
    if (!ending(j->out) && mkdir(j->out, 0777) < 0 && errno != EEXIST)
        return cli_usage("--out %s: %s", j->out, strerror(errno));
    if (cli_setup_open(&j->s) < 0)
        return cli_failed();
    return draw_all(j, cli_options(j->s.args, "generate"));
}

int cli_generate(int argc, char **argv)
{
    static const char *const kinds[] = {"generate", "checkpoint", "context", NULL};
    job j = {.out = "."};
    const cli_flag flags[] = {
        CLI_SETUP_FLAGS(j.s),
        {"out", CLI_FLAG_TEXT, &j.out, "a .png, .jpg or .webp file, or a directory"},
        {"json", CLI_FLAG_BOOL, &j.json, "print one JSON object per picture"},
        {"n_iter", CLI_FLAG_ALIAS, NULL, "count"},
    };
    cli_args a = {.usage = "generate --ckpt MODEL --prompt TEXT [--out FILE_OR_DIR] ...",
                  .flags = flags,
                  .n_flags = sizeof flags / sizeof *flags,
                  .kinds = kinds};
    int status = cli_setup_parse(&j.s, &a, argc, argv);

    if (status < 0)
        status = run(&j);
    cli_setup_close(&j.s);
    cli_args_free(&a);
    return status;
}
