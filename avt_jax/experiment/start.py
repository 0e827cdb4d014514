"""The weights that a training starts from: `config.init`."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from flax import nnx

from avt_jax import tree
from avt_jax.conversion.catalog.entries import ENTRIES
from avt_jax.conversion.catalog.fetch import fetch, is_name
from avt_jax.conversion.initial import (
    InitConfig,
    check_whole,
    encoder_prefix,
    encoder_variables,
    model_variables,
)
from avt_jax.conversion.own_run import Trained, encoder_of_run, variables_of_run
from avt_jax.conversion.store import is_converted, read_converted
from avt_jax.errors import UserError, nearest
from avt_jax.host.output.terminal import show
from avt_jax.inference.load import data_config, load_skeleton
from avt_jax.models.inputs import InputSpec
from avt_jax.models.layers.lora import (
    Adapter,
    adapters_of,
    frozen_beside_adapters,
    is_adapter,
    merged,
)
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
                trained, note = _trained(folder, model, name)
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
    return variables, said + _of_adapters(skeleton, variables)


def _of_adapters(skeleton: tree.Skeleton[Any], variables: Mapping[str, Any]) -> list[str]:
    """What is to be said of a model's adapters, and of random weights that stay as they are."""
    said = []
    fresh = [path for path in skeleton.params if is_adapter(path) and path not in variables]
    if fresh and variables:
        said.append(f"adapters that start fresh: {len(fresh) // 2}")
    still = frozen_beside_adapters(skeleton.params) - variables.keys()
    if parts := sorted({path.split("/")[0] for path in still}):
        said.append(
            f"warning: {', '.join(parts)} start from random weights, which beside adapters "
            "(config.model.lora_rank) are not trained; give config.init.model, or video and audio"
        )
    return said


def _is_run(folder: str, name: str) -> bool:
    """Whether a folder is a run's, or is to be one by what is said of it."""
    return not is_converted(folder) and (name == "model" or (Path(folder) / RUN_FILE).exists())


def _trained(folder: str, wanted: nnx.Module, name: str) -> tuple[Trained, str]:
    """The model of a run folder, without adapters if those of the wanted model are not the same.

    Args:
      folder: of the run.
      wanted: the model to train.
      name: of the field: "model", "video" or "audio".

    Returns:
      (the model, what is to be said of its weights).
    """
    run = load_run(folder)
    data = data_config(run)
    skeleton = load_skeleton(run, data, folder)
    model = skeleton.merge(skeleton.params, skeleton.stats)
    averaged = run.config.get("optimizer", {}).get("ema_decay", 0) > 0
    note = ", the averaged ones" if averaged else ""
    variables, adapters = {**run.params, **run.stats}, adapters_of(model)
    of_both = [_below(one, name) for one in (model, wanted)]
    if adapters and of_both[0] != of_both[1]:
        variables = merged(variables, adapters)
        note += f"; the run's {len(adapters)} adapters merged into its weights"
    elif of_both[0]:
        note += f"; with the run's {len(of_both[0])} adapters"
    return Trained(model, variables, input_spec(data), run.label_sets), note


def _below(model: nnx.Module, name: str) -> dict[str, Adapter]:
    """The adapters of a model, or of its encoder of that name by their paths there."""
    prefix = "" if name == "model" else f"{encoder_prefix(model, name)}/"
    found = adapters_of(model).items()
    return {path.removeprefix(prefix): one for path, one in found if path.startswith(prefix)}


def _meant(given: str) -> str:
    """The nearest name of the catalog, where nothing is there under what was given."""
    if Path(given).exists() or is_name(given) or not nearest(given, ENTRIES):
        return ""
    return f" 'avt weights list' prints the names of published ones{nearest(given, ENTRIES)}."


def _say(line: str) -> None:
    """What is said of a download; it takes long."""
    if agree.is_first():
        show(line, file=sys.stderr, flush=True)
