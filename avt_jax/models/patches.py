"""Pixels and log-mels as the patches that tokens stand for: cut out, and hidden."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np


def spectrogram_patches(
    fbank_bsf: jax.Array, grid: tuple[int, int], strides: tuple[int, int], size: int = 16
) -> jax.Array:
    """Cuts the patches of AST's tokens out of a spectrogram.

    Args:
      fbank_bsf: [b, s, f].
      grid: patches along (frequency, time).
      strides: steps along (frequency, time); patches overlap when they are less than `size`.
      size: mel bins and frames of a patch.

    Returns:
      [b, m, size * size], frequency-major in patches; within a patch bin by bin.
    """
    if strides == (size, size):  # nothing overlaps: no need to gather
        (rows, columns), b = grid, fbank_bsf.shape[0]
        cut = fbank_bsf[:, : columns * size, : rows * size]
        cut = cut.reshape(b, columns, size, rows, size).transpose(0, 3, 1, 4, 2)
        return cut.reshape(b, rows * columns, size * size)
    bins, frames = (
        np.arange(count)[:, None] * step + np.arange(size)
        for count, step in zip(grid, strides, strict=True)
    )
    cut = fbank_bsf[:, frames][..., bins]  # [b, time, size, frequency, size]
    cut = cut.transpose(0, 3, 1, 4, 2)
    return cut.reshape(fbank_bsf.shape[0], grid[0] * grid[1], size * size)


def _tubelet(video_bthwc: jax.Array, grid: tuple[int, int, int]) -> tuple[int, int, int]:
    frames, rows, columns = (n // g for n, g in zip(video_bthwc.shape[1:4], grid, strict=True))
    return frames, rows, columns


def video_patches(video_bthwc: jax.Array, grid: tuple[int, int, int]) -> jax.Array:
    """Cuts the tubelets of a video encoder's tokens out of a clip.

    Args:
      video_bthwc: [b, t, h, w, c].
      grid: tokens along (t, h, w); what fills no tubelet is left out.

    Returns:
      [b, n, frames * rows * columns * c], row-major in tubelets and within one.
    """
    b, c = video_bthwc.shape[0], video_bthwc.shape[-1]
    (nt, nh, nw), (t, h, w) = grid, _tubelet(video_bthwc, grid)
    x = video_bthwc[:, : nt * t, : nh * h, : nw * w]
    x = x.reshape(b, nt, t, nh, h, nw, w, c).transpose(0, 1, 3, 5, 2, 4, 6, 7)
    return x.reshape(b, nt * nh * nw, t * h * w * c)


def hide_pixels(
    video_bthwc: jax.Array, masked_bn: jax.Array, grid: tuple[int, int, int], colour_c: jax.Array
) -> jax.Array:
    """Replaces the pixels of hidden tubelets by one colour.

    Args:
      video_bthwc: [b, t, h, w, 3] normalised.
      masked_bn: [b, n] bool, True = hidden, row-major over `grid`.
      grid: tokens along (t, h, w).
      colour_c: [3] learned.

    Returns:
      [b, t, h, w, 3].
    """
    masked = masked_bn.reshape(-1, *grid)
    for axis, size in enumerate(_tubelet(video_bthwc, grid), start=1):
        masked = jnp.repeat(masked, size, axis)
        short = video_bthwc.shape[axis] - masked.shape[axis]
        masked = jnp.pad(masked, [(0, short if i == axis else 0) for i in range(4)])
    return jnp.where(masked[..., None], colour_c.astype(video_bthwc.dtype), video_bthwc)
