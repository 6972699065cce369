/* SPDX-License-Identifier: MIT */
/* A forecast as JSON text: tables of names over the struct's members.  Refuses to compute. */
#include "train/forecast.h"

#include <stddef.h>
#include <string.h>

typedef struct field {
    const char *name;
    size_t at;
} field;

static const field memory_fields[] = {
    {"peak", offsetof(slr_forecast_memory, peak)},
    {"process", offsetof(slr_forecast_memory, process)},
    {"handles", offsetof(slr_forecast_memory, handles)},
    {"network", offsetof(slr_forecast_memory, network)},
    {"packed", offsetof(slr_forecast_memory, packed)},
    {"graphs", offsetof(slr_forecast_memory, graphs)},
    {"workspace", offsetof(slr_forecast_memory, workspace)},
    {"optimizer", offsetof(slr_forecast_memory, optimizer)},
    {"text", offsetof(slr_forecast_memory, text)},
    {"latents", offsetof(slr_forecast_memory, latents)},
    {"encoder", offsetof(slr_forecast_memory, encoder)},
    {"validation", offsetof(slr_forecast_memory, validation)},
    {"samples", offsetof(slr_forecast_memory, samples)},
    {"mapped", offsetof(slr_forecast_memory, mapped)},
};

static const field second_fields[] = {
    {"total", offsetof(slr_forecast_seconds, total)},
    {"step", offsetof(slr_forecast_seconds, step)},
    {"load", offsetof(slr_forecast_seconds, load)},
    {"encode", offsetof(slr_forecast_seconds, encode)},
    {"text", offsetof(slr_forecast_seconds, text)},
    {"steps", offsetof(slr_forecast_seconds, steps)},
    {"optimizer", offsetof(slr_forecast_seconds, optimizer)},
    {"validation", offsetof(slr_forecast_seconds, validation)},
    {"samples", offsetof(slr_forecast_seconds, samples)},
    {"save", offsetof(slr_forecast_seconds, save)},
};

static const field count_fields[] = {
    {"steps", offsetof(slr_forecast, steps)},
    {"epochs", offsetof(slr_forecast, epochs)},
    {"batches_per_epoch", offsetof(slr_forecast, batches_per_epoch)},
    {"batches", offsetof(slr_forecast, batches)},
    {"encoded_pictures", offsetof(slr_forecast, encoded)},
    {"encoded_captions", offsetof(slr_forecast, captions)},
    {"validations", offsetof(slr_forecast, validations)},
    {"samples", offsetof(slr_forecast, samples)},
};

static const char *const file_names[SLR_FORECAST_FILES] = {
    [SLR_FORECAST_NETWORK] = "network", [SLR_FORECAST_STATE] = "state",
    [SLR_FORECAST_METRICS] = "metrics", [SLR_FORECAST_CACHE] = "latent_cache",
    [SLR_FORECAST_SAMPLE] = "sample",
};

#define COUNT(a) (sizeof(a) / sizeof *(a))

static void put_integers(slr_buf *b, const char *indent, const void *from, const field *f, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        int64_t v;
        memcpy(&v, (const char *)from + f[i].at, sizeof v);
        slr_buf_printf(b, "%s\"%s\": %lld%s\n", indent, f[i].name, (long long)v,
                       i + 1 < n ? "," : "");
    }
}

/* Milliseconds are exact enough for any of them. */
static void put_seconds(slr_buf *b, const slr_forecast_seconds *s)
{
    for (size_t i = 0; i < COUNT(second_fields); i++) {
        double v;
        char number[32];
        memcpy(&v, (const char *)s + second_fields[i].at, sizeof v);
        slr_real_repr((double)(int64_t)(v * 1e5 + 0.5) / 1e5, number);
        slr_buf_printf(b, "    \"%s\": %s%s\n", second_fields[i].name, number,
                       i + 1 < COUNT(second_fields) ? "," : "");
    }
}

static void put_shapes(slr_buf *b, const slr_forecast *f)
{
    for (size_t i = 0; i < f->n_shapes; i++) {
        const slr_forecast_shape *s = &f->shapes[i];
        char seconds[32];
        slr_real_repr((double)(int64_t)(s->seconds * 1e5 + 0.5) / 1e5, seconds);
        slr_buf_printf(b,
                       "    {\"width\": %lld, \"height\": %lld, \"pictures\": %lld, "
                       "\"batches\": %lld, \"gflop\": %lld, \"seconds\": %s, \"measured\": %s}%s\n",
                       (long long)s->width, (long long)s->height, (long long)s->n,
                       (long long)s->batches, (long long)(s->flops * 1e-9 + 0.5), seconds,
                       s->measured ? "true" : "false", i + 1 < f->n_shapes ? "," : "");
    }
}

static void put_files(slr_buf *b, const slr_forecast *f)
{
    const char *before = "";
    for (int i = 0; i < SLR_FORECAST_FILES; i++) {
        const slr_forecast_file *one = &f->file[i];
        if (!one->written)
            continue;
        slr_buf_printf(b,
                       "%s    {\"kind\": \"%s\", \"written\": %lld, \"kept\": %lld, "
                       "\"bytes\": %llu}",
                       before, file_names[i], (long long)one->written, (long long)one->kept,
                       (unsigned long long)one->bytes);
        before = ",\n";
    }
}

void slr_forecast_json(slr_buf *out, const slr_forecast *f)
{
    slr_buf_puts(out, "{\n");
    slr_buf_printf(out, "  \"precision\": \"%s\",\n", f->precision);
    slr_buf_puts(out, "  \"run\": {\n");
    put_integers(out, "    ", f, count_fields, COUNT(count_fields));
    slr_buf_puts(out, "  },\n  \"shapes\": [\n");
    put_shapes(out, f);
    slr_buf_puts(out, "  ],\n  \"memory\": {\n");
    put_integers(out, "    ", &f->memory, memory_fields, COUNT(memory_fields));
    slr_buf_puts(out, "  },\n  \"seconds\": {\n");
    put_seconds(out, &f->seconds);
    slr_buf_printf(out, "  },\n  \"disk\": %llu,\n  \"files\": [\n", (unsigned long long)f->disk);
    put_files(out, f);
    slr_buf_puts(out, "\n  ]\n}\n");
}
