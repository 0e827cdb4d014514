"""A picture of a prediction: frames, spectrogram and probabilities on one time axis."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from avt_jax.audio.melspec import LOG_FLOOR, hz_to_mel
from avt_jax.data.shard_tools.contact_sheet import crop_middle, fit_text
from avt_jax.host.new_files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from avt_jax.inference.prediction import FilePrediction

_INK, _MUTED, _EMPTY, _TRACK = "#1b1f24", "#6b7280", "#f1f2f4", "#f3f4f6"
_COLOURS = ("#2563eb", "#d97706", "#059669", "#9333ea", "#dc2626", "#0891b2")
_LEFT_IN, _MIDDLE_IN, _RIGHT_IN = 2.5, 11.0, 0.75
_STRIP_IN, _SEAM_IN, _SPECTROGRAM_IN, _ROW_IN = 1.0, 0.05, 1.3, 0.34
_TITLE_IN, _HEADING_IN, _FOOT_IN = 0.85, 0.32, 0.5
_EDGE_IN, _LABEL_GAP_PT = 0.1, 8
_DPI = 120  # of the figure, too: letters are not as wide at another
_MAX_SEPARATED = 60  # windows with a line between them
_TICKS_HZ = (100, 500, 2000, 6000)


def draw_timeline(prediction: FilePrediction, path: Path, *, number: int = 5) -> None:
    """Draws a prediction into a PNG.

    From the top: frames, spectrogram, and for each label set its most probable classes, one row
    each, whose height is the probability at that time. Everything shares the time axis. When the
    file is one window, nothing changes over time: the rows are bars then.

    Args:
      prediction: of one file.
      path: PNG to write; an older one is replaced.
      number: classes shown of each label set.

    Raises:
      UserError: the picture cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = {
        name: np.argsort(-overall_y, kind="stable")[:number]
        for name, overall_y in prediction.overall.items()
    }
    # A file that is one window has its time axis below the spectrogram, which needs room.
    heading_in = _HEADING_IN if len(prediction.windows) > 1 else 0.75
    heights_in = [_STRIP_IN, _SEAM_IN, _SPECTROGRAM_IN]
    for classes in rows.values():
        heights_in += [heading_in] + [_ROW_IN] * len(classes)
        heading_in = _HEADING_IN
    width_in = _LEFT_IN + _MIDDLE_IN + _RIGHT_IN
    height_in = _TITLE_IN + sum(heights_in) + _FOOT_IN
    figure = Figure(figsize=(width_in, height_in), dpi=_DPI, facecolor="white")
    canvas = FigureCanvasAgg(figure)
    tops_in = np.cumsum([_TITLE_IN, *heights_in])

    def axes(block: int) -> Axes:
        bottom = (height_in - tops_in[block + 1]) / height_in
        size = (_MIDDLE_IN / width_in, heights_in[block] / height_in)
        return figure.add_axes((_LEFT_IN / width_in, bottom, *size))

    _title(figure, prediction, width_in, height_in)
    _frames(axes(0), prediction)
    _spectrogram(spectrogram := axes(2), prediction)
    over_time = len(prediction.windows) > 1
    last = spectrogram
    block = 4
    for name, classes in rows.items():
        _heading(axes(block - 1), "probability" if len(rows) == 1 else f"{name}: probability")
        for index, colour in zip(classes, itertools.cycle(_COLOURS), strict=False):
            row = axes(block)
            (_steps if over_time else _bar)(row, prediction, name, index, colour)
            _label_row(row, prediction, name, index, colour)
            last = row if over_time else spectrogram
            block += 1
        block += 1
    _time_axis(last, prediction.duration_sec)
    _save(canvas, path)


def clock(seconds: float, *, with_fraction: bool = True) -> str:
    """A time as people write it: "0:04.5", "1:02:03"."""
    tenths = round(seconds * 10) if with_fraction else round(seconds) * 10
    minutes, tenths = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    shown = f"{tenths // 10:02}" + (f".{tenths % 10}" if with_fraction else "")
    return f"{hours}:{minutes:02}:{shown}" if hours else f"{minutes}:{shown}"


def _title(figure: Figure, prediction: FilePrediction, width_in: float, height_in: float) -> None:
    # With several label sets, the last entry is all of them together.
    name, probability = list(prediction.top(1).values())[-1][0]
    number = len(prediction.windows)
    about = f"   {clock(prediction.duration_sec)}   {number} window{'s' if number > 1 else ''}"
    left, width_px = _LEFT_IN / width_in, (_MIDDLE_IN + _RIGHT_IN - _EDGE_IN) * figure.dpi
    best = figure.text(
        left, 1 - 0.3 / height_in, name, fontsize=15, fontweight="bold", color=_INK, va="center"
    )
    fit_text(best, width_px, tail=f"   {100 * probability:.0f} %")
    file = os.path.basename(prediction.path)
    below = figure.text(left, 1 - 0.62 / height_in, file, fontsize=9.5, color=_MUTED, va="center")
    fit_text(below, width_px, tail=about)


def _frames(axes: Axes, prediction: FilePrediction) -> None:
    frames, duration_sec = prediction.preview.frames, prediction.duration_sec
    slot_sec = duration_sec / len(frames)
    axes.set_facecolor(_EMPTY)
    for slot, image_hwc in enumerate(frames if prediction.has_video else ()):
        if image_hwc is not None:
            image_hwc = crop_middle(image_hwc, _MIDDLE_IN / len(frames) / _STRIP_IN)
            extent = (slot * slot_sec, (slot + 1) * slot_sec, 0, 1)
            axes.imshow(image_hwc, extent=extent, aspect="auto", interpolation="antialiased")
        if slot:
            axes.axvline(slot * slot_sec, color="white", linewidth=1.5)
    axes.set(xlim=(0, duration_sec), ylim=(0, 1), xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    if not prediction.has_video:
        _say_missing(axes, "no picture in this file")


def _say_missing(axes: Axes, what: str) -> None:
    axes.text(0.5, 0.5, what, transform=axes.transAxes, ha="center", va="center", color=_MUTED)


def _spectrogram(axes: Axes, prediction: FilePrediction) -> None:
    fbank_sf = prediction.preview.fbank_sf
    heard_sf = fbank_sf[np.isfinite(fbank_sf).all(axis=1)]
    axes.set_facecolor(_EMPTY)
    axes.spines[:].set_visible(False)
    axes.set(xlim=(0, prediction.duration_sec), ylim=(0, fbank_sf.shape[1]), xticks=[])
    if not len(heard_sf):
        _say_missing(axes, "no sound in this file")
        axes.set_yticks([])
        return
    # The faintest and loudest values would otherwise decide the colours of the rest.
    low, high = np.percentile(heard_sf, (2, 99.5))
    low = max(float(low), float(high) - 16.0, LOG_FLOOR)
    axes.imshow(
        fbank_sf.T,
        extent=(0, prediction.duration_sec, 0, fbank_sf.shape[1]),
        origin="lower",
        aspect="auto",
        cmap="magma",
        vmin=low,
        vmax=max(float(high), low + 1.0),
        interpolation="nearest",
    )
    mel_low, mel_high = hz_to_mel(20.0), hz_to_mel(8000.0)
    places = [
        (hz_to_mel(hz) - mel_low) / (mel_high - mel_low) * fbank_sf.shape[1] for hz in _TICKS_HZ
    ]
    axes.set_yticks(places, [f"{hz / 1000:g} kHz" for hz in _TICKS_HZ])
    axes.tick_params(labelsize=8, colors=_MUTED, length=2, width=0.5)


def _heading(axes: Axes, text: str) -> None:
    axes.set_axis_off()
    heading = axes.annotate(
        text, (0, 0), xytext=(0, 6), textcoords="offset points", fontsize=9.5, color=_MUTED
    )
    fit_text(heading, axes.get_window_extent().width)


def window_edges(spans: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The stretch of time each window speaks for: its own, shared evenly where windows overlap.

    Args:
      spans: (start_sec, end_sec) of the windows, in order.

    Returns:
      (left_sec, right_sec) of each; they do not overlap, and leave out what no window covers.
    """
    between = [
        ((end + start) / 2,) * 2 if end > start else (end, start)
        for (_, end), (start, _) in zip(spans, spans[1:], strict=False)
    ]
    lefts = [spans[0][0], *(start for _, start in between)]
    rights = [*(end for end, _ in between), spans[-1][1]]
    return list(zip(lefts, rights, strict=True))


def _steps(axes: Axes, prediction: FilePrediction, name: str, index: int, colour: str) -> None:
    """One class over time: the height of a window's step is its probability."""
    axes.set(xlim=(0, prediction.duration_sec), ylim=(0, 1.18))
    axes.axhspan(0, 1, color=_TRACK, linewidth=0)
    edges = window_edges([(w.start_sec, w.end_sec) for w in prediction.windows])
    height = [float(window.probabilities[name][index]) for window in prediction.windows]
    left, right = np.asarray(edges).T
    axes.bar(left, height, width=right - left, align="edge", color=colour, linewidth=0)
    if len(edges) <= _MAX_SEPARATED:
        axes.vlines(left[1:], 0, 1, color="white", linewidth=0.8)


def _bar(axes: Axes, prediction: FilePrediction, name: str, index: int, colour: str) -> None:
    """One class of a file that is one window: the length of the bar is its probability."""
    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.barh(
        [0.5, 0.5],
        [1, float(prediction.overall[name][index])],
        height=0.62,
        color=[_TRACK, colour],
        linewidth=0,
    )


def _label_row(axes: Axes, prediction: FilePrediction, name: str, index: int, colour: str) -> None:
    """The class's name on the left, its probability over the whole file on the right."""
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    where: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
    label = axes.annotate(
        prediction.label_sets[name][index],
        (0, 0.5),
        xytext=(-_LABEL_GAP_PT, 0),
        ha="right",
        va="center",
        fontsize=10,
        color=_INK,
        **where,
    )
    fit_text(label, (_LEFT_IN - _LABEL_GAP_PT / 72 - _EDGE_IN) * axes.figure.dpi)
    axes.annotate(
        f"{100 * float(prediction.overall[name][index]):.1f} %",
        (1, 0.5),
        xytext=(_LABEL_GAP_PT, 0),
        va="center",
        fontsize=10,
        fontweight="bold",
        color=colour,
        **where,
    )


def _time_axis(axes: Axes, duration_sec: float) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(12, steps=[1, 1.5, 2, 3, 5, 6, 10]))
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda sec, _: clock(sec, with_fraction=duration_sec < 20))
    )
    axes.tick_params(axis="x", labelsize=8.5, colors=_MUTED, length=3, width=0.5)


def _save(canvas: FigureCanvasAgg, path: Path) -> None:
    with replacing(path, "wb") as file:
        canvas.figure.savefig(file, format="png", dpi=_DPI)
