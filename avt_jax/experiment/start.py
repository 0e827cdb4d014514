"""The weights that a training starts from: `config.init`."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from avt_jax import tree
from avt_jax.conversion.catalog.entries import ENTRIES
from avt_jax.conversion.catalog.fetch import fetch, is_name
from avt_jax.conversion.initial import (
    InitConfig,
    check_whole,
    encoder_variables,
    model_variables,
)
from avt_jax.conversion.own_run import Trained, encoder_of_run, variables_of_run
from avt_jax.conversion.store import is_converted, read_converted
from avt_jax.errors import UserError, nearest
from avt_jax.host.output.terminal import show
from avt_jax.inference.load import data_config, load_skeleton
from avt_jax.models.inputs import InputSpec
from avt_jax.training.checkpoint import RUN_FILE, load_run
from avt_jax.training.inputs import input_spec
from avt_jax.training.processes import agree

if TYPE_CHECKING:
    from avt_jax.experiment.assemble import Experiment


def weights_of(
    experiment: Experiment, init: InitConfig | None = None
) -> tuple[dict[str, np.ndarray], list[str]]:
    """`starting_variables` of an experiment; `init` in place of its own."""
    label_sets = experiment.splits.info.label_sets
    given = experiment.parts.init if init is None else init
    return starting_variables(given, experiment.skeleton, experiment.spec, label_sets)


def starting_variables(
    init: InitConfig,
    skeleton: tree.Skeleton[Any],
    spec: InputSpec,
    label_sets: Mapping[str, Sequence[str]],
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Reads the weights that a training starts from.

    Args:
      init: which folders.
      skeleton: of the model to train.
      spec: the shape of what it reads.
      label_sets: its classes.

    Returns:
      ({path: array}, one line for each folder: what was done with it).

    Raises:
      UserError: a folder that cannot be read, or weights that do not fit; names the field.
    """
    model = skeleton.merge(skeleton.params, skeleton.stats)
    variables: dict[str, np.ndarray] = {}
    said = []
    for name in ("model", "audio", "video"):
        folder = given = getattr(init, name)
        if not folder:
            continue
        try:
            if is_name(folder):
                folder = str(fetch(folder, say=_say))
            if _is_run(folder, name):
                trained, note = _trained(folder)
                if name == "model":
                    found, what = variables_of_run(
                        trained, model, spec, label_sets, strict=init.strict
                    )
                else:
                    found, what = encoder_of_run(trained, model, name, spec)
                what += note
            elif name == "model":
                converted = read_converted(folder)
                check_whole(converted, model)
                found, what = model_variables(converted.variables, model)
            else:
                found, what = encoder_variables(read_converted(folder), model, name, spec)
        except UserError as error:
            raise UserError(f"config.init.{name}={given}: {error}{_meant(given)}") from error
        variables |= found
        said.append(f"starting from {folder}: {what}")
    return variables, said


def _is_run(folder: str, name: str) -> bool:
    """Whether a folder is a run's, or is to be one by what is said of it."""
    return not is_converted(folder) and (name == "model" or (Path(folder) / RUN_FILE).exists())


def _trained(folder: str) -> tuple[Trained, str]:
    """(the model of a run folder, what is to be said of its weights)."""
    run = load_run(folder)
    data = data_config(run)
    skeleton = load_skeleton(run, data, folder)
    model = skeleton.merge(skeleton.params, skeleton.stats)
    averaged = run.config.get("optimizer", {}).get("ema_decay", 0) > 0
    trained = Trained(model, {**run.params, **run.stats}, input_spec(data), run.label_sets)
    return trained, ", the averaged ones" if averaged else ""


def _meant(given: str) -> str:
    """The nearest name of the catalog, where nothing is there under what was given."""
    if Path(given).exists() or is_name(given) or not nearest(given, ENTRIES):
        return ""
    return f" 'avt weights list' prints the names of published ones{nearest(given, ENTRIES)}."


def _say(line: str) -> None:
    """What is said of a download; it takes long."""
    if agree.is_first():
        show(line, file=sys.stderr, flush=True)
