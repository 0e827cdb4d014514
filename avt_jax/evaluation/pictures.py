"""Confusion matrix and training curves as PNG files.

Figures are made through matplotlib's object interface, so nothing global is touched and no display
is needed; matplotlib itself is imported when the first picture is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from avt_jax.host.new_files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, GRID, BLUE = "#22272e", "#6b7280", "#e5e7eb", "#2563eb"
"""Colours of text, lesser text, lines behind and bars."""

_COLOURS = (BLUE, "#d97706", "#059669", "#9333ea", "#dc2626", "#0891b2", "#65a30d", "#be185d")
_MAX_CELL_TEXT = 40  # classes; beyond, counts in cells cannot be read
_MAX_TICKS = 60
_MAX_NAME = 28  # characters of a class name on an axis


def new_figure(width_in: float, height_in: float) -> Figure:
    """A white figure with a renderer of its own."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_in, height_in), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def save_png(figure: Figure, path: Path, dpi: int) -> None:
    """Writes a figure; the file appears when it is complete."""
    with replacing(path, "wb") as file:
        figure.savefig(file, format="png", dpi=dpi, bbox_inches="tight", pad_inches=0.15)


def as_image(figure: Figure, dpi: int) -> np.ndarray:
    """A figure as pixels, uint8 [h, w, 3]."""
    figure.set_dpi(dpi)
    canvas: Any = figure.canvas
    canvas.draw()
    return np.array(canvas.buffer_rgba())[..., :3]


def no_formula(text: str) -> str:
    """Text as it is: for matplotlib a dollar sign would start a formula."""
    return text.replace("$", r"\$")


def short_name(name: str) -> str:
    """A class name as it stands beside an axis."""
    name = no_formula(name)
    return name if len(name) <= _MAX_NAME else name[: _MAX_NAME - 1] + "…"


def draw_confusion(
    path: Path,
    confusion_yy: np.ndarray,
    class_names: Sequence[str],
    *,
    title: str,
    subtitle: str = "",
) -> None:
    """Draws a confusion matrix: rows are true classes, shaded by share of the row.

    To the right of a row stands its recall, the share of the class's clips that were recognised.
    Up to 40 classes, cells show their counts; beyond 60, only some classes are named.

    Args:
      path: the PNG to write.
      confusion_yy: [y, y] int clips; row = true class, column = predicted class.
      class_names: y names.
      title: above the picture.
      subtitle: below the title, smaller.

    Raises:
      UserError: the file cannot be written.
    """
    number = len(class_names)
    cell_in = float(np.clip(16 / number, 0.36, 0.62)) if number <= _MAX_CELL_TEXT else 0.0
    side_in = max(3.2, number * cell_in) if cell_in else 11.0
    margin_in = 0.1 * min(_MAX_NAME, max(map(len, class_names))) + 0.9
    figure = new_figure(side_in + margin_in + 1.1, side_in + 0.8 * margin_in + 0.7)
    axes = figure.subplots()
    count_y1 = confusion_yy.sum(axis=1, keepdims=True)
    share_yy = confusion_yy / np.maximum(count_y1, 1)
    image = axes.imshow(share_yy, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    step = math.ceil(number / _MAX_TICKS)
    ticks = range(0, number, step)
    names = [short_name(class_names[i]) for i in ticks]
    size = 9 if number <= 20 else 7 if number <= _MAX_CELL_TEXT else 6
    axes.set_xticks(ticks, names, rotation=45, ha="right", rotation_mode="anchor", fontsize=size)
    axes.set_yticks(ticks, names, fontsize=size)
    axes.tick_params(length=0 if step == 1 else 3, colors=INK)
    axes.set_xlabel("predicted", color=MUTED)
    axes.set_ylabel("true", color=MUTED)
    draw_title(axes, title, subtitle)
    axes.spines[:].set_visible(False)
    recalls = [f"{100 * share_yy[i, i]:.0f} %" if count_y1[i, 0] else "" for i in ticks]
    _recalls(axes, ticks, recalls, size)
    if cell_in:
        _cells(axes, confusion_yy, share_yy, 9 if number <= 20 else 6.5)
    bar = figure.colorbar(image, ax=axes, fraction=0.035, pad=0.04)
    bar.set_label("share of the true class", color=MUTED)
    bar.outline.set_visible(False)
    save_png(figure, path, dpi=130)


def draw_title(axes: Axes, title: str, subtitle: str) -> None:
    """Writes a title on the left, and a smaller line below it unless that is ""."""
    axes.set_title(
        no_formula(title), loc="left", color=INK, fontsize=12, pad=24 if subtitle else 10
    )
    if subtitle:
        axes.annotate(
            no_formula(subtitle),
            (0, 1),
            xytext=(0, 9),
            xycoords="axes fraction",
            textcoords="offset points",
            fontsize=8,
            color=MUTED,
        )


def _recalls(axes: Axes, rows: Sequence[int], texts: Sequence[str], size: float) -> None:
    """A second axis to the right of the matrix."""
    right = axes.secondary_yaxis("right")
    right.set_yticks(rows, texts, fontsize=size)
    right.tick_params(length=0, colors=MUTED)
    right.set_ylabel("recall", color=MUTED)
    right.spines[:].set_visible(False)


def _cells(axes: Axes, confusion_yy: np.ndarray, share_yy: np.ndarray, size: float) -> None:
    number = len(confusion_yy)
    # White lines between cells, as minor grid lines.
    axes.set_xticks(np.arange(number + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(number + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1.2)
    axes.tick_params(which="minor", length=0)
    for true, predicted in np.argwhere(confusion_yy):
        axes.text(
            predicted,
            true,
            str(confusion_yy[true, predicted]),
            ha="center",
            va="center",
            fontsize=size,
            color="white" if share_yy[true, predicted] > 0.5 else INK,
        )


def draw_training_curves(
    path: Path,
    entries: Sequence[Mapping[str, Any]],
    *,
    title: str,
    used_step: int | None = None,
) -> bool:
    """Draws losses, accuracies and learning rate against the step, training beside validation.

    Args:
      path: the PNG to write.
      entries: lines of `metrics.jsonl`, see `avt_jax.host.metric_lines`.
      title: above the picture.
      used_step: of the checkpoint that is evaluated, marked by a line; None = no mark.

    Returns:
      False when there is nothing to draw; no file is written then.

    Raises:
      UserError: the file cannot be written.
    """
    series = _series(entries)
    # Rates, norms and temperatures share no scale with the losses.
    apart = {*_RATES, "clips_per_sec", "damaged", "grad_norm", "temperature", *_OBSERVED}
    accuracy = sorted({name for _, name in series if _is_accuracy(name)}, key=_averaged_first)
    # The total first: it keeps the first colour whatever the terms are called.
    losses = sorted(
        {name for _, name in series} - apart - set(accuracy),
        key=lambda name: (name != "loss", name),
    )
    panels = [("loss", losses), ("accuracy", accuracy), ("learning rate", [*_RATES])]
    panels = [(t, n) for t, n in panels if any((s, m) in series for s in _SPLITS for m in n)]
    if not panels:
        return False
    figure = new_figure(4.8 * len(panels) + 0.6, 3.9)
    figure.suptitle(no_formula(title), x=0.01, ha="left", color=INK, fontsize=12)
    row = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (label, names) in zip(row, panels, strict=True):
        _curves(axes, series, names)
        if used_step is not None:
            axes.axvline(used_step, color=MUTED, linewidth=1, linestyle=":")
            axes.annotate(
                f" used: step {used_step}",
                (used_step, 0),
                xycoords=("data", "axes fraction"),
                xytext=(0, 3),
                textcoords="offset points",
                fontsize=7,
                color=MUTED,
                ha="right" if used_step > np.mean(axes.get_xlim()) else "left",
            )
        axes.set_title(label, loc="left", color=INK, fontsize=11)
        axes.set_xlabel("step", color=MUTED)
        if label == "accuracy":
            axes.set_ylim(0, 1.02)
    save_png(figure, path, dpi=130)
    return True


_SPLITS = ("train", "val")
# Of all parameters, and of those that were held at first.
_RATES = ("lr", "lr_held")
# What `training.observing` adds to the metrics.
_OBSERVED = ("wait_data_sec", "host_sec", "device_sec", "mfu", "memory_peak_gib", "goodput")


def _averaged_first(name: str) -> tuple[bool, str]:
    """In the order of the names, but what raw weights reach comes after the averaged ones."""
    return name.startswith("raw/"), name


def _is_accuracy(name: str) -> bool:
    return any(part in name for part in ("top1", "top5", "hit1", "mAP", "auc"))


def _series(entries: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], np.ndarray]:
    """{(split, metric): [points, 2] step and value}."""
    points: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for entry in entries:
        for name, value in entry.items():
            is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if name not in ("step", "split") and is_number and entry["split"] in _SPLITS:
                points.setdefault((entry["split"], name), []).append((entry["step"], value))
    return {key: np.asarray(values, float) for key, values in points.items()}


def _curves(axes: Axes, series: Mapping[tuple[str, str], np.ndarray], names: Sequence[str]) -> None:
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GRID)
    axes.tick_params(colors=MUTED, length=0)
    for name, colour in zip(names, _COLOURS * (len(names) // len(_COLOURS) + 1), strict=False):
        for split, style in zip(_SPLITS, ("-", "--"), strict=True):
            if (split, name) not in series:
                continue
            step, value = series[split, name].T
            label = name.replace("_", " ") + (" (validation)" if split == "val" else "")
            marker = "o" if split == "val" or len(step) == 1 else None
            axes.plot(step, value, style, color=colour, label=label, marker=marker, ms=3.5, lw=1.6)
    if len(axes.lines) > 1:
        axes.legend(frameon=False, fontsize=8, labelcolor=INK)
