/* SPDX-License-Identifier: MIT */
/* Which text of a picture tells how it was made, and NovelAI's words in AUTOMATIC1111's.  It
 * follows images.read_info_from_image of version 1.10.1. */
#include "sample/infotext.h"

#include <string.h>

#include "base/status.h"
#include "io/json.h"
#include "sample/solver.h"

bool slr_infotext_is_source(const char *keyword)
{
    return !strcmp(keyword, "parameters") || !strcmp(keyword, "UserComment");
}

/* A value as Python's f-string writes it. */
static int put_value(slr_buf *b, const json_t *v)
{
    char text[32];
    if (json_is_string(v)) {
        slr_buf_puts(b, json_string_value(v));
    } else if (json_is_integer(v)) {
        slr_buf_printf(b, "%lld", (long long)json_integer_value(v));
    } else if (json_is_real(v)) {
        slr_real_repr(json_real_value(v), text);
        slr_buf_puts(b, text);
    } else {
        return SDLORA_ENOTFOUND;
    }
    return slr_buf_ok(b);
}

static int put_novelai(slr_buf *b, const slr_image_texts *texts, const json_t *info, int32_t width,
                       int32_t height)
{
    const char *description = slr_image_texts_get(texts, "Description"),
               *name = json_string_value(json_object_get(info, "sampler"));
    const slr_sampler_row *sampler = name ? slr_sampler_find(name) : NULL;
    if (!description || !name)
        return SDLORA_ENOTFOUND;
    slr_buf_printf(b, "%s\nNegative prompt: ", description);
    SLR_TRY(put_value(b, json_object_get(info, "uc")));
    slr_buf_puts(b, "\nSteps: ");
    SLR_TRY(put_value(b, json_object_get(info, "steps")));
    slr_buf_printf(b, ", Sampler: %s, CFG scale: ", sampler ? sampler->name : "Euler a");
    SLR_TRY(put_value(b, json_object_get(info, "scale")));
    slr_buf_puts(b, ", Seed: ");
    SLR_TRY(put_value(b, json_object_get(info, "seed")));
    slr_buf_printf(b, ", Size: %dx%d, Clip skip: 2, ENSD: 31337", width, height);
    return slr_buf_ok(b);
}

/* DONE: the picture is not NovelAI's, or its words are not the known ones. */
static int from_novelai(char **out, slr_mem *m, const slr_image_texts *texts, int32_t width,
                        int32_t height)
{
    const char *software = slr_image_texts_get(texts, "Software"),
               *comment = slr_image_texts_get(texts, "Comment");
    json_t *info;
    slr_buf b;
    if (!software || strcmp(software, "NovelAI") != 0 || !comment)
        return SDLORA_DONE;
    if (slr_json_parse(&info, comment, strlen(comment), "Comment") < 0) {
        slr_clear();
        return SDLORA_DONE;
    }
    slr_buf_init(&b, m);
    int rc = put_novelai(&b, texts, info, width, height);
    json_decref(info);
    if (rc >= 0)
        *out = slr_buf_take(&b);
    slr_buf_free(&b);
    if (rc == SDLORA_ENOTFOUND)
        return SDLORA_DONE;
    return rc < 0 ? rc : *out ? SDLORA_OK : SDLORA_ENOMEM;
}

/* A comment may be anything; one that has steps is parameters. */
static int has_steps(slr_mem *m, const char *text, bool *yes)
{
    slr_info info;
    SLR_TRY(slr_info_read(&info, m, text));
    *yes = slr_info_get(&info, "Steps") != NULL;
    slr_info_free(&info);
    return SDLORA_OK;
}

static bool is_blank(const char *text)
{
    return !text || !text[strspn(text, " \t\r\n")];
}

int slr_infotext_pick(char **out, slr_mem *m, const slr_image_texts *texts, int32_t width,
                      int32_t height)
{
    const char *text = slr_image_texts_get(texts, "UserComment"),
               *comment = slr_image_texts_get(texts, "comment");
    bool usable = false;
    *out = NULL;
    int rc = from_novelai(out, m, texts, width, height);
    if (rc != SDLORA_DONE)
        return rc;
    if (is_blank(text))
        text = slr_image_texts_get(texts, "parameters");
    if (is_blank(text) && comment) {
        SLR_TRY(has_steps(m, comment, &usable));
        text = usable ? comment : NULL;
    }
    if (is_blank(text))
        return SDLORA_OK;
    *out = slr_strdup(m, text);
    return *out ? SDLORA_OK : SDLORA_ENOMEM;
}
