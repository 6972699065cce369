#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Fails when a file includes a header of a room to its right, or a client looks into lib/.

    layers.py ROOT

Rooms in the order of their arrows; a room may include itself and what stands before it.  train and sample refuse to
know each other.  io may include tensor, since files give tensors.  Plugins, bindings and examples see the public
headers only.
"""
import pathlib
import re
import sys

ROOMS = ["base", "io", "tensor", "backend", "graph", "models", "networks", "data", "train", "sample", "tag", "publish", "api"]
LOOPS = {"train", "sample", "tag", "publish"}  # side by side
EXTRA = {("io", "tensor")}
INCLUDE = re.compile(r'^\s*#\s*include\s+["<]([^">]+)[">]', re.M)


def allowed(room, target):
    if room in LOOPS and target in LOOPS:
        return room == target
    return (room, target) in EXTRA or ROOMS.index(target) <= ROOMS.index(room)


def problems(path, room):
    for name in INCLUDE.findall(path.read_text(encoding="utf-8")):
        target = name.split("/")[0]
        if target in ROOMS and "/" in name and (room is None or not allowed(room, target)):
            yield f"{path}: {room or 'a client'} may not include {name}"
        if name.startswith(".."):
            yield f"{path}: {name} climbs out of its directory"


def main():
    root = pathlib.Path(sys.argv[1])
    found, seen = [], 0
    for top in ("lib", "bindings", "examples"):
        for path in sorted((root / top).rglob("*")):
            if path.suffix not in (".c", ".h", ".def"):
                continue
            room = path.relative_to(root / "lib").parts[0] if top == "lib" else None
            if room is not None and room not in ROOMS and room != "plugins":
                found.append(f"{path}: no such room: {room}")
                continue
            found += problems(path, None if room == "plugins" else room)
            seen += 1
    print("\n".join(found) or f"{seen} files, all arrows point left")
    return 1 if found or not seen else 0


sys.exit(main())
