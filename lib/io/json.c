/* SPDX-License-Identifier: MIT */
/* JSON by jansson.  It knows which of jansson's strictness switches to set, that deep nesting has
 * to be refused before a recursive parser sees it, and how Python spells string literals. */
#include "io/json.h"

#include <string.h>

#include "base/status.h"
#include "io/file.h"

/* Where a text is, for messages. */
typedef struct place {
    size_t line, column; /* from 1, in bytes */
} place;

static place place_of(const char *text, size_t at)
{
    place p = {1, 1};
    for (size_t i = 0; i < at; i++) {
        p.column++;
        if (text[i] == '\n')
            p = (place){p.line + 1, 1};
    }
    return p;
}

/* Counts brackets outside of strings.  A broken text may count wrong; the parser refuses it then.
 */
static int check_depth(const char *text, size_t n, const char *label)
{
    int depth = 0;
    for (size_t i = 0; i < n; i++) {
        char c = text[i];
        if (c == '"')
            for (i++; i < n && text[i] != '"'; i++)
                i += text[i] == '\\';
        depth += c == '[' || c == '{';
        depth -= c == ']' || c == '}';
        if (depth > SLR_JSON_DEPTH) {
            place p = place_of(text, i);
            return slr_fail(SDLORA_EFORMAT, "slr_json_parse",
                            "%s: line %zu, column %zu: more than %d levels of brackets", label,
                            p.line, p.column, SLR_JSON_DEPTH);
        }
    }
    return SDLORA_OK;
}

int slr_json_parse(json_t **out, const char *text, size_t n, const char *label)
{
    json_error_t err;
    slr_require(out && label && (text || !n));
    *out = NULL;
    SLR_TRY(check_depth(text, n, label));
    *out = json_loadb(n ? text : "", n, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &err);
    if (*out)
        return SDLORA_OK;
    if (json_error_code(&err) == json_error_out_of_memory)
        return slr_nomem(__func__, n);
    /* jansson quotes the text it fails at: keep terminals safe from what stands there. */
    for (char *p = err.text; *p; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            *p = '?';
    err.text[slr_utf8_valid(err.text, strlen(err.text))] = '\0';
    return slr_fail(SDLORA_EFORMAT, __func__, "%s: line %d, column %d: %s", label, err.line,
                    err.column, err.text);
}

int slr_json_read(json_t **out, slr_mem *m, const char *path, uint64_t limit)
{
    void *text;
    size_t n;
    int rc;
    slr_require(out);
    *out = NULL;
    SLR_TRY(slr_file_read(m, path, limit, &text, &n));
    rc = slr_json_parse(out, text, n, path);
    slr_free(m, text);
    return rc;
}

static void quote_ascii(slr_buf *b, uint32_t cp)
{
    if (cp >= 0x10000) {
        cp -= 0x10000;
        slr_buf_printf(b, "\\u%04x\\u%04x", 0xd800 + (unsigned)(cp >> 10),
                       0xdc00 + (unsigned)(cp & 0x3ff));
    } else {
        slr_buf_printf(b, "\\u%04x", (unsigned)cp);
    }
}

void slr_json_quote(slr_buf *b, const char *text, size_t n, bool ascii)
{
    static const char named[] = "\"\"\\\\\bb\ff\nn\rr\tt"; /* pairs: byte, letter */
    slr_buf_putc(b, '"');
    for (size_t i = 0, used; i < n; i += used) {
        size_t whole = n - i < 4 ? n - i : 4;
        uint32_t cp = 0xfffd;
        const char *pair = NULL;
        used = 1;
        if (slr_utf8_valid(text + i, whole) > 0)
            used = slr_utf8_next(text + i, whole, &cp);
        for (const char *p = named; *p && !pair; p += 2)
            pair = (unsigned char)*p == cp ? p : NULL;
        if (pair) {
            slr_buf_putc(b, '\\');
            slr_buf_putc(b, pair[1]);
        } else if (cp < 0x20 || (ascii && cp >= 0x7f)) {
            quote_ascii(b, cp);
        } else if (cp == 0xfffd) {
            slr_buf_puts(b, "\xef\xbf\xbd");
        } else {
            slr_buf_add(b, text + i, used);
        }
    }
    slr_buf_putc(b, '"');
}
