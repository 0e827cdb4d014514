"""From a run on cached tokens to a whole one, with the encoders that the tokens are of."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from avt_jax.conversion.initial import encoder_variables
from avt_jax.conversion.store import read_converted, weights_checksum
from avt_jax.data import records
from avt_jax.errors import UserError
from avt_jax.experiment.assemble import Experiment
from avt_jax.experiment.derived.write import whole_config, write_run
from avt_jax.experiment.parts import parse_saved
from avt_jax.experiment.tokens.encoders import ENCODERS
from avt_jax.host.new_folder import check_new_folder
from avt_jax.inference.load import data_config
from avt_jax.training import shards_place
from avt_jax.training.checkpoint import Run, load_run


def join_run(
    run_dir: str | Path, out: str | Path, *, tokens: str | None = None, step: str = "best"
) -> Path:
    """Writes a run folder with the encoders, and what was trained on their tokens.

    Args:
      run_dir: run that was trained on cached tokens.
      out: new folder.
      tokens: the folder of tokens; None = where the run had it.
      step: checkpoint, as for `load_run`.

    Returns:
      `out`, which `avt evaluate` and `avt predict` take, and `config.init.model` to go on.

    Raises:
      UserError: no such run, one of clips, tokens that are gone or of other encoders, or `out` is
        in use.
    """
    run = load_run(run_dir, step)
    data = data_config(run)
    if not data.is_tokens:
        raise UserError(f"{run_dir} was trained on clips, and has its encoders already.")
    check_new_folder(out)
    origin = f"config.data.path in {run_dir}/config.json"
    path = tokens or shards_place.find(
        data.path, Path(run_dir), origin=origin, option="--tokens TOKENS"
    )
    info, about = records.read_tokens_info(path)
    experiment = Experiment(
        parse_saved(_whole_config(run, about)),
        classes={name: len(names) for name, names in run.label_sets.items()},
    )
    variables = {**run.params, **run.stats} | _encoders(experiment, Path(path), about)
    _check(experiment, variables, str(run_dir))
    # Names are the run's, which what it says of each class stands for.
    info = replace(info, label_sets=dict(run.label_sets), tokens=None)
    return write_run(out, experiment, variables, info, step=run.step)


def _whole_config(run: Run, about: records.TokensInfo) -> dict[str, Any]:
    """The run's config, its clips and encoders those that the tokens are of."""
    encoders = {
        name: block for name, block in about.config["model"].items() if name.endswith("_encoder")
    }
    config = whole_config(run.config, {**run.config["model"], **encoders})
    return {**config, "data": about.config["data"]}


def _encoders(
    experiment: Experiment, path: Path, about: records.TokensInfo
) -> dict[str, np.ndarray]:
    skeleton = experiment.skeleton
    model: Any = skeleton.merge(skeleton.params, skeleton.stats)
    found: dict[str, np.ndarray] = {}
    for name in ("video", "audio"):
        if not hasattr(model, f"{name}_encoder"):
            continue
        folder = path / ENCODERS / name
        converted = read_converted(folder)
        if weights_checksum(folder) != about.encoders.get(name):
            raise UserError(
                f"{folder} holds other weights than those that the tokens in {path} are of; make "
                "the tokens again."
            )
        found |= encoder_variables(converted, model, name, experiment.spec)[0]
    return found


def _check(experiment: Experiment, variables: dict[str, np.ndarray], run_dir: str) -> None:
    for path, leaf in (experiment.skeleton.params | experiment.skeleton.stats).items():
        if np.shape(variables.get(path, ())) != tuple(leaf.shape) or path not in variables:
            raise UserError(
                f"{run_dir} does not fit the encoders of its tokens: {path} is missing or of "
                "another shape; give the folder that it was trained on."
            )
