/* SPDX-License-Identifier: MIT */
/* A small fixed-width font for labels on sheets. */
#ifndef SLR_API_FONT_H
#define SLR_API_FONT_H

#define SLR_FONT_FIRST  ' '
#define SLR_FONT_LAST   '~'
#define SLR_FONT_WIDTH  8
#define SLR_FONT_HEIGHT 13

extern const unsigned char slr_font[SLR_FONT_LAST - SLR_FONT_FIRST + 1][SLR_FONT_HEIGHT];

#endif
