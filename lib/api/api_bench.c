/* SPDX-License-Identifier: MIT */
/* Timings of a model's parts next to what the machine can do, measured in the same run.  Knows how
 * to build each part as a plan and what to put into its inputs; refuses to judge the numbers. */
#include "api/bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/clock.h"
#include "base/rng.h"
#include "base/status.h"
#include "io/json.h"
#include "models/unet.h"
#include "models/vae.h"
#include "sample/generator.h"
#include "train/step.h"

enum { TOKENS = 77, MAX_REPEATS = 1000 };

/* --- timing --- */

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

int slr_bench_tell(const slr_bench *b, const char *phase, int done, int total)
{
    if (slr_api_tell(b->watch, phase, done, total))
        return slr_fail(SDLORA_ECANCELED, "sdlora_bench",
                        "cancelled by the progress callback at run %d of %d of %s", done, total,
                        phase);
    return SDLORA_OK;
}

int slr_bench_time(const slr_bench *b, const char *phase, slr_plan *p, int repeats, double *best,
                   double *median)
{
    double took[MAX_REPEATS];

    SLR_TRY(slr_bench_tell(b, phase, 0, repeats + 1));
    SLR_TRY(slr_plan_run(p, NULL));
    SLR_TRY(slr_bench_tell(b, phase, 1, repeats + 1));
    for (int i = 0; i < repeats; i++) {
        double start = slr_clock();

        SLR_TRY(slr_plan_run(p, NULL));
        took[i] = slr_clock() - start;
        SLR_TRY(slr_bench_tell(b, phase, i + 2, repeats + 1));
    }
    qsort(took, (size_t)repeats, sizeof *took, compare);
    *best = took[0];
    *median = repeats % 2 ? took[repeats / 2] : (took[repeats / 2 - 1] + took[repeats / 2]) / 2;
    return SDLORA_OK;
}

static double peak_bytes(void)
{
    struct rusage usage;

    return getrusage(RUSAGE_SELF, &usage) == 0 ? (double)usage.ru_maxrss * 1024 : 0;
}

/* --- rows --- */

/* Times a plan whose inputs are filled and writes its row. */
static int put_part(slr_bench *b, const char *name, slr_plan *p)
{
    slr_plan_stats stats;
    double best, median;

    SLR_TRY(slr_bench_time(b, name, p, b->repeats, &best, &median));
    SLR_TRY(slr_bench_machine_again(b));
    double ceiling = slr_bench_ceiling(b);
    slr_plan_get_stats(p, &stats);
    slr_buf_printf(b->out,
                   "%s\n    {\"part\": \"%s\", \"best\": %.6f, \"median\": %.6f, "
                   "\"tflop\": %.6f, \"gflops\": %.1f, \"share_of_ceiling\": %.4f, "
                   "\"ceiling_gflops\": %.1f, \"kernels\": %llu, \"arena_bytes\": %llu, "
                   "\"peak_rss_bytes\": %.0f",
                   b->any ? "," : "", name, best, median, stats.flops * 1e-12,
                   stats.flops / best * 1e-9, stats.flops / best / ceiling, ceiling * 1e-9,
                   (unsigned long long)stats.n_kernels, (unsigned long long)stats.arena_bytes,
                   peak_bytes());
    if (b->profile)
        SLR_TRY(slr_bench_profile(b, p));
    slr_buf_puts(b->out, "}");
    b->any = true;
    return slr_buf_ok(b->out);
}

/* --- parts --- */

static void fill_normal(float *to, int64_t n, uint32_t stream)
{
    slr_rng rng;

    slr_rng_init(&rng, 1, SLR_STREAM_EVAL, stream);
    slr_rng_normal(&rng, to, (size_t)n);
}

/* Plans g (freed here), fills its inputs, times it. */
static int time_graph(slr_bench *b, const char *name, slr_graph *g, const slr_val *in, int n_in)
{
    slr_plan *p = NULL;
    int rc = slr_graph_status(g);

    if (rc >= 0)
        rc = slr_plan_new(&p, g, b->ctx->devices);
    if (rc >= 0)
        rc = slr_plan_back(p);
    for (int i = 0; rc >= 0 && i < n_in; i++) {
        slr_shape s = slr_plan_shape(p, in[i]);
        int64_t count = 1;

        for (int k = 0; k < s.rank; k++)
            count *= s.dim[k];
        if (s.dtype == SDLORA_F32)
            fill_normal(slr_plan_data(p, in[i]), count, (uint32_t)i);
        else /* token ids: which ones does not matter */
            memset(slr_plan_data(p, in[i]), 0, (size_t)count * slr_dtype_size(s.dtype));
    }
    slr_graph_free(g);
    if (rc >= 0)
        rc = put_part(b, name, p);
    slr_plan_free(p);
    return rc;
}

static int need(const slr_bench *b, int part, slr_weights **w)
{
    *w = slr_checkpoint_part(b->base, part);
    if (*w)
        return SDLORA_OK;
    return slr_fail(SDLORA_EINVAL, "sdlora_bench", "%s has no %s", slr_checkpoint_path(b->base),
                    slr_part_name(part));
}

static int new_graph(const slr_bench *b, slr_graph **g)
{
    return slr_graph_new(g, b->ctx->mem, b->policy);
}

static int bench_forward(slr_bench *b)
{
    const slr_family *family = slr_checkpoint_family(b->base);
    slr_unet_shape shape;
    slr_weights *unet;
    slr_graph *g;
    slr_val in[4];

    SLR_TRY(need(b, SLR_PART_UNET, &unet));
    SLR_TRY(slr_unet_read(&shape, family, unet));
    SLR_TRY(new_graph(b, &g));
    slr_nn nn = {.g = g, .w = unet, .part = SLR_PART_UNET};
    in[0] =
        slr_input(g, "x", SDLORA_F32, 4, (const int64_t[]){b->n, b->h, b->w, shape.in_channels});
    in[1] = slr_input(g, "t", SDLORA_F32, 1, (const int64_t[]){b->n});
    in[2] = shape.context ? slr_input(g, "context", SDLORA_F32, 3,
                                      (const int64_t[]){b->n, TOKENS, shape.context})
                          : SLR_NONE;
    if (shape.vector) {
        in[3] = slr_input(g, "vector", SDLORA_F32, 2, (const int64_t[]){b->n, shape.vector});
        slr_output(g, slr_unet_build_vector(&nn, family, in[0], in[1], in[2], in[3]), "y");
    } else {
        slr_output(g, slr_unet_build(&nn, family, in[0], in[1], in[2]), "y");
    }
    return time_graph(b, "forward", g, in, shape.vector ? 4 : shape.context ? 3 : 2);
}

static void fill_step(const slr_bench *b, const slr_step_io *io)
{
    int64_t floats = b->n * b->h * b->w * io->channels;

    fill_normal(io->x, floats, 0);
    fill_normal(io->target, floats, 1);
    for (int64_t i = 0; i < b->n; i++) {
        io->t[i] = 500;
        io->weight[i] = 1;
    }
    for (int e = 0; e < SLR_TEXT_ENCODERS; e++) /* which tokens does not matter */
        if (io->text.ids[e])
            memset(io->text.ids[e], 0, (size_t)(b->n * TOKENS) * sizeof *io->text.ids[e]);
    if (io->text.end)
        slr_text_ends(io->text.ids[0], (size_t)b->n, io->text.end);
    if (io->states)
        fill_normal(io->states, b->n * io->tokens * io->shape.width, 2);
    if (io->pooled)
        fill_normal(io->pooled, b->n * io->shape.pooled, 3);
    if (io->extra)
        fill_normal(io->extra, b->n * b->h * b->w * (1 + io->channels), 5);
    if (io->sizes)
        fill_normal(io->sizes, b->n * io->shape.n_sizes * SLR_SIZE_WIDTH, 4);
}

/* te: the text encoders are trained too, and so are inside the graph. */
static int time_step(slr_bench *b, bool te)
{
    sdlora_options *opts;
    slr_network *net = NULL;
    slr_step *step = NULL;

    SLR_TRY(slr_options_new(&opts, b->ctx->mem, "network"));
    int rc = slr_options_set_int(opts, "network_dim", slr_opt_int(b->o, "network_dim"));
    if (rc >= 0)
        rc = slr_network_make(&net, b->base, opts, 1);
    slr_options_unref(opts);
    slr_step_config config = {
        .mem = b->ctx->mem,
        .base = b->base,
        .network = net,
        .devices = b->ctx->devices,
        .policy = b->policy,
        .n = b->n,
        .h = b->h,
        .w = b->w,
        .n_chunks = 1,
        .clip_skip = 1,
        .loss_type = SDLORA_LOSS_L2,
        .part_mask = 1u << SLR_PART_UNET | (te ? 1u << SLR_PART_TE | 1u << SLR_PART_TE2 : 0),
        .text_states = !te,
        .recompute = slr_opt_bool(b->o, "gradient_checkpointing"),
    };
    if (rc >= 0)
        rc = slr_step_new(&step, &config);
    if (rc >= 0) {
        fill_step(b, slr_step_io_of(step));
        rc = put_part(b, te ? "step_te" : "step", slr_step_plan(step));
    }
    slr_step_free(step);
    slr_network_unref(net);
    return rc;
}

static int bench_step(slr_bench *b)
{
    return time_step(b, false);
}

static int bench_step_te(slr_bench *b)
{
    return time_step(b, true);
}

static int bench_vae(slr_bench *b)
{
    slr_weights *vae;
    slr_graph *g;
    slr_val in;
    int factor;

    SLR_TRY(need(b, SLR_PART_VAE, &vae));
    SLR_TRY(slr_vae_factor(vae, &factor));
    SLR_TRY(new_graph(b, &g));
    slr_nn nn = {.g = g, .w = vae, .part = SLR_PART_VAE};
    in = slr_input(g, "image", SDLORA_F32, 4,
                   (const int64_t[]){b->n, b->h << factor, b->w << factor, 3});
    slr_output(g, slr_vae_encode_build(&nn, in), "moments");
    SLR_TRY(time_graph(b, "vae_encode", g, &in, 1));
    SLR_TRY(new_graph(b, &g));
    nn.g = g;
    in = slr_input(g, "latents", SDLORA_F32, 4, (const int64_t[]){b->n, b->h, b->w, 4});
    slr_output(g, slr_vae_decode_build(&nn, in), "image");
    return time_graph(b, "vae_decode", g, &in, 1);
}

/* All text encoders of the family. */
static int bench_text(slr_bench *b)
{
    static const char *const names[] = {"ids", "ids2", "end"};
    slr_text_shape shape;
    slr_graph *g;
    slr_val in[3], states, pooled;
    int n = 0;

    SLR_TRY(slr_text_read(&shape, b->base));
    slr_text_graph text = {.family = slr_checkpoint_family(b->base),
                           .shape = &shape,
                           .n = b->n,
                           .n_chunks = 1,
                           .clip_skip = 1};
    for (int e = 0; e < shape.n; e++)
        SLR_TRY(need(b, shape.part[e], &text.weights[e]));
    SLR_TRY(new_graph(b, &g));
    slr_text_graph_build(g, &text, &states, &pooled);
    slr_output(g, states, "states");
    if (pooled != SLR_NONE)
        slr_output(g, pooled, "pooled");
    for (int i = 0; i < 3; i++) {
        in[n] = slr_graph_find(g, names[i]);
        n += in[n] != SLR_NONE;
    }
    return time_graph(b, "text", g, in, n);
}

/* One picture by 20 steps of Euler at a guidance of 7, text and decoding included. */
static int bench_txt2img(slr_bench *b)
{
    slr_generator *gen;
    slr_picture picture;
    double took[MAX_REPEATS + 1];

    SLR_TRY(slr_generator_new(&gen, b->ctx->mem, b->ctx->log, b->base, NULL, NULL, b->ctx->devices,
                              NULL));
    int rc = SDLORA_OK, runs = b->repeats + 1;
    for (int i = 0; rc >= 0 && i < runs; i++) {
        char prompt[32]; /* another one each time, since text is kept */
        slr_request r = {.policy = b->policy, .vae_policy = b->policy};
        slr_settings_read(&r.set, (slr_opt){NULL, "generate"});
        r.set.prompt = prompt;
        r.set.sampler = "Euler";
        r.set.width = (int)b->w * 8;
        r.set.height = (int)b->h * 8;
        r.set.seed = 1;
        snprintf(prompt, sizeof prompt, "picture number %d", i);
        rc = slr_bench_tell(b, "txt2img", i, runs);
        double start = slr_clock();
        if (rc >= 0)
            rc = slr_generator_run(gen, &r, &picture);
        took[i] = slr_clock() - start;
        if (rc >= 0)
            slr_picture_free(b->ctx->mem, &picture);
    }
    slr_generator_free(gen);
    SLR_TRY(rc);
    double first = took[0]; /* plans and packs are made in it */
    qsort(took + 1, (size_t)b->repeats, sizeof *took, compare);
    slr_buf_printf(b->out,
                   "%s\n    {\"part\": \"txt2img\", \"first\": %.6f, \"best\": %.6f, "
                   "\"median\": %.6f, \"steps\": 20, \"peak_rss_bytes\": %.0f}",
                   b->any ? "," : "", first, took[1], took[1 + b->repeats / 2], peak_bytes());
    b->any = true;
    return slr_bench_tell(b, "txt2img", runs, runs);
}

static const struct {
    const char *name;
    int (*run)(slr_bench *b);
} parts[] = {
    {"forward", bench_forward}, {"step", bench_step}, {"step_te", bench_step_te},
    {"vae", bench_vae},         {"text", bench_text}, {"txt2img", bench_txt2img},
};

static int run_part(slr_bench *b, slr_str name)
{
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (slr_str_eq(name, parts[i].name))
            return parts[i].run(b);
    return slr_fail(SDLORA_EINVAL, "sdlora_bench",
                    "what = '%.*s' is not forward, step, step_te, vae, text or txt2img",
                    (int)(name.n < 100 ? name.n : 100), name.p);
}

static int run_all(slr_bench *b)
{
    slr_str rest = slr_str_of(slr_opt_text(b->o, "what")), one;
    int64_t width = slr_opt_int(b->o, "width"), height = slr_opt_int(b->o, "height");

    if (width % 8 || height % 8)
        return slr_fail(SDLORA_EINVAL, "sdlora_bench", "%lldx%lld: sides are multiples of 8",
                        (long long)width, (long long)height);
    b->n = slr_opt_int(b->o, "batch");
    b->w = width / 8;
    b->h = height / 8;
    b->repeats = (int)slr_opt_int(b->o, "repeats");
    b->repeats = b->repeats < MAX_REPEATS ? b->repeats : MAX_REPEATS;
    b->profile = slr_opt_bool(b->o, "profile");
    SLR_TRY(slr_policy_read(&b->policy, slr_opt_text(b->o, "mixed_precision"), b->ctx->devices));
    SLR_TRY(slr_bench_machine(b));
    slr_buf_puts(b->out, "  \"model\": ");
    const char *path = slr_checkpoint_path(b->base);
    slr_json_quote(b->out, path, strlen(path), false);
    slr_buf_printf(b->out,
                   ",\n  \"width\": %lld, \"height\": %lld, \"batch\": %lld, \"repeats\": %d, "
                   "\"mixed_precision\": \"%s\",\n  \"parts\": [",
                   (long long)width, (long long)height, (long long)b->n, b->repeats,
                   slr_policy_name(b->policy));
    while (slr_str_next(&rest, ',', &one))
        SLR_TRY(run_part(b, slr_str_trim(one)));
    slr_buf_puts(b->out, "\n  ]\n}\n");
    return slr_buf_ok(b->out);
}

int sdlora_bench(sdlora_context *ctx, sdlora_checkpoint *ckpt, const sdlora_options *opts,
                 sdlora_progress_fn progress, void *user, char **json)
{
    slr_api_watch watch = {.fn = progress, .user = user};
    slr_buf out;

    slr_clear();
    SLR_TRY(slr_api_given(json, "json", __func__));
    *json = NULL;
    SLR_TRY(slr_api_given(ctx, "ctx", __func__));
    SLR_TRY(slr_api_given(ckpt, "ckpt", __func__));
    SLR_TRY(slr_api_kind(opts, "bench", __func__));
    slr_buf_init(&out, ctx->mem);
    slr_bench b = {
        .ctx = ctx, .base = ckpt->base, .o = {opts, "bench"}, .out = &out, .watch = &watch};
    int rc = run_all(&b);
    if (rc >= 0 && !(*json = slr_buf_take(&out)))
        rc = SDLORA_ENOMEM;
    slr_buf_free(&out);
    return rc;
}
