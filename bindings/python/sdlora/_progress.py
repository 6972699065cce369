# SPDX-License-Identifier: MIT
"""What a running job tells, and how it gets to Python."""
from __future__ import annotations

from typing import Any, Callable, NamedTuple, Optional, Tuple

from . import _decl
from ._handle import decode
from ._job import Kept


class Progress(NamedTuple):
    """One look at a running job.  NaN: not known yet."""

    step: int
    total: int
    epoch: int
    epochs: int
    loss: float
    average_loss: float
    unet_lr: float
    text_encoder_lr: float
    grad_norm: float
    val_loss: float
    elapsed: float  # seconds
    eta: float      # seconds
    phase: str      # "latents" (encoding pictures), "train", "save", "validate" or "sample"
    phase_done: int
    phase_total: int
    text_encoder_2_lr: float


def progress_of(now: Any) -> Progress:
    values = {name: getattr(now, name) for name in Progress._fields}
    values["phase"] = decode(now.phase) or ""
    return Progress(**values)


def watch(progress: Optional[Callable[[Progress], Any]]) -> Tuple[Kept, Any]:
    """What a job keeps, and the C callback that passes its progress on.  The closure must not hold
    a handle: that ring would keep the C object alive."""
    kept = Kept()
    return kept, _decl.progress_fn(
        lambda now, _: kept.guard(progress, progress_of(now.contents)) if progress
        else int(kept.stopped))
