/* SPDX-License-Identifier: MIT */
/* ESRGAN's network.  Knows its blocks, what its layers are called in files, and that AUTOMATIC1111
 * hands it blue first; refuses to know tiles and target sizes (upscaler.c). */
#include "sample/rrdb.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/status.h"
#include "graph/exec.h"
#include "models/modelfile.h"
#include "models/nn.h"
#include "sample/compose.h"

enum { DENSE = 3, CONVS = 5, MAX_BLOCKS = 64, MAX_UPS = 5, MAX_CHAIN = 64 };

struct slr_rrdb {
    slr_mem *m;
    slr_devices *devices;
    slr_weights *w; /* by Real-ESRGAN's names, ups counted from 1 */
    char *path;
    int blocks, ups, fold; /* fold: side of the squares of pixels that become channels first */
    slr_plan *plan;        /* for the last size; NULL: none yet */
    slr_val x, y;
    int64_t h, w_in; /* its size */
};

/* --- names --- */

/* The first release numbers what comes after the trunk as it stands in a chain with layers that
 * have no weights: the last two are conv_hr and conv_last, those before them double the size. */
typedef struct chain {
    bool has[MAX_CHAIN];
} chain;

static int ups_of(const chain *c)
{
    int n = 0;
    for (int i = 2; i < MAX_CHAIN; i++)
        n += c->has[i];
    return n - 2;
}

static bool chain_name(const chain *c, int at, const char *leaf, char out[96])
{
    int before = 0, ups = ups_of(c);
    for (int i = 2; i < at; i++)
        before += c->has[i];
    if (before < ups)
        snprintf(out, 96, "conv_up%d.%s", before + 1, leaf);
    else
        snprintf(out, 96, "%s.%s", before == ups ? "conv_hr" : "conv_last", leaf);
    return ups >= 0;
}

/* What a tensor is called here; false: it belongs to another network. */
static bool canonical(const char *name, const chain *c, char out[96])
{
    int block, dense, conv, used = 0;
    char leaf[8];
    static const char *const plain[][2] = {{"trunk_conv", "conv_body"},
                                           {"HRconv", "conv_hr"},
                                           {"upconv1", "conv_up1"},
                                           {"upconv2", "conv_up2"},
                                           {"upconv3", "conv_up3"}};
    static const char *const own[] = {"conv_first", "conv_body", "conv_hr", "conv_last"};
    if (sscanf(name, "model.1.sub.%d.RDB%d.conv%d.0.%7[a-z]%n", &block, &dense, &conv, leaf,
               &used) == 4 ||
        sscanf(name, "RRDB_trunk.%d.RDB%d.conv%d.%7[a-z]%n", &block, &dense, &conv, leaf, &used) ==
            4 ||
        sscanf(name, "body.%d.rdb%d.conv%d.%7[a-z]%n", &block, &dense, &conv, leaf, &used) == 4) {
        snprintf(out, 96, "body.%d.rdb%d.conv%d.%s", block, dense, conv, leaf);
        return !name[used] && block >= 0 && block < MAX_BLOCKS && dense >= 1 && dense <= DENSE &&
               conv >= 1 && conv <= CONVS;
    }
    if (sscanf(name, "model.1.sub.%d.%7[a-z]%n", &block, leaf, &used) == 2 && !name[used]) {
        snprintf(out, 96, "conv_body.%s", leaf);
        return true;
    }
    if (sscanf(name, "model.%d.%7[a-z]%n", &block, leaf, &used) == 2 && !name[used]) {
        snprintf(out, 96, "conv_first.%s", leaf);
        return block == 0 || (block > 1 && block < MAX_CHAIN && chain_name(c, block, leaf, out));
    }
    const char *dot = strchr(name, '.');
    size_t n = dot ? (size_t)(dot - name) : 0;
    for (size_t i = 0; n && i < sizeof plain / sizeof *plain; i++)
        if (strlen(plain[i][0]) == n && !strncmp(name, plain[i][0], n)) {
            snprintf(out, 96, "%s%s", plain[i][1], dot);
            return true;
        }
    snprintf(out, 96, "%s", name);
    for (size_t i = 0; n && i < sizeof own / sizeof *own; i++)
        if (strlen(own[i]) == n && !strncmp(name, own[i], n))
            return true;
    return sscanf(name, "conv_up%d.%7[a-z]%n", &block, leaf, &used) == 2 && !name[used] &&
           block >= 1 && block <= MAX_UPS;
}

/* Trained weights may stand beside their running mean, which is the better one. */
static const char *root_of(const slr_bag *bag)
{
    static const char *const roots[] = {"params_ema.", "params."};
    slr_tensor t;
    for (size_t r = 0; r < sizeof roots / sizeof *roots; r++)
        for (size_t i = 0; i < slr_bag_count(bag); i++)
            if (!strncmp(slr_bag_at(bag, i, &t), roots[r], strlen(roots[r])))
                return roots[r];
    return "";
}

static int collect(slr_rrdb *r, const slr_bag *bag)
{
    const char *root = root_of(bag);
    size_t skip = strlen(root);
    chain c = {{0}};
    slr_tensor t;
    for (size_t i = 0; i < slr_bag_count(bag); i++) {
        const char *name = slr_bag_at(bag, i, &t);
        int at, used = 0;
        if (sscanf(name, "model.%d.weight%n", &at, &used) == 1 && used && !name[used] && at > 1 &&
            at < MAX_CHAIN)
            c.has[at] = true;
    }
    for (size_t i = 0; i < slr_bag_count(bag); i++) {
        char to[96];
        const char *name = slr_bag_at(bag, i, &t);
        if (strncmp(name, root, skip))
            continue;
        if (!canonical(name + skip, &c, to))
            return slr_fail(SDLORA_ENOTSUP, __func__,
                            "%s: %s is no tensor of ESRGAN's network, the only one that enlarges "
                            "pictures here",
                            r->path, name);
        SLR_TRY(slr_weights_put(r->w, to, &t));
    }
    return SDLORA_OK;
}

static int measure(slr_rrdb *r)
{
    char p[192];
    const slr_tensor *first, *last;
    while (r->blocks < MAX_BLOCKS &&
           slr_nn_has(r->w, slr_nn_path(p, "body.%d.rdb1.conv1", r->blocks)))
        r->blocks++;
    while (r->ups < MAX_UPS && slr_nn_has(r->w, slr_nn_path(p, "conv_up%d", r->ups + 1)))
        r->ups++;
    SLR_TRY(slr_weights_get(r->w, "conv_first.weight", &first));
    SLR_TRY(slr_weights_get(r->w, "conv_last.weight", &last));
    if (first->rank != 4 || last->rank != 4 || last->dim[0] != 3)
        return slr_fail(SDLORA_ENOTSUP, __func__, "%s: its last layer does not make RGB", r->path);
    r->fold = first->dim[1] == 3 ? 1 : first->dim[1] == 12 ? 2 : first->dim[1] == 48 ? 4 : 0;
    if (!r->fold || !r->blocks || (1 << r->ups) < r->fold)
        return slr_fail(SDLORA_ENOTSUP, __func__,
                        "%s: a network of %d blocks that takes %lld channels and doubles %d times",
                        r->path, r->blocks, (long long)first->dim[1], r->ups);
    return SDLORA_OK;
}

int slr_rrdb_open(slr_rrdb **out, slr_mem *m, slr_devices *devices, const char *path)
{
    slr_bag *bag;
    *out = NULL;
    slr_rrdb *r = slr_calloc(m, 1, sizeof *r);
    if (!r)
        return SDLORA_ENOMEM;
    r->m = m;
    r->devices = slr_devices_ref(devices);
    r->path = slr_strdup(m, path);
    int rc = r->path ? slr_weights_new(&r->w, m, path) : SDLORA_ENOMEM;
    if (rc >= 0)
        rc = slr_bag_new(&bag, m);
    if (rc >= 0) {
        rc = slr_bag_add_file(bag, path);
        if (rc >= 0)
            rc = collect(r, bag);
        slr_bag_free(bag);
    }
    if (rc >= 0)
        rc = measure(r);
    if (rc < 0) {
        slr_rrdb_free(r);
        return rc;
    }
    *out = r;
    return SDLORA_OK;
}

void slr_rrdb_free(slr_rrdb *r)
{
    if (!r)
        return;
    slr_plan_free(r->plan);
    slr_weights_unref(r->w);
    slr_devices_unref(r->devices);
    slr_free(r->m, r->path);
    slr_free(r->m, r);
}

int slr_rrdb_scale(const slr_rrdb *r)
{
    return (1 << r->ups) / r->fold;
}

/* --- the graph --- */

static slr_val conv(slr_nn *nn, const char *path, slr_val x)
{
    static const slr_conv same = {
        .stride = 1, .pad_top = 1, .pad_left = 1, .pad_bottom = 1, .pad_right = 1};
    return slr_nn_conv(nn, path, x, SLR_NONE, same);
}

/* Leaky ReLU of slope 0.2. */
static slr_val leaky(slr_graph *g, slr_val x)
{
    return slr_add(g, slr_affine(g, x, 0.2, 0),
                   slr_affine(g, slr_act(g, x, SDLORA_ACT_RELU), 0.8, 0));
}

/* Each convolution sees what all before it saw and made; a fifth of the last one's is added. */
static slr_val dense(slr_nn *nn, int block, int k, slr_val x)
{
    char p[192];
    slr_val seen[CONVS] = {x}, y = SLR_NONE;
    for (int i = 1; i <= CONVS; i++) {
        slr_val in = i == 1 ? x : slr_concat(nn->g, seen, i, 3);
        y = conv(nn, slr_nn_path(p, "body.%d.rdb%d.conv%d", block, k, i), in);
        if (i < CONVS)
            seen[i] = leaky(nn->g, y);
    }
    return slr_add(nn->g, slr_affine(nn->g, y, 0.2, 0), x);
}

static slr_val body(slr_nn *nn, int blocks, slr_val x)
{
    for (int i = 0; i < blocks; i++) {
        slr_val y = x;
        for (int k = 1; k <= DENSE; k++)
            y = dense(nn, i, k, y);
        x = slr_add(nn->g, slr_affine(nn->g, y, 0.2, 0), x);
    }
    return x;
}

static slr_val network(slr_nn *nn, const slr_rrdb *r, slr_val x)
{
    char p[192];
    x = conv(nn, "conv_first", x);
    x = slr_add(nn->g, x, conv(nn, "conv_body", body(nn, r->blocks, x)));
    for (int i = 1; i <= r->ups; i++)
        x = leaky(nn->g, conv(nn, slr_nn_path(p, "conv_up%d", i), slr_upsample2(nn->g, x)));
    return conv(nn, "conv_last", leaky(nn->g, conv(nn, "conv_hr", x)));
}

static int plan_for(slr_rrdb *r, int64_t h, int64_t w, const slr_cancel_flag *cancel)
{
    slr_graph *g;
    if (r->plan && r->h == h && r->w_in == w)
        return SDLORA_OK;
    slr_plan_free(r->plan);
    r->plan = NULL;
    SLR_TRY(slr_graph_new(&g, r->m, (slr_policy){SDLORA_F32, SDLORA_MATH_STRICT}));
    slr_nn nn = {.g = g, .w = r->w, .part = SLR_PART_VAE};
    const int64_t dim[4] = {1, h, w, (int64_t)3 * r->fold * r->fold};
    slr_output(g, network(&nn, r, slr_input(g, "x", SDLORA_F32, 4, dim)), "y");
    int rc = slr_graph_status(g);
    if (rc >= 0)
        rc = slr_plan_new_until(&r->plan, g, r->devices, cancel);
    slr_graph_free(g);
    if (rc >= 0)
        rc = slr_plan_find(r->plan, "x", &r->x);
    if (rc >= 0)
        rc = slr_plan_find(r->plan, "y", &r->y);
    if (rc >= 0)
        rc = slr_plan_back(r->plan);
    if (rc < 0) {
        slr_plan_free(r->plan);
        r->plan = NULL;
    }
    r->h = h;
    r->w_in = w;
    return rc;
}

/* Bytes to 0..1, blue first, squares of fold x fold pixels as channels: torch's pixel_unshuffle,
 * whose channels are [colour,row,column].  The picture's right and lower edges are mirrored to
 * whole squares, as Real-ESRGAN does. */
static void to_input(const slr_rrdb *r, const slr_pixels *p, float *x)
{
    int64_t f = r->fold, c = 3 * f * f;
    for (int64_t i = 0; i < r->h * f; i++)
        for (int64_t j = 0; j < r->w_in * f; j++) {
            int64_t y = i < p->height ? i : 2 * ((int64_t)p->height - 1) - i;
            int64_t z = j < p->width ? j : 2 * ((int64_t)p->width - 1) - j;
            y = y < 0 ? 0 : y;
            z = z < 0 ? 0 : z;
            const uint8_t *from = p->data + (y * p->width + z) * 3;
            float *to = x + (i / f * r->w_in + j / f) * c + i % f * f + j % f;
            for (int64_t k = 0; k < 3; k++)
                to[k * f * f] = (float)from[2 - k] / 255.0f;
        }
}

int slr_rrdb_run(slr_rrdb *r, const slr_pixels *p, const slr_cancel_flag *cancel, slr_pixels *out)
{
    int64_t f = r->fold, scale = slr_rrdb_scale(r);
    slr_require(p->channels == 3);
    if (p->width > SLR_IMAGE_MAX_SIDE / scale || p->height > SLR_IMAGE_MAX_SIDE / scale)
        return slr_fail(SDLORA_EINVAL, __func__, "%dx%d times %lld: the picture gets too large",
                        p->width, p->height, (long long)scale);
    SLR_TRY(plan_for(r, (p->height + f - 1) / f, (p->width + f - 1) / f, cancel));
    to_input(r, p, slr_plan_data(r->plan, r->x));
    SLR_TRY(slr_plan_run(r->plan, cancel));
    SLR_TRY(
        slr_picture_zero(out, r->m, (int32_t)(p->width * scale), (int32_t)(p->height * scale), 3));
    const float *y = slr_plan_data(r->plan, r->y);
    int64_t row = r->w_in * f * scale;
    for (int64_t i = 0; i < out->height; i++)
        for (int64_t j = 0; j < out->width; j++)
            for (int64_t k = 0; k < 3; k++) {
                float v = y[(i * row + j) * 3 + 2 - k];
                v = v < 0.0f ? 0.0f : v > 1.0f ? 1.0f : v; /* NaN stays and becomes 0 below */
                out->data[(i * out->width + j) * 3 + k] = v == v ? (uint8_t)rintf(v * 255.0f) : 0;
            }
    return SDLORA_OK;
}
