# SPDX-License-Identifier: MIT
"""Status codes as exceptions.  Each is an `Error` with `.code`, and also the builtin that a Python
programmer would catch."""
from __future__ import annotations

from typing import NoReturn


class Error(Exception):
    """A call failed.  The text says what happened, with file, tensor and shape."""

    code: int = -1
    where: str = ""  # the internal function that noticed


class OutOfMemoryError(Error, MemoryError):
    code = -2


class InvalidError(Error, ValueError):
    """An argument or option is wrong."""

    code = -3


class NotSupportedError(Error, NotImplementedError):
    code = -4


class InputOutputError(Error, OSError):
    code = -5


class FormatError(Error, ValueError):
    """A file is broken, or not what it was taken for."""

    code = -6


class NotFoundError(Error, FileNotFoundError):
    """No such file, tensor, option or network."""

    code = -7


class CanceledError(Error, KeyboardInterrupt):
    """cancel() or a callback ended the job."""

    code = -8


class BackendError(Error, RuntimeError):
    code = -9


class VersionError(Error, RuntimeError):
    code = -10


class NotFiniteError(Error, ArithmeticError):
    """A loss, gradient or image is not finite."""

    code = -11


BY_CODE = {
    c.code: c
    for c in (Error, OutOfMemoryError, InvalidError, NotSupportedError, InputOutputError,
              FormatError, NotFoundError, CanceledError, BackendError, VersionError,
              NotFiniteError)
}


def raise_last(code: int) -> NoReturn:
    """Raises the failure of this thread's last call."""
    from ._lib import lib

    last = lib.sdlora_last_error().contents
    text = last.message.decode("utf-8", "replace") if last.code == code else ""
    error = BY_CODE.get(code, Error)(text or f"status {code}")
    error.code = code
    error.where = last.where.decode() if last.code == code and last.where else ""
    raise error
