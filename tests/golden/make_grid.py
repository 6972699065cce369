"""Freezes what AUTOMATIC1111's X/Y/Z script makes of axis values, prompts and labels.

    python make_grid.py WEBUI_CHECKOUT

grid.json: `values` [type, text, values] (null where the script raises; numbers as they are, orders as lists); `labels`
[type, value, "label: text"]; `replace` [prompt, negative, from, to, prompt, negative]; `order` [prompt, parts, prompt].
Functions are taken out of scripts/xyz_grid.py by name, since the module itself wants the whole program.
"""
import ast
import csv
import pathlib
import re
import sys
from collections import namedtuple
from io import StringIO
from itertools import chain, permutations
from types import SimpleNamespace

import numpy as np
from oracle import save_json, versions

INT, FLOAT, TEXT, ORDER = "int", "float", "str", "order"
WHOLE = ["1", "1, 2,3", " 5 ", "+3", "-1", "1-10", "1-10 (+2)", "1 - 10(+3)", "10-1 (-1)", "10-1 (-3)", "1-10 [5]", "1-10[1]", "1-10 [0]", "0-100 [7]", "-5-5", "-5--1", "5-1",
         "1-3, 7, 10-20 (+5)", "1.5", "a", "", "1,", ",1", "1\n2", "\"1\",\"2,3\"", "\"1-3\"", "1-10 (2)", "1-10 (+0)", "1-10 (+2", "1-2-3", "1e3", "0x10", "12345678901", "20-20",
         "1-5 (+1) ", "\t1-3\t", "1 2", "1-10 [5.0]", "007", "4294967293-4294967295"]
REAL = ["1", "7.5", "1-3", "1-3 (+0.5)", "0-1 (+0.1)", "0-1 (+0.3)", "0-1 [5]", "0-1 [11]", "0-1 [1]", "0.5-0.7 [3]", "0.1-0.9 (+0.2)", "1-0 (-0.25)", "1-0 [3]", "-1-1 [3]", "7.5-7.5",
        ".5", "5.", "5.-6.", "1e-3", "1e2", "inf-1", "0.3,0.6 , 1", "3-1", "0-2 (+0.7)", "0.1-0.3 (+0.1)", "1-10 (+2)", "0-1 [2.5]", "1-2 (+0)", "-0.5", "1.25-2.75 [4]", "0-1 [4], 2"]
STRINGS = ["a", "a,b", "a, b ,c", "\"a, b\", c", "x, \"a, b\"", "\"say \"\"no\"\"\", b", "\"a\"b, c", "a\"b\", c", "", ",", "a,,b", "a,b\nc,d", "a\n\nb", "\"a\nb\",c", "a\r\nb", " ", "\"unclosed, b",
           "red, green, blue", "<lora:x:0.5>,<lora:x:1>", "Euler a, DPM++ 2M", "é, 猫", "\n a", "a\n"]
LABELS = [(FLOAT, 7.0), (FLOAT, 0.1 + 0.2), (FLOAT, 1e-9), (FLOAT, 123456.789012345), (FLOAT, -0.0), (FLOAT, 1e16), (FLOAT, 2.5e-7), (FLOAT, 0.123456785), (FLOAT, 1 / 3), (INT, 20),
          (INT, -1)]
PROMPTS = [("a cat on a mat", "cat", "cat", "dog"), ("aaa", "", "aa", "b"), ("x", "no cat, cat", "cat", "ca"), ("(red:1.2), <lora:n:0.5>", "", "0.5", "1"), ("nothing", "", "cat", "dog")]
ORDERS = [("a cat, a dog, a bird", ["cat", "dog"]), ("one two three", ["three", "one", "two"]), ("only", ["only"])]


def take(path):
    """The script's functions and expressions in a namespace of their own."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = {"apply_prompt", "apply_order", "format_value_add_label", "csv_string_to_list_strip", "str_permutations", "apply_size"}
    body = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name in names]
    body += [n for n in tree.body if isinstance(n, ast.Assign) and n.targets[0].id.startswith("re_range")]
    axis = next(n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == "process_axis")
    space = dict(np=np, re=re, csv=csv, chain=chain, permutations=permutations, StringIO=StringIO, csv_mode=True, p=None, namedtuple=namedtuple)
    exec(compile(ast.Module(body + [axis], []), str(path), "exec"), space)
    return SimpleNamespace(**{n.name: space[n.name] for n in body + [axis] if isinstance(n, ast.FunctionDef)}, space=space)


def main():
    script = take(pathlib.Path(sys.argv[1]) / "scripts" / "xyz_grid.py")
    types = {INT: int, FLOAT: float, TEXT: str, ORDER: script.str_permutations}

    def values(kind, text):
        opt = SimpleNamespace(label="x", type=types[kind], choices=None, prepare=None, confirm=None)
        try:
            got = script.process_axis(opt, text, None)
        except (ValueError, ZeroDivisionError):
            return None
        return got if all(abs(x) < 2**63 for x in got if isinstance(x, (int, float))) else None

    rows = [[INT, t, values(INT, t)] for t in WHOLE] + [[FLOAT, t, values(FLOAT, t)] for t in REAL]
    rows += [[TEXT, t, values(TEXT, t)] for t in STRINGS]
    rows += [[ORDER, t, values(ORDER, t)] for t in ("a", "a,b", "a,b,c", "1,2,3,4")]
    labels = [[k, v, script.format_value_add_label(None, SimpleNamespace(label="CFG Scale"), v)] for k, v in LABELS]
    replaced, ordered = [], []
    for prompt, negative, old, new in PROMPTS:
        p = SimpleNamespace(prompt=prompt, negative_prompt=negative)
        try:
            script.apply_prompt(p, new, [old, new])
            replaced.append([prompt, negative, old, new, p.prompt, p.negative_prompt])
        except RuntimeError:
            replaced.append([prompt, negative, old, new, None, None])
    for prompt, parts in ORDERS:
        for order in permutations(parts):
            p = SimpleNamespace(prompt=prompt)
            script.apply_order(p, list(order), None)
            ordered.append([prompt, parts, p.prompt])
    save_json("grid.json", {"oracle": "AUTOMATIC1111 v1.10.1 (82a973c) scripts/xyz_grid.py, " + versions("numpy"), "values": rows, "labels": labels,
                            "replace": replaced, "order": ordered})


main()
