# SPDX-License-Identifier: MIT
"""X/Y/Z grids: one picture for each combination of up to three settings."""
from __future__ import annotations

import ctypes
from typing import Any, Callable, Dict, List, Optional

from . import _decl
from ._handle import Handle, decode, encode, need, texts
from ._job import interruptible
from ._lib import lib
from ._progress import Progress, watch
from .generator import Generator
from .image import Image
from .options import Options


class Grid(Handle):
    """`axes` are options of kind "grid" (x_type="Seed", x_values="1-4" ...), the rest those of the
    pictures.  models(name) gives the generator for the axis "Checkpoint name"; names of files in
    the directories of generator.add_ckpt_dir() have become paths.  progress(now) is called after
    each sampling step, on a helper thread; a true result stops the run."""

    _kind = "grid"

    def __init__(self, generator: Generator, axes: Dict[str, Any],
                 progress: Optional[Callable[[Progress], Any]] = None,
                 models: Optional[Callable[[str], Generator]] = None, **options: Any) -> None:
        kept, self._callback = watch(progress)
        self._kept = kept
        generators = self._generators = [generator]  # C calls what they were given to call
        with Options("grid", **axes) as a, Options("generate", **options) as o:
            self._make(lib.sdlora_grid_new, need(generator, Generator), a._ptr, o._ptr)
        if models:
            def give(out: Any, name: bytes, _: Any) -> int:
                def open_it() -> None:
                    g = models(decode(name) or "")
                    out[0] = lib.sdlora_generator_ref(need(g, Generator))
                    generators.append(g)

                return -1 if kept.guard(open_it) else 0

            self._models = _decl.grid_model_fn(give)
            lib.sdlora_grid_set_models(self._ptr, self._models, None)

    def labels(self, axis: int) -> List[str]:
        """What stands beside the pictures of an axis: 0: x, 1: y, 2: z."""
        return texts(lambda i: lib.sdlora_grid_label(self._ptr, axis, i))

    def run(self) -> None:
        """Draws all cells that are not drawn yet."""
        pointer = self._ptr
        interruptible(
            lambda: self._kept.run(lambda: lib.sdlora_grid_run(pointer, self._callback, None)),
            self.cancel)

    def cell(self, x: int = 0, y: int = 0, z: int = 0) -> Optional[Image]:
        """A picture; None: not drawn yet."""
        pointer = lib.sdlora_grid_cell(self._ptr, x, y, z)
        return Image._own(lib.sdlora_image_ref(pointer)) if pointer else None

    def sheet(self, z: int = -1) -> Image:
        """The labelled sheet of one value of z, or of all."""
        pointer = ctypes.c_void_p()
        lib.sdlora_grid_sheet(ctypes.byref(pointer), self._ptr, z)
        return Image._own(pointer.value)

    def close(self) -> None:
        if self._handle is not None:
            self._kept.refuse_if_busy()
        super().close()

    def cancel(self) -> None:
        """Asks a running run() to stop soon.  From any thread."""
        lib.sdlora_grid_cancel(self._ptr)


def axes() -> List[str]:
    """Names of axes; an option's own name is one too."""
    return texts(lib.sdlora_grid_axis_name)
