"""Predictions as tables on the terminal."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.text import Text

from avt_jax.host.output.tables import PlainTable, plain
from avt_jax.inference.prediction import FilePrediction, top_classes
from avt_jax.inference.timeline import clock

_MAX_WINDOW_ROWS = 40


def heading(prediction: FilePrediction) -> Text:
    """One line: the file, its length, and that it has no sound or no picture if so."""
    line = Text(style="bold")
    line.append(plain(prediction.path))
    line.append(f"  {clock(prediction.duration_sec)}", style="not bold")
    if not prediction.has_audio:
        line.append("  no sound, judged by the picture alone", style="not bold yellow")
    if not prediction.has_video:
        line.append("  no picture, judged by the sound alone", style="not bold yellow")
    return line


def file_table(prediction: FilePrediction, number: int = 5) -> PlainTable:
    """The most probable classes of a file.

    Args:
      prediction: of one file.
      number: classes shown of each label set.

    Returns:
      One row per rank; two columns (class, probability) per label set.
    """
    top = prediction.top(number)
    table = PlainTable("", "", *_columns(top), left=range(1, 2 * len(top), 2))
    for rank in range(max(map(len, top.values()))):
        row = [str(rank + 1)]
        for found in top.values():
            if rank < len(found):
                row += [found[rank][0], f"{100 * found[rank][1]:.1f} %"]
            else:
                row += ["", ""]
        table.row(*row)
    return table


def _columns(label_sets: Iterable[str]) -> list[str]:
    """A class and its probability for each label set."""
    return [name for label_set in label_sets for name in (label_set, "prob.")]


def window_table(prediction: FilePrediction) -> PlainTable | None:
    """The first choice over time; windows in a row that agree share a table row.

    Args:
      prediction: of one file.

    Returns:
      The table, or None for a file that is one window. At most 40 rows are shown; the last then
      says how many are left out.
    """
    if len(prediction.windows) < 2:
        return None
    rows: list[dict[str, Any]] = []
    for window in prediction.windows:
        top = top_classes(window.probabilities, prediction.label_sets, 1)
        # All label sets together are what stands in the row anyway.
        best = {name: top[name][0] for name in prediction.label_sets}
        classes = [label for label, _ in best.values()]
        if rows and rows[-1]["classes"] == classes:
            rows[-1]["end_sec"] = window.end_sec
            rows[-1]["probabilities"].append([p for _, p in best.values()])
        else:
            rows.append(
                {
                    "classes": classes,
                    "start_sec": window.start_sec,
                    "end_sec": window.end_sec,
                    "probabilities": [[p for _, p in best.values()]],
                }
            )
    columns = _columns(best)
    table = PlainTable("", "from", "to", *columns, left=range(2, 2 + len(columns), 2))
    for row in rows[:_MAX_WINDOW_ROWS]:
        cells = [clock(row["start_sec"]), clock(row["end_sec"])]
        means = [sum(column) / len(column) for column in zip(*row["probabilities"], strict=True)]
        for label, mean in zip(row["classes"], means, strict=True):
            cells += [label, f"{100 * mean:.1f} %"]
        table.row(*cells)
    if len(rows) > _MAX_WINDOW_ROWS:
        table.caption = f"and {len(rows) - _MAX_WINDOW_ROWS} more changes; --json has them all"
    return table
