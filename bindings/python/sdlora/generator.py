# SPDX-License-Identifier: MIT
"""Pictures from prompts."""
from __future__ import annotations

import ctypes
from typing import Any, Callable, List, Optional

from . import _decl
from ._handle import Handle, encode, need, pointer_of, take_text, texts
from ._job import Kept, interruptible
from ._lib import lib
from ._progress import Progress, progress_of
from .checkpoint import Checkpoint, Vae
from .context import Context
from .image import Image
from .network import Network
from .options import Options


class Generator(Handle):
    """Keeps text states and graphs, so that the next picture pays only for its steps.

    progress(step, total) is called after each sampling step, on a helper thread, and watch(now),
    a Progress, also as weights are packed and pictures decoded; a true result cancels."""

    _kind = "generator"

    def __init__(self, checkpoint: Checkpoint, vae: Optional[Vae] = None,
                 progress: Optional[Callable[[int, int], Any]] = None,
                 watch: Optional[Callable[[Progress], Any]] = None) -> None:
        kept = self._kept = Kept()
        self._callback = _decl.sample_fn(
            lambda step, total, _: kept.guard(progress, step, total) if progress else 0)
        self._make(lib.sdlora_generator_new, need(checkpoint, Checkpoint), pointer_of(vae, Vae))
        lib.sdlora_generator_set_progress(self._ptr, self._callback, None)
        if watch:
            look = watch
            self._watch = _decl.progress_fn(
                lambda now, _: kept.guard(look, progress_of(now.contents)))
            lib.sdlora_generator_set_watch(self._ptr, self._watch, None)

    def preview(self) -> Image:
        """What the picture is becoming, one pixel for each latent.  Inside watch only."""
        pointer = ctypes.c_void_p()
        lib.sdlora_generator_preview(ctypes.byref(pointer), self._ptr)
        return Image._own(pointer.value)

    def add_lora_dir(self, path: Any) -> None:
        """A directory that <lora:name> and <hypernet:name> tags of prompts are looked up in."""
        lib.sdlora_generator_add_lora_dir(self._ptr, encode(path))

    def add_embeddings(self, path: Any) -> None:
        """An embedding file, or a directory of them, whose names prompts may use."""
        lib.sdlora_generator_add_embeddings(self._ptr, encode(path))

    def add_vae_dir(self, path: Any) -> None:
        """A directory that the option sd_vae finds VAE files in."""
        lib.sdlora_generator_add_vae_dir(self._ptr, encode(path))

    def add_upscaler_dir(self, path: Any) -> None:
        """A directory that the option hr_upscaler finds ESRGAN networks in."""
        lib.sdlora_generator_add_upscaler_dir(self._ptr, encode(path))

    def set_init_image(self, image: Optional[Image]) -> None:
        """The picture that runs start from; None: they start from noise."""
        lib.sdlora_generator_set_init_image(self._ptr, pointer_of(image, Image))

    def set_mask(self, mask: Optional[Image]) -> None:
        """What of that picture changes: where the mask is white; None: everything."""
        lib.sdlora_generator_set_mask(self._ptr, pointer_of(mask, Image))

    def set_network(self, network: Network, te: float = 1.0, unet: float = 1.0) -> None:
        """Applies a network to every picture from now on; both strengths 0 removes it."""
        lib.sdlora_generator_set_network(self._ptr, need(network, Network), te, unet)

    def set_refiner(self, refiner: Optional[Checkpoint]) -> None:
        """A checkpoint that finishes pictures from refiner_switch_at on; None: no longer."""
        lib.sdlora_generator_set_refiner(self._ptr, pointer_of(refiner, Checkpoint))

    def set_hr_checkpoint(self, checkpoint: Optional[Checkpoint]) -> None:
        """A checkpoint that makes the second pass of hires fix; None: no longer."""
        lib.sdlora_generator_set_hr_checkpoint(self._ptr, pointer_of(checkpoint, Checkpoint))

    def add_ckpt_dir(self, path: Any) -> None:
        """A directory that refiner_checkpoint, hr_checkpoint_name and match() find models in."""
        lib.sdlora_generator_add_ckpt_dir(self._ptr, encode(path))

    def match(self, context: Context, settings: Options, text: str) -> List[str]:
        """Compares model, VAE, networks and embeddings with those that a picture's generation
        parameters name, renames tags of networks that go by another name here, and looks for a
        refiner and a checkpoint of the second pass.  One line for each difference.  settings: what took the same text by from_infotext()."""
        notes = ctypes.c_void_p()
        lib.sdlora_generator_match(self._ptr, need(settings, Options), encode(text),
                                   ctypes.byref(notes))
        return take_text(context, notes).splitlines()

    def run(self, prompt: Optional[str] = None, settings: Optional[Options] = None,
            **options: Any) -> List[Image]:
        """`count` pictures; picture k uses seed + k.  Options: kind "generate"; they are set over
        those that stand in `settings`, which keeps them."""
        if settings is None:
            with Options("generate") as settings:
                return self.run(prompt, settings, **options)
        for name, value in options.items():
            settings[name] = value
        if prompt is not None:
            settings["prompt"] = prompt
        pointer, opts, count = self._ptr, need(settings, Options), int(settings["count"] or 1)

        def draw() -> List[Image]:
            images = (ctypes.c_void_p * count)()
            lib.sdlora_generator_run(pointer, opts, images, count)
            return [Image._own(p) for p in images]  # here, where no interrupt can strike

        pictures: List[Image] = interruptible(lambda: self._kept.run(draw), self.cancel)
        return pictures

    def close(self) -> None:
        if self._handle is not None:
            self._kept.refuse_if_busy()
        super().close()

    def cancel(self) -> None:
        """Asks a running run() to stop soon.  From any thread."""
        lib.sdlora_generator_cancel(self._ptr)


def samplers() -> List[str]:
    return texts(lib.sdlora_sampler_name)


def schedulers() -> List[str]:
    return texts(lib.sdlora_scheduler_name)
