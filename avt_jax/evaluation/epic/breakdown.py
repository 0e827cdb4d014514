"""Accuracies of verbs, nouns and actions: of all, of unseen participants, of tail classes, of each.

Source: compute_metrics of epic-kitchens/C1-Action-Recognition. A tail action has a verb or a noun
that is a tail class. There the parts have top-1 alone; here they have top-5, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from avt_jax.evaluation.classification import JOINT
from avt_jax.evaluation.clips import ClipPredictions
from avt_jax.evaluation.epic.annotations import Annotations, Segment
from avt_jax.evaluation.intervals import Interval, mean_interval
from avt_jax.host.new_files import replacing
from avt_jax.host.output.cells import CellWriter
from avt_jax.host.output.tables import PlainTable

TASKS = ("verb", "noun", JOINT)
OVERALL, UNSEEN, TAIL = "overall", "unseen participants", "tail classes"
KS = (1, 5)


@dataclass(frozen=True)
class Accuracy:
    """Of one task in one part.

    Attributes:
      count: clips.
      top: {k: share of clips whose class is among the k best, with its interval over sources}.
    """

    count: int
    top: Mapping[int, Interval]


Breakdown = dict[str, dict[str, Accuracy]]
"""{part: {task: accuracy}}; parts without a clip are left out."""


def break_down(
    found: ClipPredictions,
    segments: Sequence[Segment],
    annotations: Annotations,
    groups_n: np.ndarray,
) -> Breakdown:
    """Accuracies by part.

    Args:
      found: the predictions, of the label sets verb and noun.
      segments: of each clip.
      annotations: with the lists.
      groups_n: [n] equal = of the same source.
    """
    participant_n = np.array([one.participant for one in segments])
    everything = np.ones(len(segments), bool)
    tail = {
        task: np.isin(found.sets[task].label_n, list(annotations.tail[task])) for task in TASKS[:2]
    }
    tail[JOINT] = tail["verb"] | tail["noun"]
    parts: dict[str, Mapping[str, np.ndarray]] = {OVERALL: dict.fromkeys(TASKS, everything)}
    if annotations.unseen is not None:
        is_unseen = np.isin(participant_n, list(annotations.unseen))
        parts[UNSEEN] = dict.fromkeys(TASKS, is_unseen)
    parts[TAIL] = tail
    for who in np.unique(participant_n).tolist():
        parts[who] = dict.fromkeys(TASKS, participant_n == who)
    within = {(task, k): found.within_n(task, k) for task in TASKS for k in KS}
    made: Breakdown = {}
    for part, chosen in parts.items():
        for task in TASKS:
            some = chosen[task]
            if not some.any():
                continue
            top = {
                k: mean_interval(within[task, k][some].astype(np.float64), groups_n[some])
                for k in KS
            }
            made.setdefault(part, {})[task] = Accuracy(int(some.sum()), top)
    return made


def to_dict(found: Breakdown) -> dict[str, Any]:
    """As in results.json: {part: {task: {"count", "top1", "top1_interval", ...}}}."""
    return {
        part: {
            task: {"count": one.count}
            | {f"top{k}": interval.value for k, interval in one.top.items()}
            | {f"top{k}_interval": [i.low, i.high] for k, i in one.top.items()}
            for task, one in tasks.items()
        }
        for part, tasks in found.items()
    }


def table(title: str, found: Breakdown) -> PlainTable:
    """All parts, each task in a row of its own.

    Args:
      title: above the table.
      found: the accuracies.
    """
    columns = [text for k in KS for text in (f"top-{k}", "95 % interval")]
    made = PlainTable(title, "part", "", "clips", *columns, left=(0, 1))
    for part, tasks in found.items():
        for task, one in tasks.items():
            cells = [cell for k in KS for cell in _cells(one.top[k])]
            made.row(part, task, str(one.count), *cells)
    return made


def _cells(one: Interval) -> tuple[str, str]:
    return f"{100 * one.value:.1f} %", f"{100 * one.low:.1f} to {100 * one.high:.1f} %"


def write(path: Path, found: Breakdown) -> None:
    """Writes all parts as CSV, with full precision.

    Args:
      path: the file; an older one is replaced.
      found: the accuracies.

    Raises:
      UserError: it cannot be written.
    """
    with replacing(path) as file:
        writer = CellWriter(file)
        columns = [f"top{k}{end}" for k in KS for end in ("", "_low", "_high")]
        writer.row(["part", "task", "clips", *columns, "sources"])
        for part, tasks in found.items():
            for task, one in tasks.items():
                values = [v for k in KS for i in (one.top[k],) for v in (i.value, i.low, i.high)]
                writer.row([part, task, one.count, *values, one.top[1].groups])
