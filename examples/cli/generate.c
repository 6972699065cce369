/* SPDX-License-Identifier: MIT */
/* sdlora generate: pictures from a prompt, or again from a picture's parameters, with networks by
 * tag or by file. */
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
    const char *ckpt, *vae, *refiner, *out, *from, *quality, *init_image, *mask;
    cli_list lora_dirs, loras, embeddings, vae_dirs, upscaler_dirs, ckpt_dirs;
    bool json;
    cli_model m;
    sdlora_generator *g;
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

/* --- parameters of a picture --- */

static void tell_notes(const char *notes)
{
    for (const char *end; *notes; notes = end + (*end != '\0')) {
        end = notes + strcspn(notes, "\n");
        fprintf(stderr, "sdlora: %.*s\n", (int)(end - notes), notes);
    }
}

/* Options that no flag set come from --from's picture or text file. */
static int read_from(job *j, sdlora_options *o, char **text)
{
    char *notes = NULL;
    int rc = sdlora_image_read_text(j->m.ctx, j->from, text);

    if (rc >= 0)
        rc = sdlora_options_from_infotext(o, j->m.ctx, *text, &notes);
    if (rc >= 0)
        tell_notes(notes);
    sdlora_text_free(j->m.ctx, notes);
    return rc;
}

static int match_from(job *j, sdlora_options *o, const char *text)
{
    char *notes = NULL;
    int rc = sdlora_generator_match(j->g, o, text, &notes);

    if (rc >= 0)
        tell_notes(notes);
    sdlora_text_free(j->m.ctx, notes);
    return rc;
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

/* --refiner is a path, or a name in --ckpt_dir. */
static int refine(job *j, const cli_args *a, sdlora_options *o)
{
    sdlora_checkpoint *refiner;
    int rc = SDLORA_OK;

    for (size_t i = 0; rc >= 0 && i < j->ckpt_dirs.n; i++)
        rc = sdlora_generator_add_ckpt_dir(j->g, j->ckpt_dirs.item[i]);
    if (rc < 0 || !j->refiner)
        return rc;
    if (access(j->refiner, F_OK) < 0 && j->ckpt_dirs.n)
        return sdlora_options_set_text(o, "refiner_checkpoint", j->refiner);
    rc = sdlora_checkpoint_open(&refiner, j->m.ctx, j->refiner, cli_options(a, "checkpoint"));
    if (rc >= 0)
        rc = sdlora_generator_set_refiner(j->g, refiner);
    sdlora_checkpoint_unref(refiner);
    return rc;
}

/* --- pictures to start from --- */

typedef int (*set_picture_fn)(sdlora_generator *g, const sdlora_image *image);

static int set_picture(job *j, const char *path, set_picture_fn set)
{
    sdlora_image *image;
    int rc;

    if (!path)
        return SDLORA_OK;
    rc = sdlora_image_open(&image, j->m.ctx, path);
    if (rc >= 0)
        rc = set(j->g, image);
    sdlora_image_unref(image);
    return rc;
}

static int start_from(job *j)
{
    int rc = set_picture(j, j->init_image, sdlora_generator_set_init_image);

    if (rc >= 0)
        rc = set_picture(j, j->mask, sdlora_generator_set_mask);
    for (size_t i = 0; rc >= 0 && i < j->vae_dirs.n; i++)
        rc = sdlora_generator_add_vae_dir(j->g, j->vae_dirs.item[i]);
    for (size_t i = 0; rc >= 0 && i < j->upscaler_dirs.n; i++)
        rc = sdlora_generator_add_upscaler_dir(j->g, j->upscaler_dirs.item[i]);
    return rc;
}

static int32_t quality_of(const job *j)
{
    return j->quality ? (int32_t)strtol(j->quality, NULL, 10) : SDLORA_QUALITY_DEFAULT;
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
        rc = cli_draw(j->g, o, what, &image);
    file_name(j, k, seed, path, sizeof path);
    if (rc >= 0)
        rc = sdlora_image_save_as(image, path, quality_of(j));
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

static int run(job *j, const cli_args *a)
{
    sdlora_options *o = cli_options(a, "generate");
    char *text = NULL;
    int rc, status;

    if (!ending(j->out) && mkdir(j->out, 0777) < 0 && errno != EEXIST)
        return cli_usage("--out %s: %s", j->out, strerror(errno));
    rc = cli_open(&j->m, a, j->ckpt, j->vae);
    if (rc >= 0 && j->from)
        rc = read_from(j, o, &text);
    if (rc >= 0)
        rc = sdlora_generator_new(&j->g, j->m.ckpt, j->m.vae);
    if (rc >= 0)
        rc = apply_loras(j, o);
    if (rc >= 0)
        rc = refine(j, a, o);
    if (rc >= 0)
        rc = start_from(j);
    if (rc >= 0 && text)
        rc = match_from(j, o, text);
    status = rc < 0 ? cli_failed() : draw_all(j, o);
    sdlora_text_free(j->m.ctx, text);
    return status;
}

int cli_generate(int argc, char **argv)
{
    static const char *const kinds[] = {"generate", "checkpoint", "context", NULL};
    job j = {.out = "."};
    const cli_flag flags[] = {
        {"ckpt", CLI_FLAG_TEXT, &j.ckpt, "the model: a file or a diffusers folder"},
        {"vae", CLI_FLAG_TEXT, &j.vae, "a VAE file instead of the model's own"},
        {"refiner", CLI_FLAG_TEXT, &j.refiner,
         "a model that finishes pictures, from --refiner_switch_at on"},
        {"ckpt_dir", CLI_FLAG_LIST, &j.ckpt_dirs,
         "where --refiner, --hr_checkpoint_name and those of --from's picture are looked up"},
        {"lora_dir", CLI_FLAG_LIST, &j.lora_dirs,
         "where <lora:name:1> and <hypernet:name:1> are looked up"},
        {"lora", CLI_FLAG_LIST, &j.loras, "FILE:WEIGHT: a network for every picture"},
        {"embeddings", CLI_FLAG_LIST, &j.embeddings,
         "embeddings that prompts may name: a file or a directory"},
        {"init_image", CLI_FLAG_TEXT, &j.init_image,
         "a picture to start from (img2img); --width and --height say how large the new one is"},
        {"mask", CLI_FLAG_TEXT, &j.mask, "what of it changes: white, or what is not transparent"},
        {"vae_dir", CLI_FLAG_LIST, &j.vae_dirs, "where --sd_vae is looked up"},
        {"upscaler_dir", CLI_FLAG_LIST, &j.upscaler_dirs,
         "where ESRGAN networks for --hr_upscaler are looked up"},
        {"from", CLI_FLAG_TEXT, &j.from,
         "a picture, or a .txt file, whose parameters count where no flag says otherwise"},
        {"out", CLI_FLAG_TEXT, &j.out, "a .png, .jpg or .webp file, or a directory"},
        {"quality", CLI_FLAG_TEXT, &j.quality,
         "of .jpg and .webp: 1 to 100, 101 for WebP without loss"},
        {"json", CLI_FLAG_BOOL, &j.json, "print one JSON object per picture"},
        {"negative_prompt", CLI_FLAG_ALIAS, NULL, "negative"},
        {"cfg_scale", CLI_FLAG_ALIAS, NULL, "cfg"},
        {"sampler_name", CLI_FLAG_ALIAS, NULL, "sampler"},
        {"n_iter", CLI_FLAG_ALIAS, NULL, "count"},
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
    if (status < 0 && j.quality && (quality_of(&j) < 1 || quality_of(&j) > 101))
        status = cli_usage("--quality %s is not from 1 to 101", j.quality);
    if (status < 0)
        status = run(&j, &a);
    sdlora_generator_unref(j.g);
    cli_close(&j.m);
    cli_args_free(&a);
    return status;
}
