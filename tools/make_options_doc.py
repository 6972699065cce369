#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Writes docs/options.md from the option table, lib/base/options.def.

    make_options_doc.py ROOT            write the page
    make_options_doc.py --check ROOT    fail when the page is not what would be written
"""
import difflib
import pathlib
import re
import sys

# SLR_OPTION(kind, name, type, min, max, choices, default, help): adjacent strings are one, as in C.
ROW = re.compile(r"^SLR_OPTION\((.*?)\)$", re.M | re.S)
TOKEN = re.compile(r'"((?:\\.|[^"\\])*)"|([^\s,"]+)|(,)')
COMMENT = re.compile(r"/\*.*?\*/", re.S)
KINDS = {
    "context": "What the library may use. `sdlora_context_new`; any verb of the command line.",
    "checkpoint": "How a model file is read. `sdlora_checkpoint_open`.",
    "network": "The adapter that is trained. `sdlora_network_new`; `sdlora train`.",
    "dataset": "Which pictures, and how they become samples. `sdlora_dataset_open`; `sdlora train`, `sdlora eval`.",
    "train": "The run. `sdlora_trainer_new`; `sdlora train`.",
    "generate": "Pictures from a prompt. `sdlora_generator_run`; `sdlora generate`, `sdlora grid`, `sdlora sheet`.",
    "grid": "Pictures side by side on labelled sheets. `sdlora_grid_new`; `sdlora grid`.",
    "eval": "Held-out loss of a model with networks. `sdlora_evaluate`; `sdlora eval`.",
    "resize": "A network with fewer ranks. `sdlora_network_resize`; `sdlora resize`.",
    "merge": "Networks as one. `sdlora_network_merge`; `sdlora merge`.",
    "extract": "What training changed, as a network. `sdlora_network_extract`; `sdlora extract`.",
    "convert": "A model as another file. `sdlora_file_convert`; `sdlora convert`.",
    "prune": "A smaller model file. `sdlora_file_prune`; `sdlora prune`.",
    "bench": "Measurements. `sdlora_bench`; `sdlora bench`.",
}
GAP = "(not supported yet)"
TYPES = {"INT": "integer", "REAL": "number", "TEXT": "text", "BOOL": "yes or no", "LIST": "list"}
HEAD = """# Options

Made by `tools/make_options_doc.py` from `lib/base/options.def`; a test compares the two. Do not edit.

Every setting is one row of that table. The same name is used by `sdlora_options_set_*` in C, by keyword in Python and Lua, and
as a flag of the command line (`--unet_lr 1e-4`; `-` and `_` are the same; a yes-or-no flag needs no value). Names and defaults are
kohya's where kohya has one, AUTOMATIC1111's for pictures. A default of "none" means that the setting is off unless the help says
otherwise. Lists have one item per line in C and several words behind a flag.

Settings marked *refused* are known, so that a typo is told from a gap: any value but the default is an error
(`SDLORA_ENOTSUP`) when the job is made. Single values of other settings may be refused too, with a sentence; see
[training.md](training.md).
"""


def fields(text):
    """The arguments of one row: strings joined, words as they are, NULL as None."""
    out, strings, word = [], [], None
    for string, plain, comma in TOKEN.findall(text) + [("", "", ",")]:
        if comma:
            out.append("".join(strings) if strings else word)
            strings, word = [], None
        elif plain:
            word = None if plain == "NULL" else plain
        else:
            strings.append(string.replace('\\"', '"'))
    return out


def limits(kind, low, high, choices):
    if choices:
        return ", ".join(f"`{c}`" for c in choices.split("|"))
    if kind not in ("INT", "REAL"):
        return ""
    high = float(high)
    return f"{low} to {'any' if high >= 1e15 else f'{high:.15g}'}"


def page(table):
    table = COMMENT.sub("", table)
    rows = [fields(m) for m in ROW.findall(table)]
    if len(rows) != table.count("SLR_OPTION("):
        sys.exit("some rows of the table were not understood")
    lines = [HEAD]
    for kind in dict.fromkeys(row[0] for row in rows):
        lines += [f"## {kind}", "", KINDS[kind], "", "| option | type | range | default | what |", "|---|---|---|---|---|"]
        for _, name, type_, low, high, choices, default, text in (r for r in rows if r[0] == kind):
            if text.endswith(GAP):
                text = f"*refused.* {text[:-len(GAP)].strip()}"
            shown = "none" if default is None else f"`{default}`" if default else "empty"
            cells = (f"`{name}`", TYPES[type_], limits(type_, low, high, choices), shown, text)
            lines.append("| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |")
        lines.append("")
    return "\n".join(lines)


def main():
    args = [a for a in sys.argv[1:] if a != "--check"]
    root = pathlib.Path(args[0])
    want, path = page((root / "lib/base/options.def").read_text(encoding="utf-8")), root / "docs/options.md"
    if "--check" not in sys.argv:
        path.write_text(want, encoding="utf-8")
        return 0
    have = path.read_text(encoding="utf-8") if path.exists() else ""
    diff = list(difflib.unified_diff(have.splitlines(), want.splitlines(), "docs/options.md", "the table", "", "", 0, ""))
    print("\n".join(diff[:40]) or "docs/options.md is what the table says")
    if diff:
        print("run: python3 tools/make_options_doc.py .")
    return 1 if diff else 0


sys.exit(main())
