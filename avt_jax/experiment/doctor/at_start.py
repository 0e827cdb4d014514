"""A short look at the clips when a training begins: a few lines on stderr."""

from __future__ import annotations

import functools
import shlex
import sys
from collections.abc import Mapping
from typing import Any

from avt_jax.data.doctor.check import check_facts, worst_first
from avt_jax.data.doctor.facts import glance
from avt_jax.data.records import RecordSource
from avt_jax.experiment.assemble import Experiment
from avt_jax.experiment.doctor.config_checks import of_data, of_size
from avt_jax.host.output.terminal import show

_GLANCE_SEC = 1.5
_MOST_LINES = 5


def warn_at_start(experiment: Experiment, params: Mapping[str, Any]) -> None:
    """Says on stderr, in a few lines, what a short look at the training's shards finds.

    Args:
      experiment: what is about to be trained.
      params: of its model.
    """
    # Where the shards were found; the config may name where they were.
    data, splits = experiment.data, experiment.splits
    opened = {data.train_split: splits.train, data.eval_split: splits.val}
    shards = {name: split for name, split in opened.items() if isinstance(split, RecordSource)}
    if data.train_split not in shards:
        return
    facts = glance(data.path, splits.info, shards, limit_sec=_GLANCE_SEC)
    findings = check_facts(facts, splits=tuple(shards))
    findings += of_data(facts, experiment.parts)
    findings += of_size(facts, experiment.parts, params)
    told = [finding for finding in worst_first(findings) if finding.severity != "hint"]
    for finding in told[:_MOST_LINES]:
        _say_once(data.path, finding.short())
    if told:
        more = f"{len(told) - _MOST_LINES} more; " if len(told) > _MOST_LINES else ""
        remedies = f"'avt doctor {shlex.quote(data.path)} --config ...' says what to do"
        _say_once(data.path, more + remedies)


@functools.cache
def _say_once(path: str, line: str) -> None:
    """To stderr; a study trains on the same shards (`path`) many times."""
    show(line, file=sys.stderr, flush=True)
