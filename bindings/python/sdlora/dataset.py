# SPDX-License-Identifier: MIT
"""Tagged pictures on disk.  A Dataset is a sequence of items."""
from __future__ import annotations

import ctypes
from typing import Any, List, NamedTuple

from . import _decl
from ._handle import Handle, decode, need, texts
from ._lib import lib
from .context import Context
from .options import Options


class DatasetItem(NamedTuple):
    """One picture and where it goes; sizes in pixels."""

    path: str
    caption: str
    repeats: int
    width: int
    height: int
    bucket_width: int
    bucket_height: int
    resized_width: int
    resized_height: int
    crop_left: int
    crop_top: int


class Dataset(Handle):
    """Options: kind "dataset"; train_data_dir is required."""

    _kind = "dataset"

    def __init__(self, context: Context, **options: Any) -> None:
        with Options("dataset", **options) as opts:
            self._make(lib.sdlora_dataset_open, need(context, Context), opts._ptr)

    def __len__(self) -> int:
        return int(lib.sdlora_dataset_images(self._ptr))

    @property
    def views(self) -> int:
        """Pictures times repeats."""
        return int(lib.sdlora_dataset_views(self._ptr))

    @property
    def batches_per_epoch(self) -> int:
        return int(lib.sdlora_dataset_batches_per_epoch(self._ptr))

    @property
    def notes(self) -> List[str]:
        """What was skipped or odd, one sentence each."""
        return texts(lambda i: lib.sdlora_dataset_note(self._ptr, i))

    def __getitem__(self, i: int) -> DatasetItem:
        if i < 0:
            i += len(self)
        if not 0 <= i < len(self):
            raise IndexError(f"picture {i} of {len(self)}")
        item = _decl.DatasetItem(struct_size=ctypes.sizeof(_decl.DatasetItem))
        lib.sdlora_dataset_item_at(self._ptr, i, ctypes.byref(item))
        values = {name: getattr(item, name) for name in DatasetItem._fields}
        values["path"], values["caption"] = decode(item.path), decode(item.caption)
        return DatasetItem(**values)
