"""A picture of a few clips: frames in a row, the spectrogram below on the same time axis."""

from __future__ import annotations

import bisect
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from avt_jax.audio.melspec import HOP_SEC, LOG_FLOOR, WINDOW_SEC, hz_to_mel
from avt_jax.data.media.jpeg import decode_frame
from avt_jax.data.records import RecordSource, has_video
from avt_jax.data.records.labels import class_indices, named
from avt_jax.errors import UserError
from avt_jax.host.new_files import replacing
from avt_jax.host.output.terminal import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Text

_COLUMN_IN = 6.4
_STRIP_IN = 0.95
_SPECTROGRAM_IN = 1.05
_SEAM_IN = 0.03
_HEADER_IN = 0.36
_FOOTER_IN = 0.3
_LEFT_IN, _GAP_IN, _RIGHT_IN = 0.55, 0.65, 0.3
_TITLE_IN = 0.5
_MAX_CLASSES = 0.6  # of a column's width; the rest of the header is the source's
_HEADER_GAP_IN = 0.15
_INK, _PALE, _EMPTY = "#1b1f24", "#6b7280", "#f1f2f4"
_TICKS_HZ = (100, 1000, 4000)


def choose_clips(source: RecordSource, num_clips: int) -> list[int]:
    """Picks clips of as many different classes as possible, spread over the split.

    Args:
      source: an open split.
      num_clips: >= 1, how many at most.

    Returns:
      Record indices, ordered by class.
    """
    by_label: dict[tuple[tuple[int, ...], ...], list[int]] = {}
    # A few thousand records show every class of most data sets and take a second to read.
    step = max(1, len(source) // 2000)
    for index in range(0, len(source), step):
        key = _key(source[index])
        by_label.setdefault(key, []).append(index)
    keys = sorted(by_label)
    chosen: list[int] = []
    for turn in range(max(map(len, by_label.values()), default=0)):
        candidates = [by_label[key][turn] for key in keys if turn < len(by_label[key])]
        room = num_clips - len(chosen)
        if room <= len(candidates):
            places = np.linspace(0, len(candidates) - 1, room).round().astype(int)
            chosen += [candidates[place] for place in places]
            break
        chosen += candidates
    return sorted(chosen, key=lambda index: (_key(source[index]), index))


def _key(record: Mapping[str, Any]) -> tuple[tuple[int, ...], ...]:
    return tuple(map(class_indices, record["labels"].values()))


def save_contact_sheet(
    source: RecordSource,
    indices: Sequence[int],
    path: str | os.PathLike[str],
    *,
    title: str,
    headings: Sequence[str] | None = None,
) -> None:
    """Draws clips into a PNG, two per row.

    Args:
      source: an open split.
      indices: the records to draw, at least one.
      path: PNG to write; an older one is replaced.
      title: heading of the picture.
      headings: what stands above each clip; None = its classes.

    Raises:
      UserError: the picture cannot be written, or a stored frame is damaged.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    num_columns = min(2, len(indices))
    num_rows = -(-len(indices) // num_columns)
    block_in = _HEADER_IN + _STRIP_IN + _SEAM_IN + _SPECTROGRAM_IN + _FOOTER_IN
    width_in = _LEFT_IN + num_columns * _COLUMN_IN + (num_columns - 1) * _GAP_IN + _RIGHT_IN
    height_in = _TITLE_IN + num_rows * block_in + 0.1
    figure = Figure(figsize=(width_in, height_in), dpi=110, facecolor="white")
    canvas = FigureCanvasAgg(figure)
    place_of_title = (_LEFT_IN / width_in, 1 - 0.34 / height_in)
    style = {"fontsize": 13, "fontweight": "bold", "color": _INK, "va": "center"}
    heading = figure.text(*place_of_title, title, style)
    fit_text(heading, (width_in - _LEFT_IN - _RIGHT_IN) * figure.dpi, keep_end=True)

    def axes(row: int, column: int, top_in: float, block_height_in: float) -> Axes:
        left = _LEFT_IN + column * (_COLUMN_IN + _GAP_IN)
        bottom = height_in - _TITLE_IN - row * block_in - top_in - block_height_in
        return figure.add_axes(
            (
                left / width_in,
                bottom / height_in,
                _COLUMN_IN / width_in,
                block_height_in / height_in,
            )
        )

    for place, index in enumerate(indices):
        row, column = divmod(place, num_columns)
        record = source[index]
        strip = axes(row, column, _HEADER_IN, _STRIP_IN)
        below = axes(row, column, _HEADER_IN + _STRIP_IN + _SEAM_IN, _SPECTROGRAM_IN)
        _draw_header(strip, record, headings[place] if headings else _classes(source, record))
        _draw_frames(strip, record)
        _draw_spectrogram(below, record)
    with replacing(Path(path), "wb") as file:
        canvas.print_png(file)


def _classes(source: RecordSource, record: dict[str, Any]) -> str:
    names = source.info.label_sets
    return "  ·  ".join(named(record["labels"][name], classes) for name, classes in names.items())


def fit_text(text: Text, width_px: float, *, tail: str = "", keep_end: bool = False) -> None:
    """Shortens a matplotlib text until it fits into its place; "$" starts no formula in it.

    Args:
      text: of a figure that has a renderer; what it says is changed.
      width_px: room for it, in pixels at the figure's dpi.
      tail: added behind, and never shortened.
      keep_end: leave out the start, as suits a path, and not the end.
    """
    whole = printable(text.get_text())
    text.set_parse_math(False)

    def too_wide(kept: int) -> bool:
        part = whole[len(whole) - kept :] if keep_end else whole[:kept]
        if kept < len(whole):
            part = f"…{part}" if keep_end else f"{part}…"
        text.set_text(part + tail)
        return text.get_window_extent().width > width_px

    if too_wide(len(whole)):
        first_too_wide = bisect.bisect_left(range(len(whole)), True, key=too_wide)
        too_wide(max(first_too_wide - 1, 0))


def _draw_header(axes: Axes, record: dict[str, Any], heading: str) -> None:
    where: dict[str, Any] = {
        "xytext": (0, 5),
        "xycoords": "axes fraction",
        "textcoords": "offset points",
    }
    classes = axes.annotate(heading, (0, 1), fontsize=10, fontweight="bold", color=_INK, **where)
    source = axes.annotate(record["source"], (1, 1), fontsize=7, color=_PALE, ha="right", **where)
    column_px = axes.get_window_extent().width
    fit_text(classes, _MAX_CLASSES * column_px)
    left_px = column_px - classes.get_window_extent().width - _HEADER_GAP_IN * axes.figure.dpi
    span = f"   {record['start_sec']:.2f} to {record['end_sec']:.2f} s"
    fit_text(source, left_px, tail=span, keep_end=True)


def _draw_frames(axes: Axes, record: dict[str, Any]) -> None:
    """Thumbnails side by side; each shows the middle of the stretch of time it covers."""
    length_sec = record["end_sec"] - record["start_sec"]
    axes.set_facecolor(_EMPTY)
    axes.set(xlim=(0, length_sec), ylim=(0, 1), xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    if not has_video(record):
        _say_missing(axes, "no picture")
        return
    first_hwc = _decode(record, 0)
    aspect = first_hwc.shape[1] / first_hwc.shape[0]
    count = max(1, min(len(record["frames"]), round(_COLUMN_IN / (_STRIP_IN * aspect))))
    cell_sec = length_sec / count
    for cell in range(count):
        wanted = int((cell + 0.5) * cell_sec * record["frame_rate_hz"])
        image_hwc = crop_middle(
            _decode(record, min(wanted, len(record["frames"]) - 1)),
            (_COLUMN_IN / count) / _STRIP_IN,
        )
        extent = (cell * cell_sec, (cell + 1) * cell_sec, 0, 1)
        axes.imshow(image_hwc, extent=extent, aspect="auto", interpolation="bilinear")
        if cell:
            axes.axvline(cell * cell_sec, color="white", linewidth=1.5)
    axes.set(xlim=(0, length_sec), ylim=(0, 1))


def _say_missing(axes: Axes, what: str) -> None:
    axes.text(0.5, 0.5, what, transform=axes.transAxes, ha="center", va="center", color=_PALE)


def _decode(record: dict[str, Any], index: int) -> np.ndarray:
    try:
        return decode_frame(record["frames"][index])
    except (ValueError, IndexError) as error:
        raise UserError(
            f"frame {index} of clip {record['id']} is damaged ({error}); extract again."
        ) from error


def crop_middle(image_hwc: np.ndarray, aspect: float) -> np.ndarray:
    """Cuts the middle out of an image so that it has the given width / height."""
    height_px, width_px = image_hwc.shape[:2]
    new_width_px = min(width_px, max(1, round(height_px * aspect)))
    new_height_px = min(height_px, max(1, round(width_px / aspect)))
    top, left = (height_px - new_height_px) // 2, (width_px - new_width_px) // 2
    return image_hwc[top : top + new_height_px, left : left + new_width_px]


def _draw_spectrogram(axes: Axes, record: dict[str, Any]) -> None:
    length_sec = record["end_sec"] - record["start_sec"]
    axes.set_facecolor(_EMPTY)
    if record["has_audio"]:
        fbank_sf = record["fbank"].astype(np.float32)
        # The loudest and faintest hundredth would otherwise decide the colours of the rest.
        low, high = np.percentile(fbank_sf, (2, 99.5))
        low = max(float(low), float(high) - 16.0, LOG_FLOOR)
        # A row is drawn around the middle of its window.
        left_sec = (WINDOW_SEC - HOP_SEC) / 2
        axes.imshow(
            fbank_sf.T,
            extent=(left_sec, left_sec + len(fbank_sf) * HOP_SEC, 0, fbank_sf.shape[1]),
            origin="lower",
            aspect="auto",
            cmap="magma",
            vmin=low,
            vmax=max(float(high), low + 1.0),
            interpolation="nearest",
        )
    else:
        _say_missing(axes, "no audio")
    axes.set(xlim=(0, length_sec), ylim=(0, record["fbank"].shape[1]))
    mel_low, mel_high = hz_to_mel(20.0), hz_to_mel(8000.0)
    rows = [
        (hz_to_mel(hz) - mel_low) / (mel_high - mel_low) * record["fbank"].shape[1]
        for hz in _TICKS_HZ
    ]
    axes.set_yticks(rows, [f"{hz / 1000:g}" for hz in _TICKS_HZ])
    axes.set_ylabel("kHz", fontsize=7, color=_PALE)
    axes.tick_params(labelsize=7, colors=_PALE, length=2, width=0.5, pad=2)
    axes.xaxis.set_major_formatter("{x:g} s")
    axes.locator_params(axis="x", nbins=8)
    axes.spines[:].set_visible(False)
