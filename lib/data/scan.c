/* SPDX-License-Identifier: MIT */
/* Walks the folders of a dataset: kohya's layout (REPEATS_name below the given directory), or one
 * plain folder.  One level deep and never further, so that links cannot lead it in circles.  What
 * cannot be used is skipped and told; it refuses only text that it cannot read and folders in which
 * there is nothing. */
#include <string.h>
#include <strings.h>

#include "base/map.h"
#include "base/status.h"
#include "base/str.h"
#include "data/caption.h"
#include "data/dataset_impl.h"
#include "io/file.h"

typedef enum kind { OTHER, PICTURE, UNREADABLE, MASK } kind;

static kind kind_of(const char *name)
{
    static const struct {
        const char *suffix;
        kind kind;
    } row[] = {{SLR_MASK_ENDING, MASK}, {".png", PICTURE},   {".jpg", PICTURE},
               {".jpeg", PICTURE},      {".webp", PICTURE},  {".bmp", UNREADABLE},
               {".avif", UNREADABLE},   {".jxl", UNREADABLE}};
    size_t n = strlen(name);
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        size_t k = strlen(row[i].suffix);
        if (n > k && !strcasecmp(name + n - k, row[i].suffix))
            return row[i].kind;
    }
    return OTHER;
}

bool slr_is_mask(const char *name)
{
    return kind_of(name) == MASK;
}

/* --- captions --- */

/* The stem without the "_cx_cy_w_h" that face croppers append; the whole when there is none. */
static size_t face_stem(const char *base, size_t n)
{
    for (int part = 0; part < 4; part++) {
        while (n > 0 && base[n - 1] != '_')
            n--;
        if (n == 0)
            return 0;
        n--;
    }
    return n;
}

/* "<dir>/<first n bytes of the name>.<ending>" when that is a file; else NULL.  The path is in `b`,
 * which remembers when there was no memory for it. */
static const char *beside(slr_buf *b, const char *path, size_t n, const char *ending)
{
    size_t dir = (size_t)(slr_path_base(path) - path);
    b->len = 0;
    slr_buf_add(b, path, dir + n);
    slr_buf_printf(b, "%s%s", *ending && *ending != '.' ? "." : "", ending);
    return slr_buf_ok(b) == 0 && slr_file_exists(b->data) ? b->data : NULL;
}

static int read_caption(slr_dataset *d, const char *path, const slr_subset *s, const char **out)
{
    slr_opt o = {d->opts, "dataset"};
    const char *base = slr_path_base(path), *ending = slr_opt_text(o, "caption_extension");
    size_t stem = slr_path_stem(base), face = face_stem(base, stem);
    char *text = NULL;
    int rc = SDLORA_OK;
    slr_buf name;
    slr_buf_init(&name, d->m);
    ending = ending ? ending : "";
    const char *file = beside(&name, path, stem, ending);
    if (!file && face > 0)
        file = beside(&name, path, face, ending);
    if (file) {
        rc = slr_caption_read(&text, d->m, file, slr_opt_bool(o, "enable_wildcard"));
        if (rc == 0 && !*text)
            rc = slr_dataset_note(d, "%s is empty: its picture trains without a caption", file);
    } else {
        d->n_uncaptioned++;
        d->n_text_beside += beside(&name, path, stem, ".txt") != NULL;
    }
    if (rc == 0)
        rc = slr_buf_ok(&name);
    if (rc == 0)
        *out = slr_arena_strdup(d->arena, file ? text : s->class_tokens);
    if (rc == 0 && !*out)
        rc = SDLORA_ENOMEM;
    slr_free(d->m, text);
    slr_buf_free(&name);
    return rc;
}

/* --- pictures --- */

/* Takes the failure at hand as a note; what is not the picture's fault stays a failure. */
static int skip(slr_dataset *d, const char *path, int rc)
{
    slr_error_copy why;
    if (rc == SDLORA_ENOMEM)
        return rc;
    slr_error_take(&why);
    slr_clear();
    if (strstr(why.text, path))
        return slr_dataset_note(d, "skipped %s", why.text);
    return slr_dataset_note(d, "skipped %s: %s", path, why.text);
}

/* Fills size and content hash from the file's bytes. */
static int look(slr_dataset *d, const char *path, slr_item *item)
{
    slr_opt o = {d->opts, "dataset"};
    slr_image_info info;
    void *bytes;
    size_t n;
    const char *cut;
    SLR_TRY(slr_file_read(d->m, path, SLR_PICTURE_BYTES, &bytes, &n));
    int rc = n == 0 ? slr_fail(SDLORA_EFORMAT, __func__, "%s: the file is empty", path)
                    : slr_image_info_parse(bytes, n, path, &info);
    if (rc == 0 && (int64_t)info.width * info.height > slr_opt_int(o, "max_image_pixels"))
        rc = slr_fail(SDLORA_EFORMAT, __func__, "%s: %dx%d is above max_image_pixels", path,
                      (int)info.width, (int)info.height);
    if (rc == 0 && (cut = slr_picture_cut(bytes, n, info.format)) != NULL)
        rc = slr_fail(SDLORA_EFORMAT, __func__, "%s: %s", path, cut);
    if (rc == 0) {
        const char *exif = slr_opt_text(o, "exif_orientation");
        bool turned = info.orientation > 1, sideways = info.orientation >= 5;
        bool apply = !strcmp(exif, "apply");
        item->width = apply && sideways ? info.height : info.width;
        item->height = apply && sideways ? info.width : info.height;
        item->content_hash = slr_hash64(bytes, n, 0);
        d->n_turned += turned && !strcmp(exif, "warn");
    }
    slr_free(d->m, bytes);
    return rc;
}

static int place(slr_dataset *d, slr_item *item, double *ar_error)
{
    slr_fit fit;
    slr_shape image = {item->width, item->height};
    SLR_TRY(slr_bucket_fit(&d->rule, d->table, d->n_table, image, &fit));
    if (fit.bucket.w == 0 || fit.bucket.h == 0)
        return slr_fail(SDLORA_EINVAL, __func__, "%dx%d is smaller than bucket_reso_steps %d",
                        (int)image.w, (int)image.h, (int)d->rule.step);
    item->resized_w = fit.resized.w;
    item->resized_h = fit.resized.h;
    item->crop_left = (fit.resized.w - fit.bucket.w) / 2;
    item->crop_top = (fit.resized.h - fit.bucket.h) / 2;
    item->bucket = SLR_SHAPE_KEY(fit.bucket.w, fit.bucket.h); /* until they are sorted */
    *ar_error = fit.ar_error;
    d->n_cropped +=
        (int64_t)fit.bucket.w * fit.bucket.h * 4 < (int64_t)fit.resized.w * fit.resized.h * 3;
    return SDLORA_OK;
}

static int add_picture(slr_dataset *d, const char *path, size_t subset, slr_folder_masks *masks)
{
    slr_subset *s = &d->subset[subset];
    slr_item item = {.subset = subset, .repeats = s->repeats};
    double ar_error = 0;
    int rc = look(d, path, &item);
    if (rc == 0)
        rc = place(d, &item, &ar_error);
    if (rc < 0)
        return skip(d, path, rc);
    SLR_TRY(read_caption(d, path, s, &item.caption));
    SLR_TRY(slr_folder_masks_find(masks, d, slr_path_base(path), &item));
    item.path = slr_arena_strdup(d->arena, path);
    if (!item.path)
        return SDLORA_ENOMEM;
    SLR_TRY(slr_grow(d->m, &d->item, &d->cap_item, d->n_item + 1, sizeof *d->item));
    SLR_TRY(slr_grow(d->m, &d->ar_error, &d->cap_error, d->n_item + 1, sizeof *d->ar_error));
    d->ar_error[d->n_item] = ar_error;
    d->item[d->n_item++] = item;
    s->images++;
    return SDLORA_OK;
}

/* --- folders --- */

typedef struct folder {
    const char *path;
    slr_list names;
    size_t pictures;
} folder;

static int folder_open(slr_dataset *d, const char *path, folder *f)
{
    *f = (folder){.path = path};
    SLR_TRY(slr_dir_list(&f->names, d->m, path));
    for (size_t i = 0; i < f->names.n; i++)
        f->pictures += kind_of(f->names.item[i]) == PICTURE;
    return SDLORA_OK;
}

static int read_files(slr_dataset *d, const folder *f, size_t subset, slr_folder_masks *masks)
{
    for (size_t i = 0; i < f->names.n; i++) {
        const char *name = f->names.item[i];
        kind k = kind_of(name);
        if (k == OTHER || k == MASK)
            continue;
        char *path = slr_path_join(d->m, f->path, name);
        int rc = !path ? SDLORA_ENOMEM
                 : k == PICTURE
                     ? add_picture(d, path, subset, masks)
                     : slr_dataset_note(d, "skipped %s: only PNG, JPEG and WebP are read", path);
        slr_free(d->m, path);
        SLR_TRY(rc);
    }
    return slr_folder_masks_strays(masks, d);
}

static int read_folder(slr_dataset *d, const folder *f, const char *dir, const char *tokens,
                       int64_t repeats, bool is_reg)
{
    size_t at = d->n_subset;
    slr_subset s = {.repeats = repeats, .is_reg = is_reg};
    s.dir = slr_arena_strdup(d->arena, dir);
    s.class_tokens = slr_arena_strdup(d->arena, tokens);
    if (!s.dir || !s.class_tokens)
        return SDLORA_ENOMEM;
    SLR_TRY(slr_grow(d->m, &d->subset, &d->cap_subset, at + 1, sizeof s));
    d->subset[d->n_subset++] = s;
    slr_folder_masks masks;
    int rc = slr_folder_masks_open(&masks, d->m, f->path, &f->names);
    if (rc == 0)
        rc = read_files(d, f, at, &masks);
    slr_folder_masks_free(&masks, d->m);
    SLR_TRY(rc);
    if (d->subset[at].images > 0)
        return SDLORA_OK;
    d->n_subset--;
    return slr_dataset_note(d, "folder %s has no picture that can be used", f->path);
}

/* "10_cat" is 10 and "cat". */
static bool parse_name(const char *name, int64_t *repeats, const char **tokens)
{
    char number[20];
    const char *bar = strchr(name, '_');
    size_t n = bar ? (size_t)(bar - name) : strlen(name);
    if (n == 0 || n >= sizeof number || slr_utf8_valid(name, strlen(name)) < strlen(name))
        return false;
    memcpy(number, name, n);
    number[n] = '\0';
    *tokens = bar ? bar + 1 : "";
    return slr_parse_i64(number, repeats) && *repeats >= 1 && *repeats <= 1000000000;
}

static int read_numbered(slr_dataset *d, const char *path, bool is_reg, size_t *found)
{
    const char *base = slr_path_base(path), *tokens;
    int64_t repeats;
    folder f;
    if (!parse_name(base, &repeats, &tokens)) {
        if (*base == '.')
            return SDLORA_OK;
        return slr_dataset_note(d, "ignored folder %s: its name is not REPEATS_name, like 10_%s",
                                path, base);
    }
    int rc = folder_open(d, path, &f);
    if (rc < 0)
        return skip(d, path, rc);
    *found += 1;
    rc = read_folder(d, &f, base, tokens, repeats, is_reg);
    slr_list_free(&f.names);
    return rc;
}

/* The given directory holds the pictures itself. */
static int read_plain(slr_dataset *d, const folder *f, const char *base, bool is_reg)
{
    slr_opt o = {d->opts, "dataset"};
    int64_t repeats = slr_opt_int(o, "dataset_repeats"), named;
    const char *tokens;
    if (!parse_name(base, &named, &tokens) || !strchr(base, '_')) {
        SLR_TRY(slr_dataset_note(d, "%s: pictures taken straight from here, repeats %lld", f->path,
                                 (long long)repeats));
        return read_folder(d, f, base, "", repeats, is_reg);
    }
    SLR_TRY(slr_dataset_note(d,
                             "%s is one of the REPEATS_name folders itself: it is used alone, with "
                             "%lld repeats as \"%s\"; give the directory above it to use all",
                             f->path, (long long)named, tokens));
    return read_folder(d, f, base, tokens, named, is_reg);
}

static int nothing_found(const folder *f, const char *what, size_t folders)
{
    if (folders > 0)
        return slr_fail(SDLORA_ENOTFOUND, "slr_dataset_scan",
                        "%s %s has folders, but no picture that can be used in any folder named "
                        "REPEATS_name (like 10_cat)",
                        what, f->path);
    return slr_fail(SDLORA_ENOTFOUND, "slr_dataset_scan",
                    "%s %s has neither pictures nor folders named REPEATS_name (like 10_cat)", what,
                    f->path);
}

static int scan(slr_dataset *d, const folder *f, const char *base, bool is_reg)
{
    const char *what = is_reg ? "reg_data_dir" : "train_data_dir";
    size_t before = d->n_item, found = 0, folders = 0;
    for (size_t i = 0; i < f->names.n; i++) {
        char *path = slr_path_join(d->m, f->path, f->names.item[i]);
        if (!path)
            return SDLORA_ENOMEM;
        int rc = SDLORA_OK;
        if (slr_dir_exists(path) && kind_of(path) == OTHER) {
            folders++;
            rc = read_numbered(d, path, is_reg, &found);
        }
        slr_free(d->m, path);
        SLR_TRY(rc);
    }
    if (found == 0 && f->pictures > 0)
        SLR_TRY(read_plain(d, f, base, is_reg));
    else if (f->pictures > 0)
        SLR_TRY(slr_dataset_note(d, "ignored %zu pictures straight in %s: folders were found there",
                                 f->pictures, f->path));
    return d->n_item > before ? SDLORA_OK : nothing_found(f, what, folders);
}

int slr_dataset_scan(slr_dataset *d, const char *dir, bool is_reg)
{
    folder f;
    size_t n = strlen(dir);
    while (n > 1 && dir[n - 1] == '/')
        n--;
    char *path = slr_strndup(d->m, dir, n);
    if (!path)
        return SDLORA_ENOMEM;
    int rc = folder_open(d, path, &f);
    if (rc < 0)
        rc = slr_wrap("%s", is_reg ? "reg_data_dir" : "train_data_dir");
    else
        rc = scan(d, &f, slr_path_base(path), is_reg);
    slr_list_free(&f.names);
    slr_free(d->m, path);
    return rc;
}
