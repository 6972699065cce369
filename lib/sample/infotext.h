/* SPDX-License-Identifier: MIT */
/* AUTOMATIC1111's `parameters` text, written and read.  It knows the grammar, what older versions
 * meant, and which option a field is; it refuses to know how pictures are made. */
#ifndef SLR_SAMPLE_INFOTEXT_H
#define SLR_SAMPLE_INFOTEXT_H

#include "base/options.h"
#include "base/str.h"
#include "io/image.h"

/* --- writing --- */

typedef struct slr_infotext {
    slr_buf text;
    int n_items;
} slr_infotext;

/* Starts with the prompts; a negative prompt that is empty is left out. */
void slr_infotext_init(slr_infotext *t, slr_mem *m, const char *prompt, const char *negative);
/* ", key: value", the value quoted as JSON when it holds a comma, colon or line break.  NULL:
 * nothing. */
void slr_infotext_add(slr_infotext *t, const char *key, const char *value);
void slr_infotext_int(slr_infotext *t, const char *key, int64_t value);
/* Whole numbers without a decimal point. */
void slr_infotext_real(slr_infotext *t, const char *key, double value);
void slr_infotext_number(double value, char out[32]); /* that spelling */
/* An item as it shall stand, "key: value". */
void slr_infotext_raw(slr_infotext *t, const char *item);
/* The text becomes the caller's; NULL (ENOMEM) when memory ran out. */
char *slr_infotext_take(slr_infotext *t);

/* --- reading --- */

typedef struct slr_info_field {
    const char *key;   /* "": text between items that is no item */
    const char *value; /* without quotes */
    const char *raw;   /* as it stood */
    bool implied;      /* by its absence, or by the version */
} slr_info_field;

/* All texts are valid as long as the arena. */
typedef struct slr_info {
    slr_arena *arena;
    const char *prompt, *negative;
    slr_info_field *at;
    size_t n, cap;
    struct slr_map *by_key; /* -> index into at */
} slr_info;

/* Any text has a prompt, so only memory fails.  Time is linear in the text.  Items whose value is
 * raw JSON ("Hashes: {...}", "Civitai resources: [...]") are taken whole, and lines behind the
 * items ("Template: ...") are fields too; the original tears the former and knows not the latter.
 */
int slr_info_read(slr_info *out, slr_mem *m, const char *text);
void slr_info_free(slr_info *i);
/* NULL: there is none. */
const char *slr_info_get(const slr_info *i, const char *key);
bool slr_info_size(const slr_info *i, const char *key, int64_t *w, int64_t *h); /* "512x768" */
/* Whether its picture was made of another one, and whether of a part of it. */
bool slr_info_from_picture(const slr_info *i);
bool slr_info_masked(const slr_info *i);
/* Replaces a field, or appends one; both texts are copied. */
int slr_info_set(slr_info *i, const char *key, const char *value, bool implied);
int slr_info_prompt_add(slr_info *i, const char *more);

/* What the original does after reading: old spellings become new ones, versions before 1.8.0 bring
 * their switches, and what is absent gets the value that its absence means. */
int slr_info_complete(slr_info *i, slr_mem *m);

/* Calls `each` for every "name: hash" of a kind, "lora", "embed", "model" or "vae" (the latter two
 * have no name), that "Lora hashes", "TI hashes", "Hashes" and their relatives tell, until it
 * returns false. */
typedef struct slr_info_hash {
    slr_str name, hash;
} slr_info_hash;
typedef bool (*slr_info_hash_fn)(void *user, slr_info_hash h);
void slr_info_hashes(const slr_info *i, const char *kind, slr_info_hash_fn each, void *user);

/* Sets options of kind "generate" that are not set yet, of a completed text; a line in `notes` for
 * each field that can't be followed.  Unknown fields go to the option infotext_extra. */
int slr_info_options(const slr_info *i, slr_mem *m, sdlora_options *o, slr_buf *notes);
/* The i-th field that is known, in the order of writing, and the option that it sets or NULL; NULL
 * past the last. */
const char *slr_info_key_at(size_t i, const char **option);

/* --- pictures --- */

/* The parameters text among the texts of a picture file: the EXIF comment, `parameters`, a
 * comment that reads like one, or what NovelAI left, in A1111's words.  *out is NULL when there is
 * none. */
int slr_infotext_pick(char **out, slr_mem *m, const slr_image_texts *texts, int32_t width,
                      int32_t height);
/* Whether slr_infotext_pick() takes this keyword's text. */
bool slr_infotext_is_source(const char *keyword);
/* What a picture file is and says, as JSON; the caller's (slr_free with m).  Errors of a file that
 * is no picture: those of slr_image_info_read(). */
int slr_picture_info(char **json, slr_mem *m, const char *path);

#endif
