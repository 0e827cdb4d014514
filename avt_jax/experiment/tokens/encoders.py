"""The encoders whose tokens are kept: those of a run, or weights given to a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from avt_jax.conversion.own_run import Trained, converted_encoder
from avt_jax.conversion.store import Converted
from avt_jax.data.loading.config import DataConfig
from avt_jax.errors import UserError
from avt_jax.experiment.assemble import Experiment
from avt_jax.experiment.config import load_config
from avt_jax.experiment.derived.merged import without_adapters
from avt_jax.experiment.parts import parse_saved
from avt_jax.experiment.start import starting_variables
from avt_jax.models.forward import make_tokens
from avt_jax.training.checkpoint import load_run
from avt_jax.training.inputs import normalisation

ENCODERS = "encoders"
"""Folder in a folder of tokens: the encoders' weights by modality, as `avt convert` has them."""


@dataclass(frozen=True)
class Encoders:
    """Frozen encoders.

    Attributes:
      experiment: whose model has them.
      data: how clips are read for them.
      variables: {path: array} of the model, parameters and statistics.
      label_sets: {label set: class names} of the model's heads.
    """

    experiment: Experiment
    data: DataConfig
    variables: Mapping[str, Any]
    label_sets: Mapping[str, tuple[str, ...]]

    @property
    def modalities(self) -> tuple[str, ...]:
        """Of "video" and "audio"."""
        return _modalities(self.experiment)

    @property
    def _model(self) -> dict[str, Any]:
        return self.experiment.parts.model

    @property
    def dtype(self) -> str:
        """Type that loses nothing: of float16's 11 bits bfloat16 has 8."""
        return "float32" if self._model["precision"] == "float32" else "float16"

    @property
    def config(self) -> dict[str, Any]:
        """The blocks `model` and `data`."""
        return {"model": self._model, "data": self.data.to_dict()}

    def function(self) -> Any:
        """Batch (see `avt_jax.axes`) -> {modality: [b, tokens, width]}, compiled."""
        skeleton = self.experiment.skeleton
        encode = jax.jit(make_tokens(skeleton, normalisation(self.data)))
        groups = [
            jax.device_put({path: np.asarray(self.variables[path]) for path in group})
            for group in (skeleton.params, skeleton.stats)
        ]

        def call(batch: Mapping[str, Any]) -> dict[str, np.ndarray]:
            inputs = {name: batch[name] for name in ("video", "audio")}
            return jax.tree.map(np.asarray, encode(*groups, inputs))

        return call

    def converted(self, modality: str) -> Converted:
        """The weights of one encoder."""
        skeleton = self.experiment.skeleton
        model = skeleton.merge(skeleton.params, skeleton.stats)
        arrays = {path: np.asarray(value) for path, value in self.variables.items()}
        trained = Trained(model, arrays, self.experiment.spec, self.label_sets)
        found = converted_encoder(trained, modality)
        if found is None:
            raise UserError(
                f"the model's {modality} encoder is no encoder of clips; give a run or a recipe "
                "that reads clips."
            )
        return found


def encoders_of_run(run_dir: str | Path, step: str = "best") -> Encoders:
    """The encoders of a trained run, the averaged ones where it kept an average.

    Adapters are merged into them.

    Raises:
      UserError: no such run, or one without encoders of clips.
    """
    run = without_adapters(load_run(run_dir, step), run_dir)
    classes = {name: len(names) for name, names in run.label_sets.items()}
    experiment = Experiment(parse_saved(run.config), classes=classes)
    _check(experiment, str(run_dir))
    return Encoders(experiment, _unvaried(experiment), {**run.params, **run.stats}, run.label_sets)


def encoders_of_recipe(
    recipe: str, shards: str, overrides: list[str], given: Mapping[str, str]
) -> tuple[Encoders, list[str]]:
    """The encoders of a recipe with weights from folders or the catalog.

    Args:
      recipe: name or file, as for `avt train`.
      shards: the clips, config.data.path.
      overrides: further ones, such as "--config.model.modalities=audio".
      given: {modality: folder or name of weights}.

    Returns:
      (the encoders, what was done with the weights, line by line).

    Raises:
      UserError: anything wrong in the config, or weights that are missing or do not fit.
    """
    words = [f"--config.data.path={shards}", *overrides]
    words += [f"--config.init.{modality}={folder}" for modality, folder in given.items()]
    config = load_config(recipe, words).to_dict()
    if "lora_rank" in config["model"]:
        # What is frozen as a whole has no use for adapters; those of a run given here are merged.
        config["model"]["lora_rank"] = 0
    experiment = Experiment(config)
    _check(experiment, recipe)
    label_sets = experiment.splits.info.label_sets
    variables, said = starting_variables(
        experiment.parts.init, experiment.skeleton, experiment.spec, label_sets
    )
    for name in _modalities(experiment):
        if not any(path.startswith(f"{name}_encoder/") for path in variables):
            raise UserError(
                f"there are no weights for the {name} encoder, and tokens of random ones are of no "
                f"use; give --init.{name} WEIGHTS, or another --config.model.modalities."
            )
    state, _ = experiment.init_state()
    every = {**state.params, **state.stats, **variables}
    encoders = Encoders(experiment, _unvaried(experiment), every, label_sets)
    return encoders, said


def _modalities(experiment: Experiment) -> tuple[str, ...]:
    given = experiment.parts.model["modalities"]
    return ("video", "audio") if given == "av" else (given,)


def _check(experiment: Experiment, what: str) -> None:
    if experiment.parts.model["name"] != "avt":
        raise UserError(
            f"{what} has the model {experiment.parts.model['name']}, whose modalities meet inside "
            "its towers; cached tokens are of the encoders of avt."
        )
    if experiment.parts.data.is_tokens:
        raise UserError(f"{what} reads cached tokens itself; give the run that reads clips.")


def _unvaried(experiment: Experiment) -> DataConfig:
    return replace(experiment.parts.data, eval_clips=1, eval_crops=1)
