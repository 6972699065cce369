/* SPDX-License-Identifier: MIT */
/* Text encoders side by side: each has ids of its own, their states stand next to each other in a
 * token's row, and one of them gives the pooled state.  Which is read off slr_text_shape; refuses
 * to know families and captions. */
#include "train/textgraph.h"

#include <string.h>

#include "base/status.h"

enum { ROW = 77, CHUNK = 75 };

/* Names of the inputs, and what stands before the names of an encoder's nodes. */
static const char *const id_names[SLR_TEXT_ENCODERS] = {"ids", "ids2"};
static const char *const scopes[SLR_TEXT_ENCODERS] = {"text_encoder", "text_encoder_2"};

int64_t slr_text_tokens(int n_chunks)
{
    return n_chunks == 1 ? ROW : CHUNK * (int64_t)n_chunks + 2;
}

/* [n*n_chunks,width] -> [n,width]: kohya takes the pooled state of the first chunk. */
static slr_val first_chunks(slr_graph *g, const slr_text_graph *t, slr_val pooled)
{
    const int64_t dim[2] = {t->n, t->n_chunks * t->shape->pooled};
    if (t->n_chunks == 1)
        return pooled;
    return slr_slice(g, slr_reshape(g, pooled, 2, dim), 1, 0, t->shape->pooled);
}

void slr_text_graph_build(slr_graph *g, const slr_text_graph *t, slr_val *states, slr_val *pooled)
{
    const int64_t ids[2] = {t->n * t->n_chunks, ROW}, ends[3] = {ids[0], 1, ROW};
    slr_val part[SLR_TEXT_ENCODERS], end = SLR_NONE;
    *pooled = SLR_NONE;
    if (t->shape->pooled)
        end = slr_input(g, "end", SDLORA_F32, 3, ends);
    for (int e = 0; e < t->shape->n; e++) {
        slr_nn nn = {g, t->weights[e], t->shape->part[e], t->adapter};
        slr_val id = slr_input(g, id_names[e], SDLORA_I32, 2, ids), one = SLR_NONE;
        slr_graph_push(g, scopes[e]);
        part[e] = slr_text_build(&nn, t->family, t->shape, e, id, t->clip_skip, end,
                                 t->shape->pooled ? &one : NULL);
        slr_graph_pop(g);
        part[e] = slr_clip_join(g, part[e], t->n_chunks);
        if (one != SLR_NONE)
            *pooled = first_chunks(g, t, one);
    }
    *states = t->shape->n == 1 ? part[0] : slr_concat(g, part, t->shape->n, 2);
}

/* --- inputs --- */

void *slr_train_held(slr_plan *p, const char *name)
{
    slr_val v;
    if (slr_plan_find(p, name, &v) < 0) {
        slr_clear();
        return NULL;
    }
    return slr_plan_data(p, v);
}

slr_text_io slr_text_io_of(slr_plan *p)
{
    static const char *const put[] = {"text_encoder.put", "text_encoder_2.put"};
    static const char *const rows[] = {"text_encoder.rows", "text_encoder_2.rows"};
    static const char *const splice[] = {"text_encoder.splice", "text_encoder_2.splice"};
    slr_text_io io = {.end = slr_train_held(p, "end")};
    for (int e = 0; e < SLR_TEXT_ENCODERS; e++) {
        io.ids[e] = slr_train_held(p, id_names[e]);
        io.put[e] = slr_train_held(p, put[e]);
        io.rows[e] = slr_train_held(p, rows[e]);
        io.splice[e] = slr_train_held(p, splice[e]);
    }
    return io;
}

void slr_text_io_fill(const slr_text_io *io, const slr_words *words, const slr_family *family,
                      const slr_text_shape *shape, size_t rows)
{
    for (int e = 1; e < shape->n; e++) {
        memcpy(io->ids[e], io->ids[0], rows * ROW * sizeof *io->ids[e]);
        slr_text_pad(family, shape->part[e], io->ids[e], rows);
    }
    for (int e = 0; e < shape->n; e++)
        if (io->put[e]) /* names become id 0 */
            slr_words_split(words, shape->part[e], io->ids[e], rows * ROW, io->put[e], io->rows[e],
                            shape->clip[e].width, io->splice[e]);
    if (io->end) /* the same place in all encoders */
        slr_text_ends(io->ids[0], rows, io->end);
}
