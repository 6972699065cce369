/* SPDX-License-Identifier: MIT */
/* Parameters texts: whatever stands in one is read, becomes options, and can be written and read
 * again. */
#include "base/str.h"
#include "fuzz.h"
#include "sample/infotext.h"

static char *written(slr_mem *m, const slr_info *i)
{
    slr_infotext t;
    slr_buf item;
    slr_infotext_init(&t, m, i->prompt, i->negative);
    slr_buf_init(&item, m);
    for (size_t k = 0; k < i->n; k++) {
        slr_buf_free(&item);
        slr_buf_puts(&item, i->at[k].key);
        slr_buf_puts(&item, *i->at[k].key ? ": " : "");
        slr_buf_puts(&item, i->at[k].raw);
        slr_infotext_raw(&t, item.data);
    }
    slr_buf_free(&item);
    return slr_infotext_take(&t);
}

/* Spaces before a comma are not kept, so hostile quotes may close elsewhere; reading goes on. */
static void again(slr_mem *m, const slr_info *a)
{
    slr_info b;
    char *text = written(m, a);
    FUZZ_CHECK(text && slr_info_read(&b, m, text) == 0);
    slr_info_free(&b);
    slr_free(m, text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    slr_mem *m = fuzz_mem();
    slr_info i;
    sdlora_options *o;
    slr_buf notes;
    char *text = slr_strndup(m, size ? (const char *)data : "", size);
    FUZZ_CHECK(text);
    text[slr_utf8_valid(text, strlen(text))] = '\0';
    FUZZ_CHECK(slr_info_read(&i, m, text) == 0);
    FUZZ_CHECK(strlen(i.prompt) + strlen(i.negative) <= strlen(text));
    again(m, &i);
    if (slr_info_complete(&i, m) == 0) { /* weights may be nested too deep */
        FUZZ_CHECK(slr_options_new(&o, m, "generate") == 0);
        slr_buf_init(&notes, m);
        FUZZ_CHECK(slr_info_options(&i, m, o, &notes) == 0);
        slr_buf_free(&notes);
        slr_options_unref(o);
    }
    slr_info_free(&i);
    slr_free(m, text);
    fuzz_mem_done(m);
    return 0;
}
