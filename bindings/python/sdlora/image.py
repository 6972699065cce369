# SPDX-License-Identifier: MIT
"""Decoded pictures: 8-bit RGB.  numpy and Pillow are used where they are there, never needed."""
from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any, Dict, Optional, Sequence, Tuple

from ._handle import Handle, decode, encode, need, pointers, take_text, texts
from ._lib import lib
from .context import Context

if TYPE_CHECKING:
    from PIL.Image import Image as PilImage


class Image(Handle):
    """`Image(context, x)` copies x: a Pillow image, or an array or buffer of uint8 shaped
    (height, width, 3).  `numpy.asarray(image)` shares memory, and keeps it alive."""

    _kind = "image"

    def __init__(self, context: Context, source: Any) -> None:
        width, height, data = _pixels(source)
        rgb = (ctypes.c_uint8 * len(data)).from_buffer_copy(data)
        self._make(lib.sdlora_image_new, need(context, Context), width, height, rgb)

    @classmethod
    def open(cls, context: Context, path: Any) -> "Image":
        """A PNG, JPEG or WebP file."""
        self = cls.__new__(cls)
        self._make(lib.sdlora_image_open, need(context, Context), encode(path))
        return self

    @classmethod
    def sheet(cls, context: Context, rows: Sequence[Sequence["Image"]],
              row_labels: Optional[Sequence[str]] = None,
              column_labels: Optional[Sequence[str]] = None) -> "Image":
        """A labelled sheet of pictures of one size."""
        columns = len(rows[0]) if rows else 0
        if any(len(row) != columns for row in rows):
            raise ValueError("rows of a sheet have different lengths")
        for labels, count in ((row_labels, len(rows)), (column_labels, columns)):
            if labels is not None and len(labels) != count:
                raise ValueError(f"{len(labels)} labels for {count} rows or columns")
        cells = pointers([image for row in rows for image in row], Image)
        self = cls.__new__(cls)
        self._make(lib.sdlora_image_sheet, need(context, Context), cells, len(rows), columns,
                   _texts(row_labels), _texts(column_labels))
        return self

    @property
    def width(self) -> int:
        return int(lib.sdlora_image_width(self._ptr))

    @property
    def height(self) -> int:
        return int(lib.sdlora_image_height(self._ptr))

    @property
    def text(self) -> str:
        """The generation parameters, or ""."""
        return decode(lib.sdlora_image_text(self._ptr)) or ""

    @property
    def texts(self) -> Dict[str, str]:
        """Further texts of the file that it was read from, by keyword."""
        keywords = texts(lambda i: lib.sdlora_image_keyword(self._ptr, i))
        return {k: decode(lib.sdlora_image_keyword_text(self._ptr, encode(k))) or ""
                for k in keywords}

    def with_text(self, text: Optional[str]) -> "Image":
        """The same picture with other generation parameters."""
        image = Image.__new__(Image)
        image._make(lib.sdlora_image_with_text, self._ptr, encode(text))
        return image

    @staticmethod
    def read_text(context: Context, path: Any) -> str:
        """The generation parameters of a picture file, which is not decoded, or a text file's
        words."""
        text = ctypes.c_void_p()
        lib.sdlora_image_read_text(need(context, Context), encode(path), ctypes.byref(text))
        return take_text(context, text)

    @property
    def data(self) -> memoryview:
        """The pixels, (height, width, 3), read-only and shared."""
        shape = (self.height, self.width, 3)
        pixels = (ctypes.c_uint8 * (shape[0] * shape[1] * 3)).from_address(
            lib.sdlora_image_data(self._ptr))
        # The view has a reference of its own, so that close() cannot pull the memory away.
        pixels._owner = Image._own(lib.sdlora_image_ref(self._ptr))  # type: ignore[attr-defined]
        return memoryview(pixels).cast("B").cast("B", shape).toreadonly()

    @property
    def __array_interface__(self) -> Dict[str, Any]:
        view = self.data
        return {"version": 3, "shape": view.shape, "typestr": "|u1", "data": view}

    def pil(self) -> "PilImage":
        """A Pillow image with a copy of the pixels."""
        from PIL import Image as pil

        return pil.frombytes("RGB", (self.width, self.height), self.data.tobytes())

    def save(self, path: Any, quality: int = 0) -> None:
        """A PNG, JPEG or WebP file, by its ending, with the parameters text, whole or not at all.
        quality: 1 to 100 of JPEG and WebP, 0 is 80; 101: WebP without loss."""
        lib.sdlora_image_save_as(self._ptr, encode(path), quality)


def _texts(labels: Optional[Sequence[str]]) -> Any:
    if labels is None:
        return None
    return (ctypes.c_char_p * len(labels))(*[encode(label) for label in labels])


def _pixels(source: Any) -> Tuple[int, int, bytes]:
    if hasattr(source, "convert") and hasattr(source, "tobytes"):  # Pillow
        rgb = source.convert("RGB")
        return rgb.width, rgb.height, rgb.tobytes()
    view = memoryview(source)
    if view.ndim != 3 or view.shape is None or view.shape[2] != 3 or view.format != "B":
        raise ValueError(f"pixels are {view.shape} of {view.format!r}, wanted (height, width, 3) "
                         "of unsigned bytes")
    return view.shape[1], view.shape[0], view.tobytes()
