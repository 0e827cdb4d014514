"""Decodes a part of a JPEG with as little work as the part needs."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import simplejpeg

# A frame larger than this is no frame of ours; decoding it could take gigabytes.
_MAX_PIXELS = 64 * 2**20

# A JPEG is decoded in rows of blocks that are at most this high.
_BLOCK_PX = 16
# The size stands near the start of the file, after a few tables.
_MAX_HEADER_BYTES = 1024
# What libjpeg says when it has all the rows it was promised and finds more.
_MORE_ROWS = "extraneous bytes before marker 0xd9"


class Box(NamedTuple):
    """A part of a frame: rows [top, top + height), columns [left, left + width), in pixels."""

    top: int
    left: int
    height: int
    width: int


def frame_shape(jpeg: bytes) -> tuple[int, int]:
    """Reads a JPEG's size without decoding it.

    Args:
      jpeg: the file's bytes.

    Returns:
      (height_px, width_px).

    Raises:
      ValueError: not a JPEG, or unreasonably large.
    """
    height, width, _, _ = simplejpeg.decode_jpeg_header(jpeg)
    if height * width > _MAX_PIXELS:
        raise ValueError(f"a frame of {width} x {height} pixels, more than any extraction makes")
    return height, width


def decode_frame(jpeg: bytes) -> np.ndarray:
    """Decodes a whole frame, exactly.

    Args:
      jpeg: the file's bytes; RGB or grey.

    Returns:
      uint8 RGB [h, w, 3].

    Raises:
      ValueError: not a JPEG, cut off, or unreasonably large by its header.
    """
    frame_shape(jpeg)
    return simplejpeg.decode_jpeg(jpeg, colorspace="RGB")


class BoxDecoder:
    """Decodes the same box of many frames of one size, into one piece of memory.

    A fresh array for each frame would be given to the kernel and taken back every time, which can
    take half as long as decoding.
    """

    def __init__(self, shape: tuple[int, int], box: Box, factor: int):
        """Prepares for frames of one size.

        Args:
          shape: (height_px, width_px) of the frames.
          box: the part to keep.
          factor: 1, 2, 4 or 8; the frames are decoded this much smaller.

        Raises:
          ValueError: the box does not lie inside the frame.
        """
        bottom, right = box.top + box.height, box.left + box.width
        if min(box) < 0 or bottom > shape[0] or right > shape[1]:
            raise ValueError(f"{box} is not inside a frame of {shape} pixels")
        self._shape = shape
        self._factor = factor
        # To the nearest pixel. Both edges move alike, so a box that was as large as the square
        # still is.
        self._rows, self._columns = (
            slice(self._nearest(start), self._nearest(end))
            for start, end in ((box.top, bottom), (box.left, right))
        )
        self._memory_hwc = np.empty((*self._decoded_shape(shape[0]), 3), np.uint8)
        self._height_needed = -(-bottom // _BLOCK_PX) * _BLOCK_PX
        size = shape[0].to_bytes(2, "big") + shape[1].to_bytes(2, "big")
        # Start of a baseline frame of 3 components with 8 bits.
        self._size_field = b"\xff\xc0\x00\x11\x08" + size + b"\x03"

    @property
    def box_shape(self) -> tuple[int, int]:
        """(height_px, width_px) of the decoded box."""
        return self._rows.stop - self._rows.start, self._columns.stop - self._columns.start

    def decode(self, jpeg: bytes) -> np.ndarray:
        """Decodes one frame.

        Args:
          jpeg: the file's bytes; RGB or grey.

        Returns:
          uint8 RGB [h, w, 3] of `box_shape`, valid until the next call.

        Raises:
          ValueError: not a JPEG, or of another size than the first.
        """
        if frame_shape(jpeg) != self._shape:
            raise ValueError("its frames are not all of one size")
        if not self._decode_top(jpeg):
            self._decode(jpeg, self._shape[0])
        return self._memory_hwc[self._rows, self._columns]

    def _decode_top(self, jpeg: bytes) -> bool:
        """Decodes no further down than the box; False where that did not work.

        The file is made to say that it is less high. libjpeg stops there, and then says that there
        is more: had anything else been wrong before, it would have said that instead.
        """
        place = jpeg.find(self._size_field, 0, _MAX_HEADER_BYTES)
        if self._height_needed >= self._shape[0] or place < 0:
            return False
        height = self._height_needed.to_bytes(2, "big")
        try:
            self._decode(jpeg[: place + 5] + height + jpeg[place + 7 :], self._height_needed)
        except ValueError as error:
            return _MORE_ROWS in str(error)
        return True

    def _decode(self, jpeg: bytes, height_px: int) -> None:
        height, width = self._decoded_shape(height_px)
        # The two fast options change pixels by a few levels at most and save a tenth of the time.
        simplejpeg.decode_jpeg(
            jpeg,
            colorspace="RGB",
            fastdct=True,
            fastupsample=True,
            min_height=height,
            min_width=width,
            min_factor=self._factor,
            buffer=self._memory_hwc,
        )

    def _decoded_shape(self, height_px: int) -> tuple[int, int]:
        return -(-height_px // self._factor), -(-self._shape[1] // self._factor)

    def _nearest(self, edge_px: int) -> int:
        return (2 * edge_px + self._factor) // (2 * self._factor)
