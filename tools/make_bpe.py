#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Makes the tokenizer's tables that lib/models embeds; run by hand, their outputs are committed.

    python3 tools/make_bpe.py [bpe_simple_vocab_16e6.txt.gz]

clip_merges.bin: CLIP's 48894 merges in order of rank, each as two little-endian u16 ids; merge r makes
token 512 + r, ids 0..255 are the byte symbols in GPT-2's order and 256..511 the same at a word's end.
Without an argument the list is taken from PyPI's open-clip-torch wheel (MIT, copyright OpenAI and the
OpenCLIP authors; see lib/models/clip_merges.LICENSE).

html_entities.txt: "name<TAB>text" lines sorted by bytes: the HTML 5 character references that ftfy
resolves (those that end in a semicolon, and unambiguous ones spelled in capitals).
"""
import glob
import gzip
import html
import html.entities
import io
import os
import struct
import subprocess
import sys
import tempfile
import zipfile

N_MERGES = 49152 - 256 - 2
OUT = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "lib", "models")


def wheel_vocab():
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", folder,
                        "open-clip-torch==3.3.0"], check=True)
        with zipfile.ZipFile(glob.glob(os.path.join(folder, "*.whl"))[0]) as z:
            return z.read("open_clip/bpe_simple_vocab_16e6.txt.gz")


def merges(packed):
    lines = gzip.open(io.BytesIO(packed)).read().decode("utf-8").split("\n")[1:N_MERGES + 1]
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    chars = [chr(b) for b in plain] + [chr(256 + n) for n in range(256 - len(plain))]
    ids = {c: i for i, c in enumerate(chars + [c + "</w>" for c in chars])}
    out = bytearray()
    for rank, line in enumerate(lines):
        a, b = line.split()
        out += struct.pack("<HH", ids[a], ids[b])
        assert a + b not in ids, f"two merges make {a + b}"
        ids[a + b] = 512 + rank
    assert len(out) == 4 * N_MERGES
    return bytes(out)


def entities():
    table = {}
    for name, text in html.entities.html5.items():
        if not name.endswith(";") or len(name) > 25:  # ftfy looks at 24 characters
            continue
        table[name[:-1]] = text
        upper = "&" + name.upper()
        if name == name.lower() and html.unescape(upper) == upper:
            table[name[:-1].upper()] = text.upper()
    lines = []
    for name in sorted(table, key=str.encode):
        text = table[name].replace("\t", "\\t").replace("\n", "\\n")  # &Tab; and &NewLine;
        lines.append(f"{name}\t{text}\n")
    return "".join(lines).encode("utf-8")


def main():
    packed = open(sys.argv[1], "rb").read() if len(sys.argv) > 1 else wheel_vocab()
    for name, data in (("clip_merges.bin", merges(packed)), ("html_entities.txt", entities())):
        with open(os.path.join(OUT, name), "wb") as f:
            f.write(data)
        print(name, len(data), "bytes")


if __name__ == "__main__":
    main()
