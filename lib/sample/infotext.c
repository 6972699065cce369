/* SPDX-License-Identifier: MIT */
/* Writes generation parameters in the grammar that AUTOMATIC1111 and the sites read. */
#include "sample/infotext.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/status.h"
#include "io/json.h"

void slr_infotext_init(slr_infotext *t, slr_mem *m, const char *prompt, const char *negative)
{
    *t = (slr_infotext){0};
    slr_buf_init(&t->text, m);
    slr_buf_puts(&t->text, prompt);
    if (*negative) {
        slr_buf_puts(&t->text, "\nNegative prompt: ");
        slr_buf_puts(&t->text, negative);
    }
    slr_buf_putc(&t->text, '\n');
}

void slr_infotext_add(slr_infotext *t, const char *key, const char *value)
{
    if (!value)
        return;
    slr_buf_puts(&t->text, t->n_items++ ? ", " : "");
    slr_buf_puts(&t->text, key);
    if (!strcmp(key, value))
        return;
    slr_buf_puts(&t->text, ": ");
    if (strpbrk(value, ",:\n"))
        slr_json_quote(&t->text, value, strlen(value), false);
    else
        slr_buf_puts(&t->text, value);
}

void slr_infotext_int(slr_infotext *t, const char *key, int64_t value)
{
    char text[32];
    snprintf(text, sizeof text, "%lld", (long long)value);
    slr_infotext_add(t, key, text);
}

void slr_infotext_number(double value, char out[32])
{
    if (value == floor(value) && fabs(value) < 1e15)
        snprintf(out, 32, "%.0f", value);
    else
        slr_real_repr(value, out);
}

void slr_infotext_real(slr_infotext *t, const char *key, double value)
{
    char text[32];
    slr_infotext_number(value, text);
    slr_infotext_add(t, key, text);
}

void slr_infotext_raw(slr_infotext *t, const char *item)
{
    slr_buf_puts(&t->text, t->n_items++ ? ", " : "");
    slr_buf_puts(&t->text, item);
}

char *slr_infotext_take(slr_infotext *t)
{
    if (slr_buf_ok(&t->text) < 0) {
        slr_buf_free(&t->text);
        return NULL;
    }
    return slr_buf_take(&t->text);
}
