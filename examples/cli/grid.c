/* SPDX-License-Identifier: MIT */
/* sdlora grid: a picture for each combination of up to three settings, on one labelled sheet.
 *
 * The first interrupt (Ctrl-C) ends the drawing; what is drawn is written all the same. */
#include "draw.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct job {
    const char *ckpt, *vae, *out, *cells;
    cli_list lora_dirs, loras, embeddings;
    bool sub_grids;
    const cli_args *args;
    cli_model m;
    sdlora_generator *g;
    sdlora_grid *grid;
} job;

static sdlora_grid *volatile drawing; /* what an interrupt stops */
static volatile sig_atomic_t interrupted;

static void on_interrupt(int number)
{
    (void)number;
    interrupted = 1;
    sdlora_grid_cancel(drawing);
}

static void catch_interrupts(sdlora_grid *grid)
{
    struct sigaction action;

    drawing = grid;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_interrupt;
    action.sa_flags = SA_RESTART | (int)SA_RESETHAND;
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

static int apply_loras(const job *j, sdlora_generator *g, const cli_model *m)
{
    const sdlora_options *o = cli_options(j->args, "generate");
    int rc = cli_add_embeddings(g, &j->embeddings);

    for (size_t i = 0; rc >= 0 && i < j->lora_dirs.n; i++)
        rc = sdlora_generator_add_lora_dir(g, j->lora_dirs.item[i]);
    for (size_t i = 0; rc >= 0 && i < j->loras.n; i++) {
        cli_model borrowed = *m;
        sdlora_network *net;
        double weight;

        rc = cli_open_network(&net, &weight, &borrowed, j->loras.item[i], o);
        if (rc >= 0)
            rc = sdlora_generator_set_network(g, net, weight, weight);
        sdlora_network_unref(net);
    }
    return rc;
}

/* A model's name: a path, or a file beside --ckpt with or without its ending. */
static void find_model(const job *j, const char *name, char *path, size_t size)
{
    static const char *const ends[] = {"", ".safetensors", ".ckpt"};
    const char *slash = strrchr(j->ckpt, '/');
    int folder = slash ? (int)(slash - j->ckpt) + 1 : 0;

    snprintf(path, size, "%s", name);
    for (size_t i = 0; access(path, F_OK) != 0 && i < sizeof ends / sizeof *ends; i++)
        snprintf(path, size, "%.*s%s%s", folder, j->ckpt, name, ends[i]);
    if (access(path, F_OK) != 0) /* the library says what is wrong with it */
        snprintf(path, size, "%s", name);
}

/* Another model with the same networks and the same VAE. */
static int open_model(sdlora_generator **out, const char *name, void *user)
{
    const job *j = user;
    cli_model m = j->m;
    char path[4096];

    find_model(j, name, path, sizeof path);
    int rc = sdlora_checkpoint_open(&m.ckpt, m.ctx, path, cli_options(j->args, "checkpoint"));
    if (rc < 0)
        return rc;
    rc = sdlora_generator_new(out, m.ckpt, m.vae);
    if (rc >= 0)
        rc = apply_loras(j, *out, &m);
    sdlora_checkpoint_unref(m.ckpt);
    if (rc < 0) {
        sdlora_generator_unref(*out);
        *out = NULL;
    }
    return rc;
}

static int show(const sdlora_progress *now, void *user)
{
    char what[64];

    (void)user;
    snprintf(what, sizeof what, "picture %lld/%lld", (long long)now->step + 1,
             (long long)now->total);
    cli_progress(what, now->phase_done, now->phase_total, now->eta, "");
    return 0;
}

static int save_sheet(const job *j, long long z, const char *path)
{
    sdlora_image *image;
    int rc = sdlora_grid_sheet(&image, j->grid, z);

    if (rc >= 0)
        rc = sdlora_image_save(image, path);
    sdlora_image_unref(image);
    if (rc >= 0)
        printf("%s\n", path);
    return rc;
}

/* "sheet.png" -> "sheet-z1.png" */
static int save_sub_grids(const job *j)
{
    size_t n = sdlora_grid_size(j->grid, 2), stem = strlen(j->out);
    const char *dot = strrchr(j->out, '.');
    int rc = SDLORA_OK;

    if (dot)
        stem = (size_t)(dot - j->out);
    for (size_t z = 0; rc >= 0 && n > 1 && z < n && sdlora_grid_cell(j->grid, 0, 0, z); z++) {
        char path[4096];

        snprintf(path, sizeof path, "%.*s-z%zu%s", (int)stem, j->out, z + 1, dot ? dot : "");
        rc = save_sheet(j, (long long)z, path);
    }
    return rc;
}

/* DIR/z1-y1-x1.png ...: each picture with its own parameters. */
static int save_cells(const job *j)
{
    int rc = SDLORA_OK;

    mkdir(j->cells, 0777);
    for (size_t z = 0; z < sdlora_grid_size(j->grid, 2); z++)
        for (size_t y = 0; y < sdlora_grid_size(j->grid, 1); y++)
            for (size_t x = 0; x < sdlora_grid_size(j->grid, 0); x++) {
                sdlora_image *cell = sdlora_grid_cell(j->grid, x, y, z);
                char path[4096];

                snprintf(path, sizeof path, "%s/z%zu-y%zu-x%zu.png", j->cells, z + 1, y + 1, x + 1);
                if (cell && rc >= 0)
                    rc = sdlora_image_save(cell, path);
            }
    return rc;
}

/* Cells first: a sheet that can't be made loses none of them. */
static int save(const job *j)
{
    int rc = j->cells ? save_cells(j) : SDLORA_OK;

    if (rc >= 0)
        rc = save_sheet(j, -1, j->out);
    if (rc >= 0 && j->sub_grids)
        rc = save_sub_grids(j);
    return rc;
}

static bool anything_drawn(const job *j)
{
    for (size_t z = 0; z < sdlora_grid_size(j->grid, 2); z++)
        for (size_t y = 0; y < sdlora_grid_size(j->grid, 1); y++)
            for (size_t x = 0; x < sdlora_grid_size(j->grid, 0); x++)
                if (sdlora_grid_cell(j->grid, x, y, z))
                    return true;
    return false;
}

static int draw(job *j)
{
    catch_interrupts(j->grid);
    int rc = sdlora_grid_run(j->grid, show, NULL);
    drawing = NULL;
    if (rc == SDLORA_ECANCELED && interrupted) {
        cli_progress_end();
        fprintf(stderr, "stopped\n");
        return anything_drawn(j) && save(j) < 0 ? cli_failed() : CLI_INTERRUPTED;
    }
    if (rc < 0) /* the sheet's own calls would clear the failure's text */
        return cli_failed();
    cli_progress_end();
    return save(j) < 0 ? cli_failed() : CLI_OK;
}

static int run(job *j)
{
    int rc = cli_open(&j->m, j->args, j->ckpt, j->vae);

    if (rc >= 0)
        rc = sdlora_generator_new(&j->g, j->m.ckpt, j->m.vae);
    if (rc >= 0)
        rc = apply_loras(j, j->g, &j->m);
    if (rc >= 0)
        rc = sdlora_grid_new(&j->grid, j->g, cli_options(j->args, "grid"),
                             cli_options(j->args, "generate"));
    if (rc >= 0)
        rc = sdlora_grid_set_models(j->grid, open_model, j);
    return rc < 0 ? cli_failed() : draw(j);
}

int cli_grid(int argc, char **argv)
{
    static const char *const kinds[] = {"grid", "generate", "checkpoint", "context", NULL};
    job j = {.out = "grid.png"};
    const cli_flag flags[] = {
        {"ckpt", CLI_FLAG_TEXT, &j.ckpt, "the model: a file or a diffusers folder"},
        {"vae", CLI_FLAG_TEXT, &j.vae, "a VAE file instead of the model's own"},
        {"lora_dir", CLI_FLAG_LIST, &j.lora_dirs,
         "where <lora:name:1> and <hypernet:name:1> are looked up"},
        {"lora", CLI_FLAG_LIST, &j.loras, "FILE:WEIGHT: a network for every picture"},
        {"embeddings", CLI_FLAG_LIST, &j.embeddings,
         "embeddings that prompts may name: a file or a directory"},
        {"out", CLI_FLAG_TEXT, &j.out, "the sheet"},
        {"include_sub_grids", CLI_FLAG_BOOL, &j.sub_grids,
         "also a sheet for each value of z: OUT-z1.png ..."},
        {"cells", CLI_FLAG_TEXT, &j.cells, "a directory for the single pictures"},
    };
    cli_args a = {.usage =
                      "grid --ckpt MODEL --prompt TEXT --x_type AXIS --x_values VALUES [--y_type "
                      "...] --out grid.png",
                  .flags = flags,
                  .n_flags = sizeof flags / sizeof *flags,
                  .kinds = kinds};
    int status = cli_parse(&a, argc, argv);

    if (status < 0 && a.words.n)
        status = cli_usage("grid takes flags only; '%s' is none", a.words.item[0]);
    if (status < 0 && !j.ckpt)
        status = cli_usage("grid wants --ckpt MODEL");
    j.args = &a;
    if (status < 0)
        status = run(&j);
    sdlora_grid_unref(j.grid);
    sdlora_generator_unref(j.g);
    cli_close(&j.m);
    cli_args_free(&a);
    return status;
}
