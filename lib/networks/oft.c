/* SPDX-License-Identifier: MIT */
/* Block-diagonal rotations: LyCORIS' diag-oft and kohya's networks.oft, which differ in how blocks
 * are chosen; old files whose oft_diag holds R itself; and OneTrainer's, which turns inputs.
 * Outputs k*b ... k*b+b-1 of W become R_k^T times themselves. */
#include "networks/cayley.h"

#include <math.h>

#include "base/status.h"

/* --- the forms --- */

/* LyCORIS' split of a dimension: the largest divisor up to `factor` that keeps the parts' sum below
 * that of 1 and n; or factor itself, where it divides. */
static int64_t block_size(int64_t n, int64_t factor)
{
    int64_t size = 1;
    if (factor > 0 && n % factor == 0)
        return factor < n / factor ? factor : n / factor;
    if (factor <= 0)
        factor = n;
    while (size < n / size) {
        int64_t next = size + 1;
        while (n % next)
            next++;
        if (next + n / next > n + 1 || next > factor)
            break;
        size = next;
    }
    return size < n / size ? size : n / size;
}

static void add_blocks(const slr_settings *set, const slr_target *t, int64_t size, slr_form *form)
{
    slr_form_add(form, SLR_OFT_BLOCKS, 3, (int64_t[]){t->out / size, size, size});
    if (set->rescaled)
        slr_oft_add_rescale(t, form);
}

static int make(const slr_settings *set, const slr_target *t, slr_form *form)
{
    add_blocks(set, t, block_size(t->out, set->dim), form);
    slr_oft_numbers(form, set->constraint);
    return SDLORA_OK;
}

/* network_dim is the number of blocks, network_alpha the constraint. */
static int make_kohya(const slr_settings *set, const slr_target *t, slr_form *form)
{
    if (set->dim < 1 || t->out % set->dim)
        return slr_fail(SDLORA_EINVAL, __func__,
                        "networks.oft cannot cut the %lld outputs of %s into %lld blocks: "
                        "network_dim has to divide them",
                        (long long)t->out, t->name, (long long)set->dim);
    add_blocks(set, t, t->out / set->dim, form);
    slr_oft_numbers(form, set->alpha);
    return SDLORA_OK;
}

static int make_old(const slr_settings *set, const slr_target *t, slr_form *form)
{
    (void)set, (void)t, (void)form;
    return slr_fail(SDLORA_ENOTSUP, __func__,
                    "oft_diag is a form of old files, which can be applied; train algo=diag-oft");
}

static int read_blocks(const slr_target *t, const slr_tensor *leaf, const char *label,
                       const char *name, slr_form *form)
{
    const slr_tensor *b = &leaf[SLR_OFT_BLOCKS];
    if (b->rank != 3 || b->dim[1] < 1 || b->dim[1] > t->out || b->dim[1] != b->dim[2] ||
        b->dim[0] != t->out / b->dim[1] || t->out % b->dim[1])
        return slr_form_refuse(label, t, name, b, "[blocks,size,size] with blocks * size outputs");
    slr_form_add(form, SLR_OFT_BLOCKS, 3, b->dim);
    SLR_TRY(slr_oft_read_rescale(t, leaf, label, form));
    slr_oft_numbers(form, form->alpha);
    return SDLORA_OK;
}

static int read(const slr_target *t, const slr_tensor *leaf, const char *label, slr_form *form)
{
    return read_blocks(t, leaf, label, "oft_blocks", form);
}

static int read_old(const slr_target *t, const slr_tensor *leaf, const char *label, slr_form *form)
{
    return read_blocks(t, leaf, label, "oft_diag", form);
}

static bool is_oft(const slr_tensor *t)
{
    return t->rank != 4; /* BOFT's has the stages in front */
}

/* --- the change --- */

/* p[K,b,b]: R - 1 of each block */
static slr_val turn_outputs(const slr_apply *a, slr_val p, slr_val w)
{
    slr_graph *g = a->g;
    int64_t out = slr_dim(g, w, 0), n = slr_dim(g, p, 0);
    slr_shape s = slr_shape_of(g, w);
    int64_t width = 1;
    for (int i = 1; i < s.rank; i++)
        width *= s.dim[i];
    slr_val blocks = slr_reshape(g, w, 3, (int64_t[]){n, out / n, width});
    slr_val d = slr_reshape(g, slr_bmm(g, p, blocks, true, false, 1.0), s.rank, s.dim);
    return slr_oft_rescale(a, d, w);
}

static slr_val delta(const slr_apply *a, const slr_module *mod, slr_val w)
{
    return turn_outputs(a, slr_cayley(a->g, a->param[SLR_OFT_BLOCKS], slr_oft_bound(mod)), w);
}

static slr_val delta_old(const slr_apply *a, const slr_module *mod, slr_val w)
{
    slr_graph *g = a->g;
    slr_val r = a->param[SLR_OFT_BLOCKS];
    int64_t n = slr_dim(g, r, 2);
    (void)mod;
    slr_val one = slr_reshape(g, slr_eye(g, n), 3, (int64_t[]){1, n, n});
    return turn_outputs(a, slr_sub(g, r, one), w);
}

/* --- OneTrainer's: oft_R.weight [blocks, b(b-1)/2] has the rows of Q above its diagonal --- */

/* b of b(b-1)/2; 0: there is none */
static int64_t packed_size(int64_t n)
{
    int64_t b = (int64_t)(0.5 + sqrt(0.25 + 2.0 * (double)n) + 0.5);
    return n > 0 && b * (b - 1) / 2 == n ? b : 0;
}

static void add_packed(int64_t blocks, int64_t size, slr_form *form)
{
    slr_form_add(form, SLR_OFT_BLOCKS, 2, (int64_t[]){blocks, size * (size - 1) / 2});
    slr_oft_numbers(form, NAN);
}

/* Its default is 32 rows; the next divisor below serves. */
static int make_inputs(const slr_settings *set, const slr_target *t, slr_form *form)
{
    int64_t width = slr_target_fan_in(t), size = set->dim < width ? set->dim : width;
    while (size > 1 && width % size)
        size--;
    if (size < 2)
        return slr_fail(SDLORA_EINVAL, __func__,
                        "no block of 2 to %lld inputs divides the %lld of %s", (long long)set->dim,
                        (long long)width, t->name);
    add_packed(width / size, size, form);
    return SDLORA_OK;
}

static int read_inputs(const slr_target *t, const slr_tensor *leaf, const char *label,
                       slr_form *form)
{
    const slr_tensor *b = &leaf[SLR_OFT_BLOCKS];
    int64_t width = slr_target_fan_in(t), size = b->rank == 2 ? packed_size(b->dim[1]) : 0;
    if (size < 2 || width % size || (b->dim[0] != 1 && b->dim[0] != width / size))
        return slr_form_refuse(label, t, "oft_R.weight", b,
                               "[blocks,size*(size-1)/2] with blocks * size inputs");
    add_packed(b->dim[0], size, form);
    return SDLORA_OK;
}

/* Q[K,b,b] of v[K,b(b-1)/2] */
static slr_val unpack(slr_graph *g, slr_val v, int64_t b)
{
    int64_t n = slr_dim(g, v, 0), at = 0;
    slr_val upper = SLR_NONE;
    for (int64_t r = 0; r < b; r++) {
        slr_val row[3] = {upper, slr_fill(g, 2, (int64_t[]){n, r + 1}, 0.0), SLR_NONE};
        if (r + 1 < b)
            row[2] = slr_slice(g, v, 1, at, b - 1 - r);
        at += b - 1 - r;
        upper = slr_concat(g, row + (r == 0), 2 + (r > 0) - (r + 1 == b), 1);
    }
    upper = slr_reshape(g, upper, 3, (int64_t[]){n, b, b});
    return slr_sub(g, upper, slr_permute(g, upper, (int64_t[]){0, 2, 1}));
}

/* R - 1 = 2Q + 2Q^2 + 2Q^3 + Q^4, Cayley's series as far as OneTrainer and PEFT take it. */
static slr_val series(slr_graph *g, slr_val q)
{
    slr_val q2 = slr_bmm(g, q, q, false, false, 1.0), q3 = slr_bmm(g, q2, q, false, false, 1.0);
    slr_val q4 = slr_bmm(g, q3, q, false, false, 1.0);
    slr_val twice = slr_affine(g, slr_add(g, slr_add(g, q, q2), q3), 2.0, 0.0);
    return slr_add(g, twice, q4);
}

/* A linear layer gets (x R) W^T; a convolution's weight is itself multiplied by R. */
static slr_val delta_inputs(const slr_apply *a, const slr_module *mod, slr_val w)
{
    slr_graph *g = a->g;
    slr_shape s = slr_shape_of(g, w);
    slr_val v = a->param[SLR_OFT_BLOCKS];
    int64_t b = packed_size(slr_dim(g, v, 1)), out = s.dim[0];
    int64_t n = slr_target_fan_in(&mod->target) / b, own = slr_dim(g, v, 0);
    if (mod->marked) /* "scaled": the size of a turn does not depend on that of a block */
        v = slr_affine(g, v, 0.5 / sqrt((double)(b - 1)), 0.0);
    slr_val p = series(g, unpack(g, v, b));
    slr_val blocks = slr_reshape(g, w, 3, (int64_t[]){out, n, b});
    if (own < n) { /* one for all: rows of all blocks alike */
        slr_val d = slr_bmm(g, slr_reshape(g, blocks, 3, (int64_t[]){1, out * n, b}), p, false,
                            !mod->target.conv, 1.0);
        return slr_reshape(g, d, s.rank, s.dim);
    }
    slr_val turned =
        slr_bmm(g, slr_permute(g, blocks, (int64_t[]){1, 0, 2}), p, false, !mod->target.conv, 1.0);
    return slr_reshape(g, slr_permute(g, turned, (int64_t[]){1, 0, 2}), s.rank, s.dim);
}

/* --- rows --- */

const slr_kind slr_kind_diag_oft = {
    .name = "diag-oft",
    .leaf = {[SLR_OFT_BLOCKS] = "oft_blocks", [SLR_OFT_RESCALE] = "rescale"},
    .proof = 1u << SLR_OFT_BLOCKS,
    .needs = 1u << SLR_OFT_BLOCKS,
    .mine = is_oft,
    .make = make,
    .read = read,
    .init = slr_oft_init,
    .delta = delta,
};

/* Read by the row above: the files are alike. */
const slr_kind slr_kind_oft = {
    .name = "oft",
    .leaf = {[SLR_OFT_BLOCKS] = "oft_blocks", [SLR_OFT_RESCALE] = "rescale"},
    .needs = 1u << SLR_OFT_BLOCKS,
    .make = make_kohya,
    .read = read,
    .init = slr_oft_init,
    .delta = delta,
};

const slr_kind slr_kind_oft_old = {
    .name = "oft-old",
    .leaf = {[SLR_OFT_BLOCKS] = "oft_diag", [SLR_OFT_RESCALE] = "rescale"},
    .proof = 1u << SLR_OFT_BLOCKS,
    .needs = 1u << SLR_OFT_BLOCKS,
    .make = make_old,
    .read = read_old,
    .delta = delta_old,
};

const slr_kind slr_kind_oft_inputs = {
    .name = "oft-v2",
    .leaf = {[SLR_OFT_BLOCKS] = "oft_R.weight"},
    .proof = 1u << SLR_OFT_BLOCKS,
    .needs = 1u << SLR_OFT_BLOCKS,
    .marker = "oft_R.scaled_oft",
    .marker_if_set = true,
    .no_alpha = true,
    .make = make_inputs,
    .read = read_inputs,
    .delta = delta_inputs,
};
