#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Turns data files into one C file of constant byte arrays; run by the build.

    embed.py out.c symbol=file [symbol=file ...]

Each symbol becomes `const unsigned char <symbol>[]` and `const size_t <symbol>_size`.
"""
import sys


def main():
    with open(sys.argv[1], "w", encoding="ascii") as out:
        out.write("/* Made by tools/embed.py. */\n#include <stddef.h>\n")
        for pair in sys.argv[2:]:
            name, path = pair.split("=", 1)
            data = open(path, "rb").read()
            out.write(f"extern const unsigned char {name}[];\nextern const size_t {name}_size;\n")
            out.write(f"const size_t {name}_size = {len(data)};\nconst unsigned char {name}[] = {{\n")
            for i in range(0, len(data), 24):
                out.write(",".join(map(str, data[i:i + 24])) + ",\n")
            out.write("};\n")


if __name__ == "__main__":
    main()
