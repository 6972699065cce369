# SPDX-License-Identifier: MIT
"""Networks that adapt a frozen checkpoint."""
from __future__ import annotations

import ctypes
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

from ._handle import Handle, decode, encode, need, texts
from ._job import interruptible
from ._lib import lib
from ._progress import Progress, watch
from .checkpoint import Checkpoint, split_strengths
from .options import Options


class Network(Handle):
    """A new network, a no-op until it is trained.  Options: kind "network"."""

    _kind = "network"

    def __init__(self, checkpoint: Checkpoint, seed: int = 0, **options: Any) -> None:
        if not 0 <= seed < 2**64:
            raise ValueError(f"seed {seed} is not in 0..2^64-1")
        with Options("network", **options) as opts:
            self._make(lib.sdlora_network_new, need(checkpoint, Checkpoint), opts._ptr, seed)

    @classmethod
    def open(cls, checkpoint: Checkpoint, path: Any, **options: Any) -> "Network":
        """A network file of any dialect, checked against the checkpoint.  Options: lora_unmatched="skip" leaves out what fits nothing."""
        self = cls.__new__(cls)
        with Options("network", **options) as opts:
            self._make(lib.sdlora_network_open_with, need(checkpoint, Checkpoint), encode(path), opts._ptr)
        return self

    @property
    def skipped(self) -> List[str]:
        """Keys of the file that nothing was made of."""
        count = int(lib.sdlora_network_skipped(self._ptr))
        return [decode(lib.sdlora_network_skipped_key(self._ptr, i)) or "" for i in range(count)]

    def resize(self, *, progress: Optional[Callable[[Progress], Any]] = None,
               **options: Any) -> "Network":
        """The same with fewer ranks.  Options: kind "resize"."""
        return self._job(lib.sdlora_network_resize, "resize", (self._ptr,), options, progress)

    @classmethod
    def merged(cls, networks: "Sequence[Tuple[Network, float, float]]", *,
               progress: Optional[Callable[[Progress], Any]] = None, **options: Any) -> "Network":
        """One of many: (network, text encoder strength, UNet strength) each.  Options: kind
        "merge"."""
        nets, te, unet = split_strengths(networks, Network)
        return cls._job(lib.sdlora_network_merge, "merge", (nets, te, unet, len(te)), options,
                        progress)

    @classmethod
    def extract(cls, tuned: Checkpoint, base: Checkpoint, *,
                progress: Optional[Callable[[Progress], Any]] = None, **options: Any) -> "Network":
        """What training changed from `base` to `tuned`.  Options: kind "extract"."""
        return cls._job(lib.sdlora_network_extract, "extract",
                        (need(tuned, Checkpoint), need(base, Checkpoint)), options, progress)

    @classmethod
    def _job(cls, function: Any, kind: str, args: Tuple[Any, ...], options: Dict[str, Any],
             progress: Optional[Callable[[Progress], Any]]) -> "Network":
        """progress(Progress) is called between layers, on a helper thread; a true result
        cancels."""
        kept, callback = watch(progress)
        made = ctypes.c_void_p()
        with Options(kind, **options) as opts:
            interruptible(lambda: kept.run(lambda: function(ctypes.byref(made), *args, opts._ptr,
                                                            callback, None)), kept.stop)
        result: "Network" = cls._own(made.value or 0)
        return result

    @property
    def name(self) -> str:
        return decode(lib.sdlora_network_name(self._ptr)) or ""

    @property
    def modules(self) -> int:
        return int(lib.sdlora_network_modules(self._ptr))

    def metadata(self, key: str) -> Optional[str]:
        """A metadata value ("ss_network_dim"), or None."""
        return decode(lib.sdlora_network_metadata(self._ptr, encode(key)))

    def save(self, path: Any, precision: Optional[str] = None, dialect: Optional[str] = None) -> None:
        """Whole or not at all.  precision: "float", "fp16" or "bf16"; dialect: one of dialects(), None: "kohya"."""
        lib.sdlora_network_save_as(self._ptr, encode(path), encode(precision), encode(dialect))


def dialects() -> List[str]:
    """What networks can be saved as."""
    return texts(lib.sdlora_dialect_name)
