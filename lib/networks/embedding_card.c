/* SPDX-License-Identifier: MIT */
/* Pictures that carry an embedding, as AUTOMATIC1111 makes them: base64 of JSON in a PNG's text, or
 * deflated JSON in the low bits of two strips beside black columns.  Refuses to know what the
 * tensors mean. */
#include <math.h>
#include <string.h>

#include "base/status.h"
#include "base/str.h"
#include "io/file.h"
#include "io/image.h"
#include "io/inflate.h"
#include "io/json.h"
#include "networks/embedding.h"

/* A chunk of 75 vectors of SDXL's widths is 4 MB of text. */
enum { JSON_MAX = 32 << 20 };

#define FILE_MAX (UINT64_C(256) << 20)

bool slr_embedding_is_card(const char *path)
{
    static const char *const endings[] = {".png", ".PNG", ".webp", ".WEBP"};
    const char *base = slr_path_base(path);
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++)
        if (slr_ends(base, endings[i])) {
            size_t stem = slr_path_stem(base);
            return stem < 8 || memcmp(base + stem - 8, ".preview", 8) != 0;
        }
    return false;
}

/* --- base64 --- */

static int digit(char c)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const char *at = c ? strchr(digits, c) : NULL;
    return at ? (int)(at - digits) : -1;
}

/* Appends the bytes; characters that are no digits are passed over, as Python does. */
static int base64_decode(const char *text, slr_buf *out)
{
    uint32_t bits = 0;
    int n = 0;
    for (; *text && *text != '='; text++) {
        int d = digit(*text);
        if (d < 0)
            continue;
        bits = bits << 6 | (uint32_t)d;
        int in_group = ++n % 4; /* digits of this group of four; 0: the last */
        if (in_group != 1)
            slr_buf_putc(out, (char)(uint8_t)(bits >> (in_group ? 8 - 2 * in_group : 0)));
    }
    return slr_buf_ok(out);
}

/* --- strips --- */

typedef struct strips {
    const slr_pixels *p;
    int32_t top, bottom, left, right; /* inside the black border */
    int32_t first, last;              /* black columns between the strips */
} strips;

static const uint8_t *pixel(const strips *s, int32_t y, int32_t x)
{
    return s->p->data + ((size_t)y * (size_t)s->p->width + (size_t)x) * (size_t)s->p->channels;
}

/* Cuts off rows and columns where no pixel has all three channels above zero. */
static bool crop(strips *s)
{
    *s = (strips){.p = s->p, .top = s->p->height, .left = s->p->width};
    for (int32_t y = 0; y < s->p->height; y++)
        for (int32_t x = 0; x < s->p->width; x++) {
            const uint8_t *c = pixel(s, y, x);
            if (!c[0] || !c[1] || !c[2])
                continue;
            s->top = y < s->top ? y : s->top;
            s->bottom = y + 1;
            s->left = x < s->left ? x : s->left;
            s->right = x + 1 > s->right ? x + 1 : s->right;
        }
    return s->bottom > s->top;
}

/* Columns whose low halves are all zero. */
static bool find_columns(strips *s)
{
    int n = 0;
    for (int32_t x = s->left; x < s->right; x++) {
        bool black = true;
        for (int32_t y = s->top; black && y < s->bottom; y++) {
            const uint8_t *c = pixel(s, y, x);
            black = !((c[0] | c[1] | c[2]) & 15);
        }
        if (black && !n++)
            s->first = x;
        if (black)
            s->last = x;
    }
    return n >= 2;
}

/* The bytes of both strips: low halves on the left, high halves on the right, each masked by the
 * same generator. */
static int read_strips(const strips *s, slr_buf *out)
{
    uint32_t state = 0;
    int32_t width = s->first - s->left;
    for (int32_t y = s->top; y < s->bottom; y++)
        for (int32_t i = 0; i < 3 * width; i++) {
            uint8_t low = pixel(s, y, s->left + i / 3)[i % 3];
            uint8_t high = pixel(s, y, s->last + 1 + i / 3)[i % 3];
            state = 1664525u * state + 1013904223u;
            uint8_t mask = (uint8_t)(state % 255u) & 15;
            slr_buf_putc(out, (char)(uint8_t)(((high & 15) ^ mask) << 4 | ((low & 15) ^ mask)));
        }
    return slr_buf_ok(out);
}

/* DONE: nothing is hidden in the picture. */
static int unhide(slr_mem *m, const slr_pixels *p, const char *label, slr_buf *json)
{
    strips s = {.p = p};
    const char *why = NULL;
    slr_buf packed;
    if (!crop(&s) || !find_columns(&s) || s.first == s.left)
        return SDLORA_DONE;
    if (s.first - s.left != s.right - s.last - 1)
        return SDLORA_DONE; /* two strips of one size are what makes a card */
    slr_buf_init(&packed, m);
    int rc = read_strips(&s, &packed);
    if (rc >= 0)
        rc = slr_inflate(packed.data, packed.len, JSON_MAX, json, &why);
    slr_buf_free(&packed);
    return rc == SDLORA_EFORMAT
               ? slr_fail(rc, __func__, "%s: the data hidden in the picture %s", label, why)
               : rc;
}

/* --- JSON --- */

/* {"TORCHTENSOR": [[...], ...]}: its shape, then its numbers. */
static int read_list(const json_t *list, const char *label, int depth, slr_tensor *t, float **at)
{
    size_t n = json_array_size(list);
    if (!json_is_array(list) || !n || depth == 2)
        return slr_fail(SDLORA_EFORMAT, __func__, "%s: a tensor of the card is no list of rows",
                        label);
    if (t->rank <= depth) {
        t->rank = depth + 1;
        t->dim[depth] = (int64_t)n;
    }
    if (t->dim[depth] != (int64_t)n)
        return slr_fail(SDLORA_EFORMAT, __func__, "%s: rows of the card's tensor differ in length",
                        label);
    for (size_t i = 0; i < n; i++) {
        const json_t *item = json_array_get(list, i);
        if (json_is_array(item)) {
            SLR_TRY(read_list(item, label, depth + 1, t, at));
        } else if (!json_is_number(item) || t->rank != depth + 1) {
            return slr_fail(SDLORA_EFORMAT, __func__, "%s: the card's tensor holds no numbers",
                            label);
        } else if (*at) {
            *(*at)++ = (float)json_number_value(item);
        }
    }
    return SDLORA_OK;
}

static int read_tensor(slr_mem *m, const json_t *value, const char *label, slr_tensor *t)
{
    const json_t *list = json_object_get(value, "TORCHTENSOR");
    float *none = NULL;
    *t = (slr_tensor){.dtype = SDLORA_F32};
    SLR_TRY(read_list(list, label, 0, t, &none));
    float *data = slr_alloc(m, slr_tensor_bytes(t)), *at = data;
    if (!data)
        return SDLORA_ENOMEM;
    t->data = data;
    return read_list(list, label, 0, t, &at);
}

/* string_to_param of the card as tensors of a file. */
static int read_params(slr_network **out, slr_mem *m, const slr_checkpoint *base,
                       const json_t *root, const char *path)
{
    const json_t *params = json_object_get(root, "string_to_param");
    const json_t *name = json_object_get(root, "name");
    const char *file = slr_path_base(path);
    slr_str stem = {file, slr_path_stem(file)};
    slr_named tensor = {.key = "string_to_param.*"};
    if (json_object_size(params) != 1)
        return slr_fail(SDLORA_EFORMAT, __func__,
                        "%s: the card's string_to_param holds %zu embeddings, wanted one", path,
                        json_object_size(params));
    if (json_is_string(name) && *json_string_value(name))
        stem = slr_str_of(json_string_value(name));
    const json_t *value = json_object_iter_value(json_object_iter((json_t *)(uintptr_t)params));
    int rc = read_tensor(m, value, path, &tensor.t);
    if (rc >= 0)
        rc = slr_embedding_of(out, m, base, &tensor, 1, path, stem, path);
    slr_free(m, (void *)(uintptr_t)tensor.t.data);
    return rc;
}

/* --- the picture --- */

/* The JSON text; DONE when there is none. */
static int find_json(slr_mem *m, const void *bytes, size_t n, const char *path, slr_buf *json)
{
    slr_pixels p;
    char *text;
    int rc = slr_png_text_find(m, bytes, n, path, "sd-ti-embedding", &text);
    if (rc >= 0) {
        rc = base64_decode(text, json);
        slr_free(m, text);
        return rc;
    }
    if (rc == SDLORA_ENOMEM || (rc != SDLORA_ENOTFOUND && slr_ends(path, ".png")))
        return rc;
    slr_clear();
    SLR_TRY(slr_image_decode(m, bytes, n, path, false, &p));
    rc = unhide(m, &p, path, json);
    slr_free(m, p.data);
    return rc;
}

int slr_embedding_card(slr_network **out, slr_mem *m, const slr_checkpoint *base, const char *path)
{
    void *bytes;
    size_t n;
    slr_buf json;
    json_t *root = NULL;
    *out = NULL;
    SLR_TRY(slr_file_read(m, path, FILE_MAX, &bytes, &n));
    slr_buf_init(&json, m);
    int rc = find_json(m, bytes, n, path, &json);
    slr_free(m, bytes);
    if (rc == SDLORA_OK)
        rc = slr_json_parse(&root, json.data ? json.data : "", json.len, path);
    if (rc == SDLORA_OK)
        rc = read_params(out, m, base, root, path);
    json_decref(root);
    slr_buf_free(&json);
    return rc;
}
