/* SPDX-License-Identifier: MIT */
/* Networks: made for training, opened from files, saved.  What a network is, lies below; here a
 * file to start from (network_weights) is applied. */
#include "api/api.h"

#include <stdio.h>
#include <string.h>

#include "base/status.h"
#include "base/str.h"
#include "networks/dialect.h"
#include "tensor/dtype.h"

int slr_api_network(sdlora_network **out, sdlora_checkpoint *ckpt, slr_network *net)
{
    sdlora_network *n = slr_calloc(ckpt->ctx->mem, 1, sizeof *n);

    if (!n) {
        slr_network_unref(net);
        return SDLORA_ENOMEM;
    }
    slr_refs_init(&n->refs);
    n->ckpt = sdlora_checkpoint_ref(ckpt);
    n->net = net;
    *out = n;
    return SDLORA_OK;
}

int slr_api_fits(const sdlora_network *net, const sdlora_checkpoint *ckpt, const char *where)
{
    const slr_family *of = slr_network_family(net->net), *base = slr_checkpoint_family(ckpt->base);

    if (of == base)
        return SDLORA_OK;
    return slr_fail(SDLORA_EINVAL, where, "the network '%s' is for %s, and %s is %s",
                    slr_network_name(net->net), of->title, slr_checkpoint_path(ckpt->base),
                    base->title);
}

int slr_api_items(slr_stack_item **items, const sdlora_checkpoint *ckpt,
                  sdlora_network *const *nets, const double *te, const double *unet, size_t n,
                  const char *where)
{
    *items = NULL;
    for (size_t i = 0; i < n; i++) {
        SLR_TRY(slr_api_given(nets, "nets", where));
        SLR_TRY(slr_api_given(te, "te", where));
        SLR_TRY(slr_api_given(unet, "unet", where));
        SLR_TRY(slr_api_given(nets[i], "nets[i]", where));
        SLR_TRY(slr_api_fits(nets[i], ckpt, where));
    }
    *items = slr_calloc(ckpt->ctx->mem, n + 1, sizeof **items);
    if (!*items)
        return SDLORA_ENOMEM;
    for (size_t i = 0; i < n; i++)
        (*items)[i] = (slr_stack_item){.network = nets[i]->net, .te = te[i], .unet = unet[i]};
    return SDLORA_OK;
}

static int open_file(slr_network **net, const sdlora_checkpoint *ckpt, const char *path, slr_opt o)
{
    const char *policy = slr_opt_text(o, "lora_unmatched");
    const slr_open_config config = {.skip = policy && !strcmp(policy, "skip"),
                                    .log = &ckpt->ctx->log};

    return slr_network_open_with(net, ckpt->ctx->mem, ckpt->base, path, &config);
}

/* dim_from_weights: modules and ranks of the file; else those of the options, which must agree.
 * The file is about ckpt; the network is made for base, to which others may have been added. */
static int start_from_file(slr_network **net, const sdlora_checkpoint *ckpt,
                           const slr_checkpoint *base, slr_opt o, const char *file, uint64_t seed)
{
    slr_network *from;

    SLR_TRY(open_file(&from, ckpt, file, o));
    int rc;
    if (slr_opt_bool(o, "dim_from_weights")) {
        rc = slr_network_make_like(net, base, o.o, from);
    } else {
        rc = slr_network_make(net, base, o.o, seed);
        if (rc >= 0)
            rc = slr_network_load_into(*net, from);
        if (rc < 0)
            slr_network_unref(*net);
    }
    slr_network_unref(from);
    return rc;
}

/* --- base_weights --- */

/* A line of a list into text; false: there is none left. */
static bool next_line(slr_str *rest, char *text, size_t cap)
{
    slr_str line;

    if (!slr_str_next(rest, '\n', &line))
        return false;
    line = slr_str_trim(line);
    snprintf(text, cap, "%.*s", (int)(line.n < cap ? line.n : cap - 1), line.p);
    return true;
}

/* Strengths that are missing are 1, as kohya has it. */
static int read_strength(slr_str *rest, double *out)
{
    char text[64];

    *out = 1.0;
    if (next_line(rest, text, sizeof text) && *text && !slr_parse_real(text, out))
        return slr_fail(SDLORA_EINVAL, "sdlora_network_new",
                        "base_weights_multiplier: '%s' is not a number", text);
    return SDLORA_OK;
}

/* *out stays NULL where there are no base_weights. */
static int merge_base(sdlora_checkpoint **out, sdlora_checkpoint *ckpt, slr_opt o)
{
    enum { MOST = 64 };
    sdlora_network *nets[MOST];
    double strength[MOST];
    char path[4096];
    size_t n = 0;
    int rc = SDLORA_OK;
    slr_str rest = slr_str_of(slr_opt_text(o, "base_weights")),
            numbers = slr_str_of(slr_opt_text(o, "base_weights_multiplier"));

    *out = NULL;
    while (rc >= 0 && next_line(&rest, path, sizeof path)) {
        if (!*path)
            continue;
        rc = n < MOST
                 ? read_strength(&numbers, &strength[n])
                 : slr_fail(SDLORA_EINVAL, "sdlora_network_new", "more than %d base_weights", MOST);
        if (rc >= 0)
            rc = sdlora_network_open(&nets[n], ckpt, path);
        n += rc >= 0;
    }
    if (rc >= 0 && n)
        rc = sdlora_checkpoint_merge(out, ckpt, nets, strength, strength, n);
    while (n)
        sdlora_network_unref(nets[--n]);
    return rc;
}

int sdlora_network_new(sdlora_network **out, sdlora_checkpoint *ckpt, const sdlora_options *opts,
                       uint64_t seed)
{
    slr_opt o = {opts, "network"};
    slr_network *net;

    slr_clear();
    SLR_TRY(slr_api_given(out, "out", __func__));
    *out = NULL;
    SLR_TRY(slr_api_given(ckpt, "ckpt", __func__));
    SLR_TRY(slr_api_kind(opts, "network", __func__));
    SLR_TRY(slr_opt_check_supported(o));
    const char *file = slr_opt_text(o, slr_opt_has(o, "weights") ? "weights" : "network_weights");
    if (!file && slr_opt_bool(o, "dim_from_weights"))
        return slr_fail(SDLORA_EINVAL, __func__, "dim_from_weights needs network_weights");
    sdlora_checkpoint *merged;
    SLR_TRY(merge_base(&merged, ckpt, o));
    const slr_checkpoint *base = merged ? merged->base : ckpt->base;
    int rc = file ? start_from_file(&net, ckpt, base, o, file, seed)
                  : slr_network_make(&net, base, opts, seed);
    if (rc >= 0)
        rc = slr_api_network(out, merged ? merged : ckpt, net);
    if (rc >= 0)
        (*out)->merged = merged != NULL;
    sdlora_checkpoint_unref(merged);
    return rc;
}

int sdlora_network_open(sdlora_network **out, sdlora_checkpoint *ckpt, const char *path)
{
    return sdlora_network_open_with(out, ckpt, path, NULL);
}

int sdlora_network_open_with(sdlora_network **out, sdlora_checkpoint *ckpt, const char *path,
                             const sdlora_options *opts)
{
    slr_network *net;

    slr_clear();
    SLR_TRY(slr_api_given(out, "out", __func__));
    *out = NULL;
    SLR_TRY(slr_api_given(ckpt, "ckpt", __func__));
    SLR_TRY(slr_api_given(path, "path", __func__));
    SLR_TRY(slr_api_kind(opts, "network", __func__));
    SLR_TRY(open_file(&net, ckpt, path, (slr_opt){opts, "network"}));
    return slr_api_network(out, ckpt, net);
}

sdlora_network *sdlora_network_ref(sdlora_network *net)
{
    if (net)
        slr_refs_get(&net->refs);
    return net;
}

void sdlora_network_unref(sdlora_network *net)
{
    if (!net || !slr_refs_put(&net->refs))
        return;
    sdlora_checkpoint *ckpt = net->ckpt;
    slr_network_unref(net->net);
    slr_free(ckpt->ctx->mem, net);
    sdlora_checkpoint_unref(ckpt);
}

const char *sdlora_network_name(const sdlora_network *net)
{
    const char *name = net ? slr_network_name(net->net) : NULL;

    return name ? name : "";
}

size_t sdlora_network_modules(const sdlora_network *net)
{
    return net ? slr_network_modules(net->net) : 0;
}

const char *sdlora_network_metadata(const sdlora_network *net, const char *key)
{
    return net && key ? slr_meta_get(slr_network_meta(net->net), key) : NULL;
}

size_t sdlora_network_skipped(const sdlora_network *net)
{
    return net ? slr_network_skipped(net->net) : 0;
}

const char *sdlora_network_skipped_key(const sdlora_network *net, size_t i)
{
    return net ? slr_network_skipped_at(net->net, i) : NULL;
}

const char *sdlora_dialect_name(size_t i)
{
    const slr_spelling *s = slr_spelling_at(i);

    return s ? s->name : NULL;
}

int sdlora_network_save(sdlora_network *net, const char *path, const char *precision)
{
    return sdlora_network_save_as(net, path, precision, NULL);
}

int sdlora_network_save_as(sdlora_network *net, const char *path, const char *precision,
                           const char *dialect)
{
    const slr_spelling *spelling = slr_spelling_at(0);

    slr_clear();
    SLR_TRY(slr_api_given(net, "net", __func__));
    SLR_TRY(slr_api_given(path, "path", __func__));
    const slr_dtype_row *type = slr_dtype_by_precision(precision ? precision : "float");
    if (!type)
        return slr_fail(SDLORA_EINVAL, __func__, "precision is '%s', wanted float, fp16 or bf16",
                        precision);
    if (dialect)
        SLR_TRY(slr_spelling_named(&spelling, dialect));
    return slr_network_save_as(net->net, path, type->dtype, spelling);
}
