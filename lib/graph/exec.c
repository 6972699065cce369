/* SPDX-License-Identifier: MIT */
/* A plan: a flat list of {kernel, queue, operands}, and the memory behind it.  All decisions are
 * made when it is built; a run walks the list.
 *
 * Memory comes in two sorts.  Kept buffers (leaves, outputs) are the caller's or the plan's own,
 * one block each.  All others lie in the workspace, which plans that never run at the same time
 * may share; it is taken at the first run, and again only when a sharer made it grow. */
#include "graph/exec.h"

#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/map.h"
#include "base/status.h"
#include "graph/flops.h"
#include "graph/kernels.h"

enum { HOME_NOWHERE = -2, HOME_WORKSPACE = -1 }; /* else: index of a kept buffer */

typedef struct step {
    int (*launch)(sdlora_queue *q, sdlora_kernel *k, const sdlora_arg *args, uint32_t n,
                  sdlora_arg scratch);
    sdlora_queue *queue;
    sdlora_kernel *kernel;
    sdlora_arg *args;
    uint32_t n_args;
} step;

/* What profiles and messages say about a step. */
typedef struct note {
    const slr_op_row *row;
    const char *name;
    const sdlora_backend *backend;
    double flops, bytes, seconds;
    uint64_t calls;
} note;

typedef struct kept {
    uint64_t bytes;
    void *own;         /* the plan's block; NULL while bound or not yet needed */
    void *data;        /* where it is now; NULL: nowhere yet */
    int32_t first_arg; /* chain of the operands that read it, by arg_next; -1: end */
} kept;

/* A value that callers can name or hold. */
typedef struct handle {
    slr_val val;
    int32_t kept; /* -1: a constant */
    uint64_t offset, bytes;
    slr_shape shape;
} handle;

typedef struct workspace {
    slr_refs refs;
    slr_mem *m;
    uint64_t arena, scratch; /* bytes wanted by all sharers */
    uint64_t have_arena, have_scratch;
    char *arena_data, *scratch_data;
} workspace;

struct slr_plan {
    slr_mem *m;
    slr_devices *devices;
    slr_arena *names;
    slr_map *by_name; /* leaves and outputs -> value */
    slr_kernels kernels;
    step *steps;
    note *notes;
    size_t n_steps;
    sdlora_arg *args;
    int32_t *arg_home, *arg_next;
    size_t n_args;
    kept *kept;
    size_t n_kept;
    handle *handles; /* by value */
    size_t n_handles;
    workspace *work;
    const char *arena_seen; /* the workspace's block that the operands point into */
    sdlora_arg scratch;
    size_t n_backed; /* kept buffers before this one have memory */
    slr_plan_stats stats;
    bool profile;
};

/* --- workspace */

static int workspace_new(workspace **out, slr_mem *m)
{
    *out = slr_calloc(m, 1, sizeof **out);
    if (!*out)
        return SDLORA_ENOMEM;
    slr_refs_init(&(*out)->refs);
    (*out)->m = m;
    return SDLORA_OK;
}

static void workspace_unref(workspace *w)
{
    if (!w || !slr_refs_put(&w->refs))
        return;
    slr_free(w->m, w->arena_data);
    slr_free(w->m, w->scratch_data);
    slr_free(w->m, w);
}

static int workspace_block(workspace *w, char **data, uint64_t *have, uint64_t want)
{
    if (*data && *have >= want)
        return SDLORA_OK;
    slr_free(w->m, *data); /* nothing in it outlives a run */
    *have = 0;
    *data = slr_alloc(w->m, want);
    if (!*data)
        return SDLORA_ENOMEM;
    *have = want;
    return SDLORA_OK;
}

/* --- building */

static int32_t count_kept(const slr_layout *l, int32_t *kept_of)
{
    int32_t n = 0;
    for (size_t i = 0; i < l->n_buffers; i++)
        kept_of[i] = l->buffers[i].keep ? n++ : HOME_WORKSPACE;
    return n;
}

static int make_kept(slr_plan *p, const slr_layout *l, const int32_t *kept_of, int32_t n)
{
    p->kept = slr_calloc(p->m, (size_t)n + 1, sizeof *p->kept);
    if (!p->kept)
        return SDLORA_ENOMEM;
    p->n_kept = (size_t)n;
    for (size_t i = 0; i < l->n_buffers; i++)
        if (kept_of[i] >= 0)
            p->kept[kept_of[i]] = (kept){.bytes = l->buffers[i].bytes, .first_arg = -1};
    return SDLORA_OK;
}

/* Names are the graph's; the map copies them. */
static int add_handle(slr_plan *p, const slr_graph *g, const slr_layout *l, const int32_t *kept_of,
                      slr_val v)
{
    const slr_place *at = &l->place[v];
    const slr_shape *s = &g->vals[v].shape;
    p->handles[p->n_handles++] =
        (handle){.val = v,
                 .kept = at->buffer < 0 ? -1 : kept_of[at->buffer],
                 .offset = at->offset,
                 .bytes = (uint64_t)slr_count(s) * slr_dtype_size(s->dtype),
                 .shape = *s};
    return SDLORA_OK;
}

static int make_handles(slr_plan *p, const slr_graph *g, const slr_layout *l,
                        const int32_t *kept_of)
{
    bool *wanted = slr_calloc(p->m, g->n_vals + 1, sizeof *wanted);
    size_t n = 0;
    int rc = wanted ? SDLORA_OK : SDLORA_ENOMEM;
    for (size_t v = 0; v < g->n_vals && rc >= 0; v++) {
        wanted[v] = g->vals[v].node < 0;
        if (wanted[v])
            rc = slr_map_set(p->by_name, g->vals[v].name, (int64_t)v);
    }
    for (size_t i = 0; i < g->n_outputs && rc >= 0; i++) {
        wanted[g->outputs[i].val] = true;
        rc = slr_map_set(p->by_name, g->outputs[i].name, g->outputs[i].val);
    }
    for (size_t v = 0; v < g->n_vals && rc >= 0; v++)
        n += wanted[v];
    p->handles = rc < 0 ? NULL : slr_calloc(p->m, n + 1, sizeof *p->handles);
    if (rc >= 0 && !p->handles)
        rc = SDLORA_ENOMEM;
    for (size_t v = 0; v < g->n_vals && rc >= 0; v++)
        if (wanted[v])
            rc = add_handle(p, g, l, kept_of, (slr_val)v);
    slr_free(p->m, wanted);
    return rc;
}

/* Operand number `at` is value v. */
static void set_arg(slr_plan *p, const slr_layout *l, const int32_t *kept_of, size_t at, slr_val v)
{
    const slr_place *place = v == SLR_NONE ? NULL : &l->place[v];
    p->args[at] = (sdlora_arg){0};
    p->arg_next[at] = -1;
    p->arg_home[at] = HOME_NOWHERE;
    if (!place || place->buffer < 0)
        return;
    int32_t home = kept_of[place->buffer];
    p->arg_home[at] = home;
    p->args[at].offset = place->offset;
    if (home == HOME_WORKSPACE) {
        p->args[at].offset += l->buffers[place->buffer].offset;
        return;
    }
    p->arg_next[at] = p->kept[home].first_arg;
    p->kept[home].first_arg = (int32_t)at;
}

static double bytes_of(const slr_graph *g, slr_val v)
{
    return v == SLR_NONE ? 0
                         : (double)slr_count(&g->vals[v].shape) *
                               (double)slr_dtype_size(g->vals[v].shape.dtype);
}

static int make_step(slr_plan *p, const slr_graph *g, const slr_layout *l, const int32_t *kept_of,
                     size_t i)
{
    const slr_node *n = &g->nodes[l->runs[i]];
    uint32_t which = 0, n_args = (uint32_t)(n->n_in + n->row->n_out);
    SLR_TRY(slr_kernels_get(&p->kernels, g, l, l->runs[i], &which));
    const slr_kernel *k = &p->kernels.items[which];
    note *said = &p->notes[i];
    *said = (note){.row = n->row, .backend = k->backend, .flops = slr_node_flops(g, n)};
    said->name = slr_arena_strdup(p->names, n->name);
    if (!said->name)
        return SDLORA_ENOMEM;
    p->steps[i] = (step){k->backend->launch, k->queue, k->kernel, &p->args[p->n_args], n_args};
    for (uint32_t a = 0; a < n_args; a++) {
        slr_val v = (int32_t)a < n->n_in ? n->in[a] : n->out + (slr_val)a - n->n_in;
        set_arg(p, l, kept_of, p->n_args++, v);
        said->bytes += bytes_of(g, v);
    }
    p->stats.flops += said->flops;
    if (k->scratch > p->stats.scratch_bytes)
        p->stats.scratch_bytes = k->scratch;
    return SDLORA_OK;
}

static int canceled(void)
{
    return slr_fail(SDLORA_ECANCELED, __func__, "canceled");
}

static int make_steps(slr_plan *p, const slr_graph *g, const slr_layout *l, const int32_t *kept_of,
                      const slr_cancel_flag *cancel)
{
    size_t n_args = 1;
    for (size_t i = 0; i < l->n_runs; i++)
        n_args += (size_t)(g->nodes[l->runs[i]].n_in + g->nodes[l->runs[i]].row->n_out);
    p->steps = slr_calloc(p->m, l->n_runs + 1, sizeof *p->steps);
    p->notes = slr_calloc(p->m, l->n_runs + 1, sizeof *p->notes);
    p->args = slr_calloc(p->m, n_args, sizeof *p->args);
    p->arg_home = slr_calloc(p->m, n_args, sizeof *p->arg_home);
    p->arg_next = slr_calloc(p->m, n_args, sizeof *p->arg_next);
    if (!p->steps || !p->notes || !p->args || !p->arg_home || !p->arg_next)
        return SDLORA_ENOMEM;
    p->n_steps = l->n_runs;
    for (size_t i = 0; i < l->n_runs; i++) {
        if (cancel && atomic_load_explicit(cancel, memory_order_relaxed))
            return canceled();
        SLR_TRY(make_step(p, g, l, kept_of, i));
    }
    return SDLORA_OK;
}

static int build(slr_plan *p, const slr_graph *g, const slr_layout *l,
                 const slr_cancel_flag *cancel)
{
    int32_t *kept_of = slr_calloc(p->m, l->n_buffers + 1, sizeof *kept_of);
    if (!kept_of)
        return SDLORA_ENOMEM;
    int rc = make_kept(p, l, kept_of, count_kept(l, kept_of));
    if (rc >= 0)
        rc = make_handles(p, g, l, kept_of);
    if (rc >= 0)
        rc = make_steps(p, g, l, kept_of, cancel);
    slr_free(p->m, kept_of);
    p->stats.arena_bytes = l->arena_bytes;
    p->stats.n_aliased = l->n_aliased;
    p->stats.n_kernels = l->n_runs;
    if (rc >= 0) {
        p->work->arena = p->stats.arena_bytes;
        p->work->scratch = p->stats.scratch_bytes;
    }
    return rc;
}

static int plan_new(slr_plan **out, const slr_graph *g, slr_devices *devices,
                    const slr_cancel_flag *cancel, bool strided, bool *pitched)
{
    slr_mem *m = slr_graph_mem(g);
    slr_layout layout = {0};
    *out = NULL;
    slr_plan *p = slr_calloc(m, 1, sizeof *p);
    if (!p)
        return SDLORA_ENOMEM;
    p->m = m ? slr_mem_ref(m) : NULL;
    p->devices = slr_devices_ref(devices);
    slr_kernels_init(&p->kernels, m, devices);
    int rc = workspace_new(&p->work, m);
    if (rc >= 0)
        rc = slr_arena_new(&p->names, m);
    if (rc >= 0)
        rc = slr_map_new(&p->by_name, m);
    if (rc >= 0)
        rc = slr_layout_make(&layout, g, m, strided);
    if (rc >= 0)
        rc = build(p, g, &layout, cancel);
    *pitched = p->kernels.pitched;
    slr_layout_free(&layout, m);
    if (rc < 0 && rc != SDLORA_ECANCELED)
        slr_plan_free(p);
    else
        *out = p;
    return rc;
}

int slr_plan_new(slr_plan **out, const slr_graph *g, slr_devices *devices)
{
    return slr_plan_new_until(out, g, devices, NULL);
}

int slr_plan_new_until(slr_plan **out, const slr_graph *g, slr_devices *devices,
                       const slr_cancel_flag *cancel)
{
    bool pitched = false;
    *out = NULL;
    SLR_TRY(slr_graph_status(g));
    int rc = plan_new(out, g, devices, cancel, true, &pitched);
    /* No backend reads column slices in place: then they are made dense. */
    if (rc == SDLORA_ENOTSUP && pitched)
        rc = plan_new(out, g, devices, cancel, false, &pitched);
    return rc;
}

void slr_plan_free(slr_plan *p)
{
    if (!p)
        return;
    slr_mem *m = p->m;
    slr_kernels_free(&p->kernels);
    workspace_unref(p->work);
    for (size_t i = 0; i < p->n_kept; i++)
        slr_free(m, p->kept[i].own);
    void *all[] = {p->steps, p->notes, p->args, p->arg_home, p->arg_next, p->kept, p->handles};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        slr_free(m, all[i]);
    slr_map_free(p->by_name);
    slr_arena_free(p->names);
    slr_devices_unref(p->devices);
    slr_free(m, p);
    slr_mem_unref(m);
}

/* --- memory */

int slr_plan_find(const slr_plan *p, const char *name, slr_val *out)
{
    int64_t v;
    *out = SLR_NONE;
    if (!slr_map_get(p->by_name, name, &v))
        return slr_fail(SDLORA_ENOTFOUND, __func__, "the graph has no leaf or output called %s",
                        name);
    *out = (slr_val)v;
    return SDLORA_OK;
}

static const handle *find_handle(const slr_plan *p, slr_val v)
{
    size_t lo = 0, hi = p->n_handles;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (p->handles[mid].val < v)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < p->n_handles && p->handles[lo].val == v ? &p->handles[lo] : NULL;
}

/* Points all readers of a kept buffer at its memory. */
static void point(slr_plan *p, kept *k, void *data)
{
    k->data = data;
    for (int32_t a = k->first_arg; a >= 0; a = p->arg_next[a])
        p->args[a].mem = (sdlora_mem *)data;
}

/* A block of the plan's own, cleared, for a kept buffer that has none. */
static int back(slr_plan *p, kept *k)
{
    if (k->data)
        return SDLORA_OK;
    k->own = slr_calloc(p->m, k->bytes, 1);
    if (!k->own)
        return SDLORA_ENOMEM;
    point(p, k, k->own);
    return SDLORA_OK;
}

int slr_plan_back(slr_plan *p)
{
    for (; p->n_backed < p->n_kept; p->n_backed++)
        SLR_TRY(back(p, &p->kept[p->n_backed]));
    return SDLORA_OK;
}

void *slr_plan_data(slr_plan *p, slr_val v)
{
    const handle *h = find_handle(p, v);
    if (!h || h->kept < 0 || back(p, &p->kept[h->kept]) < 0)
        return NULL;
    return (char *)p->kept[h->kept].data + h->offset;
}

int slr_plan_bind(slr_plan *p, slr_val v, void *data)
{
    const handle *h = find_handle(p, v);
    if (!h || h->kept < 0)
        return slr_fail(SDLORA_EINVAL, __func__,
                        "only inputs, parameters and outputs of the graph can be bound");
    kept *k = &p->kept[h->kept];
    if (h->offset != 0 || (h->bytes + 63) / 64 * 64 != k->bytes)
        return slr_fail(SDLORA_EINVAL, __func__,
                        "an output that is part of a leaf cannot be bound: bind the leaf");
    if (!data || (uintptr_t)data % 64)
        return slr_fail(SDLORA_EINVAL, __func__, "bound memory must be aligned to 64 bytes");
    slr_free(p->m, k->own);
    k->own = NULL;
    point(p, k, data);
    return SDLORA_OK;
}

slr_shape slr_plan_shape(const slr_plan *p, slr_val v)
{
    const handle *h = find_handle(p, v);
    return h ? h->shape : (slr_shape){0};
}

int slr_plan_share(slr_plan *p, slr_plan *with)
{
    workspace *w = with->work;
    if (p->work == w)
        return SDLORA_OK;
    if (p->m != with->m)
        return slr_fail(SDLORA_EINVAL, __func__, "plans with different allocators cannot share");
    slr_refs_get(&w->refs);
    if (p->work->arena > w->arena)
        w->arena = p->work->arena;
    if (p->work->scratch > w->scratch)
        w->scratch = p->work->scratch;
    workspace_unref(p->work);
    p->work = w;
    p->arena_seen = NULL;
    return SDLORA_OK;
}

/* Sees to it that every operand has memory.  Does nothing after the first run, unless a sharer has
 * made the workspace grow. */
static int make_ready(slr_plan *p)
{
    workspace *w = p->work;
    SLR_TRY(slr_plan_back(p));
    SLR_TRY(workspace_block(w, &w->arena_data, &w->have_arena, w->arena));
    SLR_TRY(workspace_block(w, &w->scratch_data, &w->have_scratch, w->scratch));
    p->scratch.mem = (sdlora_mem *)(void *)w->scratch_data;
    if (p->arena_seen == w->arena_data)
        return SDLORA_OK;
    for (size_t a = 0; a < p->n_args; a++)
        if (p->arg_home[a] == HOME_WORKSPACE)
            p->args[a].mem = (sdlora_mem *)(void *)w->arena_data;
    p->arena_seen = w->arena_data;
    return SDLORA_OK;
}

/* --- runs */

/* A kernel's own text, or what can be said without one, with the node in front. */
static int failed(const slr_plan *p, size_t i, int rc)
{
    slr_error_copy e;
    char label[256];
    slr_error_take(&e);
    if (e.code != rc)
        slr_fail(rc, __func__, "%s failed and gave no reason", p->notes[i].backend->name);
    slr_wrap("%s", slr_label(p->notes[i].name, p->notes[i].row, label));
    return rc;
}

/* A backend that is done when launch returns need not have a wait. */
static int wait_for(const sdlora_backend *b, sdlora_queue *q)
{
    return b->wait ? b->wait(q) : SDLORA_OK;
}

static int wait_all(slr_plan *p)
{
    for (size_t i = 0; i < slr_devices_count(p->devices); i++)
        SLR_TRY(wait_for(slr_devices_backend(p->devices, i), slr_devices_queue(p->devices, i)));
    return SDLORA_OK;
}

/* One step; a kernel that was cut short may have found rubbish in its memory, whatever it says. */
static int run_step(slr_plan *p, size_t i)
{
    const step *s = &p->steps[i];
    if (slr_canceled())
        return canceled();
    int rc = s->launch(s->queue, s->kernel, s->args, s->n_args, p->scratch);
    return rc < 0 ? failed(p, i, rc) : SDLORA_OK;
}

static int run_plain(slr_plan *p)
{
    for (size_t i = 0; i < p->n_steps; i++)
        SLR_TRY(run_step(p, i));
    return SDLORA_OK;
}

/* Waits after each step, so that its time is its own. */
static int run_timed(slr_plan *p)
{
    for (size_t i = 0; i < p->n_steps; i++) {
        double start = slr_clock();
        SLR_TRY(run_step(p, i));
        int rc = wait_for(p->notes[i].backend, p->steps[i].queue);
        if (rc < 0)
            return failed(p, i, rc);
        p->notes[i].seconds += slr_clock() - start;
        p->notes[i].calls++;
    }
    return SDLORA_OK;
}

int slr_plan_run(slr_plan *p, const slr_cancel_flag *cancel)
{
    SLR_TRY(make_ready(p));
    slr_watch watch;
    slr_watch_enter(&watch, cancel);
    int rc = p->profile ? run_timed(p) : run_plain(p);
    bool cut = watch.cut;
    slr_watch_leave(&watch);
    if (rc >= 0 && !cut)
        return wait_all(p);
    slr_error_copy e; /* nothing may run on in memory that the caller is about to free */
    slr_error_take(&e);
    wait_all(p);
    return cut ? canceled() : slr_error_put(&e);
}

/* --- looking */

void slr_plan_get_stats(const slr_plan *p, slr_plan_stats *out)
{
    *out = p->stats;
}

void slr_plan_profile(slr_plan *p, bool on)
{
    p->profile = on;
    for (size_t i = 0; on && i < p->n_steps; i++) {
        p->notes[i].seconds = 0;
        p->notes[i].calls = 0;
    }
}

size_t slr_plan_profile_rows(const slr_plan *p, slr_plan_profile_row *rows, size_t cap)
{
    for (size_t i = 0; i < p->n_steps && i < cap; i++) {
        const note *n = &p->notes[i];
        size_t len = strlen(n->name),
               cut = len >= sizeof rows->what ? len - sizeof rows->what + 1 : 0;
        rows[i] = (slr_plan_profile_row){.op = n->row->op,
                                         .calls = n->calls,
                                         .seconds = n->seconds,
                                         .flops = n->flops,
                                         .bytes = n->bytes,
                                         .backend = n->backend->name};
        memcpy(rows[i].what, n->name + cut, len - cut); /* the end tells names apart */
    }
    return p->n_steps;
}
