/* SPDX-License-Identifier: MIT */
/* sdlora grid: a picture for each combination of up to three settings, on one labelled sheet.
 *
 * The first interrupt (Ctrl-C) ends the drawing; what is drawn is written all the same. */
#include "setup.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct job {
    cli_setup s;
    const char *out, *cells;
    bool sub_grids;
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

/* A model's name: a path, which is all that names in --ckpt_dir have become, or a file beside
 * --ckpt with or without its ending. */
static void find_model(const cli_setup *s, const char *name, char *path, size_t size)
{
    static const char *const ends[] = {"", ".safetensors", ".ckpt"};
    const char *slash = strrchr(s->ckpt, '/');
    int folder = slash ? (int)(slash - s->ckpt) + 1 : 0;

    snprintf(path, size, "%s", name);
    for (size_t i = 0; access(path, F_OK) != 0 && i < sizeof ends / sizeof *ends; i++)
        snprintf(path, size, "%.*s%s%s", folder, s->ckpt, name, ends[i]);
    if (access(path, F_OK) != 0) /* the library says what is wrong with it */
        snprintf(path, size, "%s", name);
}

/* Another model with everything that the first one has. */
static int open_model(sdlora_generator **out, const char *name, void *user)
{
    const cli_setup *s = user;
    cli_model m = s->m;
    char path[4096];

    find_model(s, name, path, sizeof path);
    int rc = sdlora_checkpoint_open(&m.ckpt, m.ctx, path, cli_options(s->args, "checkpoint"));
    if (rc < 0)
        return rc;
    rc = cli_setup_generator(out, s, m);
    sdlora_checkpoint_unref(m.ckpt);
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
        rc = sdlora_image_save_as(image, path, cli_setup_quality(&j->s));
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
    const cli_args *a = j->s.args;
    int rc = cli_setup_open(&j->s);

    if (rc >= 0)
        rc = sdlora_grid_new(&j->grid, j->s.g, cli_options(a, "grid"), cli_options(a, "generate"));
    if (rc >= 0)
        rc = sdlora_grid_set_models(j->grid, open_model, &j->s);
    return rc < 0 ? cli_failed() : draw(j);
}

int cli_grid(int argc, char **argv)
{
    static const char *const kinds[] = {"grid", "generate", "checkpoint", "context", NULL};
    job j = {.out = "grid.png"};
    const cli_flag flags[] = {
        CLI_SETUP_FLAGS(j.s),
        {"out", CLI_FLAG_TEXT, &j.out, "the sheet: a .png, .jpg or .webp file"},
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
    int status = cli_setup_parse(&j.s, &a, argc, argv);

    if (status < 0)
        status = run(&j);
    sdlora_grid_unref(j.grid);
    cli_setup_close(&j.s);
    cli_args_free(&a);
    return status;
}
