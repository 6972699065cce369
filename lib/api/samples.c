/* SPDX-License-Identifier: MIT */
/* Samples while training.  Knows kohya's prompt files, flags and file names; drawing is the
 * generator's.  One generator lives as long as the run, so that model and VAE are hashed once; it
 * rests between the calls, since training wants the memory. */
#include "api/samples.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/status.h"
#include "base/str.h"
#include "graph/policy.h"
#include "io/file.h"
#include "io/json.h"

enum { FILE_LIMIT = 16 << 20 };

/* kohya's defaults. */
static const slr_sample_line plain = {
    .width = 512, .height = 512, .steps = 30, .seed = -1, .cfg = 7.5};

static int set_text(slr_mem *m, char **to, const char *text)
{
    char *copy = slr_strdup(m, text);

    if (!copy)
        return SDLORA_ENOMEM;
    slr_free(m, *to);
    *to = copy;
    return SDLORA_OK;
}

static int clamp(int64_t v, int lo, int hi)
{
    return v < lo ? lo : v > hi ? hi : (int)v;
}

/* Sides are floored to 8 and at least 64. */
static int side(int64_t v)
{
    return clamp(v - v % 8, 64, 65528);
}

/* What a flag or key sets. */
enum { SET_PROMPT, SET_NEGATIVE, SET_WIDTH, SET_HEIGHT, SET_SEED, SET_STEPS, SET_CFG, SET_SAMPLER };

static const struct {
    const char *flag, *key; /* in .txt and .json files */
    int what;
} names[] = {
    {NULL, "prompt", SET_PROMPT}, {"n", "negative_prompt", SET_NEGATIVE},
    {"w", "width", SET_WIDTH},    {"h", "height", SET_HEIGHT},
    {"d", "seed", SET_SEED},      {"s", "sample_steps", SET_STEPS},
    {"l", "scale", SET_CFG},      {"ss", "sample_sampler", SET_SAMPLER},
};

/* false: not a number where one is wanted. */
static bool set_number(slr_sample_line *l, int what, const char *text)
{
    int64_t i = 0;
    double r = 0;

    if (what == SET_CFG ? !slr_parse_real(text, &r) : !slr_parse_i64(text, &i))
        return false;
    switch (what) {
    case SET_WIDTH:
        l->width = side(i);
        break;
    case SET_HEIGHT:
        l->height = side(i);
        break;
    case SET_SEED:
        l->seed = i;
        break;
    case SET_STEPS:
        l->steps = clamp(i, 1, 1000);
        break;
    default:
        l->cfg = r;
    }
    return true;
}

static int set(slr_mem *m, slr_sample_line *l, int what, const char *text, const char *where)
{
    char **to = what == SET_PROMPT     ? &l->prompt
                : what == SET_NEGATIVE ? &l->negative
                : what == SET_SAMPLER  ? &l->sampler
                                       : NULL;

    if (to)
        return set_text(m, to, text);
    if (set_number(l, what, text))
        return SDLORA_OK;
    return slr_fail(SDLORA_EFORMAT, "slr_sample_lines_read", "%s: '%.100s' is not a number", where,
                    text);
}

static int new_line(slr_sample_lines *out, slr_sample_line **line)
{
    SLR_TRY(slr_grow(out->m, &out->at, &out->cap, out->n + 1, sizeof *out->at));
    *line = &out->at[out->n++];
    **line = plain;
    SLR_TRY(set_text(out->m, &(*line)->prompt, ""));
    return set_text(out->m, &(*line)->negative, "");
}

/* --- .txt --- */

/* One " --x value" piece. */
static int take_flag(slr_mem *m, slr_sample_line *l, char *piece, const char *where)
{
    size_t n = strcspn(piece, " \t");
    char *value = piece + n;

    if (*value)
        *value++ = '\0';
    value += strspn(value, " \t");
    for (size_t i = 1; i < sizeof names / sizeof *names; i++)
        if (!strcmp(piece, names[i].flag))
            return set(m, l, names[i].what, value, where);
    return slr_fail(SDLORA_ENOTSUP, "slr_sample_lines_read",
                    "%s: the flag --%.40s of sample prompts is not supported", where, piece);
}

/* The text up to the next " --", NUL-terminated and trimmed; moves *rest behind it. */
static char *next_piece(char **rest)
{
    char *piece = *rest, *end = strstr(piece, " --"), *tail;

    *rest = end ? end + 3 : NULL;
    if (end)
        *end = '\0';
    for (tail = piece + strlen(piece); tail > piece && (tail[-1] == ' ' || tail[-1] == '\t');)
        *--tail = '\0';
    return piece;
}

static int take_line(slr_sample_lines *out, char *text, const char *where)
{
    slr_sample_line *l;
    char *rest = text;

    SLR_TRY(new_line(out, &l));
    SLR_TRY(set_text(out->m, &l->prompt, next_piece(&rest)));
    while (rest)
        SLR_TRY(take_flag(out->m, l, next_piece(&rest), where));
    return SDLORA_OK;
}

static int read_txt(slr_sample_lines *out, slr_mem *m, const char *path)
{
    void *bytes;
    size_t n, number = 0;
    char where[512];
    int rc;

    SLR_TRY(slr_file_read(m, path, FILE_LIMIT, &bytes, &n));
    slr_str rest = {bytes, n}, one;
    for (rc = SDLORA_OK; rc >= 0 && slr_str_next(&rest, '\n', &one);) {
        slr_str trimmed = slr_str_trim(one);

        number++;
        if (!trimmed.n || one.p[0] == '#')
            continue;
        snprintf(where, sizeof where, "%s: line %zu", path, number);
        char *text = slr_strndup(m, trimmed.p, trimmed.n);
        rc = text ? take_line(out, text, where) : SDLORA_ENOMEM;
        slr_free(m, text);
    }
    slr_free(m, bytes);
    return rc;
}

/* --- .json --- */

static int take_object(slr_sample_lines *out, json_t *object, const char *where)
{
    slr_sample_line *l;
    const char *key;
    json_t *value;
    char number[32];

    if (!json_is_object(object))
        return slr_fail(SDLORA_EFORMAT, __func__, "%s is not an object", where);
    SLR_TRY(new_line(out, &l));
    json_object_foreach(object, key, value)
    {
        const char *text = json_string_value(value);
        size_t i = 0;

        if (json_is_integer(value))
            snprintf(number, sizeof number, "%lld", (long long)json_integer_value(value));
        else if (json_is_real(value))
            slr_real_repr(json_real_value(value), number);
        else if (!text)
            return slr_fail(SDLORA_EFORMAT, __func__, "%s: %.40s is neither text nor number", where,
                            key);
        while (i < sizeof names / sizeof *names && strcmp(names[i].key, key) != 0)
            i++;
        if (i == sizeof names / sizeof *names)
            return slr_fail(SDLORA_ENOTSUP, __func__,
                            "%s: the key %.40s of sample prompts is not supported", where, key);
        SLR_TRY(set(out->m, l, names[i].what, text ? text : number, where));
    }
    return SDLORA_OK;
}

static int read_json(slr_sample_lines *out, slr_mem *m, const char *path)
{
    json_t *root;
    char where[512];
    int rc = slr_json_read(&root, m, path, FILE_LIMIT);

    if (rc < 0)
        return rc;
    if (!json_is_array(root))
        rc = slr_fail(SDLORA_EFORMAT, __func__, "%s is not a list of prompts", path);
    for (size_t i = 0; rc >= 0 && i < json_array_size(root); i++) {
        snprintf(where, sizeof where, "%s: prompt %zu", path, i + 1);
        rc = take_object(out, json_array_get(root, i), where);
    }
    json_decref(root);
    return rc;
}

int slr_sample_lines_read(slr_sample_lines *out, slr_mem *m, const char *path)
{
    int rc;

    *out = (slr_sample_lines){.m = m};
    if (slr_ends(path, ".txt"))
        rc = read_txt(out, m, path);
    else if (slr_ends(path, ".json"))
        rc = read_json(out, m, path);
    else
        rc = slr_fail(SDLORA_ENOTSUP, __func__, "%s: sample prompts are read from .txt and .json",
                      path);
    if (rc >= 0 && !out->n)
        rc = slr_fail(SDLORA_EFORMAT, __func__, "%s holds no prompt", path);
    if (rc < 0)
        slr_sample_lines_free(out);
    return rc;
}

void slr_sample_lines_free(slr_sample_lines *l)
{
    for (size_t i = 0; i < l->n; i++) {
        slr_free(l->m, l->at[i].prompt);
        slr_free(l->m, l->at[i].negative);
        slr_free(l->m, l->at[i].sampler);
    }
    slr_free(l->m, l->at);
    *l = (slr_sample_lines){.m = l->m};
}

/* --- drawing --- */

typedef struct drawing {
    const slr_samples *s;
    const char *dir;     /* <output_dir>/sample */
    char number[32];     /* "e000003", or "000120" when steps count */
    char stamp[32];      /* "20260131120000" */
    int64_t done, total; /* sampling steps over all prompts */
} drawing;

static int step_done(void *user, const slr_run_progress *p)
{
    drawing *d = user;

    if (p->phase != SLR_RUN_SAMPLE)
        return 0;
    d->done++;
    return d->s->progress ? d->s->progress(d->s->user, d->done, d->total) : 0;
}

static int save(drawing *d, size_t index, const slr_picture *p)
{
    slr_mem *m = d->s->ctx->mem;
    const char *name = slr_opt_text(d->s->train, "output_name");
    char file[512];

    snprintf(file, sizeof file, "%.300s%s%s_%02zu_%s_%lld.png", name ? name : "", name ? "_" : "",
             d->number, index, d->stamp, (long long)p->seed);
    char *path = slr_path_join(m, d->dir, file);
    int rc = path ? slr_png_write(m, path, &p->pixels, p->infotext) : SDLORA_ENOMEM;
    slr_free(m, path);
    return rc;
}

static int draw_line(drawing *d, size_t index, const slr_sample_line *l)
{
    slr_stack_item item = {.network = d->s->network, .te = 1, .unet = 1};
    slr_precision precision;
    slr_picture picture;

    SLR_TRY(slr_precision_read(&precision, d->s->train, d->s->ctx->devices));
    slr_request r = {
        .policy = precision.model,
        .vae_policy = precision.vae,
        .vae_tiling = slr_opt_bool(d->s->train, "vae_tiling"),
        .networks = &item,
        .n_networks = 1,
        .progress = step_done,
        .progress_user = d,
        .cancel = d->s->cancel,
    };
    slr_settings_read(&r.set, (slr_opt){NULL, "generate"});
    r.set.prompt = l->prompt;
    r.set.negative = l->negative;
    r.set.sampler = l->sampler ? l->sampler : slr_opt_text(d->s->train, "sample_sampler");
    r.set.steps = l->steps;
    r.set.width = l->width;
    r.set.height = l->height;
    r.set.clip_skip = (int)slr_opt_int(d->s->train, "clip_skip");
    r.set.cfg = l->cfg;
    r.set.seed = l->seed;

    SLR_TRY(slr_generator_run(*d->s->gen, &r, &picture));
    int rc = save(d, index, &picture);
    slr_picture_free(d->s->ctx->mem, &picture);
    return rc;
}

static void time_stamp(char out[32])
{
    time_t now = (time_t)slr_wall_time();
    struct tm tm;

    localtime_r(&now, &tm);
    strftime(out, 32, "%Y%m%d%H%M%S", &tm);
}

int slr_samples_draw(const slr_samples *s, int64_t epoch, int64_t step)
{
    slr_mem *m = s->ctx->mem;
    slr_sample_lines lines;
    slr_bpe *bpe;
    drawing d = {.s = s};
    bool by_epoch = step == 0 || slr_opt_has(s->train, "sample_every_n_epochs");

    SLR_TRY(slr_api_bpe(s->ctx, &bpe));
    SLR_TRY(slr_sample_lines_read(&lines, m, slr_opt_text(s->train, "sample_prompts")));
    snprintf(d.number, sizeof d.number, by_epoch ? "e%06lld" : "%06lld",
             (long long)(by_epoch ? epoch : step));
    time_stamp(d.stamp);
    for (size_t i = 0; i < lines.n; i++)
        d.total += lines.at[i].steps;
    char *dir = slr_path_join(m, slr_opt_text(s->train, "output_dir"), "sample");
    d.dir = dir;
    int rc = dir ? slr_dir_make(dir) : SDLORA_ENOMEM;
    if (rc >= 0 && !*s->gen)
        rc = slr_generator_new(s->gen, m, s->ctx->log, s->base, s->vae, s->vae_path,
                               s->ctx->devices, bpe);
    for (size_t i = 0; rc >= 0 && i < lines.n; i++)
        rc = draw_line(&d, i, &lines.at[i]);
    if (*s->gen)
        slr_generator_rest(*s->gen);
    slr_free(m, dir);
    slr_sample_lines_free(&lines);
    return rc;
}
