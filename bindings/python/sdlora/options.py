# SPDX-License-Identifier: MIT
"""Sets of named values, and the rows that say which names there are.  Keyword arguments of the
other classes become such sets; names, ranges and defaults live in the library alone."""
from __future__ import annotations

import ctypes
import os
from typing import Any, List, NamedTuple, Optional

from . import _decl
from ._error import NotFoundError
from ._handle import Handle, decode, encode, take_text
from ._lib import lib

_TYPES = {1: "int", 2: "real", 3: "text", 4: "bool", 5: "list"}


class OptionInfo(NamedTuple):
    """One row of the option table."""

    kind: str
    name: str
    help: str
    type: str  # "int", "real", "text", "bool" or "list"
    choices: Optional[List[str]]
    default: Optional[str]
    min: float
    max: float


def option_rows(kind: Optional[str] = None) -> List[OptionInfo]:
    """All options of a kind ("train", "dataset", ...), or of all kinds."""
    rows: List[OptionInfo] = []
    while True:
        row = _decl.OptionInfo(struct_size=ctypes.sizeof(_decl.OptionInfo))
        try:
            lib.sdlora_option_at(encode(kind), len(rows), ctypes.byref(row))
        except NotFoundError:
            if not rows:
                raise  # the kind is unknown
            return rows
        choices = decode(row.choices)
        rows.append(OptionInfo(
            decode(row.kind) or "", decode(row.name) or "", decode(row.help) or "",
            _TYPES.get(row.type, "text"), choices.split("|") if choices else None,
            decode(row.default_text), row.min, row.max))


class Options(Handle):
    """A set of values of one kind: `Options("train", unet_lr=1e-4)["unet_lr"]`."""

    _kind = "options"

    def __init__(self, kind: str, **values: Any) -> None:
        self._make(lib.sdlora_options_new, encode(kind))
        for name, value in values.items():
            self[name] = value

    @property
    def kind(self) -> str:
        return decode(lib.sdlora_options_kind(self._ptr)) or ""

    def __setitem__(self, name: str, value: Any) -> None:
        """None is left at the default; a list is one item per line."""
        key = encode(name)
        if value is None:
            return
        if isinstance(value, bool):
            lib.sdlora_options_set_text(self._ptr, key, b"true" if value else b"false")
        elif isinstance(value, int):
            if not -2**63 <= value < 2**63:
                raise ValueError(f"{name}: {value} does not fit 64 bits")
            lib.sdlora_options_set_int(self._ptr, key, value)
        elif isinstance(value, float):
            lib.sdlora_options_set_real(self._ptr, key, value)
        elif isinstance(value, (list, tuple)):
            text = "\n".join(str(item) for item in value)
            lib.sdlora_options_set_text(self._ptr, key, encode(text))
        elif isinstance(value, (str, bytes, os.PathLike)):
            lib.sdlora_options_set_text(self._ptr, key, encode(value))
        else:  # numpy scalars and the like say themselves what they are
            self[name] = value.item() if hasattr(value, "item") else str(value)

    def from_metadata(self, context: Handle, path: Any) -> List[str]:
        """Takes what a network file tells of its training and is not set here; what could not be
        taken over, one line each."""
        notes = ctypes.c_void_p()
        lib.sdlora_options_from_metadata(self._ptr, context._ptr, encode(path),
                                         ctypes.byref(notes))
        return take_text(context, notes).splitlines()

    def from_infotext(self, context: Handle, text: str) -> List[str]:
        """Takes what a picture's generation parameters tell and is not set here; what could not be
        followed, one line each."""
        notes = ctypes.c_void_p()
        lib.sdlora_options_from_infotext(self._ptr, context._ptr, encode(text),
                                         ctypes.byref(notes))
        return take_text(context, notes).splitlines()

    def __getitem__(self, name: str) -> Optional[str]:
        """The value as text, or its default, or None."""
        value = ctypes.c_char_p()
        lib.sdlora_options_get_text(self._ptr, encode(name), ctypes.byref(value))
        return decode(value.value)
