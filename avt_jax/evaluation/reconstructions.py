"""Pictures of what was hidden from a model and what it made of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from avt_jax.evaluation.pictures import new_figure, save_png
from avt_jax.host.output.terminal import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MAX_LABEL = 25  # characters that fit beside a row
_EPS = 1e-6
_COLUMNS = ("original", "shown to the model", "reconstructed")


@dataclass(frozen=True)
class Hidden:
    """Some clips with patches hidden, of one modality.

    Attributes:
      ids: b names.
      original: [b, s, f] standardised log-mel, or [b, t, h, w, 3] normalised video.
      predicted_bnp: [b, n, p] the decoder's output, normalised within each patch.
      target_bnp: [b, n, p] the patches' content.
      masked_bn: [b, n] bool, True = hidden.
      starts: n corners of the patches, indices into the axes after the first.
      size: of a patch along these axes.
    """

    ids: Sequence[str]
    original: np.ndarray
    predicted_bnp: np.ndarray
    target_bnp: np.ndarray
    masked_bn: np.ndarray
    starts: Sequence[tuple[int, ...]]
    size: tuple[int, ...]


def spectrogram_corners(grid: tuple[int, int], strides: tuple[int, int]) -> list[tuple[int, int]]:
    """(frame, bin) corners of AST's patches, frequency-major; both arguments (frequency, time)."""
    return [
        (column * strides[1], row * strides[0])
        for row in range(grid[0])
        for column in range(grid[1])
    ]


def video_corners(grid: tuple[int, ...], size: tuple[int, ...]) -> list[tuple[int, ...]]:
    """(frame, row, column) corners of a video encoder's tubelets, row-major."""
    return [tuple(np.multiply(index, size).tolist()) for index in np.ndindex(*grid)]


def restore(hidden: Hidden) -> tuple[np.ndarray, np.ndarray]:
    """What the model saw and what it adds.

    A decoder predicts each patch with mean 0 and variance 1; the true patch's mean and deviation
    bring it back to scale, as is usual for such pictures.

    Args:
      hidden: the clips.

    Returns:
      (shown, restored) like `hidden.original`: NaN where patches were hidden; the prediction there,
      the mean of all where hidden patches overlap, and the original elsewhere.
    """
    mean = hidden.target_bnp.mean(-1, keepdims=True)
    deviation = np.sqrt(hidden.target_bnp.var(-1, keepdims=True) + _EPS)
    patches = hidden.predicted_bnp * deviation + mean
    total = np.zeros(hidden.original.shape, np.float64)
    count = np.zeros(hidden.original.shape[: 1 + len(hidden.size)], np.int64)
    spectrogram = len(hidden.size) == 2
    for n, start in enumerate(hidden.starts):
        place = tuple(slice(s, s + size) for s, size in zip(start, hidden.size, strict=True))
        for b in np.flatnonzero(hidden.masked_bn[:, n]):
            patch = patches[b, n]
            # A spectrogram's patch is stored bin by bin, its picture frame by frame.
            patch = patch.reshape(hidden.size[::-1]).T if spectrogram else patch
            total[b][place] += patch.reshape(total[b][place].shape)
            count[b][place] += 1
    if not spectrogram:
        count = count[..., None]
    covered = np.broadcast_to(count > 0, total.shape)
    shown = np.where(covered, np.nan, hidden.original)
    return shown, np.where(covered, total / np.maximum(count, 1), hidden.original)


def draw_reconstructions(path: Path, hidden: Hidden, *, title: str) -> None:
    """Writes what `reconstruction_figure` draws to a PNG."""
    save_png(reconstruction_figure(hidden, title=title), path, dpi=110)


def reconstruction_figure(hidden: Hidden, *, title: str) -> Figure:
    """Draws one row per clip: original, what the model saw, what it reconstructed.

    Args:
      hidden: a few clips.
      title: above the picture.
    """
    shown, restored = restore(hidden)
    rows = len(hidden.ids)
    picture = new_figure(11, 0.7 + rows * (1.6 if len(hidden.size) == 2 else 3.0))
    picture.suptitle(title, fontsize=11)
    all_axes = picture.subplots(rows, len(_COLUMNS), squeeze=False)
    for b, clip_axes in enumerate(all_axes):
        low, high = np.percentile(hidden.original[b], (1, 99))
        images = (hidden.original[b], shown[b], restored[b])
        for axis, name, image in zip(clip_axes, _COLUMNS, images, strict=True):
            axis.set_facecolor("#9ca3af")  # grey = hidden
            if image.ndim == 2:
                axis.imshow(
                    image.T,
                    origin="lower",
                    aspect="auto",
                    cmap="magma",
                    vmin=low,
                    vmax=high,
                    interpolation="nearest",
                )
            else:
                axis.imshow(_frame(image, low, high), interpolation="nearest")
            axis.set_xticks([])
            axis.set_yticks([])
            if b == 0:
                axis.set_title(name, fontsize=10)
        clip_axes[0].set_ylabel(clip_label(hidden.ids[b]), fontsize=7, parse_math=False)
    return picture


def clip_label(clip_id: str) -> str:
    """A clip's id in two short lines: the file's name without folders, and the span in it."""
    match = re.fullmatch(r"(?:.*/)?(.+)@([\d.]+)-([\d.]+)#\d+", clip_id, re.DOTALL)
    name, span = (match[1], f"{match[2]} to {match[3]} s") if match else (clip_id, "")
    name = printable(name)
    if len(name) > _MAX_LABEL:
        half = (_MAX_LABEL - 1) // 2
        name = f"{name[:half]}…{name[-half:]}"
    return f"{name}\n{span}" if span else name


def _frame(video_thwc: np.ndarray, low: float, high: float) -> np.ndarray:
    """The middle frame with an opaque alpha, transparent where it is NaN."""
    frame = video_thwc[len(video_thwc) // 2]
    alpha = np.isfinite(frame).all(-1, keepdims=True).astype(np.float64)
    scaled = np.clip((np.nan_to_num(frame) - low) / max(high - low, _EPS), 0, 1)
    return np.concatenate([scaled, alpha], -1)
