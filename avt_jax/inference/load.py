"""From a run folder to functions that predict and embed."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np

from avt_jax import axes, tree
from avt_jax.data.loading.config import DataConfig
from avt_jax.errors import UserError
from avt_jax.host import collecting
from avt_jax.host.compiling import compiling
from avt_jax.models.build import build_model
from avt_jax.models.forward import Predict, make_embed, make_predict
from avt_jax.models.kernels import kept
from avt_jax.models.kernels.choice import AUTO
from avt_jax.training.checkpoint import Run, load_run
from avt_jax.training.inputs import input_spec, normalisation
from avt_jax.tree.rngs import CountedRngs

BatchFn = Callable[[Mapping[str, Any]], dict[str, np.ndarray]]


class LoadedRun:
    """A trained model, ready to be used on one device.

    It is compiled at the first batch, and again for another batch size; keep to one.

    Args:
      run_dir: what `avt train --workdir` wrote.
      step: "best" (highest validation score), "last", or a step in digits.
      say: is told that it is compiled, and how long that takes; None = nobody.
      weights: "averaged" or "raw", where the run kept an average.

    Attributes:
      run: what was read.
      data: its `data` block.

    Raises:
      UserError: no such run, no intact checkpoint, or one that this version cannot load.
    """

    def __init__(
        self,
        run_dir: str | Path,
        step: str = "best",
        say: Callable[[str], None] | None = None,
        *,
        weights: str = "averaged",
    ):
        self._say = say
        self.run = load_run(run_dir, step, weights=weights)
        self.data = data_config(self.run)
        self._skeleton = load_skeleton(self.run, self.data, run_dir)
        self._variables = jax.device_put((self.run.params, self.run.stats))

    @cached_property
    def predict(self) -> BatchFn:
        """Batch (see `avt_jax.axes`) -> {label set: probabilities [b, y] float32}.

        Those of a multi-label set are independent of each other.

        Of a batch only video, audio and has_audio are read.
        """
        multi_label = self.run.multi_label
        return self._function(functools.partial(make_predict, multi_label=multi_label), "predict")

    @cached_property
    def embed(self) -> BatchFn:
        """Batch -> {"video", "audio", "fused": [b, d] float32 of length 1}, see `make_embed`."""
        return self._function(make_embed, "embed")

    @property
    def projects(self) -> bool:
        """Whether the vectors of video and audio are in one space."""
        model = self._skeleton.merge(self._skeleton.params, self._skeleton.stats)
        return bool(model.projects)

    def _function(self, make: Callable[..., Predict], what: str) -> BatchFn:
        inputs_are = normalisation(self.data)
        jitted = jax.jit(make(self._skeleton, inputs_are))
        compiled: set[tuple[Any, ...]] = set()
        model = [what, jax.__version__, kept.device_kind(), inputs_are]
        model += list(self.run.multi_label)
        model += [self.run.config["model"], {k: len(v) for k, v in self.run.label_sets.items()}]

        def call(batch: Mapping[str, Any]) -> dict[str, np.ndarray]:
            # What else is in a batch does not concern the model, and strings cannot go to a device.
            inputs = {key: batch[key] for key in (axes.VIDEO, axes.AUDIO, axes.HAS_AUDIO)}
            shapes = tuple(np.shape(array) for array in inputs.values())
            if shapes in compiled:
                found = jitted(*self._variables, inputs)
            else:
                compiled.add(shapes)
                with compiling([*model, shapes], self._say):
                    found = jitted(*self._variables, inputs)
                collecting.resume()
            return jax.tree.map(np.asarray, found)

        return call


def data_config(run: Run) -> DataConfig:
    """The run's `data` block.

    Raises:
      UserError: the block does not fit this version.
    """
    try:
        return DataConfig.of(run.config["data"])
    except (UserError, TypeError, KeyError) as error:
        raise UserError(
            f"the run's config.json does not fit this version of avt_jax ({error}); "
            "use the version it was trained with, named in its run.json."
        ) from error


def load_skeleton(run: Run, data: DataConfig, run_dir: str | Path) -> tree.Skeleton[Any]:
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
            rngs=CountedRngs(0),
            kernels=kept.told(run.config["model"].get("kernels", AUTO)),
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
