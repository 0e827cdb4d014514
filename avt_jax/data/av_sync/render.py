"""AV-Sync, an embedded data set: is what is heard what is seen, and at the same time?

A clip has a source: one of THINGS, seen and heard. Its class is that thing and how sound and
picture stand to each other in time (RELATIONS), 16 classes, equally frequent in every split. In a
share of the clips another thing acts that is not heard, and in a share a third is heard and not
seen; then only both modalities together tell which thing is the source. The times of the picture
alone, and of the sound alone, tell nothing of the relation: who only watches, or only listens, is
right for one clip in four at most, and less often where there are distractors.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from avt_jax.data.av_events.dataset import (
    SAMPLE_RATE_HZ,
    SPLITS,
    check_arguments,
    draw_classes,
    render_all,
    write_manifest,
    write_mp4,
)
from avt_jax.data.av_sync.audio import mix_audio, sound_sec
from avt_jax.data.av_sync.instants import RELATIONS, heard_instants, place_instants
from avt_jax.data.av_sync.things import THINGS, Thing, draw_thing
from avt_jax.data.av_sync.video import draw_frames
from avt_jax.errors import UserError
from avt_jax.host.new_folder import new_folder
from avt_jax.host.output.cells import CellWriter

CLASS_NAMES = tuple(f"{thing}+{relation}" for thing in THINGS for relation in RELATIONS)
FEW_PERCENT = (1, 10)
"""Manifests with labels of so much of the training split are written, too."""

# The seen instants and the shifted ones need room on the circle.
_MIN_CLIP_SEC = 2.0


@dataclasses.dataclass(frozen=True)
class ClipSpec:
    """Everything that determines one clip.

    Attributes:
      path: where the clip goes, relative to the data set's folder.
      split: one of SPLITS.
      thing: the source, one of THINGS.
      relation: one of RELATIONS.
      seed_parts: seed of the data set, number of the split, number of the clip within it.
      clip_sec: length in seconds.
      frame_rate_hz: frames per second.
      size_px: width and height, even.
      distractors: probability of a silent thing, and that of one that is not seen.
      snr_db: loudness of what sounds over the background's, or None to draw the background's.
    """

    path: str
    split: str
    thing: str
    relation: str
    seed_parts: tuple[int, ...]
    clip_sec: float
    frame_rate_hz: int
    size_px: int
    distractors: float
    snr_db: float | None

    @property
    def label(self) -> str:
        """The class name, such as "ball+late"."""
        return f"{self.thing}+{self.relation}"


@dataclasses.dataclass(frozen=True)
class Act:
    """What one thing does in a clip.

    Attributes:
      thing: of a kind, make and size.
      is_source: it is both seen and heard.
      seen: [n] seconds; none where it is not seen.
      heard: [n] seconds; none where it is not heard.
      side: "left" or "right", where it is seen.
    """

    thing: Thing
    is_source: bool
    seen: np.ndarray
    heard: np.ndarray
    side: str


def specify_clips(
    *,
    num_train: int,
    num_val: int,
    num_test: int,
    seed: int,
    clip_sec: float = 4.0,
    frame_rate_hz: int = 25,
    size_px: int = 128,
    distractors: float = 0.5,
    snr_db: float | None = None,
) -> list[ClipSpec]:
    """Decides class, name and seed of every clip without rendering any.

    Args:
      num_train: clips in the train split, >= 0.
      num_val: clips in the val split, >= 0.
      num_test: clips in the test split, >= 0.
      seed: >= 0; the same seed gives the same data set.
      clip_sec: 2 to 60 seconds.
      frame_rate_hz: 1 to 60 frames per second.
      size_px: even, 32 to 512 pixels.
      distractors: 0 to 1, share of the clips with a silent thing, and with one that is not seen.
      snr_db: -20 to 60 dB, the same for all clips; None draws each clip's background.

    Returns:
      One ClipSpec per clip; in every split the number of clips per class differs by one at most.

    Raises:
      UserError: an argument is out of its range, or no clip at all was asked for.
    """
    counts = dict(zip(SPLITS, (num_train, num_val, num_test), strict=True))
    check_arguments(
        counts,
        seed=seed,
        clip_sec=clip_sec,
        frame_rate_hz=frame_rate_hz,
        size_px=size_px,
        snr_db=snr_db,
        least_clip_sec=_MIN_CLIP_SEC,
    )
    if not 0 <= distractors <= 1:
        raise UserError(f"distractors must be between 0 and 1, got {distractors}")
    shared: dict[str, Any] = dict(
        clip_sec=clip_sec,
        frame_rate_hz=frame_rate_hz,
        size_px=size_px,
        distractors=distractors,
        snr_db=snr_db,
    )
    specs = []
    for split_number, (split, count) in enumerate(counts.items()):
        for number, name in enumerate(draw_classes(CLASS_NAMES, [seed, split_number], count)):
            path, parts = f"videos/{split}_{number:05d}.mp4", (seed, split_number, number)
            thing, relation = name.split("+")
            specs.append(ClipSpec(path, split, thing, relation, parts, **shared))
    return specs


def plan_acts(spec: ClipSpec) -> list[Act]:
    """What happens in a clip: the source, and what distracts from it.

    Every clip takes the same numbers from its stream, whatever its class and its distractors.
    """
    rng = np.random.default_rng([*spec.seed_parts, 0])
    others = [kind for kind in THINGS if kind != spec.thing]
    silent, unseen = (str(kind) for kind in rng.permutation(others)[:2])
    things = [draw_thing(kind, rng) for kind in (spec.thing, silent, unseen)]
    sides = ["left", "right"] if rng.uniform() < 0.5 else ["right", "left"]
    distracted = rng.uniform(size=2) < spec.distractors
    times = [np.random.default_rng(rng.integers(2**63)) for _ in range(4)]
    seen, silent_seen, unseen_heard = (place_instants(one, spec.clip_sec) for one in times[:3])
    heard = heard_instants(spec.relation, seen, times[3], spec.clip_sec)
    nothing = np.zeros(0)
    acts = [Act(things[0], True, seen, heard, sides[0])]
    if distracted[0]:
        acts.append(Act(things[1], False, silent_seen, nothing, sides[1]))
    if distracted[1]:
        acts.append(Act(things[2], False, nothing, unseen_heard, ""))
    return acts


def render_clip(spec: ClipSpec) -> tuple[np.ndarray, np.ndarray, list[Act]]:
    """Renders one clip in memory.

    Args:
      spec: what to render.

    Returns:
      (frames_thwc, waveform, acts): uint8 [t, h, w, 3] RGB; float32 [samples] mono in [-1, 1] at
      SAMPLE_RATE_HZ; what is true of it.
    """
    acts = plan_acts(spec)
    video_rng = np.random.default_rng([*spec.seed_parts, 1])
    audio_rng = np.random.default_rng([*spec.seed_parts, 2])
    frames_thwc = draw_frames(
        [(act.thing, act.seen, act.side) for act in acts if act.side],
        video_rng,
        num_frames=round(spec.clip_sec * spec.frame_rate_hz),
        frame_rate_hz=spec.frame_rate_hz,
        size_px=spec.size_px,
    )
    waveform = mix_audio(
        [(act.thing, act.heard) for act in acts if len(act.heard)],
        audio_rng,
        clip_sec=spec.clip_sec,
        sample_rate_hz=SAMPLE_RATE_HZ,
        snr_db=spec.snr_db,
    )
    return frames_thwc, waveform, acts


def _render_to_disk(folder: pathlib.Path, specs: Sequence[ClipSpec]) -> dict[str, list[Act]]:
    """Renders and encodes a few clips under a folder, in a worker; gives what is true of them."""
    acts_of = {}
    for spec in specs:
        frames_thwc, waveform, acts_of[spec.path] = render_clip(spec)
        write_mp4(folder / spec.path, frames_thwc, waveform, frame_rate_hz=spec.frame_rate_hz)
    return acts_of


def render_dataset(
    out_dir: str | os.PathLike[str],
    specs: Sequence[ClipSpec],
    *,
    num_workers: int = 0,
    progress: bool = True,
) -> pathlib.Path:
    """Renders AV-Sync into a folder that appears only when it is complete.

    It holds `videos/*.mp4`; the manifest `clips.csv` (path, start_sec, end_sec, label, split), and
    `labelled_1.csv` and `labelled_10.csv`, the same with 1 % and 10 % of each class of the training
    clips, one at least; `events.csv` (path, onset_sec, offset_sec, kind), one row per sound; and
    `seen.csv` (path, instant_sec, kind, side, is_source), one row per seen event.

    Args:
      out_dir: must not exist, or be empty.
      specs: from `specify_clips`.
      num_workers: processes; 0 renders in this one. The data set does not depend on it.
      progress: whether to draw a progress bar on stderr.

    Returns:
      The path of the manifest.

    Raises:
      UserError: the folder is not empty, or it cannot be written.
    """
    out_dir = pathlib.Path(out_dir)
    with new_folder(out_dir) as folder:
        acts_of = render_all(
            folder, specs, _render_to_disk, num_workers=num_workers, progress=progress
        )
        write_manifest(folder / "clips.csv", specs)
        for percent in FEW_PERCENT:
            write_manifest(folder / f"labelled_{percent}.csv", labelled_few(specs, percent))
        _write_truth(folder, specs, acts_of)
    return out_dir / "clips.csv"


def labelled_few(specs: Sequence[ClipSpec], percent: float) -> list[ClipSpec]:
    """The clips with fewer training ones: the first of each class; 1 % are among 10 %.

    Args:
      specs: of all clips.
      percent: of the training clips of each class that are kept, one at least.
    """
    taken: dict[str, int] = {}
    total: dict[str, int] = {}
    for spec in specs:
        if spec.split == "train":
            total[spec.label] = total.get(spec.label, 0) + 1
    kept = []
    for spec in specs:
        if spec.split == "train":
            if taken.get(spec.label, 0) >= max(1, round(total[spec.label] * percent / 100)):
                continue
            taken[spec.label] = taken.get(spec.label, 0) + 1
        kept.append(spec)
    return kept


def _write_truth(
    folder: pathlib.Path, specs: Sequence[ClipSpec], acts_of: Mapping[str, Sequence[Act]]
) -> None:
    """Writes what is heard and what is seen, clip by clip."""
    with (
        open(folder / "events.csv", "w", newline="", encoding="utf-8") as heard_file,
        open(folder / "seen.csv", "w", newline="", encoding="utf-8") as seen_file,
    ):
        heard, seen = CellWriter(heard_file, line_end="\n"), CellWriter(seen_file, line_end="\n")
        heard.row(["path", "onset_sec", "offset_sec", "kind"])
        seen.row(["path", "instant_sec", "kind", "side", "is_source"])
        for spec in specs:
            for act in acts_of[spec.path]:
                kind = act.thing.kind
                for onset_sec in act.heard:
                    offset_sec = min(onset_sec + sound_sec(act.thing), spec.clip_sec)
                    heard.row([spec.path, f"{onset_sec:.4f}", f"{offset_sec:.4f}", kind])
                for instant_sec in act.seen:
                    row = [spec.path, f"{instant_sec:.4f}", kind, act.side, int(act.is_source)]
                    seen.row([str(cell) for cell in row])
