/* SPDX-License-Identifier: MIT */
/* What a picture file is and what its texts say, as JSON. */
#include "sample/infotext.h"

#include <string.h>

#include "base/status.h"
#include "io/file.h"
#include "io/json.h"

static void put_text(slr_buf *b, const char *before, const char *key, const char *value)
{
    slr_buf_puts(b, before);
    slr_json_quote(b, key, strlen(key), false);
    slr_buf_puts(b, ": ");
    slr_json_quote(b, value, strlen(value), false);
}

/* Fields as they stand, in order; words that are no fields have their own text as value. */
static int put_fields(slr_buf *b, slr_mem *m, const char *text)
{
    slr_info info;
    const char *before = "\n    ";
    SLR_TRY(slr_info_read(&info, m, text));
    put_text(b, ",\n  ", "prompt", info.prompt);
    put_text(b, ",\n  ", "negative_prompt", info.negative);
    slr_buf_puts(b, ",\n  \"fields\": {");
    for (size_t i = 0; i < info.n; i++, before = ",\n    ")
        put_text(b, before, *info.at[i].key ? info.at[i].key : info.at[i].value, info.at[i].value);
    slr_buf_puts(b, info.n ? "\n  }" : "}");
    slr_info_free(&info);
    return slr_buf_ok(b);
}

static void put_others(slr_buf *b, const slr_image_texts *texts)
{
    const char *before = ",\n  \"texts\": {\n    ";
    bool any = false;
    for (size_t i = 0; i < texts->n; i++) {
        if (slr_infotext_is_source(texts->at[i].keyword))
            continue;
        put_text(b, before, texts->at[i].keyword, texts->at[i].text);
        before = ",\n    ";
        any = true;
    }
    slr_buf_puts(b, any ? "\n  }" : "");
}

static int put_picture(slr_buf *b, slr_mem *m, const char *path, const slr_image_info *info,
                       const slr_image_texts *texts)
{
    uint64_t bytes;
    char *text;
    SLR_TRY(slr_file_size(path, &bytes));
    SLR_TRY(slr_infotext_pick(&text, m, texts, info->width, info->height));
    put_text(b, "{\n  ", "path", path);
    put_text(b, ",\n  ", "container", info->format);
    slr_buf_printf(b, ",\n  \"bytes\": %llu", (unsigned long long)bytes);
    put_text(b, ",\n  ", "kind", "picture");
    slr_buf_printf(b, ",\n  \"width\": %d,\n  \"height\": %d", info->width, info->height);
    int rc = text ? put_fields(b, m, text) : SDLORA_OK;
    slr_free(m, text);
    put_others(b, texts);
    slr_buf_puts(b, "\n}\n");
    return rc < 0 ? rc : slr_buf_ok(b);
}

int slr_picture_info(char **json, slr_mem *m, const char *path)
{
    slr_image_info info;
    slr_image_texts texts;
    slr_buf b;
    *json = NULL;
    SLR_TRY(slr_image_info_read(path, &info));
    slr_buf_init(&b, m);
    int rc = slr_image_texts_read(&texts, m, path);
    if (rc >= 0)
        rc = put_picture(&b, m, path, &info, &texts);
    if (rc >= 0 && !(*json = slr_buf_take(&b)))
        rc = SDLORA_ENOMEM;
    slr_buf_free(&b);
    slr_image_texts_free(&texts);
    return rc;
}
