"""Mean and standard deviation of a split's sound and pictures, which a config needs."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from avt_jax.data import records
from avt_jax.data.media.jpeg import decode_frame
from avt_jax.data.records.shards import locate
from avt_jax.data.shard_tools.moments import Moments
from avt_jax.errors import UserError
from avt_jax.host.progress import progress_bar
from avt_jax.host.worker_pool import WorkerDied, ordered_map

# Records that a worker reads at a time; sums are added up in this order whatever their number.
_CHUNK = 32


@dataclasses.dataclass(frozen=True)
class Stats:
    """Statistics of a split.

    Attributes:
      path: shard folder.
      split: name of the split.
      num_clips: records read.
      num_with_audio: of these, records with sound.
      num_fbank_rows: spectrogram rows.
      num_frames: pictures.
      audio_mean: of all log-mel values of the records with sound; None without any.
      audio_std: their standard deviation.
      video_mean: per RGB channel, of all pixels scaled to [0, 1]; None without frames.
      video_std: per RGB channel.
    """

    path: str
    split: str
    num_clips: int
    num_with_audio: int
    num_fbank_rows: int
    num_frames: int
    audio_mean: float | None
    audio_std: float | None
    video_mean: tuple[float, float, float] | None
    video_std: tuple[float, float, float] | None

    def overrides(self) -> str:
        """The options that put the statistics into a config, to paste into a command line."""
        words = []
        for name in ("audio_mean", "audio_std"):
            if getattr(self, name) is not None:
                words.append(f"--config.data.{name}={getattr(self, name):.5f}")
        for name in ("video_mean", "video_std"):
            if getattr(self, name) is not None:
                numbers = ",".join(f"{value:.5f}" for value in getattr(self, name))
                words.append(f'--config.data.{name}="({numbers})"')
        return " ".join(words)


@dataclasses.dataclass(frozen=True)
class _Part:
    """Some records of a split."""

    path: str
    split: str
    indices: tuple[int, ...]


@dataclasses.dataclass
class _Sums:
    """What some records add to the statistics."""

    num_with_audio: int = 0
    num_frames: int = 0
    num_fbank_rows: int = 0
    sound: Moments = dataclasses.field(default_factory=Moments)
    pixels: Moments = dataclasses.field(default_factory=lambda: Moments(3))

    def add(self, record: Mapping[str, Any]) -> None:
        """Adds a record.

        Raises:
          ValueError: a frame is damaged.
        """
        if record["has_audio"]:
            self.num_with_audio += 1
            self.num_fbank_rows += len(record["fbank"])
            self.sound.add(record["fbank"])
        last, last_pixels = None, None
        for jpeg in record["frames"]:
            if last_pixels is None or jpeg != last:
                # The decoder's exact way, not the fast one: numbers to be published with a model.
                image_hwc = decode_frame(jpeg)
                last, last_pixels = jpeg, Moments(3)
                last_pixels.add(image_hwc)
            self.pixels.merge(last_pixels)
            self.num_frames += 1

    def merge(self, other: _Sums) -> None:
        """Adds other sums."""
        self.num_with_audio += other.num_with_audio
        self.num_frames += other.num_frames
        self.num_fbank_rows += other.num_fbank_rows
        self.sound.merge(other.sound)
        self.pixels.merge(other.pixels)


def measure_split(
    path: str | os.PathLike[str],
    split: str = "train",
    *,
    num_workers: int | None = None,
    max_clips: int | None = None,
) -> Stats:
    """Reads the records of a split once, with progress on stderr.

    All stored rows and all pixels of all stored frames count the same. The result does not depend
    on the number of workers.

    Args:
      path: shard folder.
      split: name of the split.
      num_workers: processes that read; None is one per core, 0 none but this one.
      max_clips: read at most so many, spread evenly over the split; None is all.

    Returns:
      The statistics.

    Raises:
      UserError: no such split, or a record is damaged (names shard file and index).
    """
    if max_clips is not None and max_clips < 1:
        raise UserError(f"{max_clips} clips give no statistics; give 1 or more.")
    path = os.fspath(path)
    indices = records.evenly_spread(len(records.open_split(path, split)), max_clips)
    used = len(indices)
    parts = [
        _Part(path, split, tuple(indices[first : first + _CHUNK]))
        for first in range(0, used, _CHUNK)
    ]
    sums = _Sums()
    results = ordered_map(_measure_part, parts, num_workers=num_workers)
    with contextlib.closing(results), progress_bar(used, "measuring", "clip") as bar:
        for part, result in results:
            if isinstance(result, WorkerDied):
                shard, first = locate(path, split, part.indices[0])
                raise UserError(
                    f"a process died reading the records of shard {Path(path) / shard} from "
                    f"{first} on; run 'avt shards verify {path}'."
                )
            sums.merge(result)
            bar.update(len(part.indices))
    audio_mean, audio_std = sums.sound.mean_and_std()
    video_mean, video_std = sums.pixels.mean_and_std()
    return Stats(
        path=path,
        split=split,
        num_clips=used,
        num_with_audio=sums.num_with_audio,
        num_fbank_rows=sums.num_fbank_rows,
        num_frames=sums.num_frames,
        audio_mean=audio_mean[0] if audio_mean else None,
        audio_std=audio_std[0] if audio_std else None,
        video_mean=_scaled(video_mean),
        video_std=_scaled(video_std),
    )


def _scaled(levels_c: list[float] | None) -> tuple[float, float, float] | None:
    """Numbers per RGB channel of 255 levels, for pixels in [0, 1]."""
    if levels_c is None:
        return None
    red, green, blue = levels_c
    return red / 255, green / 255, blue / 255


def _measure_part(part: _Part) -> _Sums:
    """Runs in a worker."""
    source = records.open_split(part.path, part.split)
    sums = _Sums()
    for index in part.indices:
        try:
            sums.add(source[index])
        except (UserError, ValueError) as error:
            shard, position = locate(part.path, part.split, index)
            raise UserError(
                f"record {position} of shard {shard} in {part.path} is damaged ({error}); run "
                f"'avt shards verify {part.path}' to list all such records."
            ) from None
    return sums
