# SPDX-License-Identifier: MIT
"""Finds the shared library, checks its version, and gives its functions their types.

Knows nothing of handles and classes: `lib.sdlora_noun_verb` is a plain C call, except that a
negative status becomes an exception.
"""
import ctypes
import os

from . import _decl

VERSION = "0.1.0"  # of the headers that _decl.py was written from
SONAME = "libsdlora.so.0.1"


def _candidates():
    asked = os.environ.get("SDLORA_LIBRARY")
    if asked:
        return [asked]  # the caller's word is final: no other copy is tried in silence
    beside = os.path.join(os.path.dirname(os.path.abspath(__file__)), SONAME)
    return ([beside] if os.path.exists(beside) else []) + [SONAME]


def _series(version):
    """The part of a version that must agree: '0.MINOR' before 1.0, then MAJOR."""
    parts = version.split(".")
    return parts[:2] if parts[0] == "0" else parts[:1]


def _check_version(loaded, path):
    if _series(loaded) != _series(VERSION):
        raise ImportError(
            f"{path} is libsdlora {loaded}, but this Python package was made for {VERSION}: "
            f"install the package that came with the library, or set SDLORA_LIBRARY to a "
            f"libsdlora {'.'.join(_series(VERSION))}"
        )


def _open():
    tried = []
    for path in _candidates():
        try:
            return ctypes.CDLL(path), path
        except OSError as error:
            tried.append(f"{path}: {error}")
    raise ImportError(
        "libsdlora was not found (" + "; ".join(tried) + "): install it, or set SDLORA_LIBRARY "
        "to the path of " + SONAME
    )


def load():
    """The library with all functions of _decl.py declared."""
    found, path = _open()
    try:
        found.sdlora_version.restype = ctypes.c_char_p
        version = found.sdlora_version().decode()
    except AttributeError:
        raise ImportError(f"{path} is not libsdlora: it has no sdlora_version()") from None
    _check_version(version, path)
    for name, restype, argtypes in _decl.FUNCTIONS:
        try:
            function = getattr(found, name)
        except AttributeError:
            raise ImportError(f"{path} (libsdlora {version}) lacks {name}()") from None
        function.restype = _checked if restype is _decl.status else restype
        function.argtypes = argtypes
    return found


def _checked(code):
    from ._error import raise_last  # _error needs `lib`, which load() is about to make

    if code < 0:
        raise_last(code)
    return code


lib = load()
