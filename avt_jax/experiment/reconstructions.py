"""Pictures of hidden and reconstructed patches, for an evaluation and while training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from avt_jax import axes
from avt_jax.audio.activity import ActivityConfig
from avt_jax.audio.activity_spans import analyse, spans_of
from avt_jax.audio.masking import MaskingConfig
from avt_jax.audio.melspec import HOP_SEC
from avt_jax.data.loading.config import DataConfig
from avt_jax.evaluation.pictures import as_image
from avt_jax.evaluation.reconstructions import (
    Hidden,
    draw_reconstructions,
    reconstruction_figure,
    spectrogram_corners,
    video_corners,
)
from avt_jax.experiment.assemble import Experiment
from avt_jax.experiment.splits import is_source
from avt_jax.inference.load import load_skeleton
from avt_jax.models.build import abilities
from avt_jax.models.encoders.ast import PATCH
from avt_jax.models.forward import make_reconstruct
from avt_jax.training import mesh as meshes
from avt_jax.training.checkpoint import Run
from avt_jax.training.hiding import make_hide
from avt_jax.training.inputs import input_spec, normalisation
from avt_jax.training.processes import agree
from avt_jax.training.state import TrainState

_MOST_CLIPS = 4
_DPI = 70  # of TensorBoard's pictures, of which there are some at each evaluation


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
    ids = [str(batch[axes.ID][i]) for i in shown]
    for name, arrays in jax.tree.map(np.asarray, found).items():
        written.append(out_dir / f"reconstruction_{name}.png")
        hidden = _hidden(model, name, arrays, ids)
        draw_reconstructions(written[-1], hidden, title=_title(name, masking))
    return written


class ValidationPictures:
    """Draws, while a model is trained to reconstruct, what it makes of a few validation clips.

    The clips and what is hidden of them are the same each time. Activities depend on the sound
    alone, so they are drawn once.

    Args:
      experiment: what is trained, with a validation split.
    """

    def __init__(self, experiment: Experiment):
        parts, self._mesh = experiment.parts, experiment.mesh
        self._masking, spec = parts.masking, input_spec(parts.data)
        skeleton, modalities = experiment.skeleton, experiment.objective.hides
        self._model = skeleton.merge(skeleton.params, skeleton.stats)
        hide = make_hide(self._model, modalities, parts.masking, parts.activity, spec)
        reconstruct = make_reconstruct(skeleton, normalisation(parts.data), hide)
        self._reconstruct = jax.jit(
            meshes.within(
                self._mesh,
                lambda params, stats, clips: reconstruct(params, stats, clips, jax.random.key(0)),
            ),
            out_shardings=meshes.batch_sharding(self._mesh),
        )
        batch = _first_clips(experiment)
        self._clips = {key: batch[key] for key in (axes.VIDEO, axes.AUDIO, axes.HAS_AUDIO)}
        self._shown = np.flatnonzero(batch[axes.VALID])[:_MOST_CLIPS]
        names = batch.get(axes.ID, np.arange(len(batch[axes.VALID])))
        self._ids = [str(names[i]) for i in self._shown]
        self._activities: dict[str, np.ndarray] = {}
        if agree.is_first() and "audio" in modalities:
            self._activities = self._draw_activities(parts.activity)

    def compute(self, state: TrainState) -> dict[str, dict[str, np.ndarray]]:
        """{modality: what `make_reconstruct` gives} of this process's clips; in all processes."""
        clips = meshes.to_device(self._clips, self._mesh)
        found = self._reconstruct(state.ema or state.params, state.stats, clips)
        return jax.tree.map(lambda x: meshes.to_host(x)[self._shown], found)

    def __call__(self, state: TrainState) -> dict[str, np.ndarray]:
        """{name: uint8 [h, w, 3]} in the first process, nothing in the others.

        Args:
          state: in either form.
        """
        found = self.compute(state)
        if not agree.is_first() or not self._ids:
            return {}
        drawn, self._activities = self._activities, {}
        for name, arrays in found.items():
            hidden = _hidden(self._model, name, arrays, self._ids)
            figure = reconstruction_figure(hidden, title=_title(name, self._masking))
            drawn[f"reconstruction_{name}"] = as_image(figure, _DPI)
        return drawn

    def _draw_activities(self, config: ActivityConfig) -> dict[str, np.ndarray]:
        # What decodes files is not loaded by a training that draws none.
        from avt_jax.inference.activities import FileActivities
        from avt_jax.inference.activity_picture import activity_figure

        drawn = {}
        for n, (i, name) in enumerate(zip(self._shown, self._ids, strict=True)):
            if not self._clips[axes.HAS_AUDIO][i]:
                continue
            rows_sf = np.asarray(self._clips[axes.AUDIO][i])
            curves = analyse(rows_sf, config)
            spans = tuple(spans_of(curves.ids))
            found = FileActivities(name, len(rows_sf) * HOP_SEC, spans, HOP_SEC, rows_sf, curves)
            drawn[f"activities_{n}"] = as_image(activity_figure(found, config), _DPI)
        return drawn


def has_pictures(experiment: Experiment) -> bool:
    """Whether there is something to draw while an experiment trains, and it is wanted."""
    wanted = experiment.parts.train.log_images and bool(experiment.objective.hides)
    return wanted and experiment.splits.val is not None


def _first_clips(experiment: Experiment) -> dict[str, Any]:
    """The first validation clips of this process; as many as divide over its devices."""
    val, data = experiment.splits.val, experiment.parts.data
    local = experiment.mesh.size // jax.process_count()
    most = meshes.check_batch_size(experiment.parts.train.eval_batch_size, experiment.mesh)
    rows = min(most, local * -(-_MOST_CLIPS // local))
    once = replace(data, eval_clips=1, eval_crops=1)
    batches = experiment.eval_batches(val, once, rows if is_source(val) else most)
    try:
        return {
            key: value[:rows] for key, value in next(iter(batches)).items() if key != axes.LABELS
        }
    finally:
        batches.close()


def _hidden(model: Any, name: str, arrays: Mapping[str, np.ndarray], ids: list[str]) -> Hidden:
    starts, size = _corners(model, name, arrays["original"].shape)
    return Hidden(
        ids,
        arrays["original"],
        arrays["predicted"],
        arrays["target"],
        arrays["masked"],
        starts,
        size,
    )


def _title(name: str, masking: MaskingConfig) -> str:
    how = masking.strategy if name == "audio" else "tubes"
    return f"{name}: hidden ({how}, grey) and reconstructed"


def _corners(model: Any, name: str, shape: tuple[int, ...]) -> tuple[list[Any], tuple[int, ...]]:
    encoder = getattr(model, f"{name}_encoder")
    grid = encoder.token_grid(shape)
    if name == "audio":
        return spectrogram_corners(grid, encoder.config.strides), (PATCH, PATCH)
    size = tuple(n // g for n, g in zip(shape[1:4], grid, strict=True))
    return video_corners(grid, size), size
