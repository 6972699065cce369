# SPDX-License-Identifier: MIT
"""The context: memory, log, threads and devices that everything else is made from."""
from __future__ import annotations

import ctypes
import json
import logging
from typing import Any, Dict, List, NamedTuple

from . import _decl
from ._handle import Handle, decode, encode, take_text, texts
from ._lib import lib
from .options import Options

_logger = logging.getLogger("sdlora")
_logger.addHandler(logging.NullHandler())  # quiet until the application wants to hear
_LEVELS = {1: logging.ERROR, 2: logging.WARNING, 3: logging.INFO, 4: logging.DEBUG}


def _log(level: int, text: bytes, _user: Any) -> None:
    _logger.log(_LEVELS.get(level, logging.INFO), "%s", decode(text))


# One function for all contexts, never freed: a C context may outlive its Python object.
_log_callback = _decl.log_fn(_log)


class DeviceInfo(NamedTuple):
    """One device, in the order in which operations ask for a kernel."""

    name: str
    backend: str
    mem_total: int  # bytes; 0: unknown
    mem_free: int
    host_memory: bool
    threads: int


class Context(Handle):
    """Options: kind "context" (threads, backend, cpu, memory_limit, plugin_path).

    Log lines go to logging.getLogger("sdlora"); debug lines only when that logger is set to DEBUG
    before the context is made."""

    _kind = "context"

    def __init__(self, **options: Any) -> None:
        with Options("context", **options) as opts:
            self._make(lib.sdlora_context_new, opts._ptr, None)
        level = 4 if _logger.isEnabledFor(logging.DEBUG) else 3
        lib.sdlora_context_set_log(self._ptr, level, _log_callback, None)

    @property
    def devices(self) -> List[DeviceInfo]:
        found = []
        for i in range(lib.sdlora_context_device_count(self._ptr)):
            info = _decl.DeviceInfo(struct_size=ctypes.sizeof(_decl.DeviceInfo))
            lib.sdlora_context_device_info(self._ptr, i, ctypes.byref(info))
            found.append(DeviceInfo(decode(info.name) or "", decode(info.backend) or "",
                                    info.mem_total, info.mem_free, bool(info.host_memory),
                                    info.threads))
        return found

    @property
    def device_notes(self) -> List[str]:
        """Why plugins that were found are not used."""
        return texts(lambda i: lib.sdlora_context_device_note(self._ptr, i))

    @property
    def memory_used(self) -> int:
        return int(lib.sdlora_context_memory_used(self._ptr))

    @property
    def memory_peak(self) -> int:
        return int(lib.sdlora_context_memory_peak(self._ptr))

    def tokenize(self, text: str) -> List[int]:
        """Token ids without begin, end and padding."""
        count, data = ctypes.c_size_t(), encode(text)
        lib.sdlora_tokenize(self._ptr, data, None, 0, ctypes.byref(count))
        ids = (ctypes.c_int32 * count.value)()
        lib.sdlora_tokenize(self._ptr, data, ids, count.value, ctypes.byref(count))
        return list(ids)

    def file_info(self, path: Any, hashes: bool = False) -> Dict[str, Any]:
        """What a model or network file is, read from its header alone."""
        text = ctypes.c_void_p()
        lib.sdlora_file_info(self._ptr, encode(path), int(hashes), ctypes.byref(text))
        return dict(json.loads(take_text(self, text)))
