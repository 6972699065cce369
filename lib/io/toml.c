/* SPDX-License-Identifier: MIT */
/* TOML for C: what is refused before the parser sees it, and sentences for what the parser refuses.
 * Keys of very many parts would make a recursive tree too deep; brackets are counted by the parser.
 */
#include "io/toml.h"

#include <string.h>

#include "base/status.h"
#include "io/file.h"
#include "io/tomltree.h"

/* Past the string that starts at i; n when it has no end. */
static size_t skip_string(const char *text, size_t n, size_t i)
{
    char quote = text[i];
    bool block = n - i >= 3 && text[i + 1] == quote && text[i + 2] == quote;
    for (i += block ? 3 : 1; i < n; i++) {
        if (text[i] == '\\' && quote == '"')
            i++;
        else if (!block && (text[i] == quote || text[i] == '\n'))
            return i + 1;
        else if (block && n - i >= 3 && text[i] == quote && text[i + 1] == quote &&
                 text[i + 2] == quote)
            return i + 3;
    }
    return n;
}

/* Counts dots between the marks that end a key. A broken text may count wrong; the parser refuses
 * it then. */
static int check_keys(const char *text, size_t n, const char *label)
{
    size_t line = 1;
    int dots = 0;
    for (size_t i = 0; i < n; i++) {
        char c = text[i];
        if (c == '"' || c == '\'') {
            size_t end = skip_string(text, n, i);
            for (; i + 1 < end; i++)
                line += text[i] == '\n';
            c = text[i];
        } else if (c == '#') {
            while (i + 1 < n && text[i + 1] != '\n')
                i++;
        }
        line += c == '\n';
        dots = c == '.' ? dots + 1 : strchr("\n=,[]{}", c) ? 0 : dots;
        if (dots >= SLR_TOML_DEPTH)
            return slr_fail(SDLORA_EFORMAT, "slr_toml_parse",
                            "%s: line %zu: a key of more than %d parts", label, line,
                            SLR_TOML_DEPTH);
    }
    return SDLORA_OK;
}

int slr_toml_parse(json_t **out, const char *text, size_t n, const char *label)
{
    slr_toml_error e;
    slr_require(out && label && (text || !n));
    *out = NULL;
    SLR_TRY(check_keys(text, n, label));
    *out = slr_toml_tree(n ? text : "", n, &e);
    if (*out)
        return SDLORA_OK;
    if (!e.text[0])
        return slr_nomem(__func__, n);
    /* The parser quotes the text that it fails at: keep terminals safe from what stands there. */
    for (char *p = e.text; *p; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            *p = '?';
    e.text[slr_utf8_valid(e.text, strlen(e.text))] = '\0';
    return slr_fail(SDLORA_EFORMAT, __func__, "%s: line %u, column %u: %s", label, e.line, e.column,
                    e.text);
}

int slr_toml_read(json_t **out, slr_mem *m, const char *path, uint64_t limit)
{
    void *text;
    size_t n;
    slr_require(out);
    *out = NULL;
    SLR_TRY(slr_file_read(m, path, limit, &text, &n));
    int rc = slr_toml_parse(out, text, n, path);
    slr_free(m, text);
    return rc;
}
