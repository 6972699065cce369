# SPDX-License-Identifier: MIT
"""The declarations of _decl.py against the public headers."""
import ctypes
import glob
import os
import re
import unittest

from common import ROOT
from sdlora import _decl

HEADERS = os.path.join(ROOT, "include", "sdlora")
BORDER = {"backend.h", "ops.h"}  # of plugins; no function of the library stands there

SCALARS = {"int": ctypes.c_int, "int32_t": ctypes.c_int32, "int64_t": ctypes.c_int64,
           "uint64_t": ctypes.c_uint64, "size_t": ctypes.c_size_t, "double": ctypes.c_double}
FUNCTIONS = {"sdlora_log_fn": _decl.log_fn, "sdlora_progress_fn": _decl.progress_fn,
             "sdlora_sample_fn": _decl.sample_fn, "sdlora_grid_model_fn": _decl.grid_model_fn}


def source(name):
    with open(os.path.join(HEADERS, name), encoding="utf-8") as file:
        text = re.sub(r"/\*.*?\*/", " ", file.read(), flags=re.S)
    return re.sub(r"^\s*#.*$", "", text, flags=re.M)


def headers():
    for path in sorted(glob.glob(os.path.join(HEADERS, "*.h"))):
        if os.path.basename(path) not in BORDER:
            yield source(os.path.basename(path))


def declared():
    """name -> (result, [arguments]) as C text."""
    found = {}
    for text in headers():
        for result, name, args in re.findall(
                r"SDLORA_API\s+([^;()]*?)(sdlora_\w+)\s*\(([^)]*)\)\s*;", text):
            args = [" ".join(a.split()) for a in args.split(",")]
            found[name] = (" ".join(result.split()), [] if args == ["void"] else args)
    return found


def type_of(argument):
    """'const double *te' -> 'double*'"""
    text = re.sub(r"\bconst\b", "", argument)
    base, stars = re.match(r"\s*(\w+)\s*([\s*]*)", text).groups()
    return base + "*" * stars.count("*")


def expected(c_type, result=False):
    """What ctypes must have for a C type."""
    base, stars = c_type.rstrip("*"), c_type.count("*")
    if result and c_type in ("int", "void"):
        return {"int": _decl.status, "void": None}[c_type]
    if not stars:
        return SCALARS.get(base) or FUNCTIONS[base]
    if base == "char":
        return ctypes.c_char_p
    if base in _decl.STRUCTS:
        return ctypes.POINTER(_decl.STRUCTS[base])
    if base == "uint8_t":
        return ctypes.c_void_p if result else ctypes.POINTER(ctypes.c_uint8)
    if base in SCALARS:
        return ctypes.POINTER(SCALARS[base])
    return ctypes.c_void_p if stars == 1 else ctypes.POINTER(ctypes.c_void_p)


class Declarations(unittest.TestCase):
    def test_every_public_function_is_declared_once(self):
        names = [name for name, _, _ in _decl.FUNCTIONS]
        self.assertEqual(len(names), len(set(names)))
        self.assertGreater(len(names), 80)
        self.assertEqual(sorted(names), sorted(declared()))

    def test_types(self):
        c = declared()
        for name, result, args in _decl.FUNCTIONS:
            c_result, c_args = c[name]
            self.assertEqual(len(args), len(c_args), name)
            self.assertIs(result, expected(type_of(c_result), True), name)
            for ours, theirs in zip(args, c_args):
                wanted = expected(type_of(theirs))
                if wanted is ctypes.c_char_p and "const" not in theirs:
                    wanted = ctypes.c_void_p  # text to be given back: its address must be kept
                if theirs.count("*") == 2 and "char" in theirs:
                    wanted = ctypes.POINTER(wanted)
                self.assertIs(ours, wanted, f"{name}: {theirs}")

    def test_structs(self):
        text = " ".join(headers())
        for name, ours in _decl.STRUCTS.items():
            body = re.search(r"typedef struct %s \{(.*?)\} %s;" % (name, name), text, re.S).group(1)
            fields = []
            for line in filter(str.strip, body.split(";")):
                base, rest = re.match(r"\s*(?:const\s+)?(\w+)\s*(.*)", line, re.S).groups()
                for field in rest.split(","):
                    stars, field, size = re.match(r"\s*(\**)\s*(\w+)(?:\[(\d+)\])?", field).groups()
                    if size:
                        kind = ctypes.c_char * int(size)
                    else:
                        kind = ctypes.c_char_p if stars else SCALARS[base]
                    fields.append((field, kind))
            self.assertEqual(fields, ours._fields_, name)

    def test_version(self):
        from sdlora import _lib

        with open(os.path.join(HEADERS, "version.h"), encoding="utf-8") as file:
            self.assertIn(f'SDLORA_VERSION_STRING "{_lib.VERSION}"', file.read())


if __name__ == "__main__":
    unittest.main()
