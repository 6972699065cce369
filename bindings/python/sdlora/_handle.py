# SPDX-License-Identifier: MIT
"""What all classes share: one C reference, given back once, in any order.

A C handle keeps what it was made from alive, so Python objects need not."""
from __future__ import annotations

import ctypes
import os
from typing import Any, Callable, List, Optional, Sequence

from ._lib import lib


def encode(text: Any) -> Optional[bytes]:
    """Text or path as UTF-8; None stays NULL."""
    if text is None:
        return None
    data = os.fsencode(text) if isinstance(text, (os.PathLike, bytes)) else text.encode("utf-8")
    if b"\0" in data:
        raise ValueError("text must not contain NUL")
    return data


def decode(data: Optional[bytes]) -> Optional[str]:
    return None if data is None else data.decode("utf-8", "replace")


def take_text(context: "Handle", pointer: ctypes.c_void_p) -> str:
    """Copies a text that the library made, and gives it back."""
    try:
        return ctypes.string_at(pointer.value).decode("utf-8", "replace")
    finally:
        lib.sdlora_text_free(context._ptr, pointer)


def texts(function: Callable[[int], Optional[bytes]]) -> List[str]:
    """The texts that a C function gives for 0, 1, 2 ... until NULL."""
    found: List[str] = []
    while True:
        text = decode(function(len(found)))
        if text is None:
            return found
        found.append(text)


class Handle:
    """Base of the classes.  `with` and close() give the reference back early."""

    _kind = ""  # "trainer": sdlora_trainer_unref gives a reference back
    _handle: Optional[int] = None

    def _make(self, function: Callable[..., Any], *args: Any) -> None:
        made = ctypes.c_void_p()
        function(ctypes.byref(made), *args)
        self._handle = made.value

    @classmethod
    def _own(cls, pointer: int) -> Any:
        """An object around one reference that is already ours."""
        self = cls.__new__(cls)
        self._handle = pointer
        return self

    @property
    def _ptr(self) -> int:
        if self._handle is None:
            raise ValueError(f"this {type(self).__name__} is closed")
        return self._handle

    def close(self) -> None:
        """Gives the reference back; closing again does nothing."""
        handle, self._handle = self._handle, None
        if handle is not None and lib is not None:  # None: the interpreter is going away
            getattr(lib, f"sdlora_{self._kind}_unref")(handle)

    def __del__(self) -> None:
        self.close()

    def __enter__(self) -> Any:
        self._ptr  # a closed object cannot be entered
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def __repr__(self) -> str:
        state = " (closed)" if self._handle is None else ""
        return f"<sdlora.{type(self).__name__}{state}>"


def pointer_of(handle: Optional[Handle], wanted: type) -> Optional[int]:
    """The C pointer of an argument that may be None.  A wrong class would crash C: refused here."""
    if handle is None:
        return None
    if not isinstance(handle, wanted):
        raise TypeError(f"expected sdlora.{wanted.__name__}, not {type(handle).__name__}")
    return handle._ptr


def pointers(handles: Sequence[Handle], wanted: type) -> Any:
    return (ctypes.c_void_p * len(handles))(*[need(h, wanted) for h in handles])


def need(handle: Handle, wanted: type) -> int:
    """Like pointer_of, but None is refused as well."""
    if handle is None:
        raise TypeError(f"expected sdlora.{wanted.__name__}, not None")
    found = pointer_of(handle, wanted)
    assert found is not None
    return found
