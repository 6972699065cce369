/* SPDX-License-Identifier: MIT */
/* sdlora generate: pictures from a prompt, with networks by tag or by file. */
#include "draw.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct job {
    const char *ckpt, *vae, *out;
    cli_list lora_dirs, loras, embeddings;
    bool json;
    cli_model m;
    sdlora_generator *g;
} job;

static bool is_png(const char *path)
{
    size_t n = strlen(path);

    return n > 4 && !strcmp(path + n - 4, ".png");
}

/* "out.png", "out-002.png" for further ones, or "DIR/00000-SEED.png" with the first free number. */
static void file_name(const job *j, long long k, long long seed, char *path, size_t size)
{
    if (is_png(j->out) && k == 0) {
        snprintf(path, size, "%s", j->out);
    } else if (is_png(j->out)) {
        snprintf(path, size, "%.*s-%03lld.png", (int)strlen(j->out) - 4, j->out, k + 1);
    } else {
        long long number = k;

        do
            snprintf(path, size, "%s/%05lld-%lld.png", j->out, number++, seed);
        while (access(path, F_OK) == 0);
    }
}

static int apply_loras(job *j, const sdlora_options *o)
{
    int rc = cli_add_embeddings(j->g, &j->embeddings);

    for (size_t i = 0; rc >= 0 && i < j->lora_dirs.n; i++)
        rc = sdlora_generator_add_lora_dir(j->g, j->lora_dirs.item[i]);
    for (size_t i = 0; rc >= 0 && i < j->loras.n; i++) {
        sdlora_network *net;
        double weight;

        rc = cli_open_network(&net, &weight, &j->m, j->loras.item[i], o);
        if (rc >= 0)
            rc = sdlora_generator_set_network(j->g, net, weight, weight);
        sdlora_network_unref(net);
    }
    return rc;
}

static int draw_one(job *j, sdlora_options *o, long long k, long long count, long long seed)
{
    char what[64], path[4096];
    sdlora_image *image = NULL;
    int rc;

    snprintf(what, sizeof what, "picture %lld/%lld", k + 1, count);
    rc = sdlora_options_set_int(o, "seed", seed + k);
    if (rc >= 0)
        rc = cli_draw(j->g, o, what, &image);
    file_name(j, k, seed + k, path, sizeof path);
    if (rc >= 0)
        rc = sdlora_image_save(image, path);
    sdlora_image_unref(image);
    if (rc < 0)
        return rc;
    cli_progress_end();
    if (!j->json) {
        printf("%s\n", path);
    } else {
        printf("{\"file\": ");
        cli_quote(path);
        printf(", \"seed\": %lld}\n", seed + k);
    }
    fflush(stdout);
    return SDLORA_OK;
}

static int run(job *j, const cli_args *a)
{
    sdlora_options *o = cli_options(a, "generate");
    int64_t count = 1;
    long long seed = cli_seed(o);
    int rc;

    sdlora_options_get_int(o, "count", &count);
    if (seed > INT64_MAX - (count - 1))
        return cli_usage("--seed %lld is too large for --count %lld: picture k has the seed plus k",
                         seed, (long long)count);
    if (!is_png(j->out) && mkdir(j->out, 0777) < 0 && errno != EEXIST)
        return cli_usage("--out %s: %s", j->out, strerror(errno));
    sdlora_options_set_int(o, "count", 1); /* each is saved as soon as it is done */
    rc = cli_open(&j->m, a, j->ckpt, j->vae);
    if (rc >= 0)
        rc = sdlora_generator_new(&j->g, j->m.ckpt, j->m.vae);
    if (rc >= 0)
        rc = apply_loras(j, o);
    for (int64_t k = 0; rc >= 0 && k < count; k++)
        rc = draw_one(j, o, k, count, seed);
    return rc < 0 ? cli_failed() : CLI_OK;
}

int cli_generate(int argc, char **argv)
{
    static const char *const kinds[] = {"generate", "checkpoint", "context", NULL};
    job j = {.out = "."};
    const cli_flag flags[] = {
        {"ckpt", CLI_FLAG_TEXT, &j.ckpt, "the model: a file or a diffusers folder"},
        {"vae", CLI_FLAG_TEXT, &j.vae, "a VAE file instead of the model's own"},
        {"lora_dir", CLI_FLAG_LIST, &j.lora_dirs,
         "where <lora:name:1> and <hypernet:name:1> are looked up"},
        {"lora", CLI_FLAG_LIST, &j.loras, "FILE:WEIGHT: a network for every picture"},
        {"embeddings", CLI_FLAG_LIST, &j.embeddings,
         "embeddings that prompts may name: a file or a directory"},
        {"out", CLI_FLAG_TEXT, &j.out, "a .png file, or a directory"},
        {"json", CLI_FLAG_BOOL, &j.json, "print one JSON object per picture"},
    };
    cli_args a = {.usage = "generate --ckpt MODEL --prompt TEXT [--out FILE_OR_DIR] ...",
                  .flags = flags,
                  .n_flags = sizeof flags / sizeof *flags,
                  .kinds = kinds};
    int status = cli_parse(&a, argc, argv);

    if (status < 0 && a.words.n)
        status = cli_usage("generate takes flags only; '%s' is none", a.words.item[0]);
    if (status < 0 && !j.ckpt)
        status = cli_usage("generate wants --ckpt MODEL");
    if (status < 0)
        status = run(&j, &a);
    sdlora_generator_unref(j.g);
    cli_close(&j.m);
    cli_args_free(&a);
    return status;
}
