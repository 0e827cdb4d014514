"""What rendered data sets share: their arguments, their files, and the processes that render."""

from __future__ import annotations

import contextlib
import fractions
import functools
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import av
import numpy as np

from avt_jax.errors import UserError
from avt_jax.host.output.cells import CellWriter
from avt_jax.host.progress import progress_bar
from avt_jax.host.worker_pool import WorkerDied, ordered_map

SPLITS = ("train", "val", "test")
SAMPLE_RATE_HZ = 16000

_MIN_CLIP_SEC = 1.0
_MAX_CLIP_SEC = 60.0
_MIN_SNR_DB = -20.0
_MAX_SNR_DB = 60.0
_CLIPS_PER_TASK = 8


class Spec(Protocol):
    """What is written of a clip into the manifest."""

    @property
    def path(self) -> str:
        """Where the clip goes, relative to the data set's folder."""

    @property
    def split(self) -> str:
        """One of SPLITS."""

    @property
    def label(self) -> str:
        """The class name."""

    @property
    def clip_sec(self) -> float:
        """Length in seconds."""


Found = TypeVar("Found")


def draw_classes(names: Sequence[str], seed: Sequence[int], count: int) -> list[str]:
    """Class names in whole rounds of all, each in its own order: a remainder is of random ones."""
    rng = np.random.default_rng(seed)
    rounds = range(-(-count // len(names)))
    order = [index for _ in rounds for index in rng.permutation(len(names))]
    return [names[index] for index in order[:count]]


def check_arguments(
    counts: Mapping[str, int],
    *,
    seed: int,
    clip_sec: float,
    frame_rate_hz: int,
    size_px: int,
    snr_db: float | None,
    least_clip_sec: float = _MIN_CLIP_SEC,
) -> None:
    """Raises UserError for the first value out of range; they are as in `specify_clips`."""
    for split, count in counts.items():
        if count < 0:
            raise UserError(f"the number of {split} clips must be 0 or more, got {count}")
    if sum(counts.values()) == 0:
        raise UserError("no clips were asked for; give a number of clips for at least one split")
    if seed < 0:
        raise UserError(f"seed must be 0 or more, got {seed}")
    if not least_clip_sec <= clip_sec <= _MAX_CLIP_SEC:
        raise UserError(
            f"clip_sec must be between {least_clip_sec:g} and {_MAX_CLIP_SEC:g} s, got {clip_sec}"
        )
    if not 1 <= frame_rate_hz <= 60:
        raise UserError(f"frame_rate_hz must be between 1 and 60, got {frame_rate_hz}")
    if not 32 <= size_px <= 512 or size_px % 2:
        raise UserError(f"size_px must be an even number between 32 and 512, got {size_px}")
    if snr_db is not None and not _MIN_SNR_DB <= snr_db <= _MAX_SNR_DB:
        raise UserError(
            f"snr_db must be between {_MIN_SNR_DB:g} and {_MAX_SNR_DB:g} dB, got {snr_db}"
        )


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


def render_all(
    folder: pathlib.Path,
    specs: Sequence[Spec],
    render: Callable[[pathlib.Path, Sequence[Any]], dict[str, Found]],
    *,
    num_workers: int,
    progress: bool,
) -> dict[str, Found]:
    """Renders the clips in other processes.

    Args:
      folder: where the data set is being made.
      specs: of all clips.
      render: (folder, a few of the specs) -> {path: what is true of it}; runs in a worker.
      num_workers: 0 renders in this process.
      progress: whether to draw a bar on stderr.

    Returns:
      What is true of each clip, by path.

    Raises:
      UserError: a worker died.
    """
    (folder / "videos").mkdir()
    starts = range(0, len(specs), _CLIPS_PER_TASK)
    tasks = [specs[first : first + _CLIPS_PER_TASK] for first in starts]
    truth: dict[str, Found] = {}
    results = ordered_map(functools.partial(render, folder), tasks, num_workers=num_workers)
    with (
        contextlib.closing(results),
        progress_bar(len(specs), "rendering clips", "clip", disable=not progress) as bar,
    ):
        for task, found in results:
            if isinstance(found, WorkerDied):
                raise UserError(f"{found} (clips from {task[0].path} on); use fewer processes.")
            truth |= found
            bar.update(len(task))
    return truth


def write_manifest(path: pathlib.Path, specs: Sequence[Spec]) -> None:
    """Writes the manifest of rendered clips."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = CellWriter(file, line_end="\n")
        writer.row(["path", "start_sec", "end_sec", "label", "split"])
        for spec in specs:
            writer.row([spec.path, "0.0", f"{spec.clip_sec:.3f}", spec.label, spec.split])
