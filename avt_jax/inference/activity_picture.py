"""A picture of what activity detection saw: spectrogram, envelope and gradient on one time axis."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from avt_jax.audio.activity import ActivityConfig
from avt_jax.audio.melspec import LOG_FLOOR, hz_to_mel
from avt_jax.host.new_files import replacing
from avt_jax.host.output.terminal import printable
from avt_jax.inference.timeline import clock

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from avt_jax.inference.activities import FileActivities

_INK, _MUTED, _FOUND, _TRUE, _LINE = "#1b1f24", "#6b7280", "#d97706", "#059669", "#2563eb"
_TICKS_HZ = (100, 500, 2000, 6000)


def draw_activities(
    found: FileActivities,
    config: ActivityConfig,
    path: Path,
    *,
    true: Sequence[tuple[float, float]] | None = None,
) -> None:
    """Draws the spectrogram, the envelope with its thresholds and the gradient into a PNG.

    Args:
      found: what was found in a file.
      config: with which it was found.
      path: PNG to write; an older one is replaced.
      true: the true spans, drawn as a bar above the spectrogram.

    Raises:
      UserError: the picture cannot be written.
    """
    figure = activity_figure(found, config, true=true)
    with replacing(path, "wb") as file:
        figure.savefig(file, format="png", dpi=110)


def activity_figure(
    found: FileActivities,
    config: ActivityConfig,
    *,
    true: Sequence[tuple[float, float]] | None = None,
) -> Figure:
    """The picture of `draw_activities`; the arguments are its."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12.0, 6.4), facecolor="white")
    FigureCanvasAgg(figure)
    bars, spectrogram, envelope, gradient = figure.subplots(
        4, 1, sharex=True, height_ratios=(0.3 if true is not None else 0.15, 1.6, 1.2, 0.7)
    )
    figure.subplots_adjust(left=0.09, right=0.88, top=0.88, bottom=0.09, hspace=0.1)
    _title(figure, found)
    _bars(bars, found, true)
    _spectrogram(spectrogram, found)
    _envelope(envelope, found, config)
    _gradient(gradient, found)
    gradient.set_xlim(0, max(found.duration_sec, 1e-3))
    short = found.duration_sec < 20
    gradient.xaxis.set_major_formatter(lambda sec, _: clock(max(sec, 0.0), with_fraction=short))
    return figure


def _title(figure: Figure, found: FileActivities) -> None:
    number = len(found.spans)
    name = printable(os.path.basename(found.path))
    active_sec = sum(offset - onset for onset, offset in found.spans)
    share = 100 * active_sec / max(found.duration_sec, 1e-9)
    heading = f"{number} activit{'y' if number == 1 else 'ies'}, {share:.0f} % of the time"
    about = f"{name[:80]}   {clock(found.duration_sec)}".replace("$", r"\$")
    figure.text(0.09, 0.955, heading, fontsize=14, fontweight="bold", color=_INK, va="center")
    figure.text(0.09, 0.912, about, fontsize=9.5, color=_MUTED, va="center")


def _bars(axes: Axes, found: FileActivities, true: Sequence[tuple[float, float]] | None) -> None:
    rows: list[tuple[Sequence[tuple[float, float]], str, str]] = [(found.spans, _FOUND, "found")]
    if true is not None:
        rows.append((true, _TRUE, "true"))
    for place, (spans, colour, name) in enumerate(rows):
        for onset_sec, offset_sec in spans:
            length_sec = offset_sec - onset_sec
            axes.barh(-place, length_sec, left=onset_sec, height=0.6, color=colour, linewidth=0)
        axes.annotate(
            name,
            (1, -place),
            xycoords=("axes fraction", "data"),
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
            color=colour,
        )
    axes.set_ylim(-len(rows) + 0.5, 0.5)
    axes.set_axis_off()


def _centers_sec(found: FileActivities) -> np.ndarray:
    # A frame's window is centred 12.5 ms after its start, half a hop later than its middle.
    return (np.arange(len(found.fbank)) + 0.5) * found.column_sec + 0.0075


def _spectrogram(axes: Axes, found: FileActivities) -> None:
    axes.set_facecolor("black")
    rows_cf = found.fbank
    if len(rows_cf):
        low, high = np.percentile(rows_cf, (2, 99.5))
        low = max(float(low), float(high) - 16.0, LOG_FLOOR)
        axes.imshow(
            rows_cf.T,
            extent=(0.0075, len(rows_cf) * found.column_sec + 0.0075, 0, 128),
            origin="lower",
            aspect="auto",
            cmap="magma",
            vmin=low,
            vmax=max(float(high), low + 1.0),
            interpolation="nearest",
        )
    mel_low, mel_high = hz_to_mel(20.0), hz_to_mel(8000.0)
    places = [float((hz_to_mel(hz) - mel_low) / (mel_high - mel_low) * 128) for hz in _TICKS_HZ]
    axes.set_yticks(places, [f"{hz / 1000:g} kHz" for hz in _TICKS_HZ])
    for onset_sec, offset_sec in found.spans:
        for sec in (onset_sec, offset_sec):
            axes.axvline(sec, color="white", linewidth=0.9, linestyle=(0, (3, 2)))
    _tidy(axes)


def _envelope(axes: Axes, found: FileActivities, config: ActivityConfig) -> None:
    seconds, curves = _centers_sec(found), found.curves
    axes.plot(seconds, curves.envelope_db, color=_MUTED, linewidth=0.6, label="envelope")
    axes.plot(seconds, curves.smoothed_db, color=_LINE, linewidth=1.4, label="smoothed")
    axes.plot(seconds, curves.floor_db, color=_INK, linewidth=0.9, label="floor")
    axes.fill_between(
        seconds,
        curves.floor_db + config.low_db,
        curves.floor_db + config.high_db,
        color=_INK,
        alpha=0.15,
        linewidth=0,
        label="hysteresis",
    )
    axes.set_ylabel("dB over the\nbands' floors", fontsize=9, color=_MUTED)
    axes.set_ylim(bottom=0)
    _shade(axes, found)
    axes.legend(
        loc="upper left", bbox_to_anchor=(1.0, 1.03), frameon=False, fontsize=9, labelcolor=_MUTED
    )
    _tidy(axes)


def _gradient(axes: Axes, found: FileActivities) -> None:
    axes.plot(_centers_sec(found), found.curves.gradient_db_per_sec, color=_LINE, linewidth=1.1)
    edge = found.curves.edge_db_per_sec
    for value in (edge, -edge):
        axes.axhline(value, color=_INK, linewidth=0.8, linestyle=(0, (4, 3)))
    axes.annotate(
        "threshold",
        (1, edge),
        xycoords=("axes fraction", "data"),
        xytext=(8, 0),
        textcoords="offset points",
        va="center",
        fontsize=9,
        color=_MUTED,
    )
    axes.set_ylabel("gradient\ndB/s", fontsize=9, color=_MUTED)
    _shade(axes, found)
    _tidy(axes)


def _shade(axes: Axes, found: FileActivities) -> None:
    for onset_sec, offset_sec in found.spans:
        axes.axvspan(onset_sec, offset_sec, color=_FOUND, alpha=0.16, linewidth=0)


def _tidy(axes: Axes) -> None:
    axes.tick_params(labelsize=8.5, colors=_MUTED, length=2, width=0.5)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#c9ccd1")
