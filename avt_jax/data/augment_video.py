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


def decode_boxes(
    jpegs: Sequence[bytes], box: Box, *, frame_size_px: int, mirrored: bool = False
) -> np.ndarray:
    """Decodes frames and makes the same box of each a square.

    Args:
      jpegs: RGB or grey JPEG files, all of one size.
      box: the part to keep, inside the frame.
      frame_size_px: side of the result.
      mirrored: swap left and right.

    Returns:
      uint8 [t, frame_size_px, frame_size_px, 3] RGB.

    Raises:
      ValueError: not a JPEG, or of another size than the box expects.
    """
    video_thwc = np.empty((len(jpegs), frame_size_px, frame_size_px, 3), np.uint8)
    shrinks = box.height >= frame_size_px and box.width >= frame_size_px
    # Averaging over the area keeps fine patterns from flickering, but cannot enlarge.
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    for row, jpeg in enumerate(jpegs):
        if row and jpeg is jpegs[row - 1]:  # held, or sampled more often than it was stored
            video_thwc[row] = video_thwc[row - 1]
            continue
        cut = _decode(jpeg)[box.top : box.top + box.height, box.left : box.left + box.width]
        if cut.shape[:2] != (box.height, box.width):
            raise ValueError("its frames are not all of one size")
        square = cv2.resize(cut, (frame_size_px, frame_size_px), interpolation=method)
        video_thwc[row] = square[:, ::-1] if mirrored else square
    return video_thwc


def _decode(jpeg: bytes) -> np.ndarray:
    frame_shape(jpeg)
    # The two fast options change pixels by a few levels at most and save a tenth of the time.
    return simplejpeg.decode_jpeg(jpeg, colorspace="RGB", fastdct=True, fastupsample=True)
