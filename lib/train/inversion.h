/* SPDX-License-Identifier: MIT */
/* What captions become while an embedding is trained: kohya's phrases around its name, or captions
 * in which the name stands. */
#ifndef SLR_TRAIN_INVERSION_H
#define SLR_TRAIN_INVERSION_H

#include "base/options.h"
#include "data/dataset.h"
#include "networks/words.h"

enum { SLR_INVERSION_TEXT = 512 };

typedef struct slr_inversion {
    slr_words *words;          /* NULL: no embedding is trained */
    const char *name;          /* borrowed from the network */
    const char *const *phrase; /* with "{}" where the name goes; NULL: captions as they are */
    size_t n_phrases;
} slr_inversion;

/* bpe and network are borrowed. */
int slr_inversion_init(slr_inversion *v, slr_mem *m, const slr_bpe *bpe, slr_network *network,
                       slr_opt train);
void slr_inversion_free(slr_inversion *v);
/* EINVAL when no caption of the data set has the name in it, so that nothing would be learned. */
int slr_inversion_check(const slr_inversion *v, const slr_bpe *bpe, slr_mem *m,
                        const slr_dataset *data);
/* The phrase of a number with the name in it, or the caption.  v Nullable.  Lifetime: that of text
 * and caption. */
const char *slr_inversion_caption(const slr_inversion *v, const char *caption, uint64_t number,
                                  char text[SLR_INVERSION_TEXT]);

#endif
