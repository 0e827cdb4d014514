"""Batches of the user's own: checked, filled up, repeated, and continued where a run stopped."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from avt_jax import axes
from avt_jax.audio.melspec import LOG_FLOOR
from avt_jax.errors import UserError
from avt_jax.models.inputs import InputSpec


class OwnBatches:
    """An endless iterator over batches that the user's program makes.

    Args:
      batches: any iterable. One that has `get_state` and `set_state` is continued with them;
        another is continued by going through what was seen before.
      spec: shape of what the model reads.
      classes: {label set: number of classes}.
      batch_size: clips of a batch.
    """

    def __init__(
        self,
        batches: Iterable[Mapping[str, Any]],
        spec: InputSpec,
        classes: Mapping[str, int],
        batch_size: int,
    ):
        self._batches = batches
        self._spec, self._classes, self._batch_size = spec, classes, batch_size
        self._running: Iterator[Mapping[str, Any]] = iter(batches)
        self._position = 0

    @property
    def num_damaged(self) -> int:
        """Records that were passed over: none, a bad batch is an error."""
        return 0

    def __iter__(self) -> OwnBatches:
        return self

    def __next__(self) -> dict[str, Any]:
        """The next batch, complete.

        Raises:
          UserError: the iterator has ended, or a batch is not what the config says.
        """
        batch = checked(self._take(), self._spec, self._classes, self._batch_size)
        if len(batch[axes.VALID]) != self._batch_size:
            raise UserError(
                f"batch {self._position} has {len(batch[axes.VALID])} clips, but "
                f"config.train.batch_size is {self._batch_size}; make them equal."
            )
        self._position += 1
        return batch

    def _take(self) -> Mapping[str, Any]:
        found = next(self._running, None)
        if found is None and iter(self._batches) is not self._batches:
            self._running = iter(self._batches)
            found = next(self._running, None)
        if found is None:
            raise UserError(
                f"the iterator of training batches ended after {self._position}; give one that "
                "goes on, a list, or a smaller config.train.steps."
            )
        return found

    def get_state(self) -> dict[str, Any]:
        """Where it stands, ready for JSON."""
        own = getattr(self._batches, "get_state", None)
        return {"batches": self._position, "own": own() if own else None}

    def set_state(self, state: Mapping[str, Any]) -> list[str]:
        """Goes to a saved position; returns what the user should know of it, nothing."""
        restore = getattr(self._batches, "set_state", None)
        if restore and state.get("own") is not None:
            restore(state["own"])
            self._running = iter(self._batches)
            self._position = state["batches"]
            return []
        for _ in itertools.repeat(None, state["batches"] - self._position):
            self._take()
            self._position += 1
        return []

    def close(self) -> None:
        """Nothing to end."""


def checked(
    batch: Mapping[str, Any], spec: InputSpec, classes: Mapping[str, int], most: int
) -> dict[str, Any]:
    """A batch with every key of `avt_jax.axes`, after checking what is given.

    Args:
      batch: "video" uint8 [b, t, h, w, 3], "audio" [b, s, f] raw log-mel and "labels" {label set:
        [b] int} at least. Without "has_audio" every clip has sound unless all of its bins are the
        log floor; without "has_video" every clip has a picture; without "group" every
        clip is from another video; without "valid" all are real.
      spec: shape of what the model reads.
      classes: {label set: number of classes}.
      most: most clips a batch may have.

    Raises:
      UserError: a key is missing, or an array of another shape, type or range.
    """
    for name in (axes.VIDEO, axes.AUDIO, axes.LABELS):
        if name not in batch:
            raise UserError(f"a batch has no {name!r}; give 'video', 'audio' and 'labels'.")
    video, audio = np.asarray(batch[axes.VIDEO]), np.asarray(batch[axes.AUDIO])
    side, count = spec.frame_size_px, len(video)
    wanted = {
        axes.VIDEO: (count, spec.num_frames, side, side, 3),
        axes.AUDIO: (count, spec.fbank_frames, spec.mel_bins),
    }
    for name, array in ((axes.VIDEO, video), (axes.AUDIO, audio)):
        if array.shape != wanted[name]:
            raise UserError(
                f"a batch's {name!r} has the shape {array.shape}; config.data asks for "
                f"{wanted[name]}."
            )
    if video.dtype != np.uint8:
        raise UserError(f"a batch's 'video' is of type {video.dtype}; give uint8 RGB levels.")
    if not 0 < count <= most:
        raise UserError(f"a batch has {count} clips; give 1 to {most}.")
    labels = {}
    for name, number in classes.items():
        label_b = np.asarray(batch[axes.LABELS].get(name, ()))
        right = label_b.shape == (count,) and np.issubdtype(label_b.dtype, np.integer)
        if not right or label_b.min() < 0 or label_b.max() >= number:
            raise UserError(
                f"a batch's labels[{name!r}] must be {count} whole numbers from 0 to {number - 1}."
            )
        labels[name] = label_b.astype(np.int32)
    audio = audio.astype(np.float32)
    filled = {
        axes.HAS_AUDIO: (audio > LOG_FLOOR + 1e-3).any((1, 2)),
        axes.HAS_VIDEO: np.ones(count, bool),
        axes.GROUP: np.arange(count, dtype=np.int32),
        axes.VALID: np.ones(count, bool),
        axes.ID: np.array([str(i) for i in range(count)]),
    }
    given = {name: np.asarray(batch[name]) for name in filled if name in batch}
    for name, array in given.items():
        if array.shape != (count,):
            raise UserError(f"a batch's {name!r} has the shape {array.shape}; give ({count},).")
    return {axes.VIDEO: video, axes.AUDIO: audio, axes.LABELS: labels, **filled, **given}
