/* SPDX-License-Identifier: MIT */
/* Lists of 25 (SD 1, 2) or 23 (SDXL) values, one per block of the UNet in the order in which it
 * runs, and which block a layer is in.  Refuses to know what is made of the values. */
#include "networks/blockdims.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/status.h"
#include "base/str.h"
#include "models/family.h"

/* How many blocks there are before, in and after the middle: ..._lr_weight have one value each.
 * edge: a block at each end that those lists leave out. */
typedef struct order {
    int down, mid, edge;
} order;

static order order_of(int family)
{
    return family == SLR_FAMILY_SDXL ? (order){9, 3, 1} : (order){12, 1, 0};
}

static int total(order o)
{
    return 2 * (o.down + o.edge) + o.mid;
}

/* --- the block of a layer --- */

/* SD 1 and 2: 0 is conv_in, which has none; 1 + 3i + j down, 12, 13 + 3i + j up.  SDXL by the LDM
 * names that kohya has there: 0 for the embeddings, 1 + input_blocks, 10 + middle, 13 + output. */
int slr_block_of(const slr_target *t, int family)
{
    int i, j, used = 0;
    bool xl = family == SLR_FAMILY_SDXL;
    const char *rest;
    char what[16];
    if (t->part != SLR_PART_UNET)
        return -1;
    if (sscanf(t->path, "mid_block.%15[a-z].%d", what, &j) == 2)
        return !xl ? 12 : what[0] == 'a' ? 11 : j ? 12 : 10;
    bool down = sscanf(t->path, "down_blocks.%d.%n", &i, &used) == 1 && used;
    if (!down && !(sscanf(t->path, "up_blocks.%d.%n", &i, &used) == 1 && used))
        return -1;
    rest = t->path + used;
    if (sscanf(rest, "%15[a-z].%d", what, &j) != 2)
        return -1;
    bool sampler = !strcmp(what, "downsamplers") || !strcmp(what, "upsamplers");
    int at = 3 * i + (sampler ? 2 : j), first = down ? (xl ? 2 : 1) : 13;
    return first + at < total(order_of(family)) ? first + at : -1;
}

/* --- lists --- */

/* Numbers between commas; an empty item is 0 where that is allowed.  The count, or an error. */
static int read_numbers(const char *key, const char *text, bool whole, bool empty, double *out,
                        int cap)
{
    slr_str rest = slr_str_of(text), piece;
    int n = 0;
    bool more = true;
    while (more) {
        const char *comma = memchr(rest.p, ',', rest.n);
        char number[64];
        double v = 0;
        piece = slr_str_trim((slr_str){rest.p, comma ? (size_t)(comma - rest.p) : rest.n});
        more = comma != NULL;
        if (more)
            rest = (slr_str){comma + 1, rest.n - (size_t)(comma + 1 - rest.p)};
        snprintf(number, sizeof number, "%.*s", (int)fmin(63, (double)piece.n), piece.p);
        bool good = piece.n < sizeof number &&
                    ((empty && !piece.n) || (slr_parse_real(number, &v) && isfinite(v)));
        if (!good || v < 0 || v > 1e9 || (whole && v != floor(v)))
            return slr_fail(SDLORA_EINVAL, __func__, "network_args: %s: '%s' is not %s", key,
                            number, whole ? "a whole number from 0" : "a number from 0");
        if (n < cap)
            out[n] = v;
        n++;
    }
    return n;
}

/* A list with a value for every block, or the same value for all. */
static int read_list(const char *key, const char *text, bool whole, double otherwise, int n,
                     double *out)
{
    for (int i = 0; i < n; i++)
        out[i] = otherwise;
    if (!text)
        return SDLORA_OK;
    int got = read_numbers(key, text, whole, false, out, n);
    if (got >= 0 && got != n)
        return slr_fail(SDLORA_EINVAL, __func__,
                        "network_args: %s has %d values, and this model has %d blocks", key, got,
                        n);
    return got < 0 ? got : SDLORA_OK;
}

static double rise(int i, int n)
{
    return (double)i / (n - 1);
}

static double sine(int i, int n)
{
    return sin(M_PI / 2 * rise(i, n));
}

static double zero(int i, int n)
{
    (void)i, (void)n;
    return 0;
}

/* Words that stand for a list. */
static const struct {
    const char *name;
    double (*at)(int i, int n);
    bool reverse;
} shapes[] = {{"cosine", sine, true},
              {"sine", sine, false},
              {"linear", rise, false},
              {"reverse_linear", rise, true},
              {"zeros", zero, false}};

/* "cosine", "sine+.25": the number is added to each value. */
static int read_shape(const char *key, const char *text, int n, double *out)
{
    const char *plus = strchr(text, '+');
    size_t length = plus ? (size_t)(plus - text) : strlen(text);
    double base = 0;
    if (!plus || slr_parse_real(plus + 1, &base))
        for (size_t k = 0; k < sizeof shapes / sizeof *shapes; k++)
            if (strlen(shapes[k].name) == length && !memcmp(shapes[k].name, text, length)) {
                for (int i = 0; i < n; i++)
                    out[i] = base + shapes[k].at(shapes[k].reverse ? n - 1 - i : i, n);
                return SDLORA_OK;
            }
    return slr_fail(SDLORA_EINVAL, __func__,
                    "network_args: %s=%s is neither a list nor one of cosine, sine, linear, "
                    "reverse_linear, zeros, each with or without +number",
                    key, text);
}

/* What is missing is 1, what is too much is left out, what is at most the threshold is 0. */
static int read_rates(const char *key, const char *text, double threshold, int n, double *out)
{
    for (int i = 0; i < n; i++)
        out[i] = 1.0;
    if (!text)
        return SDLORA_OK;
    bool list = n < 9 || strchr(text, ',');
    int rc = list ? read_numbers(key, text, false, true, out, n) : read_shape(key, text, n, out);
    for (int i = 0; rc >= 0 && i < n; i++)
        if (out[i] <= threshold)
            out[i] = 0;
    return rc < 0 ? rc : SDLORA_OK;
}

static int read_dims(slr_block_plan *p, const slr_block_texts *t, const slr_block_defaults *d)
{
    double v[SLR_BLOCKS_MAX];
    p->conv = t->conv_dims || d->conv_dim >= 0;
    SLR_TRY(read_list("block_dims", t->dims, true, (double)d->dim, p->n, v));
    for (int i = 0; i < p->n; i++)
        p->dim[i] = (int64_t)v[i];
    SLR_TRY(read_list("block_alphas", t->alphas, false, d->alpha, p->n, p->alpha));
    SLR_TRY(
        read_list("conv_block_dims", t->conv_dims, true, fmax(0, (double)d->conv_dim), p->n, v));
    for (int i = 0; i < p->n; i++)
        p->conv_dim[i] = (int64_t)v[i];
    return read_list("conv_block_alphas", t->conv_alphas, false, d->conv_alpha, p->n,
                     p->conv_alpha);
}

int slr_block_plan_read(slr_block_plan *out, const slr_block_texts *t, const slr_block_defaults *d,
                        int family)
{
    order o = order_of(family);
    *out = (slr_block_plan){0};
    if (!t->dims && (t->alphas || t->conv_dims || t->conv_alphas) && !t->down && !t->mid && !t->up)
        return slr_fail(SDLORA_EINVAL, __func__,
                        "network_args: block_alphas, conv_block_dims and conv_block_alphas need "
                        "block_dims");
    if (!t->dims && !t->down && !t->mid && !t->up)
        return SDLORA_OK;
    out->n = total(o);
    SLR_TRY(read_dims(out, t, d));
    double *lr = out->lr;
    for (int i = 0; i < out->n; i++)
        lr[i] = 1.0;
    SLR_TRY(read_rates("down_lr_weight", t->down, d->threshold, o.down, lr + o.edge));
    SLR_TRY(read_rates("mid_lr_weight", t->mid, d->threshold, o.mid, lr + o.edge + o.down));
    SLR_TRY(read_rates("up_lr_weight", t->up, d->threshold, o.down, lr + o.edge + o.down + o.mid));
    for (int i = 0; i < out->n; i++)
        if (lr[i] == 0)
            out->dim[i] = out->conv_dim[i] = 0;
    return SDLORA_OK;
}
