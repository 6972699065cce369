/* SPDX-License-Identifier: MIT */
/* The public face of option sets.  All rules are in base/options.c; here arguments are checked and
 * the table's rows are shown. */
#include "api/api.h"

#include <string.h>

#include "base/status.h"
#include "sample/infotext.h"
#include "train/metafrom.h"

int sdlora_options_new(sdlora_options **out, const char *kind)
{
    slr_clear();
    SLR_TRY(slr_api_given(out, "out", __func__));
    *out = NULL;
    SLR_TRY(slr_api_given(kind, "kind", __func__));
    return slr_options_new(out, NULL, kind);
}

sdlora_options *sdlora_options_ref(sdlora_options *o)
{
    return slr_options_ref(o);
}

void sdlora_options_unref(sdlora_options *o)
{
    slr_options_unref(o);
}

const char *sdlora_options_kind(const sdlora_options *o)
{
    return o ? slr_options_kind(o) : NULL;
}

static int check(const sdlora_options *o, const char *name, const char *where)
{
    slr_clear();
    SLR_TRY(slr_api_given(o, "o", where));
    return slr_api_given(name, "name", where);
}

int sdlora_options_set_int(sdlora_options *o, const char *name, int64_t value)
{
    SLR_TRY(check(o, name, __func__));
    return slr_options_set_int(o, name, value);
}

int sdlora_options_set_real(sdlora_options *o, const char *name, double value)
{
    SLR_TRY(check(o, name, __func__));
    return slr_options_set_real(o, name, value);
}

int sdlora_options_set_text(sdlora_options *o, const char *name, const char *value)
{
    SLR_TRY(check(o, name, __func__));
    return slr_options_set_text(o, name, value);
}

/* The row of a name that is to be read; a typo gets the setters' sentence. */
static int find(const sdlora_options *o, const char *name, const slr_option_row **row)
{
    *row = slr_option_find(slr_options_kind(o), name);
    if (*row)
        return SDLORA_OK;
    sdlora_options *scratch;
    SLR_TRY(slr_options_new(&scratch, NULL, slr_options_kind(o)));
    int rc = slr_options_set_text(scratch, name, "");
    slr_options_unref(scratch);
    return rc;
}

static int is_number(const slr_option_row *row, const char *where)
{
    if (row->type == SLR_OPT_INT || row->type == SLR_OPT_REAL || row->type == SLR_OPT_BOOL)
        return SDLORA_OK;
    return slr_fail(SDLORA_EINVAL, where, "%s is text: read it with sdlora_options_get_text",
                    row->name);
}

int sdlora_options_get_int(const sdlora_options *o, const char *name, int64_t *value)
{
    const slr_option_row *row;

    SLR_TRY(check(o, name, __func__));
    SLR_TRY(slr_api_given(value, "value", __func__));
    *value = 0;
    SLR_TRY(find(o, name, &row));
    SLR_TRY(is_number(row, __func__));
    if (row->type == SLR_OPT_REAL)
        return slr_fail(SDLORA_EINVAL, __func__,
                        "%s is a real number: read it with sdlora_options_get_real", name);
    slr_opt set = {o, row->kind};
    if (!slr_opt_has(set, name))
        return SDLORA_DONE;
    *value = slr_opt_int(set, name);
    return SDLORA_OK;
}

int sdlora_options_get_real(const sdlora_options *o, const char *name, double *value)
{
    const slr_option_row *row;

    SLR_TRY(check(o, name, __func__));
    SLR_TRY(slr_api_given(value, "value", __func__));
    *value = 0;
    SLR_TRY(find(o, name, &row));
    SLR_TRY(is_number(row, __func__));
    slr_opt set = {o, row->kind};
    if (!slr_opt_has(set, name))
        return SDLORA_DONE;
    *value = row->type == SLR_OPT_REAL ? slr_opt_real(set, name) : (double)slr_opt_int(set, name);
    return SDLORA_OK;
}

int sdlora_options_get_text(const sdlora_options *o, const char *name, const char **value)
{
    const slr_option_row *row;

    SLR_TRY(check(o, name, __func__));
    SLR_TRY(slr_api_given(value, "value", __func__));
    *value = NULL;
    SLR_TRY(find(o, name, &row));
    slr_opt set = {o, row->kind};
    if (!slr_opt_has(set, name))
        return SDLORA_DONE;
    *value = slr_opt_text(set, name);
    return SDLORA_OK;
}

int sdlora_options_from_metadata(sdlora_options *o, sdlora_context *ctx, const char *path,
                                 char **notes)
{
    SLR_TRY(check(o, "", __func__));
    if (notes)
        *notes = NULL;
    SLR_TRY(slr_api_given(ctx, "ctx", __func__));
    SLR_TRY(slr_api_given(path, "path", __func__));
    return slr_options_from_metadata(o, ctx->mem, path, notes);
}

int sdlora_options_from_infotext(sdlora_options *o, sdlora_context *ctx, const char *text,
                                 char **notes)
{
    slr_info info;
    slr_buf lines;

    SLR_TRY(check(o, "", __func__));
    if (notes)
        *notes = NULL;
    SLR_TRY(slr_api_given(ctx, "ctx", __func__));
    SLR_TRY(slr_api_given(text, "text", __func__));
    SLR_TRY(slr_api_kind(o, "generate", __func__));
    if (slr_utf8_valid(text, strlen(text)) != strlen(text))
        return slr_fail(SDLORA_EINVAL, __func__, "the text is not UTF-8");
    SLR_TRY(slr_info_read(&info, ctx->mem, text));
    slr_buf_init(&lines, ctx->mem);
    int rc = slr_info_complete(&info, ctx->mem);
    if (rc >= 0)
        rc = slr_info_options(&info, ctx->mem, o, &lines);
    if (rc >= 0 && notes && !(*notes = slr_buf_take(&lines)))
        rc = SDLORA_ENOMEM;
    slr_buf_free(&lines);
    slr_info_free(&info);
    return rc;
}

int sdlora_option_at(const char *kind, size_t i, sdlora_option_info *info)
{
    size_t count, seen = 0;
    const slr_option_row *rows = slr_option_rows(&count);

    slr_clear();
    SLR_TRY(slr_api_given(info, "info", __func__));
    for (size_t k = 0; k < count; k++) {
        if ((kind && strcmp(rows[k].kind, kind) != 0) || seen++ != i)
            continue;
        sdlora_option_info filled = {
            .kind = rows[k].kind,
            .name = rows[k].name,
            .help = rows[k].help,
            .choices = rows[k].choices,
            .default_text = rows[k].def,
            .min = rows[k].min,
            .max = rows[k].max,
            .type = rows[k].type,
        };
        return slr_api_fill(info, &filled, sizeof filled, __func__);
    }
    return slr_fail(SDLORA_ENOTFOUND, __func__, "there are %zu options%s%s, no number %zu", seen,
                    kind ? " of the kind " : "", kind ? kind : "", i);
}
