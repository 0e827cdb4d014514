"""Writing a run folder of given weights."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from avt_jax.data.records import RecordsInfo
from avt_jax.experiment.assemble import Experiment
from avt_jax.host.new_folder import new_folder
from avt_jax.training import run_folder
from avt_jax.training.checkpoint import Checkpointer
from avt_jax.training.state import TrainState


def whole_config(config: Mapping[str, Any], model: Mapping[str, Any]) -> dict[str, Any]:
    """A run's config for what is made of it: with another model, and not to start from anything.

    Args:
      config: of the run.
      model: the block `model`.
    """
    # What is saved below has no average of its own.
    optimizer = {**config["optimizer"], "ema_decay": 0.0}
    return {**config, "model": dict(model), "optimizer": optimizer, "init": {}}


def write_run(
    out: str | Path,
    experiment: Experiment,
    variables: Mapping[str, Any],
    info: RecordsInfo,
    *,
    step: int,
    shards: str | None = None,
) -> Path:
    """Writes a run folder with one checkpoint, without the optimiser's state.

    Args:
      out: new folder, which appears when it is complete.
      experiment: whose config it has.
      variables: {path: array} of its model, parameters and statistics.
      info: of the shards; what is said of the classes.
      step: number of the checkpoint.
      shards: where the clips lie; None = not known.

    Returns:
      `out`, which `avt evaluate` and `avt predict` take, and `config.init.model` to go on.

    Raises:
      UserError: `out` is in use.
    """
    skeleton = experiment.skeleton
    params, stats = (
        {path: jnp.asarray(variables[path], leaf.dtype) for path, leaf in group.items()}
        for group in (skeleton.params, skeleton.stats)
    )
    state = jax.tree.map(jnp.asarray, TrainState(np.int32(step), params, stats, {}, {}))
    with new_folder(out) as part:
        run_folder.prepare(part, experiment.config, info, experiment.mesh, shards)
        with contextlib.closing(Checkpointer(part, keep_last=1, keep_best=1)) as checkpointer:
            checkpointer.save(state, {})
    return Path(out)
