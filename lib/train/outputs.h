/* SPDX-License-Identifier: MIT */
/* The files of a run: names as kohya's, which of them fall due, which old ones go, and the line
 * that each step adds to metrics.jsonl. */
#ifndef SLR_TRAIN_OUTPUTS_H
#define SLR_TRAIN_OUTPUTS_H

#include <stdbool.h>

#include "base/options.h"
#include "train/trainer.h"

typedef struct slr_outputs {
    slr_mem *m;
    char *dir, *name; /* output_dir, output_name ("last") */
    int64_t every_epochs, every_steps, last_epochs, last_steps, last_epochs_state, last_steps_state;
    bool state, state_at_end;
    uint32_t dtype; /* save_precision */
    const char *ending; /* ".safetensors"; of save_model_as */
} slr_outputs;

/* epochs: planned, for save_n_epoch_ratio.  Makes no folder. */
int slr_outputs_init(slr_outputs *o, slr_mem *m, slr_opt opts, int64_t epochs);
/* Makes output_dir with its parents, and removes what killed runs were writing there. */
int slr_outputs_begin(const slr_outputs *o);
void slr_outputs_free(slr_outputs *o);

enum { SLR_SAVE_FINAL, SLR_SAVE_EPOCH, SLR_SAVE_STEP };
/* "dir/name-000003.safetensors"; state: "dir/name-000003-state". Caller frees. */
char *slr_outputs_path(const slr_outputs *o, int what, int64_t number, bool state);
/* The number whose files are to be removed after `number` was saved, or 0. */
int64_t slr_outputs_outdated(const slr_outputs *o, int what, int64_t number, bool state);
int slr_outputs_remove(const slr_outputs *o, int what, int64_t number, bool state);

/* Starts metrics.jsonl anew, or cuts it after `step` when resuming. */
int slr_metrics_begin(const slr_outputs *o, int64_t step);
int slr_metrics_add(const slr_outputs *o, const slr_progress *now);

#endif
