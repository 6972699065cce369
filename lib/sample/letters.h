/* SPDX-License-Identifier: MIT */
/* What Python's \s, \w and \b mean in a prompt, which is UTF-8.  Knows no grammar. */
#ifndef SLR_SAMPLE_LETTERS_H
#define SLR_SAMPLE_LETTERS_H

#include <stdbool.h>
#include <stddef.h>

/* Text must be valid UTF-8.  Bytes of white space at p; 0: something else stands there. */
size_t slr_space_at(const char *p, size_t n);
/* The text's length without white space at its end; costs no more than that white space. */
size_t slr_space_trim_end(const char *p, size_t n);
/* Where `word`, which is of ASCII letters, next stands by itself at or behind `from`; n: nowhere.
 */
size_t slr_word_find(const char *p, size_t n, size_t from, const char *word);

#endif
