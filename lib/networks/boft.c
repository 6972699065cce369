/* SPDX-License-Identifier: MIT */
/* BOFT, rotations in butterfly stages: stage i turns pairs of half blocks that stand 2^i half
 * blocks apart, so that after all of them every output has met every other. */
#include "networks/cayley.h"

#include "base/status.h"

static bool power_of_two(int64_t n)
{
    return n > 0 && !(n & (n - 1));
}

/* LyCORIS' rule: the largest even size up to `most` that cuts n into a power of two of blocks; 0:
 * there is none. */
static int64_t block_size(int64_t n, int64_t most)
{
    int64_t best = 0;
    for (int64_t size = 2; size <= most && size <= n; size += 2)
        if (n % size == 0 && power_of_two(n / size))
            best = size;
    return best;
}

/* One for each doubling up to n blocks, and the blocks themselves. */
static int64_t stages(int64_t n)
{
    int64_t count = 1;
    for (; n > 1; n /= 2)
        count++;
    return count;
}

static int make(const slr_settings *set, const slr_target *t, slr_form *form)
{
    int64_t b = block_size(t->out, set->dim);
    if (!b)
        return slr_fail(SDLORA_EINVAL, __func__,
                        "boft cannot cut the %lld outputs of %s into a power of two of blocks of "
                        "an even size up to network_dim %lld",
                        (long long)t->out, t->name, (long long)set->dim);
    int64_t n = t->out / b;
    slr_form_add(form, SLR_OFT_BLOCKS, 4, (int64_t[]){stages(n), n, b, b});
    if (set->rescaled)
        slr_oft_add_rescale(t, form);
    slr_oft_numbers(form, set->constraint);
    return SDLORA_OK;
}

/* Fewer stages than there can be are fine: the others are none. */
static int read(const slr_target *t, const slr_tensor *leaf, const char *label, slr_form *form)
{
    const slr_tensor *m = &leaf[SLR_OFT_BLOCKS];
    int64_t n = m->rank == 4 ? m->dim[1] : 0, b = m->rank == 4 ? m->dim[2] : 0;
    if (m->rank != 4 || m->dim[0] < 1 || n < 1 || b < 2 || b % 2 || b > t->out || n != t->out / b ||
        t->out % b || m->dim[3] != b || !power_of_two(n) || m->dim[0] > stages(n))
        return slr_form_refuse(label, t, "oft_blocks", m,
                               "[stages,blocks,size,size] with blocks * size outputs, blocks being "
                               "a power of two");
    slr_form_add(form, SLR_OFT_BLOCKS, 4, m->dim);
    SLR_TRY(slr_oft_read_rescale(t, leaf, label, form));
    slr_oft_numbers(form, form->alpha);
    return SDLORA_OK;
}

static bool is_boft(const slr_tensor *t)
{
    return t->rank == 4;
}

/* x[out,width]: what stage i adds.  p[n,b,b]: R - 1 of its blocks. */
static slr_val stage(slr_graph *g, slr_val x, slr_val p, int64_t i)
{
    int64_t out = slr_dim(g, x, 0), width = slr_dim(g, x, 1), b = slr_dim(g, p, 1);
    int64_t k = (b / 2) << i, order[4] = {0, 2, 1, 3};
    slr_val v = slr_reshape(g, x, 4, (int64_t[]){out / (2 * k), 2, k, width});
    v = slr_reshape(g, slr_permute(g, v, order), 3, (int64_t[]){out / b, b, width});
    v = slr_bmm(g, p, v, false, false, 1.0);
    v = slr_reshape(g, v, 4, (int64_t[]){out / (2 * k), k, 2, width});
    return slr_reshape(g, slr_permute(g, v, order), 2, (int64_t[]){out, width});
}

/* The sum of what stages add, so that small turns keep their digits. */
static slr_val delta(const slr_apply *a, const slr_module *mod, slr_val w)
{
    slr_graph *g = a->g;
    slr_shape s = slr_shape_of(g, w), raw = slr_shape_of(g, a->param[SLR_OFT_BLOCKS]);
    int64_t n = raw.dim[1], b = raw.dim[2];
    slr_val blocks = slr_reshape(g, a->param[SLR_OFT_BLOCKS], 3, (int64_t[]){raw.dim[0] * n, b, b});
    slr_val p = slr_cayley(g, blocks, slr_oft_bound(mod)), d = SLR_NONE;
    slr_val rows = slr_reshape(g, w, 2, (int64_t[]){s.dim[0], slr_target_fan_in(&mod->target)});
    for (int64_t i = 0; i < raw.dim[0]; i++) {
        slr_val x = d == SLR_NONE ? rows : slr_add(g, rows, d);
        slr_val more = stage(g, x, slr_slice(g, p, 0, i * n, n), i);
        d = d == SLR_NONE ? more : slr_add(g, d, more);
    }
    return slr_oft_rescale(a, slr_reshape(g, d, s.rank, s.dim), w);
}

const slr_kind slr_kind_boft = {
    .name = "boft",
    .leaf = {[SLR_OFT_BLOCKS] = "oft_blocks", [SLR_OFT_RESCALE] = "rescale"},
    .proof = 1u << SLR_OFT_BLOCKS,
    .needs = 1u << SLR_OFT_BLOCKS,
    .mine = is_boft,
    .make = make,
    .read = read,
    .init = slr_oft_init,
    .delta = delta,
};
