"""The config block `data`: what a clip looks like on its way to the model."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from avt_jax.data.records.schema import FBANK_RATE_HZ, MEL_BINS
from avt_jax.errors import UserError

AUTO_WORKERS = -1
"""Value of `num_workers` that leaves the choice to a trial, see `loading.tune_workers`."""

_MAX_CLIP_SEC = 600.0
_MAX_FRAME_PX = 4096


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """The config block `data`. `DataConfig(**block)` checks every value.

    Attributes:
      path: shard folder that `avt extract` made.
      train_split: split to train on.
      eval_split: split to evaluate on while training.
      num_frames: frames per clip, spread evenly over `clip_sec`.
      clip_sec: length of a clip. Of a longer record, training takes a random clip and evaluation
        the one in the middle; a shorter one is filled up (last frame held, audio 0.0).
      frame_size_px: frames are square with this side.
      video_mean: per RGB channel, of pixels scaled to [0, 1]; subtracted on the device.
      video_std: per RGB channel, of pixels scaled to [0, 1].
      audio_mean: of the log-mel values; subtracted on the device. The default is AST's on AudioSet.
      audio_std: of the log-mel values; the result is divided by twice this on the device, as AST
        does.
      crop_scale: (smallest, largest) share of the frame's area that a training crop covers.
      crop_aspect: (smallest, largest) width / height of a training crop before it is made square.
      flip: mirror half of the training clips. False when left and right decide the class.
      freq_mask_bins: widest band of mel bins hidden in training; 0 = never.
      time_mask_frames: widest span of spectrogram rows hidden in training; 0 = never.
      eval_clips: clips of each record in an evaluation, spread evenly from its start to its end;
        1 = the one in the middle. The probabilities of all views of a record are averaged.
      eval_crops: squares of each frame in an evaluation, spread evenly along its longer side;
        1 = the one in the middle.
      num_threads: threads per process that prepare batches; 0 = in the caller's thread.
      num_workers: processes that prepare batches beside the main one, each with `num_threads`
        threads; 0 = none. Batches come back through shared memory (/dev/shm). -1 = training finds
        out, by trying for some seconds, how many of these and of `num_threads` to take; elsewhere
        one thread per core. What is prepared does not depend on any of them.
      prefetch: batches kept ready.
      max_damaged: different damaged records that a training passes over in each process, taking
        the next record instead; one more is an error. Shards are written with checksums, so more
        than a few mean a broken disk or copy. 0 = the first one is an error. In evaluation it
        always is.
    """

    path: str
    train_split: str = "train"
    eval_split: str = "val"
    num_frames: int = 16
    clip_sec: float = 8.0
    frame_size_px: int = 224
    video_mean: tuple[float, float, float] = (0.45, 0.45, 0.45)
    video_std: tuple[float, float, float] = (0.225, 0.225, 0.225)
    audio_mean: float = -4.2677393
    audio_std: float = 4.5689974
    crop_scale: tuple[float, float] = (0.08, 1.0)
    crop_aspect: tuple[float, float] = (0.75, 1.3333)
    flip: bool = True
    freq_mask_bins: int = 48
    time_mask_frames: int = 192
    eval_clips: int = 1
    eval_crops: int = 1
    num_threads: int = 2
    num_workers: int = 0
    prefetch: int = 4
    max_damaged: int = 10

    def __post_init__(self):
        for name in ("path", "train_split", "eval_split"):
            value = getattr(self, name)
            if not isinstance(value, str) or not value:
                _refuse(name, value, "give a name")
        if not isinstance(self.flip, bool):
            _refuse("flip", self.flip, "give True or False")
        self._check_whole("num_frames", 1, 4096)
        self._check_whole("frame_size_px", 8, _MAX_FRAME_PX)
        self._check_whole("freq_mask_bins", 0, MEL_BINS)
        self._check_whole("time_mask_frames", 0, round(_MAX_CLIP_SEC * FBANK_RATE_HZ))
        self._check_whole("eval_clips", 1, 1000)
        self._check_whole("eval_crops", 1, 100)
        self._check_whole("num_threads", 0, 256)
        self._check_whole("num_workers", AUTO_WORKERS, 256)
        self._check_whole("prefetch", 1, 1024)
        self._check_whole("max_damaged", 0, 1_000_000)
        self._check_number("clip_sec", 1 / FBANK_RATE_HZ, _MAX_CLIP_SEC)
        self._check_number("audio_mean", -1e6, 1e6)
        self._check_number("audio_std", 1e-6, 1e6)
        self._check_numbers("video_mean", 3, -1e6, 1e6)
        self._check_numbers("video_std", 3, 1e-6, 1e6)
        self._check_numbers("crop_scale", 2, 1e-4, 1.0, ascending=True)
        self._check_numbers("crop_aspect", 2, 0.01, 100.0, ascending=True)

    @property
    def fbank_frames(self) -> int:
        """Spectrogram rows per clip."""
        return round(self.clip_sec * FBANK_RATE_HZ)

    @property
    def eval_views(self) -> int:
        """Views of each record in an evaluation."""
        return self.eval_clips * self.eval_crops

    def _check_whole(self, name: str, low: int, high: int) -> None:
        value = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            _refuse(name, value, f"give a whole number from {low} to {high}")

    def _check_number(self, name: str, low: float, high: float) -> None:
        value = getattr(self, name)
        if not _is_number_within(value, low, high):
            _refuse(name, value, f"give a number from {low:g} to {high:g}")
        object.__setattr__(self, name, float(value))

    def _check_numbers(
        self, name: str, count: int, low: float, high: float, *, ascending: bool = False
    ) -> None:
        """Checks a tuple; JSON turned it into a list, so it is made one again."""
        value = getattr(self, name)
        if (
            not isinstance(value, tuple | list)
            or len(value) != count
            or not all(_is_number_within(item, low, high) for item in value)
            or (ascending and list(value) != sorted(value))
        ):
            order = ", the smaller one first" if ascending else ""
            _refuse(name, value, f"give {count} numbers from {low:g} to {high:g}{order}")
        object.__setattr__(self, name, tuple(map(float, value)))


def _is_number_within(value: Any, low: float, high: float) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value) and low <= value <= high


def _refuse(name: str, value: Any, advice: str) -> None:
    raise UserError(f"config.data.{name} is {value!r}; {advice}.")
