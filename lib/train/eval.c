/* SPDX-License-Identifier: MIT */
/* The held-out loss of a checkpoint with networks at strengths: a validator without a trainer. */
#include "base/status.h"
#include "networks/embedding.h"
#include "train/trainer_impl.h"

typedef struct evaluation {
    slr_cancel_flag cancel;
    slr_noise noise;
    slr_precision precision;
    slr_bpe *bpe;
    slr_words *words;      /* NULL: no embeddings */
    slr_stack_item *layer; /* the networks that are none */
    size_t n_layers;
    slr_stack *stack;
    slr_feed feed;
    slr_captions *text;
    slr_validator *validator;
} evaluation;

/* An embedding has its say where its name stands; the others are layers of a stack. */
static int add_word(evaluation *e, slr_mem *m, slr_network *embedding)
{
    if (!e->words)
        SLR_TRY(slr_words_new(&e->words, m, e->bpe));
    return slr_words_add(e->words, embedding);
}

static int sort_items(evaluation *e, slr_mem *m, const slr_stack_item *items, size_t n)
{
    e->layer = slr_calloc(m, n + 1, sizeof *e->layer);
    if (!e->layer)
        return SDLORA_ENOMEM;
    for (size_t i = 0; i < n; i++) /* what comes along in a file gives way to one of its own */
        for (size_t k = 0; k < slr_network_bundled(items[i].network); k++)
            SLR_TRY(add_word(e, m, slr_network_bundle_at(items[i].network, k)));
    for (size_t i = 0; i < n; i++)
        if (slr_network_is_embedding(items[i].network))
            SLR_TRY(add_word(e, m, items[i].network));
        else
            e->layer[e->n_layers++] = items[i];
    return SDLORA_OK;
}

static int prepare(evaluation *e, const slr_trainer_config *c, const slr_stack_item *items,
                   size_t n, uint64_t seed)
{
    slr_opt train = {NULL, "train"}, o = {c->opts, "eval"};
    int n_chunks;
    SLR_TRY(slr_step_check(c->base)); /* before pictures are encoded */
    SLR_TRY(slr_captions_chunks(o, &n_chunks));
    SLR_TRY(slr_precision_read(&e->precision, o, c->devices));
    SLR_TRY(slr_noise_init(&e->noise, train, slr_checkpoint_predict(c->base)));
    if (c->bpe)
        e->bpe = slr_bpe_ref(c->bpe);
    else
        SLR_TRY(slr_bpe_new(&e->bpe, c->mem));
    SLR_TRY(sort_items(e, c->mem, items, n));
    if (e->n_layers)
        SLR_TRY(slr_stack_new(&e->stack, c->mem, c->devices, c->base, e->layer, e->n_layers));
    const slr_feed_use use = {.precision = e->precision.vae,
                              .seed = seed,
                              .masks = 1,
                              .mask_seed = seed,
                              .cancel = &e->cancel};
    SLR_TRY(slr_feed_open(&e->feed, c, c->data, &use));
    slr_captions_config text = {.mem = c->mem,
                                .log = c->log,
                                .base = c->base,
                                .stack = e->stack,
                                .words = e->words,
                                .devices = c->devices,
                                .policy = e->precision.model,
                                .bpe = e->bpe,
                                .n_chunks = n_chunks,
                                .clip_skip = (int)slr_opt_int(o, "clip_skip")};
    SLR_TRY(slr_captions_new(&e->text, &text));
    slr_validator_config config = {.mem = c->mem,
                                   .base = c->base,
                                   .stack = e->stack,
                                   .devices = c->devices,
                                   .policy = e->precision.model,
                                   .phase = c->phase,
                                   .phase_user = c->phase_user,
                                   .loader = e->feed.loader,
                                   .data = c->data,
                                   .text = e->text,
                                   .noise = &e->noise,
                                   .seed = seed,
                                   .score = (float)slr_opt_real(o, "aesthetic_score"),
                                   .n_chunks = n_chunks};
    return slr_validator_new(&e->validator, &config);
}

int slr_eval_loss(double *loss, const slr_trainer_config *config, const slr_stack_item *items,
                  size_t n, uint64_t seed)
{
    evaluation e = {0};
    int rc = prepare(&e, config, items, n, seed);
    if (rc >= 0)
        rc = slr_validator_run(e.validator, &e.cancel, loss);
    slr_validator_free(e.validator);
    slr_captions_free(e.text);
    slr_feed_close(&e.feed);
    slr_stack_free(e.stack);
    slr_words_free(e.words);
    slr_free(config->mem, e.layer);
    slr_bpe_unref(e.bpe);
    return rc;
}
