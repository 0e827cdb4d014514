"""Counts, durations and sizes of a shard folder."""

from __future__ import annotations

import collections
import csv
import dataclasses
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from avt_jax.data import records
from avt_jax.data.media.jpeg import frame_shape
from avt_jax.data.records.labels import class_indices
from avt_jax.data.shard_tools.moments import Moments
from avt_jax.errors import UserError


@dataclasses.dataclass
class SplitSummary:
    """What one split holds.

    Attributes:
      num_clips: records.
      num_sources: different videos they are cut from.
      num_without_audio: records without sound.
      num_without_video: records of sound alone.
      num_bytes: size of the shard files.
      total_sec: sum of the clips' lengths.
      shortest_sec: inf when there is no clip.
      longest_sec: 0 when there is no clip.
      class_counts: per label set, clips per class index.
      frame_sizes: clips with a picture per (width_px, height_px).
      flag_counts: clips per code of `records.FLAG_CODES`.
    """

    num_clips: int = 0
    num_sources: int = 0
    num_without_audio: int = 0
    num_without_video: int = 0
    num_bytes: int = 0
    total_sec: float = 0.0
    shortest_sec: float = math.inf
    longest_sec: float = 0.0
    class_counts: dict[str, collections.Counter[int]] = dataclasses.field(default_factory=dict)
    frame_sizes: collections.Counter[tuple[int, int]] = dataclasses.field(
        default_factory=collections.Counter
    )
    flag_counts: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)


@dataclasses.dataclass(frozen=True)
class Summary:
    """What a shard folder holds.

    Attributes:
      info: its own description.
      splits: per split.
      fbank_mean: mean over all log-mel values of the training split (of the first split if there
        is none), None without sound. A config calls it `data.audio_mean`.
      fbank_std: their standard deviation. A config calls it `data.audio_std`.
      failures: number of clips in failed.csv per reason.
      shared_sources: videos that occur in more than one split, at most 10 of them.
    """

    info: records.RecordsInfo
    splits: dict[str, SplitSummary]
    fbank_mean: float | None
    fbank_std: float | None
    failures: collections.Counter[str]
    shared_sources: tuple[str, ...]


def summarize(
    path: str | os.PathLike[str], *, on_clip: Callable[[], Any] = lambda: None
) -> Summary:
    """Reads every record of a shard folder once.

    Args:
      path: shard folder.
      on_clip: called after each record, for a progress bar.

    Returns:
      Its counts.

    Raises:
      UserError: not a shard folder, or something in it is damaged.
    """
    info = records.read_info(path)
    splits: dict[str, SplitSummary] = {}
    split_of_source: dict[str, str] = {}
    shared: dict[str, None] = {}
    moments = Moments()
    for split in info.splits:
        source = records.open_split(path, split)
        result = splits[split] = SplitSummary(
            num_bytes=source.num_bytes,
            class_counts={name: collections.Counter() for name in info.label_sets},
        )
        sources = set()
        for index in range(len(source)):
            record = source[index]
            _add(result, record)
            sources.add(record["source"])
            if split == next(iter(info.splits)):
                moments.add(record["fbank"])
            on_clip()
        result.num_sources = len(sources)
        for name in sources:
            if split_of_source.setdefault(name, split) != split:
                shared[name] = None
    mean, std = moments.mean_and_std()
    return Summary(
        info=info,
        splits=splits,
        fbank_mean=mean[0] if mean else None,
        fbank_std=std[0] if std else None,
        failures=_read_failures(Path(path) / "failed.csv"),
        shared_sources=tuple(sorted(shared)[:10]),
    )


def _add(result: SplitSummary, record: dict[str, Any]) -> None:
    length_sec = record["end_sec"] - record["start_sec"]
    result.num_clips += 1
    result.num_without_audio += not record["has_audio"]
    result.total_sec += length_sec
    result.shortest_sec = min(result.shortest_sec, length_sec)
    result.longest_sec = max(result.longest_sec, length_sec)
    result.flag_counts.update(record["flags"])
    for name, label in record["labels"].items():
        result.class_counts[name].update(class_indices(label))
    if not records.has_video(record):
        result.num_without_video += 1
        return
    try:
        height_px, width_px = frame_shape(record["frames"][0])
    except (ValueError, IndexError) as error:
        raise UserError(
            f"clip {record['id']} is damaged: its first frame cannot be read ({error}); extract "
            "again."
        ) from error
    result.frame_sizes[width_px, height_px] += 1


def _read_failures(path: Path) -> collections.Counter[str]:
    """Counts by reason; a folder from which failed.csv was removed counts as without failures."""
    if not path.is_file():
        return collections.Counter()
    with open(path, encoding="utf-8", errors="replace", newline="") as file:
        return collections.Counter(row.get("reason") or "?" for row in csv.DictReader(file))
