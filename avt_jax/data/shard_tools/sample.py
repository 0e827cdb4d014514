"""What a training needs to know of its clips, from some of them: lengths, sizes, loudness."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass

from avt_jax.data import records
from avt_jax.data.media.jpeg import frame_shape
from avt_jax.data.shard_tools.moments import Moments
from avt_jax.errors import UserError

MAX_CLIPS = 300
"""So many are read, spread evenly over the split: a second or two."""


@dataclass(frozen=True)
class ClipSample:
    """What some clips of a split look like.

    Attributes:
      num_clips: of the whole split.
      label_sets: {label set: number of classes}.
      length_sec: median of the clips' lengths.
      frame_rate_hz: frames stored per second.
      short_side_px: median of the shorter sides of stored frames; 0 without frames.
      audio_mean: of all log-mel values; None without sound.
      audio_std: their standard deviation.
    """

    num_clips: int
    label_sets: dict[str, int]
    length_sec: float
    frame_rate_hz: float
    short_side_px: int
    audio_mean: float | None
    audio_std: float | None


def sample_split(path: str, split: str = "train") -> ClipSample:
    """Reads some clips of a split; which ones depends on their number only.

    Args:
      path: shard folder, or URL of one.
      split: name of the split.

    Raises:
      UserError: no such split, it is empty, or none of the clips can be read.
    """
    info, source = records.read_info(path), records.open_split(path, split)
    lengths, sides, moments = [], [], Moments()
    for index in records.evenly_spread(len(source), MAX_CLIPS):
        try:
            record = source.read_lazily(index)
            if len(record["frames"]):
                sides.append(min(frame_shape(record["frames"][0])))
        except (UserError, ValueError):  # damaged; the training counts these
            continue
        lengths.append(record["end_sec"] - record["start_sec"])
        if record["has_audio"]:
            moments.add(record["fbank"])
    if not lengths:
        raise UserError(
            f"no clip of the split {split!r} of {path} can be read; extract clips for it, or run "
            f"'avt shards verify {path}'."
        )
    mean, std = moments.mean_and_std()
    known = mean is not None and std is not None and math.isfinite(mean[0] + std[0]) and std[0] > 0
    return ClipSample(
        num_clips=len(source),
        label_sets={name: len(classes) for name, classes in info.label_sets.items()},
        length_sec=statistics.median(lengths),
        frame_rate_hz=info.frame_rate_hz,
        short_side_px=int(statistics.median(sides)) if sides else 0,
        audio_mean=mean[0] if known and mean else None,
        audio_std=std[0] if known and std else None,
    )
