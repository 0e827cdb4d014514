"""AV-Events, the embedded data set: .mp4 files whose class is a motion with a kind of sound.

There are 16 classes, one for each pair of MOTIONS and KINDS, equally frequent in every split. All
else is drawn independently of both, so whoever only watches, or only listens, is right for one clip
in four.

`render_dataset` writes what a user would bring (videos and a manifest), plus the true times of
every sound.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from avt_jax.data.av_events.audio import KINDS, synthesize_audio
from avt_jax.data.av_events.dataset import (
    SAMPLE_RATE_HZ,
    SPLITS,
    check_arguments,
    draw_classes,
    render_all,
    write_manifest,
    write_mp4,
)
from avt_jax.data.av_events.video import MOTIONS, draw_frames
from avt_jax.host.new_folder import new_folder
from avt_jax.host.output.cells import CellWriter

CLASS_NAMES = tuple(f"{motion}+{kind}" for motion in MOTIONS for kind in KINDS)


@dataclasses.dataclass(frozen=True)
class ClipSpec:
    """Everything that determines one clip.

    Attributes:
      path: where the clip goes, relative to the data set's folder.
      split: one of SPLITS.
      motion: one of MOTIONS.
      kind: one of KINDS.
      seed_parts: seed of the data set, number of the split, number of the clip within it.
      clip_sec: length in seconds.
      frame_rate_hz: frames per second.
      size_px: width and height, even.
      snr_db: loudness of the sounds over the background's, or None to draw the background's.
    """

    path: str
    split: str
    motion: str
    kind: str
    seed_parts: tuple[int, ...]
    clip_sec: float
    frame_rate_hz: int
    size_px: int
    snr_db: float | None = None

    @property
    def label(self) -> str:
        """The class name, such as "bounce+chirp"."""
        return f"{self.motion}+{self.kind}"


def specify_clips(
    *,
    num_train: int,
    num_val: int,
    num_test: int,
    seed: int,
    clip_sec: float = 4.0,
    frame_rate_hz: int = 25,
    size_px: int = 128,
    snr_db: float | None = None,
) -> list[ClipSpec]:
    """Decides class, name and seed of every clip without rendering any.

    A clip depends on the seed, its split and its number only: asking for more clips of one split
    changes no other split's pictures and sounds. File names do not reveal the class.

    Args:
      num_train: clips in the train split, >= 0.
      num_val: clips in the val split, >= 0.
      num_test: clips in the test split, >= 0.
      seed: >= 0; the same seed gives the same data set.
      clip_sec: 1 to 60 seconds.
      frame_rate_hz: 1 to 60 frames per second.
      size_px: even, 32 to 512 pixels.
      snr_db: -20 to 60 dB, the same for all clips; None draws each clip's background. See
        `audio.synthesize_audio`.

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
    )
    specs = []
    for split_number, (split, count) in enumerate(counts.items()):
        for number, name in enumerate(draw_classes(CLASS_NAMES, [seed, split_number], count)):
            motion, kind = name.split("+")
            specs.append(
                ClipSpec(
                    path=f"videos/{split}_{number:05d}.mp4",
                    split=split,
                    motion=motion,
                    kind=kind,
                    seed_parts=(seed, split_number, number),
                    clip_sec=clip_sec,
                    frame_rate_hz=frame_rate_hz,
                    size_px=size_px,
                    snr_db=snr_db,
                )
            )
    return specs


def render_clip(spec: ClipSpec) -> tuple[np.ndarray, np.ndarray, list[tuple[float, float]]]:
    """Renders one clip in memory.

    Args:
      spec: what to render.

    Returns:
      (frames_thwc, waveform, events): uint8 [t, h, w, 3] RGB; float32 [samples] mono in [-1, 1] at
      SAMPLE_RATE_HZ; (onset_sec, offset_sec) of every sound.
    """
    # Two streams: whatever one modality draws, the other's numbers stay where they are.
    video_rng = np.random.default_rng([*spec.seed_parts, 0])
    audio_rng = np.random.default_rng([*spec.seed_parts, 1])
    frames_thwc = draw_frames(
        spec.motion,
        video_rng,
        num_frames=round(spec.clip_sec * spec.frame_rate_hz),
        frame_rate_hz=spec.frame_rate_hz,
        size_px=spec.size_px,
    )
    waveform, events = synthesize_audio(
        spec.kind,
        audio_rng,
        clip_sec=spec.clip_sec,
        sample_rate_hz=SAMPLE_RATE_HZ,
        snr_db=spec.snr_db,
    )
    return frames_thwc, waveform, events


def _render_to_disk(
    folder: pathlib.Path, specs: Sequence[ClipSpec]
) -> dict[str, list[tuple[float, float]]]:
    """Renders and encodes a few clips under a folder, in a worker; gives the sounds by path."""
    events_of = {}
    for spec in specs:
        frames_thwc, waveform, events_of[spec.path] = render_clip(spec)
        write_mp4(folder / spec.path, frames_thwc, waveform, frame_rate_hz=spec.frame_rate_hz)
    return events_of


def render_dataset(
    out_dir: str | os.PathLike[str],
    *,
    num_train: int,
    num_val: int,
    num_test: int,
    seed: int,
    clip_sec: float = 4.0,
    frame_rate_hz: int = 25,
    size_px: int = 128,
    snr_db: float | None = None,
    num_workers: int = 0,
    progress: bool = True,
) -> pathlib.Path:
    """Renders AV-Events into a folder that appears only when it is complete.

    It holds `videos/*.mp4`, the manifest `clips.csv` (path, start_sec, end_sec, label, split) and
    `events.csv` (path, onset_sec, offset_sec, kind), one row per sound.

    Args:
      out_dir: must not exist, or be empty.
      num_train, num_val, num_test, seed, clip_sec, frame_rate_hz, size_px, snr_db: as in
        specify_clips.
      num_workers: processes; 0 renders in this one. The data set does not depend on it.
      progress: whether to draw a progress bar on stderr.

    Returns:
      The path of the manifest.

    Raises:
      UserError: a value is out of range, the folder is not empty, or it cannot be written.
    """
    out_dir = pathlib.Path(out_dir)
    specs = specify_clips(
        num_train=num_train,
        num_val=num_val,
        num_test=num_test,
        seed=seed,
        clip_sec=clip_sec,
        frame_rate_hz=frame_rate_hz,
        size_px=size_px,
        snr_db=snr_db,
    )
    with new_folder(out_dir) as folder:
        events_of = render_all(
            folder, specs, _render_to_disk, num_workers=num_workers, progress=progress
        )
        write_manifest(folder / "clips.csv", specs)
        _write_events(folder, specs, events_of)
    return out_dir / "clips.csv"


def _write_events(
    folder: pathlib.Path,
    specs: Sequence[ClipSpec],
    events_of: Mapping[str, Sequence[tuple[float, float]]],
) -> None:
    """Writes the table of sounds."""
    with open(folder / "events.csv", "w", newline="", encoding="utf-8") as file:
        writer = CellWriter(file, line_end="\n")
        writer.row(["path", "onset_sec", "offset_sec", "kind"])
        for spec in specs:
            for onset_sec, offset_sec in events_of[spec.path]:
                writer.row([spec.path, f"{onset_sec:.4f}", f"{offset_sec:.4f}", spec.kind])
