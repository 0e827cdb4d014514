"""Pictures of a high dynamic range as those of an ordinary one."""

from __future__ import annotations

import functools

import av
import numpy as np
from av.video.reformatter import ColorPrimaries, Colorspace, ColorTrc, VideoReformatter

_HDR_TRANSFERS = (int(ColorTrc.SMPTE2084), int(ColorTrc.ARIB_STD_B67))
# What the two do not say is taken to be what they are nearly always used with.
_WIDE_PRIMARIES = (int(ColorPrimaries.BT2020), int(ColorPrimaries.UNSPECIFIED))
_UNSPECIFIED = 2

# Light of a white sheet of paper, and of the display that HLG is graded on, in cd/m2 (BT.2408).
_WHITE_NITS = 203.0
_HLG_DISPLAY_NITS = 1000.0
# Light beyond this share of white is compressed into what is left of the range.
_KNEE = 0.75
# Of a display for ordinary video (BT.1886).
_GAMMA = 2.4

# Linear light of BT.2020 to BT.709 (BT.2087).
_TO_BT709 = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32
)
_LUMA_BT2020 = np.array([0.2627, 0.6780, 0.0593], np.float32)


def is_hdr(frame: av.VideoFrame) -> bool:
    """Whether a picture is coded by PQ or HLG (BT.2100)."""
    return int(frame.color_trc) in _HDR_TRANSFERS


def hdr_image(
    frame: av.VideoFrame, scaler: VideoReformatter, width_px: int, height_px: int
) -> np.ndarray:
    """Scales a picture of a high dynamic range and maps it to an ordinary one.

    Light up to three quarters of diffuse white (203 cd/m2, BT.2408) is shown as it is; what is
    brighter is compressed smoothly, its hue kept.

    Args:
      frame: one that `is_hdr`.
      scaler: kept from frame to frame.
      width_px: of the result.
      height_px: of the result.

    Returns:
      uint8 RGB [h, w, 3].
    """
    scaled = scaler.reformat(
        frame,
        width=width_px,
        height=height_px,
        format="rgb48le",
        src_colorspace=None if int(frame.colorspace) != _UNSPECIFIED else int(Colorspace.BT2020),
        interpolation="BILINEAR",
    )
    codes_hwc = scaled.to_ndarray()
    if int(frame.color_trc) == ColorTrc.SMPTE2084:
        light_hwc = _pq_light()[codes_hwc]
    else:
        light_hwc = _hlg_light()[codes_hwc]
        # What the display adds to the scene (BT.2100, system gamma of 1.2).
        light_hwc *= (light_hwc @ _LUMA_BT2020)[..., None] ** 0.2
        light_hwc *= _HLG_DISPLAY_NITS / _WHITE_NITS
    if int(frame.color_primaries) in _WIDE_PRIMARIES:
        light_hwc = np.maximum(light_hwc @ _TO_BT709.T, 0)
    largest_hw1 = light_hwc.max(axis=2, keepdims=True)
    room = 1 - _KNEE
    compressed = _KNEE + room * (1 - np.exp((_KNEE - largest_hw1) / room))
    light_hwc *= np.where(largest_hw1 > _KNEE, compressed / np.maximum(largest_hw1, _KNEE), 1)
    return np.rint(255 * light_hwc ** (1 / _GAMMA)).clip(0, 255).astype(np.uint8)


@functools.cache
def _pq_light() -> np.ndarray:
    """Light of a code of 16 bits by PQ (SMPTE ST 2084), in shares of diffuse white."""
    c1, c2, c3 = 3424 / 4096, 2413 / 128, 2392 / 128
    power = np.linspace(0, 1, 2**16) ** (32 / 2523)
    nits = 10000 * (np.maximum(power - c1, 0) / (c2 - c3 * power)) ** (16384 / 2610)
    return (nits / _WHITE_NITS).astype(np.float32)


@functools.cache
def _hlg_light() -> np.ndarray:
    """Light of the scene of a code of 16 bits by HLG (ARIB STD-B67), 0 to 1."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    codes = np.linspace(0, 1, 2**16)
    light = np.where(codes <= 0.5, codes**2 / 3, (np.exp((codes - c) / a) + b) / 12)
    return light.astype(np.float32)
