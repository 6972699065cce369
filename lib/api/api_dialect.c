/* SPDX-License-Identifier: MIT */
/* A network file as another program would have written it: opened for its own checkpoint or for one
 * without weights, saved in the dialect that is asked for, and told about. */
#include "api/api.h"

#include <string.h>

#include "base/status.h"
#include "base/str.h"
#include "io/json.h"
#include "networks/dialect.h"
#include "networks/tools.h"

static int open_base(slr_checkpoint **base, sdlora_context *ctx, const char *in, slr_opt o)
{
    const slr_checkpoint_config config = {.mem = ctx->mem, .log = ctx->log, .predict = -1};
    const char *path = slr_opt_text(o, "base_model");

    return path ? slr_checkpoint_open(base, path, &config)
                : slr_checkpoint_for_network(base, in, &config);
}

static int open_network(slr_network **net, sdlora_context *ctx, const char *in, slr_opt o)
{
    slr_checkpoint *base;
    const slr_open_config config = {.skip = !strcmp(slr_opt_text(o, "lora_unmatched"), "skip"),
                                    .log = &ctx->log};

    SLR_TRY(open_base(&base, ctx, in, o));
    int rc = slr_network_open_with(net, ctx->mem, base, in, &config);
    slr_checkpoint_unref(base);
    return rc;
}

static void put_text(slr_buf *b, const char *name, const char *value)
{
    slr_buf_printf(b, "  \"%s\": ", name);
    slr_json_quote(b, value, strlen(value), false);
    slr_buf_puts(b, ",\n");
}

static int report(char **json, slr_mem *m, const slr_network *net, const char *in, const char *out,
                  const char *dialect)
{
    uint64_t before = 0, after = 0;
    slr_buf b;

    SLR_TRY(slr_file_size(in, &before));
    SLR_TRY(slr_file_size(out, &after));
    slr_buf_init(&b, m);
    slr_buf_puts(&b, "{\n");
    put_text(&b, "out", out);
    put_text(&b, "family", slr_network_family(net)->name);
    put_text(&b, "dialect", dialect);
    slr_buf_printf(&b, "  \"modules\": %zu,\n  \"skipped\": [", slr_network_modules(net));
    for (size_t i = 0; i < slr_network_skipped(net); i++) {
        const char *key = slr_network_skipped_at(net, i);

        slr_buf_puts(&b, i ? ", " : "");
        slr_json_quote(&b, key, strlen(key), false);
    }
    slr_buf_printf(&b, "],\n  \"bytes_in\": %llu,\n  \"bytes_out\": %llu\n}\n",
                   (unsigned long long)before, (unsigned long long)after);
    int rc = slr_buf_ok(&b);
    if (rc >= 0)
        *json = slr_buf_take(&b);
    slr_buf_free(&b);
    return rc;
}

int slr_api_convert_network(char **json, sdlora_context *ctx, const char *in, const char *out,
                            slr_opt o)
{
    const slr_spelling *spelling;
    slr_network *net;

    *json = NULL;
    SLR_TRY(slr_spelling_named(&spelling, slr_opt_text(o, "dialect")));
    SLR_TRY(open_network(&net, ctx, in, o));
    const slr_dtype_row *type = slr_dtype_by_precision(slr_opt_text(o, "save_precision"));
    uint32_t dtype = type ? type->dtype : slr_network_stored(net);
    int rc = slr_network_save_as(net, out, dtype, spelling);
    if (rc >= 0)
        rc = report(json, ctx->mem, net, in, out, spelling->name);
    slr_network_unref(net);
    return rc;
}
