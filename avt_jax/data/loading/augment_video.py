"""Where a frame is cut, and how the cut becomes a square of the model's size.

One box serves all frames of a clip: a box of its own per frame would add motion that is not there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np

from avt_jax.data.media.jpeg import Box, BoxDecoder, frame_shape

_CROP_TRIES = 10


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
        ratio = math.exp(rng.uniform(math.log(aspect[0]), math.log(aspect[1])))
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


def square_box(height_px: int, width_px: int, place: float) -> Box:
    """The largest square at some place along the longer side of a frame.

    Cutting it and resizing it is the same as resizing the short side and cutting a square, with
    fewer pixels to resize.

    Args:
      height_px: of the frame, >= 1.
      width_px: of the frame, >= 1.
      place: from 0 (left or top) over 0.5 (middle) to 1 (right or bottom).
    """
    side = min(height_px, width_px)
    top, left = (math.floor(place * (length - side)) for length in (height_px, width_px))
    return Box(top, left, side, side)


def _centred(height_px: int, width_px: int, height: int, width: int) -> Box:
    return Box((height_px - height) // 2, (width_px - width) // 2, height, width)


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
    decoder = BoxDecoder(frame_shape(jpegs[0]), box, reduction(box, frame_size_px))
    # Averaging takes seven times as long, and cannot enlarge.
    averages = max(decoder.box_shape) >= 2 * frame_size_px <= 2 * min(decoder.box_shape)
    method = cv2.INTER_AREA if averages else cv2.INTER_LINEAR
    for index, jpeg in enumerate(jpegs):
        square_hwc = video_thwc[index]
        # The same object where a frame is held; equal bytes where the video stood still.
        if index and jpeg == jpegs[index - 1]:
            square_hwc[:] = video_thwc[index - 1]
            continue
        cut_hwc = decoder.decode(jpeg)
        cv2.resize(cut_hwc, shape[1:3], dst=square_hwc, interpolation=method)
        if mirrored:
            cv2.flip(square_hwc, 1, dst=square_hwc)
    return video_thwc
