"""Pictures of hidden and reconstructed patches, for an evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from avt_jax import axes
from avt_jax.audio.activity import ActivityConfig
from avt_jax.audio.masking import MaskingConfig
from avt_jax.data.loading.config import DataConfig
from avt_jax.evaluation.reconstructions import (
    Hidden,
    draw_reconstructions,
    spectrogram_corners,
    video_corners,
)
from avt_jax.inference.load import load_skeleton
from avt_jax.models.build import abilities
from avt_jax.models.encoders.ast import PATCH
from avt_jax.models.forward import make_reconstruct
from avt_jax.training.checkpoint import Run
from avt_jax.training.hiding import make_hide
from avt_jax.training.inputs import input_spec, normalisation

_MOST_CLIPS = 4


def write_reconstructions(
    trained: Run, data: DataConfig, batch: Mapping[str, Any], out_dir: Path
) -> list[Path]:
    """Draws what a model with decoders makes of the first clips of a batch.

    Args:
      trained: the run.
      data: its data config.
      batch: clips of the evaluated split, see `avt_jax.axes`.
      out_dir: where to write reconstruction_<modality>.png.

    Returns:
      The files written; none for a model without decoders.
    """
    able = abilities(trained.config["model"])
    modalities = [name for name in ("audio", "video") if f"reconstruct {name}" in able]
    shown = np.flatnonzero(batch[axes.VALID])[:_MOST_CLIPS]
    if not modalities or not len(shown):
        return []
    skeleton = load_skeleton(trained, data, out_dir)
    model = skeleton.merge(skeleton.params, skeleton.stats)
    masking = MaskingConfig.of(trained.config["masking"])
    activity = ActivityConfig.of(trained.config["activity"])
    hide = make_hide(model, modalities, masking, activity, input_spec(data))
    clips = {key: batch[key][shown] for key in (axes.VIDEO, axes.AUDIO, axes.HAS_AUDIO)}
    reconstruct = jax.jit(make_reconstruct(skeleton, normalisation(data), hide))
    found = reconstruct(trained.params, trained.stats, clips, jax.random.key(0))
    written = []
    for name, arrays in jax.tree.map(np.asarray, found).items():
        starts, size = _corners(model, name, arrays["original"].shape)
        hidden = Hidden(
            [str(batch[axes.ID][i]) for i in shown],
            arrays["original"],
            arrays["predicted"],
            arrays["target"],
            arrays["masked"],
            starts,
            size,
        )
        written.append(out_dir / f"reconstruction_{name}.png")
        title = f"{name}: hidden ({masking.strategy if name == 'audio' else 'tubes'}, grey)"
        draw_reconstructions(written[-1], hidden, title=f"{title} and reconstructed")
    return written


def _corners(model: Any, name: str, shape: tuple[int, ...]) -> tuple[list[Any], tuple[int, ...]]:
    encoder = getattr(model, f"{name}_encoder")
    grid = encoder.token_grid(shape)
    if name == "audio":
        return spectrogram_corners(grid, encoder.config.strides), (PATCH, PATCH)
    size = tuple(n // g for n, g in zip(shape[1:4], grid, strict=True))
    return video_corners(grid, size), size
