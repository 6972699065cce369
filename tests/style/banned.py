#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Fails when a file below lib/ calls what a library must not: ending, printing, the environment, unsafe text, the
C allocator behind the caller's back.

    banned.py ROOT

Comments and strings do not count; nor do members of structs (`hooks->free`).
"""
import pathlib
import re
import sys

WORDS = {
    "ends the process": "abort exit _exit _Exit quick_exit raise",
    "prints": "printf vprintf fprintf vfprintf puts fputs putchar perror stdout stderr",
    "depends on the environment": "getenv setenv putenv secure_getenv setlocale chdir umask",
    "is unsafe": "strcpy strcat sprintf vsprintf strtok gets alloca tmpnam mktemp",
    "is not ours to call": "rand srand random system popen signal atexit omp_set_dynamic openblas_set_num_threads",
    "goes past base/mem.h": "malloc calloc realloc free strdup strndup asprintf vasprintf aligned_alloc posix_memalign",
}
REASON = {word: reason for reason, words in WORDS.items() for word in words.split()}
# Where a word is the file's very business.
EXCEPT = {
    "lib/base/mem.c": {"malloc", "realloc", "free"},
    "lib/backend/loader.c": {"secure_getenv"},
}
NOISE = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.S)
LINES = re.compile(r"^\s*#\s*include[^\n]*|__attribute__\(\(format\([^)]*\)\)\)", re.M)
WORD = re.compile(r"(?<![\w.])(?<!->)(" + "|".join(sorted(REASON)) + r")\b")
BEFORE = re.compile(r"(\w+|\*)\s*$")


def declares(text):
    """Whether what stands before a word makes it a name of one's own: `int exit;`, `void (*free)(void *)`."""
    token = BEFORE.search(text)
    return token is not None and token.group(1) not in ("return", "else", "do", "case", "sizeof")


def blank(match):
    return re.sub(r"[^\n]", " ", match.group())


def problems(path, name):
    text = LINES.sub(blank, NOISE.sub(blank, path.read_text(encoding="utf-8")))
    for hit in WORD.finditer(text):
        word, at = hit.group(1), hit.start()
        if word not in EXCEPT.get(name, ()) and not declares(text[max(0, at - 80):at]):
            yield f"{name}:{text.count(chr(10), 0, at) + 1}: {word} {REASON[word]}"


def main():
    root = pathlib.Path(sys.argv[1])
    files = [p for p in sorted((root / "lib").rglob("*")) if p.suffix in (".c", ".h", ".def")]
    found = [line for p in files for line in problems(p, p.relative_to(root).as_posix())]
    print("\n".join(found) or f"{len(files)} files, nothing banned")
    return 1 if found or not files else 0


sys.exit(main())
