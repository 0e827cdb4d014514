"""Checkpoints: state and data position, written whole or not at all, verified when read.

Orbax writes a step's folder under a temporary name and renames it when complete, so a killed run
leaves no half checkpoint. A finished one can still be damaged later (a truncated copy, a flipped
bit): each carries a checksum of its arrays, and reading falls back to the newest intact step.
"""

from __future__ import annotations

import functools
import json
import logging
import sys
import zlib
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

from avt_jax import tree
from avt_jax.errors import UserError, first_line
from avt_jax.training.mesh import quick_to_compile
from avt_jax.training.processes.agree import by_the_first
from avt_jax.training.state import TrainState

CHECKPOINTS = "checkpoints"
CONFIG_FILE, RUN_FILE = "config.json", "run.json"

_SCORE = "score"
_WORD = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32, 8: jnp.uint32}
_SMALL_WORDS = 2**18


# What Orbax and TensorStore were seen to raise for truncated, incomplete and altered checkpoints.
_READ_ERRORS = (ValueError, KeyError, OSError, TypeError, AttributeError)


class _DamagedError(Exception):
    """A finished checkpoint that cannot be trusted."""


def _score(metrics: Mapping[str, float]) -> float:
    return metrics[_SCORE]


def _checksum(tree: Any) -> jax.Array:
    # Small arrays of one size are summed up together: there are hundreds, and each sum on its own
    # is a loop to compile.
    groups: dict[Any, list[tuple[int, jax.Array]]] = defaultdict(list)
    for key_path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        leaf = jnp.asarray(leaf)
        words = jax.lax.bitcast_convert_type(leaf, _WORD[leaf.dtype.itemsize]).reshape(-1)
        name = jax.tree_util.keystr(key_path)
        together = words.size if words.size <= _SMALL_WORDS else name
        groups[together].append((zlib.crc32(name.encode()), words.astype(jnp.uint32)))
    total = jnp.uint32(0)
    for group in groups.values():
        names = jnp.array([name for name, _ in group], jnp.uint32)
        stacked = jnp.stack([words for _, words in group])
        # Odd weights by position, so that swapped or moved values are noticed; sums of integers
        # wrap around and do not depend on the order, so every mesh gives the same number.
        weights = jnp.arange(stacked.shape[1], dtype=jnp.uint32) * jnp.uint32(2654435762) + 1
        sums = (stacked * weights).sum(1, dtype=jnp.uint32)
        total += (sums ^ names).sum(dtype=jnp.uint32)
    return total


@functools.cache
def _jitted_checksum(platform: str) -> Callable[[Any], jax.Array]:
    return jax.jit(_checksum, compiler_options=quick_to_compile(platform))


def _checksums(state: Mapping[str, Any]) -> dict[str, int]:
    checksum = _jitted_checksum(jax.default_backend())
    return {name: int(checksum(part)) for name, part in state.items()}


def _parts(state: TrainState) -> dict[str, Any]:
    return {
        "step": state.step,
        "params": state.params,
        "stats": state.stats,
        "ema": state.ema,
        "opt_state": state.opt_state,
    }


class Checkpointer:
    """Keeps the newest checkpoints of a run, and the best.

    Args:
      run_dir: the run's folder; checkpoints go to `<run_dir>/checkpoints/<step>`.
      keep_last: number of newest checkpoints to keep.
      keep_best: number of checkpoints with the highest validation score to keep.
    """

    def __init__(self, run_dir: Path, *, keep_last: int, keep_best: int):
        self._folder = Path(run_dir).absolute() / CHECKPOINTS
        policies = [LatestN(n=keep_last)]
        if keep_best:
            policies.append(
                BestN(
                    get_metric_fn=_score,
                    n=keep_best,
                    keep_checkpoints_without_metrics=False,
                )
            )
        _quiet_orbax()
        self._manager = ocp.CheckpointManager(
            self._folder,
            options=ocp.CheckpointManagerOptions(
                best_fn=_score,  # Orbax stores metrics only when it can rank by them.
                preservation_policy=AnyPreservationPolicy(policies),
                cleanup_tmp_directories=True,
            ),
        )

    def save(
        self,
        state: TrainState,
        position: dict[str, Any],
        score: float | None = None,
        *,
        replace: bool = False,
    ) -> None:
        """Starts writing a checkpoint; returns before it is on disk.

        Args:
          state: the training state.
          position: the data iterator's state, JSON-able.
          score: validation score (higher is better), or None when it was not measured.
          replace: in the place of one of the same step, which else stays.
        """
        step = int(state.step)
        if step in self._manager.all_steps():
            if not replace:
                return
            self._manager.delete(step)
        parts = _parts(state)
        self._manager.save(
            step,
            args=ocp.args.Composite(
                # An empty group (no averaged parameters, say) has nothing to write.
                state=ocp.args.PyTreeSave({k: v for k, v in parts.items() if jax.tree.leaves(v)}),
                meta=ocp.args.JsonSave({"position": position, "checksums": _checksums(parts)}),
            ),
            metrics=None if score is None else {_SCORE: float(score)},
        )

    def rehearse(self, state: TrainState) -> None:
        """Compiles what saving such a state needs."""
        _checksums(_parts(state))

    def restore(
        self, like: TrainState, shardings: TrainState
    ) -> tuple[TrainState, dict[str, Any]] | None:
        """Reads the newest intact checkpoint.

        A damaged one is set aside (renamed `<step>.damaged`) with a message on stderr.

        Args:
          like: a state (or its shapes) of the same structure.
          shardings: where each array goes.

        Returns:
          (state, position), or None when there is no checkpoint.

        Raises:
          UserError: the checkpoints belong to another model.
        """
        damaged = []
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                restored = self._restore_step(step, like, shardings)
            except _DamagedError as error:
                print(
                    f"avt: checkpoint {step} is damaged ({error}); trying an older one",
                    file=sys.stderr,
                )
                damaged.append(step)
                continue
            self._set_aside(damaged)
            return restored
        if damaged:
            raise UserError(
                f"no checkpoint in {self._folder} is intact (tried {damaged}); "
                "move the folder away to train from the start."
            )
        return None

    def _restore_step(
        self, step: int, like: TrainState, shardings: TrainState
    ) -> tuple[TrainState, dict[str, Any]]:
        wanted = {k: v for k, v in _parts(like).items() if jax.tree.leaves(v)}
        places = {k: v for k, v in _parts(shardings).items() if k in wanted}
        targets = jax.tree.map(
            lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), wanted, places
        )
        _check_shapes(_stored_arrays(self._folder / str(step)), targets, self._folder)
        try:
            read = self._manager.restore(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.PyTreeRestore(
                        targets,
                        restore_args=ocp.checkpoint_utils.construct_restore_args(targets),
                    ),
                    meta=ocp.args.JsonRestore(),
                ),
            )
        except _READ_ERRORS as error:
            raise _DamagedError(first_line(error)) from error
        parts: dict[str, Any] = {**{k: {} for k in _parts(like)}, **read["state"]}
        if _checksums(parts) != read["meta"]["checksums"]:
            raise _DamagedError("its checksum does not match")
        return TrainState(**parts), read["meta"]["position"]

    def _set_aside(self, steps: list[int]) -> None:
        def rename() -> None:
            for step in steps:
                folder = self._folder / str(step)
                folder.rename(folder.with_name(f"{step}.damaged"))

        if steps:
            by_the_first(rename)
            self._manager.reload()

    def wait(self) -> None:
        """Blocks until every started checkpoint is on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits, then frees Orbax's threads."""
        self._manager.close()


def _quiet_orbax() -> None:
    # Orbax reports every save at INFO/WARNING through absl; the progress line says what matters.
    logging.getLogger("absl").setLevel(logging.ERROR)


def _stored_arrays(step_folder: Path) -> dict[str, Any]:
    """The stored tree with array metadata as leaves; `_DamagedError` when it cannot be read."""
    try:
        with ocp.PyTreeCheckpointer() as reader:
            return dict(reader.metadata(step_folder / "state").item_metadata.tree)
    except _READ_ERRORS as error:
        raise _DamagedError(first_line(error)) from error


def _check_shapes(stored: Mapping[str, Any], targets: Any, folder: Path) -> None:
    here = {name: tuple(leaf.shape) for name, leaf in targets["params"].items()}
    there = {name: tuple(leaf.shape) for name, leaf in stored["params"].items()}
    for name in sorted(here.keys() | there.keys()):
        if here.get(name) != there.get(name):
            raise UserError(
                f"the checkpoints in {folder} are of another model: {name} is "
                f"{there.get(name, 'missing')} there and {here.get(name, 'missing')} in this "
                "config; use another --workdir or the run's own config."
            )


def has_checkpoint(run_dir: str | Path) -> bool:
    """Whether a run folder holds a finished checkpoint, intact or not."""
    folder = Path(run_dir) / CHECKPOINTS
    return folder.is_dir() and any(entry.name.isdigit() for entry in folder.iterdir())


@dataclass(frozen=True)
class Run:
    """A trained model as read from its run folder.

    Attributes:
      config: the resolved config, {block: {field: value}}.
      label_sets: {label set: class names}, in the order of the logits.
      records: how the shards were made: {"frame_rate_hz", "short_side_px", "jpeg_quality"}.
      params: {path: array}; the averaged parameters when the run kept an average.
      stats: {path: array} BatchNorm running statistics.
      step: optimiser steps done.
    """

    config: dict[str, Any]
    label_sets: dict[str, tuple[str, ...]]
    records: dict[str, float]
    params: dict[str, np.ndarray]
    stats: dict[str, np.ndarray]
    step: int


def load_run(run_dir: str | Path, which: str = "best") -> Run:
    """Reads a trained model from its run folder, onto the host.

    Args:
      run_dir: what `avt train --workdir` wrote.
      which: "best" = highest validation score (newest when none was measured), or "last".

    Returns:
      The `Run`, its arrays checked against the checksums stored with them.

    Raises:
      UserError: no such run, or none of its checkpoints is intact.
    """
    run_dir = Path(run_dir)
    files = {name: run_dir / name for name in (CONFIG_FILE, RUN_FILE)}
    for file in files.values():
        if not file.is_file():
            raise UserError(
                f"{run_dir} is not a run folder: {file.name} is missing; give the folder that "
                "'avt train --workdir' wrote."
            )
    config, facts = (json.loads(file.read_text(encoding="utf-8")) for file in files.values())
    _quiet_orbax()
    options = ocp.CheckpointManagerOptions(best_fn=_score, read_only=True)
    with ocp.CheckpointManager(run_dir.absolute() / CHECKPOINTS, options=options) as manager:
        for step in _steps_in_order(manager, which):
            try:
                params, stats = _read_variables(manager, step)
            except _DamagedError as error:
                print(
                    f"avt: checkpoint {step} is damaged ({error}); trying another", file=sys.stderr
                )
                continue
            label_sets = {name: tuple(classes) for name, classes in facts["label_sets"].items()}
            return Run(config, label_sets, facts["records"], params, stats, step)
    raise UserError(f"{run_dir / CHECKPOINTS} holds no intact checkpoint; train the run first.")


def _steps_in_order(manager: ocp.CheckpointManager, which: str) -> list[int]:
    steps = sorted(manager.all_steps(), reverse=True)
    if which == "last":
        return steps
    metrics = {step: manager.metrics(step) for step in steps}
    # Stable: among equal scores, and among checkpoints without one, the newest comes first.
    return sorted(
        steps, key=lambda step: _score(metrics[step]) if metrics[step] else -np.inf, reverse=True
    )


def _read_variables(manager: ocp.CheckpointManager, step: int) -> tuple[tree.Flat, tree.Flat]:
    folder = Path(manager.directory) / str(step)
    stored = _stored_arrays(folder)
    weights = "ema" if "ema" in stored else "params"
    wanted = {group: stored[group] for group in (weights, "stats") if group in stored}
    as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), wanted)
    try:
        read = manager.restore(
            step,
            args=ocp.args.Composite(
                state=ocp.args.PyTreeRestore(wanted, restore_args=as_numpy, partial_restore=True),
                meta=ocp.args.JsonRestore(),
            ),
        )
    except _READ_ERRORS as error:
        raise _DamagedError(first_line(error)) from error
    state: dict[str, tree.Flat] = {"stats": {}, **read["state"]}
    expected = read["meta"]["checksums"]
    if any(value != expected[group] for group, value in _checksums(state).items()):
        raise _DamagedError("its checksum does not match")
    return state[weights], state["stats"]
