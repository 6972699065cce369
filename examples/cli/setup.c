/* SPDX-License-Identifier: MIT */
/* Opening what pictures are drawn with. */
#include "setup.h"
#include "draw.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* --- flags --- */

int32_t cli_setup_quality(const cli_setup *s)
{
    return s->quality ? (int32_t)strtol(s->quality, NULL, 10) : SDLORA_QUALITY_DEFAULT;
}

int cli_setup_parse(cli_setup *s, cli_args *a, int argc, char **argv)
{
    int verb = (int)strcspn(a->usage, " "), status = cli_parse(a, argc, argv);

    s->args = a;
    if (status >= 0)
        return status;
    if (a->words.n)
        return cli_usage("%.*s takes flags only; '%s' is none", verb, a->usage, a->words.item[0]);
    if (!s->ckpt)
        return cli_usage("%.*s wants --ckpt MODEL", verb, a->usage);
    if (s->quality && (cli_setup_quality(s) < 1 || cli_setup_quality(s) > 101))
        return cli_usage("--quality %s is not from 1 to 101", s->quality);
    return -1;
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
static int read_from(const cli_setup *s, char **text)
{
    char *notes = NULL;
    int rc = sdlora_image_read_text(s->m.ctx, s->from, text);

    if (rc >= 0)
        rc =
            sdlora_options_from_infotext(cli_options(s->args, "generate"), s->m.ctx, *text, &notes);
    if (rc >= 0)
        tell_notes(notes);
    sdlora_text_free(s->m.ctx, notes);
    return rc;
}

static int match_from(const cli_setup *s, const char *text)
{
    char *notes = NULL;
    int rc = sdlora_generator_match(s->g, cli_options(s->args, "generate"), text, &notes);

    if (rc >= 0)
        tell_notes(notes);
    sdlora_text_free(s->m.ctx, notes);
    return rc;
}

/* --- a generator --- */

static int apply_loras(sdlora_generator *g, const cli_setup *s, cli_model *m)
{
    int rc = cli_add_embeddings(g, &s->embeddings);

    for (size_t i = 0; rc >= 0 && i < s->loras.n; i++) {
        sdlora_network *net;
        double weight;

        rc = cli_open_network(&net, &weight, m, s->loras.item[i], cli_options(s->args, "generate"));
        if (rc >= 0)
            rc = sdlora_generator_set_network(g, net, weight, weight);
        sdlora_network_unref(net);
    }
    return rc;
}

static int add_dirs(sdlora_generator *g, const cli_setup *s)
{
    const struct {
        const cli_list *dirs;
        int (*add)(sdlora_generator *g, const char *dir);
    } kinds[] = {
        {&s->lora_dirs, sdlora_generator_add_lora_dir},
        {&s->ckpt_dirs, sdlora_generator_add_ckpt_dir},
        {&s->vae_dirs, sdlora_generator_add_vae_dir},
        {&s->upscaler_dirs, sdlora_generator_add_upscaler_dir},
    };
    int rc = SDLORA_OK;

    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++)
        for (size_t i = 0; rc >= 0 && i < kinds[k].dirs->n; i++)
            rc = kinds[k].add(g, kinds[k].dirs->item[i]);
    return rc;
}

/* --refiner is a path, or a name in --ckpt_dir. */
static int refine(sdlora_generator *g, const cli_setup *s)
{
    sdlora_checkpoint *refiner;

    if (!s->refiner)
        return SDLORA_OK;
    if (access(s->refiner, F_OK) < 0 && s->ckpt_dirs.n)
        return sdlora_options_set_text(cli_options(s->args, "generate"), "refiner_checkpoint",
                                       s->refiner);
    int rc =
        sdlora_checkpoint_open(&refiner, s->m.ctx, s->refiner, cli_options(s->args, "checkpoint"));
    if (rc >= 0)
        rc = sdlora_generator_set_refiner(g, refiner);
    sdlora_checkpoint_unref(refiner);
    return rc;
}

typedef int (*set_picture_fn)(sdlora_generator *g, const sdlora_image *image);

static int set_picture(sdlora_generator *g, const cli_setup *s, const char *path,
                       set_picture_fn set)
{
    sdlora_image *image;

    if (!path)
        return SDLORA_OK;
    int rc = sdlora_image_open(&image, s->m.ctx, path);
    if (rc >= 0)
        rc = set(g, image);
    sdlora_image_unref(image);
    return rc;
}

int cli_setup_generator(sdlora_generator **out, const cli_setup *s, cli_model m)
{
    int rc = sdlora_generator_new(out, m.ckpt, m.vae);

    if (rc < 0)
        return rc;
    rc = apply_loras(*out, s, &m);
    if (rc >= 0)
        rc = add_dirs(*out, s);
    if (rc >= 0)
        rc = refine(*out, s);
    if (rc >= 0)
        rc = set_picture(*out, s, s->init_image, sdlora_generator_set_init_image);
    if (rc >= 0)
        rc = set_picture(*out, s, s->mask, sdlora_generator_set_mask);
    if (rc < 0) {
        sdlora_generator_unref(*out);
        *out = NULL;
    }
    return rc;
}

int cli_setup_open(cli_setup *s)
{
    char *text = NULL;
    int rc = cli_open(&s->m, s->args, s->ckpt, s->vae);

    if (rc >= 0 && s->from)
        rc = read_from(s, &text);
    if (rc >= 0)
        rc = cli_setup_generator(&s->g, s, s->m);
    if (rc >= 0 && text)
        rc = match_from(s, text);
    sdlora_text_free(s->m.ctx, text);
    return rc;
}

void cli_setup_close(cli_setup *s)
{
    sdlora_generator_unref(s->g);
    cli_close(&s->m);
}
