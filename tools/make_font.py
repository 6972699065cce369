#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Writes lib/api/font.c from a fixed-width PCF font of 8 pixels' width or less.

The committed table was made from 8x13.pcf.gz of Debian's package xfonts-base (font-misc-misc,
whose licence is "Public domain font.  Share and enjoy."):

    tools/make_font.py /usr/share/fonts/X11/misc/8x13.pcf.gz > lib/api/font.c
"""
import gzip
import struct
import sys

METRICS, BITMAPS, ENCODINGS = 1 << 2, 1 << 3, 1 << 5


def tables(data):
    count, = struct.unpack_from('<I', data, 4)
    for i in range(count):
        kind, _, _, offset = struct.unpack_from('<4I', data, 8 + 16 * i)
        yield kind, offset


def glyphs(data):
    """code -> (left, right, ascent, descent, rows of bytes)"""
    at = dict(tables(data))
    form, = struct.unpack_from('<I', data, at[METRICS])
    metrics = []
    if form & 0x100:  # compressed: five bytes each
        n, = struct.unpack_from('>H', data, at[METRICS] + 4)
        for i in range(n):
            m = [b - 0x80 for b in data[at[METRICS] + 6 + 5 * i:][:5]]
            metrics.append((m[0], m[1], m[3], m[4]))
    else:
        n, = struct.unpack_from('>I', data, at[METRICS] + 4)
        for i in range(n):
            m = struct.unpack_from('>5hH', data, at[METRICS] + 8 + 12 * i)
            metrics.append((m[0], m[1], m[3], m[4]))
    form, = struct.unpack_from('<I', data, at[BITMAPS])
    order = '>' if form & 4 else '<'
    n, = struct.unpack_from(order + 'I', data, at[BITMAPS] + 4)
    offsets = struct.unpack_from(f'{order}{n}I', data, at[BITMAPS] + 8)
    start = at[BITMAPS] + 8 + 4 * n + 16
    pad = 1 << (form & 3)
    form, = struct.unpack_from('<I', data, at[ENCODINGS])
    order = '>' if form & 4 else '<'
    lo, hi, _, _, _ = struct.unpack_from(order + '5H', data, at[ENCODINGS] + 4)
    for code in range(max(lo, 32), min(hi, 126) + 1):
        index, = struct.unpack_from(order + 'H', data, at[ENCODINGS] + 14 + 2 * (code - lo))
        left, right, ascent, descent = metrics[index]
        rows = [data[start + offsets[index] + pad * r] for r in range(ascent + descent)]
        yield code, left, ascent, descent, rows


def main():
    data = gzip.open(sys.argv[1]).read()
    found = list(glyphs(data))
    up = max(g[2] for g in found)
    height = up + max(g[3] for g in found)
    print('/* SPDX-License-Identifier: MIT */')
    print('/* Glyphs for labels: printable ASCII, one byte a row, leftmost pixel in the highest bit.')
    print(' * Made by tools/make_font.py from the public domain font "8x13" of X.Org. */')
    print('#include "api/font.h"\n')
    print(f'_Static_assert(SLR_FONT_HEIGHT == {height}, "made for another height");\n')
    print('const unsigned char slr_font[SLR_FONT_LAST - SLR_FONT_FIRST + 1][SLR_FONT_HEIGHT] = {')
    for code, left, ascent, _, rows in found:
        cell = [0] * height
        for i, row in enumerate(rows):
            cell[up - ascent + i] = row >> left & 0xff
        name = repr(chr(code)) if code not in (39, 92) else {39: "'\\''", 92: "'\\\\'"}[code]
        print(f'    [{name} - SLR_FONT_FIRST] = {{' + ', '.join(f'0x{b:02x}' for b in cell) + '},')
    print('};')


main()
