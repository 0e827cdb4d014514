"""In words: a config's fields, what they mean and may be; and what a training is about to do."""

from __future__ import annotations

import inspect
import math
import shlex
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import jax

from avt_jax import tree
from avt_jax.experiment.class_balance import weighing
from avt_jax.experiment.config import Overrides, load_config, recipes
from avt_jax.experiment.parts import parse
from avt_jax.experiment.splits import length
from avt_jax.settings import Block, fields_of
from avt_jax.training.durations import chosen_unit
from avt_jax.training.loop import TrainConfig

if TYPE_CHECKING:
    from avt_jax.experiment.assemble import Experiment
    from avt_jax.training.observing.trace import Trace
    from avt_jax.training.state import Birth

_WIDTH = 100


def list_recipes() -> str:
    """The recipes' names, each with the first line of its file."""
    rows = []
    for name, path in recipes().items():
        source = path.read_text(encoding="utf-8").split('"""')
        first = inspect.cleandoc(source[1]).splitlines()[0] if len(source) > 2 else ""
        rows.append(f"{name:<24}{first}")
    return "\n".join(rows)


def describe_config(name_or_path: str, overrides: Overrides = (), *, doc: bool = False) -> str:
    """Every field of a config.

    Args:
      name_or_path: as for `load_config`.
      overrides: the same.
      doc: add what each field means and which values it takes.

    Returns:
      Lines `--config.block.field=value`, which a command line takes as they are; with `doc` each
      with its meaning below.

    Raises:
      UserError: as `load_config`.
    """
    parts = parse(load_config(name_or_path, overrides).to_dict())
    lines = [f"--config.seed={parts.seed}"]
    if doc:
        lines += _paragraph("of everything random. Allowed: a whole number of 0 or more.")
    for where, block in parts.blocks():
        if doc and fields_of(type(block)):
            lines += ["", f"{where}: {(inspect.getdoc(type(block)) or '').splitlines()[0]}"]
        lines += _block_lines(where, block, doc)
    return "\n".join(lines)


def _block_lines(where: str, block: Block, doc: bool) -> Iterator[str]:
    for field in fields_of(type(block)):
        value = getattr(block, field.name)
        pairs = (
            {f"{field.name}.{key}": one for key, one in value.items()}
            if isinstance(value, Mapping)
            else {field.name: value}
        )
        for name, one in pairs.items():
            yield f"--{where}.{name}={shlex.quote(str(one))}"
        if doc:
            yield from _paragraph(f"{field.doc}. Allowed: {field.allowed}.")


def _paragraph(text: str) -> list[str]:
    return textwrap.wrap(
        text, _WIDTH, initial_indent="    ", subsequent_indent="    ", break_on_hyphens=False
    )


def announcement(
    experiment: Experiment,
    workdir: Path,
    done: int,
    trace: Trace | None,
    gave_up: bool = False,
) -> list[str]:
    """What is trained, for the user.

    Args:
      experiment: what is trained.
      workdir: the run's folder.
      done: steps that an earlier start has done.
      trace: that was asked for.
      gave_up: whether the run ended early, at the end of its patience.

    Returns:
      Lines.
    """
    total, train = experiment.schedule.total_steps, experiment.parts.train
    objective, splits, mesh = experiment.objective, experiment.splits, experiment.mesh
    terms = ", ".join(f"{weight:g} x {name}" for name, weight in objective.weights.items())
    if objective.skipped:
        terms += f" (left out with one modality: {', '.join(objective.skipped)})"
    terms += "".join(f"; {line}" for line in weighing(experiment.class_weights, splits.info))
    clips, val = (
        f"own {name} batches" if count is None else f"{count} {name} clips"
        for name, count in (
            ("training", length(splits.train)),
            ("validation", length(splits.val)),
        )
    )
    more = []
    if experiment.shards not in (None, experiment.parts.data.path):
        more.append(f"the run's shards were found at {experiment.shards}")
    progress = _progress(train, done, total, gave_up)
    if "tensorboard" in train.writers and not (gave_up or done >= total):
        more.append(f"curves: tensorboard --logdir {shlex.quote(str(workdir))}")
    where = f"{mesh.size} {jax.default_backend()} device(s)"
    if jax.process_count() > 1:
        where += f" of {jax.process_count()} processes"
    if trace and trace.last <= done:
        more.append(f"steps {trace.first} to {trace.last} are done already: no trace of them")
    if (hold := experiment.hold) and done < hold.steps and not gave_up:
        more.append(f"{_held(experiment)} are held until step {hold.steps} (config.optimizer.held)")
    birth = experiment.birth
    return [
        f"{clips} and {val}, {_parameters(experiment)}, {where}, parameters "
        f"and optimiser {_mib_on_a_device(birth):.2f} MiB on each",
        f"loss = {terms}",
        f"{progress}; everything goes to {workdir}",
        *more,
    ]


def releases(experiment: Experiment) -> dict[int, str]:
    """{step: what to say after it}: where parameters that were held are let go."""
    if not (hold := experiment.hold):
        return {}
    ramp = f", at a rate that grows for {hold.ramp_steps} steps" if hold.ramp_steps > 1 else ""
    return {hold.steps: f"step {hold.steps}: {_held(experiment)} are no longer held{ramp}"}


def _held(experiment: Experiment) -> str:
    held = experiment.hold.held if experiment.hold else {}
    sizes = [one.size for path, one in experiment.skeleton.params.items() if held.get(path)]
    return f"{sum(sizes) / 1e6:.2f} M parameters"


def _progress(train: TrainConfig, done: int, total: int, gave_up: bool) -> str:
    """Where a training stands, and what goes on with one that is over."""
    if gave_up and done < total:
        return (
            f"already finished: {train.patience} evaluations in a row without a better validation "
            f"score, step {done} of {total}; --config.train.patience={2 * train.patience} goes on"
        )
    if done >= total:
        return (
            f"already finished: step {done} of {total}; a larger "
            f"--config.train.{chosen_unit(train, '')} goes on"
        )
    return f"{f'continuing at step {done} of' if done else 'training for'} {total} steps"


def _parameters(experiment: Experiment) -> str:
    """How many there are and, where some are frozen, how many are trained."""
    params = experiment.skeleton.params
    frozen = experiment.parts.optimizer.frozen_paths(params)
    words = f"{tree.parameter_count(params) / 1e6:.2f} M parameters"
    if frozen:
        trained = {path: one for path, one in params.items() if path not in frozen}
        words += f" ({tree.parameter_count(trained) / 1e6:.3g} M trained)"
    return words


def _mib_on_a_device(birth: Birth) -> float:
    """Of the arrays of a state, cut as they are."""
    pairs = zip(jax.tree.leaves(birth.shapes), jax.tree.leaves(birth.shardings), strict=True)
    sizes = (math.prod(where.shard_shape(one.shape)) * one.dtype.itemsize for one, where in pairs)
    return sum(sizes) / 2**20
