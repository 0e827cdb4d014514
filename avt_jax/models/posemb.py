"""Learned position embeddings brought to another grid of patches, as the originals do it.

Host functions on NumPy arrays: they run once, when weights are converted or loaded.
"""

from __future__ import annotations

import jax
import numpy as np


def adapt_ast_grid(
    positions_nd: np.ndarray, old: tuple[int, int], new: tuple[int, int]
) -> np.ndarray:
    """AST's adaptation: each axis is cut from its middle, or interpolated when it must grow.

    Args:
      positions_nd: [old frequency * old time, d] float, frequency-major, without cls and dist.
      old: patches along (frequency, time).
      new: the grid wanted.

    Returns:
      [new frequency * new time, d] in the same type.

    Raises:
      ValueError: the positions are not those of the old grid.

    Source: arXiv:2104.01778, sec. 2.2, and the authors' code: time first, then frequency, bilinear
    without aligned corners.
    """
    grid = _as_grid(positions_nd, old)
    for axis in (1, 0):
        if new[axis] < grid.shape[axis]:
            start = grid.shape[axis] // 2 - new[axis] // 2
            grid = np.take(grid, range(start, start + new[axis]), axis)
        elif new[axis] > grid.shape[axis]:
            shape = list(grid.shape)
            shape[axis] = new[axis]
            # float32, as the original; more digits would mean nothing.
            resized = jax.image.resize(grid.astype(np.float32), shape, "linear", antialias=False)
            grid = np.asarray(resized, grid.dtype)
    return grid.reshape(-1, grid.shape[-1])


def resize_vit_grid(
    positions_nd: np.ndarray, old: tuple[int, int], new: tuple[int, int]
) -> np.ndarray:
    """ViT's adaptation: bilinear with aligned corners.

    Args:
      positions_nd: [old rows * old columns, d] float, row-major, without cls.
      old: rows and columns of patches.
      new: the grid wanted.

    Returns:
      [new rows * new columns, d] in the same type.

    Raises:
      ValueError: the positions are not those of the old grid.

    Source: ViT (arXiv:2010.11929, sec. 3.2) and MBT, which resize with `scipy.ndimage.zoom`.
    """
    grid = _as_grid(positions_nd, old)
    if tuple(old) != tuple(new):
        import scipy.ndimage  # most starts resize nothing

        grid = scipy.ndimage.zoom(grid, (new[0] / old[0], new[1] / old[1], 1), order=1)
    return grid.reshape(-1, grid.shape[-1])


def _as_grid(positions_nd: np.ndarray, old: tuple[int, int]) -> np.ndarray:
    if len(positions_nd) != old[0] * old[1]:
        raise ValueError(f"{len(positions_nd)} positions do not fill a grid of {old}")
    return positions_nd.reshape(*old, positions_nd.shape[-1])
