"""Random masks over a spectrogram, so that no single band or moment decides the class."""

from __future__ import annotations

import numpy as np

MASK_VALUE = 0.0
"""What hidden bins hold, in raw log-mel units: AST masks before it standardises."""


def mask_spectrogram(
    audio_sf: np.ndarray, rng: np.random.Generator, *, freq_mask_bins: int, time_mask_frames: int
) -> np.ndarray:
    """Hides one band of mel bins and one span of rows.

    Args:
      audio_sf: float32 [s, f] raw log-mel.
      rng: source of randomness.
      freq_mask_bins: the band's width is drawn evenly from 0 to this many bins; 0 = no band.
      time_mask_frames: the span's length is drawn evenly from 0 to this many rows; 0 = no span.

    Returns:
      A copy with the hidden values set to `MASK_VALUE`.

    Source: SpecAugment, arXiv:1904.08779, sec. 2, one mask of each kind as in AST
      (arXiv:2104.01778).
    """
    masked_sf = audio_sf.copy()
    rows, bins = audio_sf.shape
    first, last = _random_span(rng, bins, freq_mask_bins)
    masked_sf[:, first:last] = MASK_VALUE
    first, last = _random_span(rng, rows, time_mask_frames)
    masked_sf[first:last] = MASK_VALUE
    return masked_sf


def _random_span(rng: np.random.Generator, length: int, widest: int) -> tuple[int, int]:
    """Draws [first, last) inside [0, length), of any width from 0 to `widest`."""
    width = int(rng.integers(min(widest, length) + 1))
    first = int(rng.integers(length - width + 1))
    return first, first + width
