"""Activities on the host: the curves of one clip, and its activities as spans of time."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from avt_jax.audio.activity import ActivityConfig, Analysis, analyse_batch
from avt_jax.audio.melspec import HOP_SEC, WINDOW_SEC


def analyse(fbank_sf: np.ndarray, config: ActivityConfig) -> Analysis:
    """The curves behind the activities of one clip [s, f] (s may be 0), as NumPy arrays."""
    fbank_sf = np.asarray(fbank_sf, np.float32)
    if len(fbank_sf) == 0:
        none = np.zeros(0, np.float32)
        return Analysis(none, none, none, none, np.float32(0), np.zeros(0, np.int32))
    batch = analyse_batch(jnp.asarray(fbank_sf[None]), config)
    return Analysis(*(np.asarray(values)[0] for values in batch))


def spans_of(ids_s: np.ndarray) -> list[tuple[float, float]]:
    """Turns numbered frames into times.

    A frame speaks for the middle 10 ms of its 25, the first and last also for what is outside.

    Args:
      ids_s: int [s], runs of the same number, 0 = background; gives one span each, in order.
    """
    ids_s = np.asarray(ids_s)
    changes = np.flatnonzero(np.diff(ids_s)) + 1
    bounds = [0, *changes.tolist(), len(ids_s)]
    margin_sec = (WINDOW_SEC - HOP_SEC) / 2

    def seconds(bound: int) -> float:
        outer_sec = 0.0 if bound == 0 else 2 * margin_sec if bound == len(ids_s) else margin_sec
        return round(bound * HOP_SEC + outer_sec, 4)

    return [
        (seconds(start), seconds(end))
        for start, end in zip(bounds, bounds[1:], strict=False)
        if start < end and ids_s[start] > 0
    ]


def detect(fbank_sf: np.ndarray, config: ActivityConfig) -> list[tuple[float, float]]:
    """When something sounds in a clip.

    Args:
      fbank_sf: [s, f] raw log-mel, as `activity_ids` takes it.
      config: the config block `activity`.

    Returns:
      (onset_sec, offset_sec) of each activity from the clip's start, in order.
    """
    return spans_of(analyse(fbank_sf, config).ids)
