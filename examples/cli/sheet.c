/* SPDX-License-Identifier: MIT */
/* sdlora sheet: every prompt of a file at several strengths of a network, side by side with the
 * same seed. */
#include "draw.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_COLUMNS = 32, MAX_ROWS = 256 };

typedef struct sheet {
    const char *ckpt, *vae, *lora, *prompts, *weights, *out;
    cli_model m;
    cli_list embeddings;
    sdlora_network *net;
    sdlora_generator *g;
    char *row[MAX_ROWS];
    char *column[MAX_COLUMNS];
    double weight[MAX_COLUMNS];
    size_t rows, columns;
    sdlora_image **cells;
} sheet;

/* "0,0.3,1"; the labels are the texts as given. */
static int read_weights(sheet *s)
{
    const char *p = s->weights;

    while (*p) {
        size_t n = strcspn(p, ",");
        char *text = strndup(p, n);

        if (!text || s->columns == MAX_COLUMNS || !cli_real(text, &s->weight[s->columns])) {
            free(text);
            return cli_usage("--weights %s: wanted up to %d numbers with commas", s->weights,
                             MAX_COLUMNS);
        }
        s->column[s->columns++] = text;
        p += n + (p[n] == ',');
    }
    return s->columns ? -1 : cli_usage("--weights is empty");
}

/* One prompt per line; blank lines and those that begin with '#' are left out. */
static int read_prompts(sheet *s)
{
    FILE *f = fopen(s->prompts, "r");
    char *line = NULL;
    size_t cap = 0;
    int status = -1;

    if (!f)
        return cli_usage("--prompts %s: the file can't be read", s->prompts);
    while (status < 0 && getline(&line, &cap, f) >= 0) {
        line[strcspn(line, "\r\n")] = '\0';
        if (!*line || *line == '#')
            continue;
        if (s->rows == MAX_ROWS)
            status = cli_usage("--prompts %s: more than %d prompts", s->prompts, MAX_ROWS);
        else
            s->row[s->rows++] = strdup(line);
    }
    free(line);
    fclose(f);
    return status < 0 && !s->rows ? cli_usage("--prompts %s: no prompt in it", s->prompts) : status;
}

static int draw_cell(sheet *s, sdlora_options *o, size_t i)
{
    double w = s->weight[i % s->columns];
    char what[64];
    int rc = sdlora_generator_set_network(s->g, s->net, w, w);

    if (rc >= 0)
        rc = sdlora_options_set_text(o, "prompt", s->row[i / s->columns]);
    snprintf(what, sizeof what, "picture %zu/%zu", i + 1, s->rows * s->columns);
    return rc < 0 ? rc : cli_draw(s->g, o, what, &s->cells[i]);
}

static int run(sheet *s, const cli_args *a)
{
    sdlora_options *o = cli_options(a, "generate");
    sdlora_image *image = NULL;
    int rc;

    cli_seed(o); /* the same one for all pictures */
    sdlora_options_set_int(o, "count", 1);
    s->cells = calloc(s->rows * s->columns, sizeof(sdlora_image *));
    if (!s->cells)
        return cli_usage("out of memory");
    rc = cli_open(&s->m, a, s->ckpt, s->vae);
    if (rc >= 0)
        rc = sdlora_generator_new(&s->g, s->m.ckpt, s->m.vae);
    if (rc >= 0)
        rc = cli_add_embeddings(s->g, &s->embeddings);
    if (rc >= 0)
        rc = cli_open_network(&s->net, NULL, &s->m, s->lora, o);
    for (size_t i = 0; rc >= 0 && i < s->rows * s->columns; i++)
        rc = draw_cell(s, o, i);
    if (rc >= 0)
        rc = sdlora_image_sheet(&image, s->m.ctx, s->cells, s->rows, s->columns,
                                (const char *const *)s->row, (const char *const *)s->column);
    if (rc >= 0)
        rc = sdlora_image_save(image, s->out);
    sdlora_image_unref(image);
    if (rc < 0)
        return cli_failed();
    cli_progress_end();
    printf("%s\n", s->out);
    return CLI_OK;
}

static void drop(sheet *s)
{
    for (size_t i = 0; s->cells && i < s->rows * s->columns; i++)
        sdlora_image_unref(s->cells[i]);
    free(s->cells);
    for (size_t i = 0; i < s->rows; i++)
        free(s->row[i]);
    for (size_t i = 0; i < s->columns; i++)
        free(s->column[i]);
    sdlora_generator_unref(s->g);
    sdlora_network_unref(s->net);
    cli_close(&s->m);
}

int cli_sheet(int argc, char **argv)
{
    static const char *const kinds[] = {"generate", "checkpoint", "context", NULL};
    sheet s = {.weights = "0,0.5,1", .out = "sheet.png"};
    const cli_flag flags[] = {
        {"ckpt", CLI_FLAG_TEXT, &s.ckpt, "the model"},
        {"vae", CLI_FLAG_TEXT, &s.vae, "a VAE file instead of the model's own"},
        {"lora", CLI_FLAG_TEXT, &s.lora, "the network whose strength varies by column"},
        {"embeddings", CLI_FLAG_LIST, &s.embeddings,
         "embeddings that prompts may name: a file or a directory"},
        {"prompts", CLI_FLAG_TEXT, &s.prompts, "a text file with one prompt per line: the rows"},
        {"weights", CLI_FLAG_TEXT, &s.weights, "strengths with commas: the columns"},
        {"out", CLI_FLAG_TEXT, &s.out, "the .png file to write"},
    };
    cli_args a = {.usage = "sheet --ckpt MODEL --lora FILE --prompts FILE --weights 0,0.5,1 --out "
                           "sheet.png",
                  .flags = flags,
                  .n_flags = sizeof flags / sizeof *flags,
                  .kinds = kinds};
    int status = cli_parse(&a, argc, argv);

    if (status < 0 && a.words.n)
        status = cli_usage("sheet takes flags only; '%s' is none", a.words.item[0]);
    if (status < 0 && (!s.ckpt || !s.lora || !s.prompts))
        status = cli_usage("sheet wants --ckpt MODEL, --lora FILE and --prompts FILE");
    if (status < 0)
        status = read_weights(&s);
    if (status < 0)
        status = read_prompts(&s);
    if (status < 0)
        status = run(&s, &a);
    drop(&s);
    cli_args_free(&a);
    return status;
}
