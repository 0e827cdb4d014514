"""AV-Events, the embedded data set: .mp4 files whose class is a motion with a kind of sound.

There are 16 classes, one for each pair of MOTIONS and KINDS, equally frequent in every split. All
else is drawn independently of both, so whoever only watches, or only listens, is right for one clip
in four.

`render_dataset` writes what a user would bring (videos and a manifest), plus the true times of
every sound.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fractions
import functools
import os
import pathlib
from collections.abc import Mapping, Sequence

import av
import numpy as np

from avt_jax.data.av_events.audio import KINDS, synthesize_audio
from avt_jax.data.av_events.video import MOTIONS, draw_frames
from avt_jax.errors import UserError
from avt_jax.host.new_folder import new_folder
from avt_jax.host.output.cells import CellWriter
from avt_jax.host.progress import progress_bar
from avt_jax.host.worker_pool import WorkerDied, ordered_map

CLASS_NAMES = tuple(f"{motion}+{kind}" for motion in MOTIONS for kind in KINDS)
SPLITS = ("train", "val", "test")
SAMPLE_RATE_HZ = 16000

_MIN_CLIP_SEC = 1.0
_MAX_CLIP_SEC = 60.0
_MIN_SNR_DB = -20.0
_MAX_SNR_DB = 60.0
_CLIPS_PER_TASK = 8


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
    _check_arguments(
        counts, seed=seed, clip_sec=clip_sec, frame_rate_hz=frame_rate_hz, size_px=size_px
    )
    if snr_db is not None and not _MIN_SNR_DB <= snr_db <= _MAX_SNR_DB:
        raise UserError(
            f"snr_db must be between {_MIN_SNR_DB:g} and {_MAX_SNR_DB:g} dB, got {snr_db}"
        )
    specs = []
    for split_number, (split, count) in enumerate(counts.items()):
        for number, name in enumerate(_draw_classes([seed, split_number], count)):
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


def _draw_classes(seed: list[int], count: int) -> list[str]:
    """Class names in whole rounds of all, each in its own order: a remainder is of random ones."""
    rng = np.random.default_rng(seed)
    rounds = range(-(-count // len(CLASS_NAMES)))
    order = [index for _ in rounds for index in rng.permutation(len(CLASS_NAMES))]
    return [CLASS_NAMES[index] for index in order[:count]]


def _check_arguments(
    counts: dict[str, int], *, seed: int, clip_sec: float, frame_rate_hz: int, size_px: int
) -> None:
    """Raises UserError for the first value out of range."""
    for split, count in counts.items():
        if count < 0:
            raise UserError(f"the number of {split} clips must be 0 or more, got {count}")
    if sum(counts.values()) == 0:
        raise UserError("no clips were asked for; give a number of clips for at least one split")
    if seed < 0:
        raise UserError(f"seed must be 0 or more, got {seed}")
    if not _MIN_CLIP_SEC <= clip_sec <= _MAX_CLIP_SEC:
        raise UserError(
            f"clip_sec must be between {_MIN_CLIP_SEC:g} and {_MAX_CLIP_SEC:g} s, got {clip_sec}"
        )
    if not 1 <= frame_rate_hz <= 60:
        raise UserError(f"frame_rate_hz must be between 1 and 60, got {frame_rate_hz}")
    if not 32 <= size_px <= 512 or size_px % 2:
        raise UserError(f"size_px must be an even number between 32 and 512, got {size_px}")


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


def write_mp4(
    path: str | os.PathLike[str],
    frames_thwc: np.ndarray,
    waveform: np.ndarray | None,
    *,
    frame_rate_hz: int,
    sample_rate_hz: int = SAMPLE_RATE_HZ,
) -> None:
    """Encodes frames and sound as H.264 and AAC.

    Args:
      path: the file to write.
      frames_thwc: uint8 [t, h, w, 3] RGB, h and w even.
      waveform: float32 [samples] mono in [-1, 1], or None for a file without an audio stream.
      frame_rate_hz: frames per second.
      sample_rate_hz: samples per second.
    """
    _, height_px, width_px, _ = frames_thwc.shape
    with av.open(os.fspath(path), "w", format="mp4") as container:
        video = container.add_stream("libx264", rate=frame_rate_hz)
        video.width, video.height, video.pix_fmt = width_px, height_px, "yuv420p"
        # A key frame per second keeps seeking cheap. One thread: the pool already fills the cores.
        video.options = {
            "preset": "ultrafast",
            "crf": "20",
            "g": str(frame_rate_hz),
            "threads": "1",
        }
        audio: av.AudioStream | None = None
        if waveform is not None:
            audio = container.add_stream("aac", rate=sample_rate_hz, layout="mono")
            audio.bit_rate = 64000
            audio.options = {"aac_coder": "fast"}
        for frame_hwc in frames_thwc:
            container.mux(video.encode(av.VideoFrame.from_ndarray(frame_hwc, format="rgb24")))
        container.mux(video.encode(None))
        if audio is not None and waveform is not None:
            _encode_audio(container, audio, waveform, sample_rate_hz)


def _encode_audio(
    container: av.container.OutputContainer,
    stream: av.AudioStream,
    waveform: np.ndarray,
    sample_rate_hz: int,
) -> None:
    """Writes one waveform into an open container, one second at a time."""
    for start in range(0, len(waveform), sample_rate_hz):
        block = np.ascontiguousarray(waveform[None, start : start + sample_rate_hz], np.float32)
        frame = av.AudioFrame.from_ndarray(block, format="fltp", layout="mono")
        frame.sample_rate = sample_rate_hz
        frame.time_base = fractions.Fraction(1, sample_rate_hz)
        frame.pts = start
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


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
        events_of = _render_all(folder, specs, num_workers, progress)
        _write_tables(folder, specs, events_of)
    return out_dir / "clips.csv"


def _render_all(
    folder: pathlib.Path, specs: Sequence[ClipSpec], num_workers: int, progress: bool
) -> dict[str, list[tuple[float, float]]]:
    """Renders the clips in other processes; gives the sounds by path."""
    (folder / "videos").mkdir()
    starts = range(0, len(specs), _CLIPS_PER_TASK)
    tasks = [specs[first : first + _CLIPS_PER_TASK] for first in starts]
    events_of: dict[str, list[tuple[float, float]]] = {}
    results = ordered_map(
        functools.partial(_render_to_disk, folder), tasks, num_workers=num_workers
    )
    with (
        contextlib.closing(results),
        progress_bar(len(specs), "rendering clips", "clip", disable=not progress) as bar,
    ):
        for task, found in results:
            if isinstance(found, WorkerDied):
                raise UserError(f"{found} (clips from {task[0].path} on); use fewer processes.")
            events_of |= found
            bar.update(len(task))
    return events_of


def _write_tables(
    folder: pathlib.Path,
    specs: Sequence[ClipSpec],
    events_of: Mapping[str, Sequence[tuple[float, float]]],
) -> None:
    """Writes the manifest and the table of sounds."""
    with open(folder / "clips.csv", "w", newline="", encoding="utf-8") as file:
        writer = CellWriter(file, line_end="\n")
        writer.row(["path", "start_sec", "end_sec", "label", "split"])
        for spec in specs:
            writer.row([spec.path, "0.0", f"{spec.clip_sec:.3f}", spec.label, spec.split])
    with open(folder / "events.csv", "w", newline="", encoding="utf-8") as file:
        writer = CellWriter(file, line_end="\n")
        writer.row(["path", "onset_sec", "offset_sec", "kind"])
        for spec in specs:
            for onset_sec, offset_sec in events_of[spec.path]:
                writer.row([spec.path, f"{onset_sec:.4f}", f"{offset_sec:.4f}", spec.kind])
