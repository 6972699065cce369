/* SPDX-License-Identifier: MIT */
/* What "*" among the values of an axis stands for: what the library has built in, what the option
 * can be, and what lies in the generator's directories. */
#include "api/grid_impl.h"

#include <string.h>

#include "api/generator.h"
#include "base/str.h"

/* One more field; quoted where it would be read as something else. */
static void put(slr_buf *b, const char *text, size_t n)
{
    bool quoted = memchr(text, ',', n) || memchr(text, '"', n) || memchr(text, '\n', n);

    if (b->len)
        slr_buf_putc(b, ',');
    if (quoted)
        slr_buf_putc(b, '"');
    for (size_t i = 0; i < n; i++) {
        if (text[i] == '"')
            slr_buf_putc(b, '"');
        slr_buf_putc(b, text[i]);
    }
    if (quoted)
        slr_buf_putc(b, '"');
}

static void put_choices(slr_buf *b, const slr_grid_axis *row)
{
    const slr_option_row *o = row->option ? slr_option_find("generate", row->option) : NULL;
    slr_str rest = slr_str_of(o && o->choices ? o->choices : ""), word;
    const char *one;

    if (o && o->type == SLR_OPT_BOOL)
        rest = slr_str_of("False|True");
    for (size_t i = 0; row->choice && (one = row->choice(i)) != NULL; i++)
        put(b, one, strlen(one));
    while (rest.n && slr_str_next(&rest, '|', &word))
        put(b, word.p, word.n);
}

static const slr_folders *folders_of(const sdlora_grid *g, int files)
{
    const slr_api_start *s = &g->g->start;
    const slr_folders *const of[] = {
        [SLR_GRID_VAES] = &s->vaes,
        [SLR_GRID_UPSCALERS] = &s->upscalers,
        [SLR_GRID_CHECKPOINTS] = &s->ckpts,
    };

    return of[files];
}

/* By AUTOMATIC1111's names: upscalers go without their endings, and VAEs beside checkpoints are
 * none. */
static int put_files(slr_buf *b, const sdlora_grid *g, int files)
{
    slr_list names;
    int rc = slr_folders_names(folders_of(g, files), files == SLR_GRID_UPSCALERS, &names);

    for (size_t i = 0; rc >= 0 && i < names.n; i++) {
        const char *name = names.item[i];
        size_t n = slr_path_stem(name);

        if (files != SLR_GRID_CHECKPOINTS || n < 4 || strncmp(name + n - 4, ".vae", 4) != 0)
            put(b, name, strlen(name));
    }
    slr_list_free(&names);
    return rc;
}

int slr_grid_star(const sdlora_grid *g, const slr_grid_axis *row, char **out)
{
    slr_buf b;
    int rc = SDLORA_OK;

    *out = NULL;
    slr_buf_init(&b, g->m);
    put_choices(&b, row);
    if (row->files)
        rc = put_files(&b, g, row->files);
    if (rc >= 0 && (rc = slr_buf_ok(&b)) >= 0 && b.len)
        *out = slr_buf_take(&b);
    slr_buf_free(&b);
    return rc;
}
