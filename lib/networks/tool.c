/* SPDX-License-Identifier: MIT */
/* Jobs over modules, a module's change as numbers, and networks made of modules.  Refuses to know
 * any one tool. */
#include "networks/tool.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include <sdlora/version.h>

#include "base/clock.h"
#include "base/status.h"
#include "graph/exec.h"
#include "tensor/linalg.h"

/* --- jobs --- */

enum {
    BATCH_ITEMS = 32,        /* between two reports */
    BATCH_BYTES = 192 << 20, /* held between fetch and work */
};

typedef struct batch {
    const slr_tool_steps *steps;
    void *job;
    size_t first, n;
    _Atomic size_t next;
    _Atomic size_t failed; /* the first item that failed; SIZE_MAX: none */
    slr_error_copy error[BATCH_ITEMS];
} batch;

static void note_failure(batch *b, size_t i)
{
    size_t seen = b->failed;
    slr_error_take(&b->error[i]);
    while (i < seen && !atomic_compare_exchange_weak(&b->failed, &seen, i))
        ;
}

/* Items differ much in cost: a thread takes the next one when it is free.  Which thread takes one
 * does not matter. */
static void work_items(void *arg, int64_t lo, int64_t hi)
{
    batch *b = arg;
    (void)lo, (void)hi;
    for (size_t i; (i = atomic_fetch_add(&b->next, 1)) < b->n;)
        if (b->failed == SIZE_MAX && b->steps->work(b->job, b->first + i) < 0)
            note_failure(b, i);
}

static size_t batch_end(const slr_tool_steps *steps, void *job, size_t first, size_t n)
{
    size_t end = first;
    uint64_t bytes = 0;
    while (end < n && end - first < BATCH_ITEMS && (end == first || bytes < BATCH_BYTES)) {
        bytes += steps->bytes ? steps->bytes(job, end) : 0;
        end++;
    }
    return end;
}

static int tell(const slr_tool *t, const char *phase, size_t done, size_t n)
{
    if (t->tell && t->tell(t->user, phase, (int64_t)done, (int64_t)n))
        return slr_fail(SDLORA_ECANCELED, __func__, "%s was cancelled", phase);
    return SDLORA_OK;
}

static int run_batch(const slr_tool *t, batch *b)
{
    for (size_t i = b->first; b->steps->fetch && i < b->first + b->n; i++)
        SLR_TRY(b->steps->fetch(b->job, i));
    if (!b->steps->work)
        return SDLORA_OK;
    int threads = slr_devices_threads(t->devices);
    slr_parallel(threads, threads, 1, work_items, b);
    return b->failed == SIZE_MAX ? SDLORA_OK : slr_error_put(&b->error[b->failed]);
}

int slr_tool_each(const slr_tool *t, const char *phase, size_t n, const slr_tool_steps *steps,
                  void *job)
{
    batch *b = slr_calloc(t->m, 1, sizeof *b);
    if (!b)
        return SDLORA_ENOMEM;
    int rc = tell(t, phase, 0, n);
    for (size_t at = 0; rc >= 0 && at < n; at += b->n) {
        b->steps = steps;
        b->job = job;
        b->first = at;
        b->n = batch_end(steps, job, at, n) - at;
        b->next = 0;
        b->failed = SIZE_MAX;
        rc = run_batch(t, b);
        if (rc >= 0)
            rc = tell(t, phase, at + b->n, n);
    }
    slr_free(t->m, b);
    return rc;
}

/* --- the change of a module --- */

static int64_t target_count(const slr_target *t)
{
    return t->norm ? t->out : t->out * slr_target_fan_in(t);
}

static int read_thin(slr_change *c, const slr_tool *t, const slr_network *n, const slr_module *mod)
{
    int64_t width = slr_target_fan_in(&mod->target);
    c->rank = mod->rank;
    c->up = slr_alloc(t->m, (size_t)(mod->target.out * c->rank) * sizeof *c->up);
    c->down = slr_alloc(t->m, (size_t)(c->rank * width) * sizeof *c->down);
    if (!c->up || !c->down)
        return SDLORA_ENOMEM;
    mod->kind->factors(mod, &n->slot[mod->slot], n->params, c->rank, c->down, c->up, c->rank);
    return SDLORA_OK;
}

/* The graph of a module's change alone. */
static int change_graph(slr_graph *g, const slr_network *n, const slr_module *mod)
{
    const slr_target *x = &mod->target;
    const slr_layer layer = {.part = x->part,
                             .path = x->path,
                             .conv = x->conv,
                             .norm = x->norm,
                             .out = x->out,
                             .in = x->in,
                             .kh = x->kh,
                             .kw = x->kw};
    slr_apply a = {.g = g, .network = n, .layer = &layer, .seed = SLR_NONE, .strength = 1.0};
    for (int i = 0; i < SLR_KIND_LEAVES; i++) {
        const slr_network_slot *s = slr_module_slot(mod, &n->slot[mod->slot], i);
        a.param[i] = !s || i == SLR_LEAF_PLACES ? SLR_NONE
                     : i == SLR_LEAF_SPARSE     ? slr_residual_input(g, s->key, x)
                                                : slr_param(g, s->key, s->rank, s->dim);
    }
    int64_t dim[4] = {x->out, x->in, x->kh, x->kw};
    slr_val w = slr_input(g, "w", SDLORA_F32, x->norm ? 1 : x->kh * x->kw > 1 ? 4 : 2, dim);
    slr_output(g, slr_rebuild_delta(&a, mod, w), "out");
    return slr_graph_status(g);
}

static int refuse_hollow(const slr_module *mod)
{
    return slr_fail(SDLORA_ENOTSUP, __func__,
                    "%s is %s%s, which changes a layer by its weights: this takes the checkpoint "
                    "that it is for",
                    mod->target.name, mod->kind->name, slr_module_beside(mod));
}

/* The weight that the formula reads, if it reads one. */
static int bind_weight(const slr_tool *t, slr_plan *p, const slr_module *mod)
{
    char name[SLR_LAYER_KEY];
    slr_val v;
    const slr_tensor *w;
    if (slr_plan_find(p, "w", &v) < 0) {
        slr_clear();
        return SDLORA_OK;
    }
    if (t->hollow)
        return refuse_hollow(mod);
    slr_weights *part = slr_checkpoint_part(t->base, mod->target.part);
    if (!part)
        return slr_fail(SDLORA_EINVAL, __func__, "%s has no %s, which %s adapts",
                        slr_checkpoint_path(t->base), slr_part_name(mod->target.part),
                        mod->target.name);
    slr_nn_path(name, "%s.weight", mod->target.path);
    SLR_TRY(slr_weights_get(part, name, &w));
    if (slr_tensor_count(w) != target_count(&mod->target))
        return slr_fail(SDLORA_EINVAL, __func__, "%s does not fit %s of this checkpoint",
                        mod->target.name, name);
    return slr_tensor_to_f32(w, slr_plan_data(p, v));
}

static int bind_params(slr_plan *p, const slr_network *n, const slr_module *mod)
{
    for (int i = 0; i < SLR_KIND_LEAVES; i++) {
        const slr_network_slot *s = slr_module_slot(mod, &n->slot[mod->slot], i);
        slr_val v;
        if (!s || i == SLR_LEAF_SPARSE || i == SLR_LEAF_PLACES)
            continue;
        if (slr_plan_find(p, s->key, &v) < 0)
            slr_clear(); /* a bias, which the weight's formula does not read */
        else
            SLR_TRY(slr_plan_bind(p, v, n->params + s->offset));
    }
    return SDLORA_OK;
}

static int run_change(slr_change *c, const slr_tool *t, slr_plan *p, const slr_network *n,
                      const slr_module *mod)
{
    slr_val v;
    size_t count = (size_t)target_count(&mod->target);
    SLR_TRY(bind_params(p, n, mod));
    SLR_TRY(slr_plan_back(p));
    SLR_TRY(bind_weight(t, p, mod));
    const slr_network_slot *slots = &n->slot[mod->slot],
                           *sparse = slr_module_slot(mod, slots, SLR_LEAF_SPARSE);
    if (sparse) {
        SLR_TRY(slr_plan_find(p, sparse->key, &v));
        slr_residual_fill(mod, slots, n->params, slr_plan_data(p, v));
    }
    SLR_TRY(slr_plan_run(p, NULL));
    SLR_TRY(slr_plan_find(p, "out", &v));
    c->dense = slr_alloc(t->m, count * sizeof *c->dense);
    if (!c->dense)
        return SDLORA_ENOMEM;
    memcpy(c->dense, slr_plan_data(p, v), count * sizeof *c->dense);
    return SDLORA_OK;
}

static int read_dense(slr_change *c, const slr_tool *t, const slr_network *n, const slr_module *mod)
{
    slr_graph *g;
    slr_plan *p = NULL;
    SLR_TRY(slr_graph_new(&g, t->m, (slr_policy){SDLORA_F32, SDLORA_MATH_STRICT}));
    int rc = change_graph(g, n, mod);
    if (rc >= 0)
        rc = slr_plan_new(&p, g, t->devices);
    slr_graph_free(g);
    if (rc >= 0)
        rc = run_change(c, t, p, n, mod);
    slr_plan_free(p);
    return rc;
}

int slr_change_read(slr_change *out, const slr_tool *t, const slr_network *n, const slr_module *mod,
                    bool scale)
{
    slr_module plain = *mod;
    *out = (slr_change){0};
    if (!mod->kind->delta)
        return slr_fail(SDLORA_ENOTSUP, __func__, "%s is %s, which changes no weights",
                        mod->target.name, mod->kind->name);
    if (t->hollow && mod->begins)
        return refuse_hollow(mod);
    if (!scale)
        plain.scale = 1.0;
    int rc = slr_module_thin(mod) ? read_thin(out, t, n, &plain) : read_dense(out, t, n, &plain);
    if (rc < 0)
        slr_change_free(t->m, out);
    return rc;
}

void slr_change_free(slr_mem *m, slr_change *c)
{
    slr_free(m, c->up);
    slr_free(m, c->down);
    slr_free(m, c->dense);
    *c = (slr_change){0};
}

/* --- the result --- */

static size_t leaf_count(const slr_form *form, int leaf)
{
    size_t count = 1;
    for (int d = 0; d < form->leaf[leaf].rank; d++)
        count *= (size_t)form->leaf[leaf].dim[d];
    return count;
}

static int take_leaves(slr_made *made, slr_mem *m)
{
    for (int i = 0; i < SLR_KIND_LEAVES; i++) {
        if (!(made->form.have >> i & 1u))
            continue;
        made->leaf[i] = slr_calloc(m, leaf_count(&made->form, i), sizeof(float));
        if (!made->leaf[i])
            return SDLORA_ENOMEM;
    }
    return SDLORA_OK;
}

int slr_made_lora(slr_made *made, slr_mem *m, const slr_target *target, int64_t rank, double alpha)
{
    const slr_settings set = {.dim = rank, .alpha = alpha, .factor = -1};
    *made = (slr_made){.target = target, .kind = &slr_kind_lora};
    made->form.rank = rank;
    made->form.alpha = alpha;
    made->form.scale = slr_form_scale(&made->form);
    SLR_TRY(slr_kind_lora.make(&set, target, &made->form));
    return take_leaves(made, m);
}

float *slr_made_down(const slr_made *made)
{
    return made->leaf[slr_kind_find(made->kind, "lora_down.weight")];
}

float *slr_made_up(const slr_made *made)
{
    return made->leaf[slr_kind_find(made->kind, "lora_up.weight")];
}

int slr_made_bias(slr_made *made, slr_mem *m, const slr_network *n, const slr_module *mod,
                  double weight)
{
    const slr_network_slot *s = slr_module_slot(mod, &n->slot[mod->slot], slr_kind_bias(mod->kind));
    int leaf = slr_kind_bias(made->kind);
    if (!s)
        return SDLORA_OK;
    if (!made->leaf[leaf]) {
        slr_form_add(&made->form, leaf, 1, &made->target->out);
        made->leaf[leaf] = slr_calloc(m, s->count, sizeof(float));
        if (!made->leaf[leaf])
            return SDLORA_ENOMEM;
    }
    for (size_t i = 0; i < s->count; i++)
        made->leaf[leaf][i] += (float)weight * n->params[s->offset + i];
    return SDLORA_OK;
}

int slr_made_copy(slr_made *made, slr_mem *m, const slr_network *n, const slr_module *mod)
{
    *made = (slr_made){.target = &mod->target, .kind = mod->kind};
    slr_module_form(n, mod, &made->form);
    SLR_TRY(take_leaves(made, m));
    for (int i = 0; i < SLR_KIND_LEAVES; i++) {
        const slr_network_slot *s = slr_module_slot(mod, &n->slot[mod->slot], i);
        if (s)
            memcpy(made->leaf[i], n->params + s->offset, s->count * sizeof(float));
    }
    return SDLORA_OK;
}

void slr_made_free(slr_mem *m, slr_made *made, size_t n)
{
    for (size_t i = 0; made && i < n; i++)
        for (int k = 0; k < SLR_KIND_LEAVES; k++)
            slr_free(m, made[i].leaf[k]);
    slr_free(m, made);
}

static int add_all(slr_network *n, const slr_made *made, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (made[i].kind)
            SLR_TRY(slr_network_add(n, made[i].kind, made[i].target, &made[i].form, NULL));
    if (!n->n_modules)
        return slr_fail(SDLORA_EINVAL, __func__, "nothing is left: the result has no module");
    return slr_network_layout(n);
}

static int copy_leaves(slr_network *n, const slr_made *made, size_t i,
                       int (*fill)(void *job, size_t i, int leaf, float *to), void *job)
{
    const slr_module *mod = slr_network_find(n, made[i].target->part, made[i].target->path);
    for (int k = 0; k < SLR_KIND_LEAVES; k++) {
        const slr_network_slot *s = slr_module_slot(mod, &n->slot[mod->slot], k);
        if (s && made[i].leaf[k])
            memcpy(n->params + s->offset, made[i].leaf[k], s->count * sizeof(float));
        else if (s && fill)
            SLR_TRY(fill(job, i, k, n->params + s->offset));
    }
    return SDLORA_OK;
}

int slr_made_network(slr_network **out, const slr_tool *t, const slr_made *made, size_t n,
                     int (*fill)(void *job, size_t i, int leaf, float *to), void *job)
{
    slr_network *net;
    *out = NULL;
    SLR_TRY(slr_network_new(&net, t->m, t->base));
    int rc = add_all(net, made, n);
    for (size_t i = 0; rc >= 0 && i < n; i++)
        if (made[i].kind)
            rc = copy_leaves(net, made, i, fill, job);
    if (rc < 0) {
        slr_network_unref(net);
        return rc;
    }
    *out = net;
    return SDLORA_OK;
}

/* --- numbers of a layer --- */

static void clamp(float *x, size_t n, float hi)
{
    for (size_t i = 0; i < n; i++) /* as torch: the upper bound wins where they cross */
        x[i] = fminf(fmaxf(x[i], -hi), hi);
}

int slr_clamp_factors(slr_mem *m, float *up, size_t n_up, float *down, size_t n_down, double q)
{
    float *all = slr_alloc(m, (n_up + n_down) * sizeof *all);
    if (!all)
        return SDLORA_ENOMEM;
    memcpy(all, up, n_up * sizeof *all);
    memcpy(all + n_up, down, n_down * sizeof *all);
    float hi = slr_quantile(all, n_up + n_down, q);
    slr_free(m, all);
    clamp(up, n_up, hi);
    clamp(down, n_down, hi);
    return SDLORA_OK;
}

/* --- metadata --- */

int slr_tool_modelspec(slr_meta *meta, const slr_checkpoint *base, bool network, const char *title,
                       const char *merged)
{
    const slr_family *f = slr_checkpoint_family(base);
    bool v = slr_checkpoint_predict(base) == SLR_PREDICT_V;
    int side = f->id == SLR_FAMILY_SD2 && !v ? 512 : f->native_size;
    double now = slr_wall_time();
    char date[32];
    slr_iso_time(now, date);
    SLR_TRY(slr_meta_set(meta, "modelspec.sai_model_spec", "1.0.1"));
    SLR_TRY(slr_meta_setf(meta, "modelspec.architecture", "%s%s",
                          slr_family_architecture(f, v, slr_checkpoint_inpaint(base)),
                          network ? "/lora" : ""));
    SLR_TRY(slr_meta_set(meta, "modelspec.implementation",
                         network && f->n_sizes == 0
                             ? "diffusers"
                             : "https://github.com/Stability-AI/generative-models"));
    SLR_TRY(
        slr_meta_set(meta, "modelspec.implementation_version", "libsdlora/" SDLORA_VERSION_STRING));
    if (title)
        SLR_TRY(slr_meta_set(meta, "modelspec.title", title));
    else
        SLR_TRY(slr_meta_setf(meta, "modelspec.title", "%s@%.0f", network ? "LoRA" : "Checkpoint",
                              now));
    SLR_TRY(slr_meta_setf(meta, "modelspec.resolution", "%dx%d", side, side));
    SLR_TRY(slr_meta_set(meta, "modelspec.date", date));
    if (merged)
        SLR_TRY(slr_meta_set(meta, "modelspec.merged_from", merged));
    return slr_meta_set(meta, "modelspec.prediction_type", v ? "v" : "epsilon");
}

int slr_tool_minimum(slr_meta *meta, const char *v2, const char *base_version, const char *module,
                     const char *dim, const char *alpha, const char *args)
{
    const struct {
        const char *key, *value;
    } rows[] = {
        {"ss_network_module", module},
        {"ss_network_dim", dim},
        {"ss_network_alpha", alpha},
        {"ss_v2", v2},
        {"ss_base_model_version", base_version},
        {"ss_network_args", args},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (rows[i].value)
            SLR_TRY(slr_meta_set(meta, rows[i].key, rows[i].value));
    return SDLORA_OK;
}
