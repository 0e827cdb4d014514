"""A trained model, read from its run folder onto the host."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from avt_jax import tree
from avt_jax.errors import UserError
from avt_jax.host.output.terminal import show
from avt_jax.training.checkpoint import folder as folders
from avt_jax.training.checkpoint import run_files, stored
from avt_jax.training.checkpoint.folder import CHECKPOINTS


@dataclass(frozen=True)
class Run:
    """A trained model as read from its run folder.

    Attributes:
      config: the resolved config, {block: {field: value}}.
      label_sets: {label set: class names}, in the order of the logits.
      records: how the shards were made: {"frame_rate_hz", "short_side_px", "jpeg_quality"}.
      params: {path: array}; of a run that kept an average, those that were asked for.
      stats: {path: array} BatchNorm running statistics.
      step: optimiser steps done.
      multi_label: the label sets of which a clip may have any number of classes.
      weights: "averaged" or "raw", which parameters these are; "" of a run that kept no average.
    """

    config: dict[str, Any]
    label_sets: dict[str, tuple[str, ...]]
    records: dict[str, float]
    params: dict[str, np.ndarray]
    stats: dict[str, np.ndarray]
    step: int
    multi_label: tuple[str, ...] = ()
    weights: str = ""


AVERAGED, RAW = "averaged", "raw"


def load_run(run_dir: str | Path, which: str = "best", *, weights: str = AVERAGED) -> Run:
    """Reads a trained model from its run folder, onto the host.

    Args:
      run_dir: what `avt train --workdir` wrote.
      which: "best" = highest validation score (newest when none was measured), "last", or the step
        of a checkpoint in digits.
      weights: "averaged" or "raw", where the run kept an average.

    Returns:
      The `Run`, its arrays checked against the checksums stored with them.

    Raises:
      UserError: no such run, one of its files is damaged, there is no checkpoint of that step, or
        none that is intact.
    """
    run_dir = Path(run_dir)
    if weights not in (AVERAGED, RAW):
        raise UserError(f"weights={weights!r} is not known; give {AVERAGED!r} or {RAW!r}.")
    run_files.check_there(run_dir)
    config, facts = run_files.read_config(run_dir), run_files.read_facts(run_dir)
    label_sets = {name: tuple(classes) for name, classes in facts["label_sets"].items()}
    stored.quiet_orbax()
    folder = run_dir.absolute() / CHECKPOINTS
    metas = _read_metas(folder)
    for step in _wanted(metas, which, folder):
        try:
            params, stats, are = _read_variables(folder / str(step), metas[step], weights)
        except stored.DamagedError as error:
            _say_damaged(step, error)
            continue
        multi_label = tuple(facts.get("multi_label", ()))
        return Run(config, label_sets, facts["records"], params, stats, step, multi_label, are)
    if which.isdecimal():
        raise UserError(f"checkpoint {which} of {run_dir} is damaged; give another step.")
    raise UserError(f"{run_dir / CHECKPOINTS} holds no intact checkpoint; train the run first.")


def _wanted(metas: dict[int, stored.Meta], which: str, folder: Path) -> Sequence[int]:
    """The steps to try, in order."""
    if which == "best":
        return folders.best_first({step: meta.score for step, meta in metas.items()})
    if which == "last":
        return list(metas)
    if int(which) not in metas:
        there = ", ".join(map(str, sorted(metas))) or "none"
        raise UserError(f"{folder} has no checkpoint of step {int(which)}; it has {there}.")
    return [int(which)]


def _read_metas(folder: Path) -> dict[int, stored.Meta]:
    """{step: what its checkpoint holds besides arrays}, the newest first."""
    metas = {}
    for step in folders.list_steps(folder):
        try:
            metas[step] = stored.read_meta(folder / str(step))
        except stored.DamagedError as error:
            _say_damaged(step, error)
    return metas


def _say_damaged(step: int, error: stored.DamagedError) -> None:
    show(f"avt: checkpoint {step} is damaged ({error}); trying another", file=sys.stderr)


def _read_variables(
    step_folder: Path, meta: stored.Meta, weights: str
) -> tuple[tree.Flat, tree.Flat, str]:
    """(parameters, statistics, which parameters these are)."""
    there = stored.stored_arrays(step_folder, meta)
    group = "ema" if "ema" in there and weights == AVERAGED else "params"
    wanted = {name: there[name] for name in (group, "stats") if name in there}
    as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), wanted)
    read = stored.read_arrays(step_folder, wanted, as_numpy)
    state: dict[str, tree.Flat] = {group: {}, "stats": {}, **read}
    stored.check_sums(state, meta)
    return state[group], state["stats"], weights if "ema" in there else ""
