"""Where a frame is cut, and how the cut becomes a square of the model's size.

One box serves all frames of a clip: a box of its own per frame would add motion that is not there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import simplejpeg

# A frame larger than this is no frame of ours; decoding it could take gigabytes.
_MAX_PIXELS = 64 * 2**20
_CROP_TRIES = 10


class Box(NamedTuple):
    """A part of a frame: rows [top, top + height), columns [left, left + width), in pixels."""

    top: int
    left: int
    height: int
    width: int


def random_box(
    height_px: int,
    width_px: int,
    rng: np.random.Generator,
    *,
    scale: tuple[float, float],
    aspect: tuple[float, float],
) -> Box:
    """Draws the box of a random resized crop.

    Args:
      height_px: of the frame, >= 1.
      width_px: of the frame, >= 1.
      rng: source of randomness.
      scale: (smallest, largest) share of the frame's area, drawn evenly.
      aspect: (smallest, largest) width / height, drawn evenly on a log scale.

    Returns:
      A box inside the frame. Where ten draws did not fit, the largest box in the middle whose
      aspect is allowed.

    Source: the crop of GoogLeNet, arXiv:1409.4842, sec. 6.
    """
    for _ in range(_CROP_TRIES):
        area = height_px * width_px * rng.uniform(*scale)
        ratio = math.exp(rng.uniform(*map(math.log, aspect)))
        width = max(1, round(math.sqrt(area * ratio)))
        height = max(1, round(math.sqrt(area / ratio)))
        if width <= width_px and height <= height_px:
            top = int(rng.integers(height_px - height + 1))
            left = int(rng.integers(width_px - width + 1))
            return Box(top, left, height, width)
    ratio = min(max(width_px / height_px, aspect[0]), aspect[1])
    width = max(1, min(width_px, round(height_px * ratio)))
    height = max(1, min(height_px, round(width_px / ratio)))
    return _centred(height_px, width_px, height, width)


def centre_box(height_px: int, width_px: int) -> Box:
    """The largest square in the middle of a frame.

    Cutting it and resizing it is the same as resizing the short side and cutting the middle, with
    fewer pixels to resize.

    Args:
      height_px: of the frame, >= 1.
      width_px: of the frame, >= 1.
    """
    side = min(height_px, width_px)
    return _centred(height_px, width_px, side, side)


def _centred(height_px: int, width_px: int, height: int, width: int) -> Box:
    return Box((height_px - height) // 2, (width_px - width) // 2, height, width)


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


def reduction(box: Box, frame_size_px: int) -> int:
    """How much smaller a frame may be decoded without enlarging its box afterwards.

    Args:
      box: the part to keep, of the whole frame.
      frame_size_px: side of the square that the box becomes.

    Returns:
      1, 2, 4 or 8: the sizes that libjpeg-turbo decodes fastest.
    """
    shrinks_by = min(box.height, box.width) // frame_size_px
    return next(factor for factor in (8, 4, 2, 1) if factor <= max(1, shrinks_by))


def decode_boxes(
    jpegs: Sequence[bytes],
    box: Box,
    *,
    frame_size_px: int,
    mirrored: bool = False,
    out_thwc: np.ndarray | None = None,
) -> np.ndarray:
    """Decodes frames, at the size that is needed, and makes the same box of each a square.

    A frame whose box is 2, 4 or 8 times larger than the square is decoded that much smaller, which
    averages its pixels. What is left to shrink or enlarge is done by linear interpolation, which
    skips no pixel below a factor of 2, and by averaging where more than that is left.

    Args:
      jpegs: RGB or grey JPEG files, all of one size.
      box: the part to keep, inside the frame.
      frame_size_px: side of the result.
      mirrored: swap left and right.
      out_thwc: where to put the result, uint8 [t, frame_size_px, frame_size_px, 3], contiguous;
        None = in a new array.

    Returns:
      uint8 [t, frame_size_px, frame_size_px, 3] RGB.

    Raises:
      ValueError: not a JPEG, or of another size than the box expects.
    """
    shape = (len(jpegs), frame_size_px, frame_size_px, 3)
    video_thwc = np.empty(shape, np.uint8) if out_thwc is None else out_thwc
    decoder = _Decoder(frame_shape(jpegs[0]), reduction(box, frame_size_px))
    rows, columns = decoder.slices(box)
    heights, widths = rows.stop - rows.start, columns.stop - columns.start
    # Averaging takes seven times as long, and cannot enlarge.
    averages = max(heights, widths) >= 2 * frame_size_px <= 2 * min(heights, widths)
    method = cv2.INTER_AREA if averages else cv2.INTER_LINEAR
    for index, jpeg in enumerate(jpegs):
        square_hwc = video_thwc[index]
        # The same object where a frame is held; equal bytes where the video stood still.
        if index and jpeg == jpegs[index - 1]:
            square_hwc[:] = video_thwc[index - 1]
            continue
        cut_hwc = decoder.decode(jpeg)[rows, columns]
        cv2.resize(cut_hwc, shape[1:3], dst=square_hwc, interpolation=method)
        if mirrored:
            cv2.flip(square_hwc, 1, dst=square_hwc)
    return video_thwc


class _Decoder:
    """Decodes frames of one size into one piece of memory.

    A fresh array for each would be given to the kernel and taken back every time, which can take
    half as long as decoding.
    """

    def __init__(self, shape: tuple[int, int], factor: int):
        """Prepares for frames of `shape` (height_px, width_px), decoded `factor` times smaller."""
        self._shape = shape
        self._factor = factor
        self._height, self._width = (-(-side // factor) for side in shape)
        self._memory_hwc = np.empty((self._height, self._width, 3), np.uint8)

    def slices(self, box: Box) -> tuple[slice, slice]:
        """The box's rows and columns in a decoded frame.

        Raises:
          ValueError: the box does not lie inside the frame.
        """
        ends = box.top + box.height, box.left + box.width
        if min(box) < 0 or ends[0] > self._shape[0] or ends[1] > self._shape[1]:
            raise ValueError(f"{box} is not inside a frame of {self._shape} pixels")
        starts = (box.top, box.left)
        # To the nearest pixel. Both edges move alike, so a box that was as large as the square
        # still is.
        return tuple(
            slice(self._nearest(start), self._nearest(end))
            for start, end in zip(starts, ends, strict=True)
        )

    def _nearest(self, edge_px: int) -> int:
        return (2 * edge_px + self._factor) // (2 * self._factor)

    def decode(self, jpeg: bytes) -> np.ndarray:
        """uint8 RGB [h, w, 3], valid until the next call.

        Raises:
          ValueError: not a JPEG, or of another size than the first.
        """
        if frame_shape(jpeg) != self._shape:
            raise ValueError("its frames are not all of one size")
        # The two fast options change pixels by a few levels at most and save a tenth of the time.
        return simplejpeg.decode_jpeg(
            jpeg,
            colorspace="RGB",
            fastdct=True,
            fastupsample=True,
            min_height=self._height,
            min_width=self._width,
            min_factor=self._factor,
            buffer=self._memory_hwc,
        )
