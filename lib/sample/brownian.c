/* SPDX-License-Identifier: MIT */
/* Nodes of the tree are made when they are asked for and stay; what the path gains over one is kept
 * for the few nodes used last, since neighbouring steps share most of their way down. */
#include "sample/brownian.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "base/rng.h"
#include "base/status.h"

enum { GAINS = 48 }; /* arrays kept: two ways down, of up to 24 nodes */

static const double MILLION = 1e6;

/* An interval.  Its middle and its halves come when a point inside is asked for. */
typedef struct node {
    int64_t start, end, middle;     /* millionths */
    uint64_t key;                   /* of its place in its row, from the left */
    int depth, parent, left, right; /* numbers of nodes, -1: none */
    int gain;                       /* which array holds it, -1: none */
} node;

struct slr_brownian {
    slr_mem *m;
    slr_brownian_config c;
    node *node;
    size_t count, cap;
    float *root; /* what is gained over all */
    float *gain[GAINS];
    int owner[GAINS]; /* whose it is; -1: nobody's */
    uint64_t used[GAINS], now;
};

/* As Python rounds to six decimals: the nearest, judged by the exact value, halves to even. */
static int64_t millionths(double x)
{
    double product = x * MILLION, whole = rint(product);
    double rest = (product - whole) + fma(x, MILLION, -product); /* of the exact product */
    return (int64_t)whole + (rest > 0.5) - (rest < -0.5);
}

static double value(int64_t point)
{
    return (double)point / MILLION;
}

static int add_node(slr_brownian *b, node n)
{
    SLR_TRY(slr_grow(b->m, &b->node, &b->cap, b->count + 1, sizeof *b->node));
    b->node[b->count] = n;
    return (int)b->count++;
}

int slr_brownian_new(slr_brownian **out, slr_mem *m, const slr_brownian_config *config)
{
    *out = NULL;
    if (!(config->lo > 0 && config->lo <= config->hi && config->hi < 1e9))
        return slr_fail(SDLORA_EINVAL, __func__, "no Brownian path leads from sigma %g to %g",
                        config->lo, config->hi);
    slr_brownian *b = slr_calloc(m, 1, sizeof *b);
    if (!b)
        return SDLORA_ENOMEM;
    b->m = m;
    b->c = *config;
    for (int i = 0; i < GAINS; i++)
        b->owner[i] = -1;
    b->root = slr_calloc(m, config->n, sizeof(float));
    int rc = b->root ? add_node(b, (node){.start = millionths(config->lo),
                                          .end = millionths(config->hi),
                                          .parent = -1,
                                          .left = -1,
                                          .right = -1,
                                          .gain = -1})
                     : SDLORA_ENOMEM;
    if (rc < 0) {
        slr_brownian_free(b);
        return rc;
    }
    uint32_t seed;
    float deviation = (float)sqrt(config->hi - config->lo);
    slr_seed_sequence(config->entropy, NULL, 0, &seed, 1);
    config->normals(seed, b->root, config->n);
    for (size_t k = 0; k < config->n; k++)
        b->root[k] *= deviation;
    *out = b;
    return SDLORA_OK;
}

void slr_brownian_free(slr_brownian *b)
{
    if (!b)
        return;
    for (int i = 0; i < GAINS; i++)
        slr_free(b->m, b->gain[i]);
    slr_free(b->m, b->root);
    slr_free(b->m, b->node);
    slr_free(b->m, b);
}

/* Makes the halves of a node. */
static int split(slr_brownian *b, int at)
{
    node n = b->node[at];
    int64_t middle = millionths(0.5 * (value(n.end) + value(n.start)));
    node half = {.start = n.start,
                 .end = middle,
                 .key = 2 * n.key,
                 .depth = n.depth + 1,
                 .parent = at,
                 .left = -1,
                 .right = -1,
                 .gain = -1};
    int left = add_node(b, half);
    SLR_TRY(left);
    half.start = middle;
    half.end = n.end;
    half.key++;
    int right = add_node(b, half);
    SLR_TRY(right);
    b->node[at].middle = middle;
    b->node[at].left = left;
    b->node[at].right = right;
    return SDLORA_OK;
}

/* An array for a node's gain: a new one, or that of the node that was not used for longest; `keep`
 * is not taken. */
static int claim(slr_brownian *b, int at, int keep)
{
    int best = -1;
    for (int i = 0; i < GAINS; i++)
        if (i != keep && (best < 0 || b->used[i] < b->used[best]))
            best = i;
    if (!b->gain[best] && !(b->gain[best] = slr_calloc(b->m, b->c.n, sizeof(float))))
        return SDLORA_ENOMEM;
    if (b->owner[best] >= 0)
        b->node[b->owner[best]].gain = -1;
    b->owner[best] = at;
    b->used[best] = ++b->now;
    b->node[at].gain = best;
    return best;
}

/* The gain of half a node from that of the whole: its share by length, and a bridge of the node's
 * own noise, which the other half has with the other sign. */
static void bridge(const slr_brownian *b, const node *n, const float *whole, bool left, float *out)
{
    const uint64_t path[2] = {n->key, (uint64_t)n->depth};
    double before = value(n->middle) - value(n->start), after = value(n->end) - value(n->middle);
    double inverse = 1 / (value(n->end) - value(n->start));
    float share = (float)before, scale = (float)inverse,
          deviation = (float)sqrt(before * after * inverse);
    uint32_t seed;
    slr_seed_sequence(b->c.entropy, path, 2, &seed, 1);
    b->c.normals(seed, out, b->c.n);
    for (size_t k = 0; k < b->c.n; k++) {
        float part = share * whole[k] * scale + deviation * out[k];
        out[k] = left ? part : whole[k] - part;
    }
}

/* What the path gains over a node, from the nearest node above that is kept. */
static int gain_of(slr_brownian *b, int at, const float **out)
{
    enum { DEPTH = 64 };
    int way[DEPTH], n = 0;
    for (; at > 0 && b->node[at].gain < 0 && n < DEPTH; at = b->node[at].parent)
        way[n++] = at;
    const float *whole = at > 0 ? b->gain[b->node[at].gain] : b->root;
    int keep = at > 0 ? b->node[at].gain : -1;
    if (keep >= 0)
        b->used[keep] = ++b->now;
    while (n > 0) {
        int child = way[--n], slot = claim(b, child, keep);
        SLR_TRY(slot);
        const node *parent = &b->node[b->node[child].parent];
        bridge(b, parent, whole, parent->left == child, b->gain[slot]);
        whole = b->gain[slot];
        keep = slot;
    }
    *out = whole;
    return SDLORA_OK;
}

/* Adds what is gained from a to b within a node, from left to right. */
static int collect(slr_brownian *b, int64_t from, int64_t to, float *out)
{
    enum { DEPTH = 80 };
    int stack[DEPTH], n = 0;
    stack[n++] = 0;
    while (n > 0) {
        int at = stack[--n];
        int64_t start = b->node[at].start, end = b->node[at].end;
        if (to <= start || from >= end)
            continue;
        if (from <= start && end <= to) {
            const float *gain;
            SLR_TRY(gain_of(b, at, &gain));
            for (size_t k = 0; k < b->c.n; k++)
                out[k] += gain[k];
            continue;
        }
        if (b->node[at].left < 0)
            SLR_TRY(split(b, at));
        stack[n++] = b->node[at].right;
        stack[n++] = b->node[at].left;
    }
    return SDLORA_OK;
}

int slr_brownian_gain(slr_brownian *b, double from, double to, float *out)
{
    int64_t lo = b->node[0].start, hi = b->node[0].end, a = millionths(from), z = millionths(to);
    a = a < lo ? lo : a > hi ? hi : a;
    z = z < lo ? lo : z > hi ? hi : z;
    memset(out, 0, b->c.n * sizeof *out);
    return a < z ? collect(b, a, z, out) : SDLORA_OK;
}
