"""What is looked at of every clip of a shard folder, without keeping any picture or sound."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import math
import os
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from avt_jax.audio.melspec import LOG_FLOOR
from avt_jax.data import records
from avt_jax.data.media.jpeg import frame_shape
from avt_jax.data.records import RecordsInfo, RecordSource
from avt_jax.data.records.labels import Label, compact
from avt_jax.data.shard_tools.moments import Moments
from avt_jax.errors import UserError, first_line
from avt_jax.host.progress import progress_bar

MAX_CONTENT = 20_000
"""Clips whose pictures and sound are looked at by default, spread evenly over the splits."""

# float16 keeps eleven bits: next to the log floor its steps are a hundredth.
_AT_FLOOR = LOG_FLOOR + 0.02
# Of each split, in a short look; what is then computed of their names takes a tenth of a second.
_MOST_GLANCED, _GLANCED_CONTENT = 4000, 100
_GOLDEN = (5**0.5 - 1) / 2


@dataclasses.dataclass(frozen=True, slots=True)
class Content:
    """What a clip's pictures and sound are.

    Attributes:
      picture: hash of all frames; None where they are all the same or there are none.
      sound: hash of the log-mel rows; None where there is no sound.
      is_still: the frames are all the same, or there are none.
      is_silent: there is no sound, or none that can be heard.
      short_side_px: of the first frame; 0 without one.
    """

    picture: bytes | None
    sound: bytes | None
    is_still: bool
    is_silent: bool
    short_side_px: int


@dataclasses.dataclass(frozen=True, slots=True)
class ClipFacts:
    """What is kept of a clip: some hundred bytes beside the name of its file.

    Attributes:
      split: where it lies.
      source: the file it was cut from.
      labels: {label set: class index, or the indices of a multi-label set}.
      length_sec: of its span.
      num_frames: stored.
      content: None for those that are not looked at more closely.
    """

    split: str
    source: str
    labels: Mapping[str, Label]
    length_sec: float
    num_frames: int
    content: Content | None


@dataclasses.dataclass
class Facts:
    """What was seen of a shard folder.

    Attributes:
      path: the folder, or its URL.
      info: what it says about itself.
      clips: those that could be read.
      num_damaged: records that could not, per split.
      first_damaged: what was wrong with the first of them.
      lost: {split: why it cannot be opened}.
      is_complete: every clip was looked at, not only some.
      log_mel: of the clips with content; their mean and standard deviation.
    """

    path: str
    info: RecordsInfo
    clips: list[ClipFacts] = dataclasses.field(default_factory=list)
    num_damaged: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    first_damaged: str = ""
    lost: dict[str, str] = dataclasses.field(default_factory=dict)
    is_complete: bool = True
    log_mel: Moments = dataclasses.field(default_factory=Moments)
    _kept: dict[Any, Any] = dataclasses.field(default_factory=dict)

    @property
    def num_content(self) -> int:
        """Clips whose pictures and sound were looked at."""
        return sum(clip.content is not None for clip in self.clips)

    def add(self, source: RecordSource, split: str, index: int, *, with_content: bool) -> None:
        """Looks at a clip; a damaged record is counted."""
        try:
            record = source.read_lazily(index)
            clip = self._clip_facts(record, split, with_content=with_content)
        except Exception as error:  # whatever damaged bytes provoke in a parser
            self.num_damaged[split] += 1
            if not self.first_damaged:
                self.first_damaged = f"clip {index} of {split}: {first_line(error)}"
            return
        self.clips.append(clip)
        if clip.content is not None and not clip.content.is_silent:
            self.log_mel.add(record["fbank"])

    def _clip_facts(
        self, record: Mapping[str, Any], split: str, *, with_content: bool
    ) -> ClipFacts:
        source, labels = record["source"], compact(record["labels"])
        return ClipFacts(
            split=split,
            # Most clips share these with others: kept once, they take no memory.
            source=self._kept.setdefault(source, source),
            labels=self._kept.setdefault(tuple(labels.values()), labels),
            length_sec=record["end_sec"] - record["start_sec"],
            num_frames=len(record["frames"]),
            content=_content(record) if with_content else None,
        )


def read_facts(path: str | os.PathLike[str], *, max_content: int = MAX_CONTENT) -> Facts:
    """Looks at every clip of a shard folder once, with progress on stderr.

    Args:
      path: shard folder, or URL of one.
      max_content: >= 0; of at most so many clips, evenly spread, the pictures and the sound.

    Raises:
      UserError: not a shard folder. Damaged records and splits are counted.
    """
    path = os.fspath(path)
    facts = Facts(path, records.read_info(path))
    total = sum(facts.info.splits.values())
    chosen, place = min(max_content, total), 0
    with progress_bar(total, "looking", "clip", leave=False) as bar:
        for split, count in facts.info.splits.items():
            try:
                source = records.open_split(path, split)
            except UserError as error:
                facts.lost[split] = str(error)
                place += count
                bar.update(count)
                continue
            for index in range(count):
                is_chosen = place * chosen // total != (place + 1) * chosen // total
                facts.add(source, split, index, with_content=is_chosen)
                place += 1
                bar.update()
    return facts


def glance(
    path: str, info: RecordsInfo, splits: Mapping[str, RecordSource], *, limit_sec: float
) -> Facts:
    """Looks at as many clips as a short time allows, spread evenly over the splits.

    Args:
      path: their folder.
      info: of the folder.
      splits: opened.
      limit_sec: > 0, for all of them together.
    """
    facts = Facts(path, info)
    began_sec = time.monotonic()
    for number, (split, source) in enumerate(splits.items(), 1):
        for place, index in enumerate(_spread(len(source))):
            is_late = time.monotonic() - began_sec > limit_sec * number / len(splits)
            if is_late or place == _MOST_GLANCED:
                facts.is_complete = False
                break
            facts.add(source, split, index, with_content=place < _GLANCED_CONTENT)
    return facts


def _spread(count: int) -> Iterator[int]:
    """All numbers below `count`, so that the first ones, however many, lie evenly among them."""
    step = max(1, round(count * _GOLDEN))
    while math.gcd(step, count) > 1:
        step += 1
    return (number * step % count for number in range(count))


def _content(record: Mapping[str, Any]) -> Content:
    digest = hashlib.blake2b(digest_size=12)
    first: bytes | None = None
    is_still = True
    for frame in record["frames"]:
        first = frame if first is None else first
        is_still = is_still and frame == first
        digest.update(len(frame).to_bytes(4, "little") + frame)
    # A single frame may be of anything that moves.
    is_still = (is_still and len(record["frames"]) != 1) or "still_video" in record["flags"]
    fbank_sf: np.ndarray = record["fbank"]
    is_silent = not record["has_audio"] or "silent_audio" in record["flags"]
    is_silent = is_silent or float(fbank_sf.max(initial=-math.inf)) <= _AT_FLOOR
    sound = hashlib.blake2b(fbank_sf.tobytes(), digest_size=12).digest()
    return Content(
        picture=None if is_still else digest.digest(),
        sound=None if is_silent else sound,
        is_still=is_still,
        is_silent=is_silent,
        short_side_px=min(frame_shape(first)) if first is not None else 0,
    )
