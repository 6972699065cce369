/* SPDX-License-Identifier: MIT */
/* Captions: read from a file, changed anew at each draw, split into tags. */
#ifndef SLR_DATA_CAPTION_H
#define SLR_DATA_CAPTION_H

#include <stdbool.h>

#include "base/options.h"
#include "base/rng.h"
#include "base/str.h"

/* What stands in a caption file: its first line, or with wildcards all lines that are not empty,
 * joined by "\n"; a byte order mark is skipped.  EFORMAT names a file that is not UTF-8.  Caller
 * frees. */
int slr_caption_read(char **out, slr_mem *m, const char *path, bool wildcard);

typedef struct slr_caption_rule {
    const char *prefix, *suffix, *separator, *secondary, *keep_separator; /* borrowed; "" = none */
    bool wildcard, shuffle;
    int64_t keep_tokens, drop_every;
    int64_t warmup_min;
    double warmup_steps; /* already in steps */
    double drop_rate, tag_drop_rate;
} slr_caption_rule;

/* max_steps: what a token_warmup_step below 1 is a share of; 0: not known (EINVAL if needed). */
int slr_caption_rule_new(slr_caption_rule *r, slr_opt o, int64_t max_steps);

/* One draw: raw text to what is trained on, appended to out.  epoch counts from 0, step from 0. */
int slr_caption_draw(const slr_caption_rule *r, slr_mem *m, const char *raw, slr_rng *rng,
                     int64_t epoch, int64_t step, slr_buf *out);

/* Without the white space on both ends that Python's str.strip() takes off. */
slr_str slr_caption_strip(slr_str s);
/* Appends lower-cased text, as Python's str.lower() has it. */
void slr_caption_lower(slr_buf *out, slr_str s);

#endif
