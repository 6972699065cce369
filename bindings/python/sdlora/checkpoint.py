# SPDX-License-Identifier: MIT
"""Frozen models: checkpoints and separate VAEs."""
from __future__ import annotations

import ctypes
import json
from typing import TYPE_CHECKING, Any, Callable, Dict, Optional, Sequence, Tuple

from ._handle import Handle, decode, encode, need, pointer_of, pointers, take_text
from ._job import interruptible
from ._lib import lib
from ._progress import Progress, watch
from .context import Context
from .options import Options

if TYPE_CHECKING:
    from .network import Network


class Checkpoint(Handle):
    """A model file or diffusers folder.  Options: kind "checkpoint"."""

    _kind = "checkpoint"

    def __init__(self, context: Context, path: Any, **options: Any) -> None:
        with Options("checkpoint", **options) as opts:
            self._make(lib.sdlora_checkpoint_open, need(context, Context), encode(path), opts._ptr)

    @classmethod
    def for_network(cls, context: Context, path: Any) -> "Checkpoint":
        """A checkpoint without weights that has the layers a network file was made for."""
        self = cls.__new__(cls)
        self._make(lib.sdlora_checkpoint_for_network, need(context, Context), encode(path))
        return self

    @property
    def family(self) -> str:
        """"sd1", "sd2", "sdxl" or "sdxl-refiner"."""
        return decode(lib.sdlora_checkpoint_family(self._ptr)) or ""

    @property
    def layout(self) -> str:
        return decode(lib.sdlora_checkpoint_layout(self._ptr)) or ""

    @property
    def path(self) -> str:
        return decode(lib.sdlora_checkpoint_path(self._ptr)) or ""

    def merge(self, networks: "Sequence[Tuple[Network, float, float]]") -> "Checkpoint":
        """A copy with networks merged in: (network, text encoder strength, UNet strength) each.
        The original is untouched."""
        from .network import Network

        nets, te, unet = split_strengths(networks, Network)
        made = ctypes.c_void_p()
        lib.sdlora_checkpoint_merge(ctypes.byref(made), self._ptr, nets, te, unet, len(te))
        return Checkpoint._own(made.value or 0)

    def merge_file(self, networks: "Sequence[Tuple[Network, float, float]]", path: Any, *,
                   vae: "Optional[Vae]" = None,
                   progress: Optional[Callable[[Progress], Any]] = None, **options: Any) -> None:
        """The model's file once more, with networks in it: (network, text encoder strength, UNet
        strength) each.  Options: kind "merge"."""
        from .network import Network

        nets, te, unet = split_strengths(networks, Network)
        kept, callback = watch(progress)
        with Options("merge", **options) as opts:
            args = (self._ptr, pointer_of(vae, Vae), nets, te, unet, len(te), encode(path),
                    opts._ptr, callback, None)
            interruptible(lambda: kept.run(lambda: lib.sdlora_checkpoint_merge_file(*args)),
                          kept.stop)

    def bench(self, context: Context, *, progress: Optional[Callable[[Progress], Any]] = None,
              **options: Any) -> Dict[str, Any]:
        """Timings of the model's parts on this machine.  Options: kind "bench".

        progress(Progress) is called before the first run of a part and after each, on a helper
        thread; a true result cancels.  Ctrl-C stops after the run at hand."""
        kept, callback = watch(progress)
        pointer, owner = self._ptr, need(context, Context)
        with Options("bench", **options) as opts:
            def measure() -> str:
                text = ctypes.c_void_p()
                lib.sdlora_bench(owner, pointer, opts._ptr, callback, None, ctypes.byref(text))
                return take_text(context, text)

            report: str = interruptible(lambda: kept.run(measure), kept.stop)
        return dict(json.loads(report))


class Vae(Handle):
    """A separate VAE file, used in place of the checkpoint's own."""

    _kind = "vae"

    def __init__(self, context: Context, path: Any) -> None:
        self._make(lib.sdlora_vae_open, need(context, Context), encode(path))


def split_strengths(networks: Sequence[Tuple[Any, float, float]], wanted: type) -> Any:
    """[(network, te, unet), ...] as the three parallel arrays that C takes."""
    real = ctypes.c_double * len(networks)
    return (pointers([n[0] for n in networks], wanted), real(*[n[1] for n in networks]),
            real(*[n[2] for n in networks]))
