"""Finds the audio activities of a media file of any length."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from avt_jax.audio.activity import ActivityConfig, Analysis
from avt_jax.audio.activity_spans import analyse, spans_of
from avt_jax.audio.melspec import HOP_SEC, WINDOW_SEC, fbank
from avt_jax.data.media.container import DecodeError
from avt_jax.data.media.probe import probe
from avt_jax.data.media.sound import decode_audio
from avt_jax.errors import UserError

SAMPLE_RATE_HZ = 16000

# A file that is longer is looked at through windows of this length. Of each, what is near a border
# with another is left to the other, which sees both sides of it.
_WINDOW_SEC = 60.0
_MARGIN_SEC = 10.0
_MAX_FILE_SEC = 24 * 3600.0
_MAX_COLUMNS = 4000  # of the curves and the spectrogram that are kept for a picture


@dataclass(frozen=True)
class FileActivities:
    """When something sounds in a file.

    Attributes:
      path: as given.
      duration_sec: length of the file.
      spans: (onset_sec, offset_sec) of each activity, in order.
      column_sec: time that a column of `fbank` and of the curves stands for.
      fbank: float32 [columns, 128], log-mel; means over a column's frames.
      curves: the detector's curves over the columns; `ids` is 0 or 1.
    """

    path: str
    duration_sec: float
    spans: tuple[tuple[float, float], ...]
    column_sec: float
    fbank: np.ndarray
    curves: Analysis


def find_activities(
    path: str | os.PathLike[str],
    config: ActivityConfig,
    *,
    on_window: Callable[[int, int], None] = lambda done, total: None,
) -> FileActivities:
    """Decodes a file's sound as `avt extract` does and looks for activities.

    Memory does not grow with the file's length, but for one byte per frame.

    Args:
      path: media file with sound.
      config: the config block `activity`.
      on_window: called with (windows done, windows in all).

    Returns:
      The activities.

    Raises:
      UserError: the file has no sound, is too long, or cannot be decoded.
    """
    path = os.fspath(path)
    try:
        media = probe(path)
        if not media.has_audio:
            raise UserError(f"{path} has no audio stream; give a file with sound.")
        if media.duration_sec > _MAX_FILE_SEC:
            raise UserError(
                f"{path} lasts {media.duration_sec / 3600:.1f} hours, more than the "
                f"{_MAX_FILE_SEC / 3600:.0f} that are looked at; cut it into parts."
            )
        return _look_through(path, media.duration_sec, config, on_window)
    except DecodeError as error:
        raise UserError(f"{error.message}; no activities were looked for.") from error


def plan_windows(num_frames: int, *, margin_sec: float) -> Iterator[tuple[int, int, int, int]]:
    """Cuts frames into overlapping windows, each frame belonging to one.

    Args:
      num_frames: of the whole file.
      margin_sec: what of a window belongs to its neighbour.

    Yields:
      (start, end, first, last): the frames of a window, and those that belong to it.
    """
    size, margin = round(_WINDOW_SEC / HOP_SEC), round(margin_sec / HOP_SEC)
    first = 0
    while first < num_frames:
        start = max(0, min(first - margin, num_frames - size))
        end = min(start + size, num_frames)
        last = num_frames if end == num_frames else end - margin
        yield start, end, first, last
        first = last


def _look_through(
    path: str, duration_sec: float, config: ActivityConfig, on_window: Callable[[int, int], None]
) -> FileActivities:
    num_frames = max(0, math.floor((duration_sec - WINDOW_SEC) / HOP_SEC + 1e-6) + 1)
    # Both floors and the longest activity must fit in, or the seams would show.
    margin_sec = min(max(_MARGIN_SEC, 2 * config.max_activity_sec), 0.4 * _WINDOW_SEC)
    windows = list(plan_windows(num_frames, margin_sec=margin_sec))
    per_column = max(1, -(-num_frames // _MAX_COLUMNS))
    columns = _Columns(-(-num_frames // per_column), per_column)
    active_s = np.zeros(num_frames, bool)
    for done, (start, end, first, last) in enumerate(windows, start=1):
        rows_sf = _rows(path, start, end)
        seen = analyse(rows_sf, config)
        inner = slice(first - start, last - start)
        active_s[first:last] = seen.ids[inner] > 0
        columns.add(first, rows_sf[inner], seen, inner)
        on_window(done, len(windows))
    starts_s = active_s & ~np.concatenate([[False], active_s[:-1]])
    ids_s = np.where(active_s, np.cumsum(starts_s), 0)
    fbank_cf, curves = columns.means()
    return FileActivities(
        path=path,
        duration_sec=duration_sec,
        spans=tuple(spans_of(ids_s)),
        column_sec=per_column * HOP_SEC,
        fbank=fbank_cf,
        curves=curves,
    )


def _rows(path: str, start: int, end: int) -> np.ndarray:
    """The log-mel rows of a window, float32 [end - start, 128]."""
    # The last row's window reaches beyond its hop; what is past the file's end decodes as silence.
    end_sec = (end - 1) * HOP_SEC + WINDOW_SEC
    try:
        waveform = decode_audio(path, start * HOP_SEC, end_sec, sample_rate_hz=SAMPLE_RATE_HZ)
    except DecodeError:
        raise
    except Exception as error:  # whatever a hostile file provokes in a codec
        reason = f"{type(error).__name__}: {error}"
        raise DecodeError("unexpected", f"{path} cannot be decoded ({reason})") from error
    if waveform is None:
        raise UserError(f"{path} has no audio stream; give a file with sound.")
    return fbank(waveform, sample_rate_hz=SAMPLE_RATE_HZ)[: end - start]


class _Columns:
    """Adds frames up into columns, a window at a time."""

    def __init__(self, number: int, per_column: int):
        self._per_column = per_column
        self._count_c = np.zeros(number)
        self._fbank_cf = np.zeros((number, 128))
        self._curves_5c = np.zeros((5, number))
        self._edge = 0.0

    def add(self, first: int, rows_sf: np.ndarray, seen: Analysis, inner: slice) -> None:
        column_s = (first + np.arange(len(rows_sf))) // self._per_column
        np.add.at(self._count_c, column_s, 1)
        np.add.at(self._fbank_cf, column_s, rows_sf)
        curves = (
            seen.envelope_db,
            seen.smoothed_db,
            seen.gradient_db_per_sec,
            seen.floor_db,
            seen.ids > 0,
        )
        for total_c, values_s in zip(self._curves_5c, curves, strict=True):
            np.add.at(total_c, column_s, values_s[inner])
        self._edge = max(self._edge, float(seen.edge_db_per_sec))

    def means(self) -> tuple[np.ndarray, Analysis]:
        count_c = np.maximum(self._count_c, 1)
        envelope, smoothed, gradient, floor, active = self._curves_5c / count_c
        ids = (active >= 0.5).astype(np.int32)
        curves = Analysis(envelope, smoothed, gradient, floor, self._edge, ids)
        return (self._fbank_cf / count_c[:, None]).astype(np.float32), curves
