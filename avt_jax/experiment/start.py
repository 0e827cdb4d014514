"""The weights that a training starts from: `config.init`."""

from __future__ import annotations

from typing import Any

import numpy as np

from avt_jax import tree
from avt_jax.conversion.initial import (
    InitConfig,
    check_whole,
    encoder_variables,
    model_variables,
)
from avt_jax.conversion.store import is_converted, read_converted
from avt_jax.errors import UserError
from avt_jax.models.inputs import InputSpec
from avt_jax.training.checkpoint import load_run


def starting_variables(
    init: InitConfig, skeleton: tree.Skeleton[Any], spec: InputSpec
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Reads the weights that a training starts from.

    Args:
      init: which folders.
      skeleton: of the model to train.
      spec: the shape of what it reads.

    Returns:
      ({path: array}, one line for each folder: what was done with it).

    Raises:
      UserError: a folder that cannot be read, or weights that do not fit; names the field.
    """
    model = skeleton.merge(skeleton.params, skeleton.stats)
    variables: dict[str, np.ndarray] = {}
    said = []
    for name in ("model", "audio", "video"):
        folder = getattr(init, name)
        if not folder:
            continue
        try:
            if name == "model":
                whole, note = _whole_model(folder, model)
                found, what = model_variables(whole, model)
                what += note
            else:
                found, what = encoder_variables(read_converted(folder), model, name, spec)
        except UserError as error:
            raise UserError(f"config.init.{name}={folder}: {error}") from error
        variables |= found
        said.append(f"starting from {folder}: {what}")
    return variables, said


def _whole_model(folder: str, model: Any) -> tuple[dict[str, np.ndarray], str]:
    """({path: array}, what is to be said of them)."""
    if is_converted(folder):
        converted = read_converted(folder)
        check_whole(converted, model)
        return converted.variables, ""
    run = load_run(folder)
    averaged = run.config.get("optimizer", {}).get("ema_decay", 0) > 0
    return {**run.params, **run.stats}, ", the averaged ones" if averaged else ""
