# SPDX-License-Identifier: MIT
"""Tools on whole files: convert, prune, hash, check, metadata.

progress(Progress) is called as bytes pass, on a helper thread; a true result cancels, and so does
Ctrl-C.  Nothing is changed then."""
from __future__ import annotations

import ctypes
import json
from typing import Any, Callable, Dict, Mapping, Optional

from ._handle import encode, need, take_text
from ._job import interruptible
from ._lib import lib
from ._progress import Progress, watch
from .context import Context
from .options import Options

ProgressFn = Optional[Callable[[Progress], Any]]


def _job(progress: ProgressFn, call: Callable[[Any], Any]) -> Any:
    kept, callback = watch(progress)
    return interruptible(lambda: kept.run(lambda: call(callback)), kept.stop)


def _report(context: Context, progress: ProgressFn, call: Callable[[Any, Any], Any]) -> Dict[str, Any]:
    def run(callback: Any) -> str:
        text = ctypes.c_void_p()
        call(callback, ctypes.byref(text))
        return take_text(context, text)

    return dict(json.loads(_job(progress, run)))


def convert(context: Context, source: Any, target: Any, *, progress: ProgressFn = None,
            **options: Any) -> Dict[str, Any]:
    """A model as another file.  Options: kind "convert"."""
    owner, read, write = need(context, Context), encode(source), encode(target)
    with Options("convert", **options) as opts:
        return _report(context, progress, lambda callback, text: lib.sdlora_file_convert(
            owner, read, write, opts._ptr, callback, None, text))


def prune(context: Context, source: Any, target: Any, *, progress: ProgressFn = None,
          **options: Any) -> Dict[str, Any]:
    """A smaller model file.  Options: kind "prune"."""
    owner, read, write = need(context, Context), encode(source), encode(target)
    with Options("prune", **options) as opts:
        return _report(context, progress, lambda callback, text: lib.sdlora_file_prune(
            owner, read, write, opts._ptr, callback, None, text))


def file_hash(context: Context, path: Any, *, progress: ProgressFn = None) -> Dict[str, Any]:
    """The digests that sites and programs know a file by."""
    owner, name = need(context, Context), encode(path)
    return _report(context, progress, lambda callback, text: lib.sdlora_file_hash(
        owner, name, callback, None, text))


def check(context: Context, path: Any, *, each: bool = False,
          progress: ProgressFn = None) -> Dict[str, Any]:
    """What is not finite, how large weights are, which modules of a network change nothing."""
    owner, name = need(context, Context), encode(path)
    return _report(context, progress, lambda callback, text: lib.sdlora_file_check(
        owner, name, int(each), callback, None, text))


def metadata(context: Context, path: Any) -> Dict[str, Any]:
    """All metadata of a safetensors file: "metadata", "training", "folders", "tags"."""
    text = ctypes.c_void_p()
    lib.sdlora_metadata_get(need(context, Context), encode(path), None, ctypes.byref(text))
    return dict(json.loads(take_text(context, text)))


def set_metadata(context: Context, path: Any, changes: Mapping[str, Optional[str]], *,
                 out: Any = None, progress: ProgressFn = None) -> None:
    """Sets keys; None removes one.  Tensors and other keys stay as they are."""
    owner, name, target = need(context, Context), encode(path), encode(out)
    keys = (ctypes.c_char_p * len(changes))(*[encode(key) for key in changes])
    values = (ctypes.c_char_p * len(changes))(*[encode(value) for value in changes.values()])
    _job(progress, lambda callback: lib.sdlora_metadata_set(
        owner, name, target, keys, values, len(changes), callback, None))


def copy_metadata(context: Context, source: Any, path: Any, *, prefix: Optional[str] = None,
                  out: Any = None, progress: ProgressFn = None) -> None:
    """Copies keys (those that begin with prefix) from one file to another."""
    owner, read, name = need(context, Context), encode(source), encode(path)
    _job(progress, lambda callback: lib.sdlora_metadata_copy(
        owner, read, name, encode(out), encode(prefix), callback, None))
