# SPDX-License-Identifier: MIT
"""Networks that adapt a frozen checkpoint."""
from __future__ import annotations

from typing import Any, List, Optional

from ._handle import Handle, decode, encode, need, texts
from ._lib import lib
from .checkpoint import Checkpoint
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
