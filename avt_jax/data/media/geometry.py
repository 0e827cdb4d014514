"""How decoded pictures are to be shown: turned, mirrored, and with pixels that are not square."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import av
import numpy as np
from av.sidedata.sidedata import Type

# Pixels wider or narrower than this are a mistake in the header: anamorphic films have 2 at most.
_MOST_STRETCH = 8.0


class Geometry(NamedTuple):
    """What is done to a decoded picture, in this order.

    Attributes:
      stretch: width of a pixel divided by its height.
      is_transposed: whether rows become columns.
      is_mirrored: whether left and right are then exchanged.
      is_upended: whether top and bottom are then exchanged.
    """

    stretch: float = 1.0
    is_transposed: bool = False
    is_mirrored: bool = False
    is_upended: bool = False

    def shown_size(self, width_px: int, height_px: int) -> tuple[int, int]:
        """(width, height) as shown, of a picture of this size."""
        width_px = max(1, round(width_px * self.stretch))
        return (height_px, width_px) if self.is_transposed else (width_px, height_px)

    def fit(self, width_px: int, height_px: int, short_side_px: int) -> tuple[int, int]:
        """(width, height) to scale a picture to before `turn`.

        Args:
          width_px: of the decoded picture.
          height_px: of the decoded picture.
          short_side_px: the largest short side; smaller pictures are not enlarged.
        """
        shown_px = width_px * self.stretch
        scale = min(1.0, short_side_px / min(shown_px, height_px))
        return max(1, round(shown_px * scale)), max(1, round(height_px * scale))

    def turn(self, image_hwc: np.ndarray) -> np.ndarray:
        """The picture [h, w, 3] as it is shown, contiguous."""
        if self.is_transposed:
            image_hwc = image_hwc.transpose(1, 0, 2)
        if self.is_mirrored:
            image_hwc = image_hwc[:, ::-1]
        if self.is_upended:
            image_hwc = image_hwc[::-1]
        return np.ascontiguousarray(image_hwc)


def geometry_of(stream: av.VideoStream, frame: av.VideoFrame | None) -> Geometry:
    """How the pictures of a stream are shown.

    Args:
      stream: it, or its container, knows the shape of the pixels.
      frame: one of its pictures, which carries the display matrix; None: none can be decoded.
    """
    ratio = stream.sample_aspect_ratio
    stretch = 1.0 if not ratio else float(ratio)
    if not 1 / _MOST_STRETCH <= stretch <= _MOST_STRETCH:
        stretch = 1.0
    matrix = None if frame is None else _display_matrix(frame)
    if matrix is None:
        return Geometry(stretch)
    # (x, y) is shown at (a x + c y, b x + d y). Angles in between go to the nearest quarter turn.
    a, b, _, c, d = matrix[:5]
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return Geometry(stretch, False, a < 0, d < 0)
    return Geometry(stretch, True, c < 0, b < 0)


def _display_matrix(frame: av.VideoFrame) -> list[int] | None:
    side_data: Mapping[Any, Any] = frame.side_data  # the stubs know but one kind of it
    found = side_data.get(Type.DISPLAYMATRIX)
    return None if found is None else np.frombuffer(found, np.int32).tolist()
