"""Cuts a file of any length into the windows a model sees, and keeps a small picture of it."""

from __future__ import annotations

import collections
import itertools
import math
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from avt_jax.audio.melspec import HOP_SEC, WINDOW_SEC
from avt_jax.data.media.jpeg import decode_frame
from avt_jax.data.records import MEL_BINS, has_video
from avt_jax.errors import UserError

MAX_WINDOWS = 100_000
# What is left over after the last whole window and is shorter than this share of a window is not
# looked at: containers often last some milliseconds longer than their pictures.
REST_SHARE = 0.05

_MAX_COLUMNS = 1200
_SEAM_SEC = 0.025
_MIN_SLOTS, _MAX_SLOTS = 3, 14

T = TypeVar("T")
S = TypeVar("S")


def plan_windows(
    duration_sec: float, *, clip_sec: float, hop_sec: float
) -> list[tuple[float, float]]:
    """Where the windows of a file lie.

    Args:
      duration_sec: > 0, length of the file.
      clip_sec: > 0, length of a window.
      hop_sec: > 0, from the start of one window to the next.

    Returns:
      [(start_sec, end_sec), ...] in order, each `clip_sec` long; the last is moved back to end
      with the file. A file that is not longer than a window (or by less than 5 % of one) has one
      window, which starts at 0 and ends with the shorter of the two.

    Raises:
      UserError: hop_sec is not positive, or there would be more than 100,000 windows.
    """
    check_hop(hop_sec)
    rest_sec = REST_SHARE * clip_sec
    if duration_sec <= clip_sec + rest_sec:
        return [(0.0, min(duration_sec, clip_sec))]
    # A start that is late only by rounding counts.
    count = math.floor((duration_sec - clip_sec) / hop_sec + 1e-6) + 1
    if count > MAX_WINDOWS:
        raise UserError(
            f"a file of {duration_sec:.0f} s has {count} windows, {hop_sec:g} s apart; "
            f"give a larger hop, for at most {MAX_WINDOWS} windows."
        )
    starts = [i * hop_sec for i in range(count)]
    if duration_sec - (starts[-1] + clip_sec) > rest_sec:
        starts.append(duration_sec - clip_sec)
    return [(start, start + clip_sec) for start in starts]


def check_hop(hop_sec: float) -> None:
    """Raises UserError for a distance between windows that is not positive."""
    if not (hop_sec > 0 and math.isfinite(hop_sec)):
        raise UserError(f"the hop between windows is {hop_sec:g} s; give a positive number.")


def read_ahead(
    pool: Executor, function: Callable[[S], T], items: Iterable[S], *, depth: int
) -> Generator[T, None, None]:
    """Maps a function over items in other threads, in order, at most `depth` items ahead.

    `Executor.map` would start on all items at once and hold all results.

    Args:
      pool: runs the function.
      function: called with each item; what it raises is raised here.
      items: read one by one. An iterator that has ended is asked again after each result: what was
        made of one may bring others.
      depth: >= 1, items in work or waiting.

    Yields:
      The results in the order of the items.
    """
    items = iter(items)
    waiting: collections.deque[Future[T]] = collections.deque()
    try:
        while True:
            more = itertools.islice(items, depth - len(waiting))
            waiting.extend(pool.submit(function, item) for item in more)
            if not waiting:
                return
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


@dataclass(frozen=True)
class Preview:
    """A file in a size that fits in a picture, however long it is.

    Attributes:
      frames: [h, w, 3] uint8 images; image i of n stands for the i-th n-th of the file. None where
        nothing could be decoded, and throughout where there is no picture.
      fbank_sf: [columns, mel bins] float32, mean log-mel in equal stretches of the whole file;
        NaN where there is no sound.
    """

    frames: tuple[np.ndarray | None, ...]
    fbank_sf: np.ndarray


class PreviewBuilder:
    """Collects a `Preview` while records pass by; its memory does not grow with the file.

    Args:
      duration_sec: of the file.
      windows: spans that will be decoded.
      aspect: width / height of a frame; wide frames leave room for fewer.
      strip_aspect: width / height of the strip of frames in the picture.
    """

    def __init__(
        self,
        duration_sec: float,
        windows: Sequence[tuple[float, float]],
        *,
        aspect: float,
        strip_aspect: float = 11.0,
    ):
        slots = int(np.clip(round(strip_aspect / aspect), _MIN_SLOTS, _MAX_SLOTS))
        self._times_sec = (np.arange(slots) + 0.5) * duration_sec / slots
        self._frames: list[np.ndarray | None] = [None] * slots
        starts, ends = np.asarray(windows).T
        # Each picture comes from the window nearest to its time, so it is decoded only once.
        outside = np.maximum(starts - self._times_sec[:, None], self._times_sec[:, None] - ends)
        self._window_of = np.argmin(np.maximum(outside, 0), axis=1)
        columns = int(np.clip(math.ceil(duration_sec / HOP_SEC), 1, _MAX_COLUMNS))
        self._column_sec = duration_sec / columns
        self._sum_sf = np.zeros((columns, MEL_BINS), np.float32)
        self._count_s = np.zeros(columns, np.int64)

    def add(self, window: int, record: dict[str, Any]) -> None:
        """Takes what the picture needs from the record of one window."""
        rate_hz, start_sec = float(record["frame_rate_hz"]), record["start_sec"]
        for slot in np.flatnonzero(self._window_of == window) if has_video(record) else ():
            wanted = math.floor((self._times_sec[slot] - start_sec) * rate_hz)
            index = int(np.clip(wanted, 0, len(record["frames"]) - 1))
            self._frames[slot] = decode_frame(record["frames"][index])
        fbank_sf = record["fbank"]
        middle_s = start_sec + np.arange(len(fbank_sf)) * HOP_SEC + WINDOW_SEC / 2
        column_s = np.minimum((middle_s / self._column_sec).astype(int), len(self._count_s) - 1)
        np.add.at(self._sum_sf, column_s, fbank_sf.astype(np.float32))
        np.add.at(self._count_s, column_s, 1)

    def build(self) -> Preview:
        """The preview of what was added."""
        heard_s = self._count_s > 0
        fbank_sf = np.full_like(self._sum_sf, np.nan)
        fbank_sf[heard_s] = self._sum_sf[heard_s] / self._count_s[heard_s, None]
        if heard_s.any():
            # The last spectrogram row of a window ends with it, so its start is 15 ms earlier:
            # seams that thin take the colour of the nearest row.
            place_s, heard_at = np.arange(len(heard_s)), np.flatnonzero(heard_s)
            after_s = np.clip(np.searchsorted(heard_at, place_s), 0, len(heard_at) - 1)
            near_s = heard_at[
                np.where(
                    abs(heard_at[after_s] - place_s) <= abs(heard_at[after_s - 1] - place_s),
                    after_s,
                    after_s - 1,
                )
            ]
            seam_s = ~heard_s & (abs(near_s - place_s) * self._column_sec <= _SEAM_SEC)
            fbank_sf[seam_s] = fbank_sf[near_s[seam_s]]
        return Preview(tuple(self._frames), fbank_sf)
