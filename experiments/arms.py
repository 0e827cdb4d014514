"""Arms of an experiment: commands of `avt`, run for several seeds, measured and compared.

An arm's commands are what a user would type; their output is kept in OUT/ARM/seed<k>/log.txt, what
they cost in results.json beside it. The last one is an `avt evaluate`, whose predictions for single
clips are compared between arms: with intervals over sources, clip by clip, mean over the seeds.
What is finished is not repeated.
"""

from __future__ import annotations

import csv
import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from avt_jax.evaluation.intervals import Interval, mean_interval
from avt_jax.evaluation.pictures import BLUE, INK, MUTED, draw_title, new_figure, save_png

Words = Sequence[str]


@dataclass(frozen=True)
class Arm:
    """One way to train.

    Attributes:
      name: of its folder.
      label: in the table.
      commands: (folder of this seed, seed) -> [(name, words after `avt`)].
    """

    name: str
    label: str
    commands: Callable[[Path, int], list[tuple[str, Words]]]


def measured(words: Words, log: Path) -> dict[str, float]:
    """Runs one command of `avt`; the seconds and the memory that it took.

    Raises:
      SystemExit: it failed.
    """
    began = time.monotonic()
    with log.open("a", encoding="utf-8") as file:
        print("$ avt", *words, file=file, flush=True)
        child = subprocess.Popen(
            [sys.executable, "-m", "avt_jax", *words], stdout=file, stderr=subprocess.STDOUT
        )
        _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        sys.exit(f"'avt {' '.join(words)}' ended with {child.returncode}; see {log}")
    return {
        "wall_sec": round(time.monotonic() - began, 1),
        "cpu_sec": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_gib": round(usage.ru_maxrss / 2**20, 2),
    }


def run_arms(arms: Sequence[Arm], seeds: Sequence[int], out: Path) -> None:
    """Runs what is not finished, seed by seed."""
    for seed in seeds:
        for arm in arms:
            folder = out / arm.name / f"seed{seed}"
            result = folder / "results.json"
            if result.exists():
                continue
            folder.mkdir(parents=True, exist_ok=True)
            print(f"{arm.label}, seed {seed}", flush=True)
            steps = {}
            for name, words in arm.commands(folder, seed):
                steps[name] = measured(words, folder / "log.txt")
            result.write_text(json.dumps(steps, indent=1) + "\n")


def right_clips(folder: Path, label_set: str = "label") -> dict[str, bool]:
    """{clip: whether it was right} of an evaluated run; the last evaluation's."""
    (path,) = folder.glob("**/evaluation-test/clips.csv")
    with path.open(newline="", encoding="utf-8") as file:
        return {row["id"]: row[f"{label_set}_right"] == "True" for row in csv.DictReader(file)}


@dataclass(frozen=True)
class Found:
    """What an arm reached.

    Attributes:
      label: in the table.
      top1: of each seed.
      mean: of all, with the interval over sources.
      gain: to the arm that it is compared with; None for that one.
      costs: median over the seeds of what all commands but the evaluation took together, by name.
    """

    label: str
    top1: tuple[float, ...]
    mean: Interval
    gain: Interval | None
    costs: Mapping[str, float]


def found(
    arms: Sequence[Arm],
    seeds: Sequence[int],
    out: Path,
    *,
    against: Mapping[str, str],
    group: str = "",
) -> list[Found]:
    """What the arms reached.

    Args:
      arms: all of them run.
      seeds: of each.
      out: where they ran.
      against: {arm: the one that it is compared with}.
      group: regular expression; clips whose ids agree in its groups are one source.
    """
    right = {
        arm.name: [right_clips(out / arm.name / f"seed{seed}") for seed in seeds] for arm in arms
    }
    clips = sorted(next(iter(right.values()))[0])
    assert all(sorted(one) == clips for several in right.values() for one in several)
    share = {
        name: np.mean([[one[clip] for clip in clips] for one in several], 0)
        for name, several in right.items()
    }
    sources = np.array([_source(clip, group) for clip in clips])
    rows = []
    for arm in arms:
        other = against.get(arm.name)
        gain = mean_interval(share[arm.name] - share[other], sources) if other else None
        top1 = tuple(statistics.fmean(one.values()) for one in right[arm.name])
        costs = _costs([out / arm.name / f"seed{seed}" for seed in seeds])
        rows.append(Found(arm.label, top1, mean_interval(share[arm.name], sources), gain, costs))
    return rows


def _source(clip: str, group: str) -> str:
    matched = re.search(group, clip) if group else None
    return "/".join(matched.groups()) if matched else clip


def _costs(folders: Sequence[Path]) -> dict[str, float]:
    read = [json.loads((folder / "results.json").read_text()) for folder in folders]
    each = [{k: v for k, v in one.items() if k != "evaluate"} for one in read]
    total: dict[str, float] = {
        key: statistics.median(sum(step[key] for step in one.values()) for one in each)
        for key in ("wall_sec", "cpu_sec")
    }
    total["peak_gib"] = statistics.median(
        max(step["peak_gib"] for step in one.values()) for one in each
    )
    return total


def markdown(rows: Sequence[Found], against: str) -> str:
    """The table: accuracies in per cent, differences in points."""
    head = [
        "",
        "top-1, %",
        "95 % interval",
        "each seed",
        f"against {against}, points",
        "CPU-seconds",
        "peak memory, GiB",
    ]
    lines = [head, ["---"] + ["---:"] * (len(head) - 1)]
    for row in rows:
        gain = ""
        if row.gain:
            gain = f"{100 * row.gain.value:+.1f} ({_ends(row.gain, '+')})"
        lines.append(
            [
                row.label,
                f"{100 * row.mean.value:.1f}",
                _ends(row.mean),
                ", ".join(f"{100 * one:.1f}" for one in row.top1),
                gain,
                f"{row.costs['cpu_sec']:.0f}",
                f"{row.costs['peak_gib']:.1f}",
            ]
        )
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _ends(interval: Interval, sign: str = "") -> str:
    return f"{100 * interval.low:{sign}.1f} to {100 * interval.high:{sign}.1f}"


def draw(rows: Sequence[Found], title: str, subtitle: str, path: Path) -> None:
    """A picture: each arm's accuracy with its interval, and its seeds as small dots."""
    figure = new_figure(7.5, 1.4 + 0.4 * len(rows))
    axes = figure.add_subplot()
    for y, row in enumerate(rows):
        axes.plot([100 * row.mean.low, 100 * row.mean.high], [y, y], color=BLUE, lw=2)
        axes.plot(100 * row.mean.value, y, "o", color=BLUE, ms=7)
        axes.plot([100 * one for one in row.top1], [y + 0.22] * len(row.top1), ".", color=MUTED)
    axes.set_yticks(range(len(rows)), [row.label for row in rows], color=INK)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlabel("top-1, %", color=INK)
    axes.grid(axis="x", alpha=0.3)
    axes.spines[["top", "right", "left"]].set_visible(False)
    draw_title(axes, title, subtitle)
    save_png(figure, path, 150)


def write(rows: Sequence[Found], out: Path, against: str, title: str, subtitle: str) -> None:
    """Writes table.md, table.json and picture.png, and prints the table."""
    table = markdown(rows, against)
    (out / "table.md").write_text(table)
    (out / "table.json").write_text(json.dumps([_plain(row) for row in rows], indent=1) + "\n")
    draw(rows, title, subtitle, out / "picture.png")
    print(table)


def _plain(row: Found) -> dict[str, Any]:
    return {
        "label": row.label,
        "top1": row.top1,
        "mean": vars(row.mean),
        "gain": vars(row.gain) if row.gain else None,
        "costs": row.costs,
    }
