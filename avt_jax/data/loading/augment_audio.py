"""Random masks over a spectrogram, so that no single band or moment decides the class."""

from __future__ import annotations

import numpy as np

MASK_VALUE = 0.0
"""What hidden bins hold, in raw log-mel units: AST masks before it standardises."""


def mask_spectrogram(
    audio_sf: np.ndarray, rng: np.random.Generator, *, freq_mask_bins: int, time_mask_frames: int
) -> None:
    """Hides one band of mel bins and one span of rows, in place.

    Args:
      audio_sf: float32 [s, f] raw log-mel; hidden values become `MASK_VALUE`.
      rng: source of randomness.
      freq_mask_bins: the band's width is drawn evenly from 0 to this many bins; 0 = no band.
      time_mask_frames: the span's length is drawn evenly from 0 to this many rows; 0 = no span.

    Source: SpecAugment, arXiv:1904.08779, sec. 2, one mask of each kind as in AST
      (arXiv:2104.01778).
    """
    rows, bins = audio_sf.shape
    first, last = _random_span(rng, bins, freq_mask_bins)
    audio_sf[:, first:last] = MASK_VALUE
    first, last = _random_span(rng, rows, time_mask_frames)
    audio_sf[first:last] = MASK_VALUE


def _random_span(rng: np.random.Generator, length: int, widest: int) -> tuple[int, int]:
    """Draws [first, last) inside [0, length), of any width from 0 to `widest`."""
    width = int(rng.integers(min(widest, length) + 1))
    first = int(rng.integers(length - width + 1))
    return first, first + width
