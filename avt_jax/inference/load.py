"""From a run folder to a function that predicts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from avt_jax import axes, tree
from avt_jax.data.loading.config import DataConfig
from avt_jax.data.records import MEL_BINS
from avt_jax.errors import UserError
from avt_jax.models.build import InputSpec, build_model
from avt_jax.models.forward import Normalisation, make_predict
from avt_jax.training.checkpoint import Run, load_run

PredictFn = Callable[[Mapping[str, Any]], dict[str, np.ndarray]]


def load_predict(run_dir: str | Path, step: str = "best") -> tuple[Run, PredictFn]:
    """Reads a trained model and makes it ready to predict.

    The model runs on one device. It is compiled at the first batch, and again for another batch
    size; keep to one.

    Args:
      run_dir: what `avt train --workdir` wrote.
      step: "best" (highest validation score) or "last".

    Returns:
      (run, predict): predict takes a batch (see `avt_jax.axes`; only video, audio and has_audio
      are read) and gives {label set: probabilities [b, y] float32}.

    Raises:
      UserError: no such run, no intact checkpoint, or one that this version cannot load.
    """
    run = load_run(run_dir, step)
    data = data_config(run)
    skeleton = load_skeleton(run, data, run_dir)
    jitted = jax.jit(make_predict(skeleton, normalisation(data)))
    params, stats = jax.device_put((run.params, run.stats))

    def predict(batch: Mapping[str, Any]) -> dict[str, np.ndarray]:
        # What else is in a batch does not concern the model, and strings cannot go to a device.
        inputs = {key: batch[key] for key in (axes.VIDEO, axes.AUDIO, axes.HAS_AUDIO)}
        return jax.tree.map(np.asarray, jitted(params, stats, inputs))

    return run, predict


def data_config(run: Run) -> DataConfig:
    """The run's `data` block.

    Raises:
      UserError: the block does not fit this version.
    """
    try:
        return DataConfig(**run.config["data"])
    except (TypeError, KeyError) as error:
        raise UserError(
            f"the run's config.json does not fit this version of avt_jax ({error}); "
            "use the version it was trained with, named in its run.json."
        ) from error


def normalisation(data: DataConfig) -> Normalisation:
    """The normalisation constants of a `data` block."""
    return Normalisation(
        tuple(data.video_mean), tuple(data.video_std), data.audio_mean, data.audio_std
    )


def input_spec(data: DataConfig) -> InputSpec:
    """The shape of a clip as a `data` block describes it."""
    return InputSpec(data.num_frames, data.frame_size_px, data.fbank_frames, MEL_BINS)


def load_skeleton(run: Run, data: DataConfig, run_dir: str | Path) -> tree.Skeleton:
    """The structure of a run's model, checked against its variables.

    Raises:
      UserError: the checkpoint does not fit its config and classes; `run_dir` is for the message.
    """
    classes = {name: len(names) for name, names in run.label_sets.items()}
    skeleton = tree.Skeleton(
        lambda: build_model(
            run.config["model"],
            num_classes=classes,
            input=input_spec(data),
            rngs=nnx.Rngs(jax.random.key(0)),
        )
    )
    for expected, found in ((skeleton.params, run.params), (skeleton.stats, run.stats)):
        for path in sorted(expected.keys() | found.keys()):
            shapes = [
                tuple(arrays[path].shape) if path in arrays else "missing"
                for arrays in (found, expected)
            ]
            if shapes[0] != shapes[1]:
                raise UserError(
                    f"the checkpoint in {run_dir} does not fit its config and classes: {path} is "
                    f"{shapes[0]} there, {shapes[1]} expected; use the version of avt_jax that "
                    "it was trained with, named in its run.json."
                )
    return skeleton
