/* SPDX-License-Identifier: MIT */
/* Parameters of a sheet.  Knows where AUTOMATIC1111 puts what scripts add: behind all that tells of
 * the picture and before the program's version.  Refuses to know the rest of the text. */
#include "api/grid_text.h"

#include <string.h>

#include "base/status.h"
#include "sample/infotext.h"

/* Where ", Version: ..." begins, or the text's end. */
static size_t find_tail(const char *text)
{
    static const char tail[] = ", Version: ";
    const char *line = strrchr(text, '\n'), *found = NULL;

    for (const char *p = line ? line : text; (p = strstr(p, tail)) != NULL; p++)
        found = p;
    return found ? (size_t)(found - text) : strlen(text);
}

static int add_fixed(slr_infotext *t, slr_mem *m, const slr_grid_words *w)
{
    char key[] = "Fixed X Values";
    slr_buf b;

    if (!w->fixed)
        return SDLORA_OK;
    key[6] = w->letter;
    slr_buf_init(&b, m);
    for (size_t i = 0; i < w->fixed->n; i++)
        slr_buf_printf(&b, "%s%s", i ? ", " : "", w->fixed->at[i].text);
    slr_buf_puts(&b, "");
    int rc = slr_buf_ok(&b);
    if (rc >= 0)
        slr_infotext_add(t, key, b.data);
    slr_buf_free(&b);
    return rc;
}

int slr_grid_text(char **out, slr_mem *m, const char *text, const slr_grid_words *words, size_t n)
{
    size_t head = find_tail(text);
    slr_infotext t = {.n_items = 1};
    int rc = SDLORA_OK;

    slr_buf_init(&t.text, m);
    slr_buf_add(&t.text, text, head);
    slr_infotext_add(&t, "Script", "X/Y/Z plot");
    for (size_t i = 0; rc >= 0 && i < n; i++) {
        char type[] = "X Type", values[] = "X Values";

        type[0] = values[0] = words[i].letter;
        slr_infotext_add(&t, type, words[i].type);
        slr_infotext_add(&t, values, words[i].values);
        rc = add_fixed(&t, m, &words[i]);
    }
    slr_buf_puts(&t.text, text + head);
    *out = slr_infotext_take(&t);
    if (!*out)
        rc = SDLORA_ENOMEM;
    if (rc < 0) {
        slr_free(m, *out);
        *out = NULL;
    }
    return rc;
}
