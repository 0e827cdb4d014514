"""An ablation as numbers, a table and a picture: one setting a row, several seeds each.

Runs of one seed see the same data in the same order, so besides each setting's own mean there is
the difference to the first setting, taken seed by seed: what the seeds share drops out of it.
"""

from __future__ import annotations

import statistics
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from avt_jax.evaluation.pictures import new_figure, save_png
from avt_jax.host.new_files import replacing
from avt_jax.host.output.cells import CellWriter

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_INK, _MUTED, _GRID, _BLUE = "#22272e", "#6b7280", "#e5e7eb", "#2563eb"
_NAME_WIDTH = 30  # characters of a line of a setting's name beside the picture


@dataclass(frozen=True)
class RunResult:
    """What one training found.

    Attributes:
      setting: label of the setting.
      seed: of the run.
      top1: share of the clips that were right, in [0, 1]; None where the run failed.
      step_sec: seconds of a training step; None where too few were timed.
      error: why the run failed, "" when it did not.
    """

    setting: str
    seed: int
    top1: float | None = None
    step_sec: float | None = None
    error: str = ""


@dataclass(frozen=True)
class Cost:
    """What a setting costs.

    Attributes:
      step_flops: of a training step of the whole batch.
      parameters: number of scalars.
    """

    step_flops: int
    parameters: int


@dataclass(frozen=True)
class Row:
    """A setting over all its seeds.

    Attributes:
      setting: its label.
      top1: {seed: share of the clips that were right}, runs that failed left out.
      mean: of `top1`; None without a run.
      std: sample standard deviation (n - 1) of `top1`; None with fewer than two runs.
      gain: mean difference to the first setting over the seeds both have; None for the first.
      gain_std: sample standard deviation of that difference; None with fewer than two.
      step_sec: median over the runs; None where none was timed.
      cost: None where unknown.
      errors: different reasons why runs failed, in the order of the seeds.
    """

    setting: str
    top1: Mapping[int, float]
    mean: float | None
    std: float | None
    gain: float | None
    gain_std: float | None
    step_sec: float | None
    cost: Cost | None
    errors: tuple[str, ...]


def summarise(
    settings: Sequence[str], runs: Sequence[RunResult], costs: Mapping[str, Cost]
) -> list[Row]:
    """Takes the runs of each setting together.

    Args:
      settings: labels in the order of the table; the first is what the others are compared with.
      runs: those that ended, in any order.
      costs: {label: cost}, of the settings whose cost is known.

    Returns:
      A row for each setting, also for one without a run.
    """
    rows = []
    first: Mapping[int, float] | None = None
    for setting in settings:
        own = sorted((run for run in runs if run.setting == setting), key=lambda run: run.seed)
        top1 = {run.seed: run.top1 for run in own if run.top1 is not None}
        gains = [] if first is None else [top1[s] - first[s] for s in top1 if s in first]
        timed = [run.step_sec for run in own if run.step_sec is not None]
        rows.append(
            Row(
                setting,
                top1,
                *_mean_and_std(list(top1.values())),
                *_mean_and_std(gains),
                statistics.median(timed) if timed else None,
                costs.get(setting),
                tuple(dict.fromkeys(run.error for run in own if run.error)),
            )
        )
        first = top1 if first is None else first
    return rows


def _mean_and_std(values: Sequence[float]) -> tuple[float | None, float | None]:
    return (
        statistics.fmean(values) if values else None,
        statistics.stdev(values) if len(values) > 1 else None,
    )


def cells(rows: Sequence[Row]) -> list[list[str]]:
    """The table: accuracies in per cent, differences in points of per cent.

    Args:
      rows: from `summarise`.

    Returns:
      The head, then a row for each setting. The first column and that of failures, the last, which
      is there when there are any, hold text; the six others numbers.
    """
    header = [
        "setting",
        "top-1, %",
        "n",
        f"against {rows[0].setting}, points",
        "ms a step",
        "GFLOP a step",
        "parameters",
    ]
    failed = any(row.errors for row in rows)
    lines = [header + ["failed"] * failed]
    for row in rows:
        numbers = [
            row.setting,
            _percent(row.mean, row.std),
            str(len(row.top1)),
            _percent(row.gain, row.gain_std, sign="+"),
            "" if row.step_sec is None else f"{1000 * row.step_sec:.0f}",
            "" if row.cost is None else f"{row.cost.step_flops / 1e9:.2f}",
            "" if row.cost is None else f"{row.cost.parameters:,}",
        ]
        lines.append(numbers + ["; ".join(row.errors)] * failed)
    return lines


def markdown(rows: Sequence[Row]) -> str:
    """The table in Markdown.

    Args:
      rows: from `summarise`.

    Returns:
      Lines with a line feed at the end.
    """
    head, *lines = cells(rows)
    rule = ["---"] + ["---:"] * 6 + ["---"] * (len(head) - 7)
    return "".join(f"| {' | '.join(map(_escaped, line))} |\n" for line in (head, rule, *lines))


def _percent(mean: float | None, std: float | None, sign: str = "") -> str:
    if mean is None:
        return ""
    spread = "" if std is None else f" ± {100 * std:.1f}"
    return f"{100 * mean:{sign}.1f}{spread}"


def _escaped(cell: str) -> str:
    return " ".join(cell.split()).replace("|", "\\|")


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """Writes the table with full precision, and the accuracy of every seed.

    Args:
      path: the file; replaced when complete.
      rows: from `summarise`.

    Raises:
      UserError: it cannot be written.
    """
    seeds = sorted({seed for row in rows for seed in row.top1})
    with replacing(path) as file:
        writer = CellWriter(file)
        writer.row(
            [
                "setting",
                "top1_mean",
                "top1_std",
                "n",
                "gain_mean",
                "gain_std",
                "step_sec",
                "step_flops",
                "parameters",
                *(f"top1_seed_{seed}" for seed in seeds),
                "failed",
            ]
        )
        for row in rows:
            cost = (row.cost.step_flops, row.cost.parameters) if row.cost else ("", "")
            writer.row(
                [
                    row.setting,
                    row.mean,
                    row.std,
                    len(row.top1),
                    row.gain,
                    row.gain_std,
                    row.step_sec,
                    *cost,
                    *(row.top1.get(seed) for seed in seeds),
                    "; ".join(row.errors),
                ]
            )


def draw(path: Path, rows: Sequence[Row], *, title: str) -> bool:
    """Draws every run as a point, mean and standard deviation over it, and the cost beside it.

    Args:
      path: the PNG to write.
      rows: from `summarise`.
      title: above the picture.

    Returns:
      False when no run has a result; no file is written then.

    Raises:
      UserError: the file cannot be written.
    """
    if not any(row.top1 for row in rows):
        return False
    names = [textwrap.fill(row.setting, _NAME_WIDTH, max_lines=3, placeholder="…") for row in rows]
    longest = max((len(line) for name in names for line in name.splitlines()), default=0)
    figure = new_figure(max(8.4, 7.4 + 0.085 * longest), 1.5 + 0.52 * len(rows))
    figure.suptitle(title.replace("$", r"\$"), x=0.01, ha="left", color=_INK, fontsize=12)
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 1))
    _accuracies(left, rows)
    _costs(right, rows)
    for axes in (left, right):
        axes.grid(axis="x", color=_GRID, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.spines["bottom"].set_color(_GRID)
        axes.tick_params(colors=_MUTED, length=0)
    left.set_yticks(range(len(rows)), [name.replace("$", r"\$") for name in names])
    left.tick_params(axis="y", labelcolor=_INK)
    left.set_ylim(len(rows) - 0.5, -0.5)  # the first setting on top
    save_png(figure, path, dpi=130)
    return True


def _accuracies(axes: Axes, rows: Sequence[Row]) -> None:
    if rows[0].mean is not None:
        axes.axvline(100 * rows[0].mean, color=_MUTED, linewidth=1, linestyle=(0, (4, 3)))
    for y, row in enumerate(rows):
        points = [100 * value for value in row.top1.values()]
        # The runs lie a little above the mean, so that neither hides the other.
        axes.plot(points, [y - 0.16] * len(points), "o", ms=5, mfc="none", mec=_BLUE, mew=1.2)
        if row.mean is not None:
            spread = None if row.std is None else 100 * row.std
            axes.errorbar(
                100 * row.mean, y + 0.12, xerr=spread, fmt="D", ms=5, color=_INK, capsize=3, lw=1.4
            )
        else:
            axes.text(
                0.5,
                y,
                "failed" if row.errors else "no run yet",
                color=_MUTED,
                fontsize=9,
                ha="center",
                va="center",
                transform=axes.get_yaxis_transform(),
            )
    axes.set_xlabel("top-1, %   (○ a seed, ◆ mean ± standard deviation)", color=_MUTED)


def _costs(axes: Axes, rows: Sequence[Row]) -> None:
    known = [(y, row.cost.step_flops / 1e9) for y, row in enumerate(rows) if row.cost]
    if known:
        places, gflops = zip(*known, strict=True)
        bars = axes.barh(places, gflops, height=0.42, color=_GRID)
        axes.bar_label(bars, fmt="%.2f", padding=3, color=_INK, fontsize=8)
        axes.set_xlim(0, 1.3 * max(gflops))
    axes.set_xlabel("GFLOP a training step", color=_MUTED)
