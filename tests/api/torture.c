/* SPDX-License-Identifier: MIT */
/* Every allocation of its scenarios of the public API refused in turn, in two ways.
 *
 *   once   allocation k is refused: the call fails with SDLORA_ENOMEM and a sentence, the same call
 * on the same handles then passes, and the scenario ends with the figure of an undisturbed run.
 *   from   allocation k and all after it are refused: the scenario ends with SDLORA_ENOMEM.
 *
 * Either way no block and no file descriptor is left, and no file but those of an undisturbed run.
 *
 *     torture SCENARIO           a sample: the first allocations, then some at a fixed stride
 *     torture SCENARIO K         allocation K alone
 *     torture SCENARIO K STEP    from K on each STEP-th; "1 1" takes every one */
#include <dirent.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sdlora/sdlora.h>

#include "torture.h"

/* --- the hooks --- */

enum { NEVER, ONCE, FROM };

static struct {
    long calls, fail_at, refused, live;
    int mode;
} hooks;

/* Allocations come from several threads: each has a number of its own. */
static int refuse(void)
{
    long n = __atomic_add_fetch(&hooks.calls, 1, __ATOMIC_SEQ_CST);
    int no =
        (hooks.mode == ONCE && n == hooks.fail_at) || (hooks.mode == FROM && n >= hooks.fail_at);

    if (no)
        __atomic_add_fetch(&hooks.refused, 1, __ATOMIC_SEQ_CST);
    return no;
}

static void *hook_alloc(void *user, size_t bytes)
{
    void *p = refuse() ? NULL : malloc(bytes ? bytes : 1);

    (void)user;
    if (p)
        __atomic_add_fetch(&hooks.live, 1, __ATOMIC_SEQ_CST);
    return p;
}

static void *hook_realloc(void *user, void *ptr, size_t bytes)
{
    if (!ptr)
        return hook_alloc(user, bytes);
    return refuse() ? NULL : realloc(ptr, bytes ? bytes : 1);
}

static void hook_free(void *user, void *ptr)
{
    (void)user;
    if (ptr)
        __atomic_sub_fetch(&hooks.live, 1, __ATOMIC_SEQ_CST);
    free(ptr);
}

/* --- one run --- */

enum { OPTIONS = 6, IMAGES = 4 };

/* What a scenario holds; all of it is given back after a run, whatever came of it. */
typedef struct world {
    sdlora_context *ctx;
    sdlora_checkpoint *ckpt, *merged;
    sdlora_vae *vae;
    sdlora_network *net;
    sdlora_dataset *data;
    sdlora_trainer *t;
    sdlora_generator *g;
    sdlora_image *img[IMAGES];
    sdlora_options *opts[OPTIONS];
    char *json;
    double figure;   /* what the scenario found out: equal in each run that passes */
    char dir[64];    /* the scenario's own */
    char text[512];  /* of the last failure, with the call */
    const char *bad; /* what no run may do */
} world;

static int failed(world *w, int rc, const char *call)
{
    const sdlora_error *e = sdlora_last_error();

    snprintf(w->text, sizeof w->text, "%s: %s (%s)", call, e->message, e->where ? e->where : "");
    if (rc != SDLORA_ENOMEM || e->code != rc)
        w->bad = "the code is not SDLORA_ENOMEM";
    else if (!strstr(e->message, "memory"))
        w->bad = "the sentence does not speak of memory";
    else if (!hooks.refused)
        w->bad = "no memory was refused";
    return rc;
}

/* A call that failed for want of one block passes when it is made again. */
#define DO(w, call)                                                                                \
    do {                                                                                           \
        int rc_ = (call);                                                                          \
        if (rc_ < 0 && failed(w, rc_, #call) && hooks.mode == ONCE && !(w)->bad)                   \
            rc_ = (call);                                                                          \
        if (rc_ < 0)                                                                               \
            return failed(w, rc_, #call);                                                          \
    } while (0)

/* What consists of such calls. */
#define TRY(part)                                                                                  \
    do {                                                                                           \
        int rc_ = (part);                                                                          \
        if (rc_ < 0)                                                                               \
            return rc_;                                                                            \
    } while (0)

/* Options from "name", "value", ..., NULL.  They take no memory of a context. */
static sdlora_options *options(world *w, const char *kind, ...)
{
    sdlora_options *o;
    const char *name;
    va_list list;
    size_t at = 0;

    if (sdlora_options_new(&o, kind) < 0)
        torture_die(kind);
    va_start(list, kind);
    while ((name = va_arg(list, const char *)) != NULL)
        if (sdlora_options_set_text(o, name, va_arg(list, const char *)) < 0)
            torture_die(name);
    va_end(list);
    while (at < OPTIONS && w->opts[at])
        at++;
    if (at == OPTIONS)
        torture_die("too many options");
    w->opts[at] = o;
    return o;
}

static void give_back(world *w)
{
    sdlora_text_free(w->ctx, w->json);
    sdlora_context_unref(w->ctx); /* handles keep it alive */
    for (size_t i = 0; i < IMAGES; i++)
        sdlora_image_unref(w->img[i]);
    sdlora_checkpoint_unref(w->ckpt);
    sdlora_generator_unref(w->g);
    sdlora_trainer_unref(w->t);
    sdlora_network_unref(w->net);
    sdlora_checkpoint_unref(w->merged);
    sdlora_dataset_unref(w->data);
    sdlora_vae_unref(w->vae);
    for (size_t i = 0; i < OPTIONS; i++)
        sdlora_options_unref(w->opts[i]);
}

/* --- the scenarios --- */

static int add_text(world *w, const char *text)
{
    for (const char *p = text; p && *p; p++)
        w->figure = fmod(w->figure * 31 + (unsigned char)*p, 1e9);
    return SDLORA_OK;
}

static int open_context(world *w)
{
    static const sdlora_allocator mine = {hook_alloc, hook_realloc, hook_free, NULL};

    DO(w, sdlora_context_new(&w->ctx, options(w, "context", "threads", "1", NULL), &mine));
    return SDLORA_OK;
}

static int open_model(world *w)
{
    TRY(open_context(w));
    DO(w, sdlora_checkpoint_open(&w->ckpt, w->ctx, CKPT, NULL));
    return SDLORA_OK;
}

static int add_image(world *w, const sdlora_image *img)
{
    const uint8_t *p = sdlora_image_data(img);
    const size_t n = (size_t)sdlora_image_width(img) * (size_t)sdlora_image_height(img) * 3;

    for (size_t i = 0; i < n; i++)
        w->figure = fmod(w->figure * 31 + p[i], 1e9);
    return add_text(w, sdlora_image_text(img));
}

/* Devices, and pictures that are made, joined, saved and read. */
static int pictures(world *w)
{
    static const char *const labels[] = {"one", "two"};
    sdlora_device_info info = {.struct_size = sizeof info};
    uint8_t rgb[16 * 16 * 3];

    TRY(open_context(w));
    DO(w, sdlora_context_device_info(w->ctx, 0, &info));
    add_text(w, info.backend);
    for (size_t i = 0; i < sizeof rgb; i++)
        rgb[i] = (uint8_t)(i * 7);
    DO(w, sdlora_image_new(&w->img[0], w->ctx, 16, 16, rgb));
    DO(w, sdlora_image_sheet(&w->img[1], w->ctx, (sdlora_image *[]){w->img[0], w->img[0]}, 1, 2,
                             labels, labels));
    DO(w, sdlora_image_save(w->img[1], torture_in(w->dir, "sheet.png")));
    DO(w, sdlora_image_open(&w->img[2], w->ctx, torture_in(w->dir, "sheet.png")));
    return add_image(w, w->img[2]);
}

static int tokens(world *w)
{
    int32_t ids[64];
    size_t n = 0;

    TRY(open_context(w));
    DO(w, sdlora_tokenize(w->ctx, "a photo of an astronaut, riding; 3 horses & caf\xc3\xa9s", ids,
                          64, &n));
    for (size_t i = 0; i < n && i < 64; i++)
        w->figure = fmod(w->figure * 31 + ids[i], 1e9);
    return SDLORA_OK;
}

/* What files are, from their headers and by all hashes. */
static int info(world *w)
{
    static const char *const files[] = {TEST_ROOT "/golden/hash_lora.safetensors",
                                        TEST_ROOT "/golden/lora_tinysd.safetensors",
                                        LAYOUTS "lightning.vae.pt"};

    TRY(open_context(w));
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        DO(w, sdlora_file_info(w->ctx, files[i], i == 0, &w->json));
        add_text(w, w->json);
        sdlora_text_free(w->ctx, w->json);
        w->json = NULL;
    }
    return SDLORA_OK;
}

/* Checkpoints in three containers, and a VAE of its own. */
static int models(world *w)
{
    static const char *const paths[] = {CKPT, LAYOUTS "diffusers", LAYOUTS "ldm.safetensors"};

    TRY(open_context(w));
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        DO(w, sdlora_checkpoint_open(&w->ckpt, w->ctx, paths[i], NULL));
        add_text(w, sdlora_checkpoint_family(w->ckpt));
        add_text(w, sdlora_checkpoint_layout(w->ckpt));
        sdlora_checkpoint_unref(w->ckpt);
        w->ckpt = NULL;
    }
    DO(w, sdlora_vae_open(&w->vae, w->ctx, LAYOUTS "vae.safetensors"));
    sdlora_vae_unref(w->vae);
    w->vae = NULL;
    DO(w, sdlora_vae_open(&w->vae, w->ctx, LAYOUTS "lightning.vae.pt"));
    return SDLORA_OK;
}

static int dataset(world *w, const char *dir, const char *extra, const char *value)
{
    const sdlora_options *o =
        options(w, "dataset", "train_data_dir", torture_in(w->dir, dir), "resolution", "64",
                "min_bucket_reso", "64", "caption_extension", ".txt", extra, value, NULL);

    DO(w, sdlora_dataset_open(&w->data, w->ctx, o));
    return SDLORA_OK;
}

static int folders(world *w)
{
    sdlora_dataset_item item = {.struct_size = sizeof item};

    TRY(open_context(w));
    TRY(dataset(w, "pictures", "enable_bucket", "true"));
    for (size_t i = 0; i < sdlora_dataset_images(w->data); i++) {
        DO(w, sdlora_dataset_item_at(w->data, i, &item));
        add_text(w, item.path);
        add_text(w, item.caption);
        w->figure += item.bucket_width;
    }
    for (size_t i = 0; sdlora_dataset_note(w->data, i); i++)
        add_text(w, sdlora_dataset_note(w->data, i));
    return SDLORA_OK;
}

static int new_network(world *w)
{
    const sdlora_options *o = options(w, "network", "network_dim", "2", NULL);

    DO(w, sdlora_network_new(&w->net, w->ckpt, o, 3));
    return SDLORA_OK;
}

/* What is counted is the same each time; what is timed stands behind it. */
static int planning(world *w)
{
    const sdlora_options *o =
        options(w, "train", "max_train_steps", "2", "learning_rate", "1e-3", "output_dir",
                torture_in(w->dir, "planned"), "scale_weight_norms", "1", NULL);
    char *timed;

    TRY(open_model(w));
    TRY(dataset(w, "single", NULL, NULL));
    TRY(new_network(w));
    DO(w, sdlora_plan(w->ckpt, NULL, w->net, w->data, w->data, o, NULL, NULL, &w->json));
    timed = strstr(w->json, "\"shapes\"");
    if (timed)
        *timed = '\0';
    return add_text(w, w->json);
}

/* Saved, opened again, merged, and the merge dropped. */
static int networks(world *w)
{
    const double one = 1;

    TRY(open_model(w));
    TRY(new_network(w));
    DO(w, sdlora_network_save(w->net, torture_in(w->dir, "new.safetensors"), "fp16"));
    sdlora_network_unref(w->net);
    w->net = NULL;
    DO(w, sdlora_network_open(&w->net, w->ckpt, torture_in(w->dir, "new.safetensors")));
    w->figure = (double)sdlora_network_modules(w->net);
    add_text(w, sdlora_network_name(w->net));
    DO(w, sdlora_checkpoint_merge(&w->merged, w->ckpt, &w->net, &one, &one, 1));
    return add_text(w, sdlora_checkpoint_family(w->merged));
}

static int new_trainer(world *w)
{
    const sdlora_options *o =
        options(w, "train", "max_train_steps", "2", "learning_rate", "1e-3", "seed", "5",
                "output_dir", torture_in(w->dir, "out"), "output_name", "net", NULL);

    TRY(open_model(w));
    TRY(dataset(w, "pictures", NULL, NULL));
    TRY(new_network(w));
    DO(w, sdlora_trainer_new(&w->t, w->ckpt, NULL, w->net, w->data, NULL, o, NULL, NULL));
    return SDLORA_OK;
}

/* The hash of a network's tensors, that is of the trained values to the bit. */
static int add_weights(world *w, const char *path)
{
    static const char key[] = "\"tensors\": \"";
    char *hash;

    DO(w, sdlora_file_info(w->ctx, path, 1, &w->json));
    hash = strstr(w->json, key);
    if (hash) {
        hash += sizeof key - 1;
        hash[strcspn(hash, "\"")] = '\0';
    }
    return add_text(w, hash ? hash : w->json);
}

/* Two steps, the second of which writes the network.  A step that failed in what came due after it
 * is done: the next call goes on from there, so there may be a call too many. */
static int training(world *w)
{
    TRY(new_trainer(w));
    for (int i = 0; i < 3; i++)
        DO(w, sdlora_trainer_step(w->t, NULL));
    return add_weights(w, torture_in(w->dir, "out/net.safetensors"));
}

/* A step, everything saved, back to that state, and the second step. */
static int resuming(world *w)
{
    TRY(new_trainer(w));
    DO(w, sdlora_trainer_step(w->t, NULL));
    DO(w, sdlora_trainer_save_state(w->t, torture_in(w->dir, "state")));
    DO(w, sdlora_trainer_save(w->t, torture_in(w->dir, "midway.safetensors")));
    DO(w, sdlora_trainer_resume(w->t, torture_in(w->dir, "state")));
    DO(w, sdlora_trainer_step(w->t, NULL));
    return add_weights(w, torture_in(w->dir, "out/net.safetensors"));
}

static int evaluating(world *w)
{
    const double half = 0.5;

    TRY(open_model(w));
    TRY(dataset(w, "single", NULL, NULL));
    TRY(new_network(w));
    DO(w, sdlora_vae_open(&w->vae, w->ctx, LAYOUTS "vae.safetensors"));
    DO(w, sdlora_evaluate(w->ckpt, w->vae, w->data, &w->net, &half, &half, 1, NULL, NULL, NULL,
                          &w->figure));
    return SDLORA_OK;
}

/* A network by hand and one by the prompt's tag. */
static int generating(world *w)
{
    const sdlora_options *o =
        options(w, "generate", "prompt", "a (red:1.2) cat <lora:found:0.5>", "negative", "blur",
                "steps", "1", "width", "64", "height", "64", "seed", "9", NULL);

    TRY(open_model(w));
    TRY(new_network(w));
    DO(w, sdlora_generator_new(&w->g, w->ckpt, NULL));
    DO(w, sdlora_generator_add_lora_dir(w->g, torture_in(w->dir, "loras")));
    DO(w, sdlora_generator_set_network(w->g, w->net, 1, 0.5));
    DO(w, sdlora_generator_run(w->g, o, w->img, 1));
    DO(w, sdlora_image_save(w->img[0], torture_in(w->dir, "drawn.png")));
    return add_image(w, w->img[0]);
}

static int take_json(world *w)
{
    int rc = add_text(w, w->json);

    sdlora_text_free(w->ctx, w->json);
    w->json = NULL;
    return rc;
}

/* A text's checkpoint that goes by another name here makes the second pass, and one that has
 * another hash is a refiner. */
static int matching(world *w)
{
    static const char key[] = "\"sha256\": \"";
    sdlora_options *o =
        options(w, "generate", "prompt", "a cat", "steps", "1", "width", "64", "height", "64",
                "seed", "9", "enable_hr", "true", "hr_scale", "1", NULL);
    char text[256], *hash;

    TRY(open_model(w));
    DO(w, sdlora_generator_new(&w->g, w->ckpt, NULL));
    DO(w, sdlora_generator_add_ckpt_dir(w->g, torture_in(w->dir, "models")));
    DO(w, sdlora_file_hash(w->ctx, CKPT, NULL, NULL, &w->json));
    hash = strstr(w->json, key);
    snprintf(text, sizeof text,
             "a cat\nSteps: 1, Seed: 9, Hires checkpoint: gone [%.10s], "
             "Refiner: second [0123456789]",
             hash ? hash + sizeof key - 1 : "");
    TRY(take_json(w));
    DO(w, sdlora_generator_match(w->g, o, text, &w->json));
    DO(w, sdlora_generator_run(w->g, o, w->img, 1));
    return add_image(w, w->img[0]);
}

/* Files made of files: each result is there whole or not at all, so the same call may come again.
 */
static int tools(world *w)
{
    static const char *const keys[] = {"ss_training_comment", "ss_output_name"};
    static const char *const values[] = {"by the torture", NULL};
    const char *file = torture_in(w->dir, "tools.safetensors");
    const char *net = torture_in(w->dir, "edited.safetensors");
    const sdlora_options *o =
        options(w, "convert", "layout", "ldm", "save_precision", "float", NULL);

    TRY(open_context(w));
    DO(w, sdlora_file_convert(w->ctx, LAYOUTS "diffusers", file, o, NULL, NULL, &w->json));
    TRY(take_json(w));
    DO(w, sdlora_file_prune(w->ctx, LAYOUTS "lightning.ckpt", file, NULL, NULL, NULL, &w->json));
    TRY(take_json(w));
    DO(w, sdlora_file_check(w->ctx, file, 1, NULL, NULL, &w->json));
    TRY(take_json(w));
    DO(w, sdlora_metadata_set(w->ctx, TEST_ROOT "/golden/hash_lora.safetensors", net, keys, values,
                              2, NULL, NULL));
    DO(w, sdlora_metadata_copy(w->ctx, TEST_ROOT "/golden/hash_lora.safetensors", net, NULL, "ss_",
                               NULL, NULL));
    DO(w, sdlora_file_hash(w->ctx, net, NULL, NULL, &w->json));
    TRY(take_json(w));
    DO(w, sdlora_metadata_get(w->ctx, net, NULL, &w->json));
    return take_json(w);
}

/* `first` and `more` are sizes of the sample: what takes longer gets fewer, and begins with what
 * the others did. */
typedef struct scenario {
    const char *name;
    int (*run)(world *w);
    long first, more;
} scenario;

static const scenario scenarios[] = {
    {"pictures", pictures, 300, 100}, {"tokens", tokens, 300, 100},
    {"info", info, 300, 100},         {"models", models, 300, 100},
    {"tools", tools, 40, 60},         {"folders", folders, 300, 100},
    {"networks", networks, 300, 150}, {"training", training, 20, 100},
    {"resuming", resuming, 20, 100},  {"evaluating", evaluating, 20, 60},
    {"planning", planning, 2, 4},     {"generating", generating, 50, 150},
    {"matching", matching, 20, 100},
};

/* --- the torture --- */

/* Entries of a folder and of those below it. */
static long count_entries(const char *path)
{
    DIR *d = opendir(path);
    struct dirent *e;
    char below[512];
    long n = 0;

    while (d && (e = readdir(d)) != NULL) {
        if (e->d_name[0] == '.' && (!e->d_name[1] || e->d_name[1] == '.'))
            continue;
        n++;
        snprintf(below, sizeof below, "%s/%s", path, e->d_name);
        if (e->d_type == DT_DIR)
            n += count_entries(below);
    }
    if (d)
        closedir(d);
    return n;
}

/* A scenario, and how it goes undisturbed. */
typedef struct subject {
    const scenario *s;
    long n;              /* allocations */
    long entries, files; /* of the folder; descriptors */
    double figure;
} subject;

static int run(const subject *s, world *w, int mode, long k)
{
    int rc;

    *w = (world){0};
    snprintf(w->dir, sizeof w->dir, "torture-%s", s->s->name);
    hooks.mode = mode;
    hooks.fail_at = k;
    hooks.calls = hooks.refused = 0;
    rc = s->s->run(w);
    give_back(w);
    return rc;
}

/* Nothing at all may be left of a run. */
static const char *verdict(const subject *s, const world *w, int mode, int rc)
{
    if (w->bad)
        return w->bad;
    if (hooks.live)
        return "blocks are left";
    if (count_entries("/proc/self/fd") != s->files)
        return "files are left open";
    if (rc < 0)
        return mode == FROM ? NULL : "it failed";
    if (w->figure != s->figure)
        return "it passed with another result";
    if (mode != FROM && count_entries(w->dir) != s->entries)
        return "other files are left";
    return NULL;
}

static int torture(const subject *s, int mode, long k)
{
    world w;
    int rc = run(s, &w, mode, k);
    const char *bad = verdict(s, &w, mode, rc);

    if (!bad)
        return 0;
    printf("%s, %s %ld: %s; code %d, %ld blocks left, figure %.17g (%.17g); %s\n", s->s->name,
           mode == ONCE ? "once" : "from", k, bad, rc, hooks.live, w.figure, s->figure, w.text);
    hooks.live = 0;
    return 1;
}

/* All of the first, then one of each `stride`, at a place that differs from scenario to scenario.
 */
static long next(const subject *s, long k)
{
    const long rest = s->n - s->s->first;
    const long stride = rest > s->s->more ? rest / s->s->more : 1;

    if (k != s->s->first)
        return k < s->s->first ? k + 1 : k + stride;
    return k + 1 + (long)strlen(s->s->name) * 7 % stride;
}

static int undisturbed(subject *s)
{
    world w;

    snprintf(w.dir, sizeof w.dir, "torture-%s", s->s->name);
    torture_files(w.dir);
    if (run(s, &w, NEVER, 0) < 0 || hooks.live) {
        printf("%s: does not even run: %s, %ld blocks left\n", s->s->name, w.text, hooks.live);
        return -1;
    }
    s->n = hooks.calls;
    s->figure = w.figure;
    s->entries = count_entries(w.dir);
    s->files = count_entries("/proc/self/fd");
    return 0;
}

int main(int argc, char **argv)
{
    const long from = argc > 2 ? strtol(argv[2], NULL, 10) : 1;
    const long step = argc > 3 ? strtol(argv[3], NULL, 10) : 0;
    long runs = 0, bad = 0;
    subject s = {0};

    for (size_t i = 0; argc > 1 && i < sizeof scenarios / sizeof *scenarios; i++)
        if (!strcmp(scenarios[i].name, argv[1]))
            s.s = &scenarios[i];
    if (!s.s || from < 1 || step < 0)
        return fprintf(stderr, "usage: torture SCENARIO [K [STEP]]\n"), 2;
    if (undisturbed(&s) < 0)
        return 1;
    for (long k = from; k <= s.n && bad < 20; k = step       ? k + step
                                                  : argc > 2 ? s.n + 1
                                                             : next(&s, k)) {
        bad += torture(&s, ONCE, k);
        bad += torture(&s, FROM, k);
        runs += 2;
    }
    bad += torture(&s, NEVER, 0); /* afterwards all is as it was */
    printf("%s: %ld allocations, %ld runs, %ld bad\n", s.s->name, s.n, runs, bad);
    return bad != 0;
}
