"""Log-mel filter banks as Kaldi defines them, in NumPy.

Source: AST (arXiv:2104.01778) feeds its transformer with Kaldi's `fbank`: 25 ms symmetric Hann
window, 10 ms hop, pre-emphasis 0.97, power spectrum of 512 points at 16 kHz, triangular mel filters
from 20 Hz to half the sample rate, natural logarithm floored at float32's epsilon.
Deviation: the arithmetic is float64 and rounded to float32 at the end. A float32 implementation
differs from it by up to 1e-2 in bins near the floor, by less than 1e-3 elsewhere.
"""

from __future__ import annotations

import functools
import math
from typing import overload

import numpy as np

LOG_FLOOR = math.log(float(np.finfo(np.float32).eps))
"""The smallest value a bin can have: -15.942385, what silence gives."""

WINDOW_SEC = 0.025
HOP_SEC = 0.010

_PRE_EMPHASIS = 0.97
_LOW_HZ = 20.0
# Frames worked on at a time: keeps ten minutes of sound from needing half a gigabyte.
_BLOCK_FRAMES = 2048


@overload
def hz_to_mel(frequency_hz: float) -> float: ...


@overload
def hz_to_mel(frequency_hz: np.ndarray) -> np.ndarray: ...


def hz_to_mel(frequency_hz: np.ndarray | float) -> np.ndarray | float:
    """Kaldi's mel scale, 1127 ln(1 + f / 700).

    Args:
      frequency_hz: >= 0.

    Returns:
      The same shape, in mel.
    """
    return 1127.0 * np.log1p(np.asarray(frequency_hz) / 700.0)


def num_fbank_frames(num_samples: int, *, sample_rate_hz: int = 16000) -> int:
    """How many whole windows fit into a waveform.

    Args:
      num_samples: >= 0.
      sample_rate_hz: samples per second.

    Returns:
      s, 0 when the waveform is shorter than one window.
    """
    window, hop = round(WINDOW_SEC * sample_rate_hz), round(HOP_SEC * sample_rate_hz)
    return 0 if num_samples < window else 1 + (num_samples - window) // hop


@functools.cache
def hann_window(num_samples: int) -> np.ndarray:
    """The symmetric Hann window, zero at both ends.

    Args:
      num_samples: > 1.

    Returns:
      float64 [num_samples], read-only.
    """
    phase = 2.0 * np.pi * np.arange(num_samples) / (num_samples - 1)
    return _read_only(0.5 - 0.5 * np.cos(phase))


@functools.cache
def mel_filters(num_mel_bins: int, fft_size: int, sample_rate_hz: int) -> np.ndarray:
    """Triangles, equally wide and half overlapping on the mel scale, over the FFT's bins.

    With many filters the lowest are narrower than the FFT's resolution and may catch no bin at all:
    with 128 filters at 16 kHz filter 3 is empty, and its output is always LOG_FLOOR.

    Args:
      num_mel_bins: f, > 0.
      fft_size: points of the FFT, even.
      sample_rate_hz: samples per second.

    Returns:
      float64 [f, fft_size / 2 + 1], read-only; the column of the Nyquist frequency is zero.
    """
    low_mel, high_mel = hz_to_mel(_LOW_HZ), hz_to_mel(sample_rate_hz / 2)
    edges_mel = np.linspace(low_mel, high_mel, num_mel_bins + 2)
    left_mel, center_mel, right_mel = (
        edges_mel[:-2, None],
        edges_mel[1:-1, None],
        edges_mel[2:, None],
    )
    bin_mel = hz_to_mel(np.arange(fft_size // 2) * sample_rate_hz / fft_size)[None, :]
    rising = (bin_mel - left_mel) / (center_mel - left_mel)
    falling = (right_mel - bin_mel) / (right_mel - center_mel)
    filters = np.maximum(0.0, np.minimum(rising, falling))
    return _read_only(np.pad(filters, ((0, 0), (0, 1))))


def fbank(
    waveform: np.ndarray, *, sample_rate_hz: int = 16000, num_mel_bins: int = 128
) -> np.ndarray:
    """Log-mel filter bank of one clip; its mean is removed first, as AST does.

    Row j covers the 25 ms that start j * 10 ms after the waveform's start. No padding: a window
    that does not fit is left out. Samples are expected in [-1, 1], as AST's are; Kaldi's own are
    16-bit.

    Args:
      waveform: float [samples] mono.
      sample_rate_hz: samples per second, at least 1000.
      num_mel_bins: f.

    Returns:
      float32 [s, f], natural logarithm of energies, >= LOG_FLOOR; [0, f] when the waveform is
      shorter than one window; all LOG_FLOOR for silence.

    Raises:
      ValueError: the waveform is not one-dimensional or not finite, or a number is out of range.
    """
    waveform = np.asarray(waveform, np.float64)
    if waveform.ndim != 1:
        raise ValueError(
            f"waveform must be [samples], got shape {waveform.shape}; mix to mono first"
        )
    if not np.isfinite(waveform).all():
        raise ValueError("waveform holds values that are not finite; decode the file again")
    if sample_rate_hz < 1000 or num_mel_bins < 1:
        raise ValueError(
            "sample_rate_hz must be at least 1000 and num_mel_bins at least 1, "
            f"got {sample_rate_hz} and {num_mel_bins}"
        )
    num_frames = num_fbank_frames(len(waveform), sample_rate_hz=sample_rate_hz)
    out_sf = np.empty((num_frames, num_mel_bins), np.float32)
    if num_frames == 0:
        return out_sf
    window_size, hop = round(WINDOW_SEC * sample_rate_hz), round(HOP_SEC * sample_rate_hz)
    windows = np.lib.stride_tricks.sliding_window_view(waveform - waveform.mean(), window_size)
    windows = windows[::hop]
    for start in range(0, num_frames, _BLOCK_FRAMES):
        block = slice(start, start + _BLOCK_FRAMES)
        out_sf[block] = _log_mel(windows[block], num_mel_bins, sample_rate_hz)
    return out_sf


def _log_mel(windows_sw: np.ndarray, num_mel_bins: int, sample_rate_hz: int) -> np.ndarray:
    """Log-mel energies float64 [s, f] of float64 windows [s, samples]."""
    window_size = windows_sw.shape[1]
    fft_size = 1 << (window_size - 1).bit_length()
    windows_sw = windows_sw - windows_sw.mean(axis=1, keepdims=True)
    # The sample before the first is taken to be the first itself.
    previous_sw = np.concatenate([windows_sw[:, :1], windows_sw[:, :-1]], axis=1)
    windows_sw = (windows_sw - _PRE_EMPHASIS * previous_sw) * hann_window(window_size)
    spectrum = np.fft.rfft(windows_sw, fft_size, axis=1)
    power = spectrum.real**2 + spectrum.imag**2
    energy_sf = power @ mel_filters(num_mel_bins, fft_size, sample_rate_hz).T
    return np.log(np.maximum(energy_sf, np.finfo(np.float32).eps))


def _read_only(array: np.ndarray) -> np.ndarray:
    """Guards a cached array against being written to."""
    array.flags.writeable = False
    return array
