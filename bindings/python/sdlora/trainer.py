# SPDX-License-Identifier: MIT
"""Training, one optimiser step at a time: `for now in trainer: print(now.step, now.loss)`."""
from __future__ import annotations

import ctypes
import json
from typing import Any, Callable, Dict, Iterator, Optional, Sequence, Tuple

from . import _decl
from ._handle import Handle, encode, need, pointer_of, take_text
from ._job import interruptible
from ._lib import lib
from ._progress import Progress, progress_of, watch
from .checkpoint import Checkpoint, Vae, split_strengths
from .context import Context
from .dataset import Dataset
from .network import Network
from .options import Options

_DONE = 1


class Trainer(Handle):
    """Options: kind "train".

    progress(Progress) is called while pictures are encoded, in a step while files are saved, the
    held-out loss is measured and samples are drawn, and by run() after each step, on a helper
    thread; a true result cancels.
    Ctrl-C stops a step between two kernels: the step is not applied, and the trainer can go on or
    be saved."""

    _kind = "trainer"

    def __init__(self, checkpoint: Checkpoint, network: Network, data: Dataset, *,
                 vae: Optional[Vae] = None, validation: Optional[Dataset] = None,
                 progress: Optional[Callable[[Progress], Any]] = None, **options: Any) -> None:
        kept, self._callback = watch(progress)
        self._kept = kept
        self._network = network
        args = (need(checkpoint, Checkpoint), pointer_of(vae, Vae), need(network, Network),
                need(data, Dataset), pointer_of(validation, Dataset))
        with Options("train", **options) as opts:
            interruptible(
                lambda: kept.run(lambda: self._make(lib.sdlora_trainer_new, *args, opts._ptr,
                                                    self._callback, None)), kept.stop)

    def __iter__(self) -> Iterator[Progress]:
        return self

    def __next__(self) -> Progress:
        now = self.step()
        if now is None:
            raise StopIteration
        return now

    def step(self) -> Optional[Progress]:
        """One optimiser step and what falls due after it.  None: the planned steps are over."""
        now = _decl.Progress(struct_size=ctypes.sizeof(_decl.Progress))
        if self._job(lib.sdlora_trainer_step, ctypes.byref(now)) == _DONE:
            return None
        return progress_of(now)

    def run(self) -> None:
        """step() until done, with progress after each."""
        self._job(lib.sdlora_trainer_run)

    def validate(self) -> float:
        """The held-out loss now."""
        loss = ctypes.c_double()
        self._job(lib.sdlora_trainer_validate, ctypes.byref(loss))
        return loss.value

    def _job(self, function: Callable[..., Any], *args: Any) -> Any:
        pointer = self._ptr
        return interruptible(lambda: self._kept.run(lambda: function(pointer, *args)), self.cancel)

    def close(self) -> None:
        if self._handle is not None:
            self._kept.refuse_if_busy()
        super().close()

    def cancel(self) -> None:
        """Asks a running job to stop soon.  From any thread."""
        lib.sdlora_trainer_cancel(self._ptr)

    def save(self, path: Any = None) -> None:
        """The network with full metadata; None: output_dir/output_name.safetensors."""
        lib.sdlora_trainer_save(self._ptr, encode(path))

    def save_state(self, path: Any = None) -> None:
        """Everything that resume() needs."""
        lib.sdlora_trainer_save_state(self._ptr, encode(path))

    def resume(self, path: Any) -> None:
        """Goes on from a state, to the same bytes as if the run had never stopped."""
        lib.sdlora_trainer_resume(self._ptr, encode(path))

    @property
    def network(self) -> Network:
        """The network being trained."""
        return self._network


def plan(context: Context, checkpoint: Checkpoint, network: Network, data: Dataset, *,
         vae: Optional[Vae] = None, validation: Optional[Dataset] = None,
         progress: Optional[Callable[[Progress], Any]] = None, **options: Any) -> Dict[str, Any]:
    """What a Trainer of the same arguments will take, before it is made: memory, seconds, files.
    The network stays as it is, and nothing is written.  context: the checkpoint's.

    progress(Progress) is called after each part, on a helper thread; a true result cancels.
    Ctrl-C stops after the part at hand."""
    kept, callback = watch(progress)
    need(context, Context)
    args = (need(checkpoint, Checkpoint), pointer_of(vae, Vae), need(network, Network),
            need(data, Dataset), pointer_of(validation, Dataset))
    with Options("train", **options) as opts:
        def measure() -> str:
            text = ctypes.c_void_p()
            lib.sdlora_plan(*args, opts._ptr, callback, None, ctypes.byref(text))
            return take_text(context, text)

        report: str = interruptible(lambda: kept.run(measure), kept.stop)
    return dict(json.loads(report))


def evaluate(checkpoint: Checkpoint, data: Dataset,
             networks: Sequence[Tuple[Network, float, float]] = (), *,
             vae: Optional[Vae] = None,
             progress: Optional[Callable[[Progress], Any]] = None, **options: Any) -> float:
    """The held-out loss of a checkpoint with networks, (network, text encoder strength, UNet
    strength) each, without training.  Options: kind "eval".

    progress(Progress) is called before the first picture and after each, on a helper thread; a
    true result cancels.  Ctrl-C stops after the picture at hand."""
    nets, te, unet = split_strengths(networks, Network)
    loss = ctypes.c_double()
    kept, callback = watch(progress)
    with Options("eval", **options) as opts:
        args = (need(checkpoint, Checkpoint), pointer_of(vae, Vae), need(data, Dataset), nets, te,
                unet, len(te), opts._ptr, callback, None, ctypes.byref(loss))
        interruptible(lambda: kept.run(lambda: lib.sdlora_evaluate(*args)), kept.stop)
    return loss.value
