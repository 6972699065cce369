#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Fails when the pages say what the tree does not.

    docs.py ROOT

  - links between pages lead to files;
  - files that a page names in backticks (`lib/graph/ops.def`) are there;
  - the programs in README.md are pieces of examples/train.c, train.py and train.lua: each paragraph of a code block
    stands there line by line, indentation aside;
  - no page names a directory of somebody's machine.
"""
import pathlib
import re
import sys

PAGES = ("*.md", "docs/*.md", "lib/*/*/README.md", "examples/data/README.md", "tests/*/README.md")
TOP = ("lib", "include", "tests", "examples", "tools", "docs", "bindings", "subprojects", ".ci")
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
FILE = re.compile(r"`((?:" + "|".join(map(re.escape, TOP)) + r")/[\w./-]*\w)`")
BLOCK = re.compile(r"^```(c|python|lua)\n(.*?)^```$", re.M | re.S)
ALIEN = re.compile(r"(?<![\w.])/(?:home|root|work|tmp|Users)/[\w.-]+")
SOURCE = {"c": "examples/train.c", "python": "examples/train.py", "lua": "examples/train.lua"}


def lines_of(text):
    return [line.strip() for line in text.splitlines()]


def stands_in(piece, whole):
    return any(whole[i:i + len(piece)] == piece for i in range(len(whole) - len(piece) + 1))


def programs(root, text):
    for language, block in BLOCK.findall(text):
        whole = lines_of((root / SOURCE[language]).read_text(encoding="utf-8"))
        for paragraph in re.split(r"\n\s*\n", block.strip("\n")):
            if not stands_in(lines_of(paragraph), whole):
                yield f"this is not in {SOURCE[language]}: {lines_of(paragraph)[0]} ..."


def problems(root, path):
    text = path.read_text(encoding="utf-8")
    for link in LINK.findall(text):
        if "://" not in link and not (path.parent / link).exists():
            yield f"the link to {link} leads nowhere"
    for name in FILE.findall(text):
        if not (root / name).exists():
            yield f"there is no {name}"
    for name in ALIEN.findall(text):
        yield f"{name} is somebody's own directory"
    if path == root / "README.md":
        yield from programs(root, text)


def main():
    root = pathlib.Path(sys.argv[1]).resolve()
    pages = [p for pattern in PAGES for p in sorted(root.glob(pattern))]
    found = [f"{p.relative_to(root)}: {line}" for p in pages for line in problems(root, p)]
    print("\n".join(found) or f"{len(pages)} pages hold")
    return 1 if found or not pages else 0


sys.exit(main())
